//! Data keys, plain and encrypted.

use crate::error::{Error, Result};
use std::fmt;
use zeroize::Zeroizing;

/// How long a data key is. Native messages take [`DataKeyLength::Bytes32`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataKeyLength {
    /// 16 bytes, for AWS Encryption SDK suites.
    Bytes16,
    /// 24 bytes, for AWS Encryption SDK suites.
    Bytes24,
    /// 32 bytes.
    Bytes32,
}

impl DataKeyLength {
    /// The length in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bytes16 => 16,
            Self::Bytes24 => 24,
            Self::Bytes32 => 32,
        }
    }
}

/// A data key: the key that encrypts data. Wiped on drop, never printed.
pub struct DataKey(Zeroizing<Box<[u8]>>);

impl DataKey {
    /// A data key that `fill` writes in place, so that no copy passes over the stack.
    ///
    /// # Errors
    /// Whatever `fill` returns; what it wrote is wiped.
    pub fn try_init<E>(length: DataKeyLength, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Zeroizing::new(vec![0; length.bytes()].into_boxed_slice()));
        fill(&mut key.0)?;
        Ok(key)
    }

    /// A copy of `bytes`: 16, 24 or 32 of them. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        if !matches!(bytes.len(), 16 | 24 | 32) {
            return Err(Error::invalid_input(format!("a data key has 16, 24 or 32 bytes, not {}", bytes.len())));
        }
        Ok(Self(Zeroizing::new(bytes.into())))
    }

    /// The key's bytes. Named so that a reader of the calling code sees where a secret is used.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({} bytes, ..)", self.0.len())
    }
}

/// A data key as one key provider encrypted it: what a message carries in a slot.
///
/// The provider's name has 1 to 255 ASCII bytes, the key id and the wrapped key at most 65,535 bytes
/// each. An empty wrapped key marks a recipient that could not be reached when the message was made.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EncryptedDataKey {
    /// Provider name, key id and wrapped key, one after the other: every reader of a message makes some of these.
    bytes: Box<[u8]>,
    provider_len: usize,
    key_id_len: usize,
}

impl EncryptedDataKey {
    /// A wrapped key of `provider`, made under its key `key_id`.
    #[must_use]
    pub fn new(provider: impl Into<String>, key_id: impl Into<Vec<u8>>, wrapped: impl Into<Vec<u8>>) -> Self {
        let (provider, key_id, wrapped) = (provider.into(), key_id.into(), wrapped.into());
        Self::from_parts(&provider, &key_id, &wrapped)
    }

    pub(crate) fn from_parts(provider: &str, key_id: &[u8], wrapped: &[u8]) -> Self {
        let bytes = [provider.as_bytes(), key_id, wrapped].concat().into_boxed_slice();
        Self { bytes, provider_len: provider.len(), key_id_len: key_id.len() }
    }

    /// A recipient that is missing: named, without a wrapped key.
    #[must_use]
    pub fn missing(provider: impl Into<String>, key_id: impl Into<Vec<u8>>) -> Self {
        Self::new(provider, key_id, Vec::new())
    }

    /// The name of the provider that made it.
    #[must_use]
    pub fn provider(&self) -> &str {
        // It was a string.
        self.bytes.get(..self.provider_len).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The provider's name for the key it was made under.
    #[must_use]
    pub fn key_id(&self) -> &[u8] {
        self.bytes.get(self.provider_len..self.provider_len + self.key_id_len).unwrap_or_default()
    }

    /// The key id as text for people: one with control characters, invisible ones, ones that turn the
    /// direction of writing, or bytes that are not UTF-8 is escaped.
    #[must_use]
    pub fn key_id_text(&self) -> String {
        match std::str::from_utf8(self.key_id()) {
            Ok(text) if text.chars().all(is_visible) => text.to_owned(),
            _ => self.key_id().escape_ascii().to_string(),
        }
    }

    /// The encrypted data key; empty if the recipient is missing.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        self.bytes.get(self.provider_len + self.key_id_len..).unwrap_or_default()
    }

    /// Whether this only records a recipient that could not be reached.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.wrapped().is_empty()
    }
}

/// Rust's table of what prints as itself, and what it escapes for other reasons.
fn is_visible(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

impl fmt::Debug for EncryptedDataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedDataKey")
            .field("provider", &self.provider())
            .field("key_id", &self.key_id_text())
            .field("wrapped_len", &self.wrapped().len())
            .finish()
    }
}
