//! Bytes under keys: wrapped key material and ciphertext blobs (docs/kms.md).
//!
//! ```text
//! wrapped material = 01 || salt (32) || IV (12) || ciphertext || tag (16)
//!   AES-256-GCM under HKDF-Expand-SHA-384(root key, "envelock/kms/v1 wrap" || 00 || salt, 32)
//!   AAD = 01 || salt || keystore id (16) || byte strings of key id and purpose || version (4)
//! ciphertext blob = 01 || length (1) and key id || version (4) || salt (32) || IV (12) || ciphertext || tag (16)
//!   AES-256-GCM under HKDF-Expand-SHA-384(material, "envelock/kms/v1 blob" || 00 || all bytes through the salt, 32)
//!   AAD = all bytes through the salt || encoded encryption context
//! ```
//! Each has a key of its own, derived with a random salt, so that the number of blobs under one key
//! is not a worry (NIST SP 800-38D, section 8.3). HKDF-Expand: RFC 5869.

use super::key::is_key_id;
use crate::codec::{Reader, put_byte_string};
use crate::context::KmsContext;
use crate::crypto::{self, Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const SALT_LEN: usize = 32;
const WRAP_LABEL: &[u8] = b"envelock/kms/v1 wrap\0";
const BLOB_LABEL: &[u8] = b"envelock/kms/v1 blob\0";

/// What a wrapped secret is for: its place in the keystore.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) keystore_id: &'a [u8; 16],
    pub(super) key_id: &'a str,
    pub(super) purpose: &'a str,
    pub(super) version: u32,
}

impl Place<'_> {
    fn aad(&self, head: &[u8]) -> Result<Vec<u8>> {
        let mut aad = head.to_vec();
        aad.extend_from_slice(self.keystore_id);
        put_byte_string(&mut aad, self.key_id.as_bytes())?;
        put_byte_string(&mut aad, self.purpose.as_bytes())?;
        aad.extend_from_slice(&self.version.to_be_bytes());
        Ok(aad)
    }
}

/// Encrypts key material under the root key, bound to its place.
pub(super) fn wrap(root: &Secret<32>, place: Place<'_>, material: &Secret<32>) -> Result<Vec<u8>> {
    wrap_bytes(root, place, material.expose())
}

/// As [`wrap`], for secrets of other lengths: private keys, marks of materials.
pub(super) fn wrap_bytes(root: &Secret<32>, place: Place<'_>, secret: &[u8]) -> Result<Vec<u8>> {
    let mut wrapped = vec![FORMAT];
    let (iv, key) = fresh(&mut wrapped, root, WRAP_LABEL)?;
    let aad = place.aad(&wrapped)?;
    seal(&mut wrapped, &key, &iv, &aad, secret)?;
    Ok(wrapped)
}

/// Decrypts what [`wrap`] made for the same place.
pub(super) fn unwrap(root: &Secret<32>, place: Place<'_>, wrapped: &[u8]) -> Result<Secret<32>> {
    let parts = Wrapped::parse(wrapped)?;
    if parts.sealed.len() != 32 + TAG_LEN {
        return Err(Error::authentication());
    }
    Secret::try_init(|out| parts.open(root, place, out))
}

/// Decrypts what [`wrap_bytes`] made for the same place.
pub(super) fn unwrap_bytes(root: &Secret<32>, place: Place<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let parts = Wrapped::parse(wrapped)?;
    let len = parts.sealed.len().checked_sub(TAG_LEN).ok_or_else(Error::authentication)?;
    let mut secret = Zeroizing::new(vec![0; len]);
    parts.open(root, place, &mut secret)?;
    Ok(secret)
}

/// A wrapped secret, taken apart and not yet authenticated.
struct Wrapped<'a> {
    head: &'a [u8],
    iv: &'a [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Wrapped<'a> {
    fn parse(wrapped: &'a [u8]) -> Result<Self> {
        let (head, rest) = wrapped.split_at_checked(1 + SALT_LEN).ok_or_else(Error::authentication)?;
        let (iv, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(Error::authentication)?;
        match head.first() {
            Some(&FORMAT) => Ok(Self { head, iv, sealed }),
            _ => Err(Error::authentication()),
        }
    }

    fn open(&self, root: &Secret<32>, place: Place<'_>, out: &mut [u8]) -> Result<()> {
        let key = derive(root, WRAP_LABEL, self.head.get(1..).unwrap_or_default())?;
        let aad = place.aad(self.head)?;
        crypto::aead(AeadAlgorithm::Aes256Gcm, key.expose()).open_to(self.iv, &aad, self.sealed, out)
    }
}

/// The key material that encrypts a blob, and its names.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) key_id: String,
    pub(super) version: u32,
    pub(super) secret: Secret<32>,
}

