//! A stream of a message, as a stream of its plaintext.

use super::chunks::Chunks;
use super::opening::Opening;
use crate::error::{Error, Result};
use crate::io::opener::{Need, Opener};
use crate::segments::ResumePoint;
use bytes::Bytes;
use futures_core::Stream;
use std::error::Error as StdError;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The plaintext of a message that comes as a stream, segment by segment, each once it has verified.
///
/// A clean end is an authenticated one: a stream that stops early is an error of kind
/// [`Truncated`](crate::ErrorKind::Truncated), one that goes on is
/// [`TrailingData`](crate::ErrorKind::TrailingData). After an error it ends. It holds one segment, and the
/// chunk at hand; each segment's plaintext is handed out in the memory that it was opened in.
///
/// Cancel-safe: dropping a future that waits for the next chunk loses nothing. Segments longer than
/// 256 KiB are opened on tokio's blocking threads: polled without a tokio runtime, such a stream says so
/// in an error of kind [`InvalidInput`](crate::ErrorKind::InvalidInput). With shorter ones it runs on any
/// executor, and lets other tasks have their turn after each 256 KiB.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct DecryptStream<S, B> {
    sealed: Chunks<S, B>,
    opening: Opening,
    ended: bool,
}

/// What is pinned is in a box.
impl<S, B> Unpin for DecryptStream<S, B> {}

impl<S, B> DecryptStream<S, B> {
    pub(crate) fn new(sealed: Chunks<S, B>, opener: Opener) -> Self {
        Self { sealed, opening: Opening::new(opener), ended: false }
    }

    /// Where to go on if the stream broke: behind the plaintext that was handed out.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        self.opening.opener.resume_point()
    }
}

impl Opener {
    /// Gives the buffer away with the plaintext that is ready in it, if there is any.
    fn give_away(&mut self) -> Option<(Vec<u8>, Range<usize>)> {
        if self.ready.is_empty() {
            return None;
        }
        let ready = std::mem::replace(&mut self.ready, 0..0);
        self.position += ready.len() as u64;
        Some((std::mem::take(&mut *self.buffer), ready))
    }
}

impl<S, B, E> DecryptStream<S, B>
where
    S: Stream<Item = Result<B, E>>,
    B: AsRef<[u8]>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            ready!(self.opening.poll_settled(cx))?;
            let opener = &mut self.opening.opener;
            if let Some((buffer, plaintext)) = opener.give_away() {
                return Poll::Ready(Ok(Some(Bytes::from(buffer).slice(plaintext))));
            }
            match opener.need()? {
                Need::Input => {
                    let count = ready!(self.sealed.poll_read(cx, opener.room()))?;
                    opener.received(count)?;
                }
                Need::Open => {
                    ready!(self.opening.poll_open(cx, &mut []))?;
                }
                Need::Nothing => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl<S, B, E> Stream for DecryptStream<S, B>
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
        let next = ready!(this.poll_plaintext(cx)).transpose();
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
