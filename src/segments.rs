//! Segments: the pieces of a body that are sealed and opened on their own, and where they lie.

use crate::error::{Error, Result};
use std::fmt;

/// Which segment, and whether the message ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Counted from 0.
    pub index: u64,
    /// Whether it is the final segment.
    pub last: bool,
}

/// Most segments in a message.
pub(crate) const SEGMENTS_MAX: u64 = 1 << 40;
/// Most bytes of FLOE ciphertext (FLOE header and segments).
pub(crate) const BODY_MAX: u64 = 1 << 60;

/// All lengths and offsets of a body, from its segment length.
///
/// Offsets count from the first byte of the first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    segment_len: u32,
    overhead: u32,
    /// Bytes before the first segment that count towards [`BODY_MAX`].
    prefix: u32,
}

/// A body of known length: where it ends, and how much plaintext it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// Number of segments, at least 1.
    pub segments: u64,
    /// Length of the final segment in bytes, sealed.
    pub last_len: u32,
    /// Length of the plaintext in bytes, as the sealed length implies it.
    pub plaintext_len: u64,
}

/// Where to go on with a message that was opened in part: a place in its body, and one in its plaintext.
///
/// A reader gives it ([`DecryptReader::resume_point`](crate::DecryptReader::resume_point)); so does
/// [`Layout::resume_point`], from the number of bytes that were taken. It is no secret, and nothing is
/// believed of it: at a wrong place nothing authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResumePoint {
    segment: u64,
    sealed_offset: u64,
    plaintext_offset: u64,
}

impl ResumePoint {
    /// `plaintext_offset` lies in `segment`, or at its end.
    pub(crate) fn new(layout: &Layout, segment: u64, plaintext_offset: u64) -> Self {
        let sealed_offset = segment.saturating_mul(u64::from(layout.segment_len));
        Self { segment, sealed_offset, plaintext_offset }
    }

    /// The segment to go on with, counted from 0: it is read from its start.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Where that segment starts, in bytes from the start of the first segment. In a whole message the
    /// [length of the head](crate::Header::len) comes on top.
    #[must_use]
    pub fn sealed_offset(&self) -> u64 {
        self.sealed_offset
    }

    /// How many bytes of plaintext were taken: the first byte that is still wanted.
    #[must_use]
    pub fn plaintext_offset(&self) -> u64 {
        self.plaintext_offset
    }

    /// Bytes of the segment's plaintext that were taken.
    pub(crate) fn skip(&self, layout: &Layout) -> Result<usize> {
        let per_segment = u64::from(layout.segment_len - layout.overhead);
        let before = self.segment.checked_mul(per_segment);
        let skip = before.and_then(|before| self.plaintext_offset.checked_sub(before)).filter(|&it| it <= per_segment);
        skip.filter(|_| layout.segment_offset(self.segment) == Some(self.sealed_offset))
            .and_then(|skip| usize::try_from(skip).ok())
            .ok_or_else(|| {
                Error::invalid_input("this point to resume from belongs to a message of another segment length")
            })
    }
}

impl Layout {
    /// `segment_len` must be greater than `overhead`.
    pub(crate) fn new(segment_len: u32, overhead: u32, prefix: u32) -> Self {
        debug_assert!(segment_len > overhead);
        Self { segment_len, overhead, prefix }
    }

