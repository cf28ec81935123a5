//! What a key is, what it is called, and what each of its states allows.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use uuid::Uuid;

/// The life-cycle state of a key, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Not usable until it is enabled again.
    Disabled,
    /// Will be deleted when its waiting period ends.
    PendingDeletion,
    /// Has no key material yet, or no longer.
    PendingImport,
    /// A multi-Region primary key that will be deleted once its last replica is.
    PendingReplicaDeletion,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Enabled, Self::Disabled, Self::PendingDeletion, Self::PendingImport, Self::PendingReplicaDeletion];

    /// AWS's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
            Self::PendingImport => "PendingImport",
            Self::PendingReplicaDeletion => "PendingReplicaDeletion",
        }
    }
}

/// What may be asked of an existing key, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are AWS's, and AWS's API reference says what each does")]
pub enum KeyOperation {
    CancelKeyDeletion,
    CreateAlias,
    CreateGrant,
    Decrypt,
    DeleteAlias,
    DeleteImportedKeyMaterial,
    DescribeKey,
    DisableKey,
    DisableKeyRotation,
    EnableKey,
    EnableKeyRotation,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    GetKeyPolicy,
    GetKeyRotationStatus,
    GetParametersForImport,
    ImportKeyMaterial,
    ListAliases,
    ListGrants,
    ListKeyRotations,
    ListResourceTags,
    PutKeyPolicy,
    ReEncryptFrom,
    ReEncryptTo,
    ReplicateKey,
    RetireGrant,
    RevokeGrant,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    TagResource,
    UntagResource,
    UpdateAlias,
    UpdateKeyDescription,
    UpdatePrimaryRegion,
}

impl KeyOperation {
    /// Every operation.
    pub const ALL: [Self; 35] = [
        Self::CancelKeyDeletion,
        Self::CreateAlias,
        Self::CreateGrant,
        Self::Decrypt,
        Self::DeleteAlias,
        Self::DeleteImportedKeyMaterial,
        Self::DescribeKey,
        Self::DisableKey,
        Self::DisableKeyRotation,
        Self::EnableKey,
        Self::EnableKeyRotation,
        Self::Encrypt,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::GetKeyPolicy,
        Self::GetKeyRotationStatus,
        Self::GetParametersForImport,
        Self::ImportKeyMaterial,
        Self::ListAliases,
        Self::ListGrants,
        Self::ListKeyRotations,
        Self::ListResourceTags,
        Self::PutKeyPolicy,
        Self::ReEncryptFrom,
        Self::ReEncryptTo,
        Self::ReplicateKey,
        Self::RetireGrant,
        Self::RevokeGrant,
        Self::RotateKeyOnDemand,
        Self::ScheduleKeyDeletion,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateAlias,
        Self::UpdateKeyDescription,
        Self::UpdatePrimaryRegion,
    ];
}

/// Why a state refuses an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The key is disabled.
    Disabled,
    /// The key waits for its deletion.
    PendingDeletion,
    /// The key waits for its material.
    PendingImport,
    /// The key does not wait for its deletion.
    NotPendingDeletion,
}

impl Refusal {
    /// AWS's name for the error.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Disabled => "DisabledException",
            Self::PendingDeletion | Self::PendingImport | Self::NotPendingDeletion => "KMSInvalidStateException",
        }
    }

    fn error(self, key: &str) -> Error {
        let (what, advice) = match self {
            Self::Disabled => ("is disabled", "enable it, or use another key"),
            Self::PendingDeletion => ("is pending deletion", "cancel the deletion and enable it, or use another key"),
            Self::PendingImport => ("has no key material", "import its key material"),
            Self::NotPendingDeletion => ("is not pending deletion", "there is no deletion to cancel"),
        };
        Error::new(ErrorKind::KeyState, format!("the key {key} {what}")).with_code(self.code()).with_advice(advice)
    }
}

/// Whether a key in `state` takes `operation`: AWS's table "Key states of AWS KMS keys", as far as
/// it depends on the state alone. An alias operation is judged by the state of the key that the
/// alias is to point to.
///
/// # Errors
/// The reason for the refusal.
pub fn allowed(state: KeyState, operation: KeyOperation) -> Result<(), Refusal> {
    use KeyOperation as Op;
    let pending_deletion = matches!(state, KeyState::PendingDeletion | KeyState::PendingReplicaDeletion);
    let not_enabled = match state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(Refusal::Disabled),
        KeyState::PendingImport => Err(Refusal::PendingImport),
        KeyState::PendingDeletion | KeyState::PendingReplicaDeletion => Err(Refusal::PendingDeletion),
    };
    match operation {
        Op::DeleteAlias
        | Op::DescribeKey
        | Op::GetKeyPolicy
        | Op::GetKeyRotationStatus
        | Op::ListAliases
        | Op::ListGrants
        | Op::ListKeyRotations
        | Op::ListResourceTags
        | Op::PutKeyPolicy
        | Op::RetireGrant
        | Op::RevokeGrant => Ok(()),
        Op::CreateGrant
        | Op::Decrypt
        | Op::DisableKeyRotation
        | Op::EnableKeyRotation
        | Op::Encrypt
        | Op::GenerateDataKey
        | Op::GenerateDataKeyWithoutPlaintext
        | Op::ReEncryptFrom
        | Op::ReEncryptTo
        | Op::ReplicateKey
        | Op::RotateKeyOnDemand
        | Op::UpdatePrimaryRegion => not_enabled,
        Op::DisableKey | Op::EnableKey if state == KeyState::Disabled => Ok(()),
        Op::DisableKey | Op::EnableKey => not_enabled,
        Op::CreateAlias
        | Op::DeleteImportedKeyMaterial
        | Op::GetParametersForImport
        | Op::ImportKeyMaterial
        | Op::ScheduleKeyDeletion
        | Op::TagResource
        | Op::UntagResource
        | Op::UpdateAlias
        | Op::UpdateKeyDescription => match pending_deletion {
            true => Err(Refusal::PendingDeletion),
            false => Ok(()),
        },
        Op::CancelKeyDeletion => match pending_deletion {
            true => Ok(()),
            false => Err(Refusal::NotPendingDeletion),
        },
    }
}

