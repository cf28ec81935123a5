//! Encrypting [`Write`]: the shell that carries what a [`Sealer`] makes into a writer.

use crate::error::Error;
use crate::io::sealer::Sealer;
use std::fmt;
use std::io::{self, Write};

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
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), and nothing more can be written there.
#[must_use = "without `finish`, what is written reads as truncated"]
pub struct EncryptWriter<W: Write> {
    inner: W,
    sealer: Sealer,
}

impl<W: Write> EncryptWriter<W> {
    pub(crate) fn new(inner: W, sealer: Sealer) -> Self {
        Self { inner, sealer }
    }

    /// Seals and writes the final segment, flushes, and gives the inner writer back.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned; the inner writer is in the error.
    pub fn finish(mut self) -> Result<W, FinishError<W>> {
        match self.try_finish() {
            Ok(()) => Ok(self.inner),
            Err(error) => Err(FinishError::new(error.into(), self.inner)),
        }
    }

    /// As [`finish`](Self::finish), for inner writers that may not block: call it again after
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), then `finish`. The final segment is sealed once.
    ///
    /// # Errors
    /// What the inner writer or the system's randomness returned.
    pub fn try_finish(&mut self) -> io::Result<()> {
        self.sealer.check()?;
        self.drain()?;
        self.sealer.seal_last()?;
        self.drain()?;
        loop {
            // Nobody stands above this call who would repeat it, as `write_all` does.
            match self.inner.flush() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                flushed => return flushed,
            }
        }
    }

    /// The inner writer.
    pub fn inner(&self) -> &W {
        &self.inner
    }

    /// Sends what must go out, and keeps count of it, also when that fails midway.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let outgoing = self.sealer.outgoing();
            if outgoing.is_empty() {
                return Ok(());
            }
            match self.inner.write(outgoing) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sealer.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sealer.check_writable()?;
        self.drain()?;
        let mut taken = 0;
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += self.sealer.absorb(rest)?;
            match self.drain() {
                // These bytes are taken, and what is sealed stays to be sent: the next call meets the
                // error again.
                Err(_) if taken > 0 => break,
                drained => drained?,
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sealer.check()?;
        self.drain()?;
        self.inner.flush()
    }
}

impl<W: Write> fmt::Debug for EncryptWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptWriter").field("sealer", &self.sealer).finish_non_exhaustive()
    }
}

/// A message that could not be finished, and the inner writer.
pub struct FinishError<W> {
    error: Error,
    inner: W,
}

impl<W> FinishError<W> {
    pub(super) fn new(error: Error, inner: W) -> Self {
        Self { error, inner }
    }

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
