//! Runs file work off the caller's thread, so that no executor waits for a disk.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when the future that waits for the work is dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// # Errors
    /// Kind Io if the caller has gone.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::new(crate::error::ErrorKind::Io, "cancelled: the caller stopped waiting"));
        }
        Ok(())
    }
}

struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread of its own. Dropping the future cancels the work at its next check; it
/// then cleans up behind itself.
pub(super) async fn offload<T: Send + 'static>(
    work: impl FnOnce(&Cancelled) -> Result<T> + Send + 'static,
) -> Result<T> {
    let guard = CancelOnDrop(Cancelled::default());
    let cancelled = guard.0.clone();
    let (sender, receiver) = futures_channel::oneshot::channel();
    std::thread::Builder::new()
        .name("envelock-file".into())
        .spawn(move || {
            // The receiver is gone if the caller is: the work has been undone by then.
            let _ = sender.send(work(&cancelled));
        })
        .map_err(|e| Error::io("no thread could be started for the file", e))?;
    receiver.await.unwrap_or_else(|_| Err(Error::internal("the thread that worked on the file panicked")))
}
