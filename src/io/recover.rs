//! What is left of a damaged body: each of its segments tried at the place where it belongs.
//!
//! A sans-I/O walk: it says which bytes it wants, and is given them. Segments lie at fixed places, so a
//! damaged one costs no other; a segment at a wrong place is not authentic there, since its number is
//! part of what its tag covers.

use crate::error::{ErrorKind, Result};
use crate::segments::{Peek, Position, Segments};
use std::fmt;
use std::ops::Range;

/// What becomes of the places whose plaintext is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holes {
    /// They are filled with zero bytes, so that all that is left lies where it was. The default.
    #[default]
    Zero,
    /// They are left out: what is left is joined, and lies elsewhere than it did.
    Skip,
}

/// A run of neighbouring places where a message is not what it was, for one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segments, counted from 0. Empty where bytes follow the end of the message.
    pub segments: Range<u64>,
    /// Where their bytes are in the file that was read, from the start of the file. Empty where they are
    /// not there.
    pub sealed: Range<u64>,
    /// Where their plaintext is in the whole plaintext: if the end is lost, as far as the length of the
    /// file tells.
    pub plaintext: Range<u64>,
    /// Where in the output that plaintext begins, or would begin if it is skipped.
    pub output_at: u64,
    /// Why.
    pub cause: DamageCause,
}

impl Damage {
    /// Whether the plaintext is in the output all the same.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.cause == DamageCause::WrongPrefix
    }
}

/// What is wrong with a place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageCause {
    /// The bytes are not the segment that belongs there: changed, overwritten, moved.
    NotAuthentic,
    /// The segment is authentic but for its length prefix, which every other call checks and refuses.
    /// Its plaintext is recovered.
    WrongPrefix,
    /// The file ends within this segment, or before it, and the message goes on.
    Truncated,
    /// Bytes follow the authentic end of the message.
    TrailingData,
    /// The operating system could not read the bytes.
    Unreadable,
}

impl DamageCause {
    /// The cause in one word, as the program writes it into maps.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAuthentic => "not-authentic",
            Self::WrongPrefix => "wrong-prefix",
            Self::Truncated => "truncated",
            Self::TrailingData => "trailing-data",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for DamageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts of a walk, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) authentic_segments: u64,
    pub(crate) authentic_len: u64,
    pub(crate) lost_segments: u64,
    /// Bytes of output, holes included if they are filled.
    pub(crate) output_len: u64,
    pub(crate) damages: u64,
    pub(crate) end_verified: bool,
}

/// What was found at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many bytes of plaintext, at the front of the buffer.
    Plaintext(usize),
    /// Nothing; so many zero bytes belong into the output.
    Hole(u64),
}

/// The walk along a body.
pub(crate) struct Walk<'a> {
    segments: &'a dyn Segments,
    holes: Holes,
    /// Where the body starts in the file, and how long it is.
    start: u64,
    len: u64,
    /// The next segment to look at.
    next: u64,
    /// The run that the last damage belongs to.
    run: Option<Damage>,
    counts: Counts,
    /// The last segment that was looked at was authentic, and not the final one.
    goes_on: bool,
}

impl<'a> Walk<'a> {
    /// A walk along the `len` bytes from `start` on.
    pub(crate) fn new(segments: &'a dyn Segments, start: u64, len: u64, holes: Holes) -> Self {
        Self { segments, holes, start, len, next: 0, run: None, counts: Counts::default(), goes_on: true }
    }

    /// Where in the file the next piece lies: `None` once there is no more to look at.
    pub(crate) fn piece(&self) -> Option<Range<u64>> {
        let full = self.segments.layout().segment_len() as u64;
        let from = self.next.checked_mul(full).filter(|&from| from < self.len && !self.counts.end_verified)?;
        Some(self.start + from..self.start + self.len.min(from.saturating_add(full)))
    }

