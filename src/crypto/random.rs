//! Random bytes, straight from the operating system.

use super::NONCE_LEN;
use crate::error::{Error, Result};
use std::fmt;
use zeroize::Zeroize;

/// Fills `out` in one call to the operating system; nothing of it is kept.
///
/// For everything that a fork, a snapshot or a cloned machine must not repeat: data keys, message IVs,
/// record nonces, ids.
///
/// # Errors
/// Kind RandomFailed, where the system gives none.
pub(crate) fn fill(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(Error::random)
}

/// The process that something was made in: what a fork must not go on with remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The running process.
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// # Errors
    /// Kind InvalidInput in a fork of the process that this names.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::current() { Ok(()) } else { Err(Error::message_forked()) }
    }
}

/// Where [`SegmentIvs`] get their bytes from, and who they are.
pub(crate) trait Source {
    /// Fills `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]) -> Result<()>;

    /// The process that is running now.
    fn process(&self) -> Process;
}

/// The operating system.
#[derive(Debug)]
pub(crate) struct System;

impl Source for System {
    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        fill(out)
    }

    fn process(&self) -> Process {
        Process::current()
    }
}

/// IVs for the segments of one message, from a small buffer that the operating system fills.
///
/// The first fill is one IV, since most messages have one segment; further ones fill the buffer. They
/// serve the process that made them alone: a fork has the same message IV and the same buffer, and two
/// continuations of one message would be two messages under one key. So every draw in a fork fails.
pub(crate) struct SegmentIvs<S: Source = System> {
    source: S,
    buffer: [[u8; NONCE_LEN]; CAPACITY],
    /// The next IV to hand out.
    next: usize,
    /// How many IVs of the buffer the last fill brought.
    filled: usize,
    /// The process that the message was begun in.
    made_by: Process,
}

/// How many IVs the first fill brings.
const FIRST_FILL: usize = 1;
/// How many IVs every further fill brings: a draw then costs little more than asking for the process.
const CAPACITY: usize = 32;

impl SegmentIvs {
    /// An empty buffer, for a message that was begun in `made_by`: the first draw fills it.
    pub(crate) fn new(made_by: Process) -> Self {
        Self::from_source(System, made_by)
    }
}

impl<S: Source> SegmentIvs<S> {
    fn from_source(source: S, made_by: Process) -> Self {
        Self { source, buffer: [[0; NONCE_LEN]; CAPACITY], next: 0, filled: 0, made_by }
    }

    /// An IV that no other draw gives.
    ///
    /// # Errors
    /// Kind InvalidInput in a fork of the process that this was made in. Kind RandomFailed, where the
    /// system gives no bytes: the next call asks it again.
    pub(crate) fn next(&mut self) -> Result<[u8; NONCE_LEN]> {
        if self.made_by != self.source.process() {
            return Err(Error::message_forked());
        }
        if self.next == self.filled {
            self.refill()?;
        }
        let iv = self.buffer[self.next];
        self.next += 1;
        Ok(iv)
    }

    /// As many IVs as `out` has room for, none of which any other draw gives: straight from the source, with
    /// one look at the process for all of them.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) fn fill(&mut self, out: &mut [[u8; NONCE_LEN]]) -> Result<()> {
        if self.made_by != self.source.process() {
            return Err(Error::message_forked());
        }
        self.source.fill(out.as_flattened_mut())
    }

    fn refill(&mut self) -> Result<()> {
        let count = if self.filled == 0 { FIRST_FILL } else { CAPACITY };
        // Nothing is left to draw from while the source may fail half way.
        self.next = self.filled;
        self.source.fill(self.buffer[..count].as_flattened_mut())?;
        (self.next, self.filled) = (0, count);
        Ok(())
    }
}

impl<S: Source> Drop for SegmentIvs<S> {
    fn drop(&mut self) {
        self.buffer[..self.filled].as_flattened_mut().zeroize();
    }
}

