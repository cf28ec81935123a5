//! How long answers took lately: when a second request is worth its while.

use std::time::Duration;

/// The times of the latest answers.
#[derive(Debug)]
pub(super) struct Latencies {
    ring: [Duration; SAMPLES],
    /// Where the next goes.
    next: usize,
    filled: usize,
}

/// How many are remembered.
const SAMPLES: usize = 128;
/// How many there must be before they say anything.
const ENOUGH: usize = 20;

impl Latencies {
    pub(super) fn new() -> Self {
        Self { ring: [Duration::ZERO; SAMPLES], next: 0, filled: 0 }
    }

    /// An answer took `time`, or a request that was given up had none by then.
    pub(super) fn add(&mut self, time: Duration) {
        if let Some(place) = self.ring.get_mut(self.next) {
            *place = time;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.filled = (self.filled + 1).min(SAMPLES);
    }

    /// The time within which 95 of 100 came, once there are enough to say so.
    pub(super) fn p95(&self) -> Option<Duration> {
        if self.filled < ENOUGH {
            return None;
        }
        let mut sorted = self.ring;
        let sorted = sorted.get_mut(..self.filled)?;
        sorted.sort_unstable();
        sorted.get((self.filled * 95).div_ceil(100) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_answers_say_nothing() {
        let mut latencies = Latencies::new();
        for _ in 0..ENOUGH - 1 {
            latencies.add(Duration::from_millis(5));
        }
        assert_eq!(latencies.p95(), None);
        latencies.add(Duration::from_millis(5));
        assert_eq!(latencies.p95(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn ninety_five_of_a_hundred_are_within_it_and_old_ones_are_forgotten() {
        let mut latencies = Latencies::new();
        (1..=100).rev().for_each(|time| latencies.add(Duration::from_millis(time)));
        assert_eq!(latencies.p95(), Some(Duration::from_millis(95)));
        (0..SAMPLES).for_each(|_| latencies.add(Duration::from_millis(7)));
        assert_eq!(latencies.p95(), Some(Duration::from_millis(7)));
    }
}
