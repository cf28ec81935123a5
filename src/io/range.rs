//! Ranges of plaintext out of a source that is read by position: only the segments they touch.

pub(crate) mod byte_range;
mod gather;
pub(crate) mod plan;
pub(crate) mod remote;
pub(crate) mod source;

use crate::error::{Error, Result};
use crate::segments::Segments;
use gather::{Body, Claimed, Gather};
use plan::{Piece, RangeOptions};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes that are read by position, by any number of threads at once.
///
/// The reader believes that they stay what they are. A [`File`] is not pinned to a version: one whose
/// name is given to another file meanwhile is read on through its open handle, as it was; one that is
/// rewritten in place fails authentication, and in place only a rewrap, which leaves the body alone, is
/// ever done by this crate. Sources that can tell versions are read by the
/// [`AsyncRangeReader`](crate::AsyncRangeReader).
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

    /// The `len` bytes from `offset` on, if they lie in memory: segments are then opened from there,
    /// without a copy. Default: they do not.
    fn slice_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (offset, len);
        None
    }

    /// Whether there are no bytes.
    ///
    /// # Errors
    /// What the source returned.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

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
        buffer.copy_from_slice(self.slice_at(offset, buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn slice_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(len)?)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> io::Result<u64> {
        ReadAt::len(self.as_slice())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }

    fn slice_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.as_slice().slice_at(offset, len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn slice_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        (**self).slice_at(offset, len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn slice_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        (**self).slice_at(offset, len)
    }
}

/// Decrypts ranges of a message that is read by position.
///
/// Made with the final segment read and verified, so that the length is authentic; then a range
/// costs the segments it touches, each read and opened once. `&self`: threads share one. It keeps a few
/// buffers between calls, which hold plaintext until it is dropped, and are wiped then.
pub struct RangeReader<S> {
    source: S,
    body: Body,
}

impl<S: ReadAt> RangeReader<S> {
    pub(crate) fn new(source: S, segments: Arc<dyn Segments>, body_start: u64) -> Result<Self> {
        let claimed = Claimed::new(segments, body_start, source.len()?, RangeOptions::local())?;
        let Piece { last, .. } = claimed.end();
        let span = claimed.span(claimed.end())?;
        let mut segment = vec![0; usize::try_from(span.end - span.start).unwrap_or_default()];
        source.read_exact_at(&mut segment, span.start).map_err(|error| unreadable(last, error))?;
        Ok(Self { source, body: claimed.verify(&segment)? })
    }

    /// The same reader, which reads as `options` say. Default: [`RangeOptions::local`].
    #[must_use]
    pub fn with_options(mut self, options: RangeOptions) -> Self {
        self.body.options = options;
        self
    }

    /// Length of the plaintext in bytes, verified.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "is_empty of a message reads oddly; compare with 0")]
    pub fn len(&self) -> u64 {
        self.body.plaintext_total()
    }

    /// The plaintext in `range`, shortened where the message ends before it does.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) or
    /// [`Truncated`](crate::ErrorKind::Truncated) if a segment that the range touches is damaged
    /// (nothing of it is returned), [`Io`](crate::ErrorKind::Io) from the source,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the range does not fit into memory.
    pub fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let range = self.body.clip(&range);
        let mut out = Body::buffer(&range)?;
        self.fill(std::iter::once((range, out.as_mut_slice())))?;
        Ok(std::mem::take(&mut *out))
    }

    /// The plaintext in each of `ranges`, in their order, as by [`read_range`](Self::read_range). Ranges
    /// may overlap and come in any order: each segment is read and opened once, and neighbours in one
    /// read, as the [options](Self::with_options) say.
    ///
    /// # Errors
    /// As [`read_range`](Self::read_range); then none of the ranges is returned.
    pub fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let ranges: Vec<_> = ranges.iter().map(|range| self.body.clip(range)).collect();
        let mut outs = ranges.iter().map(Body::buffer).collect::<Result<Vec<_>>>()?;
        self.fill(ranges.into_iter().zip(outs.iter_mut().map(|out| out.as_mut_slice())))?;
        Ok(outs.iter_mut().map(|out| std::mem::take(&mut **out)).collect())
    }

    /// Fills `out` from plaintext byte `offset` on; fewer bytes only where the message ends.
    ///
    /// # Errors
    /// As [`read_range`](Self::read_range). Then all that was to be filled is zeros: nothing of the
    /// damaged segment is in `out`, and nothing of those before it.
    pub fn read_at(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        let range = self.body.clip(&(offset..offset.saturating_add(out.len() as u64)));
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        self.fill(std::iter::once((range, out.get_mut(..len).unwrap_or_default())))?;
        Ok(len)
    }

    /// The plaintext in `range`, as far as the message goes, as a [`Read`] in bounded memory: for ranges
    /// that are too long for [`read_range`](Self::read_range). Several at a time may read through one
    /// reader.
    ///
    /// Memory: up to [`max_read`](RangeOptions::max_read) bytes (at least a segment), twice.
    #[must_use]
    pub fn stream(self: &Arc<Self>, range: Range<u64>) -> RangeRead<S> {
        RangeRead { rest: self.body.clip(&range), reader: Arc::clone(self), chunk: Zeroizing::default(), taken: 0 }
    }

    fn fill<'a>(&'a self, wanted: impl Iterator<Item = (Range<u64>, &'a mut [u8])>) -> Result<()> {
        let mut gather = Gather::new(&self.body, wanted);
        let mut spare = self.body.spare();
        for piece in gather.pieces() {
            let span = self.body.span(piece)?;
            let len = usize::try_from(span.end - span.start).map_err(|_| Error::limit("a read is too long"))?;
            if let Some(sealed) = self.source.slice_at(span.start, len).and_then(|sealed| sealed.get(..len)) {
                gather.take(piece, sealed, &mut spare.buffers.opened)?;
                continue;
            }
            let sealed = spare.buffers.sealed.room(len);
            self.source
                .read_exact_at(sealed, span.start)
                .map_err(|error| unreadable(self.segment_where(piece, &error), error))?;
            gather.take(piece, sealed, &mut spare.buffers.opened)?;
        }
        gather.finish()
    }

    /// The segment of `piece` at which a read of all of it failed: the source may end within it.
    fn segment_where(&self, piece: Piece, error: &io::Error) -> u64 {
        match self.source.len() {
            Ok(len) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.body.segment_at(len).clamp(piece.first, piece.last)
            }
            _ => piece.first,
        }
    }
}

