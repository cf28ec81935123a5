//! A body whose end was verified, and the opening of its segments into the ranges that touch them:
//! what the readers of ranges share. It is fed with bytes, and reads none.

use crate::error::{Error, Result};
use crate::io::range::plan::{Piece, RangeOptions, pieces};
use crate::segments::{Extent, Segments};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::{Zeroize, Zeroizing};

/// A body as its length implies it, before its final segment was seen.
pub(super) struct Claimed(Body);

impl Claimed {
    /// The body from `start` on in a source of `source_len` bytes.
    ///
    /// # Errors
    /// Truncated, LimitExceeded: no body has this length.
    pub(super) fn new(segments: Arc<dyn Segments>, start: u64, source_len: u64, options: RangeOptions) -> Result<Self> {
        let sealed_len = source_len.checked_sub(start).ok_or_else(Error::truncated)?;
        let extent = segments.layout().extent(sealed_len)?;
        Ok(Self(Body { segments, start, extent, options, spare: Mutex::default() }))
    }

    /// The final segment.
    pub(super) fn end(&self) -> Piece {
        let last = self.0.extent.segments - 1;
        Piece { first: last, last }
    }

    pub(super) fn span(&self, piece: Piece) -> Result<Range<u64>> {
        self.0.span(piece)
    }

    /// The body, if `segment` is its final one: now its length is authentic.
    pub(super) fn verify(self, segment: &[u8]) -> Result<Body> {
        let Piece { last, .. } = self.end();
        let mut spare = self.0.spare();
        self.0.open(last, segment, spare.buffers.opened.room(self.0.plaintext_len(last)))?;
        drop(spare);
        Ok(self.0)
    }
}

/// A body of verified length.
pub(super) struct Body {
    segments: Arc<dyn Segments>,
    start: u64,
    extent: Extent,
    pub(super) options: RangeOptions,
    /// Buffers between calls. They are wiped when the body is dropped.
    spare: Mutex<Vec<Buffers>>,
}

/// What a call works in.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) sealed: Sealed,
    pub(super) opened: Opened,
}

/// Room for sealed bytes.
#[derive(Default)]
pub(super) struct Sealed(Vec<u8>);

impl Sealed {
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            // Not `resize`: what grows would be copied, for nothing.
            self.0 = vec![0; len];
        }
        self.0.get_mut(..len).unwrap_or_default()
    }
}

/// Room for the plaintext of a segment that no range takes whole.
#[derive(Default)]
pub(super) struct Opened(Zeroizing<Vec<u8>>);

impl Opened {
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            self.0 = Zeroizing::new(vec![0; len]);
        }
        self.0.get_mut(..len).unwrap_or_default()
    }
}

/// Buffers on loan. Allocated by the first calls, so that later ones need not.
pub(super) struct Spare<'a> {
    pub(super) buffers: Buffers,
    home: &'a Mutex<Vec<Buffers>>,
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if home.len() < SPARE_MAX {
            home.push(std::mem::take(&mut self.buffers));
        }
    }
}

/// Most buffers that a reader keeps, for as many threads.
const SPARE_MAX: usize = 4;

impl Body {
    pub(super) fn plaintext_total(&self) -> u64 {
        self.extent.plaintext_len
    }

    /// `range` as far as the message goes.
    pub(super) fn clip(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end.min(self.extent.plaintext_len);
        range.start.min(end)..end
    }

    /// A buffer for the plaintext in `range`, which lies within the message.
    pub(super) fn buffer(range: &Range<u64>) -> Result<Zeroizing<Vec<u8>>> {
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| Error::invalid_input("the range does not fit into memory: read it in pieces"))?;
        Ok(Zeroizing::new(vec![0; len]))
    }

    /// The first part of `range`, to be read at once.
    pub(super) fn chunk(&self, range: &Range<u64>) -> Range<u64> {
        self.options.chunk(&self.segments.layout(), range)
    }

    /// Where `piece` lies in the source.
    pub(super) fn span(&self, piece: Piece) -> Result<Range<u64>> {
        let layout = self.segments.layout();
        let offset = |index| layout.segment_offset(index).and_then(|offset| offset.checked_add(self.start));
        let last_len = self.extent.sealed_len(piece.last, &layout) as u64;
        let start = offset(piece.first);
        let end = offset(piece.last).and_then(|start| start.checked_add(last_len));
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => Err(Error::limit("the segment lies past the limits of the format")),
        }
    }

    /// The segment that holds byte `offset` of the source, or the last one.
    pub(super) fn segment_at(&self, offset: u64) -> u64 {
        let within = offset.saturating_sub(self.start);
        (within / self.segments.layout().segment_len() as u64).min(self.extent.segments - 1)
    }

    pub(super) fn spare(&self) -> Spare<'_> {
        let buffers = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Spare { buffers: buffers.unwrap_or_default(), home: &self.spare }
    }

    fn plaintext_len(&self, index: u64) -> usize {
        let layout = self.segments.layout();
        self.extent.sealed_len(index, &layout) - layout.overhead()
    }

    /// Opens segment `index` into `out`, which is wiped on failure.
    fn open(&self, index: u64, segment: &[u8], out: &mut [u8]) -> Result<()> {
        let at = self.extent.position(index);
        if at.last {
            let start = segment.first_chunk().ok_or_else(|| Error::truncated().with_segment(index))?;
            // A message cut between two segments ends with one that is not the final one.
            if !self.segments.peek(index, *start)?.at.last {
                return Err(Error::truncated().with_segment(index));
            }
        }
        self.segments.open_to(at, segment, out)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("segments", &self.segments)
            .field("extent", &self.extent)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A range and its buffer, of the same length.
struct Wanted<'a> {
    range: Range<u64>,
    out: &'a mut [u8],
}

