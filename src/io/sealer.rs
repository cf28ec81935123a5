//! The writing of a message as a state machine without I/O: plaintext goes in, sealed bytes come out.
//!
//! What each shell does: offer what is [outgoing](Sealer::outgoing) to the output until nothing is left,
//! then hand in plaintext; at the end [seal the final segment](Sealer::seal_last), and empty it again.

use crate::crypto::random::SegmentIvs;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{Layout, Position, Segments};
use std::fmt;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// One message being written. Whatever happens outside, nothing is sealed twice, and the final segment
/// once at most.
pub(crate) struct Sealer {
    pub(super) segments: Arc<dyn Segments>,
    ivs: SegmentIvs,
    /// The message head, until the output has taken it.
    pub(super) head: Vec<u8>,
    head_sent: usize,
    /// One segment: plaintext in its place, or sealed bytes on their way out.
    pub(super) buffer: Zeroizing<Vec<u8>>,
    /// Bytes of plaintext gathered in `buffer`.
    pub(super) filled: usize,
    /// Bytes of `buffer` that are sealed and must go out, and how many have.
    pub(super) sealed: usize,
    pub(super) sent: usize,
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

/// Whether the message ends with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Yes,
    No,
}

/// A segment to be sealed, for whoever computes: the buffer, moved out of its [`Sealer`].
///
/// Dropped, it takes the message with it: the sealer waits for it, and never seals that segment again.
pub(super) struct SealJob {
    buffer: Zeroizing<Vec<u8>>,
    len: usize,
    at: Position,
    iv: [u8; 12],
}

/// A segment that was sealed, or failed to be; its [`Sealer`] takes it back.
pub(super) struct SealedJob {
    job: SealJob,
    result: Result<()>,
}

impl SealJob {
    /// Seals the segment in place.
    pub(super) fn run(mut self, segments: &dyn Segments) -> SealedJob {
        let segment = self.buffer.get_mut(..self.len).unwrap_or_default();
        let result = segments.seal_in_place(self.at, &self.iv, segment);
        SealedJob { job: self, result }
    }
}

