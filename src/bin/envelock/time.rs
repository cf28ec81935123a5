//! Dates as people read and write them: local time with its offset; ISO 8601 or a span of time from now.

use crate::text::date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-24T09:15:00+01:00`, by the time zone of this machine.
pub(crate) fn local(time: SystemTime) -> String {
    in_zone(time, TimeZone::system())
}

/// What is outside the calendar's years, to 9999, is told in UTC by [`date`].
fn in_zone(time: SystemTime, zone: TimeZone) -> String {
    match Timestamp::try_from(time) {
        Ok(stamp) => stamp.to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Err(_) => date(time),
    }
}

/// A moment: `2026-11-24T09:15:00+01:00`, the same with `Z`, or what passes until then, as [`span`] takes it.
pub(crate) fn moment(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let (text, stamp) = (text.trim(), stamp(text)?);
    if let Some(moment) = stamp {
        return Ok(moment);
    }
    let span = span(text).map_err(|_| {
        format!("{text:?} is neither a moment, as in 2026-11-24T09:15:00Z, nor a span of time, as in `30 days`")
    })?;
    let moment = now.checked_add(span).ok_or_else(|| format!("{text:?} is too far away"))?;
    match Timestamp::try_from(moment) {
        Ok(_) => Ok(moment),
        Err(_) => Err(format!("{text:?} is too far away")),
    }
}

/// A moment that has passed: as [`moment`], but a span of time is what has passed since.
pub(crate) fn moment_past(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    match stamp(text)? {
        Some(moment) => Ok(moment),
        None => span(text).map(|span| now.checked_sub(span).unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH)).map_err(|_| {
            format!("{text:?} is neither a moment, as in 2026-11-24T09:15:00Z, nor a span of time, as in `30 days`")
        }),
    }
}

/// What is written as a moment and not as a span.
fn stamp(text: &str) -> Result<Option<SystemTime>, String> {
    let text = text.trim();
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return stamp.try_into().map(Some).map_err(|_| format!("{text:?} is too far away"));
    }
    match text.get(..4).is_some_and(|year| year.bytes().all(|b| b.is_ascii_digit())) && text.contains('-') {
        true => {
            Err(format!("{text:?} is no moment: give date, time and offset, as in 2026-11-24T09:15:00+01:00, or Z"))
        }
        false => Ok(None),
    }
}

/// A span of time: `30 days`, `7d`, `2 weeks`, `1h 30m`. A day has 24 hours, since it is counted and not looked up
/// in a calendar; months and years, which differ in length, are refused.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: give weeks, days, hours, minutes or seconds, as in `30 days`");
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    if span.is_negative() {
        return Err(format!("{text:?} has passed"));
    }
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}

/// Whole days: `30 days`, `7d`, `2 weeks`, or the number alone.
pub(crate) fn days(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no number of days: give it as in `30`, `30 days` or `2 weeks`");
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    let seconds = span(text).map_err(|_| wrong())?;
    match (seconds.as_secs() % DAY, seconds.subsec_nanos()) {
        (0, 0) => u16::try_from(seconds.as_secs() / DAY).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// In seconds.
const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_moment_is_shown_in_local_time_with_its_offset() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(in_zone(at(1_795_507_200), TimeZone::UTC), "2026-11-24T08:00:00+00:00");
        assert_eq!(in_zone(at(1_795_507_200), berlin.clone()), "2026-11-24T09:00:00+01:00");
        assert_eq!(in_zone(at(1_782_000_000), berlin), "2026-06-21T02:00:00+02:00");
        assert_eq!(in_zone(at(0), TimeZone::posix("<-0330>3:30").unwrap()), "1969-12-31T20:30:00-03:30");
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for time in [at(0), at(1_782_000_000), at(1_795_507_200), at(4_107_542_400)] {
            assert_eq!(moment(&local(time), at(5)), Ok(time));
            assert_eq!(moment(&date(time), at(5)), Ok(time));
        }
    }

    #[test]
    fn a_moment_is_iso_8601_with_an_offset_or_what_passes_until_then() {
        let now = at(1_795_507_200);
        for text in
            ["2026-11-24T09:00:00+01:00", "2026-11-24T08:00:00Z", "2026-11-24 03:00:00-05", " 2026-11-24T08:00Z "]
        {
            assert_eq!(moment(text, at(0)), Ok(now), "{text}");
        }
        let later = Duration::from_secs;
        for (text, span) in [
            ("30 days", later(30 * DAY)),
            ("30d", later(30 * DAY)),
            ("1 week", later(7 * DAY)),
            ("2 weeks 1 day", later(15 * DAY)),
            ("1h 30m", later(5_400)),
            ("90 seconds", later(90)),
            ("P1DT2H", later(26 * 3_600)),
        ] {
            assert_eq!(moment(text, now), Ok(now + span), "{text}");
        }
    }

    #[test]
    fn a_moment_that_has_passed_is_a_moment_or_how_long_ago_it_was() {
        let now = at(1_795_507_200);
        assert_eq!(moment_past("2026-11-24T09:00:00+01:00", at(0)), Ok(now));
        assert_eq!(moment_past("7 days", now), Ok(at(1_795_507_200 - 7 * DAY)));
        assert_eq!(moment_past("900 weeks", at(5)), Ok(UNIX_EPOCH));
        for text in ["", "-7 days", "2026-11-24", "1 month", "yesterday"] {
            assert!(moment_past(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn what_leaves_something_open_is_refused() {
        let now = at(1_795_507_200);
        for text in [
            "",
            "x",
            "30",
            "tomorrow",
            "2026-11-24",
            "2026-11-24T09:00:00",
            "24.11.2026",
            "-3 days",
            "3 days ago",
            "1 month",
            "2 years",
            "2026-13-01T00:00:00Z",
            "999999999999 days",
            "9000 years",
            "1e9 days",
            "\u{202e}7d",
        ] {
            let wrong = moment(text, now).unwrap_err();
            assert!(
                wrong.contains("as in") || wrong.contains("too far") || wrong.contains("passed"),
                "{text}: {wrong}"
            );
        }
        assert!(moment("2026-11-24T09:00:00", now).unwrap_err().contains("offset"));
    }

    #[test]
    fn days_are_whole() {
        for (text, count) in [("7", 7), ("30 days", 30), ("7d", 7), ("1 day", 1), ("2 weeks", 14), ("48h", 2), ("0", 0)]
        {
            assert_eq!(days(text), Ok(count), "{text}");
        }
        for text in ["", "x", "1.5 days", "36h", "-7", "-7 days", "7 months", "99999", "70000 days", "7 d7"] {
            assert!(days(text).is_err(), "{text}");
        }
    }
}
