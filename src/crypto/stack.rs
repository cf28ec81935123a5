//! Covers what key-handling code leaves on the stack.
//!
//! Backends wipe the values they drop, and cannot wipe the copies that a compiler makes of them when
//! it moves, spills or inlines. So the calls that leave raw or derived keys behind run in a frame of
//! their own, and the stack that they used is overwritten when they return. How deep each reaches was
//! measured; `tests/stack.rs` reads the stack back.

use std::hint::black_box;

/// Runs `work`, then overwrites that many KiB of the stack that it used.
#[inline(always)]
pub(super) fn wiped<R>(kib: usize, work: impl FnOnce() -> R) -> R {
    let result = apart(work);
    // Frames of code that is not optimised are several times as large.
    overwrite(if cfg!(debug_assertions) { 4 * kib } else { kib });
    result
}

/// A frame of its own, so that nothing of `work` lands in the caller's.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Stands where the frames of `work` stood.
#[inline(never)]
fn overwrite(kib: usize) {
    let mut frame = [0_u8; 1024];
    if kib > 1 {
        overwrite(kib - 1);
    } else {
        overwrite_registers();
    }
    black_box(&mut frame);
}

/// What a copy of a key leaves in registers, a compiler may store as the content of an enum's empty variant.
#[inline(never)]
fn overwrite_registers() {
    let mut copy = [0_u8; REGISTERS];
    copy.copy_from_slice(black_box(&[0_u8; REGISTERS]));
    black_box(&mut copy);
}

/// As many bytes as a compiler copies by registers, and does not leave to the C library.
const REGISTERS: usize = 64;
