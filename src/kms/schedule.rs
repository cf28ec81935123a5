//! When something is due: pure functions of dates and of now.
//!
//! Times are milliseconds since the Unix epoch, of the wall clock, which may stand still, leap or go
//! backwards. Nothing is due a millisecond early, what is overdue is due once, and what was done is not done
//! again because the clock went back. Arithmetic saturates: a date past the end of time never comes.

use super::key::validation;
use super::state::KeyState;
use crate::error::Result;

/// How many days lie between automatic rotations: 90 to 2,560, as in AWS KMS. Default: 365.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RotationPeriod(u16);

impl RotationPeriod {
    /// That many days.
    ///
    /// # Errors
    /// ValidationException, of kind [`InvalidInput`](crate::ErrorKind::InvalidInput), outside 90 to 2,560.
    pub fn from_days(days: u16) -> Result<Self> {
        match days {
            90..=2_560 => Ok(Self(days)),
            _ => Err(validation(format!("{days} days is no rotation period"))
                .with_advice("keys are rotated every 90 to 2,560 days")),
        }
    }

    /// In days.
    #[must_use]
    pub fn days(self) -> u16 {
        self.0
    }

    fn millis(self) -> i64 {
        i64::from(self.0) * DAY
    }
}

impl Default for RotationPeriod {
    fn default() -> Self {
        Self(365)
    }
}

/// How many days pass between asking for a key's deletion and the deletion: 7 to 30, as in AWS KMS.
/// Default: 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeletionWindow(u8);

impl DeletionWindow {
    /// That many days.
    ///
    /// # Errors
    /// ValidationException, of kind [`InvalidInput`](crate::ErrorKind::InvalidInput), outside 7 to 30.
    pub fn from_days(days: u8) -> Result<Self> {
        match days {
            7..=30 => Ok(Self(days)),
            _ => {
                Err(validation(format!("{days} days is no waiting period"))
                    .with_advice("a deletion waits 7 to 30 days"))
            }
        }
    }

    /// In days.
    #[must_use]
    pub fn days(self) -> u8 {
        self.0
    }

    /// When a deletion whose waiting begins now takes place.
    pub(super) fn ends_at(self, now: i64) -> i64 {
        now.saturating_add(i64::from(self.0) * DAY)
    }
}

impl Default for DeletionWindow {
    fn default() -> Self {
        Self(30)
    }
}

/// Automatic rotation that is switched on: at every multiple of the period, counted from then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    /// When it was switched on, or its period changed.
    pub(super) since: i64,
    pub(super) period: RotationPeriod,
    /// The last automatic rotation. One on demand moves no date.
    pub(super) last: Option<i64>,
}

impl Rotation {
    /// The first date of the schedule after the last rotation. Where it has passed, one rotation is due; with
    /// that recorded at `now`, the next date is the first after `now`.
    ///
    /// A rotation that was recorded ahead of time, under a clock that has gone back since, counts: the next
    /// date is after it, not after now.
    pub(super) fn next_date(self) -> i64 {
        let period = self.period.millis();
        let last = self.last.map_or(self.since, |last| last.max(self.since));
        // `last >= since`, in i128 since their distance may not fit.
        let passed = (i128::from(last) - i128::from(self.since)) / i128::from(period) + 1;
        let next = i128::from(self.since) + passed * i128::from(period);
        i64::try_from(next).unwrap_or(i64::MAX)
    }

    /// Whether a key in `state` is to be rotated now. AWS KMS rotates enabled keys only, and one that is
    /// enabled again at once if its date has passed.
    pub(super) fn is_due(self, state: KeyState, now: i64) -> bool {
        state == KeyState::Enabled && reached(self.next_date(), now)
    }
}

/// Whether the date of a deletion, or the expiry of imported material, has come: not a millisecond early.
///
/// The caller records what it does then. A clock that goes back afterwards brings nothing back, since
/// what is gone has no date any more.
pub(super) fn reached(date: i64, now: i64) -> bool {
    // The end of time is no date: it is what a sum that does not fit saturates to.
    now >= date && date != i64::MAX
}

/// Refuses an expiry of imported material that has passed, or is more than 365 days away, as AWS KMS does.
#[cfg_attr(not(test), expect(dead_code, reason = "the import that asks for it comes after it"))]
pub(super) fn check_expiry(expires_at: i64, now: i64) -> Result<()> {
    if expires_at <= now {
        return Err(validation("the key material would have expired already").with_advice("give a date to come"));
    }
    if expires_at > now.saturating_add(EXPIRY_MAX) {
        return Err(validation("the key material would expire in more than 365 days")
            .with_advice("give an earlier date, or none"));
    }
    Ok(())
}

/// In milliseconds.
const DAY: i64 = 86_400_000;
const EXPIRY_MAX: i64 = 365 * DAY;
