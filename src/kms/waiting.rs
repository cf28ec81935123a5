//! How this process waits for others that change the same keystore, and lets them come next.
//!
//! SQLite keeps no queue for its write lock: who waits looks again, at growing intervals, and may find the
//! lock taken each time by a writer that never rests. So whoever wants to write takes his turn first: a lock
//! on the keystore's folder, which he holds until he has the write lock and no longer. A writer that comes
//! back stands behind whoever took the turn meanwhile. The turn is a courtesy: nothing but the order of
//! writers rests on it, and where it cannot be had, the write lock is waited for without it. Somebody who may
//! only read the folder, and keeps the turn for himself, delays one write by half the patience, and no other;
//! if he gives it back and takes it again, every write that comes upon it in his hands, by half the patience at
//! most. Keystores in one folder share the turn: their writers wait for one another as if it were one keystore.

use crate::durable::folder_of;
use crate::error::{Error, Result};
use rusqlite::{Connection, ErrorCode};
use std::cell::Cell;
use std::fs::{File, TryLockError};
use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an operation waits for others, and where it takes its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The folder and not the keystore: closing any descriptor of that drops SQLite's own locks.
    folder: Option<File>,
    patience: Duration,
    /// Whether the turn was waited for in vain, and not had since.
    hopeless: Cell<bool>,
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a File);

impl Waiting {
    /// For the keystore at `path`. A folder that cannot be opened has no turns.
    pub(super) fn new(path: &Path, patience: Duration) -> Self {
        Self { folder: File::open(folder_of(path)).ok(), patience, hopeless: Cell::new(false) }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Begins a transaction that may write, alone among all writers.
    ///
    /// # Errors
    /// Kind Busy once the patience is at its end.
    pub(super) fn begin<'a>(&self, sql: &'a Connection) -> Result<Begun<'a>> {
        let start = Instant::now();
        let _turn = self.turn(start);
        // Whose turn it is looks often.
        sql.busy_timeout(Duration::ZERO).map_err(Error::sqlite)?;
        let begun = loop {
            match Begun::new(sql, "BEGIN IMMEDIATE") {
                Err(e) if is_busy(&e) && start.elapsed() < self.patience => std::thread::sleep(LOOK),
                begun => break begun,
            }
        };
        sql.busy_timeout(self.patience).map_err(Error::sqlite)?;
        begun.map_err(Error::sqlite)
    }

    /// Brings the write-ahead log into the keystore file, and empties it, so that the file alone is the whole
    /// keystore for whoever copies it without the log. What was committed is durable before and after. A disk
    /// that is full, or a reader or writer in another process, leaves it to the next change or to closing.
    pub(super) fn fold(&self, sql: &Connection) {
        // Waits for nobody; the answer would say how far it came.
        let _ = sql.busy_timeout(Duration::ZERO);
        let _ = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let _ = sql.busy_timeout(self.patience);
    }

    /// As [`fold`](Self::fold), waiting for others that read: what the log still holds is to go.
    pub(super) fn fold_patiently(&self, sql: &Connection) {
        let _ = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Takes the turn for an opening, during which no keystore may be restored at its path.
    pub(super) fn turn_to_open(&self) -> Option<Turn<'_>> {
        self.turn(Instant::now())
    }

    /// Takes the turn to put another file in the keystore's place.
    ///
    /// # Errors
    /// Kind Busy if it cannot be had.
    pub(super) fn turn_to_replace(&self) -> Result<Turn<'_>> {
        self.turn(Instant::now()).ok_or_else(|| Error::busy("somebody else keeps the lock of the keystore's folder"))
    }

    /// Waits for the turn, but not for so long that the write lock could not be waited for any more.
    fn turn(&self, start: Instant) -> Option<Turn<'_>> {
        let folder = self.folder.as_ref()?;
        let most = if self.hopeless.get() { Duration::ZERO } else { self.patience / 2 };
        loop {
            match folder.try_lock() {
                Ok(()) => {
                    self.hopeless.set(false);
                    return Some(Turn(folder));
                }
                Err(TryLockError::WouldBlock) if start.elapsed() < most => std::thread::sleep(LOOK),
                Err(_) => {
                    self.hopeless.set(true);
                    return None;
                }
            }
        }
    }
}

/// A transaction: undone unless it is committed. As rusqlite's, but that SQLite does not parse the same three statements
/// for every call.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    sql: &'a Connection,
}

impl<'a> Begun<'a> {
    fn new(sql: &'a Connection, begin: &str) -> rusqlite::Result<Self> {
        execute(sql, begin).map(|()| Self { sql })
    }

    /// Begins one that only reads, and sees one moment of the file.
    pub(super) fn reading(sql: &'a Connection) -> rusqlite::Result<Self> {
        Self::new(sql, "BEGIN DEFERRED")
    }

    /// What was done is durable once this returns.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        execute(self.sql, "COMMIT")
    }
}

impl Deref for Begun<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.sql
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        // It is over after a commit, and after some failures by itself.
        if !self.sql.is_autocommit() {
            let _ = execute(self.sql, "ROLLBACK");
        }
    }
}

fn execute(sql: &Connection, statement: &str) -> rusqlite::Result<()> {
    sql.prepare_cached(statement)?.execute([]).map(drop)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // In so many words: a forked child may have the same open folder.
        let _ = self.0.unlock();
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Between two looks at a lock.
const LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_somebody_keeps_delays_one_change_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let sql = Connection::open(&path).unwrap();
        let waiting = Waiting::new(&path, Duration::from_millis(400));
        drop(waiting.begin(&sql).unwrap());
        let kept = File::open(folder.path()).unwrap();
        kept.lock().unwrap();
        let start = Instant::now();
        drop(waiting.begin(&sql).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(200) && waiting.hopeless.get());
        let until = Instant::now() + Duration::from_millis(200);
        drop(waiting.begin(&sql).unwrap());
        assert!(waiting.turn(until).is_none() && waiting.hopeless.get());
        kept.unlock().unwrap();
        assert!(waiting.turn(until).is_some() && !waiting.hopeless.get());
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = waiting.begin(&sql).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Busy);
        assert!(waiting.turn(until).is_some(), "given back");
    }
}
