//! Calls to several providers that are under way at the same time, driven by whoever waits for them: no runtime, no thread.

use crate::worker::beside_others;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A call to a provider, as the trait's methods return it.
pub(super) type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Calls under way, each with the number that it was begun under. Dropping it cancels them.
///
/// There are few of them, so each that is woken polls all.
pub(super) struct AtOnce<'a, T> {
    calls: Vec<(usize, Call<'a, T>)>,
}

impl<'a, T> AtOnce<'a, T> {
    pub(super) fn new() -> Self {
        Self { calls: Vec::new() }
    }

    /// Adds a call. It begins when it is waited for.
    pub(super) fn push(&mut self, number: usize, call: Call<'a, T>) {
        self.calls.push((number, call));
    }

    /// The numbers of those that have not ended.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().map(|(number, _)| *number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The next one to end, with its number.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(usize, T)> {
        let ended = self.calls.iter_mut().enumerate().find_map(|(at, (number, call))| {
            match beside_others(|| call.as_mut().poll(context)) {
                Poll::Ready(answer) => Some((at, *number, answer)),
                Poll::Pending => None,
            }
        });
        match ended {
            Some((at, number, answer)) => {
                drop(self.calls.swap_remove(at));
                Poll::Ready((number, answer))
            }
            None => Poll::Pending,
        }
    }
}
