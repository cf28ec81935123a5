//! Who may do what: the question that every operation asks before it does anything.

use super::permissions::{grants_of, policy_of};
use super::policy::{AccessRequest, CreateGrantRequest, Decision, Grant, OWNER, PolicyAction, decide};
use super::records::KeyRecord;
use super::state::{self, KeyOperation};
use super::tx::Tx;
use crate::context::KmsContext;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use std::sync::Arc;
use std::time::Duration;

/// What a request says besides who does what with which key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct With<'a> {
    pub(super) context: Option<&'a KmsContext>,
    /// The grant that is to be created.
    pub(super) creating: Option<&'a CreateGrantRequest>,
    /// The grant that is to end.
    pub(super) retiring: Option<&'a Grant>,
    /// Whether a policy that locks its caller out is to be taken.
    pub(super) bypass: bool,
}

impl Tx<'_> {
    /// Whether the caller may do this with the key, and the key's state takes it. The key is noted for the
    /// audit trail whatever the answer.
    ///
    /// # Errors
    /// AccessDeniedException, DisabledException, KMSInvalidStateException, UnsupportedOperationException.
    pub(super) fn allow(
        &mut self,
        key: &KeyRecord,
        operation: KeyOperation,
        context: Option<&KmsContext>,
    ) -> Result<()> {
        self.event.key_id.clone_from(&key.key_id);
        self.permit(key, operation, context)?;
        self.check_state(key, operation)
    }

    /// Whether the key's kind and state take the operation.
    ///
    /// # Errors
    /// DisabledException, KMSInvalidStateException, UnsupportedOperationException.
    pub(super) fn check_state(&self, key: &KeyRecord, operation: KeyOperation) -> Result<()> {
        state::check(&key.key_id, key.kind(), key.state, operation)
    }

    /// Whether the caller may do this with the key.
    ///
    /// # Errors
    /// AccessDeniedException.
    pub(super) fn permit(
        &mut self,
        key: &KeyRecord,
        action: impl Into<PolicyAction>,
        context: Option<&KmsContext>,
    ) -> Result<()> {
        self.permit_with(key, action, With { context, ..With::default() })
    }

    /// As [`permit`](Self::permit), for a request that says more.
    pub(super) fn permit_with(
        &mut self,
        key: &KeyRecord,
        action: impl Into<PolicyAction>,
        with: With<'_>,
    ) -> Result<()> {
        let action = action.into();
        let principal = Arc::clone(&self.principal);
        let decision = self.decide(key, &principal, action, with)?;
        if decision.is_allowed() {
            return Ok(());
        }
        let error = denied(format!("{principal} may not do {action} with the key {}: {decision}", key.key_id));
        Err(match decision {
            Decision::DeniedByStatement(_) => error.with_cause(KeystoreCause::DeniedByStatement).with_advice(
                "no grant and no other statement goes before one that denies: change that one, or what it was asked with",
            ),
            _ => error,
        })
    }

    /// What becomes of such a request by `principal`, and what decides it. Grants are looked at only where the
    /// policy says nothing.
    pub(super) fn decide(
        &mut self,
        key: &KeyRecord,
        principal: &str,
        action: PolicyAction,
        with: With<'_>,
    ) -> Result<Decision> {
        let name = self.realm.full_name(&key.key_id);
        let now = Duration::from_millis(u64::try_from(self.now).unwrap_or(0));
        let mut request = AccessRequest::new(principal, action, &name, now);
        if let Some(context) = with.context {
            request = request.encryption_context(context.iter());
        }
        if let Some(grant) = with.creating {
            request = request.creating(grant);
        }
        if let Some(grant) = with.retiring {
            request = request.retiring(grant);
        }
        if with.bypass {
            request = request.bypassing_lockout_check();
        }
        let policy = policy_of(self, key)?;
        Ok(match decide(&policy, &[], &request) {
            Decision::DeniedImplicitly => decide(&policy, &grants_of(self, &key.key_id)?, &request),
            decision => decision,
        })
    }

    /// Whether the caller may do what concerns no single key: only the owner may.
    ///
    /// # Errors
    /// AccessDeniedException.
    pub(super) fn permit_owner(&self, operation: &str) -> Result<()> {
        check_owner(&self.principal, operation)
    }
}

/// Whether this is the owner.
///
/// # Errors
/// AccessDeniedException.
pub(super) fn check_owner(principal: &str, operation: &str) -> Result<()> {
    match principal {
        OWNER => Ok(()),
        other => Err(denied(format!("{other} may not do {operation}, which only the keystore's owner may"))
            .with_cause(KeystoreCause::OwnerOnly)
            .with_advice("no policy and no grant allows it: call it by the owner's own handle, which opening it gave")),
    }
}

pub(super) fn denied(message: String) -> Error {
    Error::new(ErrorKind::KeyDenied, message)
        .with_code("AccessDeniedException")
        .with_advice("the key's policy or a grant must allow it; an explicit deny in the policy goes before both")
}
