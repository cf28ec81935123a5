//! The tables of a keystore file, and which of their columns decide something: all of them.
//!
//! Schema 1. Times are milliseconds since the Unix epoch. Every table but `head` ends in `row_mac`,
//! under which, with the head, all its other columns are authenticated ([`super::rows`]).

use crate::error::{Error, Result};
use rusqlite::Connection;

/// This version's schema: in `PRAGMA user_version`, and in the head, under its MAC.
pub(super) const SCHEMA_VERSION: u32 = 1;
/// `PRAGMA application_id`: "elk1".
pub(super) const APPLICATION_ID: i32 = 0x656c_6b31;

/// A table of deciding rows.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Without `row_mac`, in the order in which they are authenticated.
    pub(super) columns: &'static [&'static str],
    /// How many of the first columns identify a row.
    pub(super) identity: usize,
}

/// One row: who this keystore is, and what its root key must match.
pub(super) static META: Table = Table {
    name: "meta",
    columns: &[
        "id",
        "keystore_id",
        "region",
        "created_at",
        "root_kind",
        "check_value",
        "argon_salt",
        "argon_memory_kib",
        "argon_passes",
        "argon_lanes",
    ],
    identity: 1,
};

/// Where `meta` has the Region.
pub(super) const META_REGION: usize = 2;

/// Keys: who made them, their state, and their newest version.
pub(super) static KEYS: Table = Table {
    name: "keys",
    columns: &["key_id", "manager", "state", "origin", "description", "created_at", "current_version"],
    identity: 1,
};

/// Wrapped key material, by key and version.
pub(super) static KEY_VERSIONS: Table =
    Table { name: "key_versions", columns: &["key_id", "version", "wrapped", "created_at"], identity: 2 };

/// What each alias points to now.
pub(super) static ALIASES: Table =
    Table { name: "aliases", columns: &["alias", "key_id", "created_at", "updated_at"], identity: 1 };

/// Every key that an alias ever pointed to, in order: what it may still open.
pub(super) static ALIAS_HISTORY: Table =
    Table { name: "alias_history", columns: &["alias", "position", "key_id", "since"], identity: 2 };

/// Every table of deciding rows.
pub(super) static TABLES: [&Table; 5] = [&META, &KEYS, &KEY_VERSIONS, &ALIASES, &ALIAS_HISTORY];

/// Run in the transaction that makes the keystore.
pub(super) const CREATE: &str = "
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    audit BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    keystore_id BLOB NOT NULL,
    region TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    root_kind TEXT NOT NULL,
    check_value BLOB NOT NULL,
    argon_salt BLOB,
    argon_memory_kib INTEGER,
    argon_passes INTEGER,
    argon_lanes INTEGER,
    row_mac BLOB NOT NULL
) STRICT;
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    manager TEXT NOT NULL,
    state TEXT NOT NULL,
    origin TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    current_version INTEGER NOT NULL,
    row_mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE key_versions (
    key_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (key_id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE aliases (
    alias TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    row_mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE alias_history (
    alias TEXT NOT NULL,
    position INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    since INTEGER NOT NULL,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (alias, position)
) STRICT, WITHOUT ROWID;
";

/// What a file at the keystore's path turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet, or what a creation that was killed left: no table.
    Nothing,
    /// A keystore of this schema, as far as its unauthenticated version says.
    Keystore,
}

/// Looks at what the file holds, before any of it is trusted.
///
/// # Errors
/// Kind Unsupported for a newer schema, Storage for another program's database.
pub(super) fn look(sql: &Connection) -> Result<Found> {
    // One statement, and so one moment: another process may be making the keystore.
    let query = "SELECT (SELECT count(*) FROM sqlite_master), user_version, application_id
                 FROM pragma_user_version, pragma_application_id";
    let (objects, version, application): (i64, i64, i32) =
        sql.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(Error::sqlite)?;
    match (objects, application) {
        (0, 0) => Ok(Found::Nothing),
        (_, APPLICATION_ID) if version == i64::from(SCHEMA_VERSION) => Ok(Found::Keystore),
        (_, APPLICATION_ID) if version > i64::from(SCHEMA_VERSION) => Err(Error::newer_schema(version)),
        (_, APPLICATION_ID) => Err(Error::tampered(format!("schema version {version} was never written"))),
        _ => Err(Error::not_a_keystore()),
    }
}
