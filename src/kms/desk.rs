//! Where calls on a keystore come in, and who works on them.
//!
//! One works on the file at a time: mostly the keystore's thread, which takes all calls that stand in line and runs them
//! in one transaction. A caller whose own thread [may wait](crate::worker::may_wait), and who finds nobody at work
//! and nobody in line, runs his call himself: two changes of thread take about as long as half a commit. Whoever
//! calls meanwhile stands in line, for one transaction of the thread's. Since nobody goes before the line, nobody is
//! overtaken, and what the thread does by itself is not put off either: its time is kept here, and once it has come, callers
//! stand in line.
//!
//! Who was answered together often comes back together. So after a group of several the thread gives as many the time to
//! come, a part of what a commit takes, and callers stand in line meanwhile: they share the next commit, where otherwise the
//! first of them would have one for himself, and the others wait for it.

use super::call::Job;
use super::open_list::Registered;
use super::store::Store;
use crate::error::{Error, Result};
use crate::worker::may_wait;
use futures_channel::oneshot;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is no call on the KMS, and answers by its own channel.
pub(super) type Look = Box<dyn FnOnce(&mut Store) + Send>;

pub(super) enum Message {
    Job(Box<dyn Job>),
    Look(Look),
    /// End; the answer comes once the file is closed and the root key wiped.
    Close(oneshot::Sender<Result<()>>),
}

/// What the thread does next.
pub(super) enum Work {
    /// In one transaction.
    Jobs(Vec<Box<dyn Job>>),
    Look(Look),
    /// What is to be done while nobody calls.
    Tick,
    Close(oneshot::Sender<Result<()>>),
    End,
}

/// The keystore is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

#[derive(Debug, Default)]
pub(super) struct Desk {
    line: Mutex<Line>,
    /// That the thread may have something to do.
    called: Condvar,
    /// Nobody waits for this lock: it belongs to whoever the line says is at work.
    seat: Mutex<Option<Seat>>,
}

/// In this order: the file stays on the list for as long as it is open.
#[derive(Debug)]
struct Seat {
    store: Store,
    _registered: Registered,
}

#[derive(Default)]
struct Line {
    messages: VecDeque<Message>,
    /// Whether somebody is at work.
    busy: bool,
    /// How many calls the thread expects together, and for how long: after a group of several.
    expected: Option<(usize, Instant)>,
    /// When the thread has something to do though nobody calls.
    tick: Option<Instant>,
    /// Whether the thread sleeps, and until when if nobody calls it.
    asleep: Option<Option<Instant>>,
    /// Whether no handle is left.
    left: bool,
    closed: bool,
}

impl Desk {
    /// Lets the thread work on `store`.
    pub(super) fn open(&self, store: Store, registered: Registered) {
        self.lock().tick = at(&store);
        *self.seat() = Some(Seat { store, _registered: registered });
    }

    /// Stands in line.
    pub(super) fn send(&self, message: Message) -> Result<(), Closed> {
        self.stand_in(self.lock(), message)
    }

    /// Runs a job: at once on this thread, or in line.
    pub(super) fn run(&self, job: Box<dyn Job>) -> Result<(), Closed> {
        let mut line = self.lock();
        if !may_wait() || !line.is_free() {
            return self.stand_in(line, Message::Job(job));
        }
        line.busy = true;
        drop(line);
        self.run_all(vec![job]);
        Ok(())
    }

    fn stand_in(&self, mut line: MutexGuard<'_, Line>, message: Message) -> Result<(), Closed> {
        if line.closed {
            // Dropped outside the lock, since that wakes whoever waits for the answer.
            drop(line);
            return Err(Closed);
        }
        line.messages.push_back(message);
        self.call_thread(&line);
        Ok(())
    }

    /// No handle is left: the thread ends once it has done what stands in line.
    pub(super) fn leave(&self) {
        let mut line = self.lock();
        line.left = true;
        self.call_thread(&line);
    }

    /// For the thread, which waits here until there is something to do; then it is at work.
    pub(super) fn next(&self) -> Work {
        let mut line = self.lock();
        loop {
            let until = if line.busy {
                // Who is at work calls when he is done.
                None
            } else if let Some(work) = line.take() {
                line.busy = true;
                return work;
            } else {
                [line.tick, line.expected.map(|(_, until)| until)].into_iter().flatten().min()
            };
            line.asleep = Some(until);
            line = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(most) => self.called.wait_timeout(line, most).unwrap_or_else(PoisonError::into_inner).0,
                None => self.called.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
            line.asleep = None;
        }
    }

