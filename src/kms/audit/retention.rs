//! Retention: the old end of the trail is cut off, and an authenticated checkpoint stays.
//!
//! What is cut is verified first, so that nobody's change of it passes unnoticed with it; the checkpoint is the
//! hash of every row as of then, whose digest, with the last hash that was cut, goes into the head. All of it is
//! one transaction. How many records of each kind were cut stays in `audit_counts`, which decides nothing and is
//! not authenticated.

use super::index;
use super::walk::{bad_checkpoint, checkpoint, replay, walk};
use super::{Trail, keep_checkpoint};
use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::call::{Call, Job, Reply};
use crate::kms::cost::SAVED_PARAMETERS;
use crate::kms::group::Group;
use crate::kms::head::AuditEnds;
use crate::kms::store::millis_of;
use crate::kms::tx::Tx;
use rusqlite::params;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::SystemTime;

/// Which records stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditRetention {
    /// Those from the first one on that was made at this time or later.
    Since(SystemTime),
    /// So many of the newest.
    Newest(u64),
}

/// What a cut did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditTrimmed {
    /// How many records were cut off.
    pub removed: u64,
    /// The sequence of the last record that was ever cut off; 0 if none was.
    pub checkpoint: u64,
}

impl LocalKms {
    /// Cuts off the old end of the audit trail, after verifying it: whole or not at all, with a record of its own,
    /// `TrimAudit`, which stays. Export them first, if they may be asked for later. Freed room in the file is used
    /// again, and the file does not become shorter. A head that was anchored before the cut cannot be verified any
    /// more: anchor a new one.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; [`Storage`](crate::ErrorKind::Storage), naming the first
    /// bad record, and then nothing is cut; the keystore's own failures.
    pub async fn trim_audit(&self, keep: AuditRetention) -> Result<AuditTrimmed> {
        let call = self.asks("TrimAudit");
        let call = match keep {
            AuditRetention::Since(time) => call.with("keepSinceMillis", millis_of(time)),
            AuditRetention::Newest(count) => call.with("keepNewest", count),
        };
        self.ask(|reply| Box::new(Trimming { call, keep, answer: None, reply })).await
    }
}

/// The call, which needs the trail besides the transaction.
struct Trimming {
    call: Call,
    keep: AuditRetention,
    answer: Option<Result<AuditTrimmed>>,
    reply: Reply<AuditTrimmed>,
}

impl Job for Trimming {
    fn run(&mut self, group: &mut Group<'_>) {
        let trail = Trail { ends: group.trail.ends, key: group.trail.key };
        let keep = self.keep;
        let mut ends = trail.ends;
        let answer = group.run(&self.call, |tx| {
            tx.permit_owner("TrimAudit")?;
            ends = trim(tx, &trail, keep)?;
            let trimmed = AuditTrimmed { removed: ends.cut - trail.ends.cut, checkpoint: ends.cut };
            tx.event.set("removedRecords", trimmed.removed);
            tx.event.set("checkpointSequence", trimmed.checkpoint);
            Ok(trimmed)
        });
        if answer.is_ok() {
            let AuditEnds { cut, cut_hash, cut_digest, .. } = ends;
            group.trail.ends = AuditEnds { cut, cut_hash, cut_digest, ..group.trail.ends };
        }
        self.answer = Some(answer);
    }

    fn deliver(self: Box<Self>, failed: Option<&Error>) {
        self.reply.give(self.answer, failed);
    }
}

/// Cuts what is not to be kept, and gives the ends of what is left.
fn trim(tx: &mut Tx<'_>, trail: &Trail<'_>, keep: AuditRetention) -> Result<AuditEnds> {
    let mut ends = trail.ends;
    let most = match keep {
        AuditRetention::Since(_) => ends.last,
        AuditRetention::Newest(count) => ends.last.saturating_sub(count),
    };
    let since = match keep {
        AuditRetention::Since(time) => millis_of(time),
        AuditRetention::Newest(_) => i64::MAX,
    };
    if most <= ends.cut {
        return Ok(ends);
    }
    let sql = tx.changing_trail()?;
    let mut rows = checkpoint(sql)?;
    if rows.digest() != ends.cut_digest {
        return Err(bad_checkpoint());
    }
    let mut counts = BTreeMap::<_, u64>::new();
    let mut add = |name: &str, key_id: &str, code: &str, count| {
        let cell = counts.entry((name.to_owned(), key_id.to_owned(), code.to_owned())).or_default();
        *cell = cell.saturating_add(count);
    };
    walk(sql, &tx.realm.keystore_id, trail, |record, hash| {
        if record.sequence > most || record.at >= since {
            return Ok(ControlFlow::Break(()));
        }
        replay(&mut rows, record.changes)?;
        add(record.name, record.key_id, record.code, 1);
        for (name, saved) in SAVED_PARAMETERS.iter().filter_map(|name| Some((name, record.number(name)?))) {
            add(name, "", "", saved);
        }
        (ends.cut, ends.cut_hash) = (record.sequence, hash);
        Ok(ControlFlow::Continue(()))
    })?;
    if ends.cut == trail.ends.cut {
        return Ok(ends);
    }
    rows.rehash_all()?;
    ends.cut_digest = rows.digest();
    keep_checkpoint(sql, &rows)?;
    let cut = i64::try_from(ends.cut).map_err(|_| Error::internal("the audit trail is full"))?;
    sql.execute("DELETE FROM audit WHERE sequence <= ?1", [cut]).map_err(Error::sqlite)?;
    index::cut(sql, cut)?;
    let mut statement = sql
        .prepare(
            "INSERT INTO audit_counts VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name, key_id, code) DO UPDATE
             SET count = min(count, 9223372036854775807 - excluded.count) + excluded.count",
        )
        .map_err(Error::sqlite)?;
    for ((name, key_id, code), count) in counts {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        statement.execute(params![name, key_id, code, count]).map_err(Error::sqlite)?;
    }
    Ok(ends)
}
