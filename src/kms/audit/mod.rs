//! The audit trail: one record of every call, allowed, denied or failed, in the transaction of what it did.
//!
//! Records form a hash chain, whose end is in the authenticated head, so that nothing can be changed, dropped
//! or moved unnoticed; and each carries a MAC, so that the first one that is not as it was written is named.

mod anchor;
pub(super) mod changes;
mod event;
mod index;
mod names;
mod query;
mod record;
mod retention;
mod stored;
mod verify;
mod walk;

pub use anchor::AuditHead;
pub use event::AuditRecord;
pub(super) use index::make as make_index;
pub use names::AUDIT_EVENTS;
pub(super) use query::find;
pub use query::{AuditOutcome, AuditQuery};
pub(super) use record::{Entry, Record};
pub use retention::{AuditRetention, AuditTrimmed};
#[cfg(test)]
pub(super) use stored::COLUMNS;
pub use verify::AuditReport;
pub(super) use verify::verify;
pub(super) use walk::blame;

use super::head::AuditEnds;
use super::root::RootKeys;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::{Connection, params};

/// The end of the trail, to which a transaction appends.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    pub(super) ends: AuditEnds,
    pub(super) key: &'a Secret<32>,
}

impl Trail<'_> {
    /// Appends a record.
    pub(super) fn append(&mut self, sql: &Connection, keys: &RootKeys, entry: Entry) -> Result<()> {
        let sequence = self.ends.last.checked_add(1).ok_or_else(|| Error::internal("the audit trail is full"))?;
        let record = Record { sequence, previous: self.ends.hash, entry };
        let encoded = record.encode(&keys.rows.keystore_id)?;
        let Entry { at, name, principal, key_id, code, details, changes } = &record.entry;
        let stored = i64::try_from(sequence).map_err(|_| Error::internal("the audit trail is full"))?;
        sql.prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL)")
            .and_then(|mut statement| {
                let mac = Record::mac(self.key, &encoded);
                statement.execute(params![
                    stored,
                    at,
                    name,
                    principal,
                    key_id,
                    code,
                    details,
                    changes,
                    record.previous,
                    mac
                ])
            })
            .map_err(Error::sqlite)?;
        self.ends.last = sequence;
        self.ends.hash = Record::hash(&encoded);
        index::keep(sql, sequence)
    }
}

/// Keeps the hash of every row as of now: the state that the trail's first record follows.
pub(super) fn keep_checkpoint(sql: &Connection, rows: &Rows) -> Result<()> {
    sql.execute("DELETE FROM audit_checkpoint", []).map_err(Error::sqlite)?;
    let mut statement = sql.prepare("INSERT INTO audit_checkpoint VALUES (?1, ?2)").map_err(Error::sqlite)?;
    for (name, hash) in rows.iter() {
        statement.execute(params![name.as_str(), hash]).map_err(Error::sqlite)?;
    }
    Ok(())
}
