//! A stream of plaintext, as a stream of its message.

use super::chunks::Chunks;
use super::sealing::Sealing;
use crate::error::{Error, Result};
use crate::io::sealer::Sealer;
use bytes::Bytes;
use futures_core::Stream;
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The message of a stream of plaintext: its head, then each segment, as HTTP bodies and object stores
/// take them.
///
/// The chunks that go in may have any length; those that come out are the head and whole segments. It
/// holds one segment, and the chunk at hand. After an error it ends, and what came out reads as truncated.
///
/// Cancel-safe: dropping a future that waits for the next chunk loses nothing. Segments longer than
/// 256 KiB are sealed on tokio's blocking threads: polled without a tokio runtime, such a stream says so
/// in an error of kind [`InvalidInput`](crate::ErrorKind::InvalidInput). With shorter ones it runs on any
/// executor, and lets other tasks have their turn after each 256 KiB.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct EncryptStream<S, B> {
    plaintext: Chunks<S, B>,
    sealing: Sealing,
    ended: bool,
}

/// What is pinned is in a box.
impl<S, B> Unpin for EncryptStream<S, B> {}

impl<S, B> EncryptStream<S, B> {
    pub(crate) fn new(plaintext: S, sealer: Sealer) -> Self {
        Self { plaintext: Chunks::new(plaintext), sealing: Sealing::new(sealer), ended: false }
    }
}

impl Sealer {
    /// Gives away what must go out, in the memory that it stands in: the head, or a sealed segment.
    fn give_away(&mut self) -> Option<Vec<u8>> {
        if !self.head.is_empty() {
            return Some(std::mem::take(&mut self.head));
        }
        if self.sealed == 0 {
            return None;
        }
        let mut segment = std::mem::take(&mut *self.buffer);
        segment.truncate(self.sealed);
        (self.sealed, self.sent) = (0, 0);
        Some(segment)
    }
}

impl<S, B, E> EncryptStream<S, B>
where
    S: Stream<Item = Result<B, E>>,
    B: AsRef<[u8]>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            ready!(self.sealing.poll_settled(cx))?;
            if let Some(outgoing) = self.sealing.sealer.give_away() {
                return Poll::Ready(Ok(Some(Bytes::from(outgoing))));
            }
            if self.sealing.sealer.is_sealed() {
                return Poll::Ready(Ok(None));
            }
            let chunk = ready!(self.plaintext.poll_chunk(cx))?;
            if chunk.is_empty() {
                ready!(self.sealing.poll_seal_last(cx))?;
            } else {
                let count = ready!(self.sealing.poll_absorb(cx, chunk))?;
                self.plaintext.consume(count);
            }
        }
    }
}

impl<S, B, E> Stream for EncryptStream<S, B>
where
    S: Stream<Item = Result<B, E>>,
    B: AsRef<[u8]>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_outgoing(cx)).transpose();
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
