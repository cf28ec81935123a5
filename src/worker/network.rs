//! The runtime for network calls of callers that have none, those that [`blocking`](crate::blocking) drives, and for calls that
//! belong to no caller (`provider/http/errand`).
//!
//! One thread, `envelock-net`, waits for sockets and timers. It is started by the first of either, or by a thread that gets
//! credentials for calls, serves all of them, and ends with the process. It is one of this crate's few global things (the others
//! are the start of the clock, the list of open keystores and a key for fingerprints): a runtime for each envelope would cost a
//! thread for each, and connections that outlive a call belong to the runtime that opened them.

use crate::worker::waits;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Handle};

/// The runtime that network calls made here run on.
///
/// While this thread waits, that is our own, even inside another: whoever waits within an asynchronous task keeps that task's
/// runtime from serving it.
///
/// # Errors
/// An I/O error if the thread cannot be started; `None` where this thread neither waits nor is in a runtime.
pub(crate) fn runtime() -> io::Result<Option<Handle>> {
    if waits() { own().map(Some) } else { Ok(Handle::try_current().ok()) }
}

struct Network {
    handle: Handle,
    /// The process that has the thread: a fork has not.
    process: u32,
}

static NETWORK: Mutex<Option<Network>> = Mutex::new(None);

/// The runtime of our own, whoever calls: for work that outlives its caller.
///
/// # Errors
/// An I/O error if the thread cannot be started.
pub(crate) fn own() -> io::Result<Handle> {
    let mut network = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some(Network { handle, .. }) = network.as_ref().filter(|network| network.process == process) {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("envelock-net".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    *network = Some(Network { handle: handle.clone(), process });
    Ok(handle)
}

/// A future that is polled, and dropped, within a runtime, whoever polls and drops it: a cache lets all who wait for a call drive it.
pub(crate) struct Within<F> {
    runtime: Handle,
    future: Option<Pin<Box<F>>>,
}

impl<F> Within<F> {
    pub(crate) fn new(runtime: Handle, future: F) -> Self {
        Self { runtime, future: Some(Box::pin(future)) }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { runtime, future } = &mut *self;
        let _inside = runtime.enter();
        match future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.future = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::waiting;

    #[test]
    fn a_thread_that_does_not_wait_has_no_runtime_and_one_that_does_has_the_one_of_all() {
        assert!(runtime().unwrap().is_none());
        let first = waiting(|| runtime().unwrap().unwrap());
        assert!(runtime().unwrap().is_none());
        let second = std::thread::spawn(|| waiting(|| runtime().unwrap().unwrap()));
        assert_eq!(first.id(), second.join().unwrap().id());
    }

    #[test]
    fn a_timer_runs_though_the_thread_that_waits_has_no_runtime() {
        let handle = waiting(|| runtime().unwrap().unwrap());
        let sleep = Within::new(handle, async { tokio::time::sleep(std::time::Duration::from_millis(20)).await });
        pollster::block_on(sleep);
    }
}
