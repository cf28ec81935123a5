//! Verification of the whole trail.

use super::Trail;
use super::anchor::AuditHead;
use super::index::{self, Entries};
use super::walk::{bad_checkpoint, checkpoint, difference, replay, walk};
use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::authorise::check_owner;
use crate::kms::rows::Rows;
use crate::kms::schema::TABLES;
use crate::kms::trust::read_all;
use crate::kms::tx::Tx;
use std::ops::ControlFlow;

/// What an audit trail holds that was found whole and authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditReport {
    /// How many records there are.
    pub records: u64,
    /// The sequence of the first one.
    pub first: u64,
    /// The sequence of the last one.
    pub last: u64,
    /// The last record that was cut off by [`LocalKms::trim_audit`]; 0 if none was.
    pub checkpoint: u64,
    /// How many rows there are that decide something: keys, versions, aliases, policies, grants. Each is the one
    /// that the trail tells of.
    pub rows: usize,
    /// Where the trail ends: what to anchor.
    pub head: AuditHead,
}

impl LocalKms {
    /// Verifies the audit trail from its checkpoint to its end, and that the keystore's rows are exactly what it
    /// tells: that no record was removed (at the end either), moved, changed or added.
    ///
    /// With `anchored`, a head that was kept elsewhere, also that the trail has that record: only so is an older
    /// whole file found that was put back. A million records take some seconds, in which other calls of this
    /// handle wait. No call on the KMS: it leaves no record, and needs no room on the disk.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage), naming the first bad record, or the rows that are not what the trail
    /// tells; also if the file is older than the head, or went another way since.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the head is another keystore's, or of a record that was cut
    /// off, so that it cannot be compared. AccessDeniedException unless this is the owner's handle. The keystore's own
    /// failures.
    pub async fn verify_audit(&self, anchored: Option<&AuditHead>) -> Result<AuditReport> {
        check_owner(self.principal(), "VerifyAudit")?;
        let anchored = anchored.copied();
        self.look(move |store| store.read_trail(|tx, trail| verify(tx, trail, anchored.as_ref()))).await
    }
}

/// As [`LocalKms::verify_audit`].
pub(in crate::kms) fn verify(tx: &Tx<'_>, trail: &Trail<'_>, anchored: Option<&AuditHead>) -> Result<AuditReport> {
    let ends = trail.ends;
    if anchored.is_some_and(|head| head.keystore_id != tx.realm.keystore_id) {
        return Err(Error::invalid_input("the head is of another keystore")
            .with_advice("compare the keystore id of the head with that of this keystore: the file may be another's"));
    }
    let mut rows = checkpoint(tx.sql)?;
    if rows.digest() != ends.cut_digest {
        return Err(bad_checkpoint());
    }
    // The record of the last restoring that can be why the trail is not the one of the head.
    let mut restoring = None;
    if let Some(head) = anchored.filter(|head| head.sequence == ends.cut) {
        compare(head, &ends.cut_hash, &rows, restoring)?;
    }
    // A record that carries a head, and is not the last.
    let mut misplaced = None;
    let (indexed, mut entries) = (index::indexed(ends.last), Entries::default());
    walk(tx.sql, &tx.realm.keystore_id, trail, |record, hash| {
        replay(&mut rows, record.changes)?;
        if record.has_head && record.sequence != ends.last {
            misplaced.get_or_insert(record.sequence);
        }
        if !record.key_id.is_empty() && record.sequence <= indexed {
            entries.add(record.key_id.as_bytes(), i64::try_from(record.sequence).unwrap_or(i64::MAX));
        }
        if record.name == RESTORE && record.code.is_empty() {
            restoring = Some(record.sequence);
        }
        if let Some(head) = anchored.filter(|head| head.sequence == record.sequence) {
            rows.rehash_all()?;
            compare(head, &hash, &rows, restoring)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(sequence) = misplaced {
        return Err(Error::tampered(format!("the audit record {sequence} carries a head and is not the last")));
    }
    rows.rehash_all()?;
    // All rows are read again: what this process knows of them is from when it last read them.
    if let Some(error) = difference(&rows, &read_all(tx.sql, tx.keys, &TABLES)?.0) {
        return Err(error);
    }
    if rows.digest() != tx.trust.rows.digest() {
        return Err(Error::tampered("its audit trail does not come to the state in its head"));
    }
    match anchored {
        Some(head) if head.sequence > ends.last => {
            let what =
                format!("it ends with the audit record {}, and the head is of record {}", ends.last, head.sequence);
            Err(match restoring {
                Some(restoring) => Error::restored_since(what, restoring),
                None => Error::tampered(format!("it is an older file that was put back: {what}")),
            })
        }
        Some(head) if head.sequence < ends.cut => Err(Error::invalid_input(format!(
            "the head is of the audit record {}, and those up to {} were cut off: it cannot be compared with anything",
            head.sequence, ends.cut
        ))
        .with_advice("give a head that was anchored later; without one, an older whole file put back is not found")),
        _ => {
            entries.check(tx.sql)?;
            Ok(AuditReport {
                records: ends.last - ends.cut,
                first: ends.cut + 1,
                last: ends.last,
                checkpoint: ends.cut,
                rows: rows.iter().count(),
                head: AuditHead::of(tx, trail),
            })
        }
    }
}

/// What the trail has at the head's sequence, and the head.
fn compare(head: &AuditHead, hash: &[u8; 32], rows: &Rows, restoring: Option<u64>) -> Result<()> {
    if head.hash == *hash && head.digest == rows.digest() {
        return Ok(());
    }
    let what = format!("the audit record {} is not the one that was anchored", head.sequence);
    Err(match restoring {
        Some(restoring) => Error::restored_since(what, restoring),
        None => Error::tampered(format!("{what}: an older file was put back, and written on since")),
    })
}

/// Restoring's name in the trail.
const RESTORE: &str = "RestoreKeystore";
