//! A keystore's file that is not in its place yet: a backup that is being made, a backup that is being restored.
//!
//! It is an [`AtomicFile`] that SQLite writes by its name, page by page, so that memory has what SQLite caches (2 MiB
//! a connection), whatever the file's length. A failure throws it away, and the commit syncs it: so it has no journal
//! and no write-ahead log beside it, and SQLite need not sync. Nobody else opens it: SQLite takes no locks, which on
//! some systems would collide with the [`AtomicFile`]'s.

use super::root::RootKeys;
use super::thread::{at, harden};
use super::trust::Trust;
use crate::durable::{AtomicFile, folder_of};
use crate::error::{Error, ErrorKind, Result};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use std::ffi::CStr;
use std::fs;
use std::io;

/// Copies the whole keystore, of one moment, while others may use it.
pub(super) fn copy(sql: &Connection, to: &AtomicFile) -> Result<()> {
    let mut copy = open(to)?;
    // All pages in one step, which is one transaction that reads (<https://sqlite.org/c3ref/backup_finish.html>).
    let copied = Backup::new(sql, &mut copy).and_then(|backup| backup.step(ALL_PAGES));
    match copied.map_err(|e| not_copied(e, to))? {
        StepResult::Done => {}
        _ => return Err(Error::sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None))),
    }
    // Looked at by this connection, the copy would ask for a log, as the keystore does.
    copy.close().map_err(|(_, e)| not_copied(e, to))?;
    without_log(to)
}

/// Lets it be a file that has no write-ahead log beside it. Whoever opens it as a keystore gives it one again.
pub(super) fn without_log(draft: &AtomicFile) -> Result<()> {
    draft.write_at(&NO_LOG, FORMAT_VERSIONS)
}

/// Checks every row of it, read anew, under the root key: those of a keystore that is no older than `sequence`.
pub(super) fn check(draft: &AtomicFile, sequence: u64, keys: &RootKeys) -> Result<()> {
    let sql = connect(draft, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Trust::nothing(sequence).check(&sql, keys).map(drop).map_err(|e| at_draft(e, draft))
}

/// Opens it to be written.
pub(super) fn open(draft: &AtomicFile) -> Result<Connection> {
    let sql = connect(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let failed = |e| at_draft(Error::sqlite(e), draft);
    // A defensive connection keeps its journal. From here on a transaction that is undone leaves the connection
    // unusable, and the file is thrown away.
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).map_err(failed)?;
    let mode: String = sql.query_row("PRAGMA journal_mode = OFF", [], |row| row.get(0)).map_err(failed)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
    sql.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    match mode.as_str() {
        "off" => Ok(sql),
        mode => Err(Error::internal(format!("SQLite keeps its journal: {mode}"))),
    }
}

fn connect(draft: &AtomicFile, access: OpenFlags) -> Result<Connection> {
    let path = draft.path();
    // From the root, and without a link but perhaps its last part, which is refused: nobody leads SQLite to another
    // file. And no such path is a URI.
    let folder = fs::canonicalize(folder_of(path))
        .map_err(|e| Error::unchanged("cannot find the folder of this file", draft.target(), e))?;
    let path = folder.join(path.file_name().unwrap_or_default());
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let sql = Connection::open_with_flags_and_vfs(path, flags, WITHOUT_LOCKS).map_err(|e| not_copied(e, draft))?;
    harden(&sql).map_err(|e| at_draft(e, draft))?;
    Ok(sql)
}

/// Names the file where its disk is at fault, and not the keystore that is in it.
pub(super) fn at_draft(error: Error, draft: &AtomicFile) -> Error {
    match error.kind() {
        ErrorKind::Io => at(error, draft.target()),
        _ => error,
    }
}

/// What SQLite could not do with the file. It writes no other.
fn not_copied(error: rusqlite::Error, to: &AtomicFile) -> Error {
    let Some(ffi::Error { code, extended_code }) = error.sqlite_error().copied() else { return Error::sqlite(error) };
    let unchanged = |action, source| Error::unchanged(action, to.target(), source);
    match (code, extended_code) {
        (ErrorCode::DiskFull, _) => unchanged("cannot write", io::ErrorKind::StorageFull.into()),
        (_, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_FSYNC) => {
            unchanged("cannot write", io::Error::other(error)).with_advice(
                "nothing was changed: check the disk, the quota and the limit on file sizes there, then try again",
            )
        }
        (ErrorCode::CannotOpen, _) => unchanged("SQLite cannot open a file beside this one", io::Error::other(error))
            .with_advice("nothing was changed: choose a folder with a shorter path, in which nobody else writes"),
        _ => Error::sqlite(error),
    }
}

const ALL_PAGES: std::ffi::c_int = -1;
/// "File format write version" and "read version" (SQLite's file format, 1.3.3).
const FORMAT_VERSIONS: u64 = 18;
const NO_LOG: [u8; 2] = [1, 1];
/// The name under which SQLite has its way with files on Unix, less the locks (<https://sqlite.org/vfs.html>).
const WITHOUT_LOCKS: &CStr = c"unix-none";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::{OsFileSystem, Overwrite};
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;

    fn draft(folder: &Path) -> AtomicFile {
        AtomicFile::create(Arc::new(OsFileSystem), &folder.join("b.db"), Overwrite::Never).unwrap()
    }

    fn database(path: &Path) -> Connection {
        let sql = Connection::open(path).unwrap();
        sql.execute_batch("CREATE TABLE t (a BLOB); INSERT INTO t VALUES (zeroblob(1 << 20))").unwrap();
        sql
    }

    #[test]
    fn a_link_that_somebody_puts_there_leads_to_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.db");
        drop(database(&other));
        let before = fs::read(&other).unwrap();
        let from = database(&folder.path().join("from.db"));
        let file = draft(folder.path());
        fs::remove_file(file.path()).unwrap();
        symlink(&other, file.path()).unwrap();
        let error = copy(&from, &file).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(file.target())), "{error}");
        assert!(fs::read(&other).unwrap() == before);
    }

    #[test]
    fn a_folder_that_looks_like_a_uri_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("file:x?mode=memory");
        fs::create_dir(&inside).unwrap();
        symlink(&inside, folder.path().join("link")).unwrap();
        let from = database(&folder.path().join("from.db"));
        for to in [inside, folder.path().join("link")] {
            let file = draft(&to);
            copy(&from, &file).unwrap();
            assert!(fs::metadata(file.path()).unwrap().len() > 1 << 20);
        }
    }

    #[test]
    fn no_file_is_beside_it_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let from = database(&folder.path().join("from.db"));
        let mode: String = from.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        let to = folder.path().join("to");
        fs::create_dir(&to).unwrap();
        let file = draft(&to);
        copy(&from, &file).unwrap();
        let names = || fs::read_dir(&to).unwrap().count();
        let sql = open(&file).unwrap();
        // More than SQLite keeps in memory until the commit.
        sql.execute_batch("BEGIN; UPDATE t SET a = zeroblob(8 << 20)").unwrap();
        assert_eq!(names(), 1);
        sql.execute_batch("COMMIT").unwrap();
        drop(sql);
        assert_eq!(names(), 1);
    }
}
