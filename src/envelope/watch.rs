//! What every long work on a file looks after: its progress, and whether it should end.

use crate::envelope::file::{FileOptions, Progress};
use crate::envelope::offload::Cancelled;
use crate::error::Result;
use crate::io::parallel::Plan;
use crate::segments::Layout;
use std::io::{self, Read};

/// Reports progress, and tells when the caller has gone or asks to stop.
#[derive(Clone)]
pub(super) struct Watch<'a> {
    options: &'a FileOptions,
    cancelled: &'a Cancelled,
    done: u64,
    total: Option<u64>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(options: &'a FileOptions, cancelled: &'a Cancelled, total: Option<u64>) -> Self {
        Self { options, cancelled, done: 0, total }
    }

    /// The same, for work that begins after `done` bytes.
    pub(super) fn starting_at(mut self, done: u64) -> Self {
        self.done = done;
        self
    }

    /// Reports `count` more bytes: for each MiB, and at the end, which zero bytes may stand for.
    pub(super) fn advance(&mut self, count: u64) {
        let before = self.done;
        self.done += count;
        let due = count == 0 || before / REPORT_EVERY != self.done / REPORT_EVERY || self.total == Some(self.done);
        if let Some(report) = self.options.progress.as_ref().filter(|_| due) {
            report(Progress { done: self.done, total: self.total });
        }
    }

    /// How what is watched is worked on.
    pub(super) fn plan(&self, layout: Layout) -> Plan {
        self.options.threads.plan(layout, self.total)
    }

    /// `inner`, watched.
    pub(super) fn over<R>(self, inner: R) -> Watched<'a, R> {
        Watched { inner, watch: self }
    }

    /// # Errors
    /// Kind Io if the caller has gone, or asked to stop.
    pub(super) fn check(&self) -> Result<()> {
        self.cancelled.check()?;
        self.options.stop.check()
    }
}

/// A source, watched.
pub(super) struct Watched<'a, R> {
    inner: R,
    watch: Watch<'a>,
}

impl<'a, R> Watched<'a, R> {
    pub(super) fn watch(&self) -> &Watch<'a> {
        &self.watch
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.watch.check()?;
        let count = self.inner.read(out)?;
        self.watch.advance(count as u64);
        Ok(count)
    }
}

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 1 << 20;
