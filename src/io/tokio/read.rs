//! Decrypting [`AsyncRead`].

use super::opening::Opening;
use super::seek::Seeker;
use super::write::uninterrupted;
use crate::io::opener::{Need, Opener};
use crate::segments::ResumePoint;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// A reader that decrypts what it reads from `R`, without blocking, and
/// [seeks](tokio::io::AsyncSeek) where `R` does.
///
/// It hands out no byte before the segment that holds it has verified, and ends only after a verified
/// final segment with nothing behind it: an input that stops early is an error of kind
/// [`Truncated`](crate::ErrorKind::Truncated), one that goes on is
/// [`TrailingData`](crate::ErrorKind::TrailingData). [`Error::from_io`](crate::Error::from_io) gives the
/// structured error back. Memory: one segment.
///
/// After a seek, positions come from the input's length, whose end was verified by then; data that is
/// appended later is not seen.
///
/// # Cancelling
/// `read` loses and repeats nothing when its future is dropped; after an error of the input it may be
/// called again. A `seek` whose future is dropped is not undone: reads fail until another one succeeded.
///
/// # Executors
/// Segments longer than 256 KiB are opened on tokio's blocking threads, one at a time: polled without a
/// tokio runtime, such a reader says so in an error of kind
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), and goes on in one. With shorter segments it runs on
/// any executor. It lets other tasks have their turn after each 256 KiB, also if the input is always
/// ready.
pub struct AsyncDecryptReader<R> {
    pub(super) inner: R,
    pub(super) opening: Opening,
    pub(super) seeker: Seeker,
}

impl<R: AsyncRead + Unpin> AsyncDecryptReader<R> {
    pub(crate) fn new(inner: R, opener: Opener) -> Self {
        Self { inner, opening: Opening::new(opener), seeker: Seeker::default() }
    }

    /// The inner reader.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The plaintext byte that the next read gives. (`stream_position` of tokio is a seek, with all that
    /// the first one costs.)
    #[must_use]
    pub fn position(&self) -> u64 {
        self.opening.opener.position()
    }

    /// Where to go on if the input breaks here: a reader that
    /// [starts there](crate::Decryptor::into_async_reader_from) gives the bytes that this one has not
    /// given.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        self.opening.opener.resume_point()
    }

    /// Reads sealed bytes once, into the opener's room.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let opener = &mut self.opening.opener;
        let mut room = ReadBuf::new(opener.room());
        ready!(uninterrupted(|| Pin::new(&mut self.inner).poll_read(cx, &mut room)))?;
        let count = room.filled().len();
        Poll::Ready(Ok(opener.received(count)?))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for AsyncDecryptReader<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            this.seeker.check()?;
            ready!(this.opening.poll_settled(cx))?;
            let opener = &mut this.opening.opener;
            let ready = opener.ready();
            if !ready.is_empty() {
                let count = ready.len().min(out.remaining());
                out.put_slice(&ready[..count]);
                opener.taken(count);
                return Poll::Ready(Ok(()));
            }
            match opener.need()? {
                Need::Input => ready!(this.poll_receive(cx))?,
                Need::Open => {
                    // What the caller's buffer holds beyond a segment's plaintext is left alone.
                    let room = out.remaining().min(opener.layout().plaintext_per_segment());
                    let count = ready!(this.opening.poll_open(cx, out.initialize_unfilled_to(room)))?;
                    if count > 0 {
                        out.advance(count);
                        return Poll::Ready(Ok(()));
                    }
                }
                Need::Nothing => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<R> fmt::Debug for AsyncDecryptReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncDecryptReader").field("opening", &self.opening).finish_non_exhaustive()
    }
}
