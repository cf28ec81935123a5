//! Inputs and outputs that are as difficult as the traits allow.

#[cfg(feature = "tokio")]
mod asynchronous;

use crate::support::random::Random;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Interrupted,
    WouldBlock,
    Broken,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Interrupted => io::ErrorKind::Interrupted.into(),
            Self::WouldBlock => io::ErrorKind::WouldBlock.into(),
            Self::Broken => io::Error::new(io::ErrorKind::BrokenPipe, "broken on purpose"),
        }
    }
}

/// When calls fail.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Never,
    /// The call of this number, counted from 0, and no other.
    Once(usize, Fault),
    /// The call of this number and all later ones.
    From(usize, Fault),
    /// Each call with a chance of one in so many, by a generator.
    Sometimes(usize, Random),
    /// As `Sometimes`, with nothing but calls that would block.
    Pauses(usize, Random),
}

/// Wraps a reader, writer or seeker: short counts, faults as planned, and a count of calls.
#[derive(Debug)]
pub(crate) struct Flaky<T> {
    pub(crate) inner: T,
    pub(crate) calls: usize,
    pub(crate) faults: usize,
    /// How often it was shut down, where it can be.
    pub(crate) shutdowns: usize,
    plan: Plan,
    /// At most so many bytes a call, chosen anew each time; all of them if 0.
    most: usize,
    sizes: Random,
}

impl<T> Flaky<T> {
    pub(crate) fn new(inner: T, plan: Plan, most: usize) -> Self {
        Self { inner, calls: 0, faults: 0, shutdowns: 0, plan, most, sizes: Random::new(most as u64) }
    }

    pub(crate) fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        let fault = match &mut self.plan {
            Plan::Never => None,
            Plan::Once(at, fault) => (number == *at).then_some(*fault),
            Plan::From(at, fault) => (number >= *at).then_some(*fault),
            Plan::Pauses(n, random) => random.one_in(*n).then_some(Fault::WouldBlock),
            Plan::Sometimes(n, random) => {
                let faults = [Fault::Interrupted, Fault::WouldBlock, Fault::Broken];
                random.one_in(*n).then(|| faults[random.below(3)])
            }
        };
        fault.map_or(Ok(()), |fault| {
            self.faults += 1;
            Err(fault.error())
        })
    }

    fn size(&mut self, len: usize) -> usize {
        if self.most == 0 || len == 0 { len } else { (1 + self.sizes.below(self.most)).min(len) }
    }
}

impl<T: Read> Read for Flaky<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.call()?;
        let size = self.size(out.len());
        self.inner.read(&mut out[..size])
    }
}

impl<T: Write> Write for Flaky<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call()?;
        let size = self.size(bytes.len());
        self.inner.write(&bytes[..size])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.call()?;
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Flaky<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.call()?;
        self.inner.seek(to)
    }
}
