//! XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM with nonces of 24 bytes, which may be random without a
//! bound that matters.
//!
//! ```text
//! L  = AES-256(K, 0^128)         K1 = L << 1, xor 0x87 in the last byte if L's first bit was set
//! Kx = AES-256(K, (00 01 "X" 00 || N[..12]) ^ K1) || AES-256(K, (00 02 "X" 00 || N[..12]) ^ K1)
//! sealed = AES-256-GCM(Kx, N[12..], plaintext, associated data)
//! ```
//!
//! This is the KDF of NIST SP 800-108r1 in counter mode over CMAC (SP 800-38B), one block each.

use super::backend::{AesKey, Backend};
use super::{AEAD_KEY_LEN, Aead, AeadAlgorithm, NONCE_LEN, XAES_NONCE_LEN, stack};
use crate::error::Result;
use crate::secret::Secret;
use std::fmt;
use std::marker::PhantomData;

/// A key for many values, each under a key of its own: AES comes from `B`, the AEAD from `A`.
pub(crate) struct Xaes<B: Backend, A: Backend> {
    aes: B::Aes,
    /// CMAC's first subkey.
    subkey: Secret<BLOCK_LEN>,
    aead: PhantomData<fn() -> A>,
}

impl<B: Backend, A: Backend> Xaes<B, A> {
    pub(super) fn new(key: &[u8; AEAD_KEY_LEN]) -> Self {
        stack::wiped(B::AES_KEY_STACK_KIB, || {
            let aes = B::aes(key);
            let mut blocks = [0; AEAD_KEY_LEN];
            aes.encrypt_two(&mut blocks);
            let subkey = Secret::init(|subkey| double(&blocks, subkey));
            Self { aes, subkey, aead: PhantomData }
        })
    }

    /// Encrypts `plaintext` into `out` = ciphertext || tag, 16 bytes longer.
    ///
    /// # Errors
    /// Kind Internal for another length of `out`, and for more plaintext than AES-256-GCM takes.
    pub(crate) fn seal_to(
        &self,
        nonce: &[u8; XAES_NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let (aead, nonce) = self.derived(nonce);
        aead.seal_to(&nonce, aad, plaintext, out)
    }

    /// Decrypts `sealed` = ciphertext || tag into `out`, 16 bytes shorter.
    ///
    /// # Errors
    /// Kind AuthenticationFailed, and then `out` is wiped; kind Internal for another length of `out`.
    pub(crate) fn open_to(
        &self,
        nonce: &[u8; XAES_NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let (aead, nonce) = self.derived(nonce);
        aead.open_to(&nonce, aad, sealed, out)
    }

    /// The key of one nonce, which nobody else sees, and what is left of the nonce.
    fn derived(&self, nonce: &[u8; XAES_NONCE_LEN]) -> (A::Aead, [u8; NONCE_LEN]) {
        let (mut first, mut rest) = ([0; NONCE_LEN], [0; NONCE_LEN]);
        first.copy_from_slice(&nonce[..NONCE_LEN]);
        rest.copy_from_slice(&nonce[NONCE_LEN..]);
        let aead = stack::wiped(B::AES_STACK_KIB, || {
            let mut key = [0; AEAD_KEY_LEN];
            for (counter, half) in (1..).zip(key.chunks_exact_mut(BLOCK_LEN)) {
                half[..4].copy_from_slice(&[0, counter, b'X', 0]);
                half[4..].copy_from_slice(&first);
                half.iter_mut().zip(self.subkey.expose()).for_each(|(byte, mask)| *byte ^= mask);
            }
            self.aes.encrypt_two(&mut key);
            A::aead(AeadAlgorithm::Aes256Gcm, &key)
        });
        (aead, rest)
    }
}

impl<B: Backend, A: Backend> fmt::Debug for Xaes<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xaes({}, {}, ..)", B::NAME, A::NAME)
    }
}

/// "If MSB(L) = 0 then K1 = L << 1, else K1 = (L << 1) xor 0^120 10000111", without a branch on L.
fn double(block: &[u8], out: &mut [u8; BLOCK_LEN]) {
    let mut carry = 0;
    for (out, byte) in out.iter_mut().zip(block).rev() {
        *out = (byte << 1) | carry;
        carry = byte >> 7;
    }
    out[BLOCK_LEN - 1] ^= 0x87 & 0_u8.wrapping_sub(carry);
}

/// Length of a block of AES in bytes.
const BLOCK_LEN: usize = 16;
