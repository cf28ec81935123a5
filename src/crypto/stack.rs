//! Covers what key-handling code leaves on the stack.
//!
//! Backends wipe the values they drop, and cannot wipe the copies that a compiler makes of them when
//! it moves, spills or inlines. So the calls that see raw keys run in a frame of their own, and what
//! they used of the stack is overwritten when they return.

use std::hint::black_box;

/// How deep the backends' key handling reaches, with room to spare: a test holds it.
const DEPTH: usize = 4096;

/// Runs `work`, then overwrites the stack that it used.
#[inline(always)]
pub(super) fn wiped<R>(work: impl FnOnce() -> R) -> R {
    let result = apart(work);
    overwrite();
    result
}

/// A frame of its own, so that nothing of `work` lands in the caller's.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Stands where the frames of `work` stood.
#[inline(never)]
fn overwrite() {
    black_box(&mut [0_u8; DEPTH]);
}
