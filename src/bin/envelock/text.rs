//! What people read: escaped, so that no file or message can drive their terminal.

use crate::failure::Failure;
use crate::inspect::json_text;
use jiff::Timestamp;
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

/// Says what was done: to programs as JSON, to people as a note.
pub(crate) fn done(as_json: bool, value: &serde_json::Value, line: &str, notes: Notes) -> Result<(), Failure> {
    if as_json {
        return answer(&json_text(value));
    }
    notes.say(line);
    Ok(())
}

/// `2026-11-24T08:15:00Z`; what is outside the calendar's years, to 9999, is its last moment or its first.
pub(crate) fn date(time: SystemTime) -> String {
    let beyond = if time < UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(beyond).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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