/// Encrypts `plaintext` into a ciphertext blob, bound to `context`.
pub(super) fn seal_blob(material: &Material, plaintext: &[u8], context: &KmsContext) -> Result<Vec<u8>> {
    let name = material.key_id.as_bytes();
    let len = u8::try_from(name.len()).map_err(|_| Error::internal("a key id is longer than 255 bytes"))?;
    let mut blob = vec![FORMAT, len];
    blob.extend_from_slice(name);
    blob.extend_from_slice(&material.version.to_be_bytes());
    let mut salt_and_iv = [0; SALT_LEN + NONCE_LEN];
    crypto::random::fill(&mut salt_and_iv)?;
    let (salt, iv) = salt_and_iv.split_at(SALT_LEN);
    blob.extend_from_slice(salt);
    let key = derive(&material.secret, BLOB_LABEL, &blob)?;
    let aad = [&blob, context.encoded()].concat();
    let iv = iv.try_into().map_err(|_| Error::internal("a blob's IV has 12 bytes"))?;
    seal(&mut blob, &key, &iv, &aad, plaintext)?;
    Ok(blob)
}

/// The version of its key that a ciphertext blob names, without any key and so unverified; `None` if this
/// is no blob. A file whose version is older than the key's current one waits for a rewrap.
#[must_use]
pub fn version_of_blob(blob: &[u8]) -> Option<u32> {
    Blob::parts(blob).map(|blob| blob.version)
}

/// A ciphertext blob, taken apart and not yet authenticated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob<'a> {
    pub(super) key_id: &'a str,
    pub(super) version: u32,
    head: &'a [u8],
    iv: &'a [u8; NONCE_LEN],
    sealed: &'a [u8],
}

impl<'a> Blob<'a> {
    /// # Errors
    /// InvalidCiphertextException, of kind AuthenticationFailed.
    pub(super) fn parse(blob: &'a [u8]) -> Result<Self> {
        Self::parts(blob).ok_or_else(invalid_ciphertext)
    }

    fn parts(blob: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(blob);
        if reader.u8().ok()? != FORMAT {
            return None;
        }
        let len = reader.u8().ok()?;
        let key_id = std::str::from_utf8(reader.take(usize::from(len)).ok()?).ok()?;
        if !is_key_id(key_id) {
            return None;
        }
        let version = reader.u32().ok()?;
        reader.take(SALT_LEN).ok()?;
        let (head, rest) = blob.split_at_checked(blob.len() - reader.remaining())?;
        let (iv, sealed) = rest.split_first_chunk()?;
        (sealed.len() >= TAG_LEN).then_some(Self { key_id, version, head, iv, sealed })
    }

    /// Decrypts the blob under the material that it names.
    ///
    /// # Errors
    /// InvalidCiphertextException if blob or context is not what was encrypted.
    pub(super) fn open(&self, material: &Material, context: &KmsContext) -> Result<Zeroizing<Vec<u8>>> {
        let key = derive(&material.secret, BLOB_LABEL, self.head)?;
        let aad = [self.head, context.encoded()].concat();
        let mut plaintext = Zeroizing::new(vec![0; self.sealed.len().saturating_sub(TAG_LEN)]);
        crypto::aead(AeadAlgorithm::Aes256Gcm, key.expose())
            .open_to(self.iv, &aad, self.sealed, &mut plaintext)
            .map_err(|_| invalid_ciphertext())?;
        Ok(plaintext)
    }
}

/// Every blob that cannot be decrypted is this one error.
pub(super) fn invalid_ciphertext() -> Error {
    Error::new(ErrorKind::AuthenticationFailed, "this is no ciphertext of that key and encryption context")
        .with_code("InvalidCiphertextException")
        .with_advice("it was changed, or the context is not the one that it was encrypted with")
}

/// Appends a fresh salt to `head`, and gives a fresh IV and the key derived with the salt.
fn fresh(head: &mut Vec<u8>, secret: &Secret<32>, label: &[u8]) -> Result<([u8; NONCE_LEN], Secret<32>)> {
    let mut salt = [0; SALT_LEN];
    let mut iv = [0; NONCE_LEN];
    crypto::random::fill(&mut salt)?;
    crypto::random::fill(&mut iv)?;
    head.extend_from_slice(&salt);
    Ok((iv, derive(secret, label, &salt)?))
}

fn derive(secret: &Secret<32>, label: &[u8], info: &[u8]) -> Result<Secret<32>> {
    Secret::try_init(|out| crypto::hkdf_expand_sha384(secret.expose(), &[label, info], out))
}

/// Appends `IV || ciphertext || tag`.
fn seal(out: &mut Vec<u8>, key: &Secret<32>, iv: &[u8; NONCE_LEN], aad: &[u8], plaintext: &[u8]) -> Result<()> {
    out.extend_from_slice(iv);
    let at = out.len();
    out.resize(at + plaintext.len() + TAG_LEN, 0);
    let sealed = out.get_mut(at..).unwrap_or_default();
    crypto::aead(AeadAlgorithm::Aes256Gcm, key.expose()).seal_to(iv, aad, plaintext, sealed)
}
