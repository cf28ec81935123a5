//! The root key as text.
//!
//! ```text
//! text form = "envelock-root1." || base64url without padding (keystore id (16) || root key (32) || check (4))
//! check     = first 4 bytes of SHA-256(keystore id || root key)
//! ```
//! One line, with one LF or CRLF at most after it.

use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// A root key as text, for safe keeping. Wiped on drop, never printed.
pub struct RootKeyExport(Zeroizing<String>);

impl RootKeyExport {
    /// The line `envelock-root1.…`, without a line end.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RootKeyExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKeyExport(..)")
    }
}

/// A root key and the id of its keystore.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) keystore_id: [u8; 16],
    pub(super) root: Secret<32>,
}

impl Material {
    /// The longest text that is a root key: the line with CRLF.
    pub(super) const TEXT_MAX: u64 = (PREFIX.len() + ENCODED_LEN + 2) as u64;

    /// For a keystore that is made now.
    pub(super) fn generate() -> Result<Self> {
        Self::generate_for(fresh_keystore_id()?)
    }

    /// Another root key for the keystore of this id.
    pub(super) fn generate_for(keystore_id: [u8; 16]) -> Result<Self> {
        Ok(Self { keystore_id, root: Secret::try_init(|key| crypto::random::fill(key))? })
    }

    pub(super) fn copy(&self) -> Self {
        Self { keystore_id: self.keystore_id, root: crypto::copy_of_secret(self.root.expose()) }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let bad = || {
            Error::invalid_input("this is not a root key").with_advice(
                "a root key is one line, `envelock-root1.` and 70 letters, digits, `-` and `_`: check that all of it is there",
            )
        };
        let line = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let encoded = line.strip_prefix(PREFIX.as_bytes()).filter(|it| it.len() == ENCODED_LEN).ok_or_else(bad)?;
        // Room for what the decoder estimates before it looks at the last characters.
        let decoded =
            Secret::<{ DECODED_LEN + 2 }>::try_init(|out| match URL_SAFE_NO_PAD.decode_slice(encoded, out) {
                Ok(DECODED_LEN) => Ok(()),
                _ => Err(bad()),
            })?;
        let (keystore_id, rest) = decoded.expose().split_first_chunk::<16>().ok_or_else(bad)?;
        let (key, rest) = rest.split_first_chunk::<32>().ok_or_else(bad)?;
        if rest.get(..CHECK_LEN) != crypto::sha256_of_secret(&[keystore_id, key]).get(..CHECK_LEN) {
            return Err(bad());
        }
        Ok(Self { keystore_id: *keystore_id, root: crypto::copy_of_secret(key) })
    }

    pub(super) fn export(&self) -> Result<RootKeyExport> {
        export(&self.keystore_id, &self.root)
    }
}

pub(super) fn export(keystore_id: &[u8; 16], root: &Secret<32>) -> Result<RootKeyExport> {
    let check = crypto::sha256_of_secret(&[keystore_id, root.expose()]);
    let bytes = Secret::<DECODED_LEN>::init(|out| {
        out[..16].copy_from_slice(keystore_id);
        out[16..48].copy_from_slice(root.expose());
        out[48..].copy_from_slice(&check[..CHECK_LEN]);
    });
    let mut encoded = Zeroizing::new(vec![0; ENCODED_LEN]);
    let written = URL_SAFE_NO_PAD.encode_slice(bytes.expose(), &mut encoded);
    let text = std::str::from_utf8(&encoded).map_err(|_| Error::internal("base64 is text"))?;
    if written != Ok(ENCODED_LEN) {
        return Err(Error::internal("a root key has 70 base64 characters"));
    }
    let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + ENCODED_LEN));
    line.push_str(PREFIX);
    line.push_str(text);
    Ok(RootKeyExport(line))
}

/// A keystore id that no other keystore has.
pub(super) fn fresh_keystore_id() -> Result<[u8; 16]> {
    let mut random = [0; 16];
    crypto::random::fill(&mut random)?;
    Ok(uuid_v4(random))
}

/// Random bytes as a UUID of version 4 (RFC 9562).
pub(super) fn uuid_v4(random: [u8; 16]) -> [u8; 16] {
    *uuid::Builder::from_random_bytes(random).as_uuid().as_bytes()
}

const PREFIX: &str = "envelock-root1.";
const CHECK_LEN: usize = 4;
const DECODED_LEN: usize = 16 + 32 + CHECK_LEN;
const ENCODED_LEN: usize = 70;
