//! The backend RustCrypto: pure Rust, builds everywhere, fast on small inputs.
//!
//! With the `zeroize` features its types wipe themselves on drop. HMAC is built here from SHA-2's cores:
//! one trait object serves the three hashes, and a key is two states, without the crate's block buffers.

use super::backend::{
    AesKey, Backend, HmacKey, MAX_HASH_LEN, Parts, Sha2, Sha256Hasher, lengths_differ, refuse, too_long,
};
use super::{AEAD_KEY_LEN, Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN, stack};
use crate::error::Result;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Tag};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::{Array, BlockCipherEncrypt};
use chacha20poly1305::ChaCha20Poly1305;
use sha2::digest::Output;
use sha2::digest::block_api::{Block, Buffer, EagerHash, FixedOutputCore, UpdateCore};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::{fmt, slice};

/// How deep into the stack a key's preparation and every call with it leave the key, in KiB: AES spills
/// round keys, ChaCha20 its state. With AVX-512, AES holds 64 blocks and wide copies of its round keys; how deep
/// depends on what is inlined (release builds with link-time optimisation go beyond 8).
const AEAD_STACK_KIB: usize = 16;

/// RustCrypto, as a [`Backend`].
#[derive(Debug)]
pub(crate) struct RustCrypto;

impl Backend for RustCrypto {
    const NAME: &'static str = "RustCrypto";
    const HMAC_STACK_KIB: usize = 3;
    const AES_KEY_STACK_KIB: usize = 4;
    const AES_STACK_KIB: usize = 2;
    type Aead = RustCryptoAead;
    type Aes = RustCryptoAes;
    type Hmac = RustCryptoHmac;
    type Sha256 = Sha256;

    fn aead(algorithm: AeadAlgorithm, key: &[u8; AEAD_KEY_LEN]) -> RustCryptoAead {
        stack::wiped(AEAD_STACK_KIB, || match algorithm {
            AeadAlgorithm::Aes256Gcm => RustCryptoAead::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            AeadAlgorithm::ChaCha20Poly1305 => {
                RustCryptoAead::ChaCha20Poly1305(Box::new(ChaCha20Poly1305::new(key.into())))
            }
        })
    }

    fn aes(key: &[u8; AEAD_KEY_LEN]) -> RustCryptoAes {
        RustCryptoAes(Box::new(Aes256Enc::new(key.into())))
    }

    fn hmac(hash: Sha2, key: &[u8]) -> RustCryptoHmac {
        RustCryptoHmac(match hash {
            Sha2::Sha256 => Box::new(Keyed::<Sha256>::new(hash, key)),
            Sha2::Sha384 => Box::new(Keyed::<Sha384>::new(hash, key)),
            Sha2::Sha512 => Box::new(Keyed::<Sha512>::new(hash, key)),
        })
    }

    fn with_hmac<R>(hash: Sha2, key: &[u8], use_it: impl FnOnce(&dyn HmacKey) -> R) -> R {
        match hash {
            Sha2::Sha256 => use_it(&Keyed::<Sha256>::new(hash, key)),
            Sha2::Sha384 => use_it(&Keyed::<Sha384>::new(hash, key)),
            Sha2::Sha512 => use_it(&Keyed::<Sha512>::new(hash, key)),
        }
    }

    fn sha384(parts: &[&[u8]]) -> [u8; 48] {
        let mut hasher = Sha384::new();
        parts.iter().for_each(|part| Digest::update(&mut hasher, part));
        hasher.finalize().into()
    }
}

/// An AEAD key, boxed so that moving it leaves no copy behind.
#[derive(Debug)]
pub(crate) enum RustCryptoAead {
    Aes256Gcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

impl RustCryptoAead {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: InOutBuf<'_, '_, u8>) -> Result<Tag<Aes256Gcm>> {
        stack::wiped(AEAD_STACK_KIB, || match self {
            Self::Aes256Gcm(key) => key.encrypt_inout_detached(nonce.into(), aad, data),
            Self::ChaCha20Poly1305(key) => key.encrypt_inout_detached(nonce.into(), aad, data),
        })
        .map_err(|_| too_long())
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: InOutBuf<'_, '_, u8>,
        tag: &[u8; TAG_LEN],
    ) -> Result<(), aes_gcm::Error> {
        stack::wiped(AEAD_STACK_KIB, || match self {
            Self::Aes256Gcm(key) => key.decrypt_inout_detached(nonce.into(), aad, data, tag.into()),
            Self::ChaCha20Poly1305(key) => key.decrypt_inout_detached(nonce.into(), aad, data, tag.into()),
        })
    }
}