    /// Looks at the next piece, whose bytes are `sealed`, or could not be read. The plaintext goes to
    /// `plaintext`, which has room for that of a segment; the prefix in `sealed` may be changed.
    ///
    /// `report` is told of every run of damage that has ended.
    pub(crate) fn take(
        &mut self,
        sealed: Option<&mut [u8]>,
        plaintext: &mut [u8],
        report: &mut dyn FnMut(Damage),
    ) -> Result<Found> {
        let Some(piece) = self.piece() else { return Ok(Found::Hole(0)) };
        let piece_len = piece.end - piece.start;
        let opened = match sealed {
            Some(sealed) => self.open(sealed, plaintext)?,
            None => Opened::Not(DamageCause::Unreadable),
        };
        let index = self.next;
        self.next += 1;
        let plaintext_at = self.plaintext_at(index);
        match opened {
            Opened::As { is, prefix } => {
                let len = is.len.saturating_sub(self.segments.layout().overhead());
                if prefix == Prefix::Wrong {
                    let plaintext = plaintext_at..plaintext_at + len as u64;
                    self.damaged(DamageCause::WrongPrefix, index..index + 1, piece.clone(), plaintext, report);
                }
                self.counts.authentic_segments += 1;
                self.counts.authentic_len += len as u64;
                self.counts.output_len += len as u64;
                self.goes_on = !is.at.last;
                if is.at.last {
                    self.counts.end_verified = true;
                    let (trailing, end) =
                        (piece.start + is.len as u64..self.start + self.len, plaintext_at + len as u64);
                    if !trailing.is_empty() {
                        self.damaged(DamageCause::TrailingData, index + 1..index + 1, trailing, end..end, report);
                    }
                }
                Ok(Found::Plaintext(len))
            }
            Opened::Not(cause) => {
                let len = piece_len.saturating_sub(self.segments.layout().overhead() as u64);
                self.damaged(cause, index..index + 1, piece, plaintext_at..plaintext_at + len, report);
                self.counts.lost_segments += 1;
                self.goes_on = false;
                let hole = if self.holes == Holes::Zero { len } else { 0 };
                self.counts.output_len += hole;
                Ok(Found::Hole(hole))
            }
        }
    }

    /// Ends the walk.
    pub(crate) fn finish(mut self, report: &mut dyn FnMut(Damage)) -> Counts {
        if self.goes_on {
            let (end, plaintext) = (self.start + self.len, self.plaintext_at(self.next));
            self.damaged(DamageCause::Truncated, self.next..self.next + 1, end..end, plaintext..plaintext, report);
            self.counts.lost_segments += 1;
        }
        if let Some(run) = self.run.take() {
            report(run);
        }
        self.counts
    }

    /// Opens a piece as what it says it is; else as what its place allows, whatever its prefix says.
    fn open(&self, sealed: &mut [u8], plaintext: &mut [u8]) -> Result<Opened> {
        let layout = self.segments.layout();
        let claim = sealed.first_chunk().and_then(|start| self.segments.peek(self.next, *start).ok());
        if let Some(is) = claim
            && let Some(segment) = sealed.get(..is.len)
            && self.opens(is, segment, plaintext)?
        {
            return Ok(Opened::As { is, prefix: Prefix::Right });
        }
        let at = |last| Peek { at: Position { index: self.next, last }, len: sealed.len() };
        let not_final = Some(at(false)).filter(|it| it.len == layout.segment_len());
        let last = Some(at(true)).filter(|it| it.len >= layout.overhead());
        for is in [not_final, last].into_iter().flatten().filter(|is| claim != Some(*is)) {
            self.segments.put_prefix(is.at, sealed)?;
            if self.opens(is, sealed, plaintext)? {
                return Ok(Opened::As { is, prefix: Prefix::Wrong });
            }
        }
        let cut = sealed.len() < layout.overhead() || claim.is_some_and(|is| is.len > sealed.len());
        Ok(Opened::Not(if cut { DamageCause::Truncated } else { DamageCause::NotAuthentic }))
    }

    fn opens(&self, is: Peek, segment: &[u8], plaintext: &mut [u8]) -> Result<bool> {
        let len = is.len.saturating_sub(self.segments.layout().overhead());
        match self.segments.open_to(is.at, segment, plaintext.get_mut(..len).unwrap_or_default()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AuthenticationFailed => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds to the last run, or begins one.
    fn damaged(
        &mut self,
        cause: DamageCause,
        segments: Range<u64>,
        sealed: Range<u64>,
        plaintext: Range<u64>,
        report: &mut dyn FnMut(Damage),
    ) {
        if let Some(run) = &mut self.run
            && run.cause == cause
            && run.segments.end == segments.start
        {
            run.segments.end = segments.end;
            run.sealed.end = sealed.end;
            run.plaintext.end = plaintext.end;
            return;
        }
        self.counts.damages += 1;
        let damage = Damage { segments, sealed, plaintext, output_at: self.counts.output_len, cause };
        if let Some(ended) = self.run.replace(damage) {
            report(ended);
        }
    }

    /// Where the plaintext of segment `index` is in the whole.
    fn plaintext_at(&self, index: u64) -> u64 {
        index.saturating_mul(self.segments.layout().plaintext_per_segment() as u64)
    }
}

/// A piece that was tried.
enum Opened {
    As { is: Peek, prefix: Prefix },
    Not(DamageCause),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Right,
    Wrong,
}
