//! A call that is driven by all who wait for it: whoever of them is polled first after it was woken.
//!
//! The locks come from [`sync`](super::sync), as those of [`flight`](super::flight) do.

use super::sync::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What makes a call. It holds the call's lead until that is done or dropped.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that is under way, for all who wait for it.
#[derive(Default)]
pub(super) struct Call {
    state: Mutex<Calling>,
}

#[derive(Default)]
struct Calling {
    /// Not there before it is shared, while somebody polls it, and once it is done.
    work: Option<Work>,
    /// Whether it may go on. It is polled with a waker of its own, so that it need not be polled otherwise.
    woken: bool,
    /// Whether nothing comes of it any more for those who did not begin it: it ended, or was invalidated.
    past: bool,
    /// Whether it was polled to its end, or dropped.
    done: bool,
    /// Who waits for it, by number. While there is work, there is one at least.
    riders: BTreeMap<u64, Option<Waker>>,
    /// How many came, besides the one who began it.
    came: u64,
}

impl Calling {
    fn wakers(&mut self) -> Vec<Waker> {
        self.riders.values_mut().filter_map(Option::take).collect()
    }
}

impl Call {
    /// Begins it, for whoever is given the ride and all who wait.
    pub(super) fn begin(self: Arc<Self>, work: Work) -> Ride {
        // Some may have come already.
        self.change(|state| {
            state.work = Some(work);
            state.woken = true;
            state.riders.insert(OWN, None);
        });
        Ride { call: self, id: Some(OWN) }
    }

    fn lock(&self) -> MutexGuard<'_, Calling> {
        // What the lock holds is whole at every unlock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who wait for it are to judge anew.
    pub(super) fn pass(&self) {
        self.change(|state| state.past = true);
    }

    /// Drops what was polled to its end, or is given up.
    fn finish(&self, work: Work) {
        // Its lead may be in there still.
        drop(work);
        self.change(|state| state.done = true);
    }

    fn change(&self, change: impl FnOnce(&mut Calling)) {
        let mut state = self.lock();
        change(&mut state);
        let woken = state.wakers();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// All who wait are woken: nobody knows which of them is held without being polled.
impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        state.woken = true;
        // Whoever is polling it looks again afterwards.
        let woken = if state.work.is_some() { state.wakers() } else { Vec::new() };
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A place among those who wait for a call. As a future, that of the one who began it: ready when there
/// is nothing left to do.
pub(crate) struct Ride {
    call: Arc<Call>,
    /// Its number, once it has waited.
    id: Option<u64>,
}

impl Ride {
    pub(super) fn new(call: Arc<Call>) -> Self {
        Self { call, id: None }
    }

    pub(super) fn is_on(&self, call: &Arc<Call>) -> bool {
        Arc::ptr_eq(&self.call, call)
    }

    /// Ready when the call is over for this one. Drives it, if it may go on.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.call.lock();
        if state.done || (state.past && self.id != Some(OWN)) {
            return Poll::Ready(());
        }
        let id = *self.id.get_or_insert_with(|| {
            state.came += 1;
            OWN + state.came
        });
        state.riders.insert(id, Some(cx.waker().clone()));
        if !state.woken {
            return Poll::Pending;
        }
        let Some(work) = state.work.take() else { return Poll::Pending };
        state.woken = false;
        drop(state);
        let mut polling = Polling { call: &self.call, work: Some(work) };
        polling.poll()
    }
}

impl Future for Ride {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.drive(cx)
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.call.lock();
        state.riders.remove(&id);
        let alone = if state.riders.is_empty() { state.work.take() } else { None };
        drop(state);
        if let Some(work) = alone {
            self.call.finish(work);
        }
    }
}

/// The work of a call while one of its riders polls it. Should that panic, it is given up.
struct Polling<'a> {
    call: &'a Arc<Call>,
    work: Option<Work>,
}

impl Polling<'_> {
    fn poll(&mut self) -> Poll<()> {
        let waker = Waker::from(Arc::clone(self.call));
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        if work.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            // Finished when it is dropped.
            return Poll::Ready(());
        }
        let mut state = self.call.lock();
        state.work = self.work.take();
        let woken = if state.woken { state.wakers() } else { Vec::new() };
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.call.finish(work);
        }
    }
}

/// The number of the rider that began the call.
const OWN: u64 = 0;
