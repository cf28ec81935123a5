//! Ranges of plaintext out of a source that is read by position: only the segments they touch.

use crate::error::{Error, Result};
use crate::segments::{Extent, Segments};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes that are read by position, by any number of threads at once.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the source returned.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the source returned; [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) past its end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Whether there are no bytes.
    ///
    /// # Errors
    /// What the source returned.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

#[cfg(unix)]
impl ReadAt for File {
    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        ReadAt::len(self.as_slice())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

/// Decrypts ranges of a message that is read by position.
///
/// Made with the final segment read and verified, so that the length is authentic; then a range
/// costs the segments it touches. `&self`: threads share one.
pub struct RangeReader<S> {
    source: S,
    segments: Arc<dyn Segments>,
    body_start: u64,
    extent: Extent,
}

impl<S: ReadAt> RangeReader<S> {
    pub(crate) fn new(source: S, segments: Arc<dyn Segments>, body_start: u64) -> Result<Self> {
        let sealed_len = source.len()?.checked_sub(body_start).ok_or_else(Error::truncated)?;
        let extent = segments.layout().extent(sealed_len)?;
        let reader = Self { source, segments, body_start, extent };
        reader.open_segment(extent.segments - 1)?;
        Ok(reader)
    }

    /// Length of the plaintext in bytes, verified.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "is_empty of a message reads oddly; compare with 0")]
    pub fn len(&self) -> u64 {
        self.extent.plaintext_len
    }

    /// The plaintext in `range`, shortened where the message ends before it does.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) or
    /// [`Truncated`](crate::ErrorKind::Truncated) if a segment that the range touches is damaged
    /// (nothing of it is returned), [`Io`](crate::ErrorKind::Io) from the source,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the range does not fit into memory.
    pub fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let end = range.end.min(self.extent.plaintext_len);
        let len = usize::try_from(end.saturating_sub(range.start))
            .map_err(|_| Error::invalid_input("the range does not fit into memory: read it in pieces"))?;
        let mut out = Zeroizing::new(vec![0; len]);
        self.fill(range.start, &mut out)?;
        Ok(std::mem::take(&mut *out))
    }

    /// Fills `out` from plaintext byte `offset` on; fewer bytes only where the message ends.
    ///
    /// # Errors
    /// As [`read_range`](Self::read_range); `out` then holds nothing of the damaged segment.
    pub fn read_at(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        let rest = self.extent.plaintext_len.saturating_sub(offset);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(out.len());
        self.fill(offset, out.get_mut(..len).unwrap_or_default())?;
        Ok(len)
    }

    /// Fills all of `out`, which lies within the message.
    fn fill(&self, mut offset: u64, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let (index, within) = self.segments.layout().locate(offset);
            let segment = self.open_segment(index)?;
            let plaintext = self.plaintext(&segment).get(within..).unwrap_or_default();
            let count = plaintext.len().min(out.len());
            if count == 0 {
                return Err(Error::internal("a range reaches past its message"));
            }
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&plaintext[..count]);
            out = later;
            offset += count as u64;
        }
        Ok(())
    }

    fn plaintext<'a>(&self, segment: &'a [u8]) -> &'a [u8] {
        let start = self.segments.plaintext_at();
        let len = segment.len() - self.segments.layout().overhead();
        segment.get(start..start + len).unwrap_or_default()
    }

    /// Segment `index`, opened in place.
    fn open_segment(&self, index: u64) -> Result<Zeroizing<Vec<u8>>> {
        let layout = self.segments.layout();
        let at = self.extent.position(index);
        let mut segment = Zeroizing::new(vec![0; self.extent.sealed_len(index, &layout)]);
        let offset = layout.segment_offset(index).and_then(|offset| offset.checked_add(self.body_start));
        let offset = offset.ok_or_else(|| Error::limit("the segment lies past the limits of the format"))?;
        self.source.read_exact_at(&mut segment, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::truncated().with_segment(index),
            _ => Error::io(format!("segment {index} cannot be read"), error),
        })?;
        let start = segment.first_chunk().ok_or_else(|| Error::truncated().with_segment(index))?;
        if at.last && !self.segments.peek(index, *start)?.at.last {
            return Err(Error::truncated().with_segment(index));
        }
        self.segments.open_in_place(at, &mut segment)?;
        Ok(segment)
    }
}

impl<S> fmt::Debug for RangeReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReader")
            .field("segments", &self.segments)
            .field("extent", &self.extent)
            .finish_non_exhaustive()
    }
}
