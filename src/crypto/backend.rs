//! What a crypto backend must bring, and what every backend answers to misuse.

use super::{AEAD_KEY_LEN, Aead, AeadAlgorithm};
use crate::error::Error;
use std::fmt;
use zeroize::Zeroize;

/// A member of the SHA-2 family (FIPS 180-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sha2 {
    /// 32 bytes of output, blocks of 64.
    Sha256,
    /// 48 bytes of output, blocks of 128.
    Sha384,
    /// 64 bytes of output, blocks of 128.
    Sha512,
}

impl Sha2 {
    /// Length of the hash, and so of an HMAC with it, in bytes.
    pub(crate) const fn output_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Length of the longest hash in bytes.
pub(crate) const MAX_HASH_LEN: usize = 64;

/// What a crypto backend must bring. Stateless: a name for a set of types.
pub(crate) trait Backend: 'static {
    /// The crate behind it, for messages and tests.
    const NAME: &'static str;
    /// How deep into the stack its HMAC leaves key material, in KiB, with room to spare.
    const HMAC_STACK_KIB: usize;
    /// How deep into the stack the preparation of a key for AES leaves it, in KiB.
    const AES_KEY_STACK_KIB: usize;
    /// How deep into the stack a call of AES leaves round keys and what it made, in KiB.
    const AES_STACK_KIB: usize;
    /// A keyed AEAD. Moving it moves no key: the key lies on the heap, and is wiped there.
    type Aead: Aead + 'static;
    /// A keyed AES-256 for single blocks. Moving it moves no key.
    type Aes: AesKey + 'static;
    /// A keyed HMAC. Moving it moves no key.
    type Hmac: HmacKey + 'static;
    /// SHA-256 in pieces.
    type Sha256: Sha256Hasher;

    /// Prepares an AEAD key. It, and the calls on it, leave no copy of the key on the stack.
    fn aead(algorithm: AeadAlgorithm, key: &[u8; AEAD_KEY_LEN]) -> Self::Aead;

    /// Prepares an AES-256 key, on the heap, for many uses. The caller wipes the stack.
    fn aes(key: &[u8; AEAD_KEY_LEN]) -> Self::Aes;

    /// Prepares an HMAC key of any length, on the heap, for many uses. The caller wipes the stack.
    fn hmac(hash: Sha2, key: &[u8]) -> Self::Hmac;

    /// Prepares an HMAC key on the stack, hands it to `use_it`, and wipes it. The caller wipes the stack.
    fn with_hmac<R>(hash: Sha2, key: &[u8], use_it: impl FnOnce(&dyn HmacKey) -> R) -> R;

    /// SHA-384 of the concatenated `parts`.
    fn sha384(parts: &[&[u8]]) -> [u8; 48];
}

/// A keyed AES-256 (FIPS 197).
pub(crate) trait AesKey: Send + Sync + fmt::Debug {
    /// Encrypts two blocks, each by itself, in place. The caller wipes the stack.
    fn encrypt_two(&self, blocks: &mut [u8; 32]);
}

/// A keyed HMAC (RFC 2104).
pub(crate) trait HmacKey: Send + Sync + fmt::Debug {
    /// The hash that it was made with.
    fn hash(&self) -> Sha2;

    /// HMAC of the concatenated `parts`, written to the start of `out`. The rest of `out` is left alone.
    fn sign(&self, parts: &Parts<'_>, out: &mut [u8; MAX_HASH_LEN]);
}

/// SHA-256 over bytes that come in pieces.
pub(crate) trait Sha256Hasher {
    fn new() -> Self;
    fn update(&mut self, data: &[u8]);
    fn finish(self) -> [u8; 32];
}

/// What an HMAC runs over: `first || middle[0] || … || last`, without a copy.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) middle: &'a [&'a [u8]],
    pub(crate) last: &'a [u8],
}

impl<'a> Parts<'a> {
    /// The concatenation of `parts`.
    pub(crate) fn of(parts: &'a [&'a [u8]]) -> Self {
        Self { first: &[], middle: parts, last: &[] }
    }

    pub(crate) fn each(&self, mut take: impl FnMut(&[u8])) {
        if !self.first.is_empty() {
            take(self.first);
        }
        self.middle.iter().for_each(|part| take(part));
        take(self.last);
    }
}

/// Wipes what a failed opening may have left, and names the failure.
pub(crate) fn refuse(out: &mut [u8]) -> Error {
    out.zeroize();
    Error::authentication()
}

/// What to answer to buffers whose lengths do not fit each other.
pub(crate) fn lengths_differ() -> Error {
    Error::internal("a buffer for an AEAD is not exactly 16 bytes longer than its plaintext")
}

/// What to answer to more plaintext than the algorithm takes under one nonce.
pub(crate) fn too_long() -> Error {
    Error::internal("more plaintext than an AEAD takes under one nonce")
}