impl Wanted<'_> {
    /// The part of the buffer for the plaintext in `part`, which overlaps the range; and which part of
    /// that plaintext it takes.
    fn cut(&mut self, part: &Range<u64>) -> (&mut [u8], Range<usize>) {
        let (start, end) = (part.start.max(self.range.start), part.end.min(self.range.end));
        let place = |from: u64| start.saturating_sub(from) as usize..end.saturating_sub(from) as usize;
        (self.out.get_mut(place(self.range.start)).unwrap_or_default(), place(part.start))
    }
}

/// Ranges that are being filled, segment by segment. Dropped before [`finish`](Self::finish), by an
/// error or by a caller that stopped waiting, it wipes all of them: a range is whole or empty.
pub(super) struct Gather<'a> {
    body: &'a Body,
    /// Sorted by start, none empty.
    wanted: Vec<Wanted<'a>>,
    /// How many of `wanted` begin before the end of the last segment taken.
    begun: usize,
    /// Those of them that do not end before it.
    active: Vec<usize>,
    /// Bytes still to fill.
    missing: u64,
}

impl<'a> Gather<'a> {
    /// Each range lies within the message, and its buffer has its length.
    pub(super) fn new(body: &'a Body, wanted: impl Iterator<Item = (Range<u64>, &'a mut [u8])>) -> Self {
        let wanted = wanted.filter(|(range, _)| !range.is_empty());
        let mut wanted: Vec<_> = wanted.map(|(range, out)| Wanted { range, out }).collect();
        wanted.sort_by_key(|it| it.range.start);
        let missing = wanted.iter().map(|it| it.range.end - it.range.start).sum();
        Self { body, wanted, begun: 0, active: Vec::new(), missing }
    }

    /// What to read, in the order in which it is [taken](Self::take).
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let ranges = self.wanted.iter().map(|it| &it.range);
        pieces(&self.body.segments.layout(), &self.body.options, ranges)
    }

    /// Opens the segments of `piece` that a range touches, once each. `sealed` is all of the piece.
    pub(super) fn take(&mut self, piece: Piece, sealed: &[u8], scratch: &mut Opened) -> Result<()> {
        let layout = self.body.segments.layout();
        let mut rest = sealed;
        for index in piece.first..=piece.last {
            let len = self.body.extent.sealed_len(index, &layout);
            let (segment, after) = rest.split_at_checked(len).ok_or_else(|| Error::truncated().with_segment(index))?;
            rest = after;
            self.take_segment(index, segment, scratch)?;
        }
        Ok(())
    }

    fn take_segment(&mut self, index: u64, segment: &[u8], scratch: &mut Opened) -> Result<()> {
        let len = self.body.plaintext_len(index);
        let start = index * self.body.segments.layout().plaintext_per_segment() as u64;
        let part = start..start + len as u64;
        while self.wanted.get(self.begun).is_some_and(|it| it.range.start < part.end) {
            self.active.push(self.begun);
            self.begun += 1;
        }
        let wanted = &mut self.wanted;
        self.active.retain(|&at| wanted.get(at).is_some_and(|it| it.range.end > part.start));
        let whole =
            |&at: &usize| wanted.get(at).is_some_and(|it| it.range.start <= part.start && part.end <= it.range.end);
        let Some(first) = self.active.iter().copied().find(whole).or(self.active.first().copied()) else {
            // Read along between two ranges.
            return Ok(());
        };
        let Some((before, rest)) = wanted.split_at_mut_checked(first) else { return Ok(()) };
        let Some((first_wanted, after)) = rest.split_first_mut() else { return Ok(()) };
        let (out, place) = first_wanted.cut(&part);
        self.missing -= out.len() as u64;
        let opened: &[u8] = if out.len() == len {
            // Straight into the caller's buffer.
            self.body.open(index, segment, out)?;
            out
        } else {
            let opened = scratch.room(len);
            self.body.open(index, segment, opened)?;
            out.copy_from_slice(opened.get(place).unwrap_or_default());
            opened
        };
        for &at in self.active.iter().filter(|&&at| at != first) {
            let other = if at < first { before.get_mut(at) } else { after.get_mut(at - first - 1) };
            if let Some(other) = other {
                let (out, place) = other.cut(&part);
                out.copy_from_slice(opened.get(place).unwrap_or_default());
                self.missing -= out.len() as u64;
            }
        }
        Ok(())
    }

    /// # Errors
    /// Internal if a byte was left out; then all ranges are wiped.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.missing != 0 {
            return Err(Error::internal("a range was not filled by the segments it touches"));
        }
        self.wanted.clear();
        Ok(())
    }
}

impl Drop for Gather<'_> {
    fn drop(&mut self) {
        for wanted in &mut self.wanted {
            wanted.out.zeroize();
        }
    }
}
