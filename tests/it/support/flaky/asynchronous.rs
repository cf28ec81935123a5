//! The same difficult inputs and outputs, on tokio's traits: what would block answers `Pending`.

use super::Flaky;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

impl<T> Flaky<T> {
    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

impl<T: Read + Unpin> AsyncRead for Flaky<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_call(cx))?;
        let size = this.size(out.remaining());
        let count = this.inner.read(out.initialize_unfilled_to(size))?;
        out.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> AsyncWrite for Flaky<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_call(cx))?;
        let size = this.size(bytes.len());
        Poll::Ready(this.inner.write(&bytes[..size]))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_call(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_call(cx))?;
        this.shutdowns += 1;
        Poll::Ready(Ok(()))
    }
}

impl<T: Seek + Unpin> AsyncSeek for Flaky<T> {
    /// Moves at once; whether that succeeded is told later, as the trait has it.
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.get_mut().inner.seek(to).map(drop)
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let this = self.get_mut();
        ready!(this.poll_call(cx))?;
        Poll::Ready(this.inner.stream_position())
    }
}
