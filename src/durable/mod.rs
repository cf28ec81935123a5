//! Crash-safe files: atomic replacement, fsync of file and folder, locks.
//!
//! A crash, a full disk or a failed call leaves the old content or the new content of a file, whole,
//! and never something between them; once a call has returned, the new content survives a power
//! failure. Everything that changes a disk goes through [`FileSystem`], so that tests record the
//! order of the calls, build every state that a crash can leave, and inject every failure.
//!
//! Assumed of the file system: a rename is atomic; what was written and then synced stays; locks
//! (`flock`) are seen by every process that writes here. Network file systems may not keep this.

mod atomic;
mod fs;
mod keep;
mod key_file;
mod lock;
mod partial;

pub(crate) use atomic::{AtomicFile, Overwrite};
pub(crate) use fs::{Access, FileSystem, OsFileSystem, folder_of, has_room, resolve};
pub(crate) use key_file::read_key_file;
pub(crate) use lock::{Links, LockedFile};
pub(crate) use partial::{PartialFile, Stamp, partial_path};

#[cfg(test)]
pub(crate) mod crash;
#[cfg(test)]
mod tests;
