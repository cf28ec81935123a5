//! How fast members answer, as last measured, and whose turn it is to be measured again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// In this time a figure that is not measured again loses half of its weight.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The part that one answer has in a moving figure.
const SHARE: f64 = 0.25;
/// A call that was given up sooner says nothing.
const GIVEN_UP_MIN: Duration = Duration::from_millis(100);
/// What a failure counts as at least, and at most.
const FAILED_MIN: f64 = 1.0;
const FAILED_MAX: f64 = 60.0;

/// The pace of each member.
#[derive(Debug)]
pub(super) struct Paces {
    all: Mutex<Vec<Pace>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Seconds; `None` as long as nothing is known, so that each is tried.
    figure: Option<f64>,
    /// When it was measured.
    measured: Duration,
    /// When a call last took its turn, and the time before.
    turn: Option<Duration>,
    before: Option<Duration>,
    /// The figure is the price of a failure, and no time of an answer.
    failed: bool,
}

impl Paces {
    pub(super) fn new(members: usize) -> Self {
        Self { all: Mutex::new(vec![Pace::default(); members]) }
    }

    /// The members' numbers, the nearest first; of those that are equal, as they are listed.
    ///
    /// Whoever asks takes the first one's turn: until its answer is there, or its figure has lost weight again, others do
    /// not come to it because it has not been measured for long. So one call looks whether a dead member lives, and no
    /// crowd.
    pub(super) fn turns(&self, now: Duration) -> Vec<usize> {
        let mut all = self.lock();
        let mut turns: Vec<usize> = (0..all.len()).collect();
        let weight = |number: &usize| all.get(*number).map_or(f64::MAX, |pace| pace.weight(now));
        turns.sort_by(|one, other| weight(one).total_cmp(&weight(other)));
        if let Some(pace) = turns.first().and_then(|first| all.get_mut(*first)) {
            (pace.before, pace.turn) = (pace.turn, Some(now));
        }
        turns
    }

    /// The call that took this one's turn at `taken` was none for it: the turn is still to be had.
    pub(super) fn not_asked(&self, number: usize, taken: Duration) {
        self.change(number, |pace| match pace.turn == Some(taken) {
            true => Pace { turn: pace.before, ..*pace },
            false => *pace,
        });
    }

    /// One answered, good or bad, after `took`.
    pub(super) fn answered(&self, number: usize, took: Duration, now: Duration) {
        self.change(number, |pace| {
            let took = took.as_secs_f64();
            let stale = pace.failed || now.saturating_sub(pace.measured) > HALF_LIFE;
            let figure = pace.figure.filter(|_| !stale).map_or(took, |figure| figure + SHARE * (took - figure));
            Pace { figure: Some(figure), measured: now, failed: false, ..*pace }
        });
    }

    /// One had not answered after `took`, and another did.
    pub(super) fn outrun(&self, number: usize, took: Duration, now: Duration) {
        self.change(number, |pace| {
            let figure = pace.figure.unwrap_or(0.0).max(took.as_secs_f64());
            Pace { figure: Some(figure), measured: now, ..*pace }
        });
    }

    /// One had not answered after `took`, when nobody waited for it any more: that counts if it is longer than it takes.
    pub(super) fn given_up(&self, number: usize, took: Duration, now: Duration) {
        let known = self.lock().get(number).and_then(|pace| pace.figure).unwrap_or(0.0);
        if took >= GIVEN_UP_MIN && took.as_secs_f64() >= 2.0 * known {
            self.outrun(number, took, now);
        }
    }

    /// One was no use.
    pub(super) fn failed(&self, number: usize, took: Duration, now: Duration) {
        self.change(number, |pace| {
            let before = pace.figure.filter(|_| pace.failed).map_or(0.0, |figure| 2.0 * figure);
            let figure = before.max(took.as_secs_f64()).clamp(FAILED_MIN, FAILED_MAX);
            Pace { figure: Some(figure), measured: now, failed: true, ..*pace }
        });
    }

