//! What a cache did, for each tenant and provider.

use crate::cache::key::Partition;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// What a cache did for one tenant and one provider. Counts begin with the cache, and only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// The tenant; `None` for envelopes that name none.
    pub tenant: Option<String>,
    /// The provider's identity; `#` and a number for an envelope whose provider has none. `None` where many
    /// that nobody uses any more were added up.
    pub provider: Option<String>,
    /// Data keys for new messages.
    pub encrypt: CacheCounts,
    /// Data keys of messages that are read.
    pub decrypt: CacheCounts,
}

/// What happened to the data keys of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Data keys that were at hand.
    pub hits: u64,
    /// Data keys that came of another caller's call.
    pub waits: u64,
    /// Calls that a caller began and waited for: those that were given up, and those that found a slot to be
    /// another provider's, among them.
    pub misses: u64,
    /// Calls made to renew a data key ahead of its end.
    pub renewals: u64,
    /// Calls, of the two kinds before, that failed.
    pub failures: u64,
    /// Data keys served past their age, since the provider was unavailable.
    pub graces: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Bytes of plaintext encrypted. Zero for the other direction.
    pub bytes: u64,
}

impl CacheCounts {
    /// Calls to the provider: every one of them.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.misses + self.renewals
    }

    /// Calls that would have been made without a cache, less those that only a cache makes.
    #[must_use]
    pub fn calls_saved(&self) -> u64 {
        (self.hits + self.waits + self.graces).saturating_sub(self.renewals)
    }

    fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.waits += other.waits;
        self.misses += other.misses;
        self.renewals += other.renewals;
        self.failures += other.failures;
        self.graces += other.graces;
        self.evictions += other.evictions;
        self.bytes += other.bytes;
    }
}

impl CacheStatistics {
    /// Calls to the provider, in both directions.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.encrypt.calls() + self.decrypt.calls()
    }

    /// Calls saved, in both directions.
    #[must_use]
    pub fn calls_saved(&self) -> u64 {
        self.encrypt.calls_saved() + self.decrypt.calls_saved()
    }

    /// What the calls saved would have cost, at `price` for 10,000 calls.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "money is not counted to the last of 2^53 calls")]
    pub fn money_saved(&self, price: f64) -> f64 {
        self.calls_saved() as f64 * price / 10_000.0
    }
}

/// The counters of one direction.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) renewals: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) graces: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Counters {
    fn read(&self) -> CacheCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheCounts {
            hits: read(&self.hits),
            waits: read(&self.waits),
            misses: read(&self.misses),
            renewals: read(&self.renewals),
            failures: read(&self.failures),
            graces: read(&self.graces),
            evictions: read(&self.evictions),
            bytes: read(&self.bytes),
        }
    }
}

/// The counters of one tenant and provider.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) encrypt: Counters,
    pub(super) decrypt: Counters,
}

/// The accounts of a cache.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    open: RwLock<Open>,
}

#[derive(Debug)]
struct Open {
    by_partition: HashMap<Arc<Partition>, Arc<Account>>,
    /// From how many on those that nobody uses are looked for.
    full: usize,
    /// Those that were closed, added up.
    closed: [CacheCounts; 2],
}

impl Default for Open {
    fn default() -> Self {
        Self { by_partition: HashMap::new(), full: ACCOUNTS_MAX, closed: <[CacheCounts; 2]>::default() }
    }
}

impl Accounts {
    /// The account of `partition`, and the one value of that which all who are in it share.
    pub(super) fn of(&self, partition: Partition) -> (Arc<Partition>, Arc<Account>) {
        if let Some(known) = self.open.read().unwrap_or_else(PoisonError::into_inner).find(&partition) {
            return known;
        }
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.find(&partition) {
            return known;
        }
        if open.by_partition.len() >= open.full {
            open.close_unused();
            // Where most are in use, not each new one looks through all of them again.
            open.full = ACCOUNTS_MAX.max(2 * open.by_partition.len());
        }
        let (partition, account) = (Arc::new(partition), Arc::<Account>::default());
        open.by_partition.insert(Arc::clone(&partition), Arc::clone(&account));
        (partition, account)
    }

    pub(super) fn read(&self) -> Vec<CacheStatistics> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = open
            .by_partition
            .iter()
            .map(|(partition, account)| CacheStatistics {
                tenant: partition.tenant.as_deref().map(str::to_owned),
                provider: Some(partition.provider.to_string()),
                encrypt: account.encrypt.read(),
                decrypt: account.decrypt.read(),
            })
            .collect();
        let [encrypt, decrypt] = open.closed;
        if open.closed != <[CacheCounts; 2]>::default() {
            all.push(CacheStatistics { tenant: None, provider: None, encrypt, decrypt });
        }
        all.sort_by(|one, other| (&one.tenant, &one.provider).cmp(&(&other.tenant, &other.provider)));
        all
    }
}

impl Open {
    fn find(&self, partition: &Partition) -> Option<(Arc<Partition>, Arc<Account>)> {
        let (partition, account) = self.by_partition.get_key_value(partition)?;
        Some((Arc::clone(partition), Arc::clone(account)))
    }

    /// Adds up the accounts that no envelope and no entry holds, and forgets whose they were.
    fn close_unused(&mut self) {
        let closed = &mut self.closed;
        self.by_partition.retain(|_, account| {
            let used = Arc::strong_count(account) > 1;
            if !used {
                closed[0].add(&account.encrypt.read());
                closed[1].add(&account.decrypt.read());
            }
            used
        });
    }
}

/// Tenants that statistics name, at the most, besides as many as those in use.
const ACCOUNTS_MAX: usize = 10_000;
