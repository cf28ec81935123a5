//! The crypto seam: what the rest of the crate may ask of a backend, and nothing more.
//!
//! Only the files of this folder name a crypto crate. AES-256-GCM: NIST SP 800-38D.
//! ChaCha20-Poly1305: RFC 8439. HKDF-Expand: RFC 5869. SHA-2: FIPS 180-4. HMAC: RFC 2104.
//! Argon2id: RFC 9106.

use crate::error::Result;
use std::fmt;

/// An AEAD that FLOE segments and wrapped keys can use. Both have 32-byte keys, 12-byte nonces and
/// 16-byte tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AeadAlgorithm {
    /// AES-256 in Galois/counter mode, NIST SP 800-38D. The default.
    Aes256Gcm,
    /// ChaCha20-Poly1305, RFC 8439: for machines without AES instructions.
    ChaCha20Poly1305,
}

/// Length of an AEAD key in bytes.
pub(crate) const AEAD_KEY_LEN: usize = 32;
/// Length of an AEAD nonce in bytes.
pub(crate) const NONCE_LEN: usize = 12;
/// Length of an AEAD tag in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// A keyed AEAD. `&self` everywhere, so that threads share one.
///
/// A buffer that holds `ciphertext || tag` is [`TAG_LEN`] longer than the plaintext; any other
/// relation of lengths is an error of kind Internal, and nothing is written.
pub(crate) trait Aead: Send + Sync + fmt::Debug {
    /// Encrypts all but the last 16 bytes of `data_and_tag` in place, and puts the tag there.
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()>;

    /// Encrypts `plaintext` into `out` = ciphertext || tag, in one pass.
    fn seal_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<()>;

    /// Decrypts `ciphertext || tag` in place; the plaintext is all but the last 16 bytes.
    /// On failure (kind AuthenticationFailed) the whole buffer is wiped.
    fn open_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()>;

    /// Decrypts `sealed` = ciphertext || tag into `out`, in one pass.
    /// On failure (kind AuthenticationFailed) `out` is wiped.
    fn open_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<()>;
}

/// HKDF-Expand (RFC 5869, section 2.3) with its HMAC keyed once.
///
/// The key is the HMAC key as it is, whatever its length: no check against the hash length.
pub(crate) trait KdfKey: Send + Sync + fmt::Debug {
    /// Fills `out` from the concatenation of `info`. At most 255 hash lengths, else kind Internal.
    fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<()>;
}