impl Sealer {
    /// `head` goes out before the first segment; it is empty where it is kept apart.
    pub(crate) fn new(head: Vec<u8>, segments: Arc<dyn Segments>, ivs: SegmentIvs) -> Self {
        Self {
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

    /// Takes some of `data`, at least one byte of it, unless a full segment had to be sealed first, now
    /// that it is known not to be the final one: then 0, and something is outgoing.
    ///
    /// To be called with nothing outgoing. A piece longer than a segment is sealed straight out of
    /// `data`, in one pass; anything else is copied once.
    pub(super) fn absorb(&mut self, data: &[u8]) -> Result<usize> {
        let full = self.segments.layout().plaintext_per_segment();
        match data.get(..full).filter(|_| self.filled == 0 && data.len() > full) {
            Some(plaintext) => self.seal_from(plaintext).map(|()| full),
            None if self.is_full() && !data.is_empty() => self.seal(Last::No).map(|()| 0),
            None => self.gather(data),
        }
    }

    /// Copies as much of `data` as the segment has room for.
    pub(super) fn gather(&mut self, data: &[u8]) -> Result<usize> {
        self.check_writable()?;
        let layout = self.segments.layout();
        self.buffer.resize(layout.segment_len(), 0);
        let start = self.segments.plaintext_at() + self.filled;
        let end = self.segments.plaintext_at() + layout.plaintext_per_segment();
        let room = self.buffer.get_mut(start..end).unwrap_or_default();
        let count = room.len().min(data.len());
        room[..count].copy_from_slice(&data[..count]);
        self.filled += count;
        Ok(count)
    }

    /// Seals what was gathered in place. With [`Last::Yes`] this is the message's end.
    fn seal(&mut self, last: Last) -> Result<()> {
        let sealed = self.begin(last)?.run(&*self.segments);
        self.complete(sealed)
    }

    /// Seals what was gathered as the final segment, unless that was done before.
    pub(super) fn seal_last(&mut self) -> Result<()> {
        if self.is_sealed() { Ok(()) } else { self.seal(Last::Yes) }
    }

    /// The first half of sealing what was gathered: [`complete`](Self::complete) is the second.
    pub(super) fn begin(&mut self, last: Last) -> Result<SealJob> {
        self.check_writable()?;
        let iv = self.draw_iv()?;
        let layout = self.segments.layout();
        // A message that fits into its first write has had no buffer so far, and needs no whole one.
        let len = self.filled + layout.overhead();
        let room = self.buffer.len().max(len);
        self.buffer.resize(room, 0);
        let at = Position { index: self.index, last: last == Last::Yes };
        let buffer = std::mem::take(&mut self.buffer);
        // Until the job is back: nothing is sealed twice, so a job that is lost loses the message.
        self.state = State::Failed(ErrorKind::Internal);
        Ok(SealJob { buffer, len, at, iv })
    }

    /// Takes the buffer of a job back.
    pub(super) fn complete(&mut self, sealed: SealedJob) -> Result<()> {
        self.buffer = sealed.job.buffer;
        self.settle(sealed.result, sealed.job.at, sealed.job.len)
    }

    fn seal_from(&mut self, plaintext: &[u8]) -> Result<()> {
        self.check_writable()?;
        let iv = self.draw_iv()?;
        let len = self.segments.layout().segment_len();
        self.buffer.resize(len, 0);
        let at = Position { index: self.index, last: false };
        let sealed = self.segments.seal_to(at, &iv, plaintext, &mut self.buffer);
        self.settle(sealed, at, len)
    }

    fn draw_iv(&mut self) -> Result<[u8; 12]> {
        self.ivs.next().inspect_err(|error| self.fail(error.kind()))
    }

    fn settle(&mut self, sealed: Result<()>, at: Position, len: usize) -> Result<()> {
        sealed.inspect_err(|error| self.fail(error.kind()))?;
        (self.sealed, self.sent, self.filled) = (len, 0, 0);
        self.index += 1;
        self.state = if at.last { State::Sealed } else { State::Open };
        Ok(())
    }

    /// The message cannot be completed: what was gathered is wiped, and what was sealed is not sent.
    pub(super) fn fail(&mut self, kind: ErrorKind) {
        self.buffer.zeroize();
        (self.filled, self.sealed, self.sent) = (0, 0, 0);
        self.state = State::Failed(kind);
    }

    /// Tells that the output took `count` of the [outgoing](Self::outgoing) bytes.
    pub(super) fn sent(&mut self, count: usize) {
        if self.head_sent < self.head.len() {
            self.head_sent += count;
        } else {
            self.sent += count;
            if self.sent >= self.sealed {
                (self.sealed, self.sent) = (0, 0);
            }
        }
    }

    /// The bytes that must go out before more plaintext comes in: what is left of the head, then of the
    /// sealed segment. Empty when nothing has to.
    pub(super) fn outgoing(&self) -> &[u8] {
        match self.head.get(self.head_sent..) {
            Some(head) if !head.is_empty() => head,
            _ => self.buffer.get(self.sent..self.sealed).unwrap_or_default(),
        }
    }

    /// # Errors
    /// The one that the message failed with, again.
    pub(super) fn check(&self) -> Result<()> {
        match self.state {
            State::Failed(kind) => {
                Err(Error::new(kind, "this message could not be encrypted further").with_advice("start a new message"))
            }
            State::Open | State::Sealed => Ok(()),
        }
    }

    /// # Errors
    /// As [`check`](Self::check); kind InvalidInput for a message that is finished.
    pub(super) fn check_writable(&self) -> Result<()> {
        self.check()?;
        if self.is_sealed() {
            return Err(Error::invalid_input("the message is finished: nothing can be written to it"));
        }
        Ok(())
    }

    /// Whether the final segment is sealed.
    pub(super) fn is_sealed(&self) -> bool {
        self.state == State::Sealed
    }

    /// Whether the segment has no room left.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.layout().plaintext_per_segment()
    }

    pub(super) fn layout(&self) -> Layout {
        self.segments.layout()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("segments", &self.segments).field("index", &self.index).finish_non_exhaustive()
    }
}
