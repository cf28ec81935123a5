//! Batches through several threads and out again in order. No thread coordinates: each takes a free
//! batch, fills it when it is its turn to read, works on it, and hands it over; whoever hands over what
//! comes next writes it, and all that waited behind it.
//!
//! ```text
//! free --read, one at a time--> numbered --work, all at once--> done --write, in order--> free
//! ```
//! The batch that comes next is always with a thread that waits for nothing but the source, so that no
//! number of batches, not even one, can end in a deadlock. Memory is what the batches hold.
//!
//! Nothing of ours is named here, and the locks come from [`sync`](super::sync): `tests/it/ordering.rs`
//! compiles this very file against locks that try schedules.

use super::sync::{Condvar, Mutex, MutexGuard};
use std::ops::ControlFlow;
use std::sync::PoisonError;

/// What is done to batches.
pub(crate) trait Steps: Sync {
    /// What batches are filled from.
    type Source: Send;
    /// A piece of work, used again and again.
    type Batch: Send;
    /// What takes batches in order.
    type Sink: Send;
    /// Why it all may end.
    type Error: Send;

    /// Fills `batch`; one call at a time, in order. After [`More::No`] no call follows, and the
    /// [`write`](Self::write) of this batch breaks.
    fn read(&self, source: &mut Self::Source, batch: &mut Self::Batch) -> More;

    /// Works on `batch`, at the same time as other threads on others.
    fn work(&self, batch: &mut Self::Batch);

    /// Takes what became of `batch`; one call at a time, in the order of the reads. A break is how it
    /// all ends: no call follows.
    fn write(&self, sink: &mut Self::Sink, batch: &mut Self::Batch) -> ControlFlow<Result<(), Self::Error>>;
}

/// Whether another batch may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Yes,
    No,
}

/// What the threads share.
pub(crate) struct Line<S: Steps> {
    /// Locked before `state`, never after it.
    source: Mutex<Turn<S::Source>>,
    state: Mutex<State<S>>,
    /// A batch became free, or all has ended.
    changed: Condvar,
}

/// How it ended.
pub(crate) struct Outcome<S: Steps> {
    /// `None` for a source that never ended.
    pub(crate) result: Option<Result<(), S::Error>>,
    /// The sink, unless a call to it panicked.
    pub(crate) sink: Option<S::Sink>,
}

struct Turn<T> {
    source: T,
    /// The number of the next batch.
    next: u64,
    ended: bool,
}

struct State<S: Steps> {
    free: Vec<S::Batch>,
    /// What was worked on: number n at n modulo the length. There are as many places as batches, and the
    /// numbers in use follow one another, so that no place is wanted twice.
    done: Vec<Option<S::Batch>>,
    /// The number of the next batch to write.
    next: u64,
    /// Gone while a thread writes.
    sink: Option<S::Sink>,
    outcome: Option<Result<(), S::Error>>,
}

impl<S: Steps> Line<S> {
    /// `batches` are at least one.
    pub(crate) fn new(source: S::Source, sink: S::Sink, batches: Vec<S::Batch>) -> Self {
        let done = batches.iter().map(|_| None).collect();
        Self {
            source: Mutex::new(Turn { source, next: 0, ended: false }),
            state: Mutex::new(State { free: batches, done, next: 0, sink: Some(sink), outcome: None }),
            changed: Condvar::new(),
        }
    }

    /// Takes one batch through: what each thread calls until the answer is `false`.
    pub(crate) fn step(&self, steps: &S) -> bool {
        let Some(mut batch) = self.wait_for_free() else { return false };
        let Some(number) = self.read(steps, &mut batch) else { return false };
        steps.work(&mut batch);
        self.hand_over(steps, number, batch)
    }

    /// Ends it all with `error`, unless it has ended: for a thread that cannot go on.
    pub(crate) fn fail(&self, error: S::Error) {
        let mut state = lock(&self.state);
        state.outcome.get_or_insert(Err(error));
        self.changed.notify_all();
    }

    /// How it ended, once no thread works here any more.
    pub(crate) fn into_outcome(self) -> Outcome<S> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Outcome { result: state.outcome, sink: state.sink }
    }

    fn wait_for_free(&self) -> Option<S::Batch> {
        let mut state = lock(&self.state);
        loop {
            if state.outcome.is_some() {
                return None;
            }
            if let Some(batch) = state.free.pop() {
                return Some(batch);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The number of the batch, or `None` if nothing more is to be read.
    fn read(&self, steps: &S, batch: &mut S::Batch) -> Option<u64> {
        let mut turn = lock(&self.source);
        if turn.ended || lock(&self.state).outcome.is_some() {
            return None;
        }
        let number = turn.next;
        turn.next += 1;
        // A source that panics is not asked again, by whichever thread comes first.
        turn.ended = true;
        turn.ended = steps.read(&mut turn.source, batch) == More::No;
        Some(number)
    }

    /// Whether it goes on.
    fn hand_over(&self, steps: &S, number: u64, batch: S::Batch) -> bool {
        let mut state = lock(&self.state);
        if let Some(place) = state.place(number) {
            *place = Some(batch);
        }
        // Without the sink, another thread is writing, and looks here again before it stops.
        if let Some(mut sink) = state.sink.take() {
            while state.outcome.is_none() {
                let next = state.next;
                let Some(mut batch) = state.place(next).and_then(Option::take) else { break };
                drop(state);
                let flow = steps.write(&mut sink, &mut batch);
                state = lock(&self.state);
                state.next += 1;
                match flow {
                    ControlFlow::Continue(()) => {
                        state.free.push(batch);
                        self.changed.notify_one();
                    }
                    ControlFlow::Break(result) => {
                        state.outcome.get_or_insert(result);
                        self.changed.notify_all();
                    }
                }
            }
            state.sink = Some(sink);
        }
        state.outcome.is_none()
    }
}

impl<S: Steps> State<S> {
    fn place(&mut self, number: u64) -> Option<&mut Option<S::Batch>> {
        let places = self.done.len() as u64;
        let at = usize::try_from(number.checked_rem(places)?).ok()?;
        self.done.get_mut(at)
    }
}

/// A panic elsewhere has ended it all, or will; what the lock holds is whole at every unlock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
