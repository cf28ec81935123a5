//! Calls to key providers: paced, counted, many data keys in one where the KMS takes them.

use crate::clock::{Clock, SystemClock};
use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, KeyProvider};
use crate::worker;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Calls that a run made: one for many data keys counts once, and so does one that failed. Retries inside a
/// provider are its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallCounts {
    /// To decrypt data keys.
    pub decrypt: u64,
    /// To encrypt data keys.
    pub encrypt: u64,
    /// To re-encrypt data keys inside a KMS.
    pub re_encrypt: u64,
}

impl CallCounts {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.decrypt + self.encrypt + self.re_encrypt
    }
}

/// The way to the providers of one run.
pub(super) struct Calls {
    pace: Pace,
    decrypt: AtomicU64,
    encrypt: AtomicU64,
    re_encrypt: AtomicU64,
}

/// The run is to stop: nothing more is asked.
#[derive(Debug)]
pub(super) struct Stopped;

impl Calls {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, decrypt: AtomicU64::new(0), encrypt: AtomicU64::new(0), re_encrypt: AtomicU64::new(0) }
    }

    pub(super) fn counts(&self) -> CallCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CallCounts { decrypt: of(&self.decrypt), encrypt: of(&self.encrypt), re_encrypt: of(&self.re_encrypt) }
    }

    pub(super) async fn decrypt(
        &self,
        provider: &dyn KeyProvider,
        slots: &[(&EncryptedDataKey, &KmsContext)],
    ) -> Result<Vec<DataKeyAnswer>, Stopped> {
        let mut answers = Vec::with_capacity(slots.len());
        for piece in slots.chunks(provider.batch_len().max(1)) {
            self.pace.wait().await?;
            let some = match piece {
                [(slot, context)] => vec![provider.decrypt_data_key(slot, context).await],
                many => complete(provider.decrypt_data_keys(many).await, many.len(), DataKeyAnswer::Failed),
            };
            // "Answers `NotMine` without any call."
            self.made(&self.decrypt, !some.iter().all(|answer| matches!(answer, DataKeyAnswer::NotMine)));
            answers.extend(some);
        }
        Ok(answers)
    }

    pub(super) async fn encrypt(
        &self,
        provider: &dyn KeyProvider,
        keys: &[(&DataKey, &KmsContext)],
    ) -> Result<Vec<Result<Vec<EncryptedDataKey>>>, Stopped> {
        let mut answers = Vec::with_capacity(keys.len());
        for piece in keys.chunks(provider.batch_len().max(1)) {
            self.pace.wait().await?;
            self.made(&self.encrypt, true);
            answers.extend(match piece {
                [(key, context)] => vec![provider.encrypt_data_key(key, context).await],
                many => complete(provider.encrypt_data_keys(many).await, many.len(), Err),
            });
        }
        Ok(answers)
    }

    pub(super) async fn re_encrypt(
        &self,
        provider: &dyn KeyProvider,
        slots: &[(&EncryptedDataKey, &KmsContext)],
    ) -> Result<Vec<Result<Option<Vec<EncryptedDataKey>>>>, Stopped> {
        let mut answers = Vec::with_capacity(slots.len());
        for piece in slots.chunks(provider.batch_len().max(1)) {
            self.pace.wait().await?;
            let some = match piece {
                [(slot, context)] => vec![provider.re_encrypt_data_key(slot, context).await],
                many => complete(provider.re_encrypt_data_keys(many).await, many.len(), Err),
            };
            // `None` where the slot is not its own, or the KMS cannot: neither asks it.
            self.made(&self.re_encrypt, !some.iter().all(|answer| matches!(answer, Ok(None))));
            answers.extend(some);
        }
        Ok(answers)
    }

    fn made(&self, count: &AtomicU64, call: bool) {
        match call {
            true => drop(count.fetch_add(1, Ordering::Relaxed)),
            false => self.pace.give_back(),
        }
    }
}

/// As many answers as were asked for, whatever a provider gave.
fn complete<T>(mut answers: Vec<T>, count: usize, failed: impl Fn(Error) -> T) -> Vec<T> {
    if answers.len() != count {
        let short = format!("a key provider gave {} answers to {count} data keys", answers.len());
        answers = (0..count).map(|_| failed(Error::internal(short.as_str()))).collect();
    }
    answers
}

/// When the next call may be made.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Duration>,
    stop: Arc<AtomicBool>,
}

impl Pace {
    /// So many calls a second at the most, evenly; `None`: as many as there are.
    ///
    /// # Errors
    /// Kind InvalidInput for a rate that is none.
    pub(super) fn new(per_second: Option<f64>, stop: Arc<AtomicBool>) -> Result<Self> {
        let interval = match per_second {
            None => Duration::ZERO,
            Some(rate) => Duration::try_from_secs_f64(rate.recip())
                .ok()
                .filter(|interval| rate > 0.0 && *interval <= Duration::from_secs(86_400))
                .ok_or_else(|| Error::invalid_input(format!("{rate} calls a second are no rate")))?,
        };
        Ok(Self { interval, next: Mutex::default(), stop })
    }

    async fn wait(&self) -> Result<(), Stopped> {
        let now = SystemClock.now();
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(now);
            *next = at + self.interval;
            at
        };
        if at > now {
            let stop = Arc::clone(&self.stop);
            // A thread that cannot be started is a call made early.
            let _ = worker::run("envelock-pace", move || {
                while !stop.load(Ordering::Relaxed) {
                    match at.saturating_sub(SystemClock.now()) {
                        Duration::ZERO => break,
                        left => std::thread::sleep(left.min(PATIENCE)),
                    }
                }
                Ok(())
            })
            .await;
        }
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }

    /// No call was made after all.
    fn give_back(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = next.saturating_sub(self.interval);
    }
}

/// How soon a wait sees that the run is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn calls_keep_their_pace_and_one_that_was_not_made_costs_none() {
        let pace = Pace::new(Some(100.0), Arc::default()).unwrap();
        let start = Instant::now();
        for at in 0..21 {
            pollster::block_on(pace.wait()).unwrap();
            if at % 2 == 1 {
                pace.give_back();
            }
        }
        // Of 21 calls 10 were given back; the first waits for nothing.
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(95), "{took:?}");
    }

    #[test]
    fn who_waits_sees_that_the_run_is_to_stop() {
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Pace::new(Some(0.001), Arc::clone(&stop)).unwrap();
        pollster::block_on(pace.wait()).unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.store(true, Ordering::Relaxed);
            });
            assert!(pollster::block_on(pace.wait()).is_err());
        });
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY.recip(), 1e-9] {
            assert!(Pace::new(Some(rate), Arc::default()).is_err(), "{rate}");
        }
    }
}
