//! The text form: `elk1.` and base64url without padding, for environment variables, JSON and columns of text.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every text form begins with.
const PREFIX: &str = "elk1.";

/// The text form of a message, a record, or a value with its own record set: `elk1.` and base64url (RFC 4648,
/// section 5) without padding.
///
/// ```
/// assert_eq!(envelock::to_text(b"\xE1\xFF"), "elk1.4f8");
/// ```
#[must_use]
pub fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    text
}

/// The bytes of a text form.
///
/// It is strict, so that bytes have one text form and no other: `=`, white space, line ends, characters of
/// another alphabet and spare bits that are not zero are refused. Cut off a line end first.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed).
pub fn from_text(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix(PREFIX).ok_or_else(|| {
        Error::malformed("the text form begins with `elk1.`, and this does not")
            .with_advice("check which text this is, or whether its beginning was cut off")
    })?;
    // What the decoder says would repeat a character of the text.
    URL_SAFE_NO_PAD.decode(digits).map_err(|_| {
        Error::malformed("what follows `elk1.` is not base64url without padding")
            .with_advice("it was cut, wrapped or changed on its way: copy it again, on one line and without spaces")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back_and_no_other_text_gives_them(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            other in any::<char>(),
        ) {
            let text = to_text(&bytes);
            prop_assert_eq!(from_text(&text).unwrap(), bytes.clone());
            let mut changed: Vec<char> = text.chars().collect();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != other);
            changed[at] = other;
            let changed: String = changed.into_iter().collect();
            prop_assert_ne!(from_text(&changed).ok(), Some(bytes));
        }
    }

    #[test]
    fn what_is_not_strictly_base64url_is_refused() {
        assert_eq!(from_text("elk1.").unwrap(), b"");
        assert_eq!(from_text("elk1.AA").unwrap(), [0]);
        let bad = [
            "",
            "elk",
            "elk1",
            "AA",
            "ELK1.AA",
            " elk1.AA",
            "elk2.AA",
            "elk1.AA==",
            "elk1.AA=",
            "elk1.AA ",
            "elk1.AA\n",
            "elk1.A",
            "elk1.AB",
            "elk1.AAB",
            "elk1.AAAA\nAAAA",
            "elk1.A+AA",
            "elk1.A/AA",
            "elk1.A.AA",
            "elk1.Ä",
        ];
        for text in bad {
            assert_eq!(from_text(text).unwrap_err().kind(), ErrorKind::Malformed, "{text:?}");
        }
    }
}
