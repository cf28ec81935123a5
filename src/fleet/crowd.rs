//! Several futures at once, within one: they run where that is polled, and end when it is dropped.

use crate::worker::beside_others;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures under way. Few: each wake polls all of them.
pub(super) struct Crowd<F> {
    running: Vec<Pin<Box<F>>>,
}

impl<F: Future> Crowd<F> {
    pub(super) fn new() -> Self {
        Self { running: Vec::new() }
    }

    pub(super) fn push(&mut self, future: F) {
        self.running.push(Box::pin(future));
    }

    /// What the first to be done gives; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        poll_fn(|context| {
            if self.running.is_empty() {
                return Poll::Ready(None);
            }
            for at in 0..self.running.len() {
                let Some(future) = self.running.get_mut(at) else { break };
                if let Poll::Ready(output) = beside_others(|| future.as_mut().poll(context)) {
                    drop(self.running.swap_remove(at));
                    return Poll::Ready(Some(output));
                }
            }
            Poll::Pending
        })
        .await
    }
}
