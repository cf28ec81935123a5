//! The tables of a keystore file, and which of their columns decide something.
//!
//! Schema 3. Times are milliseconds since the Unix epoch. Every table of [`TABLES`] ends in `row_mac`,
//! under which, with the head, all its other columns are authenticated ([`super::rows`]). The audit
//! trail is authenticated by its own chain ([`super::audit`]), whose end is in the head ([`super::head`]).

use crate::error::{Error, Result};
use rusqlite::Connection;

/// This version's schema: in `PRAGMA user_version`, and in the head, under its MAC.
pub(super) const SCHEMA_VERSION: u32 = 3;
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

/// One row: who this keystore is, what its root key must match, and the audit trail's key, wrapped.
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
        "root_slots",
        "audit_key",
    ],
    identity: 1,
};

/// Where `meta` has the Region.
pub(super) const META_REGION: usize = 2;
/// Where `meta` has the root key's kind, then its check value, then all that else is about it.
pub(super) const META_ROOT_KIND: usize = 4;
pub(super) const META_CHECK: usize = 5;
/// Where `meta` has what key providers made of the root key.
pub(super) const META_ROOT_SLOTS: usize = 10;
/// Where `meta` has the wrapped key of the audit trail.
pub(super) const META_AUDIT_KEY: usize = 11;

/// Keys: who made them, their state, their newest version, and what will become of them when.
pub(super) static KEYS: Table = Table {
    name: "keys",
    columns: &[
        "key_id",
        "manager",
        "state",
        "origin",
        "description",
        "created_at",
        "current_version",
        "rotation_period_days",
        "next_rotation_at",
        "deletion_at",
        "pending_window_days",
        "multi_region",
        "primary_region",
    ],
    identity: 1,
};

/// Wrapped key material, by key and version; what it came from, and until when it may be used.
/// `wrapped` is null once the material was deleted; `sameness` is kept, so that only the same comes back.
pub(super) static KEY_VERSIONS: Table = Table {
    name: "key_versions",
    columns: &["key_id", "version", "wrapped", "created_at", "source", "expires_at", "sameness"],
    identity: 2,
};

/// What each alias points to now.
pub(super) static ALIASES: Table =
    Table { name: "aliases", columns: &["alias", "key_id", "created_at", "updated_at"], identity: 1 };

/// Every key that an alias ever pointed to, in order: what it may still open.
pub(super) static ALIAS_HISTORY: Table =
    Table { name: "alias_history", columns: &["alias", "position", "key_id", "since"], identity: 2 };

/// Labels of keys.
pub(super) static TAGS: Table = Table { name: "tags", columns: &["key_id", "tag_key", "tag_value"], identity: 2 };

/// The policy of a key that has one of its own, as it was put.
pub(super) static POLICIES: Table =
    Table { name: "policies", columns: &["key_id", "policy", "updated_at"], identity: 1 };

/// What single principals may do with single keys besides.
pub(super) static GRANTS: Table = Table {
    name: "grants",
    columns: &["key_id", "grant_id", "grantee", "retiring", "operations", "constraints", "name", "token", "created_at"],
    identity: 2,
};

/// RSA keys, whose private part is wrapped, to which others wrap key material that is meant for here.
pub(super) static WRAPPING_KEYS: Table = Table {
    name: "wrapping_keys",
    columns: &["wrapping_id", "purpose", "key_id", "public_key", "wrapped", "created_at", "valid_until"],
    identity: 1,
};

/// Other keystores that have the same multi-Region key, as far as this one knows.
pub(super) static REPLICAS: Table =
    Table { name: "replicas", columns: &["key_id", "keystore_id", "region", "since"], identity: 2 };

/// Files that passed between keystores: each serial is issued once and taken once.
pub(super) static PARCELS: Table =
    Table { name: "parcels", columns: &["direction", "peer", "key_id", "serial", "kind", "at", "file"], identity: 4 };

