//! The thread of a keystore, and how its file is opened.
//!
//! It is named `envelock-kms`, starts with [`LocalKms::open`](super::LocalKms::open), and ends when the
//! last handle is dropped or the keystore is closed. It takes all calls that have come, and those that come until it
//! commits, and runs them in one transaction; answers go back over one-shot channels, so that nothing in an
//! async caller waits on SQLite, and a caller that no longer waits disturbs nobody. What callers do without it is
//! said where they [stand in line](super::desk).

use super::buffer::Buffer;
use super::call::Call;
use super::claim::Claim;
use super::desk::{Desk, Work};
use super::migrate::migrate;
use super::open_list::{Registered, forked_with_open_keystores};
use super::root::{RootKey, RootKeys, Unlocked};
use super::root_file::{self, RootKeyFile};
use super::schema::{self, APPLICATION_ID, Found, SCHEMA_VERSION, look};
use super::store::{Settings, Store, Watch, millis};
use super::waiting::{Waiting, is_busy};
use super::{KmsOptions, Missing, OWNER, Opened};
use crate::error::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// What the handles of a keystore share of its thread.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) desk: Arc<Desk>,
    /// In a mutex since it is shared, and never locked.
    closed: Mutex<mpsc::Receiver<()>>,
}

impl Handle {
    /// Lets the thread end, and waits until the file is closed; not for ever, since a call that is still
    /// under way may wait for another process.
    pub(super) fn close(self) {
        self.desk.leave();
        // Nothing is ever sent: the other end goes with the thread.
        let closed = self.closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = closed.recv_timeout(CLOSE_WAIT);
    }
}

/// Starts the thread, and waits until the keystore is open or is known not to open.
pub(super) fn start(path: PathBuf, root: RootKey, options: KmsOptions, watch: Watch) -> Result<(Handle, Opened)> {
    let desk = Arc::new(Desk::default());
    let (closing, closed) = mpsc::channel();
    let (reply, answer) = mpsc::sync_channel(1);
    let thread = Arc::clone(&desk);
    std::thread::Builder::new()
        .name("envelock-kms".to_owned())
        .spawn(move || match open(&path, &root, &options, watch).map_err(|e| at(e, &path)) {
            Err(error) => drop(reply.send(Err(error))),
            Ok((store, registered, opened)) => {
                // The source may hold a passphrase, which is needed no more.
                drop(root);
                thread.open(store, registered);
                match reply.send(Ok(opened)) {
                    Ok(()) => serve(&thread),
                    Err(_) => drop(thread.close()),
                }
                // By now the file is closed: whoever dropped the last handle waits for this.
                drop(closing);
            }
        })
        .map_err(|e| Error::io("the keystore's thread cannot be started", e))?;
    let opened = match forked_with_open_keystores()? {
        false => answer.recv().map_err(|_| Error::internal("the keystore's thread ended while opening"))?,
        true => answer.recv_timeout(CHILD_WAIT).map_err(|_| Error::forked())?,
    };
    Ok((Handle { desk, closed: Mutex::new(closed) }, opened?))
}

/// Works until the keystore is closed, no handle is left, or a panic has ended it.
fn serve(desk: &Desk) {
    let mut closed = None;
    loop {
        match desk.next() {
            Work::Jobs(jobs) => desk.run_all(jobs),
            Work::Look(look) => desk.work(look),
            Work::Tick => desk.work(Store::tick),
            Work::Close(reply) => {
                closed = Some(reply);
                break;
            }
            Work::End => break,
        }
    }
    let flushed = desk.close();
    if let Some(reply) = closed {
        let _ = reply.send(flushed);
    }
}

