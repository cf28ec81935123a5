//! Runs file work off the caller's thread, so that no executor waits for a disk.

use crate::error::{Error, Result};
use crate::worker;
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
    // With the caller gone, the work has been undone by the time its result is dropped.
    worker::run("envelock-file", move || work(&cancelled)).await
}
