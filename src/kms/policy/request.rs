//! What a caller asks for, as far as a policy looks at it.

use super::action::PolicyAction;
use super::grant::{CreateGrantRequest, Grant};
use crate::kms::state::KeyOperation;
use std::time::Duration;

/// Who wants to do what with which key, for [`decide`](super::decide).
#[derive(Clone, Debug)]
pub struct AccessRequest<'a> {
    pub(super) principal: &'a str,
    pub(super) action: PolicyAction,
    pub(super) resource: &'a str,
    /// Nanoseconds since the Unix epoch.
    pub(super) now: i128,
    pub(super) creating: Option<&'a CreateGrantRequest>,
    pub(super) retiring: Option<&'a Grant>,
    entries: Vec<(&'a str, &'a str)>,
    bypass: bool,
}

impl<'a> AccessRequest<'a> {
    /// A request without an encryption context. `key` is the key's full name
    /// (`envelock:<region>:<keystore id>:key/<key id>`), `now` the time since the Unix epoch.
    #[must_use]
    pub fn new(principal: &'a str, action: impl Into<PolicyAction>, key: &'a str, now: Duration) -> Self {
        Self {
            principal,
            action: action.into(),
            resource: key,
            now: i128::try_from(now.as_nanos()).unwrap_or(i128::MAX),
            creating: None,
            retiring: None,
            entries: Vec::new(),
            bypass: false,
        }
    }

    /// With the encryption context of a cryptographic operation: all that the KMS sees of it, the envelope
    /// layer's own entry included. When a ciphertext is re-encrypted, each of both actions has its own context.
    #[must_use]
    pub fn encryption_context(mut self, entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.entries = entries.into_iter().collect();
        self
    }

    /// With the grant that `kms:CreateGrant` is to create.
    #[must_use]
    pub fn creating(mut self, grant: &'a CreateGrantRequest) -> Self {
        self.creating = Some(grant);
        self
    }

    /// With the grant that `kms:RetireGrant` or `kms:RevokeGrant` is to end.
    #[must_use]
    pub fn retiring(mut self, grant: &'a Grant) -> Self {
        self.retiring = Some(grant);
        self
    }

    /// With the wish that `kms:PutKeyPolicy` takes a policy that locks its caller out.
    #[must_use]
    pub fn bypassing_lockout_check(mut self) -> Self {
        self.bypass = true;
        self
    }

    /// The key id in the full name.
    pub(super) fn key_id(&self) -> Option<&'a str> {
        self.resource.rsplit_once(":key/").map(|(_, id)| id)
    }

    /// The pairs that `kms:EncryptionContext…` looks at. Of a grant that is created or retired they are its
    /// constraints' (AWS KMS Developer Guide, "kms:EncryptionContext:context-key").
    pub(super) fn context(&self) -> Vec<(&'a str, &'a str)> {
        let constraints = match self.action {
            PolicyAction::Operation(KeyOperation::CreateGrant) => self.creating.map(|grant| &grant.constraints),
            PolicyAction::Operation(KeyOperation::RetireGrant) => self.retiring.map(|grant| &grant.constraints),
            _ => None,
        };
        match constraints {
            Some(constraints) => constraints.pairs().collect(),
            None => self.entries.clone(),
        }
    }

    /// The value of `kms:BypassPolicyLockoutSafetyCheck`, which only putting a policy has.
    pub(super) fn bypass_of_lockout_check(&self) -> Option<bool> {
        (self.action == PolicyAction::Operation(KeyOperation::PutKeyPolicy)).then_some(self.bypass)
    }
}
