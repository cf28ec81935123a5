//! The reading of a message as a state machine without I/O: sealed bytes go in, verified plaintext
//! comes out.
//!
//! What each shell does: [take](Opener::take) plaintext that is ready; else do what the opener
//! [needs](Opener::need) next. `seeking` is the part of it that moves about.

use crate::error::{Error, ErrorKind, Result};
use crate::io::seeking::Seek;
use crate::segments::{Extent, Layout, Peek, ResumePoint, Segments};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// One message being read. No byte leaves before the segment that holds it has verified, and there is
/// no end before a verified final segment with nothing behind it.
pub(crate) struct Opener {
    pub(super) segments: Arc<dyn Segments>,
    /// One segment: sealed bytes as they come in, then its plaintext in place.
    pub(super) buffer: Zeroizing<Vec<u8>>,
    /// Sealed bytes of the next segment in `buffer`.
    pub(super) have: usize,
    /// The input ended, with `have` bytes of the next segment.
    input_ended: bool,
    /// Plaintext in `buffer` that the caller has not taken.
    pub(super) ready: Range<usize>,
    /// The next segment to read.
    pub(super) next: u64,
    /// Bytes of plaintext of the next segment that are not wanted: a seek or a resumption jumped over them.
    pub(super) skip: usize,
    /// Bytes of the body up to where the input stands: where the body starts, for a first seek.
    pub(super) consumed: u64,
    /// The plaintext byte that is taken next.
    pub(super) position: u64,
    /// Where the body starts in the input, known once a seek has asked.
    pub(super) body_start: Option<u64>,
    /// Known once a seek has verified the end, or is about to.
    pub(super) extent: Option<Extent>,
    pub(super) seek: Option<Seek>,
    pub(super) state: State,
    /// Where an input is asked for one more byte.
    probe: [u8; 1],
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

/// What an [`Opener`] that has no plaintext ready needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Sealed bytes in its [room](Opener::room).
    Input,
    /// That the next segment is opened: all of it is there.
    Open,
    /// Nothing: this is the message's authenticated end.
    Nothing,
}

/// A segment to be opened, for whoever computes: the buffer, moved out of its [`Opener`].
pub(super) struct OpenJob {
    buffer: Zeroizing<Vec<u8>>,
    peek: Peek,
}

/// A segment that was opened, or failed to be; its [`Opener`] takes it back.
pub(super) struct OpenedJob {
    job: OpenJob,
    result: Result<()>,
}

impl OpenJob {
    /// Opens the segment in place.
    pub(super) fn run(mut self, segments: &dyn Segments) -> OpenedJob {
        let segment = self.buffer.get_mut(..self.peek.len).unwrap_or_default();
        let result = segments.open_in_place(self.peek.at, segment);
        OpenedJob { job: self, result }
    }
}

impl Opener {
    /// For an input that stands at the first segment.
    pub(crate) fn new(segments: Arc<dyn Segments>) -> Self {
        Self {
            segments,
            buffer: Zeroizing::default(),
            have: 0,
            input_ended: false,
            ready: 0..0,
            next: 0,
            skip: 0,
            consumed: 0,
            position: 0,
            body_start: None,
            extent: None,
            seek: None,
            state: State::Open,
            probe: [0],
        }
    }

    /// For an input that stands at the segment that `point` names.
    ///
    /// # Errors
    /// Kind InvalidInput if no such segment is in a message of this layout.
    pub(crate) fn resuming(segments: Arc<dyn Segments>, point: ResumePoint) -> Result<Self> {
        let layout = segments.layout();
        let skip = point.skip(&layout)?;
        let mut opener = Self::new(segments);
        (opener.next, opener.skip) = (point.segment(), skip);
        (opener.position, opener.consumed) = (point.plaintext_offset(), point.sealed_offset());
        Ok(opener)
    }

