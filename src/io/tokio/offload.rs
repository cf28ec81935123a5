//! CPU work that an executor should not wait for.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Bytes of a segment above which it is sealed and opened on another thread.
///
/// Measured (docs/benchmarks.md): 256 KiB take about 0.1 ms, which is what a task may go without a pause;
/// the way to another thread and back takes a fifth of that, and is worth it from there on.
pub(super) const OFFLOAD_ABOVE: usize = 256 << 10;

/// Bytes after which a task that never had to wait lets others have their turn, which costs it a third of
/// a microsecond.
pub(super) const TURN: usize = 256 << 10;

/// At most one piece of work on one of tokio's blocking threads, and the count of what was done here.
pub(super) struct Offload<T> {
    running: Option<JoinHandle<T>>,
    done_here: usize,
}

impl<T: Send + 'static> Offload<T> {
    pub(super) fn new() -> Self {
        Self { running: None, done_here: 0 }
    }

    /// Starts `work`; nothing runs when this is called.
    pub(super) fn start(&mut self, runtime: &Handle, work: impl FnOnce() -> T + Send + 'static) {
        self.running = Some(runtime.spawn_blocking(work));
    }

    /// What the running work gave; `None` if none runs.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        let done = ready!(Pin::new(running).poll(cx));
        self.running = None;
        Poll::Ready(Some(done.map_err(|error| {
            if error.is_cancelled() {
                Error::new(ErrorKind::Io, "the tokio runtime was shut down while a segment was worked on")
                    .with_advice("start again, and keep the runtime until the message is done")
            } else {
                Error::internal("the thread that worked on a segment panicked")
            }
        })))
    }

    /// Counts bytes that were worked on in this task.
    pub(super) fn count(&mut self, bytes: usize) {
        self.done_here += bytes;
    }

    /// Whether it is still this task's turn; if not, it is woken at once for the next one.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done_here < TURN {
            return Poll::Ready(());
        }
        self.done_here = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T> fmt::Debug for Offload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").field("running", &self.running.is_some()).finish_non_exhaustive()
    }
}

/// The runtime that polls.
///
/// # Errors
/// Kind InvalidInput if none does.
pub(super) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|error| {
        Error::invalid_input(
            "segments longer than 256 KiB are worked on by threads of tokio, and no tokio runtime is here",
        )
        .with_advice("poll this inside a tokio runtime, or make messages of shorter segments")
        .with_source(error)
    })
}
