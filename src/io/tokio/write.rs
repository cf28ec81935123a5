//! Encrypting [`AsyncWrite`].

use super::sealing::Sealing;
use crate::io::sealer::Sealer;
use crate::io::write::FinishError;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A writer that encrypts what is written to it into `W`, without blocking.
///
/// Call [`finish`](Self::finish), or `shutdown` where the inner writer is to be shut down too: either
/// writes the final segment. Without it the message reads as truncated, so that a program that stops
/// halfway never leaves something that looks whole.
///
/// Whole segments go to the inner writer in one call. What was sealed goes out from where it stopped,
/// after `Pending` as after an error, and is never sealed twice. `flush` sends sealed segments on; a
/// partly filled segment stays until the end. Memory: one segment. As
/// [`EncryptWriter`](crate::EncryptWriter), it serves the process that began the message, and no fork.
///
/// # Cancelling
/// `write`, `write_all`, `flush`, `shutdown` and [`try_finish`](Self::try_finish) lose and repeat nothing
/// that they took when their futures are dropped. How much a dropped `write_all` took is not known, as
/// with every writer: `write` says it. Dropping the future of [`finish`](Self::finish) drops the writer.
///
/// # Executors
/// Segments longer than 256 KiB are sealed on tokio's blocking threads, one at a time: polled without a
/// tokio runtime, such a writer says so in an error of kind
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), and goes on in one. With shorter segments it runs on
/// any executor. It lets other tasks have their turn after each 256 KiB, also if the inner writer is
/// always ready.
#[must_use = "without `finish` or `shutdown`, what is written reads as truncated"]
pub struct AsyncEncryptWriter<W> {
    inner: W,
    sealing: Sealing,
    shut_down: bool,
}

impl<W: AsyncWrite + Unpin> AsyncEncryptWriter<W> {
    pub(crate) fn new(inner: W, sealer: Sealer) -> Self {
        Self { inner, sealing: Sealing::new(sealer), shut_down: false }
    }

    /// Seals and writes the final segment, flushes, and gives the inner writer back, which is not shut
    /// down.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned; the inner writer is in the error.
    pub async fn finish(mut self) -> Result<W, FinishError<W>> {
        match self.try_finish().await {
            Ok(()) => Ok(self.inner),
            Err(error) => Err(FinishError::new(error.into(), self.inner)),
        }
    }

    /// As [`finish`](Self::finish), by reference: after an error it may be called again, then `finish`.
    /// The final segment is sealed once. Cancel-safe.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned.
    pub async fn try_finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// The inner writer.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(self.sealing.poll_seal_last(cx))?;
        ready!(self.poll_drain(cx))?;
        if self.shut_down {
            return Poll::Ready(Ok(()));
        }
        uninterrupted(|| Pin::new(&mut self.inner).poll_flush(cx))
    }

    /// Waits for the segment that is being sealed, and sends what must go out.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.sealing.poll_settled(cx))?;
        loop {
            let outgoing = self.sealing.sealer.outgoing();
            if outgoing.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match ready!(uninterrupted(|| Pin::new(&mut self.inner).poll_write(cx, outgoing)))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sealing.sealer.sent(count),
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncEncryptWriter<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            ready!(this.sealing.poll_settled(cx))?;
            this.sealing.sealer.check_writable()?;
            ready!(this.poll_drain(cx))?;
            if data.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let count = ready!(this.sealing.poll_absorb(cx, data))?;
            if count > 0 {
                // These bytes are taken. What was just sealed goes on its way if it can; if not, the next
                // call meets the same again.
                let _ = this.poll_drain(cx);
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    /// Completes the message, once, and shuts the inner writer down, once; then does nothing more. After
    /// `Pending` and after an error it goes on where it stopped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut_down {
            ready!(this.poll_finish(cx))?;
            ready!(uninterrupted(|| Pin::new(&mut this.inner).poll_shutdown(cx)))?;
            this.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<W> fmt::Debug for AsyncEncryptWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEncryptWriter").field("sealing", &self.sealing).finish_non_exhaustive()
    }
}

/// Repeats a call that a signal interrupted.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
