//! Long work on a thread of its own, so that no executor waits for a disk or a slow hash, and none is
//! required; and which threads may wait, so that short work need not change threads there.

#![cfg_attr(
    not(any(feature = "local-kms", feature = "http")),
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

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` for somebody who waits for it on this thread anyway: what it polls may wait here too.
pub(crate) fn waiting<T>(work: impl FnOnce() -> T) -> T {
    /// Also where `work` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MAY_WAIT.set(self.0);
        }
    }
    let _restore = Restore(MAY_WAIT.replace(true));
    work()
}

/// Whether a call on this thread may wait on it, since no executor stands still meanwhile.
pub(crate) fn may_wait() -> bool {
    MAY_WAIT.get()
}

#[cfg(test)]
mod tests {
    use super::{may_wait, waiting};

    #[test]
    fn a_thread_may_wait_for_as_long_as_somebody_waits_on_it() {
        assert!(!may_wait());
        waiting(|| {
            waiting(|| assert!(may_wait()));
            assert!(may_wait());
            assert!(!std::thread::spawn(may_wait).join().unwrap(), "another thread");
        });
        assert!(!may_wait());
        std::panic::catch_unwind(|| waiting(|| panic!("for the test"))).unwrap_err();
        assert!(!may_wait());
    }
}
