//! Work that is done once for all who need its outcome, and to its end whoever of them goes away.
//!
//! It runs on this crate's own runtime (`worker/network`), which ends with the process: that of whoever began it may stand still
//! or be gone while others wait. They hold nothing but the receiver of its outcome. It waits for no disk there: what reads a file does
//! so by `worker::run`.

use super::trace;
use crate::error::{Error, ErrorKind, Result};
use crate::worker::network;
use futures_channel::oneshot;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// At most one work under way, and all who wait for it.
pub(crate) struct Errand<T>(Arc<Mutex<Option<UnderWay<T>>>>);

struct UnderWay<T> {
    /// The process whose thread does it: a fork has no such thread.
    process: u32,
    /// Those who have gone away meanwhile are among them.
    waiting: Vec<oneshot::Sender<Result<T>>>,
}

#[cfg_attr(not(feature = "vault"), allow(dead_code, reason = "Vault's logins and proofs are errands"))]
impl<T: Clone + Send + 'static> Errand<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Whether there is work that has no outcome yet.
    pub(crate) fn is_under_way(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(UnderWay::is_here)
    }

    /// The outcome of the work under way, or else of what `begin` gives, which looks first whether it is still needed. Dropping
    /// the future leaves the work to itself.
    ///
    /// # Errors
    /// What the work fails with, for all who wait. Kind Io if the runtime cannot be started; kind Internal if the work panics.
    pub(crate) async fn join<F>(&self, begin: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let outcome = self.ask(begin)?.await;
        outcome.unwrap_or_else(|oneshot::Canceled| Err(Error::internal("a call that others waited for panicked")))
    }

    fn ask<F>(&self, begin: impl FnOnce() -> F) -> Result<oneshot::Receiver<Result<T>>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let mut held = lock(&self.0);
        if let Some(UnderWay { waiting, .. }) = held.as_mut().filter(|under_way| under_way.is_here()) {
            if waiting.len() == waiting.capacity() {
                waiting.retain(|waiter| !waiter.is_canceled());
            }
            waiting.push(sender);
            return Ok(receiver);
        }
        let runtime = network::own().map_err(|error| {
            Error::new(ErrorKind::Io, "no thread could be started for the network")
                .with_source(error)
                .with_advice("try again, and look at the limit of threads if it persists")
        })?;
        let work = begin();
        *held = Some(UnderWay { process: std::process::id(), waiting: vec![sender] });
        drop(held);
        // Made here, so that it is dropped even with a task that never ran.
        let ending = Ending { place: Arc::clone(&self.0), outcome: None };
        runtime.spawn(trace::here(async move { ending.with(work.await) }));
        Ok(receiver)
    }
}

impl<T> UnderWay<T> {
    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

/// The end of the work, by whatever way: those who wait are told, and it is under way no more.
struct Ending<T: Clone> {
    place: Arc<Mutex<Option<UnderWay<T>>>>,
    /// `None` after a panic, or without a runtime: the senders' end tells of that.
    outcome: Option<Result<T>>,
}

impl<T: Clone> Ending<T> {
    fn with(mut self, outcome: Result<T>) {
        self.outcome = Some(outcome);
    }
}

impl<T: Clone> Drop for Ending<T> {
    fn drop(&mut self) {
        let waiting = lock(&self.place).take().map(|under_way| under_way.waiting).unwrap_or_default();
        let Some(outcome) = self.outcome.take() else { return };
        for waiter in waiting {
            // One that is gone needs no outcome.
            let _ = waiter.send(outcome.as_ref().map_err(Error::again).cloned());
        }
    }
}

fn lock<T>(held: &Mutex<Option<UnderWay<T>>>) -> MutexGuard<'_, Option<UnderWay<T>>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use pollster::block_on;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn many_who_wait_share_one_work_and_its_failure() {
        let errand = Errand::<u8>::new();
        let begun = AtomicUsize::new(0);
        let (sender, receiver) = oneshot::channel::<()>();
        let mut receiver = Some(receiver);
        let mut join = || {
            let receiver = receiver.take();
            errand.join(|| {
                begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    let _ = receiver.unwrap().await;
                    Err(Error::invalid_input("no"))
                }
            })
        };
        let (mut one, mut two) = (Box::pin(join()), Box::pin(join()));
        assert!((&mut one).now_or_never().is_none());
        assert!(errand.is_under_way());
        assert!((&mut two).now_or_never().is_none());
        sender.send(()).unwrap();
        // The first is not polled meanwhile, and holds nobody up.
        assert_eq!(block_on(two).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(block_on(one).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert!(!errand.is_under_way());
        assert_eq!(block_on(errand.join(|| async { Ok(7) })).unwrap(), 7);
    }

    #[test]
    fn work_goes_on_though_all_who_waited_and_their_runtime_are_gone() {
        let errand = Errand::<u8>::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let work = || async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(1)
            };
            assert!(errand.join(work).now_or_never().is_none());
        });
        drop(runtime);
        assert!(errand.is_under_way());
        assert_eq!(block_on(errand.join(|| async { Ok(2) })).unwrap(), 1, "what was begun");
        assert_eq!(block_on(errand.join(|| async { Ok(2) })).unwrap(), 2);
    }

    #[test]
    fn work_that_panics_is_an_error_for_all_who_wait_and_is_begun_anew() {
        let errand = Errand::<u8>::new();
        let fails = || async { if std::hint::black_box(true) { panic!("for the test") } else { Ok(0) } };
        assert_eq!(block_on(errand.join(fails)).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(block_on(errand.join(|| async { Ok(1) })).unwrap(), 1);
    }

    #[test]
    fn a_crowd_that_goes_away_is_forgotten() {
        let errand = Errand::<u8>::new();
        for _ in 0..10_000 {
            assert!(errand.join(std::future::pending).now_or_never().is_none());
        }
        assert!(lock(&errand.0).as_ref().unwrap().waiting.len() < 100);
    }
}