impl Aead for RustCryptoAead {
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = data_and_tag.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        *tag = self.seal(nonce, aad, InOutBuf::from(data))?.into();
        Ok(())
    }

    fn seal_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = out.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        let buffers = InOutBuf::new(plaintext, data).map_err(|_| lengths_differ())?;
        *tag = self.seal(nonce, aad, buffers)?.into();
        Ok(())
    }

    fn open_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = data_and_tag.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        if self.open(nonce, aad, InOutBuf::from(data), tag).is_err() {
            return Err(refuse(data_and_tag));
        }
        Ok(())
    }

    fn open_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        let buffers = InOutBuf::new(data, &mut *out).map_err(|_| lengths_differ())?;
        self.open(nonce, aad, buffers, tag).map_err(|_| refuse(out))
    }
}

/// A keyed AES-256, boxed so that moving it leaves no copy of its round keys behind.
#[derive(Debug)]
pub(crate) struct RustCryptoAes(Box<Aes256Enc>);

impl AesKey for RustCryptoAes {
    fn encrypt_two(&self, blocks: &mut [u8; 32]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}

/// The two keyed states of an HMAC (RFC 2104): SHA-2 having read key ^ ipad, and key ^ opad.
struct Keyed<D: EagerHash> {
    hash: Sha2,
    inner: D::Core,
    outer: D::Core,
}

impl<D: EagerHash + Digest> Keyed<D> {
    fn new(hash: Sha2, key: &[u8]) -> Self {
        // (It holds the key, and lies in the part of the stack that every caller overwrites.)
        let mut block = Block::<D::Core>::default();
        if key.len() <= block.len() {
            block[..key.len()].copy_from_slice(key);
        } else {
            block[..<D as Digest>::output_size()].copy_from_slice(&D::digest(key));
        }
        block.iter_mut().for_each(|byte| *byte ^= 0x36);
        let mut inner = D::Core::default();
        inner.update_blocks(slice::from_ref(&block));
        block.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5C);
        let mut outer = D::Core::default();
        outer.update_blocks(slice::from_ref(&block));
        Self { hash, inner, outer }
    }
}

impl<D: EagerHash<Core: Send + Sync>> HmacKey for Keyed<D> {
    fn hash(&self) -> Sha2 {
        self.hash
    }

    fn sign(&self, parts: &Parts<'_>, out: &mut [u8; MAX_HASH_LEN]) {
        let mut inner = self.inner.clone();
        let mut buffer = Buffer::<D::Core>::default();
        parts.each(|part| buffer.digest_blocks(part, |blocks| inner.update_blocks(blocks)));
        let mut tag = Output::<D::Core>::default();
        inner.finalize_fixed_core(&mut buffer, &mut tag);
        buffer.reset();
        let mut outer = self.outer.clone();
        buffer.digest_blocks(&tag, |blocks| outer.update_blocks(blocks));
        outer.finalize_fixed_core(&mut buffer, &mut tag);
        out[..tag.len()].copy_from_slice(&tag);
    }
}

impl<D: EagerHash> fmt::Debug for Keyed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyed<{:?}>(..)", self.hash)
    }
}

/// A keyed HMAC, boxed so that moving it leaves no copy of its states behind.
#[derive(Debug)]
pub(crate) struct RustCryptoHmac(Box<dyn HmacKey>);

impl HmacKey for RustCryptoHmac {
    fn hash(&self) -> Sha2 {
        self.0.hash()
    }

    fn sign(&self, parts: &Parts<'_>, out: &mut [u8; MAX_HASH_LEN]) {
        self.0.sign(parts, out);
    }
}

impl Sha256Hasher for Sha256 {
    fn new() -> Self {
        Digest::new()
    }

    fn update(&mut self, data: &[u8]) {
        Digest::update(self, data);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}
