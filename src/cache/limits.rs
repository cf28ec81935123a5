//! How long, how often and for how much a cached data key serves.

use crate::error::{Error, Result};
use std::time::Duration;

/// What a data key is cached for, and how many are. The defaults suit most; docs/cache.md says how to
/// choose others.
///
/// ```
/// use envelock::CacheLimits;
/// use std::time::Duration;
/// let limits = CacheLimits::default().max_age(Duration::from_secs(60)).max_messages(1_000_000);
/// assert_eq!((limits.age(), limits.messages()), (Duration::from_secs(60), 1_000_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CacheLimits {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) age: Duration,
    pub(super) grace: Duration,
    pub(super) entries: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { messages: 1 << 24, bytes: 1 << 40, age: Duration::from_secs(300), grace: Duration::ZERO, entries: 1_000 }
    }
}

impl CacheLimits {
    /// Messages that one data key encrypts, 1 to 2^32. Default: 2^24. Exact: the next one is under a new
    /// data key.
    ///
    /// From three quarters of them on, a data key is renewed ahead, as for its [age](Self::max_age); one that
    /// serves fewer than 10,000 is used to its last.
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.messages = messages;
        self
    }

    /// Bytes of plaintext that one data key encrypts, at least 1. Default: 2^40 (1 TiB). Exact: a message
    /// that does not fit is under a new data key, and one that is longer than this is under one that
    /// nothing else uses. From three quarters of them on, a data key is renewed ahead; one that serves for less
    /// than 16 MiB is used to its last byte.
    ///
    /// A file is taken for as long as it is when it is begun. A message whose length is not known then (a
    /// writer, a stream, a pipe) draws a 1,024th of this at a time, at least 64 KiB, and gives back what is left
    /// over; so does a file that grows meanwhile. It fails with kind
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) where nothing is left to draw, before it exceeds
    /// the limit by a byte: for longer ones, there is
    /// [`Envelope::without_cache`](crate::Envelope::without_cache).
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// How long a data key serves, in either direction, counted from before the call to the key provider.
    /// Default: 300 s. So long may a key that the KMS has revoked still be used here.
    ///
    /// From three quarters of it on, a data key that is in use is renewed ahead of its end. One that
    /// a provider of several could not be reached for is renewed after 2.5 to 7.5 s already: its messages are
    /// without that recipient.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// How much longer a data key may *decrypt* while the key provider is
    /// [`Unavailable`](crate::ErrorKind::Unavailable). Default: zero, not at all. The provider's first refusal
    /// ends it; a call that fails otherwise (busy, input and output, internal) is not served from it, and ends
    /// nothing.
    pub fn offline_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many data keys are kept, of both directions together, 1 to 1,000,000. Default: 1,000. What is
    /// used often stays, however many others pass through. Up to 7 more are kept where the number is no
    /// multiple of 8.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.entries = entries;
        self
    }

    /// See [`max_messages`](Self::max_messages).
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// See [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// See [`max_age`](Self::max_age).
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// See [`offline_grace`](Self::offline_grace).
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// See [`max_entries`](Self::max_entries).
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::invalid_input(what));
        if !(1..=MESSAGES_MAX).contains(&self.messages) {
            return wrong(format!("a cached data key serves 1 to 2^32 messages, not {}", self.messages));
        }
        if self.bytes == 0 || self.age.is_zero() {
            return wrong("a cached data key serves for at least one byte and for some time".to_owned());
        }
        if !(1..=ENTRIES_MAX).contains(&self.entries) {
            return wrong(format!("a cache has 1 to {ENTRIES_MAX} entries, not {}", self.entries));
        }
        Ok(())
    }

    /// Messages and bytes that are few, at this part of the limits; none of a limit that is small itself.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a limit is as good as the part of its first 53 bits, and from 0 to the limit"
    )]
    pub(super) fn few(&self, part: f64) -> (u64, u64) {
        let few = |limit: u64, small| if limit < small { 0 } else { (limit as f64 * part) as u64 };
        (few(self.messages, AHEAD_MESSAGES), few(self.bytes, AHEAD_BYTES))
    }

    /// What a message of unknown length draws at a time.
    pub(super) fn grant(&self) -> u64 {
        (self.bytes / GRANTS).max(GRANT_MIN).min(self.bytes)
    }
}

/// Beyond it nobody has to argue about random IVs: a FLOE IV has 256 bits (docs/cache.md).
const MESSAGES_MAX: u64 = 1 << 32;
const ENTRIES_MAX: usize = 1_000_000;
/// A data key for fewer messages or bytes is not renewed ahead of its last: whoever asks for so few is busy for a
/// tenth of them no longer than a call takes, and the tenth to a quarter that a renewal may leave unused would be
/// calls for nothing.
const AHEAD_MESSAGES: u64 = 10_000;
const AHEAD_BYTES: u64 = 16 << 20;
/// So many messages of unknown length may be under way under one data key.
const GRANTS: u64 = 1_024;
const GRANT_MIN: u64 = 64 << 10;