fn open(path: &Path, root: &RootKey, options: &KmsOptions, watch: Watch) -> Result<(Store, Registered, Opened)> {
    let Opening { registered, waiting, sql, found } = Opening::of(path, options, root.existing_file())?;
    let mut made = (false, RootKeyFile::NotMade);
    if found == Found::Nothing {
        if options.missing == Missing::Refuse {
            return Err(Error::empty_keystore(path));
        }
        made = create(&sql, root, &waiting, options, || registered.check(path))?;
        use_wal(&sql, waiting.patience())?;
    }
    let found = look(&sql)?;
    let Unlocked { keys, unfinished } = unlock(&sql, root, found)?;
    if let Found::Older(_) = found {
        migrate(&sql, &keys, &waiting, millis(options.clock.wall()))?;
    }
    let buffer = options.audit_delay.map(Buffer::new);
    let mut store = Store::open(sql, keys, Settings { waiting, clock: options.clock.clone(), watch, buffer })?;
    if let Some(path) = unfinished {
        // What stands in the way of the move does not stand in the way of opening: the next one tries again.
        let _ = store.alone(|keys| root_file::finish(&path, keys));
    }
    let realm = store.realm().clone();
    if let Some(region) = &options.region
        && *region != realm.region
    {
        return Err(Error::invalid_input(format!("the keystore's Region is {}, not {region}", realm.region))
            .with_advice("open it without a Region, or with its own"));
    }
    Ok((store, registered, Opened { realm, made_keystore: made.0, made_root_key_file: made.1 == RootKeyFile::Made }))
}

/// A keystore file that is open, and of which nothing is known yet.
pub(super) struct Opening {
    registered: Registered,
    pub(super) waiting: Waiting,
    pub(super) sql: Connection,
    pub(super) found: Found,
}

impl Opening {
    /// Opens the file at `path`, or makes an empty one if `options` say so. The root key's file, where there is
    /// one, must have been looked for before: a first use makes the keystore's file before that of the root key.
    pub(super) fn of(path: &Path, options: &KmsOptions, root_file: Option<PathBuf>) -> Result<Self> {
        let there = path.symlink_metadata().is_ok();
        let registered = match (options.missing, root_file) {
            (Missing::Make, Some(file)) if !there => return Err(Error::lost_keystore(path, &file)),
            (Missing::Make | Missing::MakeAnew, _) => Registered::new(path)?,
            (Missing::Refuse, _) => Registered::existing(path)?,
        };
        let waiting = Waiting::new(path, options.busy_timeout);
        // While the turn is ours, nobody puts another file there. Afterwards the connection holds SQLite's lock on
        // this one, which keeps others from it, but for a file that holds nothing.
        let (sql, found) = {
            let _turn = waiting.turn_to_open();
            let (sql, found) = connect_and_look(path, waiting.patience())?;
            registered.check(path)?;
            if found != Found::Nothing {
                use_wal(&sql, waiting.patience())?;
                look(&sql)?;
                registered.check(path)?;
            }
            (sql, found)
        };
        Ok(Self { registered, waiting, sql, found })
    }
}

/// The root key of the keystore, also where another takes its place just now.
fn unlock(sql: &Connection, root: &RootKey, found: Found) -> Result<Unlocked> {
    let mut claim = Claim::read(sql, found)?;
    loop {
        let unlocked = root.for_existing(&claim);
        match unlocked {
            Err(error) => {
                let now = Claim::read(sql, found)?;
                if now == claim {
                    return Err(error);
                }
                claim = now;
            }
            unlocked => return unlocked,
        }
    }
}

/// Makes the keystore in one transaction, after its root key is durable; or finds that another
/// process has just done so. What a killed creation leaves is a file without tables, and perhaps a
/// root key, which the next creation takes.
fn create(
    sql: &Connection,
    root: &RootKey,
    waiting: &Waiting,
    options: &KmsOptions,
    check: impl FnOnce() -> Result<()>,
) -> Result<(bool, RootKeyFile)> {
    let (material, kind, root_key_file) = root.for_new()?;
    let keys = RootKeys::derive(&material)?;
    use_wal(sql, waiting.patience())?;
    let tx = waiting.begin(sql)?;
    if look(&tx)? != Found::Nothing {
        return Ok((false, root_key_file));
    }
    schema::create(&tx)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(Error::sqlite)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(Error::sqlite)?;
    let region = options.region.as_deref().unwrap_or(DEFAULT_REGION);
    let now = millis(options.clock.wall());
    let call = Call::new("CreateKeystore", &Arc::from(OWNER)).with("region", region);
    Store::initialise(&tx, &keys, keys.meta(region, now, kind), (0, now), &call, |_| Ok(()))?;
    check()?;
    tx.commit().map_err(Error::sqlite)?;
    waiting.fold(sql);
    Ok((true, root_key_file))
}

