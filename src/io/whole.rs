//! Whole bodies from memory to memory: each byte is passed over once, by one thread or by several that
//! take pieces of the body in turn.

use crate::crypto::random;
use crate::error::{Error, Result};
use crate::io::parallel::panicked;
use crate::segments::{Position, Segments};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use zeroize::Zeroize;

/// How many segments' IVs are drawn at once.
const IVS: usize = 32;

/// Seals all of `plaintext` into `out`, which is exactly as long as the layout says, on so many threads.
///
/// IVs are drawn for many segments at once, without asking for the process before each: they do not
/// outlive this call, and a fork continues the thread that forked, which is not in here.
pub(crate) fn seal(segments: &dyn Segments, plaintext: &[u8], out: &mut [u8], threads: usize) -> Result<()> {
    let layout = segments.layout();
    let sealed_len = layout.sealed_len(plaintext.len() as u64)?;
    if out.len() as u64 != sealed_len {
        return Err(Error::invalid_input(format!(
            "the output has room for {} bytes; {sealed_len} are needed",
            out.len()
        )));
    }
    if threads < 2 {
        return seal_part(segments, 0, plaintext, out).map(drop);
    }
    let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
    let part = (PART / segment_len).max(1);
    let threads = threads.min(out.len().div_ceil(part * segment_len));
    let parts = out.chunks_mut(part * segment_len);
    let rests = (0..).map(|i: usize| plaintext.get(i * part * full..).unwrap_or_default());
    share(parts.zip(rests), threads, |i, (out, rest)| {
        match seal_part(segments, (i * part) as u64, rest, out) {
            // Every part must be sealed: only the last one has the last word.
            Ok(rest) => rest.is_empty().then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    })
}

/// Seals the beginning of `rest`, as much as fills `out`, from segment `first` on; gives back what is left.
fn seal_part<'a>(segments: &dyn Segments, first: u64, mut rest: &'a [u8], out: &mut [u8]) -> Result<&'a [u8]> {
    let layout = segments.layout();
    let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
    let mut ivs = [[0; 12]; IVS];
    for (batch_index, batch) in (0..).zip(out.chunks_mut(IVS * segment_len)) {
        let ivs = &mut ivs[..batch.len().div_ceil(segment_len)];
        random::fill(ivs.as_flattened_mut())?;
        for ((within, segment), iv) in (0..).zip(batch.chunks_mut(segment_len)).zip(ivs) {
            let (piece, later) = rest.split_at(rest.len().min(full));
            let at = Position { index: first + batch_index * IVS as u64 + within, last: later.is_empty() };
            segments.seal_to(at, iv, piece, segment)?;
            rest = later;
        }
    }
    Ok(rest)
}

/// Opens all of `sealed` into `out` on so many threads, and returns the length of the plaintext.
///
/// On failure all of `out` is wiped: a whole message is whole or nothing. The error is the one that is
/// met first from the front.
pub(crate) fn open(segments: &dyn Segments, sealed: &[u8], out: &mut [u8], threads: usize) -> Result<usize> {
    open_shared(segments, sealed, out, threads).inspect_err(|_| out.zeroize())
}

fn open_shared(segments: &dyn Segments, sealed: &[u8], out: &mut [u8], threads: usize) -> Result<usize> {
    if threads < 2 {
        return open_part(segments, 0, usize::MAX, sealed, out)?.ok_or_else(endless);
    }
    let layout = segments.layout();
    let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
    let part = (PART / segment_len).max(1);
    let count = sealed.len().div_ceil(part * segment_len).max(1);
    // Where the output ends early, whoever needs more of it says so.
    let outs = out.chunks_mut(part * full).chain(std::iter::repeat_with(<&mut [u8]>::default));
    let rests = (0..count).map(|i| sealed.get(i * part * segment_len..).unwrap_or_default());
    share(outs.zip(rests), threads.min(count), |i, (out, rest)| {
        // The last part goes on to the end of the message, wherever that is.
        let most = if i + 1 == count { usize::MAX } else { part };
        let opened = open_part(segments, (i * part) as u64, most, rest, out);
        Some(opened.transpose()?.map(|len| i * part * full + len))
    })
}

/// Opens the beginning of `rest` from segment `first` on: `most` segments, or to the end of the message.
/// Then the answer is how much plaintext there is in `out`.
fn open_part(segments: &dyn Segments, first: u64, most: usize, rest: &[u8], out: &mut [u8]) -> Result<Option<usize>> {
    let overhead = segments.layout().overhead();
    let (mut sealed_at, mut plain_at) = (0, 0);
    for index in (first..).take(most) {
        let rest = rest.get(sealed_at..).unwrap_or_default();
        let start = rest.first_chunk().ok_or_else(|| Error::truncated().with_segment(index))?;
        let peek = segments.peek(index, *start)?;
        let segment = rest.get(..peek.len).ok_or_else(|| Error::truncated().with_segment(index))?;
        let end = plain_at + peek.len - overhead;
        let plaintext = out.get_mut(plain_at..end).ok_or_else(|| {
            Error::invalid_input("the output is shorter than the plaintext: ask `plaintext_len` for its length")
        })?;
        segments.open_to(peek.at, segment, plaintext)?;
        sealed_at += peek.len;
        plain_at = end;
        if peek.at.last {
            let trailing = rest.len() > peek.len;
            return if trailing { Err(Error::trailing_data()) } else { Ok(Some(plain_at)) };
        }
    }
    Ok(None)
}

/// Does `work` on all of `parts`, on this thread and others, none of which outlives the call. The result is
/// what the first part in order came to that came to something; parts after such a one may be left out.
fn share<P, I, T>(parts: I, threads: usize, work: impl Fn(usize, P) -> Option<Result<T>> + Sync) -> Result<T>
where
    I: Iterator<Item = P> + Send,
    T: Send,
{
    let parts = Mutex::new(parts.enumerate());
    let first = AtomicUsize::new(usize::MAX);
    let results = Mutex::new(Vec::new());
    let run = || {
        loop {
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, part)) = next.filter(|(i, _)| *i <= first.load(Ordering::Relaxed)) else { return };
            let done = catch_unwind(AssertUnwindSafe(|| work(i, part)));
            if let Some(result) = done.unwrap_or_else(|panic| Some(Err(panicked(&*panic)))) {
                first.fetch_min(i, Ordering::Relaxed);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without it the others do the work.
            if thread::Builder::new().name("envelock-seg".into()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let first = results.into_iter().min_by_key(|(i, _)| *i);
    first.map_or_else(|| Err(endless()), |(_, result)| result)
}

fn endless() -> Error {
    Error::internal("a body came to no end")
}

/// Bytes of segments that a thread takes at once, where one is not longer.
const PART: usize = 1 << 20;
