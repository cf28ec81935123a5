//! How long to wait before an attempt is repeated.
//!
//! "Full jitter" (Marc Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015): a time drawn uniformly from
//! nothing to a bound that doubles with each repetition, so that clients that failed together do not come back together.

use crate::crypto::random;
use crate::error::Result;
use std::time::Duration;

/// Draws waiting times.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    draw: fn() -> Result<u32>,
}

impl Backoff {
    /// Up to `base` before the first repetition, twice that before the next, and never more than `max`.
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, draw }
    }

    /// The same with numbers of the caller's: for tests that count time.
    #[cfg(test)]
    pub(super) fn drawing(mut self, draw: fn() -> Result<u32>) -> Self {
        self.draw = draw;
        self
    }

    /// A time to wait before repetition `number`, counted from 0.
    ///
    /// # Errors
    /// Kind RandomFailed, where the system gives no random bytes.
    pub(super) fn wait(&self, number: u32) -> Result<Duration> {
        let bound = 2_u32.checked_pow(number).and_then(|factor| self.base.checked_mul(factor));
        let bound = bound.map_or(self.max, |bound| bound.min(self.max));
        let share = u128::from((self.draw)()?);
        // At most the bound, whose nanoseconds fit in 64 bits up to 584 years: the policy allows an hour.
        let nanoseconds = bound.as_nanos().saturating_mul(share) / u128::from(u32::MAX);
        Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

fn draw() -> Result<u32> {
    let mut bytes = [0; 4];
    random::fill(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn the_bound_doubles_up_to_its_maximum_for_any_number() {
        let most = Backoff::new(BASE, MAX).drawing(|| Ok(u32::MAX));
        let waits: Vec<_> = (0..8).map(|number| most.wait(number).unwrap().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(most.wait(u32::MAX).unwrap(), MAX);
        let least = Backoff::new(BASE, MAX).drawing(|| Ok(0));
        assert_eq!(least.wait(3).unwrap(), Duration::ZERO);
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let backoff = Backoff::new(BASE, MAX);
        let mut tenths = [0; 10];
        for _ in 0..2000 {
            let wait = backoff.wait(0).unwrap();
            assert!(wait <= BASE);
            tenths[usize::try_from(wait.as_micros()).unwrap().min(99_999) / 10_000] += 1;
        }
        // 200 are expected in each, with a standard deviation of 13.4: ten of them are beyond chance.
        assert!(tenths.iter().all(|&count| (66..=334).contains(&count)), "{tenths:?}");
    }
}
