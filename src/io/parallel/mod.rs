//! Bodies sealed and opened on several threads, from a reader to a writer or a file, in memory that is
//! bounded. What is sealed is a valid body of the length that one thread's has (IVs are random); what is
//! opened is the same bytes, and ends with the same error.
//!
//! ```text
//! batch    as many segments as fit into 256 KiB, at least one
//! batches  one thread: 1. n threads: n to 2 n, as many as fit into 32 MiB
//! memory   at most max(32 MiB, n batches), whatever the length
//! ```

mod batch;
mod line;
mod open;
mod pool;
mod seal;
mod sink;
mod sync;

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use pool::Plan;
pub use pool::Threads;
pub(crate) use sink::sink_failed;

use crate::crypto::random::SegmentIvs;
use crate::durable::AtomicFile;
use crate::error::{Error, Result};
use crate::segments::Segments;
use batch::Batch;
use line::{Line, Steps};
use open::{Open, Sealed};
use seal::{Plaintext, Seal};
use sink::{Sink, Target};
use std::any::Any;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Seals all of `source` into `sink`, and returns how many bytes went there.
///
/// # Errors
/// What source or sink failed with; kinds RandomFailed, LimitExceeded, and InvalidInput in a fork; kind
/// Internal if a thread panicked. The sink then holds a beginning that reads as truncated.
pub(crate) fn seal(
    segments: &dyn Segments,
    ivs: SegmentIvs,
    source: impl Read + Send,
    sink: impl Write + Send,
    plan: Plan,
) -> Result<u64> {
    run(&Seal::new(segments, Target::InOrder), Plaintext::new(source, ivs), sink, plan)
}

/// As [`seal`], into `file` from `offset` on.
///
/// # Errors
/// As [`seal`]; the file then holds anything.
pub(crate) fn seal_to_file(
    segments: &dyn Segments,
    ivs: SegmentIvs,
    source: impl Read + Send,
    file: &AtomicFile,
    offset: u64,
    plan: Plan,
) -> Result<u64> {
    run(&Seal::new(segments, Target::File { file, offset }), Plaintext::new(source, ivs), io::sink(), plan)
}

/// Opens the segments of `source`, all that it holds, into `sink`, and returns the length of the plaintext.
///
/// # Errors
/// What source or sink failed with, and what is wrong with the segments: the same as a
/// [reader](crate::io::read) of them meets, after the same bytes. Kind Internal if a thread panicked.
pub(crate) fn open(
    segments: &dyn Segments,
    source: impl Read + Send,
    sink: impl Write + Send,
    plan: Plan,
) -> Result<u64> {
    run(&Open::new(segments, Target::InOrder), Sealed::new(source), sink, plan)
}

/// As [`open`], into `file`.
///
/// # Errors
/// As [`open`]; the file then holds anything, and must not be shown to anybody.
pub(crate) fn open_to_file(
    segments: &dyn Segments,
    source: impl Read + Send,
    file: &AtomicFile,
    plan: Plan,
) -> Result<u64> {
    run(&Open::new(segments, Target::File { file, offset: 0 }), Sealed::new(source), io::sink(), plan)
}

/// Takes all batches through, on this thread and others, none of which outlives the call.
fn run<S, W>(steps: &S, source: S::Source, sink: W, plan: Plan) -> Result<u64>
where
    W: Write + Send,
    S: Steps<Batch = Batch, Sink = Sink<W>, Error = Error>,
{
    let batches = (0..plan.batches()).map(|_| Batch::new(plan.shape)).collect();
    let line = Line::<S>::new(source, Sink::new(sink), batches);
    thread::scope(|scope| {
        let help = || while guarded(&line, || line.step(steps)) {};
        let mut taken = 0;
        loop {
            if taken == plan.alone {
                for _ in 1..plan.threads {
                    // Without it the others do the work.
                    if thread::Builder::new().name("envelock-seg".into()).spawn_scoped(scope, help).is_err() {
                        break;
                    }
                }
            }
            taken += 1;
            if !guarded(&line, || line.step(steps)) {
                break;
            }
        }
    });
    let ended = line.into_outcome();
    match (ended.result, ended.sink) {
        (Some(Ok(())), Some(sink)) => Ok(sink.written),
        (Some(Err(error)), _) => Err(error),
        _ => Err(Error::internal("segments ended without an end")),
    }
}

/// A panic in `step`, wherever it comes from, ends the line like any other failure.
fn guarded<S: Steps<Error = Error>>(line: &Line<S>, step: impl FnOnce() -> bool) -> bool {
    // What was being worked on is dropped with the line, and never looked at.
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        line.fail(panicked(&*panic));
        false
    })
}

/// The error that a panic becomes.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::internal(format!("a thread that sealed or opened segments panicked: {text}"))
}
