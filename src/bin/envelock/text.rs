//! What people read: escaped, so that no file or message can drive their terminal.

use crate::failure::Failure;
use std::borrow::Cow;
use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// `text` with each control, format and other invisible character escaped.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| c == ' ' || c == '"' || c == '\'' || c == '\\' || is_visible(c);
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmless(c) {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
    }
    Cow::Owned(out)
}

/// Rust's table of what prints as itself.
fn is_visible(c: char) -> bool {
    c.escape_debug().len() == 1
}

/// Lines on standard error that are no failures; none with `--quiet`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    shown: bool,
}

impl Notes {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { shown: !quiet }
    }

    pub(crate) fn shown(self) -> bool {
        self.shown
    }

    pub(crate) fn say(self, line: &str) {
        if self.shown {
            // A note that cannot be shown is no failure of the work.
            let _ = writeln!(io::stderr().lock(), "envelock: {}", plain(line));
        }
    }
}

/// Writes to standard output what a command answers.
pub(crate) fn answer(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::io("standard output", &e))
}

/// `2026-11-24T08:15:00Z`.
pub(crate) fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day counted from 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms": years begin in March, so that the leap day ends them).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_control_or_direction_character_reaches_a_terminal() {
        assert_eq!(plain("a \x1b[31m\r\n\u{202e}b"), "a \\u{1b}[31m\\r\\n\\u{202e}b");
        assert_eq!(plain("\u{9b}2J\u{200b}"), "\\u{9b}2J\\u{200b}");
        assert_eq!(plain("Grüße \"x\" 'y' \\ 漢"), "Grüße \"x\" 'y' \\ 漢");
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
