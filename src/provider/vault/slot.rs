//! What Transit writes into a slot: `vault:vN:` and base64.

use crate::material::EncryptedDataKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The provider name in slots.
pub(super) const NAME: &str = "vault";
const PREFIX: &str = "vault:v";
/// Longest text that is sent anywhere; Transit's own for a 32-byte key are under 120 bytes.
const TEXT_MAX: usize = 1_024;
/// The shortest nonce, data key and tag.
const SEALED_MIN: usize = 12 + 16 + 16;

/// A ciphertext of Transit whose form was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ciphertext<'a> {
    pub(super) text: &'a str,
    /// The version of the key that made it.
    pub(super) version: u32,
}

impl<'a> Ciphertext<'a> {
    /// `None` for what Transit does not write: another prefix, a version with leading zeros or none, bad base64, or
    /// a length that no wrapped data key has.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > TEXT_MAX {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let (version, sealed) = text.strip_prefix(PREFIX)?.split_once(':')?;
        if version.starts_with('0') || !version.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let version = version.parse().ok()?;
        let sealed = STANDARD.decode(sealed).ok()?;
        (sealed.len() >= SEALED_MIN).then_some(Self { text, version })
    }
}

/// The version of the Transit key that wrapped `slot`; `None` for a slot of another provider, for a missing one, and for
/// text that is not Transit's.
pub(super) fn key_version(slot: &EncryptedDataKey) -> Option<u32> {
    if slot.provider() != NAME {
        return None;
    }
    Ciphertext::parse(slot.wrapped()).map(|ciphertext| ciphertext.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";

    #[test]
    fn the_version_is_read_from_a_real_answer() {
        assert_eq!(key_version(&EncryptedDataKey::new("vault", "transit/k", REAL)), Some(2));
        assert_eq!(key_version(&EncryptedDataKey::new("aws-kms", "transit/k", REAL)), None);
        assert_eq!(key_version(&EncryptedDataKey::missing("vault", "transit/k")), None);
    }

    #[test]
    fn what_transit_does_not_write_is_no_ciphertext() {
        let sealed = &REAL["vault:v2:".len()..];
        let long = format!("vault:v1:{}", "AAAA".repeat(400));
        let bad = [
            "".to_owned(),
            sealed.to_owned(),
            format!("vault:v:{sealed}"),
            format!("vault:v0:{sealed}"),
            format!("vault:v02:{sealed}"),
            format!("vault:v+2:{sealed}"),
            format!("vault:v4294967296:{sealed}"),
            format!("vault:v2:{sealed}\n"),
            format!("Vault:v2:{sealed}"),
            "vault:v2:AAAA".to_owned(),
            "vault:v2:\"}".to_owned(),
            long,
        ];
        for text in bad {
            assert_eq!(Ciphertext::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Ciphertext::parse(b"vault:v1:\xff"), None);
    }
}
