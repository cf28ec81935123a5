//! Audit records that are written some time after their calls were answered.
//!
//! A call that only reads is answered at once, and its record is written with the next call that changes
//! something, or when the stated time is over. **A process that is killed, or a machine that stops, in that
//! time loses those records**: what was decrypted then is in no trail. Off unless it is asked for by
//! [`KmsOptions::risk_losing_audit_records`](super::KmsOptions::risk_losing_audit_records).

use super::audit::Entry;
use std::time::{Duration, Instant};

/// The records that wait.
#[derive(Debug)]
pub(super) struct Buffer {
    period: Duration,
    entries: Vec<Entry>,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Buffer {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, entries: Vec::new(), since: None }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn add(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
        self.entries.extend(entries);
    }

    /// All of them are durable.
    pub(super) fn written(&mut self) {
        self.entries.clear();
        self.since = None;
    }

    /// How long until they must be written; `None` if there are none.
    pub(super) fn due_in(&self) -> Option<Duration> {
        self.since.map(|since| self.period.saturating_sub(since.elapsed()))
    }

    /// Whether they have waited for as long as was said, or are as many as may wait.
    pub(super) fn is_due(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.due_in().is_some_and(|wait| wait.is_zero())
    }
}

/// Records that may wait at a time: a few MB.
const ENTRIES_MAX: usize = 10_000;