    /// Bytes of a sealed segment that is not the final one.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.segment_len as usize
    }

    /// Bytes of plaintext in a segment that is not the final one.
    #[must_use]
    pub fn plaintext_per_segment(&self) -> usize {
        (self.segment_len - self.overhead) as usize
    }

    /// Bytes that sealing adds to each segment.
    #[must_use]
    pub fn overhead(&self) -> usize {
        self.overhead as usize
    }

    /// Where segment `index` starts, or `None` past the limits of the format.
    #[must_use]
    pub fn segment_offset(&self, index: u64) -> Option<u64> {
        index.checked_mul(u64::from(self.segment_len)).filter(|&offset| offset <= BODY_MAX)
    }

    /// Sealed length of all segments of a plaintext of `plaintext_len` bytes.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 2^40 segments or 2^60 bytes.
    pub fn sealed_len(&self, plaintext_len: u64) -> Result<u64> {
        let per_segment = u64::from(self.segment_len - self.overhead);
        let segments = plaintext_len.div_ceil(per_segment).max(1);
        segments
            .checked_mul(u64::from(self.overhead))
            .and_then(|overhead| overhead.checked_add(plaintext_len))
            .filter(|sealed| {
                segments <= SEGMENTS_MAX && sealed.checked_add(u64::from(self.prefix)).is_some_and(|n| n <= BODY_MAX)
            })
            .ok_or_else(|| too_long(self.segment_len))
    }

    /// Segments and plaintext length of `sealed_len` bytes of segments, as their length implies them.
    ///
    /// # Errors
    /// [`Truncated`](crate::ErrorKind::Truncated) if no whole final segment is there (a last piece
    /// shorter than the overhead), [`LimitExceeded`](crate::ErrorKind::LimitExceeded) past the limits.
    pub fn extent(&self, sealed_len: u64) -> Result<Extent> {
        let segment_len = u64::from(self.segment_len);
        let segments = sealed_len.div_ceil(segment_len);
        if sealed_len.checked_add(u64::from(self.prefix)).is_none_or(|n| n > BODY_MAX) || segments > SEGMENTS_MAX {
            return Err(too_long(self.segment_len));
        }
        let last_len = sealed_len - segments.saturating_sub(1) * segment_len;
        if last_len < u64::from(self.overhead) {
            return Err(Error::truncated());
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most segment_len, a u32")]
        let last_len = last_len as u32;
        Ok(Extent { segments, last_len, plaintext_len: sealed_len - segments * u64::from(self.overhead) })
    }

    /// Plaintext length of `sealed_len` bytes of segments. Not authenticated: the length tells it.
    ///
    /// # Errors
    /// As [`extent`](Self::extent).
    pub fn plaintext_len(&self, sealed_len: u64) -> Result<u64> {
        self.extent(sealed_len).map(|extent| extent.plaintext_len)
    }

    /// Where to go on when `plaintext_offset` bytes of plaintext are there already.
    ///
    /// At a segment's edge this is the segment before: it may be the final one.
    #[must_use]
    pub fn resume_point(&self, plaintext_offset: u64) -> ResumePoint {
        let (segment, _) = self.locate(plaintext_offset.saturating_sub(1));
        ResumePoint::new(self, segment, plaintext_offset)
    }

    /// The segment that holds plaintext byte `offset`, and the byte's place in it.
    #[must_use]
    pub fn locate(&self, offset: u64) -> (u64, usize) {
        let per_segment = u64::from(self.segment_len - self.overhead);
        #[expect(clippy::cast_possible_truncation, reason = "less than segment_len, a u32")]
        let within = (offset % per_segment) as usize;
        (offset / per_segment, within)
    }
}

impl Extent {
    /// The position of segment `index`.
    pub(crate) fn position(&self, index: u64) -> Position {
        Position { index, last: index + 1 == self.segments }
    }

    /// Sealed length of segment `index`.
    pub(crate) fn sealed_len(&self, index: u64, layout: &Layout) -> usize {
        if self.position(index).last { self.last_len as usize } else { layout.segment_len() }
    }
}

fn too_long(segment_len: u32) -> Error {
    Error::limit(format!("a message of {segment_len}-byte segments ends at 2^40 segments and 2^60 bytes"))
        .with_advice("choose a longer segment length, or split the data")
}

/// Seals and opens segments by position: what a format gives to the I/O shells.
///
/// `&self` everywhere, so that threads share one. A sealed segment is
/// `prefix || plaintext's length of ciphertext || suffix`; [`plaintext_at`](Self::plaintext_at) says
/// how long the prefix is.
pub(crate) trait Segments: Send + Sync + fmt::Debug {
    fn layout(&self) -> Layout;

    /// Bytes of a sealed segment before its ciphertext: where plaintext lies for the in-place calls.
    fn plaintext_at(&self) -> usize;

