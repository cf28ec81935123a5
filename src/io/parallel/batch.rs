//! A batch: some segments of a message in one buffer, on their way from a source to a sink.

use crate::error::{Error, Result};
use crate::io::parallel::pool::Shape;
use crate::segments::Layout;
use std::io::{self, Read};
use zeroize::Zeroize;

/// Segments that follow one another, in their places: segment i of the batch at i segment lengths.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) shape: Shape,
    bytes: Vec<u8>,
    /// So many bytes of the buffer have held something.
    touched: usize,
    /// The index of the first segment in the message.
    pub(super) first: u64,
    pub(super) count: usize,
    /// Bytes of plaintext in all segments of the batch.
    pub(super) plaintext_len: usize,
    pub(super) ivs: Vec<[u8; 12]>,
    pub(super) then: Then,
}

/// What comes after the segments of a batch.
#[derive(Debug)]
pub(super) enum Then {
    More,
    /// The last segment of the batch is the final one.
    End,
    Fail(Error),
}

impl Batch {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            bytes: Vec::new(),
            touched: 0,
            first: 0,
            count: 0,
            plaintext_len: 0,
            ivs: Vec::new(),
            then: Then::More,
        }
    }

    /// Makes it ready for segments from `first` on.
    pub(super) fn begin(&mut self, first: u64) {
        if self.bytes.is_empty() {
            // One more: what is read ahead of a packed batch. Zeros from the system, touched when used.
            self.bytes = vec![0; self.shape.batch_len() + 1];
        }
        (self.first, self.count, self.plaintext_len, self.then) = (first, 0, 0, Then::More);
    }

    /// The buffer from `start` to `end`; empty if that is no part of it.
    pub(super) fn room(&mut self, start: usize, end: usize) -> &mut [u8] {
        self.touched = self.touched.max(end);
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Moves `len` bytes of the buffer.
    pub(super) fn shift(&mut self, from: usize, len: usize, to: usize) {
        let end = self.bytes.len();
        if from + len <= end && to + len <= end {
            self.bytes.copy_within(from..from + len, to);
            self.touched = self.touched.max(to + len);
        }
    }

    /// Leaves nothing of its segments: `error` is what comes of it.
    pub(super) fn fail(&mut self, error: Error) {
        (self.count, self.plaintext_len) = (0, 0);
        self.then = Then::Fail(error);
    }

    /// Bytes of plaintext in segment `i` of the batch.
    pub(super) fn piece_len(&self, i: usize) -> usize {
        let full = self.shape.layout.plaintext_per_segment();
        self.plaintext_len.saturating_sub(i * full).min(full)
    }

    /// Whether segment `i` of the batch is the message's final one.
    pub(super) fn is_last(&self, i: usize) -> bool {
        matches!(self.then, Then::End) && i + 1 == self.count
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(touched) = self.bytes.get_mut(..self.touched) {
            touched.zeroize();
        }
    }
}

/// What a source gave towards some whole pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) have: usize,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// All that was asked for.
    Full,
    /// To the end of the piece in which the source first gave less than was asked for: it may be a while
    /// before it gives more, and what is there is not kept waiting.
    Paused,
    /// To the end of the source.
    Ended,
}

/// Reads into `room` from `have` on: pieces of `piece` bytes and `ahead` bytes after them, for which
/// `room` is just long enough; at least one piece.
///
/// # Errors
/// What the source failed with, with what it had given before.
pub(super) fn fill(
    source: &mut impl Read,
    room: &mut [u8],
    mut have: usize,
    piece: usize,
    ahead: usize,
) -> Result<Filled, (usize, io::Error)> {
    let mut target = room.len();
    let mut paused = false;
    while let Some(rest) = room.get_mut(have..target).filter(|rest| !rest.is_empty()) {
        let asked = rest.len();
        match source.read(rest) {
            Ok(0) => return Ok(Filled { have, how: How::Ended }),
            Ok(count) => {
                have += count;
                if count < asked && !paused {
                    paused = true;
                    let pieces = have.saturating_sub(ahead).div_ceil(piece).max(1);
                    target = target.min(pieces * piece + ahead);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((have, error)),
        }
    }
    Ok(Filled { have, how: if paused { How::Paused } else { How::Full } })
}

/// What a source failed with.
pub(super) fn source_failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(other) => Error::io("the input cannot be read", other),
    }
}

/// The bytes of plaintext before segment `index`.
pub(super) fn plaintext_offset(layout: &Layout, index: u64) -> u64 {
    index.saturating_mul(layout.plaintext_per_segment() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::parallel::testing::Drip;

    #[test]
    fn a_source_that_pauses_is_asked_for_the_end_of_its_piece_and_no_more() {
        // What it gives at each call; pieces of 4 bytes and one ahead, in a room of three pieces.
        let cases: [(&[usize], usize, How); 8] = [
            (&[13], 13, How::Full),
            (&[5, 8], 5, How::Paused),
            (&[6, 3, 4], 9, How::Paused),
            (&[6, 2, 1, 4], 9, How::Paused),
            (&[1, 1, 3, 8], 5, How::Paused),
            (&[4, 1, 8], 5, How::Paused),
            (&[7, 0], 7, How::Ended),
            (&[0], 0, How::Ended),
        ];
        for (calls, have, how) in cases {
            let mut room = [0; 13];
            let filled = fill(&mut Drip::new(calls), &mut room, 0, 4, 1).unwrap();
            assert_eq!((filled.have, filled.how), (have, how), "{calls:?}");
        }
    }
}
