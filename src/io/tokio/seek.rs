//! [`AsyncSeek`] for the decrypting reader, over inputs that seek.

use super::read::AsyncDecryptReader;
use crate::io::opener::{Need, lost};
use crate::io::seeking::Step;
use std::future::poll_fn;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncSeek};

/// What was asked of the reader, and of its input.
#[derive(Debug, Default)]
pub(super) struct Seeker {
    /// A seek that has not begun: a segment may still be in the making.
    wanted: Option<SeekFrom>,
    inner: Inner,
}

/// Whether the input is moving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inner {
    #[default]
    Still,
    Moving,
    /// For a seek that was given up: its answer is nobody's.
    Stray,
}

impl Seeker {
    /// # Errors
    /// If a seek was not waited for.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.wanted.is_some() { Err(lost().into()) } else { Ok(()) }
    }
}

/// The first seek reads and verifies the final segment, and so the length.
///
/// A seek that fails keeps the position where it can: one to before the start does. After any other
/// failed seek, and after one that was not waited for, reads fail, until a seek succeeds.
impl<R: AsyncRead + AsyncSeek + Unpin> AsyncSeek for AsyncDecryptReader<R> {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        self.get_mut().seeker.wanted = Some(to);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let this = self.get_mut();
        loop {
            let was_seeking = this.opening.opener.is_seeking();
            let settled = ready!(this.opening.poll_settled(cx));
            if let Some(to) = this.seeker.wanted.take() {
                // What became of a segment for a read or another seek is not this seek's business; a
                // failure of the bytes stays in the opener.
                this.opening.opener.begin_seek(to);
                if this.seeker.inner == Inner::Moving {
                    this.seeker.inner = Inner::Stray;
                }
            } else if was_seeking {
                settled?;
            }
            let step = match this.opening.opener.seek_step()? {
                Step::Done(position) => return Poll::Ready(Ok(position)),
                Step::Ask => ready!(this.poll_move(cx, SeekFrom::Current(0))).map(Some),
                Step::Move(to) => ready!(this.poll_move(cx, to)).map(Some),
                Step::Segment(Need::Input) => ready!(this.poll_receive(cx)).map(|()| None),
                Step::Segment(Need::Open | Need::Nothing) => {
                    ready!(this.opening.poll_open(cx, &mut []))?;
                    Ok(None)
                }
            };
            match step {
                Ok(Some(place)) => this.opening.opener.moved(place)?,
                Ok(None) => {}
                Err(error) => {
                    this.opening.opener.abandon_seek();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl<R: AsyncRead + AsyncSeek + Unpin> AsyncDecryptReader<R> {
    /// Length of the plaintext, by a verified final segment. Keeps the position; if the future is dropped
    /// midway, reads fail until a seek succeeded.
    ///
    /// # Errors
    /// [`Truncated`](crate::ErrorKind::Truncated),
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed), or what the input returned.
    pub async fn verified_len(&mut self) -> io::Result<u64> {
        poll_fn(|cx| Pin::new(&mut *self).poll_complete(cx)).await?;
        Pin::new(&mut *self).start_seek(SeekFrom::Current(0))?;
        poll_fn(|cx| Pin::new(&mut *self).poll_complete(cx)).await?;
        self.opening.opener.extent.map(|extent| extent.plaintext_len).ok_or_else(|| lost().into())
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, to: SeekFrom) -> Poll<io::Result<u64>> {
        let mut inner = Pin::new(&mut self.inner);
        if self.seeker.inner != Inner::Moving {
            // The trait's rule: what is under way ends before another seek starts.
            let before = ready!(inner.as_mut().poll_complete(cx));
            if self.seeker.inner == Inner::Still {
                before?;
            }
            self.seeker.inner = Inner::Still;
            inner.as_mut().start_seek(to)?;
            self.seeker.inner = Inner::Moving;
        }
        let place = ready!(inner.poll_complete(cx));
        self.seeker.inner = Inner::Still;
        Poll::Ready(place)
    }
}
