//! A wrapping key that the application holds itself (docs/format.md, "Wrapped keys", `raw`).
//!
//! ```text
//! wrapped = 01 || salt (32) || IV (12) || ciphertext (32) || tag (16)
//! AES-256-GCM under HKDF-Expand-SHA-384(wrapping key, "envelock/v1 raw" || 00 || 01 || salt, 32)
//! AAD = 01 || salt || key id as byte string || KMS context
//! ```

use crate::codec::put_byte_string;
use crate::context::KmsContext;
use crate::crypto::{self, Aead, AeadAlgorithm, AeadKey};
use crate::durable::read_key_file;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, Recipient};
use crate::secret::Secret;
use async_trait::async_trait;
use std::path::Path;

/// The provider name in slots.
pub(crate) const NAME: &str = "raw";
const LABEL: &[u8] = b"envelock/v1 raw\0";
const VERSION: u8 = 1;
const SALT_LEN: usize = 32;
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Version and salt: what the wrap key is derived from.
const HEAD_LEN: usize = 1 + SALT_LEN;
/// A key file holds 64 hex digits and an optional line end.
const FILE_MAX: u64 = 66;

/// A key provider on a 32-byte wrapping key that the caller keeps.
///
/// Every wrap has a key of its own, derived with a random salt, so that the number of wraps under
/// one wrapping key is no worry.
///
/// ```
/// use envelock::RawKeyProvider;
/// # fn main() -> Result<(), envelock::Error> {
/// let provider = RawKeyProvider::generate("orders-2026")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RawKeyProvider {
    key_id: String,
    wrapping_key: Secret<32>,
}

impl RawKeyProvider {
    /// A provider on `wrapping_key`, known as `key_id` in messages (public, at most 65,535 bytes).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key id is too long.
    pub fn new(key_id: impl Into<String>, wrapping_key: Secret<32>) -> Result<Self> {
        let key_id = key_id.into();
        if key_id.len() > usize::from(u16::MAX) {
            return Err(Error::invalid_input("the key id of a raw key has more than 65,535 bytes"));
        }
        Ok(Self { key_id, wrapping_key })
    }

    /// A provider on a fresh wrapping key that nobody else has and that cannot be had from it: what is
    /// encrypted under it is lost once the provider is dropped. For tests and short-lived data.
    ///
    /// # Errors
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed), and as [`new`](Self::new).
    pub fn generate(key_id: impl Into<String>) -> Result<Self> {
        Self::new(key_id, Secret::try_init(|key| crypto::random::fill(key))?)
    }

    /// A provider on the key in a file of 64 hex digits and an optional line end (LF or CRLF). The file
    /// must be its owner's alone: `(umask 077; openssl rand -hex 32 > orders.key)` makes one.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if the file cannot be read, or if others than its owner may read or write it;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it does not hold exactly that.
    pub fn from_file(key_id: impl Into<String>, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(|e| Error::io_at("the key file cannot be opened", path, e))?;
        let text = read_key_file(file, path, "the key file", FILE_MAX)?;
        // A line ends in LF or CRLF; a CR alone is no line end.
        let digits = text.strip_suffix(b"\n").map_or(&**text, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let key = Secret::try_init(|key| decode_hex(digits, key)).map_err(|()| {
            Error::invalid_input("a raw key file holds exactly 64 hex digits and an optional line end").with_path(path)
        })?;
        Self::new(key_id, key)
    }

    fn wrap_key(&self, head: &[u8]) -> Result<AeadKey> {
        crypto::aead_of_hkdf_sha384(AeadAlgorithm::Aes256Gcm, self.wrapping_key.expose(), &[LABEL, head])
    }

    fn associated(&self, head: &[u8], context: &KmsContext) -> Result<Vec<u8>> {
        let mut aad = Vec::with_capacity(HEAD_LEN + 2 + self.key_id.len() + context.encoded().len());
        aad.extend_from_slice(head);
        put_byte_string(&mut aad, self.key_id.as_bytes())?;
        aad.extend_from_slice(context.encoded());
        Ok(aad)
    }

    fn wrap(&self, key: &DataKey, context: &KmsContext) -> Result<EncryptedDataKey> {
        let key_len = key.expose().len();
        let mut wrapped = vec![0; HEAD_LEN + IV_LEN + key_len + TAG_LEN];
        wrapped[0] = VERSION;
        // One call to the operating system for salt and IV, used at once (rule 9).
        crypto::random::fill(&mut wrapped[1..HEAD_LEN + IV_LEN])?;
        let (head, rest) = wrapped.split_at_mut(HEAD_LEN);
        let (iv, sealed) = rest.split_at_mut(IV_LEN);
        let aad = self.associated(head, context)?;
        let iv: &[u8; IV_LEN] = (&*iv).try_into().map_err(|_| Error::internal("a wrap IV has 12 bytes"))?;
        self.wrap_key(head)?.seal_to(iv, &aad, key.expose(), sealed)?;
        Ok(EncryptedDataKey::new(NAME, self.key_id.as_bytes(), wrapped))
    }

    fn unwrap(&self, wrapped: &[u8], context: &KmsContext) -> Result<DataKey> {
        let parts = wrapped.split_at_checked(HEAD_LEN).filter(|(head, _)| head.first() == Some(&VERSION));
        let parts = parts.and_then(|(head, rest)| Some((head, rest.split_first_chunk::<IV_LEN>()?)));
        let (head, (iv, sealed)) = parts.ok_or_else(Error::authentication)?;
        let length = match sealed.len().checked_sub(TAG_LEN) {
            Some(16) => DataKeyLength::Bytes16,
            Some(24) => DataKeyLength::Bytes24,
            Some(32) => DataKeyLength::Bytes32,
            _ => return Err(Error::authentication()),
        };
        let aad = self.associated(head, context)?;
        let aead = self.wrap_key(head)?;
        DataKey::try_init(length, |key| aead.open_to(iv, &aad, sealed, key))
    }
}

#[async_trait]
impl KeyProvider for RawKeyProvider {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new(NAME, self.key_id.as_bytes())]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let key = DataKey::try_init(length, crypto::random::fill)?;
        let encrypted = vec![self.wrap(&key, context)?];
        Ok(GeneratedDataKey { key, encrypted })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Ok(vec![self.wrap(key, context)?])
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        if slot.provider() != NAME || slot.key_id() != self.key_id.as_bytes() {
            return DataKeyAnswer::NotMine;
        }
        match self.unwrap(slot.wrapped(), context) {
            Ok(key) => DataKeyAnswer::Key(key),
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }
}

/// Exactly 64 hex digits into 32 bytes.
fn decode_hex(digits: &[u8], key: &mut [u8; 32]) -> Result<(), ()> {
    if digits.len() != 2 * key.len() {
        return Err(());
    }
    for (pair, byte) in digits.chunks_exact(2).zip(key) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok()).ok_or(());
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(())
}