/// A connection, and what it finds.
///
/// SQLite makes a file beside the keystore for what processes share of the log's index (`-shm`), and cannot on a
/// full disk, where the trail must be readable still. If nobody else has the keystore open, that index can be in
/// this process's memory instead (<https://sqlite.org/wal.html>, "Use of WAL Without Shared-Memory"): then others
/// find the keystore busy until this process closes it.
fn connect_and_look(path: &Path, busy_timeout: Duration) -> Result<(Connection, Found)> {
    let open = |index, busy_timeout| -> Result<(Connection, Found)> {
        let sql = connect_with(path, index, busy_timeout)?;
        let found = look(&sql)?;
        Ok((sql, found))
    };
    let error = match open(LogIndex::Shared, busy_timeout) {
        Err(error) if lacks_shared_index(&error) => error,
        opened => return opened,
    };
    // Where that fails too, somebody else has it open, or it is something else that is wrong.
    let (sql, found) = open(LogIndex::Own, Duration::ZERO).map_err(|_| error)?;
    sql.busy_timeout(busy_timeout).map_err(Error::sqlite)?;
    Ok((sql, found))
}

/// Where the index of the write-ahead log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogIndex {
    /// In a file that all processes share.
    Shared,
    /// In this process, which has the keystore to itself.
    Own,
}

/// Whether there is no room for the file of the log's index.
fn lacks_shared_index(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<rusqlite::Error>());
    let code = source.and_then(rusqlite::Error::sqlite_error).map(|error| error.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP | ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_FULL)
    )
}

/// As [`connect_with`], with the index that all share.
pub(super) fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection> {
    connect_with(path, LogIndex::Shared, busy_timeout)
}

/// A connection that trusts nothing in the file's schema and leaves nothing behind in free pages.
fn connect_with(path: &Path, index: LogIndex, busy_timeout: Duration) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags).map_err(Error::sqlite)?;
    // SQLite takes a file that may only be read for a read-only database, and makes the files beside it
    // with the same mode: they would be in the way once the file may be written again.
    if sql.is_readonly("main").map_err(Error::sqlite)? {
        return Err(Error::read_only_keystore());
    }
    sql.busy_timeout(busy_timeout).map_err(Error::sqlite)?;
    if index == LogIndex::Own {
        // Before anything is read, which what follows does.
        sql.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(Error::sqlite)?;
    }
    sql.set_prepared_statement_cache_capacity(STATEMENTS);
    harden(&sql)?;
    Ok(sql)
}

/// Trust in nothing that the file's schema brings, and nothing left behind in free pages.
pub(super) fn harden(sql: &Connection) -> Result<()> {
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        sql.set_db_config(config, value).map_err(Error::sqlite)?;
    }
    sql.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
         PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON;",
    )
    .map_err(Error::sqlite)
}

/// Statements that are kept: those of a day's mix of operations.
const STATEMENTS: usize = 64;

/// SQLite does not wait by itself where it changes the journal mode.
fn use_wal(sql: &Connection, busy_timeout: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        match sql.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {
                return Err(Error::unsupported("the keystore's file system does not support SQLite's write-ahead log")
                    .with_advice("put the keystore on a local disk"));
            }
            Err(e) if is_busy(&e) && start.elapsed() < busy_timeout => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(Error::sqlite(e)),
        }
    }
}

/// Names the keystore in an error that names no file yet.
pub(super) fn at(error: Error, path: &Path) -> Error {
    match error.path() {
        Some(_) => error,
        None => error.with_path(path),
    }
}

/// As [`at`], for an operation: only what failed because of the file names the file, and what another copy
/// of the file may have.
pub(super) fn at_file(error: Error, path: &Path) -> Error {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Storage | ErrorKind::Busy | ErrorKind::KeyState => at(error, path),
        _ => error,
    }
}

/// How long dropping the last handle waits for the file to be closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long an opening may take in a forked child whose parent had some other keystore open.
const CHILD_WAIT: Duration = Duration::from_secs(15);
/// The Region of a keystore that is made without a word about it.
const DEFAULT_REGION: &str = "local";
