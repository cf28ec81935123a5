//! Whole bodies from memory to memory: each byte is passed over once.

use crate::crypto::random;
use crate::error::{Error, Result};
use crate::segments::{Position, Segments};
use zeroize::Zeroize;

/// How many segments' IVs are drawn at once.
const IVS: usize = 32;

/// Seals all of `plaintext` into `out`, which is exactly as long as the layout says.
///
/// IVs are drawn for many segments at once, without asking for the process before each: they do not
/// outlive this call, and a fork continues the thread that forked, which is not in here.
pub(crate) fn seal(segments: &dyn Segments, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
    let layout = segments.layout();
    let sealed_len = layout.sealed_len(plaintext.len() as u64)?;
    if out.len() as u64 != sealed_len {
        return Err(Error::invalid_input(format!(
            "the output has room for {} bytes; {sealed_len} are needed",
            out.len()
        )));
    }
    let (segment_len, full) = (layout.segment_len(), layout.plaintext_per_segment());
    let mut ivs = [[0; 12]; IVS];
    let mut rest = plaintext;
    for (batch_index, batch) in (0..).zip(out.chunks_mut(IVS * segment_len)) {
        let ivs = &mut ivs[..batch.len().div_ceil(segment_len)];
        random::fill(ivs.as_flattened_mut())?;
        for ((within, segment), iv) in (0..).zip(batch.chunks_mut(segment_len)).zip(ivs) {
            let (piece, later) = rest.split_at(rest.len().min(full));
            let at = Position { index: batch_index * IVS as u64 + within, last: later.is_empty() };
            segments.seal_to(at, iv, piece, segment)?;
            rest = later;
        }
    }
    Ok(())
}

/// Opens all of `sealed` into `out`, and returns the length of the plaintext.
///
/// On failure all of `out` is wiped: a whole message is whole or nothing.
pub(crate) fn open(segments: &dyn Segments, sealed: &[u8], out: &mut [u8]) -> Result<usize> {
    open_each(segments, sealed, out).inspect_err(|_| out.zeroize())
}

fn open_each(segments: &dyn Segments, sealed: &[u8], out: &mut [u8]) -> Result<usize> {
    let overhead = segments.layout().overhead();
    let (mut sealed_at, mut plain_at, mut index) = (0, 0, 0);
    loop {
        let rest = sealed.get(sealed_at..).unwrap_or_default();
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
        index += 1;
        if peek.at.last {
            let trailing = sealed.len() > sealed_at;
            return if trailing { Err(Error::trailing_data()) } else { Ok(plain_at) };
        }
    }
}
