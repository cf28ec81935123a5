//! An [`Opener`] whose long segments are opened on another thread.

use super::offload::{OFFLOAD_ABOVE, Offload, runtime};
use crate::error::Result;
use crate::io::opener::{OpenedJob, Opener};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The half of the asynchronous readers that computes. Every call may be repeated after `Pending`.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) opener: Opener,
    offload: Offload<OpenedJob>,
}

impl Opening {
    pub(super) fn new(opener: Opener) -> Self {
        Self { opener, offload: Offload::new() }
    }

    /// Waits for a segment that is being opened. To be called before anything else is asked of the opener.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(match ready!(self.offload.poll(cx)) {
            None => Ok(()),
            Some(Ok(opened)) => self.opener.complete(opened),
            Some(Err(error)) => Err(self.opener.fail(error)),
        })
    }

    /// Opens the next segment, all of which is there: into `out` where that has room for all of it, else
    /// so that it is ready in the opener. Returns the bytes put into `out`.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize>> {
        if self.opener.have > OFFLOAD_ABOVE {
            // First: without a runtime the segment stays where it is.
            let runtime = runtime()?;
            let job = self.opener.begin()?;
            let segments = Arc::clone(&self.opener.segments);
            self.offload.start(&runtime, move || job.run(&*segments));
            return self.poll_settled(cx).map_ok(|()| 0);
        }
        ready!(self.offload.poll_turn(cx));
        self.offload.count(self.opener.have);
        Poll::Ready(self.opener.open(out))
    }
}
