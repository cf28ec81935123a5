//! Encrypting [`Write`]: plaintext gathers in one segment buffer and is sealed there.

use crate::crypto::random::SegmentIvs;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{Position, Segments};
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// A writer that encrypts what is written to it into `W`.
///
/// Call [`finish`](Self::finish): it writes the final segment. Without it the message reads as
/// truncated, so that a program that stops halfway never leaves something that looks whole.
///
/// Whole segments go to the inner writer in one call. A call that fails with
/// [`WouldBlock`](io::ErrorKind::WouldBlock) or another error may be repeated: what was sealed goes
/// out from where it stopped and is never sealed twice. [`flush`](Write::flush) sends sealed segments
/// on; a partly filled segment stays until `finish`.
///
/// It serves the process that began the message: in a fork of that, sealing answers with an error of kind
/// [`InvalidInput`](ErrorKind::InvalidInput), and nothing more can be written there.
#[must_use = "without `finish`, what is written reads as truncated"]
pub struct EncryptWriter<W: Write> {
    inner: W,
    segments: Arc<dyn Segments>,
    ivs: SegmentIvs,
    /// The message head, until the inner writer has taken it.
    head: Vec<u8>,
    head_sent: usize,
    /// One segment: plaintext in its place, or sealed bytes on their way out.
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes of plaintext gathered in `buffer`.
    filled: usize,
    /// Bytes of `buffer` that are sealed and must go out, and how many have.
    sealed: usize,
    sent: usize,
    index: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The final segment is sealed; what remains is to send it.
    Sealed,
    /// Sealing failed: the message cannot be completed.
    Failed(ErrorKind),
}

impl<W: Write> EncryptWriter<W> {
    pub(crate) fn new(inner: W, head: Vec<u8>, segments: Arc<dyn Segments>, ivs: SegmentIvs) -> Self {
        Self {
            inner,
            segments,
            ivs,
            head,
            head_sent: 0,
            buffer: Zeroizing::default(),
            filled: 0,
            sealed: 0,
            sent: 0,
            index: 0,
            state: State::Open,
        }
    }

    /// Seals and writes the final segment, flushes, and gives the inner writer back.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned; the inner writer is in the error.
    pub fn finish(mut self) -> Result<W, FinishError<W>> {
        match self.try_finish() {
            Ok(()) => Ok(self.inner),
            Err(error) => Err(FinishError { error: error.into(), inner: self.inner }),
        }
    }

    /// As [`finish`](Self::finish), for inner writers that may not block: call it again after
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), then `finish`. The final segment is sealed once.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned.
    pub fn try_finish(&mut self) -> io::Result<()> {
        self.check()?;
        self.drain()?;
        if self.state == State::Open {
            self.seal_buffered(Last::Yes)?;
        }
        self.drain()?;
        self.inner.flush()
    }

    /// The inner writer.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    fn check(&self) -> io::Result<()> {
        match self.state {
            State::Failed(kind) => Err(Error::new(kind, "this message could not be encrypted further")
                .with_advice("start a new message")
                .into()),
            State::Open | State::Sealed => Ok(()),
        }
    }

    /// Sends what is sealed and has not gone out.
    fn drain(&mut self) -> io::Result<()> {
        send(&mut self.inner, &self.head, &mut self.head_sent)?;
        send(&mut self.inner, self.buffer.get(..self.sealed).unwrap_or_default(), &mut self.sent)?;
        (self.sealed, self.sent) = (0, 0);
        Ok(())
    }

    /// Takes some of `data`, at least one byte of it.
    fn take(&mut self, data: &[u8]) -> io::Result<usize> {
        let layout = self.segments.layout();
        let full = layout.plaintext_per_segment();
        self.buffer.resize(layout.segment_len(), 0);
        if self.filled == full {
            // More data follows, so that this segment is not the final one.
            self.seal_buffered(Last::No)?;
            self.drain()?;
        }
        let mut taken = 0;
        while self.filled == 0 && data.len() - taken > full {
            let plaintext = data.get(taken..taken + full).unwrap_or_default();
            self.seal(Last::No, Some(plaintext), layout.segment_len())?;
            taken += full;
            if self.drain().is_err() {
                // These bytes are sealed and stay to be sent: the next call meets the error again.
                return Ok(taken);
            }
        }
        let rest = data.get(taken..).unwrap_or_default();
        let start = self.segments.plaintext_at() + self.filled;
        let end = self.segments.plaintext_at() + full;
        let room = self.buffer.get_mut(start..end).unwrap_or_default();
        let count = room.len().min(rest.len());
        room[..count].copy_from_slice(&rest[..count]);
        self.filled += count;
        Ok(taken + count)
    }

    fn seal_buffered(&mut self, last: Last) -> Result<()> {
        let len = self.filled + self.segments.layout().overhead();
        let room = self.buffer.len().max(len);
        self.buffer.resize(room, 0);
        self.seal(last, None, len)
    }

    /// Seals `plaintext`, or what lies in the buffer, into the first `len` bytes of the buffer.
    fn seal(&mut self, last: Last, plaintext: Option<&[u8]>, len: usize) -> Result<()> {
        let at = Position { index: self.index, last: last == Last::Yes };
        let segment = self.buffer.get_mut(..len).unwrap_or_default();
        let sealed = self.ivs.next().and_then(|iv| match plaintext {
            Some(plaintext) => self.segments.seal_to(at, &iv, plaintext, segment),
            None => self.segments.seal_in_place(at, &iv, segment),
        });
        if let Err(error) = sealed {
            self.buffer.zeroize();
            self.state = State::Failed(error.kind());
            return Err(error);
        }
        (self.sealed, self.sent, self.filled) = (len, 0, 0);
        self.index += 1;
        if last == Last::Yes {
            self.state = State::Sealed;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        if self.state == State::Sealed {
            return Err(Error::invalid_input("the message is finished: nothing can be written to it").into());
        }
        self.drain()?;
        if data.is_empty() { Ok(0) } else { self.take(data) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.drain()?;
        self.inner.flush()
    }
}

impl<W: Write> fmt::Debug for EncryptWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptWriter")
            .field("segments", &self.segments)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// A message that could not be finished, and the inner writer.
pub struct FinishError<W> {
    error: Error,
    inner: W,
}

impl<W> FinishError<W> {
    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The error and the inner writer, which holds a truncated message.
    pub fn into_parts(self) -> (Error, W) {
        (self.error, self.inner)
    }
}

impl<W> fmt::Debug for FinishError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<W> fmt::Display for FinishError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<W> std::error::Error for FinishError<W> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl<W> From<FinishError<W>> for Error {
    fn from(error: FinishError<W>) -> Self {
        error.error
    }
}

impl<W> From<FinishError<W>> for io::Error {
    fn from(error: FinishError<W>) -> Self {
        error.error.into()
    }
}

/// Sends `bytes` from `*sent` on, and counts there what went out, also when it fails midway.
fn send(inner: &mut impl Write, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        match inner.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
