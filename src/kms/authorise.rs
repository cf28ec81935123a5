//! Who may do what: the question that every operation asks before it does anything.

use super::key::{KeyOperation, check_state};
use super::records::KeyRecord;
use super::tx::Tx;
use crate::context::KmsContext;
use crate::error::{Error, ErrorKind, Result};

/// The principal of a handle that was not made by [`LocalKms::as_principal`](super::LocalKms::as_principal): who
/// owns the keystore.
pub const OWNER: &str = "owner";

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
        check_state(&key.key_id, key.state, operation)
    }

    /// Whether the caller may do this with the key.
    ///
    /// # Errors
    /// AccessDeniedException.
    pub(super) fn permit(&self, key: &KeyRecord, operation: KeyOperation, _context: Option<&KmsContext>) -> Result<()> {
        match &*self.principal {
            OWNER => Ok(()),
            other => Err(denied(format!("{other} may not do {operation:?} with the key {}", key.key_id))),
        }
    }

    /// Whether the caller may do what concerns no single key: only the owner may.
    ///
    /// # Errors
    /// AccessDeniedException.
    pub(super) fn permit_owner(&self, operation: &str) -> Result<()> {
        match &*self.principal {
            OWNER => Ok(()),
            other => Err(denied(format!("{other} may not do {operation}, which only the keystore's owner may"))),
        }
    }
}

pub(super) fn denied(message: String) -> Error {
    Error::new(ErrorKind::KeyDenied, message)
        .with_code("AccessDeniedException")
        .with_advice("the key's policy or a grant must allow it; an explicit deny in the policy goes before both")
}
