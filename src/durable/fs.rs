//! The seam to the file system, and the real one.

use super::keep::keep;
use crate::error::{Error, Result};
use rustix::fs::OFlags;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// For what a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Every call by which this crate changes a disk, and the openings that come before.
///
/// Paths are taken as they are: their last part is never followed if it is a symbolic link (see
/// [`resolve`]). Reading and locking need no seam: they work on the open [`File`].
pub(crate) trait FileSystem: Send + Sync + fmt::Debug {
    /// Makes a file that did not exist, open for reading and writing, with `mode` less the umask.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<File>;

    /// Opens what exists, without waiting even if it is a pipe.
    fn open(&self, path: &Path, access: Access) -> io::Result<File>;

    /// Writes all of `bytes` at `offset`. Callers hand over whole segments.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()>;

    /// Gives `new` the owner, group and extended attributes of `old`.
    fn keep(&self, new: &File, old: &File) -> io::Result<()>;

    /// Returns when content and length are on the disk.
    fn sync_file(&self, file: &File) -> io::Result<()>;

    /// Renames, replacing what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames, failing with `AlreadyExists` if anything is at `to`. Free of races.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in `folder` are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<File> {
        // O_CREAT | O_EXCL never follows a link at the last part of the path.
        OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn keep(&self, new: &File, old: &File) -> io::Result<()> {
        keep(new, old)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rename_exclusively(from, to) {
            // Not every file system knows the flag; a hard link refuses an existing name as well.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                link_exclusively(from, to)
            }
            done => done,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_exclusively(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// After a crash between the two calls, `from` is a leftover beside a whole `to`.
pub(super) fn link_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether a disk has space for more than a few small files, as far as it tells: a quota it does not.
pub(crate) fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_MIN)
}

/// Less is as good as nothing.
const ROOM_MIN: u64 = 1 << 20;

/// The path that `path` stands for once symbolic links at its last part are followed, so that a
/// write through a link changes what the link points to and keeps the link, as editors do. A link
/// that points to nothing stands for the file that would be made there.
///
/// # Errors
/// Kind InvalidInput for a path without a file name; kind Io for a loop of links or a link that
/// cannot be read.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    let mut resolved = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        if resolved.file_name().is_none() {
            return Err(Error::invalid_input("this path names no file").with_path(path));
        }
        match fs::symlink_metadata(&resolved) {
            Ok(metadata) if metadata.is_symlink() => {
                let to = fs::read_link(&resolved).map_err(|e| Error::io_at("cannot read this link", &resolved, e))?;
                resolved = folder_of(&resolved).join(to);
            }
            // What cannot be looked at is reported by the call that opens or creates it.
            _ => return Ok(resolved),
        }
    }
    Err(Error::invalid_input("too many symbolic links, or a loop of them").with_path(path))
}

/// Whether `path` itself, not what a link there points to, is the open `file`.
///
/// # Errors
/// When either cannot be looked at; that nothing is at `path` is an answer.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// As many as Linux follows.
const MAX_LINKS: usize = 40;
