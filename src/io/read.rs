//! Decrypting [`Read`]: one segment at a time, handed out once its tag has verified.

use crate::error::{Error, ErrorKind};
use crate::segments::{Extent, Peek, Segments};
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroize;

/// A reader that decrypts what it reads from `R`, and [seeks](std::io::Seek) where `R` does.
///
/// It hands out no byte before the segment that holds it has verified, and ends only after a verified
/// final segment with nothing behind it: an input that stops early is an error of kind
/// [`Truncated`](ErrorKind::Truncated), one that goes on is
/// [`TrailingData`](ErrorKind::TrailingData). [`Error::from_io`] gives the structured error back.
///
/// After a seek, positions come from the input's length, whose end was verified by then; data that is
/// appended later is not seen.
pub struct DecryptReader<R> {
    pub(super) inner: R,
    pub(super) segments: Arc<dyn Segments>,
    /// One segment: sealed bytes as they come in, then its plaintext in place.
    pub(super) buffer: Vec<u8>,
    /// Sealed bytes of the next segment in `buffer`.
    have: usize,
    /// Plaintext in `buffer` that the caller has not taken.
    pub(super) ready: Range<usize>,
    /// The next segment to read.
    pub(super) next: u64,
    /// Bytes of plaintext of the next segment that a seek jumped over.
    pub(super) skip: usize,
    /// Bytes of the body read from `inner`: where the body starts, for a first seek.
    pub(super) consumed: u64,
    /// Where the body starts in `inner`, known once a seek has asked.
    pub(super) body_start: Option<u64>,
    /// The plaintext byte that the next read gives.
    pub(super) position: u64,
    /// Known once a seek has verified the end.
    pub(super) extent: Option<Sized>,
    pub(super) state: State,
}

/// A body whose end was verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sized {
    pub(super) body_start: u64,
    pub(super) extent: Extent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// The final segment verified and filled the buffer: whether bytes follow is not known.
    Final,
    /// Verified to the end.
    Ended,
    /// A seek failed after it had moved the input, which no longer stands where the next segment is.
    Lost,
    Failed(ErrorKind, u64),
}

impl<R: Read> DecryptReader<R> {
    pub(crate) fn new(inner: R, segments: Arc<dyn Segments>) -> Self {
        Self {
            inner,
            segments,
            buffer: Vec::new(),
            have: 0,
            ready: 0..0,
            next: 0,
            skip: 0,
            consumed: 0,
            body_start: None,
            position: 0,
            extent: None,
            state: State::Open,
        }
    }

    /// The inner reader.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// Reads sealed bytes until `buffer` holds `len` of them or the input ends.
    pub(super) fn fill(&mut self, len: usize) -> io::Result<()> {
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        while let Some(room) = self.buffer.get_mut(self.have..len).filter(|room| !room.is_empty()) {
            match self.inner.read(room) {
                Ok(0) => break,
                Ok(count) => {
                    self.have += count;
                    self.consumed += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the sealed bytes of the next segment, and tells where it stands and how long it is.
    pub(super) fn fetch(&mut self) -> io::Result<Peek> {
        let layout = self.segments.layout();
        let wanted = self.extent.map_or(layout.segment_len(), |it| it.extent.sealed_len(self.next, &layout));
        self.fill(wanted)?;
        let sealed = self.buffer.get(..self.have).unwrap_or_default();
        let start = sealed.first_chunk().ok_or_else(|| Error::truncated().with_segment(self.next))?;
        let peek = self.segments.peek(self.next, *start)?;
        let expected = self.extent.map(|it| it.extent.position(self.next));
        match expected {
            // The length says final and the prefix not: the rest was cut off at a segment's edge.
            Some(at) if at.last && !peek.at.last => Err(Error::truncated().with_segment(self.next).into()),
            Some(_) if sealed.len() < wanted => Err(Error::truncated().with_segment(self.next).into()),
            Some(at) if at != peek.at || peek.len != wanted => {
                Err(Error::authentication().with_segment(self.next).into())
            }
            _ if sealed.len() < peek.len => Err(Error::truncated().with_segment(self.next).into()),
            _ => Ok(peek),
        }
    }

    /// Opens the next segment: straight into `out` if that has room for all of it, else in place.
    /// Returns the bytes put into `out`.
    fn advance(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let peek = self.fetch()?;
        let plaintext_len = peek.len - self.segments.layout().overhead();
        let segment = self.buffer.get_mut(..peek.len).unwrap_or_default();
        let direct = out.get_mut(..plaintext_len).filter(|_| self.skip == 0);
        let count = match direct {
            Some(out) => {
                self.segments.open_to(peek.at, segment, out)?;
                plaintext_len
            }
            None => {
                self.segments.open_in_place(peek.at, segment)?;
                let start = self.segments.plaintext_at();
                self.ready = start + self.skip.min(plaintext_len)..start + plaintext_len;
                0
            }
        };
        let followed = self.have > peek.len;
        (self.have, self.skip) = (0, 0);
        self.next += 1;
        if peek.at.last {
            self.state = match self.extent {
                _ if followed => State::Failed(ErrorKind::TrailingData, peek.at.index),
                None if peek.len == self.segments.layout().segment_len() => State::Final,
                _ => State::Ended,
            };
        }
        Ok(count)
    }

    /// After a final segment that filled the buffer: does anything follow?
    fn probe(&mut self) -> io::Result<()> {
        let mut byte = [0];
        loop {
            match self.inner.read(&mut byte) {
                Ok(0) => {
                    self.state = State::Ended;
                    return Ok(());
                }
                Ok(count) => {
                    self.consumed += count as u64;
                    return Err(Error::trailing_data().into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Forgets what was read ahead, before the inner reader is moved.
    pub(super) fn forget(&mut self) {
        self.buffer.zeroize();
        self.have = 0;
        self.ready = 0..0;
        self.skip = 0;
    }

    fn step(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Open => self.advance(out),
            State::Final => self.probe().map(|()| 0),
            State::Ended => Ok(0),
            State::Failed(kind, segment) => Err(failed(kind, segment).into()),
            State::Lost => Err(io::Error::other("a seek failed before: seek again, then read")),
        }
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.ready.is_empty() {
                let plaintext = self.buffer.get(self.ready.clone()).unwrap_or_default();
                let count = plaintext.len().min(out.len());
                out[..count].copy_from_slice(&plaintext[..count]);
                self.ready.start += count;
                self.position += count as u64;
                return Ok(count);
            }
            match self.step(out) {
                Ok(0) if self.state == State::Ended && self.ready.is_empty() => return Ok(0),
                Ok(0) => {}
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) => {
                    // A fault of the bytes stays; a fault of the input may pass, and what was read is kept.
                    if let Some(ours) = Error::from_io(&error) {
                        self.state = State::Failed(ours.kind(), ours.segment().unwrap_or(self.next));
                        self.buffer.zeroize();
                        self.have = 0;
                    }
                    return Err(error);
                }
            }
        }
    }
}

impl<R> Drop for DecryptReader<R> {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

impl<R> fmt::Debug for DecryptReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptReader")
            .field("segments", &self.segments)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The error that was met, again.
pub(super) fn failed(kind: ErrorKind, segment: u64) -> Error {
    match kind {
        ErrorKind::Truncated => Error::truncated(),
        ErrorKind::TrailingData => Error::trailing_data(),
        ErrorKind::AuthenticationFailed => Error::authentication(),
        other => Error::new(other, "this message could not be decrypted further"),
    }
    .with_segment(segment)
}
