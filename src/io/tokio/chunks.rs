//! A stream of chunks, read piece by piece.

use crate::error::{Error, ErrorKind, Result};
use futures_core::Stream;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The chunk that a stream gave last, and the stream.
pub(crate) struct Chunks<S, B> {
    /// In a box, so that any stream will do, and what holds this may be moved.
    stream: Pin<Box<S>>,
    chunk: Option<B>,
    /// Bytes of `chunk` that were consumed.
    consumed: usize,
    ended: bool,
}

impl<S, B> Chunks<S, B> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: Box::pin(stream), chunk: None, consumed: 0, ended: false }
    }
}

impl<S, B, E> Chunks<S, B>
where
    S: Stream<Item = std::result::Result<B, E>>,
    B: AsRef<[u8]>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    /// What is left of the chunk, or the next one; not empty, but at the end of the stream.
    ///
    /// # Errors
    /// The stream's own if it is one of this crate's, else kind Io with the stream's as its source.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        while !self.ended && self.rest().is_empty() {
            // The spent chunk's memory is freed before the next one comes.
            self.chunk = None;
            self.consumed = 0;
            match ready!(self.stream.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => self.chunk = Some(chunk),
                Some(Err(error)) => return Poll::Ready(Err(stream_failed(error.into()))),
                None => self.ended = true,
            }
        }
        Poll::Ready(Ok(self.rest()))
    }

    fn rest(&self) -> &[u8] {
        self.chunk.as_ref().and_then(|chunk| chunk.as_ref().get(self.consumed..)).unwrap_or_default()
    }

    /// Tells that `count` bytes of the chunk are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.consumed += count;
    }

    /// Fills some of `out`, which is not empty; 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`poll_chunk`](Self::poll_chunk).
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize>> {
        let chunk = ready!(self.poll_chunk(cx))?;
        let count = chunk.len().min(out.len());
        out[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

/// A stream over a stream of ours passes the error on as it is.
fn stream_failed(error: Box<dyn StdError + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => match other.downcast::<io::Error>() {
            Ok(io) => Error::from(*io),
            Err(other) => Error::new(ErrorKind::Io, format!("the stream failed: {other}")).with_source(other),
        },
    }
}

impl<S, B> fmt::Debug for Chunks<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("ended", &self.ended).finish_non_exhaustive()
    }
}
