//! Data keys that are kept for a while, so that a service that encrypts and decrypts many small messages
//! makes a handful of calls to its key provider.
//!
//! An entry is one data key of one tenant, provider and KMS context: either one that encrypts new messages,
//! within its limits, or that of one encrypted data key. [`key`] is what it is found by, [`flight`] makes
//! the calls for it one at a time, and [`held`] is the key and what it still may do. Every message has its
//! own keys, derived from the data key and a random IV.

mod accounts;
#[cfg(not(feature = "tokio"))]
mod background_none;
#[cfg(feature = "tokio")]
mod background_tokio;
pub(crate) mod binding;
mod call;
mod disowned;
mod flight;
pub(crate) mod handed;
pub(crate) mod held;
mod key;
pub(crate) mod limits;
#[cfg(feature = "metrics")]
mod publish;
mod sync;
#[cfg(not(feature = "tracing"))]
mod trace_none;
#[cfg(feature = "tracing")]
mod trace_tracing;

pub use accounts::{CacheCounts, CacheStatistics};

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::provider::Recipient;
use accounts::{Account, Accounts, Counters};
#[cfg(not(feature = "tokio"))]
use background_none as background;
#[cfg(feature = "tokio")]
use background_tokio as background;
use disowned::Disowned;
use flight::Flight;
use held::{Age, Epoch, Held};
use key::{Key, Probe, Shared, is_of};
use limits::CacheLimits;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter};
use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
#[cfg(not(feature = "tracing"))]
use trace_none as trace;
#[cfg(feature = "tracing")]
use trace_tracing as trace;

/// A cache of data keys, for one envelope or for several. Cheap to clone: clones are the same cache.
///
/// Entries of different tenants ([`Envelope::for_tenant`](crate::Envelope::for_tenant)), of different
/// [provider identities](crate::KeyProvider::identity), encryption contexts or uses are never shared. All
/// of them are wiped when they are evicted, renewed, invalidated or found to be over, as soon as the last
/// message under them lets them go.
///
/// ```
/// use envelock::{CacheLimits, DataKeyCache, EncryptionContext, Envelope, RawKeyProvider};
/// # fn main() -> Result<(), envelock::Error> {
/// # pollster::block_on(async {
/// let cache = DataKeyCache::new(CacheLimits::default())?;
/// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).shared_cache(&cache).build()?;
/// let context = EncryptionContext::from([("table", "orders")]);
/// let acme = envelope.for_tenant("acme");
/// for _ in 0..1000 {
///     acme.encrypt(b"attack at dawn", &context).await?;
/// }
/// let of_acme = &cache.statistics()[1];
/// assert_eq!((of_acme.calls(), of_acme.calls_saved()), (1, 999));
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct DataKeyCache {
    inner: Arc<Inner>,
}

struct Inner {
    limits: CacheLimits,
    clock: Arc<dyn Clock>,
    map: Map,
    /// Slots that a provider said are not its own, apart from the data keys: strangers' messages fill it.
    disowned: Disowned,
    hasher: RandomState,
    /// Held while an entry is added, so that one key has one entry.
    adding: Mutex<()>,
    accounts: Accounts,
    /// Envelopes so far whose provider has no identity.
    nameless: AtomicU64,
    /// When entries that are over are next looked for, in milliseconds.
    next_sweep: AtomicU64,
}

type Map = Cache<Shared, Arc<Slot>, UnitWeighter, RandomState, Evicting>;

/// An entry: what it is found by, and the flight that brings it.
struct Slot {
    key: Arc<Key>,
    flight: Arc<Flight<Arc<Held>, Failure>>,
    account: Arc<Account>,
}

/// Which way a data key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    #[cfg_attr(not(any(feature = "metrics", feature = "tracing")), expect(dead_code, reason = "for their labels"))]
    fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// Something for whoever watches the cache.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody watches"))]
struct Told<'a> {
    tenant: Option<&'a str>,
    direction: Direction,
    happened: Happened<'a>,
}