fn unreadable(segment: u64, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::truncated().with_segment(segment),
        _ => Error::io(format!("segment {segment} cannot be read"), error),
    }
}

impl<S> fmt::Debug for RangeReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeReader").field("body", &self.body).finish_non_exhaustive()
    }
}

/// Reads a range of plaintext from its front: see [`RangeReader::stream`].
///
/// What fails to read fails again at the next call: no byte is skipped.
pub struct RangeRead<S> {
    reader: Arc<RangeReader<S>>,
    /// What is not in `chunk` yet.
    rest: Range<u64>,
    chunk: Zeroizing<Vec<u8>>,
    taken: usize,
}

impl<S: ReadAt> RangeRead<S> {
    fn next_chunk(&mut self) -> Result<()> {
        let range = self.reader.body.chunk(&self.rest);
        let len = usize::try_from(range.end - range.start).map_err(|_| Error::limit("a chunk is too long"))?;
        // Not this reader's until it is whole, whatever ends the reading of it.
        let mut chunk = std::mem::take(&mut self.chunk);
        self.taken = 0;
        if chunk.capacity() < len {
            chunk = Body::buffer(&range)?;
        }
        chunk.resize(len, 0);
        self.reader.fill(std::iter::once((range.clone(), chunk.as_mut_slice())))?;
        self.rest.start = range.end;
        self.chunk = chunk;
        Ok(())
    }
}

impl<S: ReadAt> Read for RangeRead<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() && !self.rest.is_empty() && !out.is_empty() {
            self.next_chunk()?;
        }
        let ready = self.chunk.get(self.taken..).unwrap_or_default();
        let (now, _) = ready.split_at(ready.len().min(out.len()));
        out.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
        self.taken += now.len();
        Ok(now.len())
    }
}

impl<S> fmt::Debug for RangeRead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeRead").field("reader", &self.reader).field("rest", &self.rest).finish_non_exhaustive()
    }
}