impl<S: Source> fmt::Debug for SegmentIvs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentIvs(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::rc::Rc;

    /// Counts up, so that every byte handed out twice shows; its process and its failing are set from outside.
    struct Counting {
        next: u32,
        fills: Rc<Cell<usize>>,
        process: Rc<Cell<Process>>,
        failing: Rc<Cell<bool>>,
    }

    impl Source for Counting {
        fn fill(&mut self, out: &mut [u8]) -> Result<()> {
            self.fills.set(self.fills.get() + 1);
            for (at, iv) in out.chunks_mut(NONCE_LEN).enumerate() {
                // A source that fails half way has already overwritten something.
                if self.failing.get() && at == 1 {
                    return Err(Error::random(getrandom::Error::UNSUPPORTED));
                }
                self.next += 1;
                iv[..4].copy_from_slice(&self.next.to_be_bytes());
            }
            Ok(())
        }

        fn process(&self) -> Process {
            self.process.get()
        }
    }

    const OURS: Process = Process(7);
    const FORK: Process = Process(8);

    type Knobs = (Rc<Cell<usize>>, Rc<Cell<Process>>, Rc<Cell<bool>>);

    fn counting() -> (SegmentIvs<Counting>, Knobs) {
        let (fills, process, failing) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(OURS)), Rc::new(Cell::new(false)));
        let source = Counting { next: 0, fills: fills.clone(), process: process.clone(), failing: failing.clone() };
        (SegmentIvs::from_source(source, OURS), (fills, process, failing))
    }

    #[test]
    fn every_iv_is_handed_out_once_and_buffered() {
        let (mut ivs, (fills, ..)) = counting();
        let drawn: HashSet<_> = (0..1000).map(|_| ivs.next().unwrap()).collect();
        assert_eq!(drawn.len(), 1000);
        assert_eq!(fills.get(), 1 + (1000 - FIRST_FILL).div_ceil(CAPACITY));
    }

    #[test]
    fn ivs_that_are_drawn_many_at_once_are_others_than_those_drawn_before_and_after() {
        let (mut ivs, (fills, ..)) = counting();
        let mut drawn: HashSet<_> = (0..FIRST_FILL + 3).map(|_| ivs.next().unwrap()).collect();
        let mut many = [[0; NONCE_LEN]; 100];
        ivs.fill(&mut many).unwrap();
        assert_eq!(fills.get(), 3);
        assert!(many.into_iter().chain((0..100).map(|_| ivs.next().unwrap())).all(|iv| drawn.insert(iv)));
    }

    #[test]
    fn a_fork_draws_nothing_whatever_the_buffer_holds_and_its_parent_goes_on() {
        // Before the first draw, with the buffer used up, and in the middle of it.
        for draws in [0, FIRST_FILL, FIRST_FILL + 1] {
            let (mut ivs, (fills, process, _)) = counting();
            let mut drawn: HashSet<_> = (0..draws).map(|_| ivs.next().unwrap()).collect();
            let before = fills.get();
            process.set(FORK);
            for _ in 0..CAPACITY + 1 {
                assert_eq!(ivs.next().unwrap_err().kind(), crate::error::ErrorKind::InvalidInput);
                let many = ivs.fill(&mut [[0; NONCE_LEN]; 3]);
                assert_eq!(many.unwrap_err().kind(), crate::error::ErrorKind::InvalidInput);
            }
            assert_eq!(fills.get(), before);
            process.set(OURS);
            assert!((0..CAPACITY + 1).all(|_| drawn.insert(ivs.next().unwrap())));
        }
    }

    #[test]
    fn after_a_failed_fill_nothing_stale_is_handed_out() {
        let (mut ivs, (_, _, failing)) = counting();
        // To the end of a large fill, so that the next draw fills the buffer again.
        for _ in 0..FIRST_FILL + CAPACITY {
            ivs.next().unwrap();
        }
        failing.set(true);
        for _ in 0..2 {
            assert_eq!(ivs.next().unwrap_err().kind(), crate::error::ErrorKind::RandomFailed);
        }
        failing.set(false);
        let second = ivs.next().unwrap();
        // Two full fills, one IV from each failed one, then the next.
        assert_eq!(second[..4], u32::try_from(FIRST_FILL + CAPACITY + 2 + 1).unwrap().to_be_bytes());
    }

    #[test]
    fn the_system_fills_every_byte() {
        let mut seen = [0; 32];
        // 16 draws leave a given byte zero with probability 2^-128.
        for _ in 0..16 {
            let mut out = [0; 32];
            fill(&mut out).unwrap();
            seen.iter_mut().zip(out).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|&byte| byte != 0));
        let mut ivs = SegmentIvs::new(Process::current());
        let drawn: HashSet<_> = (0..100).map(|_| ivs.next().unwrap()).collect();
        assert_eq!(drawn.len(), 100);
    }
}
