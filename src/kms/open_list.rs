//! The keystores that are open in this process: the crate's only global.
//!
//! After a fork, the child has the list and not the threads. A keystore on it that another process
//! id put there must not be touched: SQLite's lock table, copied with the memory, names locks that
//! the child does not hold. The file is only ever looked at by name, never opened here once it
//! exists: closing any descriptor of it would drop the locks that SQLite holds (POSIX).

use crate::durable::folder_of;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

static OPEN: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    device: u64,
    inode: u64,
    process: u32,
}

/// A place on the list, for as long as a connection to the file is open.
#[derive(Debug)]
pub(super) struct Registered(Entry);

impl Registered {
    /// Puts the keystore at `path` on the list; an empty file with mode 0600 is made if there is none.
    ///
    /// # Errors
    /// Kind Storage if the keystore was open when this process was forked; kind Io if the file
    /// cannot be made or looked at.
    pub(super) fn new(path: &Path) -> Result<Self> {
        Self::by(path, make)
    }

    /// As [`new`](Self::new), and kind NoMatchingKey where there is no file: none is made.
    pub(super) fn existing(path: &Path) -> Result<Self> {
        Self::by(path, |path| match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::no_keystore(path)),
            // What else is wrong is said by those who look closer.
            _ => Ok(false),
        })
    }

    /// With `make`, which tells whether it made the file.
    fn by(path: &Path, make: impl FnOnce(&Path) -> Result<bool>) -> Result<Self> {
        let (entry, made) = {
            let mut open = lock()?;
            // Under the lock, since the new file is closed again: no thread of this process may have
            // a connection to it by then.
            let made = make(path)?;
            let entry = identify(path)?;
            if open.iter().any(|it| (it.device, it.inode) == (entry.device, entry.inode) && it.process != entry.process)
            {
                return Err(Error::forked().with_path(path));
            }
            open.push(entry);
            (entry, made)
        };
        let registered = Self(entry);
        if made {
            File::open(folder_of(path))
                .and_then(|folder| folder.sync_all())
                .map_err(|e| Error::io_at("cannot sync the folder of this file", path, e))?;
        }
        Ok(registered)
    }

    /// Whether the path still names the file that was put on the list.
    ///
    /// # Errors
    /// Kind Busy if it does not.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        match identify(path)? == self.0 {
            true => Ok(()),
            false => Err(Error::busy("the keystore file was replaced while it was opened")),
        }
    }
}

/// Whether this process, or the one that it was forked from, has the file at `path` open as a keystore. It must
/// be a file.
pub(super) fn is_open(path: &Path) -> Result<bool> {
    let open = lock()?;
    let file = identify(path)?;
    Ok(open.iter().any(|it| (it.device, it.inode) == (file.device, file.inode)))
}

/// Whether this is a forked child of a process that had any keystore open. Then threads that are no
/// more may hold SQLite's global locks, and even another keystore may never open here.
pub(super) fn forked_with_open_keystores() -> Result<bool> {
    let process = std::process::id();
    Ok(lock()?.iter().any(|it| it.process != process))
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Ok(mut open) = lock()
            && let Some(at) = open.iter().position(|it| *it == self.0)
        {
            open.swap_remove(at);
        }
    }
}

fn identify(path: &Path) -> Result<Entry> {
    let metadata = fs::metadata(path).map_err(|e| Error::io_at("the keystore file cannot be looked at", path, e))?;
    match metadata.is_file() {
        true => Ok(Entry { device: metadata.dev(), inode: metadata.ino(), process: std::process::id() }),
        false => Err(Error::invalid_input("the keystore's path names no regular file").with_path(path)),
    }
}

/// Whether an empty file was made.
fn make(path: &Path) -> Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // The file may exist where none can be made: what cannot be opened is reported by SQLite.
        Err(_) if path.exists() => Ok(false),
        Err(e) => Err(Error::unchanged("the keystore file cannot be made", path, e)),
    }
}

/// Holders of the lock make or look at one file at most. A lock that stays taken was held by another
/// thread at the moment of a fork, and will never be free in this child.
fn lock() -> Result<MutexGuard<'static, Vec<Entry>>> {
    for _ in 0..WAIT.as_millis() {
        match OPEN.try_lock() {
            Ok(open) => return Ok(open),
            Err(TryLockError::Poisoned(open)) => return Ok(open.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err(Error::forked())
}

const WAIT: Duration = Duration::from_secs(2);
