//! A data key that is kept: what it still may do, and for how long.

use crate::cache::accounts::Account;
use crate::cache::limits::CacheLimits;
use crate::crypto::{self, HkdfKey};
use crate::error::{Error, Result};
use crate::material::{DataKey, EncryptedDataKey};
use crate::provider::Revocations;
use crate::segments::Meter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A cached data key, as the keyed HMAC that is all it is ever used for. Wiped when the last message
/// that is using it lets it go.
#[derive(Debug)]
pub(crate) struct Held {
    key: HkdfKey,
    /// For new messages; none where it decrypts.
    slots: Vec<EncryptedDataKey>,
    usage: Arc<Usage>,
    life: Life,
    epoch: Epoch,
}

/// When what ends. Times are of the cache's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    renew: Duration,
    end: Duration,
    grace: Duration,
}

impl Life {
    /// Of an entry whose provider was asked at `asked`. `grace` is how much longer it serves an outage.
    pub(super) fn new(asked: Duration, age: Duration, grace: Duration, jitter: f64) -> Self {
        let end = asked.saturating_add(age);
        let renew = asked.saturating_add(age.mul_f64(renewed_at(jitter)));
        Self { renew, end, grace: end.saturating_add(grace) }
    }

    /// To be renewed at `time`, if it was to be later.
    pub(super) fn renewed_by(self, time: Duration) -> Self {
        Self { renew: self.renew.min(time), ..self }
    }
}

/// Which revocations were known when the provider was asked.
#[derive(Clone, Debug)]
pub(super) struct Epoch(Option<(Revocations, u64)>);

impl Epoch {
    /// To be taken before the provider is asked: what it revokes meanwhile counts as later.
    pub(super) fn now(revocations: Option<&Revocations>) -> Self {
        Self(revocations.map(|it| (it.clone(), it.epoch())))
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|(revocations, epoch)| revocations.epoch() != *epoch)
    }
}

/// What a caller is told of an entry's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Fresh,
    /// To be renewed ahead of its end.
    Ageing,
    /// Over, but for an outage.
    Grace,
    Over,
}

impl Held {
    pub(super) fn new(key: &DataKey, slots: Vec<EncryptedDataKey>, usage: Usage, life: Life, epoch: Epoch) -> Self {
        Self { key: crypto::hkdf_sha384(key.expose()), slots, usage: Arc::new(usage), life, epoch }
    }

    pub(crate) fn key(&self) -> &HkdfKey {
        &self.key
    }

    pub(crate) fn slots(&self) -> &[EncryptedDataKey] {
        &self.slots
    }

    pub(super) fn age(&self, now: Duration) -> Age {
        if self.epoch.is_over() {
            Age::Over
        } else if now < self.life.renew {
            Age::Fresh
        } else if now < self.life.end {
            Age::Ageing
        } else if now < self.life.grace {
            Age::Grace
        } else {
            Age::Over
        }
    }

    /// Takes one message and its bytes from what is left; `None` if that is too little.
    pub(super) fn take(&self, need: Need) -> Option<Taken> {
        let left = self.usage.take_message(need.whole().unwrap_or(self.usage.grant))?;
        let grant = match need {
            Need::Whole(bytes) => {
                self.usage.account.encrypt.bytes.fetch_add(bytes, Ordering::Relaxed);
                None
            }
            Need::About(bytes) => Some(self.grant(bytes)),
            Need::Growing => Some(self.grant(self.usage.grant)),
        };
        Some(Taken { grant, left })
    }

    /// Of bytes that were taken.
    fn grant(&self, bytes: u64) -> Grant {
        Grant { left: AtomicU64::new(bytes), usage: Arc::clone(&self.usage) }
    }
}

/// What a new message will take from its data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// So many bytes of plaintext, and no more.
    Whole(u64),
    /// So many, unless the source changes meanwhile.
    About(u64),
    /// Nobody knows yet.
    Growing,
}

impl Need {
    pub(super) fn whole(self) -> Option<u64> {
        match self {
            Self::Whole(bytes) | Self::About(bytes) => Some(bytes),
            Self::Growing => None,
        }
    }
}

/// What a message was given of a data key.
#[derive(Debug)]
pub(super) struct Taken {
    /// What pays for plaintext, where its length is not known.
    pub(super) grant: Option<Grant>,
    pub(super) left: Left,
}

/// How much of a data key's limits is left for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Enough,
    /// So little that it is to be renewed ahead.
    Little,
}

/// What is left of a data key's limits.
#[derive(Debug)]
pub(super) struct Usage {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// With fewer messages or bytes left, it is to be renewed ahead.
    few_messages: u64,
    few_bytes: u64,
    grant: u64,
    account: Arc<Account>,
}

impl Usage {
    pub(super) fn new(limits: &CacheLimits, account: Arc<Account>, jitter: f64) -> Self {
        let (messages, bytes) = (AtomicU64::new(limits.messages), AtomicU64::new(limits.bytes));
        let (few_messages, few_bytes) = limits.few(1.0 - renewed_at(jitter));
        Self { messages, bytes, few_messages, few_bytes, grant: limits.grant(), account }
    }

    fn take_message(&self, bytes: u64) -> Option<Left> {
        let messages = take(&self.messages, 1)?;
        let Some(bytes) = take(&self.bytes, bytes) else {
            // The message given back may come too late for somebody else: then the key serves one less.
            self.messages.fetch_add(1, Ordering::AcqRel);
            return None;
        };
        Some(if messages < self.few_messages || bytes < self.few_bytes { Left::Little } else { Left::Enough })
    }
}

/// All of `count`, or nothing; what is left after it.
fn take(from: &AtomicU64, count: u64) -> Option<u64> {
    let before = from.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(count)).ok()?;
    Some(before - count)
}

/// Bytes that a message has drawn whose length is not sure, and may draw. Given back what it did not use.
#[derive(Debug)]
pub(crate) struct Grant {
    left: AtomicU64,
    usage: Arc<Usage>,
}

impl Meter for Grant {
    fn pay(&self, bytes: u64) -> Result<()> {
        while take(&self.left, bytes).is_none() {
            let usual = self.usage.grant.max(bytes);
            let drawn = match take(&self.usage.bytes, usual) {
                Some(_) => usual,
                None => self.usage.bytes.swap(0, Ordering::AcqRel),
            };
            if drawn == 0 {
                return Err(Error::limit(
                    "the data key of this message has encrypted as many bytes as its cache allows",
                )
                .with_advice("encrypt it anew by `Envelope::without_cache`, or raise `CacheLimits::max_bytes`"));
            }
            self.left.fetch_add(drawn, Ordering::AcqRel);
        }
        self.usage.account.encrypt.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.usage.bytes.fetch_add(*self.left.get_mut(), Ordering::AcqRel);
    }
}

/// The part of an entry's age, messages or bytes at which it is renewed if it is in use. `jitter`, from 0 to 1, is
/// drawn for each, so that those of one moment are not all renewed in another one.
fn renewed_at(jitter: f64) -> f64 {
    RENEW_FROM + jitter * (RENEW_TO - RENEW_FROM)
}

const RENEW_FROM: f64 = 0.75;
const RENEW_TO: f64 = 0.9;