    /// Seals the plaintext that lies at [`plaintext_at`](Self::plaintext_at) in `segment`, in place.
    fn seal_in_place(&self, at: Position, iv: &[u8; 12], segment: &mut [u8]) -> Result<()>;

    /// Seals `plaintext` into `segment`, which is exactly `overhead` longer, in one pass.
    fn seal_to(&self, at: Position, iv: &[u8; 12], plaintext: &[u8], segment: &mut [u8]) -> Result<()>;

    /// What the first bytes of a segment (at least 4) say of it, before anything is verified.
    ///
    /// # Errors
    /// AuthenticationFailed for a length that no segment has.
    fn peek(&self, index: u64, start: [u8; 4]) -> Result<Peek>;

    /// Puts the first bytes into `segment` that one at `at`, of this length, begins with.
    ///
    /// # Errors
    /// InvalidInput for a length that no segment has there.
    fn put_prefix(&self, at: Position, segment: &mut [u8]) -> Result<()>;

    /// Opens `segment` in place; the plaintext then lies at [`plaintext_at`](Self::plaintext_at).
    /// On failure the buffer is wiped.
    fn open_in_place(&self, at: Position, segment: &mut [u8]) -> Result<()>;

    /// Opens `segment` into `plaintext`, which is exactly `overhead` shorter, in one pass.
    /// On failure `plaintext` is wiped.
    fn open_to(&self, at: Position, segment: &[u8], plaintext: &mut [u8]) -> Result<()>;
}

/// Pays for plaintext before it is sealed, where the key has a limit.
pub(crate) trait Meter: Send + Sync + fmt::Debug {
    /// # Errors
    /// LimitExceeded where the key may not take `bytes` more.
    fn pay(&self, bytes: u64) -> Result<()>;
}

/// What a segment claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peek {
    pub(crate) at: Position,
    pub(crate) len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn layout() -> Layout {
        Layout::new(64, 32, 74)
    }

    #[test]
    fn lengths_agree_both_ways_around_every_segment_edge() {
        for len in 0..200 {
            let sealed = layout().sealed_len(len).unwrap();
            assert_eq!(layout().plaintext_len(sealed).unwrap(), len, "plaintext of {len}");
        }
    }

    #[test]
    fn an_empty_message_has_one_segment() {
        assert_eq!(layout().sealed_len(0).unwrap(), 32);
        assert_eq!(layout().extent(32).unwrap(), Extent { segments: 1, last_len: 32, plaintext_len: 0 });
    }

    #[test]
    fn a_last_piece_that_is_too_short_is_truncated() {
        for sealed in [0, 31, 64 + 1, 64 + 31] {
            assert_eq!(layout().extent(sealed).unwrap_err().kind(), ErrorKind::Truncated, "{sealed}");
        }
    }

    #[test]
    fn a_point_to_resume_from_names_the_segment_that_may_be_the_last() {
        for (offset, segment, skip) in [(0, 0, 0), (1, 0, 1), (32, 0, 32), (33, 1, 1), (64, 1, 32), (65, 2, 1)] {
            let point = layout().resume_point(offset);
            assert_eq!(
                (point.segment(), point.sealed_offset(), point.plaintext_offset()),
                (segment, segment * 64, offset)
            );
            assert_eq!(point.skip(&layout()).unwrap(), skip);
        }
        let elsewhere = Layout::new(100, 32, 74).resume_point(150);
        assert_eq!(elsewhere.skip(&layout()).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(layout().resume_point(u64::MAX).skip(&layout()).is_err(), "past the format's limits");
    }

    #[test]
    fn lengths_stop_at_the_formats_limits() {
        let most = SEGMENTS_MAX * 32;
        assert!(layout().sealed_len(most).is_ok());
        assert_eq!(layout().sealed_len(most + 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(layout().sealed_len(u64::MAX).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let wide = Layout::new(16 << 20, 32, 74);
        assert_eq!(wide.sealed_len(BODY_MAX).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(wide.extent(BODY_MAX - 73).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(wide.extent(u64::MAX).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