    fn change(&self, number: usize, to: impl FnOnce(&Pace) -> Pace) {
        if let Some(pace) = self.lock().get_mut(number) {
            *pace = to(pace);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pace>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// What it counts as now. One that has been asked and has never answered counts as one that failed.
    fn weight(&self, now: Duration) -> f64 {
        let figure = match (self.figure, self.turn) {
            (None, None) => return 0.0,
            (None, Some(_)) => FAILED_MIN,
            (Some(figure), _) => figure,
        };
        let since = self.turn.map_or(self.measured, |turn| turn.max(self.measured));
        figure * 0.5_f64.powf(now.saturating_sub(since).as_secs_f64() / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn each_is_tried_once_and_then_the_nearest_stays_first() {
        let paces = Paces::new(3);
        for (number, took) in [(0, 30), (1, 10), (2, 20)] {
            assert_eq!(paces.turns(S)[0], number, "unknown ones in the order of the list");
            paces.answered(number, took * MS, S);
        }
        assert_eq!(paces.turns(S), [1, 2, 0]);
    }

    #[test]
    fn one_slow_answer_does_not_move_the_figure_far_and_many_do() {
        let paces = Paces::new(2);
        paces.answered(0, 10 * MS, S);
        paces.answered(1, 30 * MS, S);
        paces.answered(0, 50 * MS, S);
        assert_eq!(paces.turns(S)[0], 0);
        (0..3).for_each(|_| paces.answered(0, 50 * MS, S));
        assert_eq!(paces.turns(S)[0], 1);
    }

    #[test]
    fn one_that_failed_is_found_again_by_one_call_within_two_minutes() {
        let paces = Paces::new(2);
        paces.answered(0, 20 * MS, S);
        paces.answered(1, 10 * MS, S);
        let mut now = S;
        // It fails whenever it is asked, for ten minutes of a call each second.
        let mut asked = 0;
        for _ in 0..600 {
            now += S;
            match paces.turns(now)[0] {
                1 => {
                    asked += 1;
                    paces.failed(1, MS, now);
                    paces.answered(0, 20 * MS, now);
                }
                _ => paces.answered(0, 20 * MS, now),
            }
        }
        assert!((4..20).contains(&asked), "a dead member was asked {asked} times");
        // It is well again.
        let well = now;
        while paces.turns(now)[0] != 1 {
            paces.answered(0, 20 * MS, now);
            now += S;
        }
        assert!(now - well <= 120 * S, "found after {:?}", now - well);
        // Its turn is taken: others do not crowd to it before it has answered.
        assert_eq!(paces.turns(now)[0], 0);
        paces.answered(1, 10 * MS, now);
        assert_eq!(paces.turns(now)[0], 1, "one good answer is enough");
    }

    #[test]
    fn one_that_was_outrun_is_at_least_as_far_as_it_was_waited_for() {
        let paces = Paces::new(2);
        paces.answered(0, 10 * MS, S);
        paces.answered(1, 50 * MS, S);
        paces.outrun(0, 80 * MS, S);
        assert_eq!(paces.turns(S)[0], 1);
        paces.outrun(1, 5 * MS, S);
        assert_eq!(paces.turns(S)[0], 1);
    }

    #[test]
    fn one_that_was_slow_is_believed_by_one_answer_when_it_is_quick_again() {
        let paces = Paces::new(2);
        paces.answered(0, 20 * MS, S);
        (0..4).for_each(|_| paces.answered(1, 5 * S, S));
        let now = 121 * S;
        paces.answered(0, 20 * MS, now);
        assert_eq!(paces.turns(now)[0], 1, "it has not been looked at for long");
        paces.answered(1, 10 * MS, now);
        assert_eq!(paces.turns(now)[0], 1);
    }

    #[test]
    fn calls_that_are_not_for_a_member_do_not_use_up_its_turn() {
        let paces = Paces::new(2);
        paces.answered(0, 20 * MS, S);
        paces.failed(1, 60 * S, S);
        let mut now = S;
        for call in 0.. {
            now += S;
            if paces.turns(now)[0] == 1 {
                if call % 100 == 99 {
                    paces.answered(1, 10 * MS, now);
                    break;
                }
                paces.not_asked(1, now);
            }
            paces.answered(0, 20 * MS, now);
        }
        assert!(now <= 240 * S, "found after {now:?}");
        assert_eq!(paces.turns(now)[0], 1);
    }

    #[test]
    fn one_call_tries_a_member_that_nobody_knows_and_no_crowd() {
        let paces = Paces::new(2);
        assert_eq!([paces.turns(S)[0], paces.turns(S)[0]], [0, 1]);
    }
}
