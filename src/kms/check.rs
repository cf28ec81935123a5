//! A look at the whole keystore.

use super::LocalKms;
use super::audit::verify;
use super::authorise::check_owner;
use super::schema::{KEY_VERSIONS, KEYS, TABLES};
use super::store::Store;
use super::wrapped;
use crate::error::{Error, Result};
use rusqlite::Connection;

/// What a check of a whole keystore found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeystoreReport {
    /// Keys, managed ones among them.
    pub keys: u64,
    /// Versions of keys.
    pub versions: u64,
    /// Rows that decide anything, each with its MAC, and all together as the head says.
    pub rows: u64,
    /// Wrapped key material and other secrets, each of which was opened.
    pub secrets: u64,
    /// Records of the audit trail, as far as they were not cut off: each authentic, and none missing.
    pub audit_records: u64,
}

impl LocalKms {
    /// Reads the whole file and checks all of it: SQLite's structure, every row that decides anything, the head over
    /// all of them, and that everything wrapped opens under the root key, and the audit trail, as
    /// [`verify_audit`](Self::verify_audit) does. Leaves no record.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage) that says what is wrong; AccessDeniedException unless this is the owner's
    /// handle; the keystore's own failures.
    pub async fn check(&self) -> Result<KeystoreReport> {
        check_owner(self.principal(), "CheckKeystore")?;
        self.look(Store::check).await
    }
}

impl Store {
    /// Checks everything, as if nothing of the file were known.
    pub(super) fn check(&mut self) -> Result<KeystoreReport> {
        self.forget();
        let trail = self.read_trail(|tx, trail| verify(tx, trail, None))?;
        self.read(|tx| {
            check_structure(tx.sql)?;
            let mut report = KeystoreReport { keys: 0, versions: 0, rows: 0, secrets: 0, audit_records: trail.records };
            for table in TABLES {
                let rows = tx.rows(table)?;
                let count = rows.len() as u64;
                report.rows += count;
                for columns in &rows {
                    report.secrets += wrapped::open_all(tx.keys, table, columns)?;
                }
                match table.name {
                    name if name == KEYS.name => report.keys = count,
                    name if name == KEY_VERSIONS.name => report.versions = count,
                    _ => {}
                }
            }
            Ok(report)
        })
    }
}

/// Whether SQLite's structure of tables, pages and indexes is whole.
pub(super) fn check_structure(sql: &Connection) -> Result<()> {
    let found: String = sql.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(Error::sqlite)?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(Error::damaged_keystore(&found)),
    }
}
