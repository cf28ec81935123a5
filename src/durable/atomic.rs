//! Replacing a file as a whole.

use super::fs::{Access, FileSystem, folder_of, names, resolve};
use super::lock::LockedFile;
use super::partial::partial_name;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What happens to a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// It is replaced.
    Replace,
    /// It is kept, and the write fails.
    Never,
}

/// A file that appears under its name as a whole, or not at all.
///
/// The bytes go to a temporary file beside the target, locked while it is in use, which
/// [`commit`](Self::commit) renames over the target. Dropped before that, it is removed. A run that
/// is killed leaves its temporary file without a lock: the next write to the same target removes it.
///
/// Temporary files are named `.NAME.DIGIT.envelock-tmp`, NAME cut where that is too long. Only eight
/// names exist per target, so that leftovers are found without listing a folder of any size; a ninth
/// simultaneous writer of one target is told that it is busy. The partial file of an interrupted
/// [`PartialFile`](super::PartialFile) is such a leftover too.
///
/// Writes are not buffered here.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    // Before the handle, so that the name is gone before the lock is.
    temporary: Temporary,
    file: File,
    target: PathBuf,
    overwrite: Overwrite,
    mode: Option<u32>,
    end: u64,
}

/// A name beside the target, to be renamed to it.
#[derive(Debug)]
struct Temporary {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    on_drop: OnDrop,
}

/// What becomes of a name that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDrop {
    Remove,
    /// It was renamed, or stays so that a later run goes on with it.
    Keep,
}

impl AtomicFile {
    /// Starts a write to `target`, with mode 0600. A link at `target` stays a link: what it points
    /// to is written. Removes what killed runs left of earlier writes to the same target.
    ///
    /// # Errors
    /// Kind InvalidInput if the target is no regular file (a device, a folder), or exists and
    /// `overwrite` is [`Overwrite::Never`] (then the source is an [`io::Error`] of kind
    /// `AlreadyExists`); kind Busy if eight others are writing it; kind Io if the folder cannot be
    /// written to.
    pub(crate) fn create(fs: Arc<dyn FileSystem>, target: &Path, overwrite: Overwrite) -> Result<Self> {
        let target = writable(target, overwrite)?;
        let (temporary, file) = Temporary::create(&fs, &target)?;
        Ok(Self { temporary, file, target, overwrite, mode: None, end: 0 })
    }

    /// A write to `target`, which [`writable`] answered, through `file` at `path`, which stays there
    /// unless it is committed. `file` is locked.
    pub(super) fn staying(
        fs: Arc<dyn FileSystem>,
        path: PathBuf,
        file: File,
        target: PathBuf,
        overwrite: Overwrite,
    ) -> Self {
        let temporary = Temporary { fs, path, on_drop: OnDrop::Keep };
        Self { temporary, file, target, overwrite, mode: None, end: 0 }
    }

    /// Gives the file these permission bits at the commit, in place of 0600.
    pub(crate) fn set_mode(&mut self, mode: u32) {
        self.mode = Some(mode & 0o7777);
    }

    /// Keeps what is at the target by the time of the commit, which then fails.
    #[cfg_attr(not(feature = "local-kms"), allow(dead_code, reason = "a keystore's place is looked at late"))]
    pub(crate) fn refuse_existing(&mut self) {
        self.overwrite = Overwrite::Never;
    }

    /// Gives the file the owner, the group and the extended attributes of `old`.
    ///
    /// # Errors
    /// Kind Io where that is not permitted; the target is unchanged.
    pub(crate) fn keep(&self, old: &File) -> Result<()> {
        self.temporary.fs.keep(&self.file, old).map_err(|e| {
            Error::unchanged("cannot give a new file the owner, group and attributes of this one", &self.target, e)
        })
    }

    /// Writes all of `bytes` at `offset`, from any thread. Where [`io::Write`] goes on is not moved.
    ///
    /// # Errors
    /// Kind Io; the target is unchanged.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.temporary
            .fs
            .write_at(&self.file, bytes, offset)
            .map_err(|e| Error::unchanged("cannot write", &self.target, e))
    }

    /// Puts the file in its place. When this returns, it survives a power failure.
    ///
    /// The answer is the new file, still locked exclusively, so that the caller can remove what
    /// belonged to the old one before another process sees the new one.
    ///
    /// # Errors
    /// As [`create`](Self::create) if something appeared at the target meanwhile. Kind Io otherwise:
    /// then the target is unchanged and the temporary file is removed, unless only the last sync of
    /// the folder failed, which the error says.
    pub(crate) fn commit(self) -> Result<LockedFile> {
        // The last binding is dropped first: on failure the name goes while the lock is held.
        let Self { file, target, overwrite, mode, mut temporary, .. } = self;
        let fs = Arc::clone(&temporary.fs);
        let unchanged = |action: &'static str| {
            let target = &target;
            move |e: io::Error| Error::unchanged(action, target, e)
        };
        if let Some(mode) = mode {
            fs.set_mode(&file, mode).map_err(unchanged("cannot set the permissions of the new file"))?;
        }
        fs.sync_file(&file).map_err(unchanged("cannot sync the new file to disk"))?;
        match overwrite {
            Overwrite::Replace => fs.rename(&temporary.path, &target),
            Overwrite::Never => fs.rename_new(&temporary.path, &target),
        }
        .map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::target_exists(&target),
            _ => unchanged("cannot put the new file in place")(e),
        })?;
        temporary.on_drop = OnDrop::Keep;
        fs.sync_folder(folder_of(&target))
            .map_err(|e| Error::unconfirmed("cannot sync the folder of this file", &target, e))?;
        Ok(LockedFile { fs, file, path: target })
    }

    /// What will be replaced or created, links resolved.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where the bytes are until the commit, for somebody else's code that writes files by their names.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary.path
    }

    pub(super) fn file_system(&self) -> &Arc<dyn FileSystem> {
        &self.temporary.fs
    }

    pub(super) fn overwrite(&self) -> Overwrite {
        self.overwrite
    }
}

