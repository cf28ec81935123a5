//! A [`Sealer`] whose long segments are sealed on another thread.

use super::offload::{OFFLOAD_ABOVE, Offload, TURN, runtime};
use crate::error::Result;
use crate::io::sealer::{Last, SealedJob, Sealer};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The half of the asynchronous writers that computes. Every call may be repeated after `Pending`.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) sealer: Sealer,
    offload: Offload<SealedJob>,
}

impl Sealing {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, offload: Offload::new() }
    }

    /// Waits for a segment that is being sealed. To be called before anything else is asked of the sealer.
    ///
    /// # Errors
    /// The one that the message failed with, now or before.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match ready!(self.offload.poll(cx)) {
            None => {}
            Some(Ok(sealed)) => self.sealer.complete(sealed)?,
            Some(Err(error)) => {
                self.sealer.fail(error.kind());
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(self.sealer.check())
    }

    /// Takes some of `data`, at least one byte, unless a segment had to be sealed first: then 0, and
    /// something is outgoing. To be called with nothing outgoing.
    pub(super) fn poll_absorb(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_settled(cx))?;
        self.sealer.check_writable()?;
        ready!(self.offload.poll_turn(cx));
        let layout = self.sealer.layout();
        if layout.segment_len() <= OFFLOAD_ABOVE {
            let count = self.sealer.absorb(data)?;
            if !self.sealer.outgoing().is_empty() {
                self.offload.count(layout.segment_len());
            }
            return Poll::Ready(Ok(count));
        }
        if self.sealer.is_full() && !data.is_empty() {
            self.start(Last::No)?;
            ready!(self.poll_settled(cx))?;
            return Poll::Ready(Ok(0));
        }
        let count = self.sealer.gather(data.get(..TURN).unwrap_or(data))?;
        self.offload.count(count);
        Poll::Ready(Ok(count))
    }

    /// Seals the final segment, once.
    pub(super) fn poll_seal_last(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_settled(cx))?;
        if self.sealer.is_sealed() {
            return Poll::Ready(Ok(()));
        }
        let len = self.sealer.filled + self.sealer.layout().overhead();
        if len > OFFLOAD_ABOVE {
            self.start(Last::Yes)?;
            return self.poll_settled(cx);
        }
        ready!(self.offload.poll_turn(cx));
        self.offload.count(len);
        Poll::Ready(self.sealer.seal_last())
    }

    fn start(&mut self, last: Last) -> Result<()> {
        // First: without a runtime the segment stays where it is.
        let runtime = runtime()?;
        let job = self.sealer.begin(last)?;
        let segments = Arc::clone(&self.sealer.segments);
        self.offload.start(&runtime, move || job.run(&*segments));
        Ok(())
    }
}
