//! Opening: sealed segments are read many at a time, and opened where they lie.

use crate::error::{Error, Result};
use crate::io::parallel::batch::{Batch, Filled, How, Then, fill, plaintext_offset, source_failed};
use crate::io::parallel::line::{More, Steps};
use crate::io::parallel::pool::Packing;
use crate::io::parallel::sink::{Sink, Target};
use crate::segments::Segments;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};

/// Where sealed segments come from.
pub(super) struct Sealed<R> {
    inner: R,
    /// The index of the next segment.
    next: u64,
}

impl<R> Sealed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, next: 0 }
    }
}

/// Opens batches.
pub(super) struct Open<'a, R, W> {
    segments: &'a dyn Segments,
    target: Target<'a>,
    kinds: PhantomData<fn(R, W)>,
}

impl<'a, R: Read, W: Write> Open<'a, R, W> {
    pub(super) fn new(segments: &'a dyn Segments, target: Target<'a>) -> Self {
        Self { segments, target, kinds: PhantomData }
    }

    /// Walks over the segments that were read, as their prefixes tell them apart, to the first one that
    /// cannot be whole. What comes of the walk is said only after the segments before have verified.
    fn walk(&self, batch: &mut Batch, filled: Filled, source: &mut impl Read, failed: Option<io::Error>) -> Then {
        let layout = batch.shape.layout;
        let (segment_len, overhead) = (layout.segment_len(), layout.overhead());
        loop {
            let (index, at) = (batch.first + batch.count as u64, batch.count * segment_len);
            let rest = batch.bytes(at, filled.have);
            if rest.is_empty() && filled.how != How::Ended {
                return Then::More;
            }
            if rest.len() < segment_len
                && let Some(error) = failed
            {
                return Then::Fail(source_failed(error));
            }
            let Some(start) = rest.first_chunk() else { return Then::Fail(Error::truncated().with_segment(index)) };
            let peek = match self.segments.peek(index, *start) {
                Ok(peek) => peek,
                Err(error) => return Then::Fail(error),
            };
            if rest.len() < peek.len {
                return Then::Fail(Error::truncated().with_segment(index));
            }
            let followed = rest.len() > peek.len;
            batch.count += 1;
            batch.plaintext_len += peek.len - overhead;
            if peek.at.last {
                return match failed {
                    _ if followed => Then::Fail(Error::trailing_data().with_segment(index)),
                    Some(error) => Then::Fail(source_failed(error)),
                    None if filled.how == How::Ended => Then::End,
                    None => probe(source),
                };
            }
        }
    }

    fn open(&self, batch: &mut Batch) -> Result<(), (usize, Error)> {
        let layout = batch.shape.layout;
        let (segment_len, full, overhead) = (layout.segment_len(), layout.plaintext_per_segment(), layout.overhead());
        for i in 0..batch.count {
            let (start, len) = (i * segment_len, batch.piece_len(i));
            // What it says of itself, the walk went by; opening checks it.
            let prefix = batch.bytes(start, start + 4).first_chunk().copied().unwrap_or_default();
            let peek = self.segments.peek(batch.first + i as u64, prefix);
            let segment = batch.room(start, start + len + overhead);
            peek.and_then(|peek| self.segments.open_in_place(peek.at, segment)).map_err(|error| (i, error))?;
            if batch.shape.packing == Packing::Packed {
                // Towards the front, and never over what is still to be opened.
                batch.shift(start + self.segments.plaintext_at(), len, i * full);
            }
        }
        for piece in self.pieces(batch) {
            let offset = plaintext_offset(&layout, batch.first) + piece.offset as u64;
            self.target.place(offset, batch.bytes(piece.at.start, piece.at.end)).map_err(|error| (0, error))?;
        }
        Ok(())
    }

    /// The plaintext of an opened batch, in as few pieces as it lies in.
    fn pieces<'b>(&self, batch: &'b Batch) -> impl Iterator<Item = Piece> + use<'b, R, W> {
        let layout = batch.shape.layout;
        let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
        let plaintext_at = self.segments.plaintext_at();
        let packed = batch.shape.packing == Packing::Packed;
        let count = if packed { 1 } else { batch.count };
        (0..count).map(move |i| match packed {
            true => Piece { at: 0..batch.plaintext_len, offset: 0 },
            false => {
                let start = i * segment_len + plaintext_at;
                Piece { at: start..start + batch.piece_len(i), offset: i * full }
            }
        })
    }
}

/// A run of plaintext: where it lies in its batch, and how much plaintext of the batch comes before it.
struct Piece {
    at: Range<usize>,
    offset: usize,
}

/// After a final segment of full length: does anything follow?
fn probe(source: &mut impl Read) -> Then {
    let mut byte = [0];
    match fill(source, &mut byte, 0, 1, 0) {
        Ok(Filled { have: 0, .. }) => Then::End,
        Ok(_) => Then::Fail(Error::trailing_data()),
        Err((_, error)) => Then::Fail(source_failed(error)),
    }
}

impl<R: Read + Send, W: Write + Send> Steps for Open<'_, R, W> {
    type Source = Sealed<R>;
    type Batch = Batch;
    type Sink = Sink<W>;
    type Error = Error;

    fn read(&self, source: &mut Sealed<R>, batch: &mut Batch) -> More {
        batch.begin(source.next);
        let (batch_len, segment_len) = (batch.shape.batch_len(), batch.shape.layout.segment_len());
        let (filled, failed) = match fill(&mut source.inner, batch.room(0, batch_len), 0, segment_len, 0) {
            Ok(filled) => (filled, None),
            Err((have, error)) => (Filled { have, how: How::Ended }, Some(error)),
        };
        batch.then = self.walk(batch, filled, &mut source.inner, failed);
        source.next += batch.count as u64;
        if matches!(batch.then, Then::More) { More::Yes } else { More::No }
    }

    fn work(&self, batch: &mut Batch) {
        if let Err((verified, error)) = self.open(batch) {
            let full = batch.shape.layout.plaintext_per_segment();
            (batch.count, batch.plaintext_len) = (verified, verified * full);
            batch.then = Then::Fail(error);
        }
    }

    fn write(&self, sink: &mut Sink<W>, batch: &mut Batch) -> ControlFlow<Result<()>> {
        match &self.target {
            Target::InOrder => {
                for piece in self.pieces(batch) {
                    sink.write(batch.bytes(piece.at.start, piece.at.end))?;
                }
            }
            Target::File { .. } => sink.written(batch.plaintext_len),
        }
        sink.end_of(batch)
    }
}
