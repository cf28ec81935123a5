//! Putting a backup in a keystore's place.
//!
//! The backup is read into memory, checked there as a whole under its root key, and given the record of its own
//! restoring; what was checked is what is written. It takes the place of what is there by one rename, after that
//! was made a single file: SQLite would take another file's log for the new one's own.

use super::audit::{self, AuditHead};
use super::call::{Asked, Call, Reply};
use super::check::check_structure;
use super::claim::Claim;
use super::due;
use super::migrate::migrate;
use super::open_list;
use super::root::RootKey;
use super::schema::{Found, look};
use super::store::{Settings, Store, Watch, millis};
use super::thread::{at, connect, harden};
use super::tx::Tx;
use super::waiting::{Waiting, is_busy};
use super::{LocalKms, OWNER, sealed};
use crate::clock::{Clock, SystemClock};
use crate::durable::{AtomicFile, FileSystem as _, OsFileSystem, Overwrite, folder_of, resolve};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::KeyProvider;
use crate::worker;
use rusqlite::{Connection, MAIN_DB};
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
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 16 GiB; [`Io`](crate::ErrorKind::Io).
    pub fn restore(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        root: RootKey,
        options: RestoreOptions,
    ) -> Result<Restored> {
        let (backup, path) = (backup.as_ref(), path.as_ref());
        let (image, head) = checked_image(read(backup)?, backup, path, &root, &options).map_err(|e| at(e, backup))?;
        let moved_aside = put_in_place(&image, path, options.existing).map_err(|e| at(e, path))?;
        Ok(Restored { moved_aside, head })
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
        let claim = {
            let backup = backup.clone();
            let claim = move || Copy::of(read(&backup)?).and_then(|copy| copy.claim()).map_err(|e| at(e, &backup));
            worker::run("envelock-restore", claim).await?
        };
        let root = sealed::unwrap(&claim, &provider).await.map_err(|e| at(e, &backup))?;
        worker::run("envelock-restore", move || Self::restore(backup, path, root, options)).await
    }
}

/// The bytes of the file at `backup`, which must be all that there is of it.
fn read(backup: &Path) -> Result<Vec<u8>> {
    let failed = |e: io::Error| Error::unchanged("the backup cannot be read", backup, e);
    let metadata = fs::metadata(backup).map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::invalid_input("the backup is no regular file").with_path(backup));
    }
    if metadata.len() > BACKUP_MAX {
        return Err(Error::limit(format!("the backup has {} bytes; {BACKUP_MAX} is the most", metadata.len()))
            .with_path(backup));
    }
    let log = with_ending(backup, "-wal");
    // Closing a descriptor of a keystore that is open here would drop SQLite's locks on it (POSIX).
    if open_list::is_open(backup)? || fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(Error::invalid_input("this is no backup, but a keystore in use, or a copy of one with its log")
            .with_path(backup)
            .with_advice("make a backup of it: `LocalKms::backup`"));
    }
    let mut bytes = Vec::new();
    File::open(backup).and_then(|file| file.take(BACKUP_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// A backup in memory, of which nothing is trusted yet.
struct Copy {
    sql: Connection,
    found: Found,
}

impl Copy {
    fn of(mut bytes: Vec<u8>) -> Result<Self> {
        if !bytes.starts_with(b"SQLite format 3\0") {
            return Err(Error::not_a_keystore());
        }
        // Versions 1: a file that has no write-ahead log, as memory has none (`Store::image`).
        bytes.get_mut(18..20).ok_or_else(Error::not_a_keystore)?.fill(1);
        let mut sql = Connection::open_in_memory().map_err(Error::sqlite)?;
        harden(&sql)?;
        sql.deserialize_read_exact(MAIN_DB, bytes.as_slice(), bytes.len(), false).map_err(Error::sqlite)?;
        match look(&sql)? {
            Found::Nothing => Err(Error::new(ErrorKind::NoMatchingKey, "the backup holds no keystore")
                .with_advice("find another copy: nothing was changed")),
            found => Ok(Self { sql, found }),
        }
    }

    fn claim(&self) -> Result<Claim> {
        Claim::read(&self.sql, self.found)
    }
}

/// The backup as it is to be written: checked as a whole, in this version's schema, with the record of this.
fn checked_image(
    bytes: Vec<u8>,
    backup: &Path,
    path: &Path,
    root: &RootKey,
    options: &RestoreOptions,
) -> Result<(Vec<u8>, AuditHead)> {
    let copy = Copy::of(bytes)?;
    check_structure(&copy.sql)?;
    let keys = root.for_existing(&copy.claim()?)?.keys;
    let waiting = Waiting::new(path, PATIENCE);
    if let Found::Older(_) = copy.found {
        migrate(&copy.sql, &keys, &waiting, millis(options.clock.wall()))?;
    }
    // It decides nothing, and need not have been whole.
    audit::make_index(&copy.sql)?;
    let settings = Settings { waiting, clock: options.clock.clone(), watch: Watch::default(), buffer: None };
    let mut store = Store::open(copy.sql, keys, settings)?;
    store.check()?;
    store.hold_due();
    let call = Call::new("RestoreKeystore", &Arc::from(OWNER)).with("backup", backup.display().to_string());
    let (reply, answer) = mpsc::sync_channel(1);
    store.run(vec![Box::new(Asked::new(call, |tx: &mut Tx<'_>| due::postpone(tx), Reply::Blocking(reply)))], None);
    answer.recv().map_err(|_| Error::internal("the record of restoring got no answer"))??;
    let head = store.read_trail(|tx, trail| Ok(AuditHead::of(tx, trail)))?;
    Ok((store.image()?, head))
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

fn put_in_place(image: &[u8], path: &Path, existing: Existing) -> Result<Option<PathBuf>> {
    let path = resolve(path)?;
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
    let overwrite = match old {
        Old::Nothing => Overwrite::Never,
        _ => Overwrite::Replace,
    };
    // All of it is written before anything that is there is touched.
    let mut file = AtomicFile::create(Arc::new(OsFileSystem), &path, overwrite)?;
    file.write_all(image)?;
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

/// The longest backup that is restored, which is read into memory.
const BACKUP_MAX: u64 = 16 << 30;
/// How long restoring waits for the folder's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keystores that may have been moved aside in one folder.
const ASIDE_MAX: u32 = 1_000;
