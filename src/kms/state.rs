//! What may be asked of a key: a pure function of its kind, its state and the operation.
//!
//! The table is AWS's ("Key states of AWS KMS keys", in the developer guide of AWS KMS), with what AWS's
//! API reference says of single operations, and with the rules for this crate's managed keys.

use super::key::{KeyManager, KeyOrigin, MultiRegionKeyType};
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use std::fmt;

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

/// What kind of key it is, as far as it decides what may be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Made by [`create_key`](super::LocalKms::create_key), with material of this keystore, for this
    /// keystore alone.
    Customer,
    /// Made by the first use of an alias below `alias/envelock/`: AWS's *AWS managed key*.
    Managed,
    /// As [`Customer`](Self::Customer), with imported material.
    Imported,
    /// The primary key of a multi-Region key.
    MultiRegionPrimary,
    /// A replica of a multi-Region key.
    MultiRegionReplica,
    /// The primary key of a multi-Region key with imported material.
    ImportedPrimary,
    /// A replica of a multi-Region key with imported material.
    ImportedReplica,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Customer,
        Self::Managed,
        Self::Imported,
        Self::MultiRegionPrimary,
        Self::MultiRegionReplica,
        Self::ImportedPrimary,
        Self::ImportedReplica,
    ];

    /// The kind of a key with these properties. A managed key is nothing else.
    #[must_use]
    pub fn of(manager: KeyManager, origin: KeyOrigin, multi_region: Option<MultiRegionKeyType>) -> Self {
        match (manager, origin, multi_region) {
            (KeyManager::Managed, ..) => Self::Managed,
            (KeyManager::Customer, KeyOrigin::Local, None) => Self::Customer,
            (KeyManager::Customer, KeyOrigin::Local, Some(MultiRegionKeyType::Primary)) => Self::MultiRegionPrimary,
            (KeyManager::Customer, KeyOrigin::Local, Some(MultiRegionKeyType::Replica)) => Self::MultiRegionReplica,
            (KeyManager::Customer, KeyOrigin::External, None) => Self::Imported,
            (KeyManager::Customer, KeyOrigin::External, Some(MultiRegionKeyType::Primary)) => Self::ImportedPrimary,
            (KeyManager::Customer, KeyOrigin::External, Some(MultiRegionKeyType::Replica)) => Self::ImportedReplica,
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer key",
            Self::Managed => "managed key",
            Self::Imported => "imported key",
            Self::MultiRegionPrimary => "multi-Region primary key",
            Self::MultiRegionReplica => "multi-Region replica key",
            Self::ImportedPrimary => "imported multi-Region primary key",
            Self::ImportedReplica => "imported multi-Region replica key",
        }
    }

    /// The states that such a key can be in, in the order of [`KeyState::ALL`].
    #[must_use]
    pub fn states(self) -> &'static [KeyState] {
        use KeyState::{Disabled, Enabled, PendingDeletion, PendingImport, PendingReplicaDeletion};
        match self {
            Self::Managed => &[Enabled],
            Self::Customer | Self::MultiRegionReplica => &[Enabled, Disabled, PendingDeletion],
            Self::MultiRegionPrimary => &[Enabled, Disabled, PendingDeletion, PendingReplicaDeletion],
            Self::Imported | Self::ImportedReplica => &[Enabled, Disabled, PendingDeletion, PendingImport],
            Self::ImportedPrimary => &KeyState::ALL,
        }
    }

    fn is_imported(self) -> bool {
        matches!(self, Self::Imported | Self::ImportedPrimary | Self::ImportedReplica)
    }

    fn is_replica(self) -> bool {
        matches!(self, Self::MultiRegionReplica | Self::ImportedReplica)
    }

    fn is_primary(self) -> bool {
        matches!(self, Self::MultiRegionPrimary | Self::ImportedPrimary)
    }
}

/// Makes the enumeration, its list and its names from one list of AWS's names.
macro_rules! operations {
    ($count:literal: $($name:ident)+) => {
        /// What may be asked of an existing key, as AWS KMS names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "the names are AWS's, and AWS's API reference says what each does")]
        pub enum KeyOperation {
            $($name,)+
        }

        impl KeyOperation {
            /// Every operation, by name.
            pub const ALL: [Self; $count] = [$(Self::$name,)+];

            /// AWS's name for it. `ReEncryptFrom` and `ReEncryptTo` are the two permissions of `ReEncrypt`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Its name in a policy.
            pub(super) fn action(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("kms:", stringify!($name)),)+
                }
            }
        }
    };
}

