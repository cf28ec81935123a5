//! The header `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use http::HeaderMap;
use http::header::RETRY_AFTER;
use std::time::Duration;

/// How long a server asks to be left alone, if it does. `wall` is the time since the Unix epoch.
///
/// Of dates, the one form that a sender may write today (`Sun, 06 Nov 1994 08:49:37 GMT`); anything else is taken for no wish.
pub(super) fn retry_after(headers: &HeaderMap, wall: Duration) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    Some(Duration::from_secs(seconds_of(text)?).saturating_sub(wall))
}

/// The seconds since the Unix epoch of an IMF-fixdate (RFC 9110, section 5.6.7).
fn seconds_of(date: &str) -> Option<u64> {
    let rest = date.strip_suffix(" GMT")?;
    let (_, rest) = rest.split_once(", ")?;
    let mut parts = rest.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (day, year) = (number(day, 2, 1..=31)?, number(year, 4, 1970..=9999)?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut clock = time.split(':');
    let (hour, minute) = (number(clock.next()?, 2, 0..=23)?, number(clock.next()?, 2, 0..=59)?);
    // 60 is a leap second.
    let second = number(clock.next()?, 2, 0..=60)?;
    if clock.next().is_some() {
        return None;
    }
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let years_days: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months_days: u64 = DAYS.get(..month)?.iter().sum();
    let leap_day = u64::from(month > 1 && leap(year));
    let days = years_days + months_days + leap_day + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(text: &str, length: usize, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    if text.len() != length || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| range.contains(number))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, wall: u64) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        retry_after(&headers, Duration::from_secs(wall)).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_a_time_to_wait() {
        assert_eq!(after("0", 5), Some(0));
        assert_eq!(after(" 120 ", 5), Some(120));
        assert_eq!(after("4294967296", 5), None);
        assert_eq!(retry_after(&HeaderMap::new(), Duration::ZERO), None);
    }

    #[test]
    fn a_date_is_a_time_from_now_or_none_if_it_is_past() {
        // The example of RFC 9110 is 784111777 by `date -u -d ... +%s`, the others too.
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_700), Some(77));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT", 1_700_000_000), Some(0));
        assert_eq!(after("Thu, 01 Jan 1970 00:00:00 GMT", 0), Some(0));
        assert_eq!(after("Thu, 29 Feb 2024 23:59:59 GMT", 0), Some(1_709_251_199));
        assert_eq!(after("Fri, 01 Mar 2024 00:00:00 GMT", 0), Some(1_709_251_200));
        assert_eq!(after("Mon, 01 Mar 2100 00:00:00 GMT", 0), Some(4_107_542_400));
    }

    #[test]
    fn anything_else_is_no_wish() {
        let bad = [
            "",
            "soon",
            "-1",
            "1.5",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 Nox 1994 08:49:37 GMT",
        ];
        assert!(bad.iter().all(|text| after(text, 0).is_none()));
    }
}