    /// Runs a group of calls.
    pub(super) fn run_all(&self, jobs: Vec<Box<dyn Job>>) {
        self.work_for(jobs.len(), |store| store.run(jobs));
    }

    /// Does what was taken and is no call.
    pub(super) fn work(&self, work: impl FnOnce(&mut Store)) {
        self.work_for(1, work);
    }

    /// After a panic the keystore is closed, since nobody knows how far it came: as if its process had been killed then.
    fn work_for(&self, callers: usize, work: impl FnOnce(&mut Store)) {
        let mut seat = self.seat();
        let done = seat.as_mut().map(|seat| {
            catch_unwind(AssertUnwindSafe(|| {
                work(&mut seat.store);
                at(&seat.store)
            }))
        });
        match done {
            Some(Ok(tick)) => {
                drop(seat);
                let mut line = self.lock();
                line.busy = false;
                if callers > 1 {
                    line.expected = Instant::now().checked_add(TOGETHER).map(|until| (callers, until));
                }
                // What was to be done earlier still is.
                line.tick = [line.tick, tick].into_iter().flatten().min();
                self.call_thread(&line);
            }
            _ => {
                *seat = None;
                drop(seat);
                self.end();
            }
        }
    }

    /// Closes the file, after what was answered is written.
    pub(super) fn close(&self) -> Result<()> {
        let seat = self.seat().take();
        let flush = || seat.map_or(Err(Error::keystore_closed()), |mut seat| seat.store.flush());
        // Whatever becomes of it, those who call from now on are not left waiting.
        let flushed = catch_unwind(AssertUnwindSafe(flush));
        self.end();
        flushed.unwrap_or_else(|_| Err(Error::keystore_closed()))
    }

    /// Nothing is taken any more, and who stands in line learns that.
    fn end(&self) {
        let mut line = self.lock();
        line.closed = true;
        line.busy = false;
        let left = std::mem::take(&mut line.messages);
        self.call_thread(&line);
        drop(line);
        drop(left);
    }

    /// Wakes the thread if it sleeps longer than it should.
    fn call_thread(&self, line: &Line) {
        let Some(until) = line.asleep.filter(|_| !line.busy) else { return };
        let sooner = line.tick.is_some_and(|tick| until.is_none_or(|until| tick < until));
        if sooner || line.closed || line.left || line.is_full() {
            self.called.notify_one();
        }
    }

    /// Whether somebody is at work, and how many stand in line.
    #[cfg(test)]
    pub(super) fn line(&self) -> (bool, usize) {
        let line = self.lock();
        (line.busy, line.messages.len())
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // What it holds is whole at every unlock.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Whether a caller who may wait runs his call himself.
    fn is_free(&self) -> bool {
        !self.busy && !self.closed && self.expected.is_none() && self.messages.is_empty() && !self.is_due()
    }

    /// Whether enough have come for the thread to begin.
    fn is_full(&self) -> bool {
        self.messages.len() >= self.expected.map_or(1, |(count, _)| count)
    }

    fn is_due(&self) -> bool {
        self.tick.is_some_and(|tick| tick <= Instant::now())
    }

    /// What is next, if there is anything to do.
    fn take(&mut self) -> Option<Work> {
        if self.closed {
            return Some(Work::End);
        }
        // Also where calls come without a pause.
        if self.is_due() {
            self.tick = None;
            return Some(Work::Tick);
        }
        if let Some((_, until)) = self.expected {
            if !self.left && !self.is_full() && Instant::now() < until {
                return None;
            }
            self.expected = None;
        }
        let mut jobs = Vec::new();
        while jobs.len() < GROUP_MAX {
            match self.messages.pop_front() {
                Some(Message::Job(job)) => jobs.push(job),
                Some(other) if !jobs.is_empty() => {
                    self.messages.push_front(other);
                    break;
                }
                Some(Message::Look(look)) => return Some(Work::Look(look)),
                Some(Message::Close(reply)) => return Some(Work::Close(reply)),
                None => break,
            }
        }
        if jobs.is_empty() {
            return self.left.then_some(Work::End);
        }
        Some(Work::Jobs(jobs))
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("messages", &self.messages.len()).field("busy", &self.busy).finish_non_exhaustive()
    }
}

/// When a store has something to do by itself.
fn at(store: &Store) -> Option<Instant> {
    store.next_tick().and_then(|wait| Instant::now().checked_add(wait))
}

/// How long those who were answered together are waited for.
const TOGETHER: Duration = Duration::from_micros(100);
/// Calls that share a transaction at most: the first of them waits for all.
const GROUP_MAX: usize = 128;
