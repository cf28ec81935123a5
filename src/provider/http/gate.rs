//! How many requests are under way at once: a gate that lets in so many, in the order in which they came.

use futures_channel::oneshot;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Only while nothing is free. Those who have gone away meanwhile are among them.
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place behind the gate, freed when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// `None` once it was given away.
    gate: Option<Gate>,
}

impl Gate {
    /// A gate that lets `places` in at once, at least one.
    pub(super) fn new(places: usize) -> Self {
        let state = State { free: places.max(1), waiting: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a place. Dropping the future gives up the turn, and a place that was already handed to it.
    pub(super) async fn enter(&self) -> Place {
        loop {
            let turn = {
                let mut state = self.lock();
                if let Some(left) = state.free.checked_sub(1) {
                    state.free = left;
                    return Place { gate: Some(self.clone()) };
                }
                let (sender, receiver) = oneshot::channel();
                if state.waiting.len() == state.waiting.capacity() {
                    state.waiting.retain(|waiter| !waiter.is_canceled());
                }
                state.waiting.push_back(sender);
                receiver
            };
            if let Ok(place) = turn.await {
                return place;
            }
        }
    }

    /// A place, if there is one now.
    pub(super) fn try_enter(&self) -> Option<Place> {
        let mut state = self.lock();
        state.free = state.free.checked_sub(1)?;
        drop(state);
        Some(Place { gate: Some(self.clone()) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        // Handed on outside the lock: a waiter that has gone meanwhile drops the place, which comes here again.
        loop {
            let mut state = gate.lock();
            let Some(next) = state.waiting.pop_front() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Self { gate: Some(gate.clone()) }) {
                Ok(()) => return,
                // Nobody waits there any more: the next one gets it.
                Err(mut returned) => returned.gate = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn those_who_wait_come_in_by_their_order() {
        let gate = Gate::new(1);
        let inside = pollster::block_on(gate.enter());
        let (mut first, mut second) = (pin!(gate.enter()), pin!(gate.enter()));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert!(gate.try_enter().is_none());
        drop(inside);
        // The place is the first one's already: nobody overtakes.
        assert!(gate.try_enter().is_none());
        assert!(poll(second.as_mut()).is_pending());
        let Poll::Ready(inside) = poll(first.as_mut()) else { panic!("the first waits on") };
        drop(inside);
        assert!(poll(second.as_mut()).is_ready());
        assert!(gate.try_enter().is_some());
    }

    #[test]
    fn whoever_goes_away_leaves_no_place_behind() {
        let gate = Gate::new(2);
        let (one, two) = (pollster::block_on(gate.enter()), pollster::block_on(gate.enter()));
        // One goes while it waits, one after a place was handed to it.
        {
            let mut gone = Box::pin(gate.enter());
            assert!(poll(gone.as_mut()).is_pending());
        }
        {
            let mut handed = Box::pin(gate.enter());
            assert!(poll(handed.as_mut()).is_pending());
            drop(one);
        }
        drop(two);
        let all: Vec<_> = std::iter::from_fn(|| gate.try_enter()).collect();
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_crowd_that_goes_away_is_forgotten() {
        let gate = Gate::new(1);
        let _inside = pollster::block_on(gate.enter());
        for _ in 0..100_000 {
            let mut gone = Box::pin(gate.enter());
            assert!(poll(gone.as_mut()).is_pending());
        }
        assert!(gate.lock().waiting.len() < 100);
    }

    #[test]
    fn there_are_never_more_inside_than_places() {
        let (gate, inside, most) = (Gate::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..500 {
                        let place = pollster::block_on(gate.enter());
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        if round % 50 == 0 {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 3);
        assert_eq!(std::iter::from_fn(|| gate.try_enter()).collect::<Vec<_>>().len(), 3);
    }
}
