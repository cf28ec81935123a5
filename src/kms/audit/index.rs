//! Which records are about which key, so that they are found in a trail of millions.
//!
//! One batch of records is entered at a time, by whoever appends its last: so that a commit writes the page of the
//! index seldom. The records after the last whole batch are looked through one by one.

use crate::error::{Error, Result};
use crate::kms::schema::create_index;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, params};
use std::hash::{BuildHasher as _, RandomState};

/// How many records are entered at a time.
const BATCH: u64 = 64;

/// The last record of a trail that ends with `last` whose key is in the index.
pub(super) fn indexed(last: u64) -> u64 {
    last - last % BATCH
}

/// Enters a batch, if `last` was its last record. Where the index cannot take it, it goes without, since it decides nothing:
/// the verification tells.
pub(super) fn keep(sql: &Connection, last: u64) -> Result<()> {
    if !last.is_multiple_of(BATCH) {
        return Ok(());
    }
    unless_lost(enter(sql, indexed(last - 1), indexed(last)))
}

/// Takes it for done where there is no such table, or none with such columns.
fn unless_lost(done: rusqlite::Result<()>) -> Result<()> {
    match done {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(()),
        done => done.map_err(Error::sqlite),
    }
}

/// Makes the index of a trail anew, or where there is none yet.
pub(in crate::kms) fn make(sql: &Connection) -> Result<()> {
    sql.execute_batch("DROP TABLE IF EXISTS audit_by_key").map_err(Error::sqlite)?;
    create_index(sql)?;
    let last: Option<i64> =
        sql.query_row("SELECT max(sequence) FROM audit", [], |row| row.get(0)).map_err(Error::sqlite)?;
    let last = last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0);
    enter(sql, 0, indexed(last)).map_err(Error::sqlite)
}

fn enter(sql: &Connection, after: u64, last: u64) -> rusqlite::Result<()> {
    let stored = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    // An entry that somebody else has put there stops no call.
    sql.prepare_cached(
        "INSERT OR IGNORE INTO audit_by_key
         SELECT key_id, sequence FROM audit WHERE sequence > ?1 AND sequence <= ?2 AND key_id <> ''",
    )?
    .execute(params![stored(after), stored(last)])
    .map(drop)
}

/// Forgets the records up to this one.
pub(super) fn cut(sql: &Connection, cut: i64) -> Result<()> {
    unless_lost(sql.execute("DELETE FROM audit_by_key WHERE record <= ?1", [cut]).map(drop))
}

/// What the index should have, in any order: how many entries, and the sum of their hashes under a key that nobody who made
/// the file can know.
#[derive(Debug, Default)]
pub(super) struct Entries {
    hasher: RandomState,
    count: u64,
    sum: u64,
}

impl Entries {
    pub(super) fn add(&mut self, key_id: &[u8], record: i64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(self.hasher.hash_one((key_id, record)));
    }

    /// Whether the index has these and no other, whatever its schema says of itself.
    pub(super) fn check(self, sql: &Connection) -> Result<()> {
        for table in ["audit", "audit_by_key"] {
            let found: String = sql
                .query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0))
                .map_err(Error::sqlite)?;
            if found != "ok" {
                return Err(Error::tampered(format!("the table {table} of its audit trail is damaged: {found}")));
            }
        }
        let mut found = Self { hasher: self.hasher.clone(), count: 0, sum: 0 };
        let mut statement = sql.prepare("SELECT of_key, record FROM audit_by_key").map_err(Error::sqlite)?;
        let mut rows = statement.query([]).map_err(Error::sqlite)?;
        while let Some(row) = rows.next().map_err(Error::sqlite)? {
            match (row.get_ref(0).map_err(Error::sqlite)?, row.get_ref(1).map_err(Error::sqlite)?) {
                (ValueRef::Text(key_id), ValueRef::Integer(record)) => found.add(key_id, record),
                _ => return Err(changed()),
            }
        }
        match (found.count, found.sum) == (self.count, self.sum) {
            true => Ok(()),
            false => Err(changed()),
        }
    }
}

fn changed() -> Error {
    Error::tampered(
        "the index of its audit trail by key is not what the trail tells: a query by key may not find every record; the trail \
         itself is whole, and restoring a backup makes the index anew",
    )
}