/// [`allowed`], as an error that names the key.
pub(super) fn check_state(key: &str, state: KeyState, operation: KeyOperation) -> Result<()> {
    allowed(state, operation).map_err(|refusal| refusal.error(key))
}

/// Who made a key and who looks after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyManager {
    /// Made by [`create_key`](super::LocalKms::create_key).
    Customer,
    /// Made by the first use of an alias below `alias/envelock/`.
    Managed,
}

/// Where a key's material comes from, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyOrigin {
    /// Made by this keystore (AWS's `AWS_KMS`).
    Local,
    /// Imported.
    External,
}

/// How the keystore's rows spell an enumeration.
pub(super) trait Spelled: Copy + 'static {
    const SPELLINGS: &'static [(Self, &'static str)];

    fn spelling(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::SPELLINGS.iter().find(|(value, _)| *value == self).map_or("", |(_, text)| text)
    }

    fn of_spelling(text: &str) -> Option<Self> {
        Self::SPELLINGS.iter().find(|(_, spelling)| *spelling == text).map(|(value, _)| *value)
    }
}

impl Spelled for KeyState {
    const SPELLINGS: &'static [(Self, &'static str)] = &[
        (Self::Enabled, "Enabled"),
        (Self::Disabled, "Disabled"),
        (Self::PendingDeletion, "PendingDeletion"),
        (Self::PendingImport, "PendingImport"),
        (Self::PendingReplicaDeletion, "PendingReplicaDeletion"),
    ];
}

impl Spelled for KeyManager {
    const SPELLINGS: &'static [(Self, &'static str)] = &[(Self::Customer, "customer"), (Self::Managed, "managed")];
}

impl Spelled for KeyOrigin {
    const SPELLINGS: &'static [(Self, &'static str)] = &[(Self::Local, "local"), (Self::External, "external")];
}

/// What a keystore calls itself in full key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) keystore_id: [u8; 16],
    pub(super) region: String,
}

impl Realm {
    /// `envelock:<region>:<keystore id as UUID>:key/<key id>`
    pub(super) fn full_name(&self, key_id: &str) -> String {
        format!("{self}:key/{key_id}")
    }

    /// What a caller's name for a key means here.
    ///
    /// # Errors
    /// NotFoundException for a name of another keystore; ValidationException for what is no name.
    pub(super) fn resolve<'a>(&self, name: &'a str) -> Result<KeyName<'a>> {
        let local = match name.strip_prefix("envelock:") {
            None => name,
            Some(_) => name
                .strip_prefix(&self.to_string())
                .and_then(|rest| rest.strip_prefix(':'))
                .map(|rest| rest.strip_prefix("key/").unwrap_or(rest))
                .ok_or_else(|| not_found(format!("the key {name} is not in this keystore, {self}")))?,
        };
        if local.starts_with(ALIAS_PREFIX) {
            check_alias(local)?;
            return Ok(KeyName::Alias(local));
        }
        if !is_key_id(local) {
            return Err(validation(format!("{name:?} is no key id, key name or alias"))
                .with_advice("key ids are UUIDs, and aliases begin with `alias/`"));
        }
        Ok(KeyName::Id(local))
    }
}

/// `envelock:<region>:<keystore id as UUID>`
impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "envelock:{}:{}", self.region, Uuid::from_bytes(self.keystore_id))
    }
}

/// A key as a caller names it, without the keystore's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyName<'a> {
    Id(&'a str),
    Alias(&'a str),
}

/// Lower-case UUIDs with hyphens, or `mrk-` and 32 lower-case hex digits.
pub(super) fn is_key_id(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix("mrk-") {
        Some(digits) => digits.len() == 32 && hex(digits),
        None => text.len() == 36 && Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text),
    }
}

/// `alias/` and 1 to 250 of letters, digits, `/`, `_` and `-`.
pub(super) fn check_alias(alias: &str) -> Result<()> {
    let name = alias.strip_prefix(ALIAS_PREFIX).unwrap_or_default();
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-'));
    if !good || name.is_empty() || alias.len() > ALIAS_MAX {
        return Err(Error::invalid_input(format!("{alias:?} is no alias name"))
            .with_code("InvalidAliasNameException")
            .with_advice("an alias is `alias/` and 1 to 250 letters, digits, `/`, `_` and `-`"));
    }
    Ok(())
}

/// 1 to 32 lower-case letters, digits and hyphens.
pub(super) fn check_region(region: &str) -> Result<()> {
    let good = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !good || region.is_empty() || region.len() > 32 {
        return Err(validation(format!("{region:?} is no Region name"))
            .with_advice("a Region name has 1 to 32 lower-case letters, digits and hyphens"));
    }
    Ok(())
}

pub(super) fn not_found(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::NoMatchingKey, message)
        .with_code("NotFoundException")
        .with_advice("name a key or an alias that exists")
}

pub(super) fn validation(message: impl Into<String>) -> Error {
    Error::invalid_input(message).with_code("ValidationException")
}

pub(super) const ALIAS_PREFIX: &str = "alias/";
/// Aliases below it belong to managed keys, which their first use makes.
pub(super) const MANAGED_PREFIX: &str = "alias/envelock/";
const ALIAS_MAX: usize = 256;
