//! A content sealed to the public key of one keystore.
//!
//! ```text
//! sealed = length of what follows the IV (4) || RSA-OAEP of a content key (512) || IV (12) || ciphertext || tag (16)
//!   content key: 32 random bytes, for this file only
//!   AES-256-GCM under HKDF-Expand-SHA-384(content key, "envelock/kms/v1 sealed" || 00 || all before the IV, 32)
//!   AAD = all bytes of the file before the IV
//! ```
//! OAEP alone has room for 446 bytes, and binds nothing to them: the AAD binds the kind of the file, both
//! keystores and Regions, the key and the serial. RFC 8017, section 7.1; RFC 5869; NIST SP 800-38D.

use super::content::Content;
use super::frame::{Fields, malformed};
use crate::crypto::rsa::{RSA_LEN, RsaPrivateKey, RsaPublicKey};
use crate::crypto::{self, Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use zeroize::Zeroizing;

/// Appends `content`, sealed to `target`, to the `file` that was begun.
pub(crate) fn seal(file: Vec<u8>, content: &Content, target: &RsaPublicKey) -> Result<Vec<u8>> {
    let key = Secret::try_init(|key| crypto::random::fill(key))?;
    let mut iv = [0; NONCE_LEN];
    crypto::random::fill(&mut iv)?;
    let wrapped = target.encrypt(key.expose())?;
    seal_with(file, content, &Fresh { key, wrapped, iv })
}

/// What is drawn anew for each file.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// The content key.
    pub(crate) key: Secret<32>,
    /// The content key under RSA-OAEP.
    pub(crate) wrapped: [u8; RSA_LEN],
    pub(crate) iv: [u8; NONCE_LEN],
}

/// [`seal`], with what is drawn given: for it, and for known answers.
pub(crate) fn seal_with(mut file: Vec<u8>, content: &Content, fresh: &Fresh) -> Result<Vec<u8>> {
    let content = content.encode()?;
    let sealed_len = content.len() + TAG_LEN;
    let length = u32::try_from(sealed_len).map_err(|_| Error::internal("a content is below 4 GiB"))?;
    file.extend_from_slice(&length.to_be_bytes());
    file.extend_from_slice(&fresh.wrapped);
    let aead = content_aead(&fresh.key, &file)?;
    let aad_len = file.len();
    file.extend_from_slice(&fresh.iv);
    file.resize(file.len() + sealed_len, 0);
    let (aad, rest) = file.split_at_mut(aad_len);
    let (_, sealed) = rest.split_at_mut(NONCE_LEN);
    aead.seal_to(&fresh.iv, aad, &content, sealed)?;
    Ok(file)
}

/// A content, taken apart and not yet opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed<'a> {
    aad: &'a [u8],
    wrapped: &'a [u8; RSA_LEN],
    iv: [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(crate) fn read(fields: &mut Fields<'a>) -> Result<Self> {
        let length =
            usize::try_from(fields.u32()?).map_err(|_| malformed("this file has no content of that length"))?;
        if length < TAG_LEN {
            return Err(malformed("this file has no content"));
        }
        let wrapped = fields.take(RSA_LEN)?.first_chunk().ok_or_else(|| Error::internal("512 bytes were taken"))?;
        let aad = fields.before();
        Ok(Self { aad, wrapped, iv: fields.array()?, sealed: fields.take(length)? })
    }

    /// # Errors
    /// InvalidCiphertextException, of kind AuthenticationFailed, whatever it is that fails.
    pub(crate) fn open(&self, key: &RsaPrivateKey) -> Result<Content> {
        let content_key = key.decrypt(self.wrapped).map_err(|_| not_ours())?;
        let content_key = Secret::<32>::from_slice(&content_key).ok_or_else(not_ours)?;
        let aead = content_aead(&content_key, self.aad)?;
        let mut content = Zeroizing::new(vec![0; self.sealed.len().saturating_sub(TAG_LEN)]);
        aead.open_to(&self.iv, self.aad, self.sealed, &mut content).map_err(|_| not_ours())?;
        Content::parse(&content)
    }
}

fn content_aead(key: &Secret<32>, before_iv: &[u8]) -> Result<crypto::AeadKey> {
    crypto::aead_of_hkdf_sha384(AeadAlgorithm::Aes256Gcm, key.expose(), &[LABEL, before_iv])
}

fn not_ours() -> Error {
    Error::new(ErrorKind::AuthenticationFailed, "this file is not sealed to this keystore's key, or was changed")
        .with_code("InvalidCiphertextException")
        .with_advice("have one made for this keystore's replication key, and compare its fingerprint")
}

const LABEL: &[u8] = b"envelock/kms/v1 sealed\0";
