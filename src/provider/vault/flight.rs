//! Work that all who need its outcome drive together, so that it is done once and depends on nobody's being polled.

use crate::error::{Error, Result};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::sync::{Arc, Mutex, PoisonError};

/// Work in progress, whose failure all who wait get.
type Work<T> = BoxFuture<'static, Result<T, Arc<Error>>>;

/// At most one work under way. It is held by those who wait for it: once all of them are gone, so is it, and the next one
/// begins anew.
pub(super) struct Flight<T: Clone>(Mutex<Option<WeakShared<Work<T>>>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether somebody waits for work that has no outcome yet.
    pub(super) fn is_under_way(&self) -> bool {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work.as_ref().and_then(WeakShared::upgrade).is_some_and(|work| work.peek().is_none())
    }

    /// The outcome of the work under way, or else of what `begin` gives, which looks first whether it is still needed.
    pub(super) async fn join(&self, begin: impl FnOnce() -> BoxFuture<'static, Result<T>>) -> Result<T> {
        let work: Shared<Work<T>> = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match held.as_ref().and_then(WeakShared::upgrade).filter(|work| work.peek().is_none()) {
                Some(work) => work,
                None => {
                    let work = begin().map(|outcome| outcome.map_err(Arc::new)).boxed().shared();
                    *held = work.downgrade();
                    work
                }
            }
        };
        work.await.map_err(|error| error.again())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_who_wait_share_one_work_and_its_failure() {
        let flight = Flight::<u8>::new();
        let begun = AtomicUsize::new(0);
        let (sender, receiver) = futures_channel::oneshot::channel::<()>();
        let mut receiver = Some(receiver);
        let mut join = || {
            let receiver = receiver.take();
            flight.join(|| {
                begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    let _ = receiver.unwrap().await;
                    Err(Error::internal("no"))
                }
                .boxed()
            })
        };
        let (mut one, mut two) = (Box::pin(join()), Box::pin(join()));
        assert!((&mut one).now_or_never().is_none());
        assert!(flight.is_under_way());
        assert!((&mut two).now_or_never().is_none());
        sender.send(()).unwrap();
        // The first is never polled again, and holds nobody up.
        assert_eq!(two.now_or_never().unwrap().unwrap_err().kind(), crate::error::ErrorKind::Internal);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert!(!flight.is_under_way());
        assert_eq!(flight.join(|| async { Ok(7) }.boxed()).now_or_never().unwrap().unwrap(), 7);
        drop(one);
    }

    #[test]
    fn work_that_nobody_waits_for_is_dropped_and_begun_anew() {
        let flight = Flight::<u8>::new();
        let mut lost = Box::pin(flight.join(|| futures_util::future::pending().boxed()));
        assert!((&mut lost).now_or_never().is_none());
        drop(lost);
        assert!(!flight.is_under_way());
        assert_eq!(flight.join(|| async { Ok(1) }.boxed()).now_or_never().unwrap().unwrap(), 1);
    }
}
