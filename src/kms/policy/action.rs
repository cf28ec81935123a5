//! What a policy can allow, by AWS's names.

use super::pattern::{Pattern, Version};
use super::{malformed, shown};
use crate::error::Result;
use crate::kms::state::KeyOperation;
use std::fmt;

/// An action on a key, as a policy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyAction {
    /// An operation of AWS KMS, `kms:<operation>`. Re-encrypting is two: from one key, and to another.
    Operation(KeyOperation),
    /// `kms:ChangeEncryptionContext`, which AWS does not have: to give a ciphertext another encryption context while
    /// it is re-encrypted, on top of both re-encrypt actions. Named so that `kms:ReEncrypt*`, as AWS's own examples
    /// have it, does not allow it.
    ChangeEncryptionContext,
}

impl PolicyAction {
    /// Every action.
    pub fn all() -> impl Iterator<Item = Self> {
        KeyOperation::ALL.into_iter().map(Self::Operation).chain([Self::ChangeEncryptionContext])
    }

    /// Its name in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChangeEncryptionContext => "kms:ChangeEncryptionContext",
            Self::Operation(operation) => operation.action(),
        }
    }

    /// The actions that `text`, in which wildcards may stand, names in a policy; case does not matter. `place` is the
    /// statement.
    pub(super) fn named_by(text: &str, place: &impl fmt::Display) -> Result<Vec<Self>> {
        // No variables in actions: `$` is a character that no action has.
        let pattern = Pattern::parse(&text.to_ascii_lowercase(), Version::V2008)?;
        let named: Vec<_> = Self::all().filter(|action| pattern.matches(&action.name().to_ascii_lowercase())).collect();
        if named.is_empty() {
            return Err(malformed(format!(
                "{place} names the Action {}, which no action on a key here is: they are `kms:` and the operation's \
                 name, such as `kms:Decrypt`, `kms:GenerateDataKey*` or `kms:*`",
                shown(text)
            )));
        }
        Ok(named)
    }
}

impl From<KeyOperation> for PolicyAction {
    fn from(operation: KeyOperation) -> Self {
        Self::Operation(operation)
    }
}

impl fmt::Display for PolicyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
