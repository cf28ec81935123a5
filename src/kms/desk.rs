//! Where calls on a keystore come in, and who works on them.
//!
//! One works on the file at a time: mostly the keystore's thread, which takes all calls that stand in line and runs them
//! in one transaction. A caller whose own thread [may wait](crate::worker::may_wait), and who finds nobody at work
//! and nobody in line, runs his call himself: two changes of thread take about as long as half a commit. Whoever
//! calls meanwhile stands in line, for one transaction of the thread's. Since nobody goes before the line, nobody is
//! overtaken, and what the thread does by itself is not put off either: its time is kept here, and once it has come, callers
//! stand in line.
//!
//! Who was answered together often comes back together. So after a group of several the thread begins with the first who
//! comes back, and gives as many the time to join the transaction, a part of what its commit takes: they share it, where
//! otherwise the first of them would have one for himself, and the others wait for it.

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
    /// How many calls the thread expects together, and until when: after a group of several.
    expected: Option<(usize, Instant)>,
    /// How many calls are in the transaction that the thread has begun, while it waits for others to join them.
    gathered: Option<usize>,
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
        self.work_for(|store| store.run(vec![job], None));
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
                line.tick
            };
            line = self.sleep(line, until);
        }
    }

    /// Runs a group of calls.
    pub(super) fn run_all(&self, jobs: Vec<Box<dyn Job>>) {
        self.work_for(|store| store.run(jobs, Some(&|gathered| self.join(gathered))));
    }

    /// The calls that join a transaction of so many: those that have come, or else those that come once all who were
    /// expected are there or their time is over. None if it is to be committed.
    fn join(&self, gathered: usize) -> Vec<Box<dyn Job>> {
        let mut line = self.lock();
        loop {
            let jobs = line.jobs(GROUP_MAX.saturating_sub(gathered));
            let until = line.expected.filter(|(count, until)| gathered < *count && Instant::now() < *until);
            let (Some((_, until)), true, false) = (until, jobs.is_empty() && line.messages.is_empty(), line.left)
            else {
                return jobs;
            };
            line.gathered = Some(gathered);
            line = self.sleep(line, Some(until));
            line.gathered = None;
        }
    }

    /// For the thread, until it is called.
    fn sleep<'a>(&'a self, mut line: MutexGuard<'a, Line>, until: Option<Instant>) -> MutexGuard<'a, Line> {
        line.asleep = Some(until);
        line = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(most) => self.called.wait_timeout(line, most).unwrap_or_else(PoisonError::into_inner).0,
            None => self.called.wait(line).unwrap_or_else(PoisonError::into_inner),
        };
        line.asleep = None;
        line
    }

    /// Does what was taken and is no call.
    pub(super) fn work(&self, work: impl FnOnce(&mut Store)) {
        self.work_for(|store| {
            work(store);
            1
        });
    }

    /// Does what is to be done for as many callers as `work` says. After a panic the keystore is closed, since nobody
    /// knows how far it came: as if its process had been killed then.
    fn work_for(&self, work: impl FnOnce(&mut Store) -> usize) {
        let mut seat = self.seat();
        let done = seat.as_mut().map(|seat| {
            catch_unwind(AssertUnwindSafe(|| {
                let callers = work(&mut seat.store);
                (callers, at(&seat.store))
            }))
        });
        match done {
            Some(Ok((callers, tick))) => {
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
        let Some(until) = line.asleep.filter(|_| !line.busy || line.gathered.is_some()) else { return };
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
        let expected = self.expected.is_some_and(|(_, until)| Instant::now() < until);
        !self.busy && !self.closed && !expected && self.messages.is_empty() && !self.is_due()
    }

    /// Whether enough have come for the thread to go on.
    fn is_full(&self) -> bool {
        let missing = self.expected.zip(self.gathered).map(|((count, _), gathered)| count.saturating_sub(gathered));
        // Whatever is no call ends the waiting.
        let other = self.messages.front().is_some_and(|first| !matches!(first, Message::Job(_)));
        other || self.messages.len() >= missing.unwrap_or(1)
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
        match self.messages.pop_front() {
            Some(Message::Job(first)) => {
                let mut jobs = vec![first];
                jobs.extend(self.jobs(GROUP_MAX - 1));
                Some(Work::Jobs(jobs))
            }
            Some(Message::Look(look)) => Some(Work::Look(look)),
            Some(Message::Close(reply)) => Some(Work::Close(reply)),
            None => self.left.then_some(Work::End),
        }
    }

    /// The calls that come next, `most` of them at most.
    fn jobs(&mut self, most: usize) -> Vec<Box<dyn Job>> {
        let mut jobs = Vec::new();
        while jobs.len() < most {
            match self.messages.pop_front() {
                Some(Message::Job(job)) => jobs.push(job),
                Some(other) => {
                    self.messages.push_front(other);
                    break;
                }
                None => break,
            }
        }
        jobs
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
