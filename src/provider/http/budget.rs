//! The budget of retries: a bucket of tokens that calls fill and repetitions empty.
//!
//! Each call that the breaker lets through puts in a share of a token, each request beyond a call's first takes one out. So
//! however many calls fail, the load grows by that share at most, and by what the bucket held when it began.

/// A bucket of tokens, in thousandths, so that sums are exact.
#[derive(Debug)]
pub(super) struct Budget {
    held: u64,
    room: u64,
    share: u64,
}

const TOKEN: u64 = 1000;

impl Budget {
    /// A full bucket of `burst` tokens, into which a call puts `share` of a token (0 to 1, in thousandths).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    pub(super) fn new(share: f64, burst: u32) -> Self {
        let room = u64::from(burst) * TOKEN;
        Self { held: room, room, share: (share.clamp(0.0, 1.0) * TOKEN as f64).round() as u64 }
    }

    /// A call's first request goes out.
    pub(super) fn earn(&mut self) {
        // A bucket for no burst still saves up to one token.
        self.held = (self.held + self.share).min(self.room.max(TOKEN));
    }

    /// Takes a token for one more request, if there is one.
    pub(super) fn take(&mut self) -> bool {
        match self.held.checked_sub(TOKEN) {
            Some(left) => {
                self.held = left;
                true
            }
            None => false,
        }
    }

    /// Gives back a token whose request was not sent.
    pub(super) fn give_back(&mut self) {
        self.held = (self.held + TOKEN).min(self.room.max(TOKEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `calls` that all fail may be repeated, each as often as the budget allows.
    fn repeated(budget: &mut Budget, calls: u32) -> u32 {
        let mut repeated = 0;
        for _ in 0..calls {
            budget.earn();
            while budget.take() {
                repeated += 1;
            }
        }
        repeated
    }

    #[test]
    fn repetitions_are_never_more_than_the_burst_and_the_share() {
        for (share, burst) in [(0.1, 10), (0.2, 0), (0.0, 3), (1.0, 1), (0.333, 100)] {
            let all = repeated(&mut Budget::new(share, burst), 10_000);
            let most = f64::from(burst) + 10_000.0 * share;
            assert!(f64::from(all) <= most && f64::from(all) > most - 2.0, "{share} {burst}: {all}");
        }
    }

    #[test]
    fn no_share_and_no_burst_is_no_repetition() {
        assert_eq!(repeated(&mut Budget::new(0.0, 0), 1000), 0);
        assert_eq!(repeated(&mut Budget::new(f64::NAN, 0), 1000), 0);
        assert_eq!(repeated(&mut Budget::new(-1.0, 0), 1000), 0);
    }

    #[test]
    fn a_bucket_holds_no_more_than_its_burst_and_takes_back_what_was_not_used() {
        let mut budget = Budget::new(0.5, 2);
        (0..1000).for_each(|_| budget.earn());
        assert!(budget.take() && budget.take() && !budget.take());
        budget.give_back();
        assert!(budget.take() && !budget.take());
    }
}
