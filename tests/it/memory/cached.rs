//! Cached data keys: each way in which one comes to its end.

use super::scenes::{Watch, head_of};
use crate::support::virtual_time::VirtualClock;
use envelock::blocking::Envelope;
use envelock::{CacheLimits, DataKeyCache, EncryptionContext};
use std::sync::Arc;
use std::time::Duration;

const PLAINTEXT: &[u8] = &[0x5A; 1_000];

/// Which key of `watch` is the latest, as what a cache keeps of it.
struct Kept<'a> {
    watch: &'a Watch,
    data_keys: usize,
}

impl Kept<'_> {
    /// Makes a message under a new data key, and looks for what is kept of that.
    fn seal(&mut self, envelope: &Envelope, context: &EncryptionContext) -> Vec<u8> {
        let message = envelope.encrypt(PLAINTEXT, context).unwrap();
        self.expect_one_more(&message);
        message
    }

    fn expect_one_more(&mut self, message: &[u8]) {
        self.data_keys += 1;
        self.watch.message(&head_of(message));
        self.watch.learn(&format!("prepared data-key-{}", self.data_keys));
        self.watch.expect(&[&format!("prepared-data-key-{}", self.data_keys)]);
    }
}

fn context(of: &str) -> EncryptionContext {
    EncryptionContext::from([("of", of)])
}

pub(super) fn ends() {
    let watch = Watch::new();
    let clock = VirtualClock::shared();
    let limits = CacheLimits::default().max_entries(4).max_messages(3).max_age(Duration::from_secs(100));
    let cache = DataKeyCache::with_clock(limits, Arc::<VirtualClock>::clone(&clock)).unwrap();
    let mut kept = Kept { watch: &watch, data_keys: 0 };

    // Invalidated, of both directions; a message in the making lives on, and takes its key with it.
    let envelope = Envelope::new(watch.builder(watch.raw("first")).shared_cache(&cache).build().unwrap());
    let message = kept.seal(&envelope, &context("a"));
    envelope.decrypt(&message, &context("a")).unwrap();
    kept.expect_one_more(&message);
    let writer = envelope.encrypt_writer(Vec::new(), &context("a")).unwrap();
    cache.invalidate_all();
    drop((writer, envelope));
    watch.expect_nothing();

    // Used up, and replaced by the next.
    let envelope = Envelope::new(watch.builder(watch.raw("second")).shared_cache(&cache).build().unwrap());
    let own = envelope.for_tenant("acme");
    kept.seal(&own, &context("a"));
    (0..2).for_each(|_| watch.message(&head_of(&own.encrypt(PLAINTEXT, &context("a")).unwrap())));
    kept.seal(&own, &context("a"));
    cache.invalidate_tenant(Some("acme"));

    // Evicted by others.
    let others: Vec<_> = (0..4).map(|number| kept.seal(&envelope, &context(&number.to_string()))).collect();
    assert_eq!((cache.len(), others.len()), (4, 4));
    (4..12).for_each(|number| drop(kept.seal(&envelope, &context(&number.to_string()))));
    assert_eq!(cache.len(), 4);

    // Over, and found to be so by a call for something else; and when the cache is told to look.
    clock.advance(Duration::from_secs(100));
    kept.seal(&envelope, &context("last"));
    assert_eq!(cache.len(), 1);
    clock.advance(Duration::from_secs(100));
    assert_eq!(cache.remove_expired(), 1);
    drop((envelope, own));
    watch.expect_nothing();
    assert!(cache.is_empty());

    // With the cache itself.
    let builder = watch.builder(watch.raw("third")).cache(CacheLimits::default());
    let envelope = Envelope::new(builder.build().unwrap());
    kept.seal(&envelope, &context("a"));
    drop(envelope);
    watch.expect_nothing();
}
