//! Whole bodies from memory to memory: each byte is passed over once.

use crate::crypto::random::SegmentIvs;
use crate::error::{Error, Result};
use crate::segments::{Position, Segments};
use zeroize::Zeroize;

/// Seals all of `plaintext` into `out`, which is exactly as long as the layout says.
pub(crate) fn seal(segments: &dyn Segments, ivs: &mut SegmentIvs, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
    let layout = segments.layout();
    let sealed_len = layout.sealed_len(plaintext.len() as u64)?;
    if out.len() as u64 != sealed_len {
        return Err(Error::invalid_input(format!(
            "the output has room for {} bytes; {sealed_len} are needed",
            out.len()
        )));
    }
    let full = layout.plaintext_per_segment();
    let mut rest = plaintext;
    for (index, segment) in (0..).zip(out.chunks_mut(layout.segment_len())) {
        let (piece, later) = rest.split_at(rest.len().min(full));
        let at = Position { index, last: later.is_empty() };
        segments.seal_to(at, &ivs.next()?, piece, segment)?;
        rest = later;
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
