//! Putting a backup in a keystore's place.
//!
//! The backup is copied beside the keystore's place. That copy is checked as a whole under its root key, is given the
//! record of its own restoring, and takes the place of what is there by one rename, after that was made a single file:
//! SQLite would take another file's log for the new one's own.

use super::audit::{self, AuditHead};
use super::call::{Asked, Call, Reply};
use super::check::check_structure;
use super::claim::Claim;
use super::draft::{self, at_draft};
use super::due;
use super::migrate::migrate;
use super::open_list;
use super::root::{RootKey, RootKeys};
use super::schema::{Found, look};
use super::store::{Settings, Store, Watch, millis};
use super::thread::{at, connect};
use super::tx::Tx;
use super::waiting::{Waiting, is_busy};
use super::{LocalKms, OWNER, sealed};
use crate::clock::{Clock, SystemClock};
use crate::durable::{AtomicFile, FileSystem as _, OsFileSystem, Overwrite, folder_of};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::KeyProvider;
use crate::worker;
use rusqlite::Connection;
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How a keystore is restored: see [`LocalKms::restore`].
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    existing: Existing,
    clock: Arc<dyn Clock>,
}

/// What becomes of a keystore that is in the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Keep,
    MoveAside,
}

impl RestoreOptions {
    /// A keystore that is in the place is moved aside, to `<keystore>.replaced-1` and so on. Default: it is kept,
    /// and nothing is restored.
    #[must_use]
    pub fn move_existing_aside(mut self) -> Self {
        self.existing = Existing::MoveAside;
        self
    }

    /// Where the time comes from. Default: the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { existing: Existing::Keep, clock: Arc::new(SystemClock) }
    }
}

/// What restoring a keystore did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Where what was in the place is now; what belongs to it (`-wal`) has the same name and its own ending.
    pub moved_aside: Option<PathBuf>,
    /// Where the audit trail ends now, with the record of this: to be kept instead of heads from after the backup,
    /// which compare no more.
    pub head: AuditHead,
}

impl LocalKms {
    /// Puts a [`backup`](Self::backup), or a copy of a closed keystore's file, in the place of the keystore at `path`,
    /// once all of it was checked under its root key: the one of its day. Killed at any instant, this leaves what was
    /// there or the backup, whole. The keystore's audit trail goes on from the backup's, with a record of this.
    ///
    /// What was made after the backup is not in it. Whoever writes there can put an older copy in a keystore's place;
    /// only an audit head that was kept elsewhere tells.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), envelock::Error> {
    /// use envelock::kms::RestoreOptions;
    /// use envelock::{LocalKms, RootKey};
    /// LocalKms::restore("backup.db", "keys.db", RootKey::file("root.key")?, RestoreOptions::default())?;
    /// let kms = LocalKms::open_existing("keys.db", RootKey::file("root.key")?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if a keystore is there and is not to be moved aside, or the
    /// backup is a keystore in use; [`Busy`](crate::ErrorKind::Busy) if any process has the keystore at `path` open;
    /// [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey), [`Storage`](crate::ErrorKind::Storage) and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) as [`open`](Self::open) has them of the backup;
    /// [`Io`](crate::ErrorKind::Io).
    pub fn restore(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        root: RootKey,
        options: RestoreOptions,
    ) -> Result<Restored> {
        Draft::of(backup.as_ref(), path.as_ref())?.restore(&root, &options)
    }

    /// As [`restore`](Self::restore), of a keystore whose root key `provider` unwraps.
    ///
    /// # Errors
    /// As [`restore`](Self::restore) and [`unseal`](Self::unseal).
    pub async fn restore_sealed(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        provider: impl KeyProvider,
        options: RestoreOptions,
    ) -> Result<Restored> {
        let (backup, path) = (backup.as_ref().to_path_buf(), path.as_ref().to_path_buf());
        let look = move || Draft::of(&backup, &path).and_then(|draft| Ok((draft.claim()?, draft)));
        let (claim, draft) = worker::run("envelock-restore", look).await?;
        let root = sealed::unwrap(&claim, &provider).await.map_err(|e| at(e, &draft.backup))?;
        worker::run("envelock-restore", move || draft.restore(&root, &options)).await
    }
}

/// A copy of a backup beside the keystore's place, of which nothing is trusted yet.
struct Draft {
    backup: PathBuf,
    file: AtomicFile,
    sql: Connection,
    found: Found,
}

