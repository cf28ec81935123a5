//! Statistics for the crate `metrics`.

use crate::cache::accounts::CacheCounts;
use crate::cache::{DataKeyCache, Direction};
use ::metrics::{counter, gauge};

impl DataKeyCache {
    /// Tells the recorder of the crate `metrics` what [`statistics`](Self::statistics) says now: counters
    /// `envelock_cache_…_total` (hits, waits, misses, renewals, failures, graces, evictions, bytes) with the labels
    /// `tenant`, `provider` and `direction`, and the gauge `envelock_cache_entries`.
    ///
    /// To be called before each time that they are read, or every few seconds: a hit itself tells nobody, so
    /// that it costs nothing. The labels of a tenant or provider that is not named are empty.
    #[expect(clippy::cast_precision_loss, reason = "there are not that many entries")]
    pub fn publish_metrics(&self) {
        gauge!("envelock_cache_entries").set(self.len() as f64);
        for of in self.statistics() {
            for (direction, counts) in [(Direction::Encrypt, of.encrypt), (Direction::Decrypt, of.decrypt)] {
                let labels = [
                    ("tenant", of.tenant.clone().unwrap_or_default()),
                    ("provider", of.provider.clone().unwrap_or_default()),
                    ("direction", direction.name().to_owned()),
                ];
                let CacheCounts { hits, waits, misses, renewals, failures, graces, evictions, bytes } = counts;
                counter!("envelock_cache_hits_total", &labels).absolute(hits);
                counter!("envelock_cache_waits_total", &labels).absolute(waits);
                counter!("envelock_cache_misses_total", &labels).absolute(misses);
                counter!("envelock_cache_renewals_total", &labels).absolute(renewals);
                counter!("envelock_cache_failures_total", &labels).absolute(failures);
                counter!("envelock_cache_graces_total", &labels).absolute(graces);
                counter!("envelock_cache_evictions_total", &labels).absolute(evictions);
                counter!("envelock_cache_bytes_total", &labels).absolute(bytes);
            }
        }
    }
}
