//! Failures of files, folders and keystores.

use super::{Error, ErrorKind};
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
}
