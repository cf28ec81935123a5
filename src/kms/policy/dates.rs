//! Dates in conditions.

use jiff::Timestamp;

/// A date as a policy writes it, in nanoseconds since the Unix epoch: `2026-01-31`, which is midnight UTC;
/// `2026-01-31T12:00Z` with `Z` or an offset, seconds and their fraction if wanted (the W3C's profile of ISO 8601,
/// <https://www.w3.org/TR/NOTE-datetime>); or seconds since the epoch in digits.
///
/// The profile's years and months alone are refused: `2026` would be a year to one reader and half an hour past
/// 1970 to another. So are milliseconds, which would be a date tens of thousands of years ahead.
pub(super) fn parse(text: &str) -> Option<i128> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return if text.len() > 4 { text.parse().ok().and_then(of_seconds) } else { None };
    }
    let date = text.get(..10)?;
    let digits = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    if !date.bytes().enumerate().all(digits) {
        return None;
    }
    let time = &text[10..];
    let whole = match time {
        "" => format!("{date}T00:00:00Z"),
        _ if time.starts_with('T') && time[1..].bytes().all(is_of_a_time) => text.to_owned(),
        _ => return None,
    };
    whole.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

pub(super) fn of_seconds(seconds: i64) -> Option<i128> {
    Timestamp::from_second(seconds).ok().map(Timestamp::as_nanosecond)
}

/// Keeps out what the library takes beyond the profile, such as names of time zones.
fn is_of_a_time(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'+' | b'-' | b'Z')
}
