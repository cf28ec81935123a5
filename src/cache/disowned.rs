//! Slots that a provider said are not its own. They are apart from the data keys: strangers' messages fill it.

use crate::cache::held::Epoch;
use crate::cache::key::{Key, Probe, Shared};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::collections::hash_map::RandomState;
use std::sync::Arc;
use std::time::Duration;

/// The slots that were of late not their provider's own.
pub(super) struct Disowned {
    map: Cache<Shared, Answer, SlotWeighter, RandomState>,
}

impl Disowned {
    /// For a cache of so many entries.
    pub(super) fn new(entries: usize, hasher: RandomState) -> Self {
        let entries = entries.min(ENTRIES_MAX);
        Self { map: Cache::with(entries, BYTES_MAX, SlotWeighter, hasher, DefaultLifecycle::default()) }
    }

    pub(super) fn knows(&self, probe: &Probe<'_>, now: Duration) -> bool {
        self.map.get(probe).is_some_and(|answer| now < answer.until && !answer.epoch.is_over())
    }

    /// Its provider was asked at `asked`, where a data key would be kept for `age`.
    pub(super) fn remember(&self, key: &Arc<Key>, asked: Duration, age: Duration, epoch: Epoch) {
        let until = asked.saturating_add(age.min(FOR));
        self.map.insert(Shared(Arc::clone(key)), Answer { until, epoch });
    }

    pub(super) fn clear(&self) {
        self.map.clear();
    }
}

/// What is remembered of one.
#[derive(Clone)]
struct Answer {
    until: Duration,
    epoch: Epoch,
}

/// Weighs what is remembered of a slot, in bytes.
#[derive(Clone)]
struct SlotWeighter;

impl Weighter<Shared, Answer> for SlotWeighter {
    fn weight(&self, key: &Shared, _: &Answer) -> u64 {
        let Key { slot, kms, .. } = &*key.0;
        let slot = slot.as_ref().map_or(0, |it| it.provider().len() + it.key_id().len() + it.wrapped().len());
        (COST + slot + kms.encoded().len()) as u64
    }
}

/// How long a slot that is not the provider's own is not asked about again: a key that the provider has
/// been given since then opens its messages no later.
const FOR: Duration = Duration::from_secs(1);
/// What is remembered of such slots at the most.
const BYTES_MAX: u64 = 1 << 20;
const ENTRIES_MAX: usize = 4_000;
/// What one takes besides its bytes, roughly.
const COST: usize = 200;
