//! Writing a file over several runs, in a partial file beside it that stays when a run ends early.

use super::atomic::{AtomicFile, MAX_NAME, Overwrite, writable};
use super::fs::{Access, FileSystem, folder_of, names, resolve};
use super::lock::lock;
use crate::error::{Error, Result};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that is written over several runs, and appears under its name as a whole.
///
/// The bytes go to `.NAME.envelock-partial` beside the target, which is this run's alone while its
/// lock is held, and stays when this is dropped: the next run finds it. A run that goes on with it
/// trusts the key in its head, so it must be a regular file of the caller's own with one name, which
/// nobody else may open. Committed, it is renamed over the target like an [`AtomicFile`].
#[derive(Debug)]
pub(crate) struct PartialFile {
    atomic: AtomicFile,
    found: bool,
}

impl PartialFile {
    /// Opens the partial file of `target`, or makes it, with mode 0600.
    ///
    /// # Errors
    /// As [`AtomicFile::create`] for the target; kind InvalidInput if what lies at the partial file's
    /// name is not to be trusted, or if the name would be too long; kind Busy if another run is at
    /// work in it; kind Io.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, target: &Path, overwrite: Overwrite) -> Result<Self> {
        let target = writable(target, overwrite)?;
        let path = partial_path(&target)?;
        for _ in 0..TRIES {
            let found = match fs::symlink_metadata(&path) {
                Ok(there) => {
                    check(&path, &there)?;
                    true
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(Error::io_at("cannot look at this partial file", &path, e)),
            };
            let opened = if found { fs.open(&path, Access::ReadWrite) } else { fs.create_new(&path, 0o600) };
            let file = match opened {
                Ok(file) => file,
                // It came or went between the two calls.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) && found => {
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                    return Err(Error::untrusted_partial(&path, LINK));
                }
                Err(e) => return Err(Error::unchanged("cannot open a partial file beside this one", &target, e)),
            };
            lock(&file, &path, LOCK_WAIT)?;
            // What was opened counts, not what was looked at; and it may have been removed before the lock.
            let cannot_look = |e| Error::io_at("cannot look at this partial file", &path, e);
            if names(&path, &file).map_err(cannot_look)? {
                check(&path, &file.metadata().map_err(cannot_look)?)?;
                return Ok(Self { atomic: AtomicFile::staying(fs, path, file, target, overwrite), found });
            }
        }
        Err(Error::busy("the partial file of this one comes and goes").with_path(target))
    }

    /// Whether an earlier run left it.
    pub(crate) fn is_found(&self) -> bool {
        self.found
    }

    /// Removes what is there, and makes the partial file anew: it is then as old as what it holds.
    ///
    /// # Errors
    /// Kind Busy if another run was faster; kind Io.
    pub(crate) fn begin_anew(self) -> Result<Self> {
        let (fs, path) = (Arc::clone(self.atomic.file_system()), self.atomic.path().to_path_buf());
        let (target, overwrite) = (self.atomic.target().to_path_buf(), self.atomic.overwrite());
        fs.remove(&path).map_err(|e| Error::unchanged("cannot remove the old partial file", &path, e))?;
        drop(self);
        let new = Self::open(fs, &target, overwrite)?;
        match new.found {
            true => Err(Error::busy("another run began this file anew").with_path(target)),
            false => Ok(new),
        }
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Kind Io.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.atomic.write_at(bytes, offset)
    }

    /// To be committed. Until then it stays, like this.
    pub(crate) fn into_atomic(self) -> AtomicFile {
        self.atomic
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        self.atomic.file()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.atomic.path()
    }

    /// When it was made, where the file system tells.
    pub(crate) fn born(&self) -> Option<SystemTime> {
        self.file().metadata().ok()?.created().ok()
    }
}

/// Where the partial file of `target` is, links resolved.
///
/// # Errors
/// Kind InvalidInput for a path without a file name, or with one that leaves no room for the partial
/// file's.
pub(crate) fn partial_path(target: &Path) -> Result<PathBuf> {
    let target = resolve(target)?;
    partial_name(&target).ok_or_else(|| {
        Error::invalid_input("this name is too long for a partial file beside it")
            .with_path(&target)
            .with_advice("choose a name of at most 237 bytes, or encrypt without resuming")
    })
}

/// As [`partial_path`], for a target whose links are resolved.
pub(super) fn partial_name(target: &Path) -> Option<PathBuf> {
    let name = [b".", target.file_name()?.as_bytes(), SUFFIX].concat();
    (name.len() <= MAX_NAME).then(|| folder_of(target).join(OsString::from_vec(name)))
}

/// "Refused if it is not a regular file, not the caller's own, or open to others: a planted header
/// would hold a data key that its maker knows." Access lists need no look of their own: their mask shows
/// in the group's bits.
fn check(path: &Path, there: &Metadata) -> Result<()> {
    let why = if there.is_symlink() {
        LINK
    } else if !there.is_file() {
        "is no regular file"
    } else if there.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if there.nlink() > 1 {
        "has other names as well (hard links)"
    } else if there.mode() & 0o077 != 0 {
        "is open to other users"
    } else {
        return Ok(());
    };
    Err(Error::untrusted_partial(path, why))
}

/// What tells whether a source was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: (u64, u64),
    len: u64,
    modified: (i64, i64),
    /// The kernel sets it at every change of content, mode, owner or name; no call sets it back.
    changed: (i64, i64),
}

impl Stamp {
    /// # Errors
    /// When the file cannot be looked at.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the last change surely came before `time`.
    ///
    /// Kernels stamp by a clock that moves every few milliseconds, and some file systems cut the stamp
    /// down: to the second (then two seconds are the least that tells), or to a fraction of a tick.
    pub(crate) fn is_before(&self, time: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let coarse = nanoseconds % 10_000_000 == 0;
        let margin = if coarse { Duration::from_secs(2) } else { Duration::from_millis(20) };
        let Ok(time) = time.duration_since(UNIX_EPOCH) else { return false };
        match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
            (Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds) + margin < time,
            _ => false,
        }
    }
}

const SUFFIX: &[u8] = b".envelock-partial";
const LINK: &str = "is a symbolic link";
/// How often a partial file may come or go between two calls.
const TRIES: usize = 8;
/// A run that removes leftovers holds the lock for a moment.
const LOCK_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_older_only_by_more_than_its_stamp_may_be_off() {
        let at = |changed| Stamp { file: (1, 1), len: 0, modified: (0, 0), changed };
        let born = UNIX_EPOCH + Duration::new(1_000, 500_000_001);
        for (changed, older) in [
            ((1_000, 480_000_000 - 1), true),
            ((1_000, 480_000_001), false),
            ((1_000, 500_000_001), false),
            ((1_000, 600_000_001), false),
            ((2_000, 1), false),
            // Cut down to the second, or to ten milliseconds.
            ((1_000, 0), false),
            ((999, 0), false),
            ((998, 0), true),
            ((999, 10_000_000), false),
            // Before 1970: no clock that was right.
            ((-1, 5), false),
        ] {
            assert_eq!(at(changed).is_before(born), older, "{changed:?}");
        }
    }

    #[test]
    fn the_longest_name_that_has_a_partial_file_is_237_bytes() {
        let path = |len| partial_path(&Path::new("/tmp").join("n".repeat(len)));
        assert_eq!(path(237).unwrap().file_name().unwrap().len(), 255);
        assert!(path(238).unwrap_err().to_string().contains("at most 237 bytes"));
        assert_eq!(partial_path(Path::new("/tmp/a.elk")).unwrap(), Path::new("/tmp/.a.elk.envelock-partial"));
    }
}
