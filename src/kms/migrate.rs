//! Keystores of older schemas, brought to this one when they are opened.
//!
//! One transaction: the old head and all rows are checked, what the new schema has is written, and a record of it
//! goes into the audit trail, which begins with it where there was none. A process that is killed in between leaves the keystore as it was.

use super::call::Call;
use super::head::Head;
use super::root::RootKeys;
use super::rows::{Columns, RowName};
use super::schema::{self, Found, SCHEMA_VERSION, Table, look};
use super::store::Store;
use super::trust::{Trust, check_root_key, for_each, read_all};
use super::tx::Tx;
use super::waiting::Waiting;
use crate::error::{Error, Result};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::Arc;

/// The tables of schema 1, which had no rotation, no life cycle, no policies and no audit trail.
static TABLES_1: [&Table; 5] = [&META_1, &KEYS_1, &KEY_VERSIONS_1, &schema::ALIASES, &schema::ALIAS_HISTORY];

static META_1: Table = Table {
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

static KEYS_1: Table = Table {
    name: "keys",
    columns: &["key_id", "manager", "state", "origin", "description", "created_at", "current_version"],
    identity: 1,
};

static KEY_VERSIONS_1: Table =
    Table { name: "key_versions", columns: &["key_id", "version", "wrapped", "created_at"], identity: 2 };

/// Brings a keystore of an older schema to this one, unless another process has just done so.
pub(super) fn migrate(sql: &Connection, keys: &RootKeys, waiting: &Waiting, now: i64) -> Result<()> {
    let tx = waiting.begin(sql)?;
    let Found::Older(version) = look(&tx)? else { return Ok(()) };
    check_root_key(&tx, keys)?;
    let head = Head::read_older(&tx, keys)?;
    if head.schema_version != version {
        let what = format!("its head has schema version {}, and its tables {version}", head.schema_version);
        return Err(Error::tampered(what));
    }
    let call = Call::new("MigrateKeystore", &Arc::from(super::policy::OWNER)).with("fromSchema", version);
    match version {
        1 => from_1(&tx, keys, &head, now, &call)?,
        _ => from_2(&tx, keys, &head, now, &call)?,
    }
    tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(Error::sqlite)?;
    tx.commit().map_err(Error::sqlite)?;
    // The old tables lie in the log until it is emptied.
    waiting.fold(sql);
    Ok(())
}

fn from_1(sql: &Connection, keys: &RootKeys, head: &Head, now: i64, call: &Call) -> Result<()> {
    if read_all(sql, keys, &TABLES_1)?.0.digest() != head.digest {
        return Err(Error::tampered("a row was removed, or replaced by an older one"));
    }
    let mut rows = Vec::new();
    for table in TABLES_1 {
        for_each(sql, table, |columns, _| {
            rows.push((table.name, columns));
            Ok(())
        })?;
        sql.execute_batch(&format!("DROP TABLE {}", table.name)).map_err(Error::sqlite)?;
    }
    sql.execute_batch("DROP TABLE head").map_err(Error::sqlite)?;
    schema::create(sql)?;
    let at = rows.iter().position(|(name, _)| *name == META_1.name);
    let (_, mut meta) =
        at.map(|at| rows.swap_remove(at)).ok_or_else(|| Error::tampered("it has no row that names it"))?;
    meta.push(Value::Null);
    Store::initialise(sql, keys, meta, (head.sequence, now), call, |tx| {
        rows.into_iter().try_for_each(|(name, columns)| carry_over(tx, name, columns))
    })
}

/// Schema 2 had the same rows and the same trail; the head was a table, and the trail's index SQLite's own: pages that
/// each record changed.
fn from_2(sql: &Connection, keys: &RootKeys, head: &Head, now: i64, call: &Call) -> Result<()> {
    let (trust, ends) = Trust::of_older(sql, keys, head)?;
    let last: Option<i64> =
        sql.query_row("SELECT max(sequence) FROM audit", [], |row| row.get(0)).map_err(Error::sqlite)?;
    if last.and_then(|last| u64::try_from(last).ok()) != Some(ends.last) {
        let found = last.map_or("no record".to_owned(), |last| format!("the record {last}"));
        return Err(Error::tampered(format!(
            "its audit trail ends with {found}, and its head says with {}",
            ends.last
        )));
    }
    sql.execute_batch("DROP INDEX IF EXISTS audit_by_key; DROP TABLE head; ALTER TABLE audit ADD COLUMN head BLOB")
        .map_err(Error::sqlite)?;
    super::audit::make_index(sql)?;
    Store::go_on(sql, keys, trust, ends, now, call)
}

/// A row of schema 1 with what this schema adds.
fn carry_over(tx: &mut Tx<'_>, name: &str, mut columns: Columns) -> Result<()> {
    let table = schema::TABLES.iter().find(|table| table.name == name);
    let table = table.ok_or_else(|| Error::internal("a table of schema 1 has no successor"))?;
    if name == KEYS_1.name {
        let managed = columns.get(1) == Some(&Value::Text("managed".to_owned()));
        // A year from now, not from its making: what was never promised is not made up for.
        let rotation = match managed {
            true => [Value::Integer(MANAGED_PERIOD_DAYS), Value::Integer(tx.now + MANAGED_PERIOD_DAYS * DAY)],
            false => [Value::Null, Value::Null],
        };
        columns.extend(rotation);
        columns.extend([Value::Null, Value::Null, Value::Text(String::new()), Value::Null]);
    } else if name == KEY_VERSIONS_1.name {
        let first = columns.get(1) == Some(&Value::Integer(1));
        columns.push(Value::Text(if first { "created" } else { "on demand" }.to_owned()));
        columns.extend([Value::Null, Value::Null]);
    }
    debug_assert_eq!(columns.len(), table.columns.len(), "{:?}", RowName::of(table, &columns));
    tx.insert(table, columns)
}

/// Managed keys are rotated every year.
pub(super) const MANAGED_PERIOD_DAYS: i64 = 365;
/// In milliseconds.
pub(super) const DAY: i64 = 86_400_000;