impl Draft {
    fn of(backup: &Path, path: &Path) -> Result<Self> {
        let from = open(backup)?;
        let mut file = AtomicFile::create(Arc::new(OsFileSystem), path, Overwrite::Replace)?;
        copy(from, &mut file, backup).map_err(|e| at(e, backup))?;
        let looked_at = draft::open(&file).and_then(|sql| match look(&sql)? {
            Found::Nothing => Err(Error::new(ErrorKind::NoMatchingKey, "the backup holds no keystore")
                .with_advice("find another copy: nothing was changed")),
            found => Ok((sql, found)),
        });
        match looked_at {
            Ok((sql, found)) => Ok(Self { backup: backup.to_path_buf(), file, sql, found }),
            Err(error) => Err(at(at_draft(error, &file), backup)),
        }
    }

    fn claim(&self) -> Result<Claim> {
        Claim::read(&self.sql, self.found).map_err(|e| at(at_draft(e, &self.file), &self.backup))
    }

    fn restore(self, root: &RootKey, options: &RestoreOptions) -> Result<Restored> {
        let keys = check_structure(&self.sql).and_then(|()| root.for_existing(&self.claim()?));
        let keys = keys.map_err(|e| at(at_draft(e, &self.file), &self.backup))?.keys;
        let Self { backup, file, sql, found } = self;
        let head = check_and_say((sql, found), keys, &file, &backup, options);
        let head = head.map_err(|e| at(at_draft(e, &file), &backup))?;
        let path = file.target().to_path_buf();
        let moved_aside = put_in_place(file, options.existing).map_err(|e| at(e, &path))?;
        Ok(Restored { moved_aside, head })
    }
}

/// Opens the file at `backup`, which must be all that there is of it.
fn open(backup: &Path) -> Result<File> {
    let failed = |e: io::Error| Error::unchanged("the backup cannot be read", backup, e);
    let metadata = fs::metadata(backup).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::invalid_input("the backup is no regular file").with_path(backup));
    }
    let log = with_ending(backup, "-wal");
    // Closing a descriptor of a keystore that is open here would drop SQLite's locks on it (POSIX).
    if open_list::is_open(backup)? || fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(Error::invalid_input("this is no backup, but a keystore in use, or a copy of one with its log")
            .with_path(backup)
            .with_advice("make a backup of it: `LocalKms::backup`"));
    }
    File::open(backup).map_err(failed)
}

/// Copies the backup as a file that has no log beside it.
fn copy(mut from: File, to: &mut AtomicFile, backup: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::unchanged("the backup cannot be read", backup, e);
    // And what `draft::without_log` changes.
    let mut header = [0; SQLITE_HEADER.len() + 4];
    from.read_exact(&mut header).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::not_a_keystore(),
        _ => failed(e),
    })?;
    if !header.starts_with(SQLITE_HEADER) {
        return Err(Error::not_a_keystore());
    }
    to.write_all(&header)?;
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return draft::without_log(to),
            Ok(len) => to.write_all(piece.get(..len).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// Checks the whole of it, brings it to this version's schema, and writes the record of this.
fn check_and_say(
    (sql, found): (Connection, Found),
    keys: RootKeys,
    file: &AtomicFile,
    backup: &Path,
    options: &RestoreOptions,
) -> Result<AuditHead> {
    let waiting = Waiting::new(file.target(), PATIENCE);
    if let Found::Older(_) = found {
        migrate(&sql, &keys, &waiting, millis(options.clock.wall()))?;
    }
    // It decides nothing, and need not have been whole.
    audit::make_index(&sql)?;
    let settings = Settings { waiting, clock: options.clock.clone(), watch: Watch::default(), buffer: None };
    let mut store = Store::open(sql, keys, settings)?;
    store.check()?;
    store.hold_due();
    let call = Call::new("RestoreKeystore", &Arc::from(OWNER)).with("backup", backup.display().to_string());
    let (reply, answer) = mpsc::sync_channel(1);
    store.run(vec![Box::new(Asked::new(call, |tx: &mut Tx<'_>| due::postpone(tx), Reply::Blocking(reply)))], None);
    answer.recv().map_err(|_| Error::internal("the record of restoring got no answer"))??;
    let head = store.read_trail(|tx, trail| Ok(AuditHead::of(tx, trail)))?;
    store.check_draft(file)?;
    Ok(head)
}

/// What is in the keystore's place, held so that nobody opens it.
#[expect(dead_code, reason = "the locks are held until this is dropped")]
enum Old {
    Nothing,
    /// A keystore, or another program's database: SQLite has made it one file, and has its lock.
    Whole(Connection),
    /// It is damaged, and locked past SQLite.
    Damaged(File),
    /// No table is in it, which SQLite cannot lock without writing: locked likewise.
    Empty(File),
}

fn put_in_place(mut file: AtomicFile, existing: Existing) -> Result<Option<PathBuf>> {
    let path = file.target().to_path_buf();
    let waiting = Waiting::new(&path, PATIENCE);
    let _turn = waiting.turn_to_replace()?;
    let old = Old::hold(&path)?;
    let worth_keeping = matches!(old, Old::Whole(_) | Old::Damaged(_));
    if worth_keeping && existing == Existing::Keep {
        return Err(Error::new(ErrorKind::InvalidInput, "there is a keystore already, and it was kept")
            .with_source(io::Error::from(io::ErrorKind::AlreadyExists))
            .with_path(path)
            .with_advice("to restore in its place, ask for it to be moved aside"));
    }
    if let Old::Nothing = old {
        file.refuse_existing();
    }
    let moved_aside = move_aside(&path, worth_keeping)?;
    drop(file.commit()?);
    // Only now may others open what is in the place.
    drop(old);
    Ok(moved_aside)
}

impl Old {
    fn hold(path: &Path) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(e) => return Err(Error::io_at("cannot look at", path, e)),
            Ok(_) => {}
        }
        let in_use = || {
            Error::new(ErrorKind::Busy, "a process has the keystore open")
                .with_path(path)
                .with_advice("nothing was changed: close it everywhere, then try again")
        };
        if open_list::is_open(path)? {
            return Err(in_use());
        }
        let start = Instant::now();
        let lock_it: fn(File) -> Self = loop {
            match fold(path) {
                Ok(Some(sql)) => return Ok(Self::Whole(sql)),
                Ok(None) => break Self::Empty,
                // One that is being closed.
                Err(e) if is_busy(&e) && start.elapsed() < PATIENCE / 10 => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) if is_busy(&e) => return Err(in_use()),
                Err(_) => break Self::Damaged,
            }
        };
        // SQLite's locks are of this kind (fcntl), and no connection of this process is left to lose them.
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| Error::unchanged("cannot open", path, e))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock_it(file)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Err(in_use()),
            Err(e) => Err(Error::io_at("cannot lock this file", path, e.into())),
        }
    }
}

