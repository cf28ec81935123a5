//! The crypto seam: what the rest of the crate may ask of a backend, and nothing more.
//!
//! Only the files of this folder name a crypto crate. AES-256-GCM: NIST SP 800-38D.
//! ChaCha20-Poly1305: RFC 8439. HKDF-Expand: RFC 5869. SHA-2: FIPS 180-4. HMAC: RFC 2104.
//! Argon2id: RFC 9106. XAES-256-GCM: c2sp.org/XAES-256-GCM, over AES-256 (FIPS 197). RSA-OAEP: RFC 8017.
//!
//! A backend is one file that implements [`backend::Backend`], and one for [`rsa::RsaBackend`]. Which backend serves which primitive stands in
//! one of the `choice_*.rs` files, picked by the features; everything is dispatched statically.

#![cfg_attr(not(feature = "local-kms"), allow(dead_code, reason = "the keystore's share of the seam"))]

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod backend;
mod hkdf;
pub(crate) mod password;
pub(crate) mod random;
pub(crate) mod rsa;
#[cfg(feature = "aws-lc-rs")]
mod rsa_aws_lc;
#[cfg(feature = "rust-crypto")]
mod rsa_rust_crypto;
#[cfg(feature = "rust-crypto")]
mod rust_crypto;
mod stack;
mod xaes;

#[cfg(all(feature = "aws-lc-rs", not(feature = "rust-crypto")))]
mod choice_aws_lc;
#[cfg(all(feature = "aws-lc-rs", feature = "rust-crypto"))]
mod choice_both;
#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
mod choice_none;
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc-rs")))]
mod choice_rust_crypto;

#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::secret::Secret;
use backend::{Backend, Sha2, Sha256Hasher};
#[cfg(all(feature = "aws-lc-rs", not(feature = "rust-crypto")))]
use choice_aws_lc as choice;
#[cfg(all(feature = "aws-lc-rs", feature = "rust-crypto"))]
use choice_both as choice;
#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
use choice_none as choice;
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc-rs")))]
use choice_rust_crypto as choice;
pub(crate) use hkdf::{Chain, Expansion};
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

/// Length of a nonce of XAES-256-GCM in bytes.
pub(crate) const XAES_NONCE_LEN: usize = 24;

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
    /// Fills each output from the concatenation of its info. At most 255 hash lengths each, else kind
    /// Internal.
    fn expand_each(&self, each: &mut [Expansion<'_>]) -> Result<()>;

    /// Fills `out` from the concatenation of `info`, as [`expand_each`](Self::expand_each) does.
    #[cfg_attr(not(test), expect(dead_code, reason = "messages expand two at a time"))]
    fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<()> {
        self.expand_each(&mut [(info, out)])
    }
}

/// A keyed AEAD of the chosen backend. It implements [`Aead`].
pub(crate) type AeadKey = <choice::ForAead as Backend>::Aead;

/// A prepared HKDF-Expand key of the chosen backend. It implements [`KdfKey`].
pub(crate) type HkdfKey = hkdf::Hkdf<choice::ForHmac>;

/// A key of XAES-256-GCM on the chosen backends.
pub(crate) type XaesKey = xaes::Xaes<choice::ForAes, choice::ForAead>;

/// Prepares `key` for many values under XAES-256-GCM.
pub(crate) fn xaes(key: &[u8; AEAD_KEY_LEN]) -> XaesKey {
    xaes::Xaes::new(key)
}

/// Prepares `key` for many segments.
pub(crate) fn aead(algorithm: AeadAlgorithm, key: &[u8; AEAD_KEY_LEN]) -> AeadKey {
    choice::ForAead::aead(algorithm, key)
}

/// Prepares `key`, of any length, for many HKDF-Expand-SHA-384 (RFC 5869, section 2.3).
pub(crate) fn hkdf_sha384(key: &[u8]) -> HkdfKey {
    hkdf::Hkdf::new(Sha2::Sha384, key)
}

/// Prepares `key`, of any length, for many HKDF-Expand-SHA-512 (RFC 5869, section 2.3).
#[cfg_attr(not(test), expect(dead_code, reason = "held by the tests for the AWS Encryption SDK's suites"))]
pub(crate) fn hkdf_sha512(key: &[u8]) -> HkdfKey {
    hkdf::Hkdf::new(Sha2::Sha512, key)
}

/// One HKDF-Expand-SHA-384 under a key that is used this once.
///
/// # Errors
/// Kind Internal if `out` is longer than 255 hashes (12,240 bytes).
pub(crate) fn hkdf_expand_sha384(key: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<()> {
    hkdf::expand_once::<choice::ForHmac>(Sha2::Sha384, key, info, out)
}

/// Some HKDF-Expand-SHA-384 under a key that is used for these only.
///
/// # Errors
/// As [`hkdf_expand_sha384`].
pub(crate) fn hkdf_expand_sha384_each(key: &[u8], each: &mut [Expansion<'_>]) -> Result<()> {
    hkdf::expand_each_once::<choice::ForHmac>(Sha2::Sha384, key, each)
}

/// Prepares the AEAD key HKDF-Expand-SHA-384(`key`, `info`, 32), which nobody else sees.
///
/// # Errors
/// None that a caller could cause: the length is within HKDF's.
pub(crate) fn aead_of_hkdf_sha384(algorithm: AeadAlgorithm, key: &[u8], info: &[&[u8]]) -> Result<AeadKey> {
    hkdf::aead_once::<choice::ForHmac, choice::ForAead>(Sha2::Sha384, key, info, algorithm)
}

/// All of `chain` under a prepared key.
///
/// # Errors
/// As [`hkdf_expand_sha384`].
pub(crate) fn aead_of_chain(key: &HkdfKey, chain: Chain<'_>) -> Result<AeadKey> {
    key.chain::<choice::ForAead>(chain)
}

/// All of `chain`, with HKDF-Expand-SHA-384, under a key that is used this once.
///
/// # Errors
/// As [`hkdf_expand_sha384`].
pub(crate) fn aead_of_chain_sha384(key: &[u8], chain: Chain<'_>) -> Result<AeadKey> {
    hkdf::chain_once::<choice::ForHmac, choice::ForAead>(Sha2::Sha384, key, chain)
}

/// HMAC-SHA-256 of the concatenated `parts`, under a key of any length.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::hmac_once::<choice::ForHmac>(Sha2::Sha256, key, parts, &mut out);
    out
}

/// SHA-256 of the concatenated `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish()
}

/// As [`sha256`], of parts among which are secrets: what the hash keeps of them meanwhile is overwritten.
pub(crate) fn sha256_of_secret(parts: &[&[u8]]) -> [u8; 32] {
    stack::wiped(<choice::ForHash as Backend>::HMAC_STACK_KIB, || sha256(parts))
}

/// A copy of secret bytes. A compiler that loads half of them before it makes room for them leaves that half on the stack.
pub(crate) fn copy_of_secret<const N: usize>(bytes: &[u8; N]) -> Secret<N> {
    stack::wiped(1, || Secret::init(|out| out.copy_from_slice(bytes)))
}

/// SHA-384 of the concatenated `parts`.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    choice::ForHash::sha384(parts)
}

/// SHA-256 over bytes that come in pieces, such as the body of a large file.
pub(crate) struct Sha256(<choice::ForHash as Backend>::Sha256);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Self(Sha256Hasher::new())
    }

    /// Takes the next piece.
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hash of all pieces.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finish()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(..)")
    }
}