/// Every table of deciding rows.
pub(super) static TABLES: [&Table; 11] = [
    &META,
    &KEYS,
    &KEY_VERSIONS,
    &ALIASES,
    &ALIAS_HISTORY,
    &TAGS,
    &POLICIES,
    &GRANTS,
    &WRAPPING_KEYS,
    &REPLICAS,
    &PARCELS,
];

/// Run in the transaction that makes the keystore, and in the one that migrates it from schema 1, after
/// the tables of that were put aside.
const CREATE: &str = "
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
    root_slots BLOB,
    audit_key BLOB NOT NULL,
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
    rotation_period_days INTEGER,
    next_rotation_at INTEGER,
    deletion_at INTEGER,
    pending_window_days INTEGER,
    multi_region TEXT NOT NULL,
    primary_region TEXT,
    row_mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE key_versions (
    key_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    wrapped BLOB,
    created_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    expires_at INTEGER,
    sameness BLOB,
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
CREATE TABLE tags (
    key_id TEXT NOT NULL,
    tag_key TEXT NOT NULL,
    tag_value TEXT NOT NULL,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (key_id, tag_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE policies (
    key_id TEXT PRIMARY KEY,
    policy TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    row_mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE grants (
    key_id TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    grantee TEXT NOT NULL,
    retiring TEXT,
    operations TEXT NOT NULL,
    constraints TEXT NOT NULL,
    name TEXT,
    token TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (key_id, grant_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE wrapping_keys (
    wrapping_id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    key_id TEXT NOT NULL,
    public_key BLOB NOT NULL,
    wrapped BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    valid_until INTEGER NOT NULL,
    row_mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE replicas (
    key_id TEXT NOT NULL,
    keystore_id TEXT NOT NULL,
    region TEXT NOT NULL,
    since INTEGER NOT NULL,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (key_id, keystore_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE parcels (
    direction TEXT NOT NULL,
    peer TEXT NOT NULL,
    key_id TEXT NOT NULL,
    serial INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    file BLOB,
    row_mac BLOB NOT NULL,
    PRIMARY KEY (direction, peer, key_id, serial)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    key_id TEXT NOT NULL,
    code TEXT NOT NULL,
    details TEXT NOT NULL,
    changes BLOB NOT NULL,
    previous BLOB NOT NULL,
    mac BLOB NOT NULL,
    head BLOB
) STRICT;
CREATE TABLE audit_checkpoint (
    row_name TEXT PRIMARY KEY,
    row_hash BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_counts (
    name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    code TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (name, key_id, code)
) STRICT, WITHOUT ROWID;
";

/// Which records of the trail are about which key ([`super::audit`]).
const CREATE_INDEX: &str = "
CREATE TABLE audit_by_key (
    of_key TEXT NOT NULL,
    record INTEGER NOT NULL,
    PRIMARY KEY (of_key, record)
) STRICT, WITHOUT ROWID;
";

/// Makes all tables.
pub(super) fn create(sql: &Connection) -> Result<()> {
    sql.execute_batch(CREATE).map_err(Error::sqlite)?;
    create_index(sql)
}

/// Makes the table that the trail's index is in.
pub(super) fn create_index(sql: &Connection) -> Result<()> {
    sql.execute_batch(CREATE_INDEX).map_err(Error::sqlite)
}

/// What a file at the keystore's path turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet, or what a creation that was killed left: no table.
    Nothing,
    /// A keystore of this schema, as far as its unauthenticated version says.
    Keystore,
    /// A keystore of an older schema, likewise.
    Older(u32),
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
        (_, APPLICATION_ID) if version == 1 => Ok(Found::Older(1)),
        (_, APPLICATION_ID) if version == 2 => Ok(Found::Older(2)),
        (_, APPLICATION_ID) if version > i64::from(SCHEMA_VERSION) => Err(Error::newer_schema(version)),
        (_, APPLICATION_ID) => Err(Error::tampered(format!("schema version {version} was never written"))),
        _ => Err(Error::not_a_keystore()),
    }
}
