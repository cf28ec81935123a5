//! Going on with a body that was interrupted (docs/format.md, rule 10): which of its segments lie whole
//! and are the source's, and the sealing of the rest.
//!
//! Positions come from the source's length: it says where each segment lies and how long it is. So a
//! segment is whole or torn, and there is no third, and a final segment of another length is seen.

use crate::crypto::random::SegmentIvs;
use crate::error::{Error, ErrorKind, Result};
use crate::io::range::ReadAt;
use crate::segments::{Extent, Segments};
use std::io;
use std::ops::Range;
use zeroize::{Zeroize, Zeroizing};

/// A source and the body that it is sealed to.
pub(crate) struct Body<'a> {
    segments: &'a dyn Segments,
    source: &'a dyn ReadAt,
    extent: Extent,
}

/// What lies of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// So many segments lie whole, are authentic, and hold what the source has there. What follows, if
    /// anything, is the torn beginning of the next.
    Verified(u64),
    /// A whole segment is not authentic, or bytes lie where the source has no segment for them.
    Damaged,
    /// What was sealed is not what the source holds now.
    SourceDiffers,
}

/// Is told of each piece of plaintext that was worked off, in bytes; may end the work with an error.
pub(crate) type Advance<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl<'a> Body<'a> {
    /// The body of all `source_len` bytes of `source`.
    ///
    /// # Errors
    /// Kind LimitExceeded if no message is that long.
    pub(crate) fn new(segments: &'a dyn Segments, source: &'a dyn ReadAt, source_len: u64) -> Result<Self> {
        let layout = segments.layout();
        let extent = layout.extent(layout.sealed_len(source_len)?)?;
        Ok(Self { segments, source, extent })
    }

    /// Length of all its segments.
    pub(crate) fn sealed_len(&self) -> u64 {
        self.sealed(self.extent.segments - 1).end
    }

    /// Bytes of plaintext in the first `count` segments.
    pub(crate) fn plaintext_before(&self, count: u64) -> u64 {
        let per_segment = self.segments.layout().plaintext_per_segment() as u64;
        count.saturating_mul(per_segment).min(self.extent.plaintext_len)
    }

    /// Opens every whole segment among the `sealed_len` bytes that `sealed` has from `start` on, and
    /// compares it with the source.
    ///
    /// # Errors
    /// What `advance` answers, and what reading fails with.
    pub(crate) fn verify(
        &self,
        sealed: &dyn ReadAt,
        start: u64,
        sealed_len: u64,
        advance: Advance<'_>,
    ) -> Result<Standing> {
        let end = self.sealed_len();
        if sealed_len > end {
            return Ok(Standing::Damaged);
        }
        let whole = match sealed_len == end {
            true => self.extent.segments,
            false => sealed_len / self.segments.layout().segment_len() as u64,
        };
        let run = self.run();
        let mut opened = Zeroizing::new(Vec::new());
        let mut held = Zeroizing::new(Vec::new());
        for first in (0..whole).step_by(run) {
            let count = (whole - first).min(run as u64);
            let (of_sealed, of_source) = self.run_of(first..first + count);
            resize(&mut opened, &of_sealed)?;
            resize(&mut held, &of_source)?;
            sealed.read_exact_at(&mut opened, start + of_sealed.start).map_err(|e| read("the partial file", e))?;
            match self.source.read_exact_at(&mut held, of_source.start) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Standing::SourceDiffers),
                Err(e) => return Err(read("the source", e)),
            }
            let standing = self.compare(first, &mut opened, &held)?;
            if standing != Standing::Verified(first + count) {
                return Ok(standing);
            }
            advance(of_source.end - of_source.start)?;
        }
        match whole < self.extent.segments {
            true => self.judge_torn(whole, sealed, start, sealed_len),
            false => Ok(Standing::Verified(whole)),
        }
    }

    /// Opens the segments from `first` on that lie in `sealed`, and compares them with the plaintext.
    fn compare(&self, first: u64, sealed: &mut [u8], plaintext: &[u8]) -> Result<Standing> {
        let layout = self.segments.layout();
        let mut index = first;
        let pieces = plaintext.chunks(layout.plaintext_per_segment()).chain(std::iter::once(&[][..]));
        for (segment, held) in sealed.chunks_mut(layout.segment_len()).zip(pieces) {
            let expected = self.extent.position(index);
            if let Some(start) = segment.first_chunk()
                && self.segments.peek(index, *start).is_ok_and(|peek| peek.at != expected)
            {
                return Ok(Standing::SourceDiffers);
            }
            match self.segments.open_in_place(expected, segment) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AuthenticationFailed => return Ok(Standing::Damaged),
                Err(error) => return Err(error),
            }
            let from = self.segments.plaintext_at();
            if segment.get(from..from + held.len()) != Some(held) {
                return Ok(Standing::SourceDiffers);
            }
            index += 1;
        }
        Ok(Standing::Verified(index))
    }

    /// A torn piece begins as the segment does that belongs there. It must: "no two finals". The final
    /// segment of a source that was shorter then would lie whole here, and look torn.
    fn judge_torn(&self, index: u64, sealed: &dyn ReadAt, start: u64, sealed_len: u64) -> Result<Standing> {
        let at = self.sealed(index);
        let mut begin = [0; 4];
        if sealed_len - at.start < begin.len() as u64 {
            return Ok(Standing::Verified(index));
        }
        sealed.read_exact_at(&mut begin, start + at.start).map_err(|e| read("the partial file", e))?;
        let expected = self.extent.position(index);
        let len = self.extent.sealed_len(index, &self.segments.layout());
        Ok(match self.segments.peek(index, begin) {
            Ok(peek) if peek.at == expected && peek.len == len => Standing::Verified(index),
            Ok(_) => Standing::SourceDiffers,
            Err(_) => Standing::Damaged,
        })
    }

    /// Seals the segments from `first` on, each under an IV of its own, and hands them to `put` in
    /// order, some at a time, each with its place in the body.
    ///
    /// # Errors
    /// What `put` and `advance` answer, and what reading fails with; kind Busy if the source ends
    /// before its length.
    pub(crate) fn seal_from(
        &self,
        first: u64,
        ivs: &mut SegmentIvs,
        put: &mut dyn FnMut(&[u8], u64) -> Result<()>,
        advance: Advance<'_>,
    ) -> Result<()> {
        let layout = self.segments.layout();
        let run = self.run();
        let mut plaintext = Zeroizing::new(Vec::new());
        let mut sealed = Vec::new();
        for first in (first..self.extent.segments).step_by(run) {
            let count = (self.extent.segments - first).min(run as u64);
            let (of_sealed, of_source) = self.run_of(first..first + count);
            resize(&mut plaintext, &of_source)?;
            resize(&mut sealed, &of_sealed)?;
            self.source.read_exact_at(&mut plaintext, of_source.start).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Error::source_changes(),
                _ => read("the source", e),
            })?;
            let pieces = plaintext.chunks(layout.plaintext_per_segment()).chain(std::iter::once(&[][..]));
            for ((index, segment), piece) in (first..).zip(sealed.chunks_mut(layout.segment_len())).zip(pieces) {
                self.segments.seal_to(self.extent.position(index), &ivs.next()?, piece, segment)?;
            }
            put(&sealed, of_sealed.start)?;
            advance(of_source.end - of_source.start)?;
        }
        Ok(())
    }

    /// Segments that are read and written at once: about a MiB.
    fn run(&self) -> usize {
        (RUN_LEN / self.segments.layout().segment_len()).max(1)
    }

    /// Where these segments lie in the body, and their plaintext in the source.
    fn run_of(&self, segments: Range<u64>) -> (Range<u64>, Range<u64>) {
        let last = segments.end.saturating_sub(1);
        (
            self.sealed(segments.start).start..self.sealed(last).end,
            self.plaintext_before(segments.start)..self.plaintext_before(segments.end),
        )
    }

    /// Where segment `index` lies in the body.
    fn sealed(&self, index: u64) -> Range<u64> {
        let layout = self.segments.layout();
        // The extent was checked against the format's limits, far below the largest number.
        let start = index.saturating_mul(layout.segment_len() as u64);
        start..start + self.extent.sealed_len(index, &layout) as u64
    }
}

/// Makes `buffer` as long as `range`, which a run bounds; what it held may have been plaintext.
fn resize(buffer: &mut Vec<u8>, range: &Range<u64>) -> Result<()> {
    let len = usize::try_from(range.end - range.start).map_err(|_| Error::internal("a run fits into memory"))?;
    if buffer.capacity() < len {
        buffer.zeroize();
    }
    buffer.resize(len, 0);
    Ok(())
}

fn read(what: &str, error: io::Error) -> Error {
    Error::io(format!("{what} cannot be read"), error)
}

/// Bytes of segments that are worked off at once.
const RUN_LEN: usize = 1 << 20;
