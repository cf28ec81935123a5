//! In a tokio runtime, entries are renewed by a task of their own.

use super::Renewal;
use tokio::runtime::Handle;

/// Starts the work; or gives it back, where this thread is in no runtime.
pub(super) fn start(renewal: Renewal) -> Option<Renewal> {
    match Handle::try_current() {
        Ok(runtime) => {
            drop(runtime.spawn(renewal));
            None
        }
        Err(_) => Some(renewal),
    }
}
