//! Dates, under clocks that sleep, leap and go backwards.

use crate::kms::KeyState;
use crate::kms::schedule::{DeletionWindow, Rotation, RotationPeriod, check_expiry, reached};
use proptest::prelude::*;

const DAY: i64 = 86_400_000;
const START: i64 = 1_764_000_000_000;

fn yearly(last: Option<i64>) -> Rotation {
    Rotation { since: START, period: RotationPeriod::default(), last }
}

fn is_due(rotation: Rotation, now: i64) -> bool {
    rotation.is_due(KeyState::Enabled, now)
}

#[test]
fn periods_and_windows_have_awss_limits_and_defaults() {
    for (days, good) in
        [(0, false), (89, false), (90, true), (365, true), (2_560, true), (2_561, false), (u16::MAX, false)]
    {
        assert_eq!(RotationPeriod::from_days(days).ok().map(RotationPeriod::days), good.then_some(days));
    }
    for (days, good) in [(0, false), (6, false), (7, true), (30, true), (31, false), (u8::MAX, false)] {
        assert_eq!(DeletionWindow::from_days(days).ok().map(DeletionWindow::days), good.then_some(days));
    }
    assert_eq!((RotationPeriod::default().days(), DeletionWindow::default().days()), (365, 30));
    let error = DeletionWindow::from_days(6).unwrap_err();
    assert_eq!(error.code(), Some("ValidationException"), "{error}");
}

#[test]
fn the_first_rotation_is_a_period_after_the_beginning_and_not_a_millisecond_early() {
    let first = START + 365 * DAY;
    assert_eq!(yearly(None).next_date(), first);
    assert!(!is_due(yearly(None), START));
    assert!(!is_due(yearly(None), first - 1));
    assert!(is_due(yearly(None), first));
}

#[test]
fn a_process_that_slept_through_three_periods_rotates_once_and_keeps_the_schedule() {
    let woke = START + 3 * 365 * DAY + 5 * DAY;
    assert!(is_due(yearly(None), woke));
    let rotated = yearly(Some(woke));
    assert_eq!(rotated.next_date(), START + 4 * 365 * DAY);
    assert!(!is_due(rotated, woke));
    assert!(!is_due(rotated, START + 4 * 365 * DAY - 1));
    assert!(is_due(rotated, START + 4 * 365 * DAY));
}

#[test]
fn a_rotation_at_the_very_date_is_not_due_again() {
    let date = START + 365 * DAY;
    assert_eq!(yearly(Some(date)).next_date(), START + 2 * 365 * DAY);
    assert!(!is_due(yearly(Some(date)), date));
}

#[test]
fn a_clock_that_goes_back_repeats_no_rotation() {
    // Under a clock that was ten years ahead.
    let ahead = START + 10 * 365 * DAY + 1;
    let rotated = yearly(Some(ahead));
    for now in [0, START - 1, START, START + 365 * DAY, ahead, START + 11 * 365 * DAY - 1] {
        assert!(!is_due(rotated, now), "at {now}");
    }
    assert!(is_due(rotated, START + 11 * 365 * DAY));
    // Switched on ahead of time: it waits for that.
    assert!(!is_due(yearly(None), START - 20 * 365 * DAY));
}

#[test]
fn switching_it_on_again_begins_a_new_schedule() {
    let last = START + 365 * DAY;
    let again = Rotation { since: last + 10 * DAY, period: RotationPeriod::from_days(90).unwrap(), last: Some(last) };
    assert_eq!(again.next_date(), last + 100 * DAY);
}

#[test]
fn only_an_enabled_key_is_rotated_and_one_enabled_again_at_once() {
    let late = START + 400 * DAY;
    for state in KeyState::ALL {
        assert_eq!(yearly(None).is_due(state, late), state == KeyState::Enabled, "{state:?}");
    }
}

#[test]
fn deletion_and_expiry_come_at_their_millisecond() {
    let date = DeletionWindow::from_days(7).unwrap().ends_at(START);
    assert_eq!(date, START + 7 * DAY);
    assert!(!reached(date, START) && !reached(date, date - 1));
    assert!(reached(date, date) && reached(date, i64::MAX));
    assert!(!reached(DeletionWindow::default().ends_at(i64::MAX - 1), i64::MAX), "a date past the end of time");
}

#[test]
fn material_expires_in_the_future_and_within_a_year() {
    for (expires_at, good) in [
        (START - 1, false),
        (START, false),
        (START + 1, true),
        (START + 365 * DAY, true),
        (START + 365 * DAY + 1, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        assert_eq!(check_expiry(expires_at, START).is_ok(), good, "{expires_at}");
    }
}

proptest! {
    #[test]
    fn whatever_the_dates_nothing_overflows_and_the_next_date_is_after_the_last_rotation(
        since: i64, days in 90_u16..=2_560, last: Option<i64>, now: i64,
    ) {
        let rotation = Rotation { since, period: RotationPeriod::from_days(days).unwrap(), last };
        let next = rotation.next_date();
        let period = i64::from(days) * DAY;
        prop_assert!(next > since.max(last.unwrap_or(i64::MIN)) || next == i64::MAX);
        // The first one: a period earlier is not after it.
        prop_assert!(next == i64::MAX || next - period <= since.max(last.unwrap_or(i64::MIN)));
        prop_assert!(next == i64::MAX || (i128::from(next) - i128::from(since)) % i128::from(period) == 0);
        if is_due(rotation, now) {
            let rotated = Rotation { last: Some(now), ..rotation };
            prop_assert!(!is_due(rotated, now), "due twice");
            prop_assert!(rotated.next_date() > now || rotated.next_date() == i64::MAX);
        }
    }

    #[test]
    fn under_a_clock_that_wanders_there_is_at_most_one_rotation_for_each_date(
        steps in prop::collection::vec(-800_i64..800, 1..60),
    ) {
        let mut rotation = yearly(None);
        let (mut now, mut latest) = (START, START);
        let mut rotations = 0;
        for step in steps {
            now += step * DAY;
            latest = latest.max(now);
            if is_due(rotation, now) {
                rotation.last = Some(now);
                rotations += 1;
            }
        }
        prop_assert!(rotations <= (latest - START) / (365 * DAY));
    }
}