#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody watches"))]
enum Happened<'a> {
    Fetched,
    Renewed,
    Failed(&'a Error),
    Graced,
    Evicted,
}

impl Slot {
    fn direction(&self) -> Direction {
        if self.key.slot.is_none() { Direction::Encrypt } else { Direction::Decrypt }
    }

    fn counters(&self) -> &Counters {
        match self.direction() {
            Direction::Encrypt => &self.account.encrypt,
            Direction::Decrypt => &self.account.decrypt,
        }
    }

    fn tell(&self, happened: Happened<'_>) {
        let tenant = self.key.partition.tenant.as_deref();
        trace::tell(&Told { tenant, direction: self.direction(), happened });
    }
}

/// A call to a provider that failed.
#[derive(Clone, Debug)]
struct Failure {
    cause: Cause,
    /// Until then it answers for further calls.
    until: Duration,
}

#[derive(Clone, Debug)]
enum Cause {
    Error(Arc<Error>),
    NotMine,
}

/// The renewal of an entry, for whoever has the time.
type Renewal = Pin<Box<call::Ride>>;

impl DataKeyCache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a limit outside its range.
    pub fn new(limits: CacheLimits) -> Result<Self> {
        Self::with_clock(limits, Arc::new(SystemClock))
    }

    /// An empty cache whose entries age by another clock: for tests.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(limits: CacheLimits, clock: Arc<dyn Clock>) -> Result<Self> {
        limits.check()?;
        let shards = if limits.entries < SHARDED_FROM { 1 } else { SHARDS };
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(limits.entries)
            .weight_capacity(limits.entries as u64)
            .build()
            .map_err(|e| Error::internal(format!("the cache's options: {e}")))?;
        let hasher = RandomState::new();
        let map = Cache::with_options(options, UnitWeighter, hasher.clone(), Evicting);
        let disowned = Disowned::new(limits.entries, hasher.clone());
        let inner = Inner {
            limits,
            clock,
            map,
            disowned,
            hasher,
            adding: Mutex::new(()),
            accounts: Accounts::default(),
            nameless: AtomicU64::new(0),
            next_sweep: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> &CacheLimits {
        &self.inner.limits
    }

    /// How many entries it has: data keys, and calls for some.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.map.len()
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.map.is_empty()
    }

    /// What it did, for each tenant and provider, sorted by them. At most 10,000 that nobody uses any more, or
    /// as many as are in use, are told apart; others are added up.
    #[must_use]
    pub fn statistics(&self) -> Vec<CacheStatistics> {
        self.inner.accounts.read()
    }

    /// Forgets every data key. A call to a provider that is under way still serves whoever made it, and
    /// nobody else.
    pub fn invalidate_all(&self) {
        self.discard(|_| true);
    }

    /// Forgets every data key of a tenant: with `None`, those of envelopes that name none.
    pub fn invalidate_tenant(&self, tenant: Option<&str>) {
        self.discard(|slot| slot.key.partition.tenant.as_deref() == tenant);
    }

    /// Forgets every data key that is encrypted under a provider's key: provider name and key id as they
    /// stand in messages ([`KeyProvider::recipients`](crate::KeyProvider::recipients),
    /// [`Header::slots`](crate::Header::slots)).
    pub fn invalidate_key(&self, recipient: &Recipient) {
        self.discard(|slot| match slot.key.slot {
            Some(_) => slot.key.is_of(recipient),
            // One that is on its way may be.
            None => slot.flight.peek(|held| Some(held.slots().iter().any(|it| is_of(it, recipient)))).unwrap_or(true),
        });
    }

    /// Wipes what is over, and returns how many entries that were. The cache does so by itself about four
    /// times in each [`max_age`](CacheLimits::max_age), but only when it makes a call: a service that
    /// falls idle and must not keep its last keys calls this.
    pub fn remove_expired(&self) -> usize {
        let before = self.len();
        let now = self.inner.clock.now();
        // Whoever has a slot in hand may be about to make the call for it.
        self.inner.map.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_spent(now));
        before.saturating_sub(self.len())
    }

    fn discard(&self, which: impl Fn(&Slot) -> bool) {
        self.inner.disowned.clear();
        let gone = RefCell::new(Vec::new());
        self.inner.map.retain(|_, slot| {
            let stays = !which(slot);
            if !stays {
                gone.borrow_mut().push(Arc::clone(slot));
            }
            stays
        });
        // Outside the map's locks, since it wakes tasks.
        gone.into_inner().iter().for_each(|slot| slot.flight.invalidate());
    }

    /// The entry of `probe`, which is added if it is not there.
    fn slot(&self, probe: Probe<'_>, account: &Arc<Account>) -> Arc<Slot> {
        self.inner.map.get(&probe).unwrap_or_else(|| self.add(probe, account))
    }

    /// The entry of a slot; `None` if the provider said of late that the slot is not its own.
    fn slot_to_read(&self, probe: Probe<'_>, account: &Arc<Account>) -> Option<Arc<Slot>> {
        if let Some(slot) = self.inner.map.get(&probe) {
            return Some(slot);
        }
        let known = self.inner.disowned.knows(&probe, self.inner.clock.now());
        if known { None } else { Some(self.add(probe, account)) }
    }

    fn add(&self, probe: Probe<'_>, account: &Arc<Account>) -> Arc<Slot> {
        let mut evicted = Vec::new();
        let slot = {
            let _adding = self.inner.adding.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = self.inner.map.get(&probe) {
                return slot;
            }
            let key = Arc::new(probe.to_key());
            let slot = Arc::new(Slot { key, flight: Arc::new(Flight::new()), account: Arc::clone(account) });
            let key = Shared(Arc::clone(&slot.key));
            self.inner.map.insert_with_lifecycle(key, Arc::clone(&slot), &mut evicted);
            slot
        };
        // Outside all locks: whoever is told may use the cache, and keys are wiped.
        for slot in evicted {
            slot.counters().evictions.fetch_add(1, Ordering::Relaxed);
            slot.tell(Happened::Evicted);
        }
        slot
    }

    /// Remembers for a while that a slot is not its provider's own, and removes its entry.
    fn disown(&self, slot: &Arc<Slot>, asked: Duration, epoch: Epoch) {
        self.inner.disowned.remember(&slot.key, asked, self.inner.limits.age, epoch);
        self.forget(slot);
    }

    /// Removes an entry that nothing came of.
    fn forget(&self, slot: &Arc<Slot>) {
        self.inner.map.remove_if(&slot.key.probe(), |found| Arc::ptr_eq(found, slot));
    }

    /// Removes what is over, if that was not done lately.
    fn sweep(&self) {
        let now = millis(self.inner.clock.now());
        let next = self.inner.next_sweep.load(Ordering::Relaxed);
        let later = now.saturating_add(millis(self.inner.limits.age / SWEEPS));
        let due = now >= next;
        if due && self.inner.next_sweep.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.remove_expired();
        }
    }
}

impl Slot {
    fn is_spent(&self, now: Duration) -> bool {
        self.flight.is_spent(|held| held.age(now) == Age::Over, |failure| now >= failure.until)
    }
}

impl fmt::Debug for DataKeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeyCache").field("entries", &self.len()).field("limits", self.limits()).finish()
    }
}

/// Hands over what makes room for others.
#[derive(Clone, Debug)]
struct Evicting;

impl Lifecycle<Shared, Arc<Slot>> for Evicting {
    type RequestState = Vec<Arc<Slot>>;

    fn on_evict(&self, evicted: &mut Vec<Arc<Slot>>, _: Shared, slot: Arc<Slot>) {
        evicted.push(slot);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Parts of the map with a lock of their own, where it has as many entries as [`SHARDED_FROM`].
const SHARDS: usize = 8;
const SHARDED_FROM: usize = 512;
/// How often entries that are over are looked for while one ages.
const SWEEPS: u32 = 4;
