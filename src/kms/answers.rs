//! What the operations take and answer, with AWS KMS's names.

use super::key::{KeyManager, KeyOrigin, MultiRegionKeyType};
use super::parcel::Sha256Fingerprint;
use super::state::KeyState;
use super::tags::Tag;
use crate::material::DataKey;
use std::fmt;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// What [`create_key`](super::LocalKms::create_key) makes.
#[derive(Clone, Debug, Default)]
pub struct CreateKeyRequest {
    pub(super) description: String,
    pub(super) alias: Option<String>,
    pub(super) tags: Vec<Tag>,
    pub(super) external: bool,
    pub(super) multi_region: bool,
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

    /// With a tag, as [`tag_resource`](super::LocalKms::tag_resource) takes it. Default: none.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Its key material is imported later: until then the key is PendingImport. AWS's origin EXTERNAL. Default: the
    /// keystore makes the material.
    #[must_use]
    pub fn external(mut self) -> Self {
        self.external = true;
        self
    }

    /// A multi-Region primary key, which can be replicated to other keystores; its id begins with `mrk-`. A key
    /// cannot become one later. Default: a key of this keystore alone.
    #[must_use]
    pub fn multi_region(mut self) -> Self {
        self.multi_region = true;
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
    /// The version that encrypts; versions count from 1. 0 if no material was imported yet.
    pub current_version: u32,
    /// Whether it can be used: its state is [`Enabled`](KeyState::Enabled).
    pub enabled: bool,
    /// When it is deleted, if it is pending deletion.
    pub deletion_date: Option<SystemTime>,
    /// How many days its deletion was told to wait, if it is pending deletion or the deletion of its replicas.
    pub pending_deletion_window_in_days: Option<u16>,
    /// How many days lie between automatic rotations; `None` if they are off.
    pub rotation_period_in_days: Option<u16>,
    /// When it is rotated next, if it is enabled then.
    pub next_rotation_date: Option<SystemTime>,
    /// When the first of its imported material expires, and the key is PendingImport; `None` if none does.
    pub valid_to: Option<SystemTime>,
    /// What it is among the keystores that have it; `None` if it is in this one only.
    pub multi_region: Option<MultiRegionKeyType>,
    /// Where the primary of a multi-Region key is.
    pub primary_region: Option<String>,
}

/// A version of a key's material: what a rotation adds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyVersion {
    /// From 1.
    pub version: u32,
    /// When it was made.
    pub creation_date: SystemTime,
    /// Whether its material is here: imported material may have expired or been deleted.
    pub has_material: bool,
    /// When its imported material expires; `None` if it does not.
    pub valid_to: Option<SystemTime>,
}

/// Which grants of a key [`list_grants_matching`](super::LocalKms::list_grants_matching) and
/// [`list_grants_page`](super::LocalKms::list_grants_page) list. Default: every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGrantsRequest {
    pub(super) grantee_principal: Option<String>,
    pub(super) grant_id: Option<String>,
}

impl ListGrantsRequest {
    /// Those to this principal. AWS's `GranteePrincipal`.
    #[must_use]
    pub fn grantee_principal(mut self, principal: impl Into<String>) -> Self {
        self.grantee_principal = Some(principal.into());
        self
    }

    /// The one of this id. AWS's `GrantId`.
    #[must_use]
    pub fn grant_id(mut self, grant_id: impl Into<String>) -> Self {
        self.grant_id = Some(grant_id.into());
        self
    }
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

/// Random bytes, wiped on drop and never printed.
pub struct GenerateRandomAnswer {
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl GenerateRandomAnswer {
    /// The bytes.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }
}

impl fmt::Debug for GenerateRandomAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateRandomAnswer").finish_non_exhaustive()
    }
}

/// When a key will be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleKeyDeletionAnswer {
    /// The full name of the key.
    pub key_id: String,
    /// When it is deleted; `None` while it waits for its replicas.
    pub deletion_date: Option<SystemTime>,
    /// Its state now.
    pub key_state: KeyState,
    /// How many days the deletion waits.
    pub pending_window_in_days: u16,
}

/// Whether and when a key is rotated by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRotationStatus {
    /// The full name of the key.
    pub key_id: String,
    /// Whether it is rotated by itself: not while it is pending deletion, whatever is switched on.
    pub key_rotation_enabled: bool,
    /// How many days lie between two rotations.
    pub rotation_period_in_days: Option<u16>,
    /// The next date. A key that is disabled then is rotated as soon as it is enabled again.
    pub next_rotation_date: Option<SystemTime>,
}

