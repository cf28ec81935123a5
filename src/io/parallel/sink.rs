//! Where batches go: into a writer, in order, or each to its place in a file.

use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::io::parallel::batch::{Batch, Then};
use std::io::{self, Write};
use std::ops::ControlFlow;

/// How what was worked on is put away.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// In order, by one thread at a time.
    InOrder,
    /// By the thread that worked on it, at once: so that writing is shared as well. In a file that nobody
    /// sees before it is whole, order does not matter.
    File {
        file: &'a AtomicFile,
        /// Where the first byte goes.
        offset: u64,
    },
}

impl Target<'_> {
    /// Puts `bytes`, before which `offset` others come, into the file, if that is the target.
    pub(super) fn place(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File { file, offset: start } if !bytes.is_empty() => file.write_at(bytes, start + offset),
            _ => Ok(()),
        }
    }
}

/// A writer, and how much it took.
#[derive(Debug)]
pub(super) struct Sink<W> {
    inner: W,
    pub(super) written: u64,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, written: 0 }
    }

    /// Writes all of `bytes`, or breaks.
    pub(super) fn write(&mut self, bytes: &[u8]) -> ControlFlow<Result<()>> {
        match self.inner.write_all(bytes) {
            Ok(()) => {
                self.written(bytes.len());
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(sink_failed(error))),
        }
    }

    /// So many bytes were written elsewhere.
    pub(super) fn written(&mut self, len: usize) {
        self.written += len as u64;
    }

    /// After the segments of `batch`: what comes of it all, if it ends with them.
    pub(super) fn end_of(&mut self, batch: &mut Batch) -> ControlFlow<Result<()>> {
        match std::mem::replace(&mut batch.then, Then::More) {
            Then::More => ControlFlow::Continue(()),
            Then::End => ControlFlow::Break(self.inner.flush().map_err(sink_failed)),
            Then::Fail(error) => ControlFlow::Break(Err(error)),
        }
    }
}

/// What a sink failed with.
pub(crate) fn sink_failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(other) => Error::io("the output cannot be written", other),
    }
}
