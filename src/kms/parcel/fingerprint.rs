//! SHA-256 as people compare it: of a public key, or of a whole file.

use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::validation;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// A SHA-256 hash that came another way than the bytes that it is of: read out over the telephone, printed in a
/// ticket. Shown as 64 lower-case hex digits; parsed from those in either case, and nothing else.
///
/// ```
/// use envelock::kms::Sha256Fingerprint;
/// let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
/// assert_eq!(Sha256Fingerprint::of(b"abc"), text.parse()?);
/// assert_eq!(Sha256Fingerprint::of(b"abc").to_string(), text);
/// # Ok::<(), envelock::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sha256Fingerprint([u8; 32]);

impl Sha256Fingerprint {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crypto::sha256(&[bytes]))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// # Errors
    /// Kind AuthenticationFailed unless this is `expected`.
    pub(crate) fn check(&self, expected: &Self, what: &str) -> Result<()> {
        if self == expected {
            return Ok(());
        }
        Err(Error::new(ErrorKind::AuthenticationFailed, format!("{what} does not have the SHA-256 that was given"))
            .with_advice(
                "it was changed or exchanged on its way: do not use it, and ask its sender for the SHA-256 by another way",
            ))
    }
}

/// In constant time.
impl PartialEq for Sha256Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Sha256Fingerprint {}

impl fmt::Display for Sha256Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || validation("this is no SHA-256").with_advice("give all of its 64 hex digits, without spaces or colons");
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(bad)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = u8::try_from(16 * pair[0] + pair[1]).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}
