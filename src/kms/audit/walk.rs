//! The trail from its checkpoint to its end, and the deciding rows as it tells them.

use super::stored::{COLUMNS, Stored};
use super::{Trail, changes};
use crate::error::{Error, Result};
use crate::kms::rows::{RowName, Rows};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// Goes through the trail, oldest record first, and gives each record that is the one that was written there,
/// with its hash. Stops when told to, else at the end, which must be the head's.
///
/// # Errors
/// Kind Storage, naming the first record that is missing, was changed, moved or added.
pub(in crate::kms) fn walk(
    sql: &Connection,
    keystore_id: &[u8; 16],
    trail: &Trail<'_>,
    mut each: impl FnMut(&Stored<'_>, [u8; 32]) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let ends = trail.ends;
    let mut statement =
        sql.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY sequence")).map_err(Error::sqlite)?;
    let mut found = statement.query([]).map_err(Error::sqlite)?;
    let (mut last, mut hash, mut space) = (ends.cut, ends.cut_hash, Vec::new());
    while let Some(row) = found.next().map_err(Error::sqlite)? {
        let record = Stored::read(row)?;
        let (sequence, expected) = (record.sequence, last + 1);
        match sequence.cmp(&expected) {
            Ordering::Less if sequence <= ends.cut => {
                return Err(Error::tampered(format!(
                    "the audit record {sequence} was added: the trail begins after {}",
                    ends.cut
                )));
            }
            Ordering::Less => return Err(Error::tampered(format!("the audit record {sequence} is there twice"))),
            _ if expected > ends.last => {
                return Err(Error::tampered(format!(
                    "the audit record {sequence} was added: the trail ends with {}",
                    ends.last
                )));
            }
            Ordering::Greater => return Err(missing(expected)),
            Ordering::Equal => {}
        }
        let next = record.authenticate(trail.key, keystore_id, &mut space)?;
        let follows = record.previous == hash && (sequence != ends.last || next == ends.hash);
        if !follows {
            return Err(Error::tampered(format!(
                "the audit record {sequence} is of another trail: it is not what followed record {last} here"
            )));
        }
        (last, hash) = (sequence, next);
        if each(&record, hash)?.is_break() {
            return Ok(());
        }
    }
    match last == ends.last {
        true => Ok(()),
        false => Err(missing(last + 1)),
    }
}

fn missing(sequence: u64) -> Error {
    Error::tampered(format!("the audit record {sequence} was removed"))
}

/// The hashes of all rows as of the checkpoint. Their digest is the one in the head, or they are not to be
/// believed.
pub(in crate::kms) fn checkpoint(sql: &Connection) -> Result<Rows> {
    let mut rows = Rows::new();
    let mut statement = sql.prepare("SELECT row_name, row_hash FROM audit_checkpoint").map_err(Error::sqlite)?;
    let mut found = statement.query([]).map_err(Error::sqlite)?;
    while let Some(row) = found.next().map_err(Error::sqlite)? {
        let (ValueRef::Text(name), ValueRef::Blob(hash)) =
            (row.get_ref(0).map_err(Error::sqlite)?, row.get_ref(1).map_err(Error::sqlite)?)
        else {
            return Err(bad_checkpoint());
        };
        let (Ok(name), Ok(hash)) = (std::str::from_utf8(name), hash.try_into()) else { return Err(bad_checkpoint()) };
        if rows.set_unhashed(RowName::read(name), Some(hash)).is_some() {
            return Err(bad_checkpoint());
        }
    }
    rows.rehash_all()?;
    Ok(rows)
}

pub(in crate::kms) fn bad_checkpoint() -> Error {
    Error::tampered("the checkpoint of its audit trail was changed")
}

/// Takes over what a record says that its call changed; [`Rows::rehash_all`] must follow.
pub(in crate::kms) fn replay(rows: &mut Rows, changes: &[u8]) -> Result<()> {
    for change in changes::read(changes) {
        let (name, hash) = change?;
        rows.set_unhashed(name, hash);
    }
    Ok(())
}

/// Names the rows that are not as the trail tells, when the digest over all of them is not the head's.
///
/// Nothing of the trail is checked here, nor need it be: what it tells is believed only if it comes to the
/// digest in the head.
pub(in crate::kms) fn blame(sql: &Connection, found: &Rows, digest: &[u8; 32]) -> Error {
    let told = || -> Result<Rows> {
        let mut rows = checkpoint(sql)?;
        let query = "SELECT changes FROM audit WHERE length(changes) > 0 ORDER BY sequence";
        let mut statement = sql.prepare(query).map_err(Error::sqlite)?;
        let mut records = statement.query([]).map_err(Error::sqlite)?;
        while let Some(record) = records.next().map_err(Error::sqlite)? {
            if let ValueRef::Blob(changes) = record.get_ref(0).map_err(Error::sqlite)? {
                replay(&mut rows, changes)?;
            }
        }
        rows.rehash_all()?;
        Ok(rows)
    };
    let unknown = || {
        Error::tampered(
            "a row was removed, or replaced by an older one, and the audit trail, which would tell which, was changed too",
        )
    };
    match told() {
        Ok(told) if told.digest() == *digest => difference(&told, found).unwrap_or_else(unknown),
        _ => unknown(),
    }
}

/// What tells the rows that were found from those that should be there.
pub(in crate::kms) fn difference(told: &Rows, found: &Rows) -> Option<Error> {
    let of_told = told.iter().filter_map(|(name, hash)| match found.hash_of(name) {
        None => Some((name, "was removed")),
        Some(other) if other != hash => Some((name, "was replaced by an older one")),
        Some(_) => None,
    });
    let of_found = found.iter().filter(|(name, _)| told.hash_of(name).is_none());
    let mut wrong: Vec<_> =
        of_told.chain(of_found.map(|(name, _)| (name, "was put back after it was removed"))).collect();
    wrong.sort();
    let more = wrong.len().saturating_sub(NAMED_MAX);
    let named: Vec<_> =
        wrong.iter().take(NAMED_MAX).map(|(name, what)| format!("the row {:?} {what}", name.as_str())).collect();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(Error::tampered(named.join("; "))),
        (false, more) => Some(Error::tampered(format!("{}; and {more} more", named.join("; ")))),
    }
}

/// Rows that one error names.
const NAMED_MAX: usize = 10;
