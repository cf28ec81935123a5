//! Which records are about which key, so that they are found in a trail of millions.
//!
//! One batch of records is entered at a time, by whoever appends its last: so that a commit writes the page of the
//! index seldom. The records after the last whole batch are looked through one by one.

use crate::error::{Error, Result};
use crate::kms::head::AuditEnds;
use rusqlite::{Connection, params};

/// How many records are entered at a time.
pub(super) const BATCH: u64 = 64;

/// The last record of a trail that ends with `last` whose key is in the index.
pub(super) fn indexed(last: u64) -> u64 {
    last - last % BATCH
}

/// Enters a batch, if `last` was its last record.
pub(super) fn keep(sql: &Connection, last: u64) -> Result<()> {
    match last % BATCH {
        0 => enter(sql, indexed(last - 1), indexed(last)),
        _ => Ok(()),
    }
}

/// Enters all whole batches of a trail that has no index yet.
pub(in crate::kms) fn fill(sql: &Connection, last: u64) -> Result<()> {
    enter(sql, 0, indexed(last))
}

fn enter(sql: &Connection, after: u64, last: u64) -> Result<()> {
    let stored = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    // What somebody else has put there stops no call: the verification finds it.
    sql.prepare_cached(
        "INSERT OR IGNORE INTO audit_by_key
         SELECT key_id, sequence FROM audit WHERE sequence > ?1 AND sequence <= ?2 AND key_id <> ''",
    )
    .and_then(|mut it| it.execute(params![stored(after), stored(last)]))
    .map(drop)
    .map_err(Error::sqlite)
}

/// Forgets the records up to this one.
pub(super) fn cut(sql: &Connection, cut: i64) -> Result<()> {
    sql.execute("DELETE FROM audit_by_key WHERE record <= ?1", [cut]).map(drop).map_err(Error::sqlite)
}

/// Whether it has every record of the whole batches that is about a key, `expected` of them, and no other.
pub(super) fn check(sql: &Connection, ends: &AuditEnds, expected: u64) -> Result<()> {
    for table in ["audit", "audit_by_key"] {
        let found: String =
            sql.query_row(&format!("PRAGMA integrity_check({table})"), [], |row| row.get(0)).map_err(Error::sqlite)?;
        if found != "ok" {
            return Err(Error::tampered(format!("the table {table} of its audit trail is damaged: {found}")));
        }
    }
    // Each pair of key and record is there once: as many as there should be, and each of them right, are all.
    let (entries, right): (i64, i64) = sql
        .query_row(
            "SELECT (SELECT count(*) FROM audit_by_key),
                    (SELECT count(*) FROM audit_by_key CROSS JOIN audit ON sequence = record AND key_id = of_key
                     WHERE key_id <> '' AND record <= ?1)",
            [i64::try_from(indexed(ends.last)).unwrap_or(i64::MAX)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(Error::sqlite)?;
    let expected = i64::try_from(expected).unwrap_or(i64::MAX);
    match (entries, right) == (expected, expected) {
        true => Ok(()),
        false => Err(Error::tampered(format!(
            "the index of its audit trail is not what it was: {right} of its {entries} entries are of a record and its \
             key, and there are {expected} such records; a search by key does not find them all"
        ))),
    }
}