/// What a write to `target` replaces or creates, links resolved.
///
/// # Errors
/// As [`AtomicFile::create`] for what is there.
pub(super) fn writable(target: &Path, overwrite: Overwrite) -> Result<PathBuf> {
    let target = resolve(target)?;
    match fs::symlink_metadata(&target) {
        Ok(_) if overwrite == Overwrite::Never => Err(Error::target_exists(&target)),
        // A rename would put a plain file in place of /dev/null.
        Ok(there) if !there.is_file() => {
            Err(Error::invalid_input("this is no regular file, and so cannot be replaced")
                .with_path(target)
                .with_advice("choose another name, or write to standard output and redirect that"))
        }
        _ => Ok(target),
    }
}

/// Appends, each call in one piece.
impl io::Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Temporary {
    /// Takes the first free name, after removing every leftover of this target.
    fn create(fs: &Arc<dyn FileSystem>, target: &Path) -> Result<(Self, File)> {
        let paths = temporary_paths(target);
        for path in paths.iter().chain(&partial_name(target)) {
            remove_leftover(&**fs, path);
        }
        for path in paths {
            let file = match fs.create_new(&path, 0o600) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::unchanged("cannot create a file beside this one", target, e)),
            };
            // Between creation and lock, another run may take the file for a leftover: it then holds
            // the lock, or has removed the name.
            let taken = match file.try_lock() {
                Ok(()) => !names(&path, &file).map_err(|e| Error::unchanged("cannot look at", &path, e))?,
                Err(fs::TryLockError::WouldBlock) => true,
                Err(fs::TryLockError::Error(e)) => {
                    drop(Self { fs: Arc::clone(fs), path, on_drop: OnDrop::Remove });
                    return Err(Error::unchanged("cannot lock a file beside this one", target, e));
                }
            };
            if !taken {
                return Ok((Self { fs: Arc::clone(fs), path, on_drop: OnDrop::Remove }, file));
            }
        }
        Err(Error::busy("too many others are writing this file").with_path(target))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Remove {
            // A drop cannot report; what stays is a leftover, which the next write removes.
            let _ = self.fs.remove(&self.path);
        }
    }
}

/// Removes the temporary file of a killed run: one that is not locked.
///
/// The lock is held over the removal. All who remove or rename a temporary file hold its lock, so
/// the name cannot pass to another file between the check and the removal. Whatever else is at the
/// path, or cannot be removed, is left alone: [`Temporary::create`] then takes another name.
fn remove_leftover(fs: &dyn FileSystem, path: &Path) {
    let Ok(file) = fs.open(path, Access::ReadWrite) else { return };
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if regular && file.try_lock().is_ok() && names(path, &file).unwrap_or(false) {
        let _ = fs.remove(path);
    }
}

/// The names that temporary files of `target` can have. Two long names that are cut to the same
/// beginning share them, which is harmless: a leftover is known by its missing lock.
fn temporary_paths(target: &Path) -> Vec<PathBuf> {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let mut kept = name.len().min(MAX_NAME - ".".len() - ".0".len() - SUFFIX.len());
    // Not inside a UTF-8 character: some file systems refuse such a name.
    while kept < name.len() && kept > 0 && name[kept] & 0xC0 == 0x80 {
        kept -= 1;
    }
    (b'0'..b'0' + CANDIDATES)
        .map(|digit| {
            let bytes = [b".", &name[..kept], &[b'.', digit], SUFFIX.as_bytes()].concat();
            folder_of(target).join(OsString::from_vec(bytes))
        })
        .collect()
}

const SUFFIX: &str = ".envelock-tmp";
/// Writers of one target at the same time.
const CANDIDATES: u8 = 8;
/// The longest file name in bytes, on every file system in common use.
pub(super) const MAX_NAME: usize = 255;
