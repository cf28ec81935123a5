//! Locks on open files (`flock`): they end with the file handle, so no crash leaves one behind.

use super::fs::{Access, FileSystem, names, resolve};
use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Locks `file`, which was opened at `path`, exclusively; waits for at most `wait` (zero: not at all).
///
/// Two handles of one process exclude each other like two processes do.
///
/// # Errors
/// Kind Busy if somebody else holds it for longer than `wait`; kind Io if it cannot be locked.
pub(super) fn lock(file: &File, path: &Path, wait: Duration) -> Result<()> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(Error::io_at("cannot lock this file", path, e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Error::busy("this file is locked").with_path(path));
        }
        std::thread::sleep(pause.min(left));
        // Short, so that who waits has a chance against those who come and go.
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Whether a symbolic link at the last part of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// An existing file, open for reading and writing and locked exclusively until it is dropped.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl LockedFile {
    /// Opens the regular file that `path` names, through links, and locks it as [`lock`] does.
    ///
    /// # Errors
    /// As [`lock`]; kind InvalidInput if it is no regular file; kind Io if it cannot be opened.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, path: &Path, wait: Duration) -> Result<Self> {
        Self::open_by(fs, path, Links::Follow, wait)
    }

    /// The same, through links only where `links` says so.
    ///
    /// # Errors
    /// As [`open`](Self::open); kind Io for a link that is not followed.
    pub(crate) fn open_by(fs: Arc<dyn FileSystem>, path: &Path, links: Links, wait: Duration) -> Result<Self> {
        let start = Instant::now();
        loop {
            let path = match links {
                Links::Follow => resolve(path)?,
                // The last part of a path is never followed by what opens it.
                Links::Refuse => path.to_path_buf(),
            };
            let file = fs.open(&path, Access::ReadWrite).map_err(|e| Error::unchanged("cannot open", &path, e))?;
            let metadata = file.metadata().map_err(|e| Error::io_at("cannot look at", &path, e))?;
            if !metadata.is_file() {
                return Err(Error::invalid_input("this is no regular file").with_path(path));
            }
            lock(&file, &path, wait.saturating_sub(start.elapsed()))?;
            // It may have been replaced while this call waited: then the lock is on an orphan.
            if names(&path, &file).map_err(|e| Error::io_at("cannot look at", &path, e))? {
                return Ok(Self { fs, file, path });
            }
            if start.elapsed() > wait {
                return Err(Error::busy("this file is being replaced").with_path(path));
            }
        }
    }

    /// Whether the file is under its path still.
    ///
    /// # Errors
    /// Kind Io if that cannot be seen.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        names(&self.path, &self.file).map_err(|e| Error::io_at("cannot look at", &self.path, e))
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where it is, links resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file system that it lies in.
    pub(crate) fn file_system(&self) -> &dyn FileSystem {
        &*self.fs
    }
}
