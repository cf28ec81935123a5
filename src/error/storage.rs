//! Failures of files, folders and keystores.

use super::{Error, ErrorKind};
use std::io;
use std::path::Path;

impl Error {
    pub(crate) fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("{}: {source}", message.into())).with_source(source)
    }

    pub(crate) fn io_at(action: &str, path: &Path, source: std::io::Error) -> Self {
        Self::io(action, source).with_path(path)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message).with_advice("another process is using it: try again in a moment")
    }

    /// A step of writing that failed before anything that existed was changed.
    pub(crate) fn unchanged(action: &str, path: &Path, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space on this disk, nothing was changed; then try again"
            }
            io::ErrorKind::FileTooLarge => {
                "raise the limit on file sizes or choose another disk, nothing was changed; then try again"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "nothing was changed: this disk is mounted read-only, choose a folder on another one"
            }
            io::ErrorKind::PermissionDenied => {
                "nothing was changed: check who may write to this file and to its folder"
            }
            io::ErrorKind::NotFound => "nothing was changed: check that the file and its folder exist",
            _ => "nothing was changed; check the disk, then try again",
        };
        Self::io_at(action, path, source).with_advice(advice)
    }

    /// The change stands, and something after it failed.
    pub(crate) fn unconfirmed(action: &str, path: &Path, source: io::Error) -> Self {
        Self::io_at(action, path, source).with_advice(
            "the new content is in place, but may not survive a power failure: check the disk, then try again",
        )
    }

    /// A source that does not stay as it is while it is encrypted.
    pub(crate) fn source_changes() -> Self {
        Self::new(ErrorKind::Busy, "this file was changed while it was encrypted: no message was made of it")
            .with_advice("encrypt it again once nobody writes to it")
    }

    /// A partial file that somebody else may have planted: its head would hold a data key that he knows.
    pub(crate) fn untrusted_partial(path: &Path, why: &str) -> Self {
        Self::new(ErrorKind::InvalidInput, format!("this partial file is not gone on with, since it {why}"))
            .with_path(path)
            .with_advice(
                "nothing was written: find out who made it, remove it, and begin again (a resumed encryption goes on \
                 only in a regular file of your own that nobody else can open)",
            )
    }

    /// The target of a write that may not replace anything. Its source is an [`io::Error`] of kind
    /// `AlreadyExists`, by which callers tell it from other invalid input.
    pub(crate) fn target_exists(path: &Path) -> Self {
        Self::new(ErrorKind::InvalidInput, "this file exists already")
            .with_source(io::Error::from(io::ErrorKind::AlreadyExists))
            .with_path(path)
            .with_advice("it was kept as it is: choose another name, or ask for it to be replaced")
    }
}