/// Brings the log into the file, so that it is alone, and keeps everybody from it; `None` if no table is in it.
/// Each process that has a keystore open keeps SQLite from leaving the mode with a log.
fn fold(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let sql = connect(path, Duration::ZERO).map_err(|_| rusqlite::Error::QueryReturnedNoRows)?;
    let mode: String = sql.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None));
    }
    if matches!(look(&sql), Ok(Found::Nothing)) {
        return Ok(None);
    }
    sql.execute_batch("BEGIN EXCLUSIVE")?;
    Ok(Some(sql))
}

/// Gives what is at `path` a second name, if it is worth it, and moves logs away that are no part of what will be
/// there. The file itself stays until another takes its place.
fn move_aside(path: &Path, worth_keeping: bool) -> Result<Option<PathBuf>> {
    let logs: Vec<_> = ["-wal", "-journal"].into_iter().filter(|it| with_ending(path, it).exists()).collect();
    let _ = fs::remove_file(with_ending(path, "-shm"));
    if !worth_keeping && logs.is_empty() {
        return Ok(None);
    }
    let failed = |e| Error::unchanged("cannot move aside what is in this place", path, e);
    for number in 1..=ASIDE_MAX {
        let aside = with_ending(path, &format!(".replaced-{number}"));
        if ["", "-wal", "-journal"].iter().any(|it| with_ending(&aside, it).symlink_metadata().is_ok()) {
            continue;
        }
        if worth_keeping {
            match fs::hard_link(path, &aside) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                linked => linked.map_err(failed)?,
            }
        }
        for log in logs {
            OsFileSystem.rename_new(&with_ending(path, log), &with_ending(&aside, log)).map_err(failed)?;
        }
        OsFileSystem.sync_folder(folder_of(path)).map_err(failed)?;
        return Ok(Some(aside));
    }
    Err(Error::limit(format!("{ASIDE_MAX} keystores were moved aside here already"))
        .with_path(path)
        .with_advice("nothing was changed: move some of them to another folder"))
}

/// `path` and more of a name.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// What every file of SQLite's begins with (its file format, 1.3.1).
const SQLITE_HEADER: &[u8; 16] = b"SQLite format 3\0";
/// How much of a backup is read at a time.
const PIECE: usize = 1 << 18;
/// How long restoring waits for the folder's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keystores that may have been moved aside in one folder.
const ASIDE_MAX: u32 = 1_000;
