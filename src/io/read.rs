//! Decrypting [`Read`]: the shell that brings an [`Opener`] its sealed bytes out of a reader.

use crate::io::opener::{Need, Opener};
use crate::segments::ResumePoint;
use std::fmt;
use std::io::{self, Read};

/// A reader that decrypts what it reads from `R`, and [seeks](std::io::Seek) where `R` does.
///
/// It hands out no byte before the segment that holds it has verified, and ends only after a verified
/// final segment with nothing behind it: an input that stops early is an error of kind
/// [`Truncated`](crate::ErrorKind::Truncated), one that goes on is
/// [`TrailingData`](crate::ErrorKind::TrailingData). [`Error::from_io`](crate::Error::from_io) gives the structured error back.
///
/// After a seek, positions come from the input's length, whose end was verified by then; data that is
/// appended later is not seen.
pub struct DecryptReader<R> {
    pub(super) inner: R,
    pub(super) opener: Opener,
}

impl<R: Read> DecryptReader<R> {
    pub(crate) fn new(inner: R, opener: Opener) -> Self {
        Self { inner, opener }
    }

    /// The inner reader.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// Where to go on if the input breaks here: a reader that
    /// [starts there](crate::Decryptor::into_reader_from) gives the bytes that this one has not given.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        self.opener.resume_point()
    }

    /// Reads sealed bytes once, into the opener's room.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.inner.read(self.opener.room()) {
                Ok(count) => return Ok(self.opener.received(count)?),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.opener.take(out);
            if count > 0 {
                return Ok(count);
            }
            match self.opener.need()? {
                Need::Input => self.receive()?,
                Need::Open => {
                    let count = self.opener.open(out)?;
                    if count > 0 {
                        return Ok(count);
                    }
                }
                Need::Nothing => return Ok(0),
            }
        }
    }
}

impl<R> fmt::Debug for DecryptReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptReader").field("opener", &self.opener).finish_non_exhaustive()
    }
}
