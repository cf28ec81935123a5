//! Long work on a thread of its own, so that no executor waits for a disk or a slow hash, and none is
//! required.

#[cfg(feature = "http")]
pub(crate) mod network;

use crate::error::{Error, Result};

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