/// What a rotation came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RotationType {
    /// The key's rotation period.
    Automatic,
    /// Somebody who asked for it.
    OnDemand,
    /// The primary key, which this key is a replica of.
    OfPrimary,
}

/// A rotation that a key went through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRotation {
    /// The version that it added.
    pub version: u32,
    /// When.
    pub rotation_date: SystemTime,
    /// What it came from.
    pub rotation_type: RotationType,
}

/// Whether imported material is new, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImportType {
    /// It becomes the next version, once the key is rotated.
    NewKeyMaterial,
    /// It was imported before.
    ExistingKeyMaterial,
}

impl ImportType {
    /// AWS's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NewKeyMaterial => "NEW_KEY_MATERIAL",
            Self::ExistingKeyMaterial => "EXISTING_KEY_MATERIAL",
        }
    }
}

/// What [`import_key_material`](super::LocalKms::import_key_material) takes in. Never printed.
#[derive(Clone)]
pub struct ImportKeyMaterialRequest {
    pub(super) form: ImportForm,
    pub(super) valid_to: Option<SystemTime>,
    pub(super) import_type: Option<ImportType>,
}

/// How the material comes.
#[derive(Clone)]
pub(super) enum ImportForm {
    Wrapped { material: Vec<u8>, token: Vec<u8> },
    Passphrase { text: Zeroizing<Vec<u8>>, passphrase: Zeroizing<Vec<u8>> },
}

impl ImportKeyMaterialRequest {
    /// Material that was wrapped with the public key of [`ImportParameters`](super::ImportParameters), and the token
    /// that came with that.
    #[must_use]
    pub fn wrapped(encrypted_key_material: impl Into<Vec<u8>>, import_token: impl Into<Vec<u8>>) -> Self {
        Self::of(ImportForm::Wrapped { material: encrypted_key_material.into(), token: import_token.into() })
    }

    /// Material that [`seal_key_material`](super::seal_key_material) put under a passphrase, for tools on one machine:
    /// its line. It needs no parameters and no token. Takes a fifth of a second and 64 MiB at the default cost.
    #[must_use]
    pub fn under_passphrase(text: &[u8], passphrase: &[u8]) -> Self {
        let (text, passphrase) = (Zeroizing::new(text.to_vec()), Zeroizing::new(passphrase.to_vec()));
        Self::of(ImportForm::Passphrase { text, passphrase })
    }

    fn of(form: ImportForm) -> Self {
        Self { form, valid_to: None, import_type: None }
    }

    /// From then on the material is gone, and the key is PendingImport; at most 365 days from now. Default: never.
    #[must_use]
    pub fn valid_to(mut self, valid_to: SystemTime) -> Self {
        self.valid_to = Some(valid_to);
        self
    }

    /// The material is new: it waits, and [`rotate`](super::LocalKms::rotate) makes it the version that encrypts. AWS's
    /// import type NEW_KEY_MATERIAL. Default: it is the first, or was imported before.
    #[must_use]
    pub fn new_key_material(mut self) -> Self {
        self.import_type = Some(ImportType::NewKeyMaterial);
        self
    }
}

impl fmt::Debug for ImportKeyMaterialRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportKeyMaterialRequest")
            .field("valid_to", &self.valid_to)
            .field("import_type", &self.import_type)
            .finish_non_exhaustive()
    }
}

/// What became of imported material.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportKeyMaterialAnswer {
    /// The full name of the key.
    pub key_id: String,
    /// The version that it is the material of.
    pub version: u32,
    /// The key's state now.
    pub key_state: KeyState,
    /// Whether it is new, and encrypts nothing until the key is rotated.
    pub waits_for_rotation: bool,
}

/// A file that one keystore makes for another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuedFile {
    /// The file.
    pub file: Vec<u8>,
    /// SHA-256 of it. The import of a replica asks for that; it must get there another way than the file.
    pub sha256: Sha256Fingerprint,
    /// The full name of the key that it is about, in the keystore that made it.
    pub key_id: String,
    /// The keystore that it is for: `envelock:<region>:<keystore id>`.
    pub target: String,
}

/// A keystore's public key, to which others seal replicas of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicationParameters {
    /// The public key, with the keystore's id and Region, as a file. No secret.
    pub file: Vec<u8>,
    /// SHA-256 of the public key. It must reach the one who replicates another way than the file, such as by
    /// telephone: who exchanges the file on its way gets the keys that are sealed to it.
    pub fingerprint: Sha256Fingerprint,
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
