//! One value that is fetched by one call at a time, whoever asks: the first to find it useless makes
//! the call, and all others wait for what comes of it.
//!
//! ```text
//!           look: usable                          look: usable, ageing, no call under way
//! Use <------------------- value ----------------------------------------> Renew (value and call)
//!                            | look: useless
//!             no call        v        a call is under way
//! Lead <---------------- no value ----------------------> wait: Use, Failed, or Lead in its place
//! ```
//! A call belongs to a [`Lead`]. Dropped before it is done, by a caller that was cancelled, say, it hands
//! over to one of those who wait. No lock is held while anybody waits, and none is taken for longer than
//! a few comparisons.
//!
//! Nothing of ours is named here, and the locks come from [`sync`](super::sync): `tests/it/one_call.rs`
//! compiles this very file against locks that try schedules.

use super::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a caller makes of what it finds.
pub(crate) trait Caller<V, F> {
    /// What it takes from a value.
    type Use;

    /// Judges a value, and takes from it what is needed. Called under a lock: quick, and waits for nothing.
    fn look(&self, value: &V) -> Look<Self::Use>;

    /// Whether a failure still answers for another call.
    fn stands(&self, failure: &F) -> bool;
}

/// What a caller says of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look<U> {
    /// It serves.
    Use(U),
    /// It serves, and its end is near.
    UseAndRenew(U),
    /// It does not serve.
    Useless,
}

/// What a caller is to do.
pub(crate) enum Turn<U, V, F> {
    /// Use this.
    Use(U, Way),
    /// Use this, and make the call that renews it, now or in the background.
    Renew(U, Lead<V, F>),
    /// Make the call.
    Lead(Lead<V, F>),
    /// The call that would have answered failed.
    Failed(F),
}

/// How a value was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It was there.
    Hit,
    /// Another caller's call was waited for.
    Wait,
}

/// What becomes of the value that is there when a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    Keep,
    Drop,
}

/// A value, and the call that fetches it.
pub(crate) struct Flight<V, F> {
    state: RwLock<State<V, F>>,
}

struct State<V, F> {
    value: Option<V>,
    /// How the last call failed, by its number.
    failure: Option<(u64, F)>,
    /// The number of the call under way.
    under_way: Option<u64>,
    /// How many calls were begun.
    calls: u64,
    /// Those who wait, by number. With a call under way, or with one of them called, or empty.
    waiting: BTreeMap<u64, Waker>,
    /// How many have ever waited.
    waiters: u64,
    /// Who was woken to take over a call that was given up, and has not come yet.
    called: Option<u64>,
}

impl<V, F: Clone> Flight<V, F> {
    pub(crate) fn new() -> Self {
        let state = State {
            value: None,
            failure: None,
            under_way: None,
            calls: 0,
            waiting: BTreeMap::new(),
            waiters: 0,
            called: None,
        };
        Self { state: RwLock::new(state) }
    }

    /// What `caller` is to do. Waits while another caller's call is under way and nothing usable is there.
    ///
    /// The future may be dropped at any time.
    pub(crate) async fn turn<C: Caller<V, F>>(self: &Arc<Self>, caller: &C) -> Turn<C::Use, V, F> {
        if let Some(turn) = self.hit(caller) {
            return turn;
        }
        let mut waiter = Waiter { flight: self, id: None, since: None };
        poll_fn(|cx| waiter.poll(caller, cx)).await
    }

    /// The answer where the value serves: what happens all the time.
    fn hit<C: Caller<V, F>>(self: &Arc<Self>, caller: &C) -> Option<Turn<C::Use, V, F>> {
        let state = self.read();
        match caller.look(state.value.as_ref()?) {
            Look::Use(used) => Some(Turn::Use(used, Way::Hit)),
            Look::UseAndRenew(used) if state.may_call(caller) => {
                drop(state);
                let mut state = self.write();
                Some(if state.may_call(caller) {
                    Turn::Renew(used, self.lead(&mut state))
                } else {
                    Turn::Use(used, Way::Hit)
                })
            }
            Look::UseAndRenew(used) => Some(Turn::Use(used, Way::Hit)),
            Look::Useless => None,
        }
    }

    /// What `look` takes from the value, whatever else goes on.
    pub(crate) fn peek<U>(&self, look: impl FnOnce(&V) -> Option<U>) -> Option<U> {
        self.read().value.as_ref().and_then(look)
    }

    /// Forgets the value and the failure. A call under way goes on, and what it brings serves nobody but
    /// whoever made it: those who wait for it make another.
    pub(crate) fn invalidate(&self) {
        let mut state = self.write();
        let gone = (state.value.take(), state.failure.take());
        state.under_way = None;
        state.called = None;
        let woken = mem::take(&mut state.waiting);
        drop(state);
        drop(gone);
        woken.into_values().for_each(Waker::wake);
    }

    /// Whether nothing is lost with it: no call is under way, and value and failure, where there are
    /// any, are of no use.
    pub(crate) fn is_spent(&self, useless: impl FnOnce(&V) -> bool, over: impl FnOnce(&F) -> bool) -> bool {
        let state = self.read();
        state.under_way.is_none()
            && state.waiting.is_empty()
            && state.value.as_ref().is_none_or(useless)
            && state.failure.as_ref().is_none_or(|(_, failure)| over(failure))
    }

