//! HKDF-Expand (RFC 5869, section 2.3) over any backend's HMAC, with keys of any length.

use super::backend::{Backend, HmacKey, MAX_HASH_LEN, Parts, Sha2};
use super::{AEAD_KEY_LEN, AeadAlgorithm, KdfKey, stack};
use crate::error::{Error, Result};
use std::fmt;

/// A prepared key: its HMAC is keyed once.
pub(crate) struct Hkdf<B: Backend>(B::Hmac);

impl<B: Backend> Hkdf<B> {
    pub(super) fn new(hash: Sha2, key: &[u8]) -> Self {
        Self(stack::wiped(B::HMAC_STACK_KIB, || B::hmac(hash, key)))
    }
}

impl<B: Backend> KdfKey for Hkdf<B> {
    fn expand_each(&self, each: &mut [Expansion<'_>]) -> Result<()> {
        stack::wiped(B::HMAC_STACK_KIB, || each.iter_mut().try_for_each(|(info, out)| expand(&self.0, info, out)))
    }
}

impl<B: Backend> fmt::Debug for Hkdf<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hkdf({}, ..)", B::NAME)
    }
}

/// One HKDF-Expand under a key that is used this once.
pub(super) fn expand_once<B: Backend>(hash: Sha2, key: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<()> {
    stack::wiped(B::HMAC_STACK_KIB, || B::with_hmac(hash, key, |hmac| expand(hmac, info, out)))
}

/// Some HKDF-Expand under a key that is used for them only, at the price of one key set-up and one wipe.
pub(super) fn expand_each_once<B: Backend>(hash: Sha2, key: &[u8], each: &mut [Expansion<'_>]) -> Result<()> {
    stack::wiped(B::HMAC_STACK_KIB, || {
        B::with_hmac(hash, key, |hmac| each.iter_mut().try_for_each(|(info, out)| expand(hmac, info, out)))
    })
}

/// What HKDF-Expand runs over, and what it fills.
pub(crate) type Expansion<'a> = (&'a [&'a [u8]], &'a mut [u8]);

/// An AEAD key that is derived and never seen: it lies in the part of the stack that is overwritten.
pub(super) fn aead_once<B: Backend, A: Backend>(
    hash: Sha2,
    key: &[u8],
    info: &[&[u8]],
    algorithm: AeadAlgorithm,
) -> Result<A::Aead> {
    stack::wiped(B::HMAC_STACK_KIB, || aead::<B, A>(hash, key, info, algorithm))
}

/// What lies on the stack after it is for every caller to overwrite.
fn aead<B: Backend, A: Backend>(hash: Sha2, key: &[u8], info: &[&[u8]], algorithm: AeadAlgorithm) -> Result<A::Aead> {
    let mut derived = [0; AEAD_KEY_LEN];
    B::with_hmac(hash, key, |hmac| expand(hmac, info, &mut derived))?;
    Ok(A::aead(algorithm, &derived))
}

/// Two HKDF-Expand under one key, and the AEAD key under the second of their outputs.
pub(crate) struct Chain<'a> {
    pub(crate) first: Expansion<'a>,
    /// What it fills is a key itself.
    pub(crate) second: Expansion<'a>,
    /// What the AEAD key is expanded from.
    pub(crate) info: &'a [&'a [u8]],
    pub(crate) algorithm: AeadAlgorithm,
}

impl<B: Backend> Hkdf<B> {
    /// All of `chain`, at the price of one wipe.
    pub(super) fn chain<A: Backend>(&self, chain: Chain<'_>) -> Result<A::Aead> {
        stack::wiped(B::HMAC_STACK_KIB, || {
            let Chain { first, second, info, algorithm } = chain;
            expand(&self.0, first.0, first.1)?;
            expand(&self.0, second.0, second.1)?;
            aead::<B, A>(self.0.hash(), second.1, info, algorithm)
        })
    }
}

/// All of `chain` under a key that is used this once, at the price of one wipe.
pub(super) fn chain_once<B: Backend, A: Backend>(hash: Sha2, key: &[u8], chain: Chain<'_>) -> Result<A::Aead> {
    stack::wiped(B::HMAC_STACK_KIB, || {
        let Chain { first, second, info, algorithm } = chain;
        B::with_hmac(hash, key, |hmac| {
            expand(hmac, first.0, first.1)?;
            expand(hmac, second.0, &mut *second.1)
        })?;
        aead::<B, A>(hash, second.1, info, algorithm)
    })
}

/// One HMAC under a key that is used this once. `out` is at most one hash long.
pub(super) fn hmac_once<B: Backend>(hash: Sha2, key: &[u8], parts: &[&[u8]], out: &mut [u8]) {
    stack::wiped(B::HMAC_STACK_KIB, || {
        let mut tag = [0; MAX_HASH_LEN];
        B::with_hmac(hash, key, |hmac| hmac.sign(&Parts::of(parts), &mut tag));
        for (out, byte) in out.iter_mut().zip(tag.iter()) {
            *out = *byte;
        }
    });
}

fn expand<H: HmacKey + ?Sized>(hmac: &H, info: &[&[u8]], out: &mut [u8]) -> Result<()> {
    let len = hmac.hash().output_len();
    if out.len() > 255 * len {
        return Err(Error::internal(format!("HKDF gives at most {} bytes, not {}", 255 * len, out.len())));
    }
    // T(0) = empty, T(i) = HMAC(PRK, T(i-1) || info || i)
    // (These hold key material, and lie in the part of the stack that every caller overwrites.)
    let mut block = [0; MAX_HASH_LEN];
    let mut previous = [0; MAX_HASH_LEN];
    let mut previous_len = 0;
    for (counter, chunk) in (1..=u8::MAX).zip(out.chunks_mut(len)) {
        let parts = Parts { first: &previous[..previous_len], middle: info, last: &[counter] };
        hmac.sign(&parts, &mut block);
        chunk.copy_from_slice(&block[..chunk.len()]);
        if chunk.len() == len {
            previous = block;
            previous_len = len;
        }
    }
    Ok(())
}