    /// Copies plaintext that is ready, and tells how much.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let plaintext = self.ready();
        let count = plaintext.len().min(out.len());
        out[..count].copy_from_slice(&plaintext[..count]);
        self.taken(count);
        count
    }

    /// Verified plaintext that nobody has taken.
    pub(super) fn ready(&self) -> &[u8] {
        if self.is_seeking() {
            return &[];
        }
        self.buffer.get(self.ready.clone()).unwrap_or_default()
    }

    /// Tells that `count` bytes of what is [ready](Self::ready) are taken.
    pub(super) fn taken(&mut self, count: usize) {
        self.ready.start += count;
        self.position += count as u64;
    }

    /// What is needed, when nothing is ready.
    ///
    /// # Errors
    /// The one that reading failed with, again; or that a seek lost the place.
    pub(super) fn need(&self) -> Result<Need> {
        match self.state {
            _ if self.is_seeking() => Err(lost()),
            State::Open => Ok(self.need_of_segment()),
            State::Final => Ok(Need::Input),
            State::Ended => Ok(Need::Nothing),
            State::Failed(kind, segment) => Err(failed(kind, segment)),
            State::Lost => Err(lost()),
        }
    }

    /// What is needed to bring in and open the next segment, whatever the state.
    pub(super) fn need_of_segment(&self) -> Need {
        if self.have < self.wanted() && !self.input_ended { Need::Input } else { Need::Open }
    }

    /// Sealed length of the next segment: as the verified length says, else at most.
    fn wanted(&self) -> usize {
        let layout = self.segments.layout();
        self.extent.map_or(layout.segment_len(), |extent| extent.sealed_len(self.next, &layout))
    }

    /// Where sealed bytes go, as many as are wanted.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.state == State::Final {
            return &mut self.probe;
        }
        let wanted = self.wanted();
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.buffer.get_mut(self.have..wanted).unwrap_or_default()
    }

    /// Tells that the input put `count` bytes into the [room](Self::room); 0 is its end.
    ///
    /// # Errors
    /// Kind TrailingData for a byte after the final segment.
    pub(super) fn received(&mut self, count: usize) -> Result<()> {
        self.consumed += count as u64;
        match (self.state, count) {
            (State::Final, 0) => self.state = State::Ended,
            (State::Final, _) => return Err(self.fail(Error::trailing_data().with_segment(self.next - 1))),
            (_, 0) => self.input_ended = true,
            _ => self.have += count,
        }
        Ok(())
    }

    /// Opens the next segment: straight into `out` if that has room for all of it, else in place, where
    /// it is then [ready](Self::ready). Returns the bytes put into `out`.
    pub(super) fn open(&mut self, out: &mut [u8]) -> Result<usize> {
        let peek = self.peek().map_err(|error| self.fail(error))?;
        let plaintext_len = peek.len - self.segments.layout().overhead();
        match out.get_mut(..plaintext_len).filter(|_| self.skip == 0 && !self.is_seeking()) {
            Some(out) => {
                let segment = self.buffer.get(..peek.len).unwrap_or_default();
                self.segments.open_to(peek.at, segment, out).map_err(|error| self.fail(error))?;
                self.pass(peek);
                self.position += plaintext_len as u64;
                Ok(plaintext_len)
            }
            None => {
                let opened = self.begin()?.run(&*self.segments);
                self.complete(opened).map(|()| 0)
            }
        }
    }

    /// The first half of opening a segment in place: [`complete`](Self::complete) is the second.
    pub(super) fn begin(&mut self) -> Result<OpenJob> {
        let peek = self.peek().map_err(|error| self.fail(error))?;
        let buffer = std::mem::take(&mut self.buffer);
        Ok(OpenJob { buffer, peek })
    }

    /// Takes the buffer of a job back; its plaintext is then [ready](Self::ready).
    pub(super) fn complete(&mut self, opened: OpenedJob) -> Result<()> {
        self.buffer = opened.job.buffer;
        opened.result.map_err(|error| self.fail(error))?;
        let peek = opened.job.peek;
        if self.is_seeking() {
            // That it verifies is all that was wanted of this segment.
            self.forget();
            self.end_verified();
            return Ok(());
        }
        let start = self.segments.plaintext_at();
        let len = peek.len - self.segments.layout().overhead();
        if self.skip > len {
            return Err(self.fail(Error::invalid_input("the point to resume from lies past the end of the message")));
        }
        self.ready = start + self.skip..start + len;
        self.pass(peek);
        Ok(())
    }

    /// Where the next segment stands, and how long it is: by its first bytes, and by the length of the
    /// message where that is known.
    fn peek(&self) -> Result<Peek> {
        let truncated = || Error::truncated().with_segment(self.next);
        let sealed = self.buffer.get(..self.have).unwrap_or_default();
        let start = sealed.first_chunk().ok_or_else(truncated)?;
        let peek = self.segments.peek(self.next, *start)?;
        match self.extent.map(|extent| extent.position(self.next)) {
            // The length says final and the prefix not: the rest was cut off at a segment's edge.
            Some(at) if at.last && !peek.at.last => Err(truncated()),
            Some(_) if sealed.len() < self.wanted() => Err(truncated()),
            Some(at) if at != peek.at || peek.len != self.wanted() => {
                Err(Error::authentication().with_segment(self.next))
            }
            _ if sealed.len() < peek.len => Err(truncated()),
            _ => Ok(peek),
        }
    }

    /// Goes on behind a segment that verified.
    fn pass(&mut self, peek: Peek) {
        let followed = self.have > peek.len;
        (self.have, self.skip, self.input_ended) = (0, 0, false);
        self.next += 1;
        if peek.at.last {
            self.state = match self.extent {
                _ if followed => State::Failed(ErrorKind::TrailingData, peek.at.index),
                None if peek.len == self.segments.layout().segment_len() => State::Final,
                _ => State::Ended,
            };
        }
    }

    /// A fault of the bytes stays; one met by a seek leaves the place lost, and the next seek asks again.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        if self.is_seeking() {
            self.abandon_seek();
        } else {
            self.state = State::Failed(error.kind(), error.segment().unwrap_or(self.next));
        }
        self.forget();
        error
    }

    /// Forgets what was read ahead, before the input is moved.
    pub(super) fn forget(&mut self) {
        self.buffer.zeroize();
        (self.have, self.skip, self.input_ended) = (0, 0, false);
        self.ready = 0..0;
    }

    /// Where an interrupted reading goes on: behind what was taken.
    pub(super) fn resume_point(&self) -> ResumePoint {
        let layout = self.segments.layout();
        let passed_end = matches!(self.state, State::Final | State::Ended | State::Failed(ErrorKind::TrailingData, _));
        let last = self.next.saturating_sub(1);
        let per_segment = layout.plaintext_per_segment() as u64;
        if passed_end && self.ready.is_empty() {
            // No further segment is there; the final one says again that this is the end.
            let position = self.extent.map_or(self.position, |extent| self.position.min(extent.plaintext_len));
            ResumePoint::new(&layout, last, position)
        } else {
            ResumePoint::new(&layout, self.position / per_segment, self.position)
        }
    }

    /// The plaintext byte that is taken next.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn layout(&self) -> Layout {
        self.segments.layout()
    }

    /// The place of a segment in the input, which a seek has asked for the body's start.
    pub(super) fn place_of(&self, index: u64) -> Result<u64> {
        let offset = self.segments.layout().segment_offset(index);
        let place = offset.zip(self.body_start).and_then(|(offset, start)| offset.checked_add(start));
        place.ok_or_else(|| Error::limit("the segment lies past the limits of the format"))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("segments", &self.segments).field("next", &self.next).finish_non_exhaustive()
    }
}

pub(super) fn lost() -> Error {
    Error::new(ErrorKind::Io, "a seek failed before, or was not waited for").with_advice("seek again, then read")
}

/// The error that was met, again.
fn failed(kind: ErrorKind, segment: u64) -> Error {
    match kind {
        ErrorKind::Truncated => Error::truncated(),
        ErrorKind::TrailingData => Error::trailing_data(),
        ErrorKind::AuthenticationFailed => Error::authentication(),
        other => Error::new(other, "this message could not be decrypted further"),
    }
    .with_segment(segment)
}
