//! Long work on a thread of its own, so that no executor waits for a disk or a slow hash, and none is
//! required; and which threads may wait, so that short work need not change threads there.

#![cfg_attr(
    not(all(feature = "local-kms", feature = "http", feature = "blocking")),
    allow(dead_code, reason = "keystores and networks ask which threads may wait")
)]

#[cfg(feature = "http")]
pub(crate) mod network;

use crate::error::{Error, Result};
use std::cell::Cell;

/// Runs `work` on a thread named `name`, started by the first poll. Dropping the future does not end the
/// work: its result is dropped once it is there.
///
/// # Errors
/// Kind Io if no thread can be started; kind Internal if `work` panics; what `work` fails with.
pub(crate) async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = futures_channel::oneshot::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // The receiver is gone if the caller is.
            let _ = sender.send(work());
        })
        .map_err(|e| Error::io(format!("no thread could be started for {name}"), e))?;
    receiver.await.unwrap_or_else(|_| Err(Error::internal(format!("the thread {name} panicked"))))
}

/// What a thread that polls may do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// It is an executor's: others need it.
    Shared,
    /// It waits for what it polls, and for nothing else.
    Waits,
    /// It waits for several things at once, none of which may hold the others up.
    WaitsForSeveral,
}

thread_local! {
    static THREAD: Cell<Thread> = const { Cell::new(Thread::Shared) };
}

/// Until it is dropped, also by a panic.
struct Until(Thread);

impl Drop for Until {
    fn drop(&mut self) {
        THREAD.set(self.0);
    }
}

/// Runs `work` for somebody who waits for it on this thread anyway: what it polls may wait here too.
pub(crate) fn waiting<T>(work: impl FnOnce() -> T) -> T {
    let _until = Until(THREAD.replace(Thread::Waits));
    work()
}

/// Runs `work` that polls one of several things: it must not hold the others up.
pub(crate) fn beside_others<T>(work: impl FnOnce() -> T) -> T {
    let now = THREAD.get();
    let _until = Until(THREAD.replace(if now == Thread::Shared { now } else { Thread::WaitsForSeveral }));
    work()
}

/// Whether a call on this thread may do its work on it, since nothing stands still meanwhile.
pub(crate) fn may_wait() -> bool {
    THREAD.get() == Thread::Waits
}

/// Whether somebody waits on this thread, so that no runtime is served by it.
#[cfg(feature = "http")]
pub(crate) fn waits() -> bool {
    THREAD.get() != Thread::Shared
}

#[cfg(test)]
mod tests {
    use super::{beside_others, may_wait, waiting};

    #[test]
    fn a_thread_may_wait_for_as_long_as_somebody_waits_on_it() {
        assert!(!may_wait());
        waiting(|| {
            waiting(|| assert!(may_wait()));
            assert!(may_wait());
            beside_others(|| assert!(!may_wait(), "the others would stand still"));
            assert!(may_wait());
            assert!(!std::thread::spawn(may_wait).join().unwrap(), "another thread");
        });
        assert!(!may_wait());
        beside_others(|| assert!(!may_wait()));
        std::panic::catch_unwind(|| waiting(|| panic!("for the test"))).unwrap_err();
        assert!(!may_wait());
    }
}
