//! One value that is fetched by one call at a time, whoever asks: the first to find it useless begins
//! the call, and all others wait for what comes of it.
//!
//! ```text
//!           look: usable                          look: usable, ageing, no call under way
//! Use <------------------- value ----------------------------------------> Renew (value and call)
//!                            | look: useless
//!             no call        v        a call is under way
//! Lead <---------------- no value ----------------------> ride on it: Use, Failed, or Lead in its place
//! ```
//! A call belongs to nobody: [`Lead::share`] leaves it with all who wait for it, and whoever of them is
//! polled first after it was woken drives it on. So none of them waits for another one that is held
//! without being polled. It is dropped when the last of them leaves; a [`Lead`] that is dropped before
//! its call is done makes those who wait choose another. No lock is held while anybody waits or a call is
//! polled, and none is taken for longer than a few comparisons.
//!
//! Nothing of ours is named here, and the locks come from [`sync`](super::sync): `tests/it/one_call.rs`
//! compiles this very file and [`call`](super::call) against locks that try schedules.

use super::call::{Call, Ride, Work};
use super::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

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

/// The number of a call, and the call.
type UnderWay = (u64, Arc<Call>);

struct State<V, F> {
    value: Option<V>,
    /// How the last call failed, by its number.
    failure: Option<(u64, F)>,
    under_way: Option<UnderWay>,
    /// How many calls were begun.
    calls: u64,
}

impl<V, F: Clone> Flight<V, F> {
    pub(crate) fn new() -> Self {
        let state = State { value: None, failure: None, under_way: None, calls: 0 };
        Self { state: RwLock::new(state) }
    }

    /// What `caller` is to do. Waits while another caller's call is under way and nothing usable is there.
    ///
    /// The future may be dropped at any time.
    pub(crate) async fn turn<C: Caller<V, F>>(self: &Arc<Self>, caller: &C) -> Turn<C::Use, V, F> {
        if let Some(turn) = self.hit(caller) {
            return turn;
        }
        let mut waiter = Waiter { flight: self, since: None, ride: None };
        poll_fn(|cx| waiter.poll(caller, cx)).await
    }

    /// The answer where the value serves: what happens all the time.
    fn hit<C: Caller<V, F>>(self: &Arc<Self>, caller: &C) -> Option<Turn<C::Use, V, F>> {
        let state = self.read();
        match caller.look(state.value.as_ref()?) {
            Look::Use(used) => Some(Turn::Use(used, Way::Hit)),
            Look::UseAndRenew(used) if state.may_call(caller) => {
                let calls = state.calls;
                drop(state);
                let mut state = self.write();
                // Unless somebody renewed meanwhile what this one found.
                Some(if state.calls == calls && state.may_call(caller) {
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
        let under_way = state.under_way.take();
        drop(state);
        drop(gone);
        if let Some((_, call)) = under_way {
            call.pass();
        }
    }

    /// Whether nothing is lost with it: no call is under way, and value and failure, where there are
    /// any, are of no use.
    pub(crate) fn is_spent(&self, useless: impl FnOnce(&V) -> bool, over: impl FnOnce(&F) -> bool) -> bool {
        let state = self.read();
        state.under_way.is_none()
            && state.value.as_ref().is_none_or(useless)
            && state.failure.as_ref().is_none_or(|(_, failure)| over(failure))
    }

    fn lead(self: &Arc<Self>, state: &mut State<V, F>) -> Lead<V, F> {
        state.calls += 1;
        let call = Arc::new(Call::default());
        state.under_way = Some((state.calls, Arc::clone(&call)));
        Lead { flight: Some(Arc::clone(self)), number: state.calls, call }
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

    /// Ends the call of this number, unless it was invalidated: then nobody waits for it any more.
    fn land(&mut self, number: u64) -> Option<Arc<Call>> {
        self.under_way.take_if(|(of, _)| *of == number).map(|(_, call)| call)
    }
}

/// The right and the duty to make the call. Dropped, it leaves both to one of those who wait.
pub(crate) struct Lead<V, F> {
    /// Gone once it is done.
    flight: Option<Arc<Flight<V, F>>>,
    number: u64,
    call: Arc<Call>,
}

impl<V, F> Lead<V, F> {
    /// Begins the call, which is given the lead to end with: all who wait for it drive it, and this ride.
    pub(crate) fn share(self, call: impl FnOnce(Self) -> Work) -> Ride {
        let shared = Arc::clone(&self.call);
        let work = call(self);
        shared.begin(work)
    }

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
        let Some(call) = state.land(self.number) else { return };
        let gone = change(&mut state, self.number);
        drop(state);
        drop(gone);
        call.pass();
    }
}

impl<V, F> Drop for Lead<V, F> {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let call = flight.write().land(self.number);
        if let Some(call) = call {
            call.pass();
        }
    }
}

/// A caller that found nothing usable.
struct Waiter<'a, V, F> {
    flight: &'a Arc<Flight<V, F>>,
    /// The first call that it waited for: the failure of that one or of a later one is its own.
    since: Option<u64>,
    /// On the call that it waits for.
    ride: Option<Ride>,
}

impl<V, F: Clone> Waiter<'_, V, F> {
    fn poll<C: Caller<V, F>>(&mut self, caller: &C, cx: &mut Context<'_>) -> Poll<Turn<C::Use, V, F>> {
        loop {
            let judged = self.judge(&mut self.flight.write(), caller);
            let (number, call) = match judged {
                Ok(turn) => return Poll::Ready(turn),
                Err(under_way) => under_way,
            };
            self.since.get_or_insert(number);
            // It leaves the call that it waited for before, if that was another.
            let mut ride = match self.ride.take() {
                Some(ride) if ride.is_on(&call) => ride,
                _ => Ride::new(call),
            };
            let over = ride.drive(cx);
            self.ride = Some(ride);
            if over.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What to do, or which call to wait for.
    fn judge<C: Caller<V, F>>(&self, state: &mut State<V, F>, caller: &C) -> Result<Turn<C::Use, V, F>, UnderWay> {
        let way = if self.since.is_some() { Way::Wait } else { Way::Hit };
        match state.value.as_ref().map(|value| caller.look(value)) {
            Some(Look::Use(used)) => return Ok(Turn::Use(used, way)),
            Some(Look::UseAndRenew(used)) if state.may_call(caller) => {
                return Ok(Turn::Renew(used, self.flight.lead(state)));
            }
            Some(Look::UseAndRenew(used)) => return Ok(Turn::Use(used, way)),
            Some(Look::Useless) | None => {}
        }
        if let Some((number, failure)) = &state.failure {
            let own = self.since.is_some_and(|since| *number >= since);
            if own || (state.under_way.is_none() && caller.stands(failure)) {
                return Ok(Turn::Failed(failure.clone()));
            }
        }
        match &state.under_way {
            None => Ok(Turn::Lead(self.flight.lead(state))),
            Some((number, call)) => Err((*number, Arc::clone(call))),
        }
    }
}
