//! Sealing: plaintext is read into its places in a batch, and sealed there.

use crate::crypto::random::SegmentIvs;
use crate::error::{Error, Result};
use crate::io::parallel::batch::{Batch, Filled, How, Then, fill, source_failed};
use crate::io::parallel::line::{More, Steps};
use crate::io::parallel::pool::Packing;
use crate::io::parallel::sink::{Sink, Target};
use crate::segments::{Position, Segments};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::ops::ControlFlow;

/// Where plaintext comes from, and the IVs for it: both belong to whose turn it is to read.
pub(super) struct Plaintext<R> {
    inner: R,
    ivs: SegmentIvs,
    /// The index of the next segment.
    next: u64,
    /// The byte after the last batch. It is what tells that the segment before it was not the final one.
    ahead: Option<u8>,
}

impl<R> Plaintext<R> {
    pub(super) fn new(inner: R, ivs: SegmentIvs) -> Self {
        Self { inner, ivs, next: 0, ahead: None }
    }
}

/// Seals batches.
pub(super) struct Seal<'a, R, W> {
    segments: &'a dyn Segments,
    target: Target<'a>,
    kinds: PhantomData<fn(R, W)>,
}

impl<'a, R: Read, W: Write> Seal<'a, R, W> {
    pub(super) fn new(segments: &'a dyn Segments, target: Target<'a>) -> Self {
        Self { segments, target, kinds: PhantomData }
    }

    /// Fills the batch: row by row, a row being a piece of plaintext in its place, or all of them at once.
    /// Each row has room for one byte more, which is the next one's first: where a tag will stand.
    fn fill(&self, source: &mut Plaintext<R>, batch: &mut Batch) -> Result<()> {
        let shape = batch.shape;
        let (layout, full) = (shape.layout, shape.layout.plaintext_per_segment());
        let (rows, row_len) = match shape.packing {
            Packing::Spread => (shape.segments, full),
            Packing::Packed => (1, shape.segments * full),
        };
        for row in 0..rows {
            let at = match shape.packing {
                Packing::Spread => row * layout.segment_len() + self.segments.plaintext_at(),
                Packing::Packed => packed_at(batch),
            };
            let room = batch.room(at, at + row_len + 1);
            let begun = usize::from(source.ahead.is_some());
            if let (Some(ahead), Some(first)) = (source.ahead.take(), room.first_mut()) {
                *first = ahead;
            }
            let filled = fill(&mut source.inner, room, begun, full, 1);
            let Filled { have, how } = filled.map_err(|(_, error)| source_failed(error))?;
            if how == How::Ended {
                batch.plaintext_len += have;
                batch.then = Then::End;
                break;
            }
            batch.plaintext_len += have - 1;
            source.ahead = room_end(batch, at + have - 1);
            if how == How::Paused {
                break;
            }
        }
        // An empty message has one segment.
        batch.count = batch.plaintext_len.div_ceil(full).max(1);
        batch.ivs.resize(batch.count, [0; 12]);
        source.ivs.fill(&mut batch.ivs)?;
        source.next += batch.count as u64;
        Ok(())
    }

    fn seal(&self, batch: &mut Batch) -> Result<()> {
        let layout = batch.shape.layout;
        let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
        let packed_at = packed_at(batch);
        for i in 0..batch.count {
            let (start, len) = (i * segment_len, batch.piece_len(i));
            if batch.shape.packing == Packing::Packed {
                // Towards the front, and never over what is still to be moved: the packed pieces end where the
                // buffer does, so that each stands behind its own segment's place.
                batch.shift(packed_at + i * full, len, start + self.segments.plaintext_at());
            }
            let at = Position { index: batch.first + i as u64, last: batch.is_last(i) };
            let iv = batch.ivs.get(i).copied().ok_or_else(|| Error::internal("a segment has no IV"))?;
            self.segments.seal_in_place(at, &iv, batch.room(start, start + len + layout.overhead()))?;
        }
        self.target.place(batch.first * segment_len as u64, batch.bytes(0, sealed_len(batch)))
    }
}

/// Where packed plaintext begins in its batch.
fn packed_at(batch: &Batch) -> usize {
    batch.shape.segments * batch.shape.layout.overhead()
}

fn room_end(batch: &Batch, at: usize) -> Option<u8> {
    batch.bytes(at, at + 1).first().copied()
}

fn sealed_len(batch: &Batch) -> usize {
    batch.plaintext_len + batch.count * batch.shape.layout.overhead()
}

impl<R: Read + Send, W: Write + Send> Steps for Seal<'_, R, W> {
    type Source = Plaintext<R>;
    type Batch = Batch;
    type Sink = Sink<W>;
    type Error = Error;

    fn read(&self, source: &mut Plaintext<R>, batch: &mut Batch) -> More {
        batch.begin(source.next);
        if let Err(error) = self.fill(source, batch) {
            batch.fail(error);
        }
        if matches!(batch.then, Then::More) { More::Yes } else { More::No }
    }

    fn work(&self, batch: &mut Batch) {
        if let Err(error) = self.seal(batch) {
            batch.fail(error);
        }
    }

    fn write(&self, sink: &mut Sink<W>, batch: &mut Batch) -> ControlFlow<Result<()>> {
        let sealed = sealed_len(batch);
        match &self.target {
            Target::InOrder => sink.write(batch.bytes(0, sealed))?,
            Target::File { .. } => sink.written(sealed),
        }
        sink.end_of(batch)
    }
}