operations! {
    37:
    CancelKeyDeletion CreateAlias CreateGrant Decrypt DeleteAlias DeleteImportedKeyMaterial DescribeKey DisableKey
    DisableKeyRotation EnableKey EnableKeyRotation Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext
    GetKeyPolicy GetKeyRotationStatus GetParametersForImport ImportKeyMaterial ListAliases ListGrants
    ListKeyPolicies ListKeyRotations ListResourceTags ListRetirableGrants PutKeyPolicy ReEncryptFrom ReEncryptTo
    ReplicateKey RetireGrant RevokeGrant RotateKeyOnDemand ScheduleKeyDeletion TagResource UntagResource
    UpdateAlias UpdateKeyDescription UpdatePrimaryRegion
}

/// Why a key refuses an operation: for its state, or for its kind in every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The key is disabled.
    Disabled,
    /// The key waits for its deletion.
    PendingDeletion,
    /// The key waits for the deletion of its replicas.
    PendingReplicaDeletion,
    /// The key waits for its material.
    PendingImport,
    /// The key does not wait for its deletion.
    NotPendingDeletion,
    /// The key is a managed key, which the keystore looks after.
    Managed,
    /// The key's material was imported, and cannot be rotated by schedule.
    Imported,
    /// The key's material was made here, and cannot be imported or deleted by itself.
    NotImported,
    /// The key is no multi-Region key.
    NotMultiRegion,
    /// The key is a replica, and only its primary key does this.
    Replica,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Disabled,
        Self::PendingDeletion,
        Self::PendingReplicaDeletion,
        Self::PendingImport,
        Self::NotPendingDeletion,
        Self::Managed,
        Self::Imported,
        Self::NotImported,
        Self::NotMultiRegion,
        Self::Replica,
    ];

    /// AWS's name for the error.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Disabled => "DisabledException",
            Self::PendingDeletion | Self::PendingReplicaDeletion | Self::PendingImport | Self::NotPendingDeletion => {
                "KMSInvalidStateException"
            }
            Self::Managed | Self::Imported | Self::NotImported | Self::NotMultiRegion | Self::Replica => {
                "UnsupportedOperationException"
            }
        }
    }

    /// A refusal for the state is of kind [`KeyState`](ErrorKind::KeyState): it may pass. One for the kind
    /// of key never does.
    fn kind(self) -> ErrorKind {
        match self.code() {
            "UnsupportedOperationException" => ErrorKind::InvalidInput,
            _ => ErrorKind::KeyState,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Disabled => "enable it, or use another key",
            Self::PendingDeletion => "cancel the deletion and enable it, or use another key",
            Self::PendingReplicaDeletion => "use a replica or another key, or cancel the deletion and enable it",
            Self::PendingImport => "import its key material",
            Self::NotPendingDeletion => "there is no deletion to cancel",
            Self::Managed => "make a key of your own, under an alias of your own, and ask that of it",
            Self::Imported => "import new material, and rotate on demand",
            Self::NotImported => "make a key of origin EXTERNAL to import material",
            Self::NotMultiRegion => "make a multi-Region key: a key cannot become one later",
            Self::Replica => "ask it of the primary key, in its keystore",
        }
    }

    fn error(self, key: &str, operation: KeyOperation) -> Error {
        let message = match self.kind() {
            ErrorKind::KeyState => format!("the key {key} {self}"),
            _ => format!("the key {key} {self}: {} is not for it", operation.name()),
        };
        let error = Error::new(self.kind(), message).with_code(self.code()).with_advice(self.advice());
        match self {
            Self::Disabled => error.with_cause(KeystoreCause::KeyDisabled),
            Self::PendingDeletion | Self::PendingReplicaDeletion => error.with_cause(KeystoreCause::KeyPendingDeletion),
            Self::Managed => error.with_cause(KeystoreCause::KeyManaged),
            _ => error,
        }
    }
}

/// What is said of the key: `is disabled`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "is disabled",
            Self::PendingDeletion => "is pending deletion",
            Self::PendingReplicaDeletion => "is pending the deletion of its replicas",
            Self::PendingImport => "has no key material",
            Self::NotPendingDeletion => "is not pending deletion",
            Self::Managed => "is a managed key",
            Self::Imported => "has imported key material",
            Self::NotImported => "has no imported key material",
            Self::NotMultiRegion => "is no multi-Region key",
            Self::Replica => "is a replica",
        })
    }
}

/// Whether a key of `kind` in `state` takes `operation`. What its kind refuses it refuses in every state.
///
/// An alias operation is judged by the key that the alias is to point to (`CreateAlias`, `UpdateAlias`) or
/// points to (`DeleteAlias`); `ReEncryptFrom` by the source key, `ReEncryptTo` by the destination. What
/// depends on more is not here: whether rotating an imported key finds new material, or whether a
/// primary key has replicas.
///
/// ```
/// use envelock::kms::{KeyKind, KeyOperation, KeyState, Refusal, allowed};
///
/// assert_eq!(allowed(KeyKind::Customer, KeyState::Enabled, KeyOperation::Decrypt), Ok(()));
/// let refusal = allowed(KeyKind::Managed, KeyState::Enabled, KeyOperation::DisableKey);
/// assert_eq!(refusal, Err(Refusal::Managed));
/// assert_eq!(Refusal::Managed.code(), "UnsupportedOperationException");
/// ```
///
/// # Errors
/// The reason for the refusal.
pub fn allowed(kind: KeyKind, state: KeyState, operation: KeyOperation) -> Result<(), Refusal> {
    kind_allows(kind, operation)?;
    state_allows(state, operation)
}

