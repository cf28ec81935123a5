//! What the cache of data keys counts, as the embedded KMS takes it.

use crate::cache::CacheStatistics;
use crate::kms::CacheFigures;

impl From<&[CacheStatistics]> for CacheFigures {
    /// The figures of all of them together: `DataKeyCache::statistics` of a process's caches.
    fn from(all: &[CacheStatistics]) -> Self {
        let sum = |of: fn(&CacheStatistics) -> u64| all.iter().map(of).fold(0, u64::saturating_add);
        Self {
            encrypt_calls: sum(|it| it.encrypt.calls()),
            encrypt_saved: sum(|it| it.encrypt.calls_saved()),
            decrypt_calls: sum(|it| it.decrypt.calls()),
            decrypt_saved: sum(|it| it.decrypt.calls_saved()),
        }
    }
}
