//! How many calls there were, of what, on what, and what became of them: counted in the audit trail.

use super::LocalKms;
use super::audit::AuditOutcome;
use super::authorise::check_owner;
use super::tx::Tx;
use crate::error::{Error, Result};

/// How many calls of one operation on one key ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationCount {
    /// AWS's name of the operation, or ours where AWS has none.
    pub operation: String,
    /// The key's id; empty for calls that were about none, or found none.
    pub key_id: String,
    /// The error's name; empty for calls that were allowed and done.
    pub error_code: String,
    /// How many there were since the keystore was made.
    pub count: u64,
}

impl OperationCount {
    /// What became of these calls.
    #[must_use]
    pub fn outcome(&self) -> AuditOutcome {
        AuditOutcome::of(&self.error_code)
    }
}

impl LocalKms {
    /// How many calls there were since the keystore was made, by operation, key and outcome: as many as the audit
    /// trail has records, and as many as were cut off from it. Those in the trail are as true as
    /// [`verify_audit`](Self::verify_audit) finds it; the counts of what was cut off are not authenticated. No call on
    /// the KMS: it leaves no record.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn operation_counts(&self) -> Result<Vec<OperationCount>> {
        check_owner(self.principal(), "CountOperations")?;
        self.look(|store| {
            let _ = store.flush();
            store.read(|tx| count(tx))
        })
        .await
    }
}

/// By operation, key and outcome.
pub(super) fn count(tx: &Tx<'_>) -> Result<Vec<OperationCount>> {
    let query = "SELECT name, key_id, code, sum(calls) FROM (
                     SELECT name, key_id, code, count(*) AS calls FROM audit GROUP BY name, key_id, code
                     UNION ALL SELECT name, key_id, code, count FROM audit_counts)
                 GROUP BY name, key_id, code ORDER BY name, key_id, code";
    let mut statement = tx.sql.prepare(query).map_err(Error::sqlite)?;
    let mut found = statement.query([]).map_err(Error::sqlite)?;
    let mut counts = Vec::new();
    while let Some(row) = found.next().map_err(Error::sqlite)? {
        let text = |at| row.get(at).map_err(Error::sqlite);
        let count: i64 = row.get(3).map_err(Error::sqlite)?;
        counts.push(OperationCount {
            operation: text(0)?,
            key_id: text(1)?,
            error_code: text(2)?,
            count: u64::try_from(count).unwrap_or(0),
        });
    }
    Ok(counts)
}
