//! Failures of what ranges are read from.

use super::{Error, ErrorKind};
use std::io;
use std::ops::Range;

impl Error {
    /// The object is not the one that was opened. Not retryable, since no later call of the same reader
    /// can succeed, and no sign of tampering: objects are replaced all the time. Its source is an
    /// [`io::Error`] of kind `StaleNetworkFileHandle`, by which callers tell it from other failed reads.
    pub(crate) fn source_changed(name: &str) -> Self {
        Self::new(ErrorKind::Io, format!("{name} was changed or replaced after it was opened"))
            .with_source(io::Error::from(io::ErrorKind::StaleNetworkFileHandle))
            .with_advice("open it anew, and read again what belongs together: earlier ranges are of the old version")
    }

    /// An answer of another length than the question.
    pub(crate) fn wrong_answer(name: &str, asked: &Range<u64>, expected: u64, got: usize) -> Self {
        Self::new(
            ErrorKind::Io,
            format!("{name} gave {got} bytes where bytes {} to {} are {expected}", asked.start, asked.end),
        )
        .with_advice("the source does not answer ranges as it should: check the server or proxy that it reads from")
    }
}