/// What the kind of a key says to an operation, in whatever state the key is.
fn kind_allows(kind: KeyKind, operation: KeyOperation) -> Result<(), Refusal> {
    use KeyOperation as Op;
    let not_managed = match kind {
        KeyKind::Managed => Err(Refusal::Managed),
        _ => Ok(()),
    };
    let not_imported = match kind.is_imported() {
        true => Err(Refusal::Imported),
        false => Ok(()),
    };
    let not_replica = match kind.is_replica() {
        true => Err(Refusal::Replica),
        false => Ok(()),
    };
    match operation {
        Op::Decrypt
        | Op::DescribeKey
        | Op::Encrypt
        | Op::GenerateDataKey
        | Op::GenerateDataKeyWithoutPlaintext
        | Op::GetKeyPolicy
        | Op::ListAliases
        | Op::ListGrants
        | Op::ListKeyPolicies
        | Op::ListKeyRotations
        | Op::ListResourceTags
        | Op::ListRetirableGrants
        | Op::ReEncryptFrom
        | Op::ReEncryptTo
        | Op::RetireGrant
        | Op::RevokeGrant => Ok(()),
        Op::CancelKeyDeletion
        | Op::CreateAlias
        | Op::CreateGrant
        | Op::DeleteAlias
        | Op::DisableKey
        | Op::EnableKey
        | Op::PutKeyPolicy
        | Op::ScheduleKeyDeletion
        | Op::TagResource
        | Op::UntagResource
        | Op::UpdateAlias
        | Op::UpdateKeyDescription => not_managed,
        Op::DisableKeyRotation | Op::EnableKeyRotation => not_managed.and(not_imported).and(not_replica),
        Op::GetKeyRotationStatus => not_imported,
        Op::RotateKeyOnDemand => not_managed.and(not_replica),
        Op::DeleteImportedKeyMaterial | Op::GetParametersForImport | Op::ImportKeyMaterial => {
            match kind.is_imported() {
                true => Ok(()),
                false => Err(Refusal::NotImported),
            }
        }
        Op::ReplicateKey | Op::UpdatePrimaryRegion => match kind.is_primary() {
            true => Ok(()),
            false => not_replica.and(Err(Refusal::NotMultiRegion)),
        },
    }
}

/// What the state of a key says to an operation that its kind has.
fn state_allows(state: KeyState, operation: KeyOperation) -> Result<(), Refusal> {
    use KeyOperation as Op;
    let not_pending_deletion = match state {
        KeyState::PendingDeletion => Err(Refusal::PendingDeletion),
        KeyState::PendingReplicaDeletion => Err(Refusal::PendingReplicaDeletion),
        KeyState::Enabled | KeyState::Disabled | KeyState::PendingImport => Ok(()),
    };
    let has_material = match state {
        KeyState::PendingImport => Err(Refusal::PendingImport),
        _ => not_pending_deletion,
    };
    let usable = match state {
        KeyState::Disabled => Err(Refusal::Disabled),
        _ => has_material,
    };
    match operation {
        Op::DeleteAlias
        | Op::DeleteImportedKeyMaterial
        | Op::DescribeKey
        | Op::GetKeyPolicy
        | Op::GetKeyRotationStatus
        | Op::ListAliases
        | Op::ListGrants
        | Op::ListKeyPolicies
        | Op::ListKeyRotations
        | Op::ListResourceTags
        | Op::ListRetirableGrants
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
        | Op::UpdatePrimaryRegion => usable,
        Op::DisableKey | Op::EnableKey => has_material,
        Op::CreateAlias
        | Op::GetParametersForImport
        | Op::ImportKeyMaterial
        | Op::ScheduleKeyDeletion
        | Op::TagResource
        | Op::UntagResource
        | Op::UpdateAlias
        | Op::UpdateKeyDescription => not_pending_deletion,
        Op::CancelKeyDeletion => match not_pending_deletion {
            Err(_) => Ok(()),
            Ok(()) => Err(Refusal::NotPendingDeletion),
        },
    }
}

/// [`allowed`], as an error that names the key.
pub(super) fn check(key: &str, kind: KeyKind, state: KeyState, operation: KeyOperation) -> Result<()> {
    allowed(kind, state, operation).map_err(|refusal| refusal.error(key, operation))
}
