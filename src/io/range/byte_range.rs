//! A range as HTTP writes it, before the length is known.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Some bytes of a plaintext, as in HTTP's `Range` (RFC 9110, section 14.1.2): `0-99` are the first 100,
/// `100-` are all from byte 100 on, `-100` are the last 100.
///
/// ```
/// # fn main() -> Result<(), envelock::Error> {
/// use envelock::ByteRange;
/// assert_eq!("0-99".parse::<ByteRange>()?.within(1_000)?, 0..100);
/// assert_eq!("900-2000".parse::<ByteRange>()?.within(1_000)?, 900..1_000);
/// assert_eq!("-100".parse::<ByteRange>()?.within(1_000)?, 900..1_000);
/// assert!("1000-".parse::<ByteRange>()?.within(1_000).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first byte to the last, both included.
    Between(u64, u64),
    /// From this byte on.
    From(u64),
    /// So many bytes before the end.
    Last(u64),
}

impl ByteRange {
    /// The bytes of `len` that are meant: at least one. What ends past the end is shortened.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), with the length, where HTTP answers 416: if no
    /// byte is in the range.
    pub fn within(self, len: u64) -> Result<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..last.saturating_add(1).min(len),
            Self::From(first) => first..len,
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        if range.is_empty() {
            return Err(Error::invalid_input(format!("no byte is in the range {self}: the plaintext has {len} bytes"))
                .with_advice("bytes are counted from 0"));
        }
        Ok(range)
    }
}

impl FromStr for ByteRange {
    type Err = Error;

    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is no range.
    fn from_str(text: &str) -> Result<Self> {
        let number = |digits: &str| {
            let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| all)
        };
        let parsed = match text.split_once('-') {
            Some(("", count)) => number(count).map(Self::Last),
            Some((first, "")) => number(first).map(Self::From),
            Some((first, last)) => number(first)
                .zip(number(last))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| Self::Between(first, last)),
            None => None,
        };
        parsed.ok_or_else(|| {
            Error::invalid_input("a range is FIRST-LAST (both included, counted from 0), FIRST-, or -COUNT")
        })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between(first, last) => write!(f, "{first}-{last}"),
            Self::From(first) => write!(f, "{first}-"),
            Self::Last(count) => write!(f, "-{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn ranges_are_read_and_written_as_http_does() {
        for (text, range) in [
            ("0-0", ByteRange::Between(0, 0)),
            ("5-99", ByteRange::Between(5, 99)),
            ("100-", ByteRange::From(100)),
            ("-100", ByteRange::Last(100)),
        ] {
            assert_eq!(text.parse::<ByteRange>().unwrap(), range);
            assert_eq!(range.to_string(), text);
        }
        for text in ["", "-", "5", "9-5", "a-b", "+1-2", "1-+2", " 1-2", "1-2-3", "--1", "18446744073709551616-"] {
            assert_eq!(text.parse::<ByteRange>().unwrap_err().kind(), ErrorKind::InvalidInput, "{text:?}");
        }
    }

    #[test]
    fn a_range_is_shortened_to_the_plaintext_and_never_empty() {
        let within = |text: &str, len| text.parse::<ByteRange>().unwrap().within(len).ok();
        assert_eq!(within("0-99", 50), Some(0..50));
        assert_eq!(within("49-49", 50), Some(49..50));
        assert_eq!(within("0-18446744073709551615", 50), Some(0..50));
        assert_eq!(within("-99", 50), Some(0..50));
        for (text, len) in [("50-", 50), ("50-60", 50), ("-0", 50), ("0-", 0), ("-5", 0)] {
            assert_eq!(within(text, len), None, "{text} of {len}");
        }
        let error = ByteRange::From(50).within(50).unwrap_err().to_string();
        assert!(error.contains("50-") && error.contains("50 bytes"), "{error}");
    }
}
