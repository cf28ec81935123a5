//! Which reads of the source serve a list of ranges.

use crate::segments::Layout;
use std::ops::Range;

/// How ranges become reads of the source.
///
/// ```
/// use envelock::RangeOptions;
/// let options = RangeOptions::remote().merge_gap(1 << 20).concurrent_reads(8);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOptions {
    merge_gap: u64,
    max_read: usize,
    concurrent_reads: usize,
}

impl RangeOptions {
    /// For files and memory, where a read costs what it copies: no gaps are read, at most 1 MiB at once,
    /// one read at a time.
    #[must_use]
    pub fn local() -> Self {
        Self { merge_gap: 0, max_read: 1 << 20, concurrent_reads: 1 }
    }

    /// For networks, where a request costs more than some bytes: gaps of up to 256 KiB are read along,
    /// at most 1 MiB at once, four reads at a time.
    #[must_use]
    pub fn remote() -> Self {
        Self { merge_gap: 256 << 10, max_read: 1 << 20, concurrent_reads: 4 }
    }

    /// Segments that no range touches are read along, and not opened, where that joins two reads and
    /// they have at most so many bytes together. 0: only what is touched is read.
    #[must_use]
    pub fn merge_gap(mut self, bytes: u64) -> Self {
        self.merge_gap = bytes;
        self
    }

    /// Most bytes of one read, so that memory is bounded. A read has at least one segment, even if that
    /// is longer.
    #[must_use]
    pub fn max_read(mut self, bytes: usize) -> Self {
        self.max_read = bytes;
        self
    }

    /// Most reads that an [`AsyncRangeReader`](crate::AsyncRangeReader) has under way at once for one
    /// call, 1 to 64 (another number is taken as the nearest of these); each holds up to [`max_read`](Self::max_read) bytes. The
    /// [`RangeReader`](crate::RangeReader) reads one after the other.
    #[must_use]
    pub fn concurrent_reads(mut self, count: usize) -> Self {
        self.concurrent_reads = count;
        self
    }

    pub(super) fn reads_at_once(&self) -> usize {
        self.concurrent_reads.clamp(1, 64)
    }

    /// Most segments of one read.
    fn segments_at_once(&self, layout: &Layout) -> u64 {
        (self.max_read / layout.segment_len()).max(1) as u64
    }

    /// The first part of `range`, for a reader that goes through it in bounded memory: it ends at a
    /// segment's edge, so that no segment is opened twice.
    pub(super) fn chunk(&self, layout: &Layout, range: &Range<u64>) -> Range<u64> {
        let segments = self.segments_at_once(layout).saturating_mul(self.reads_at_once() as u64);
        let (first, _) = layout.locate(range.start);
        let end = first.saturating_add(segments).saturating_mul(layout.plaintext_per_segment() as u64);
        range.start..range.end.min(end)
    }
}

/// Segments in a row that one read fetches. The first and the last are touched by a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The reads that serve `wanted`, in order, each touched segment in exactly one of them. The ranges are
/// sorted by their start, and none is empty.
pub(super) fn pieces<'a>(
    layout: &Layout,
    options: &RangeOptions,
    wanted: impl Iterator<Item = &'a Range<u64>>,
) -> Vec<Piece> {
    let most = options.segments_at_once(layout);
    let gap = options.merge_gap / layout.segment_len() as u64;
    let mut pieces: Vec<Piece> = Vec::new();
    for range in wanted {
        let (mut first, _) = layout.locate(range.start);
        let (last, _) = layout.locate(range.end.saturating_sub(1));
        if let Some(piece) = pieces.last_mut() {
            // Sorted by start: what lies between this start and the end of the last piece is in it, or
            // in the pieces that the same run was cut into.
            first = first.max(piece.last + 1);
            if first <= last && first - piece.last - 1 <= gap && first - piece.first < most {
                piece.last = last.min(piece.first + most - 1);
                first = piece.last + 1;
            }
        }
        while first <= last {
            let end = last.min(first.saturating_add(most - 1));
            pieces.push(Piece { first, last: end });
            first = end + 1;
        }
    }
    pieces
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of one range")]
mod tests {
    use super::*;

    /// Segments of 64 bytes, 32 of plaintext each.
    fn layout() -> Layout {
        Layout::new(64, 32, 74)
    }

    fn plan(options: &RangeOptions, ranges: &[Range<u64>]) -> Vec<(u64, u64)> {
        pieces(&layout(), options, ranges.iter()).iter().map(|piece| (piece.first, piece.last)).collect()
    }

    #[test]
    fn a_range_reads_the_segments_it_touches() {
        let options = RangeOptions::local();
        assert_eq!(plan(&options, &[]), []);
        assert_eq!(plan(&options, &[0..32]), [(0, 0)]);
        assert_eq!(plan(&options, &[0..33]), [(0, 1)]);
        assert_eq!(plan(&options, &[31..33]), [(0, 1)]);
        assert_eq!(plan(&options, &[32..33]), [(1, 1)]);
    }

    #[test]
    fn ranges_that_overlap_or_adjoin_become_one_read() {
        let options = RangeOptions::local();
        let wanted = [0..40, 5..10, 33..70, 96..97, 128..129];
        assert_eq!(plan(&options, &wanted), [(0, 4)]);
        assert_eq!(plan(&options, &[0..1, 64..65]), [(0, 0), (2, 2)]);
        assert_eq!(plan(&options, &[0..200, 10..12, 300..301]), [(0, 6), (9, 9)]);
    }

    #[test]
    fn a_gap_is_read_along_up_to_the_threshold() {
        let wanted = [0..1, 96..97];
        for (gap, reads) in [(0, 2), (127, 2), (128, 1), (1_000, 1)] {
            assert_eq!(plan(&RangeOptions::local().merge_gap(gap), &wanted).len(), reads, "a gap of {gap}");
        }
    }

    #[test]
    fn no_read_is_longer_than_the_limit_and_none_ends_in_a_gap() {
        let options = RangeOptions::local().max_read(128);
        assert_eq!(plan(&options, &[0..160]), [(0, 1), (2, 3), (4, 4)]);
        assert_eq!(plan(&options, &[40..41, 64..160]), [(1, 2), (3, 4)]);
        let far = options.clone().merge_gap(u64::MAX);
        assert_eq!(plan(&far, &[0..1, 64..65]), [(0, 0), (2, 2)], "joined, they would have three segments");
        let tiny = options.max_read(0);
        assert_eq!(plan(&tiny, &[0..64]), [(0, 0), (1, 1)], "a read has at least one segment");
    }

    #[test]
    fn chunks_end_at_the_edges_of_segments() {
        let options = RangeOptions::local().max_read(130);
        assert_eq!(options.chunk(&layout(), &(5..1_000)), 5..64);
        assert_eq!(options.chunk(&layout(), &(64..1_000)), 64..128);
        assert_eq!(options.chunk(&layout(), &(64..70)), 64..70);
        assert_eq!(options.concurrent_reads(3).chunk(&layout(), &(64..1_000)), 64..256);
    }
}
