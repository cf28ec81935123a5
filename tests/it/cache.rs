//! The cache of data keys: how many calls reach the provider, whom a data key serves, and for how long.

mod ahead;
mod crowd;
mod files;
#[cfg(feature = "test-util")]
mod hit;
mod limits;
mod records;
mod separation;
mod stalled;
mod time;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod watched;

use crate::support::virtual_time::{Remote, VirtualClock};
use envelock::{CacheCounts, CacheLimits, DataKeyCache, EncryptionContext, Envelope, Header};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An envelope with a cache on a clock of the test's, and its provider.
struct Scene {
    clock: Arc<VirtualClock>,
    cache: DataKeyCache,
    remote: Arc<Remote>,
    envelope: Envelope,
}

impl Scene {
    fn new(limits: CacheLimits, remote: impl FnOnce(&Arc<VirtualClock>) -> Remote) -> Self {
        let clock = VirtualClock::shared();
        let cache = DataKeyCache::with_clock(limits, Arc::<VirtualClock>::clone(&clock)).unwrap();
        let remote = Arc::new(remote(&clock));
        let envelope = Envelope::builder(Arc::clone(&remote)).shared_cache(&cache).build().unwrap();
        Self { clock, cache, remote, envelope }
    }

    /// The counts of all tenants and providers, added up.
    fn counts(&self) -> [CacheCounts; 2] {
        totals(&self.cache)
    }

    /// The cache counted the calls that the provider did.
    #[track_caller]
    fn agree(&self) -> [CacheCounts; 2] {
        let [encrypt, decrypt] = self.counts();
        assert_eq!(encrypt.calls(), self.remote.generates.load(Ordering::SeqCst) as u64, "{encrypt:?}");
        let decrypts = self.remote.decrypts.load(Ordering::SeqCst) + self.remote.disowned.load(Ordering::SeqCst);
        assert_eq!(decrypt.calls(), decrypts as u64, "{decrypt:?}");
        let failures = self.remote.failures.load(Ordering::SeqCst) as u64;
        assert_eq!(encrypt.failures + decrypt.failures, failures, "{encrypt:?} {decrypt:?}");
        [encrypt, decrypt]
    }
}

fn totals(cache: &DataKeyCache) -> [CacheCounts; 2] {
    let mut all = [CacheCounts::default(); 2];
    for of in cache.statistics() {
        for (sum, part) in all.iter_mut().zip([of.encrypt, of.decrypt]) {
            sum.hits += part.hits;
            sum.waits += part.waits;
            sum.misses += part.misses;
            sum.renewals += part.renewals;
            sum.failures += part.failures;
            sum.graces += part.graces;
            sum.evictions += part.evictions;
            sum.bytes += part.bytes;
        }
    }
    all
}

/// What tells the data keys of messages apart: the first slot's wrapped key.
fn data_key_of(message: &[u8]) -> Vec<u8> {
    Header::parse(message).unwrap().slots()[0].wrapped().to_vec()
}

fn context(of: usize) -> EncryptionContext {
    EncryptionContext::from([("number", of.to_string())])
}