    fn lead(self: &Arc<Self>, state: &mut State<V, F>) -> Lead<V, F> {
        state.calls += 1;
        state.under_way = Some(state.calls);
        state.called = None;
        Lead { flight: Some(Arc::clone(self)), number: state.calls }
    }
}

impl<V, F> Flight<V, F> {
    fn read(&self) -> RwLockReadGuard<'_, State<V, F>> {
        // What the lock holds is whole at every unlock.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<V, F>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V, F> State<V, F> {
    fn may_call<C: Caller<V, F>>(&self, caller: &C) -> bool {
        self.under_way.is_none() && !self.failure.as_ref().is_some_and(|(_, failure)| caller.stands(failure))
    }

    /// Calls the one who has waited longest, if nobody makes the call.
    fn call_next(&mut self) -> Option<Waker> {
        if self.under_way.is_some() {
            return None;
        }
        let (id, waker) = self.waiting.pop_first()?;
        self.called = Some(id);
        Some(waker)
    }

    /// One who waits goes; if it was called, another is.
    fn leave(&mut self, id: u64) -> Option<Waker> {
        self.waiting.remove(&id);
        if self.called != Some(id) {
            return None;
        }
        self.called = None;
        self.call_next()
    }
}

/// The right and the duty to make the call. Dropped, it hands over to one who waits.
pub(crate) struct Lead<V, F> {
    /// Gone once it is done.
    flight: Option<Arc<Flight<V, F>>>,
    number: u64,
}

impl<V, F> Lead<V, F> {
    /// The call brought `value`.
    pub(crate) fn complete(self, value: V) {
        self.end(|state, _| {
            state.failure = None;
            state.value.replace(value)
        });
    }

    /// The call failed: those who wait for it fail with it, and so do others while `failure` stands.
    pub(crate) fn fail(self, failure: F, old: Old) {
        self.end(|state, number| {
            state.failure = Some((number, failure));
            match old {
                Old::Keep => None,
                Old::Drop => state.value.take(),
            }
        });
    }

    /// `change` returns what is to be dropped outside the lock.
    fn end(mut self, change: impl FnOnce(&mut State<V, F>, u64) -> Option<V>) {
        let Some(flight) = self.flight.take() else { return };
        let mut state = flight.write();
        // It was invalidated meanwhile: nobody waits for this call any more.
        if state.under_way != Some(self.number) {
            return;
        }
        state.under_way = None;
        let gone = change(&mut state, self.number);
        let woken = mem::take(&mut state.waiting);
        drop(state);
        drop(gone);
        woken.into_values().for_each(Waker::wake);
    }
}

impl<V, F> Drop for Lead<V, F> {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let mut state = flight.write();
        if state.under_way != Some(self.number) {
            return;
        }
        state.under_way = None;
        let next = state.call_next();
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}

/// A caller that found nothing usable.
struct Waiter<'a, V, F> {
    flight: &'a Arc<Flight<V, F>>,
    /// Its number, once it has waited.
    id: Option<u64>,
    /// The first call that it waited for: the failure of that one or of a later one is its own.
    since: Option<u64>,
}

impl<V, F: Clone> Waiter<'_, V, F> {
    fn poll<C: Caller<V, F>>(&mut self, caller: &C, cx: &mut Context<'_>) -> Poll<Turn<C::Use, V, F>> {
        let mut state = self.flight.write();
        let (turn, next) = match self.judge(&mut state, caller) {
            Some(turn) => {
                // If it was called to make the call and does not, another is.
                let next = self.id.take().and_then(|id| state.leave(id));
                (Poll::Ready(turn), next)
            }
            None => {
                let id = *self.id.get_or_insert_with(|| {
                    state.waiters += 1;
                    state.waiters
                });
                state.waiting.insert(id, cx.waker().clone());
                (Poll::Pending, None)
            }
        };
        drop(state);
        next.into_iter().for_each(Waker::wake);
        turn
    }

    /// `None`: to wait.
    fn judge<C: Caller<V, F>>(&mut self, state: &mut State<V, F>, caller: &C) -> Option<Turn<C::Use, V, F>> {
        let way = if self.since.is_some() { Way::Wait } else { Way::Hit };
        match state.value.as_ref().map(|value| caller.look(value)) {
            Some(Look::Use(used)) => return Some(Turn::Use(used, way)),
            Some(Look::UseAndRenew(used)) if state.may_call(caller) => {
                return Some(Turn::Renew(used, self.flight.lead(state)));
            }
            Some(Look::UseAndRenew(used)) => return Some(Turn::Use(used, way)),
            Some(Look::Useless) | None => {}
        }
        if let Some((number, failure)) = &state.failure {
            let own = self.since.is_some_and(|since| *number >= since);
            if own || (state.under_way.is_none() && caller.stands(failure)) {
                return Some(Turn::Failed(failure.clone()));
            }
        }
        match state.under_way {
            None => Some(Turn::Lead(self.flight.lead(state))),
            Some(number) => {
                self.since.get_or_insert(number);
                None
            }
        }
    }
}

impl<V, F> Drop for Waiter<'_, V, F> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let next = self.flight.write().leave(id);
        next.into_iter().for_each(Waker::wake);
    }
}
