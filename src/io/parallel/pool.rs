//! How many threads, and how much they hold.

use crate::error::{Error, Result};
use crate::segments::Layout;

/// On how many threads segments are sealed and opened.
///
/// The thread that a call works on anyway is one of them; the others are started for the call and have
/// ended when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Exactly(usize),
}

impl Threads {
    /// One: no thread is started.
    pub const ONE: Self = Self(Choice::Exactly(1));

    /// Most threads that can be asked for.
    pub const MAX: usize = 64;

    /// As many as the machine has processors for this program, at most eight; one for less than 4 MiB,
    /// where starting a thread costs more than it gains, and fewer where segments are so long that the
    /// buffers would take more than 32 MiB.
    #[must_use]
    pub fn auto() -> Self {
        Self(Choice::Auto)
    }

    /// This many, 1 to [`MAX`](Self::MAX), each of which holds at least one segment.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for another number.
    pub fn exactly(count: usize) -> Result<Self> {
        if !(1..=Self::MAX).contains(&count) {
            return Err(Error::invalid_input(format!("a call works on 1 to {} threads, not {count}", Self::MAX)));
        }
        Ok(Self(Choice::Exactly(count)))
    }

    /// How `total` bytes, or as many as come, are shared out.
    pub(crate) fn plan(self, layout: Layout, total: Option<u64>) -> Plan {
        let shape = Shape::new(layout);
        let batch_len = shape.batch_len() as u64;
        let threads = match self.0 {
            Choice::Exactly(count) => count,
            Choice::Auto if total.is_some_and(|total| total < WORTH_A_THREAD) => 1,
            Choice::Auto => processors().min(AUTO_MAX).min(fitting(POOL_MAX, shape.batch_len())),
        };
        let alone = match (self.0, total) {
            (Choice::Auto, None) => WORTH_A_THREAD.div_ceil(batch_len),
            _ => 0,
        };
        // No more threads than there are batches to work on.
        let wanted = total.map_or(usize::MAX, |total| usize::try_from(total / batch_len).unwrap_or(usize::MAX));
        let threads = threads.min(wanted.saturating_add(1));
        Plan { shape, threads, alone }
    }
}

/// [`Threads::auto`].
impl Default for Threads {
    fn default() -> Self {
        Self::auto()
    }
}

/// How a body is worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) shape: Shape,
    pub(crate) threads: usize,
    /// How many batches the calling thread takes through alone before others are started: what comes
    /// may be little.
    pub(super) alone: u64,
}

impl Plan {
    /// How many batches exist: one for each thread, and one for each that may wait for its turn to be
    /// written, as far as all of them fit into [`POOL_MAX`] bytes. Together they hold at most the larger of
    /// [`POOL_MAX`] and one batch for each thread.
    pub(super) fn batches(&self) -> usize {
        match self.threads {
            0 | 1 => 1,
            threads => fitting(POOL_MAX, self.shape.batch_len()).clamp(threads, 2 * threads),
        }
    }
}

/// What a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(super) layout: Layout,
    /// Most segments in a batch.
    pub(super) segments: usize,
    /// How its plaintext is read and written.
    pub(super) packing: Packing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Piece by piece, each from and to its place in its segment: no copy.
    Spread,
    /// In one call for the whole batch: for segments so short that a call for each costs more than a copy.
    Packed,
}

impl Shape {
    pub(super) fn new(layout: Layout) -> Self {
        let packing = if layout.segment_len() < PACKED_BELOW { Packing::Packed } else { Packing::Spread };
        Self { layout, segments: fitting(HAND_OFF, layout.segment_len()), packing }
    }

    /// Sealed bytes of a full batch.
    pub(super) fn batch_len(&self) -> usize {
        self.segments * self.layout.segment_len()
    }
}

/// How many of `len` fit into `room`, at least one.
fn fitting(room: usize, len: usize) -> usize {
    (room / len.max(1)).max(1)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes that a thread takes at once, where segments are not longer.
const HAND_OFF: usize = 256 << 10;
/// Bytes in all batches together, unless there are so many threads that each has but one.
const POOL_MAX: usize = 32 << 20;
/// Segments shorter than this are read and written many in a call.
const PACKED_BELOW: usize = 16 << 10;
/// Bytes below which a second thread does not pay.
const WORTH_A_THREAD: u64 = 4 << 20;
/// Beyond this the memory is the limit.
const AUTO_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(threads: Threads, segment_len: u32, total: Option<u64>) -> Plan {
        threads.plan(Layout::new(segment_len, 32, 74), total)
    }

    #[test]
    fn memory_is_bounded_for_every_number_of_threads_and_segment_length() {
        for segment_len in [64, 100, 4_096, 65_536, 1 << 20, 5 << 20, 16 << 20] {
            let auto = plan(Threads::auto(), segment_len, None);
            assert!(auto.batches() * auto.shape.batch_len() <= POOL_MAX, "{segment_len}: {auto:?}");
            for count in 1..=Threads::MAX {
                let fixed = plan(Threads::exactly(count).unwrap(), segment_len, None);
                assert_eq!(fixed.threads, count);
                let one_each = count * fixed.shape.batch_len();
                assert!(fixed.batches() * fixed.shape.batch_len() <= POOL_MAX.max(one_each));
                assert!(fixed.batches() >= count && fixed.shape.batch_len() <= HAND_OFF.max(segment_len as usize));
            }
        }
    }

    #[test]
    fn little_input_starts_no_thread_and_what_may_be_little_begins_on_one() {
        assert_eq!(plan(Threads::auto(), 65_536, Some(WORTH_A_THREAD - 1)).threads, 1);
        assert!(plan(Threads::auto(), 65_536, None).alone > 0);
        let two = Threads::exactly(2).unwrap();
        assert_eq!((plan(two, 65_536, None).alone, plan(two, 65_536, Some(1 << 30)).threads), (0, 2));
        assert_eq!(plan(two, 65_536, Some(10)).threads, 1, "one batch has no use for two");
        assert_eq!(Threads::exactly(0).unwrap_err().kind(), crate::error::ErrorKind::InvalidInput);
        assert!(Threads::exactly(Threads::MAX + 1).is_err());
    }
}
