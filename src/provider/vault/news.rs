//! Tells caches that a key, or the right to use it, is gone.

use super::refusal::TooOld;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::Revocations;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long what was told is no news: who can have old slots opened shall not keep caches empty.
const STALE: Duration = Duration::from_secs(10);

/// What is told, and when it was told last.
pub(super) struct News {
    revocations: Revocations,
    clock: Arc<dyn Clock>,
    told: Mutex<Option<Duration>>,
}

impl News {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { revocations: Revocations::default(), clock, told: Mutex::new(None) }
    }

    pub(super) fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    /// Passes an outcome on, after telling what it means for cached data keys.
    pub(super) fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|error| {
            if revokes(error) && self.is_news() {
                self.revocations.bump();
            }
        })
    }

    fn is_news(&self) -> bool {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.is_none_or(|before| now.saturating_sub(before) >= STALE);
        if is_news {
            *told = Some(now);
        }
        is_news
    }
}

/// A key that is not there, a version that was shut out, and a token, a role or a policy that was taken away. Policies of Vault
/// are about keys, not about contexts: they are of all tenants alike.
fn revokes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NoMatchingKey | ErrorKind::KeyDenied)
        || error.source().is_some_and(|source| source.is::<TooOld>())
}
