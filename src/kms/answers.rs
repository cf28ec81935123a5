//! What the operations take and answer, with AWS KMS's names.

use super::key::{KeyManager, KeyOrigin};
use super::state::KeyState;
use crate::material::DataKey;
use std::fmt;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// What [`create_key`](super::LocalKms::create_key) makes.
#[derive(Clone, Debug, Default)]
pub struct CreateKeyRequest {
    pub(super) description: String,
    pub(super) alias: Option<String>,
}

impl CreateKeyRequest {
    /// A text for people: at most 8,192 characters. Not secret. Default: empty.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// An alias, `alias/…`, made together with the key. Default: none.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.alias = Some(alias.into());
        self
    }
}

/// What there is to know about a key, without its material.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyMetadata {
    /// The key id: a UUID, or `mrk-` and 32 hex digits.
    pub key_id: String,
    /// The full key name, `envelock:<region>:<keystore id>:key/<key id>`: what AWS calls its ARN.
    pub arn: String,
    /// Its state.
    pub key_state: KeyState,
    /// Who looks after it.
    pub key_manager: KeyManager,
    /// Where its material comes from.
    pub origin: KeyOrigin,
    /// A text for people.
    pub description: String,
    /// When it was made.
    pub creation_date: SystemTime,
    /// The version that encrypts; versions count from 1.
    pub current_version: u32,
}

/// A version of a key's material: what a rotation adds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyVersion {
    /// From 1.
    pub version: u32,
    /// When it was made.
    pub creation_date: SystemTime,
}

/// An alias and what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AliasEntry {
    /// `alias/…`
    pub alias_name: String,
    /// The key id that it points to now.
    pub target_key_id: String,
    /// When it was made.
    pub creation_date: SystemTime,
    /// When it was last moved.
    pub last_updated_date: SystemTime,
}

/// A fresh data key.
#[derive(Debug)]
#[non_exhaustive]
pub struct GenerateDataKeyAnswer {
    /// The full name of the key that encrypted it.
    pub key_id: String,
    /// The data key.
    pub plaintext: DataKey,
    /// The same, encrypted.
    pub ciphertext_blob: Vec<u8>,
}

/// A fresh data key, encrypted only.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateDataKeyWithoutPlaintextAnswer {
    /// The full name of the key that encrypted it.
    pub key_id: String,
    /// The data key, encrypted.
    pub ciphertext_blob: Vec<u8>,
}

/// What was encrypted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EncryptAnswer {
    /// The full name of the key that encrypted it.
    pub key_id: String,
    /// The ciphertext; it names its key and version.
    pub ciphertext_blob: Vec<u8>,
}

/// What was decrypted. The plaintext is wiped on drop and never printed.
pub struct DecryptAnswer {
    /// The full name of the key that had encrypted it.
    pub key_id: String,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl DecryptAnswer {
    /// The plaintext.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }
}

impl fmt::Debug for DecryptAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptAnswer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// What was encrypted again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReEncryptAnswer {
    /// The full name of the key that had encrypted it.
    pub source_key_id: String,
    /// The full name of the key that encrypts it now.
    pub key_id: String,
    /// The new ciphertext.
    pub ciphertext_blob: Vec<u8>,
}
