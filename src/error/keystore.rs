//! Failures of the embedded KMS's keystore file.

use super::{Error, ErrorKind, KeystoreCause};
use rusqlite::ErrorCode;
use std::path::Path;

impl Error {
    /// The same error with what it comes from.
    #[must_use]
    pub(crate) fn with_cause(mut self, cause: KeystoreCause) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// What SQLite reports, by what the caller can do about it.
    pub(crate) fn sqlite(source: rusqlite::Error) -> Self {
        let (kind, message, advice) = match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                ErrorKind::Busy,
                "another process holds the keystore for longer than this call waits",
                "nothing was changed: try again in a moment",
            ),
            Some(ErrorCode::DiskFull) => {
                (ErrorKind::Io, "the keystore's disk is full", "nothing was changed: free space on it, then try again")
            }
            Some(ErrorCode::CannotOpen) => (
                ErrorKind::Io,
                "the keystore file cannot be opened",
                "check that its folder exists and who may read and write there",
            ),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
                ErrorKind::Io,
                "the keystore file cannot be written to",
                "nothing was changed: check who may write to the file and to its folder",
            ),
            Some(ErrorCode::SystemIoFailure) => {
                (ErrorKind::Io, "reading or writing the keystore failed", "check the disk, then try again")
            }
            Some(ErrorCode::NotADatabase) => return Self::not_a_keystore().with_source(source),
            Some(ErrorCode::DatabaseCorrupt) => (
                ErrorKind::Storage,
                "the keystore file is damaged",
                "keep the file as it is, and restore a backup of it",
            ),
            // Only a changed schema makes our own statements fail otherwise.
            _ => (
                ErrorKind::Storage,
                "the keystore file does not have the tables that it was made with",
                "somebody else has changed it, or it is damaged: restore a backup of it",
            ),
        };
        Self::new(kind, format!("{message} ({source})")).with_source(source).with_advice(advice)
    }

    /// A keystore file that may be read and not written.
    pub(crate) fn read_only_keystore() -> Self {
        Self::new(ErrorKind::Io, "the keystore file may not be written to, which reading from it needs too")
            .with_advice("nothing was changed: check who may write to the file and to its folder, or open a copy of it")
    }

    /// A keystore that must exist and does not.
    pub(crate) fn no_keystore(path: &Path) -> Self {
        Self::new(ErrorKind::NoMatchingKey, "there is no keystore here, and nothing was made")
            .with_path(path)
            .with_advice(
                "check the path, or restore the keystore file from its backup: its root key alone opens nothing, and a \
                 new keystore would not open what the old one encrypted",
            )
    }

    /// A keystore that is not there, though its root key's file is.
    pub(crate) fn lost_keystore(path: &Path, root_file: &Path) -> Self {
        let what = format!("there is no keystore here, and its root key {} exists: it was lost", root_file.display());
        Self::new(ErrorKind::NoMatchingKey, what).with_path(path).with_advice(
            "restore it from its backup (`LocalKms::restore`), or begin anew with `KmsOptions::new_keystore`: what was \
             encrypted before stays closed then",
        )
    }

    /// A file at the keystore's path in which no keystore was made.
    pub(crate) fn empty_keystore(path: &Path) -> Self {
        Self::new(
            ErrorKind::NoMatchingKey,
            "this file holds no keystore (an interrupted first use, or a copy without its `-wal` file)",
        )
        .with_path(path)
        .with_advice("restore it from a backup; nothing was changed")
    }

    /// A file whose tables or pages do not hold together.
    pub(crate) fn damaged_keystore(what: &str) -> Self {
        Self::new(ErrorKind::Storage, format!("the keystore file is damaged: {}", what.escape_debug()))
            .with_advice("keep the file as it is, and restore a backup of it")
    }

    pub(crate) fn tampered(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Storage,
            format!("the keystore was changed by something else than envelock: {}", message.into()),
        )
        .with_cause(KeystoreCause::Tampered)
        .with_advice("do not use it: keep the file for an inquiry, and restore a backup")
    }

    /// The trail is not the one that a head was kept of, and says itself that a backup was put in the keystore's place.
    pub(crate) fn restored_since(what: impl std::fmt::Display, restoring: u64) -> Self {
        let message = format!("{what}: the audit record {restoring} says that a backup was restored");
        Self::new(ErrorKind::Storage, message).with_cause(KeystoreCause::Tampered).with_advice(
            "if you restored it after the head was kept, keep a new head: earlier ones compare no more; if you did not, \
             an older file was put back: do not use it, keep it for an inquiry, and restore a newer backup",
        )
    }

    pub(crate) fn newer_schema(version: i64) -> Self {
        Self::unsupported(format!("the keystore has schema version {version}, which a newer envelock wrote"))
            .with_advice("update envelock; nothing was changed")
    }

    pub(crate) fn not_a_keystore() -> Self {
        Self::new(ErrorKind::Storage, "this file is not an envelock keystore")
            .with_advice("check the path; nothing was changed")
    }

    /// The check value in the file is not that of the root key that it was opened with.
    pub(crate) fn root_key_replaced() -> Self {
        Self::new(ErrorKind::NoMatchingKey, "the keystore has another root key than when it was opened")
            .with_cause(KeystoreCause::Rekeyed)
            .with_advice("close it and open it with its new root key")
    }

    /// A keystore that was open when this process was forked.
    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Storage,
            "the keystore was open when this process was forked, and cannot be used in the child",
        )
        .with_advice("let the child call exec, or open the keystore only after the fork")
    }

    pub(crate) fn keystore_closed() -> Self {
        Self::new(ErrorKind::Storage, "the keystore was closed").with_advice("open it again")
    }
}
