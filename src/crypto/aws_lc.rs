//! The backend aws-lc-rs: C and assembly, fast on large inputs (VAES, AVX-512).
//!
//! Its contexts are wiped by the C side: `HMAC_CTX_cleanup` and `OPENSSL_free` both cleanse.

use super::backend::{
    AesKey, Backend, HmacKey, MAX_HASH_LEN, Parts, Sha2, Sha256Hasher, lengths_differ, refuse, too_long,
};
use super::{AEAD_KEY_LEN, Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN, stack};
use crate::error::Result;
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::{digest, hmac};

/// aws-lc-rs, as a [`Backend`].
#[derive(Debug)]
pub(crate) struct AwsLc;

impl Backend for AwsLc {
    const NAME: &'static str = "aws-lc-rs";
    const HMAC_STACK_KIB: usize = 8;
    const AES_KEY_STACK_KIB: usize = 4;
    const AES_STACK_KIB: usize = 1;
    type Aead = AwsLcAead;
    type Aes = AwsLcAes;
    type Hmac = AwsLcHmac;
    type Sha256 = AwsLcSha256;

    fn aead(algorithm: AeadAlgorithm, key: &[u8; AEAD_KEY_LEN]) -> AwsLcAead {
        let algorithm = match algorithm {
            AeadAlgorithm::Aes256Gcm => &AES_256_GCM,
            AeadAlgorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        #[expect(
            clippy::expect_used,
            reason = "both algorithms take 32 bytes; what else can fail is malloc, and there Rust aborts as well"
        )]
        let key = UnboundKey::new(algorithm, key).expect("a 32-byte key is the right length");
        AwsLcAead(LessSafeKey::new(key))
    }

    fn aes(key: &[u8; AEAD_KEY_LEN]) -> AwsLcAes {
        #[expect(clippy::expect_used, reason = "the key is as long as AES-256's, which has this mode")]
        let key = UnboundCipherKey::new(&AES_256, key).and_then(EncryptingKey::ecb).expect("32 bytes are an AES key");
        AwsLcAes(Box::new(key))
    }

    fn hmac(hash: Sha2, key: &[u8]) -> AwsLcHmac {
        AwsLcHmac { hash, key: Box::new(hmac::Key::new(algorithm_of(hash), key)) }
    }

    fn with_hmac<R>(hash: Sha2, key: &[u8], use_it: impl FnOnce(&dyn HmacKey) -> R) -> R {
        use_it(&Self::hmac(hash, key))
    }

    fn sha384(parts: &[&[u8]]) -> [u8; 48] {
        let mut context = digest::Context::new(&digest::SHA384);
        parts.iter().for_each(|part| context.update(part));
        copied(context.finish().as_ref())
    }
}

/// The first `N` bytes of a hash that has as many.
fn copied<const N: usize>(hash: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hash[..N]);
    out
}

fn algorithm_of(hash: Sha2) -> hmac::Algorithm {
    match hash {
        Sha2::Sha256 => hmac::HMAC_SHA256,
        Sha2::Sha384 => hmac::HMAC_SHA384,
        Sha2::Sha512 => hmac::HMAC_SHA512,
    }
}

/// How deep into the stack every call of ChaCha20 leaves the key, in KiB: the assembly spills it.
const CHACHA_STACK_KIB: usize = 3;

/// An AEAD key; it lies in memory of the C side. AES leaves nothing of it on the stack.
#[derive(Debug)]
pub(crate) struct AwsLcAead(LessSafeKey);

impl AwsLcAead {
    /// Runs a sealing or opening, and wipes the stack after it where that is needed.
    fn run<R>(&self, work: impl FnOnce(&LessSafeKey) -> R) -> R {
        if self.0.algorithm() == &CHACHA20_POLY1305 {
            stack::wiped(CHACHA_STACK_KIB, || work(&self.0))
        } else {
            work(&self.0)
        }
    }
}

impl Aead for AwsLcAead {
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = data_and_tag.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        let sealed = self.run(|key| key.seal_in_place_separate_tag(nonce, aad, data));
        tag.copy_from_slice(sealed.map_err(|_| too_long())?.as_ref());
        Ok(())
    }

    fn seal_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        if out.len().checked_sub(TAG_LEN) != Some(plaintext.len()) {
            return Err(lengths_differ());
        }
        let (data, tag) = out.split_at_mut(plaintext.len());
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        self.run(|key| key.seal_out_of_place_scatter(nonce, aad, plaintext, data, &[], tag)).map_err(|_| too_long())
    }

    fn open_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data_and_tag: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = data_and_tag.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        if self.run(|key| key.open_in_place_separate_tag(nonce, aad, tag, data).is_err()) {
            return Err(refuse(data_and_tag));
        }
        Ok(())
    }

    fn open_to(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<()> {
        let Some((data, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return Err(lengths_differ());
        };
        if data.len() != out.len() {
            return Err(lengths_differ());
        }
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        self.run(|key| key.open_separate_gather(nonce, aad, data, tag, out)).map_err(|_| refuse(out))
    }
}

/// A keyed AES-256, boxed so that moving it leaves no copy of its round keys behind.
#[derive(Debug)]
pub(crate) struct AwsLcAes(Box<EncryptingKey>);

impl AesKey for AwsLcAes {
    fn encrypt_two(&self, blocks: &mut [u8; 32]) {
        #[expect(clippy::expect_used, reason = "what can fail is a length that is no multiple of a block's")]
        self.0.encrypt(blocks).expect("two blocks are whole blocks");
    }
}

/// A keyed HMAC, boxed so that moving it leaves no copy of its state behind.
#[derive(Debug)]
pub(crate) struct AwsLcHmac {
    hash: Sha2,
    key: Box<hmac::Key>,
}

impl HmacKey for AwsLcHmac {
    fn hash(&self) -> Sha2 {
        self.hash
    }

    fn sign(&self, parts: &Parts<'_>, out: &mut [u8; MAX_HASH_LEN]) {
        let mut context = hmac::Context::with_key(&self.key);
        parts.each(|part| context.update(part));
        let tag = context.sign();
        let tag = tag.as_ref();
        out[..tag.len()].copy_from_slice(tag);
    }
}

/// SHA-256 in pieces.
pub(crate) struct AwsLcSha256(digest::Context);

impl Sha256Hasher for AwsLcSha256 {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(self) -> [u8; 32] {
        copied(self.0.finish().as_ref())
    }
}
