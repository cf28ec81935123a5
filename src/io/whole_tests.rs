//! Whole bodies on several threads of which one fails, on segments without cryptography.

use super::parallel::testing::{Plain, Trouble, bounded, quiet_on_purpose};
use super::whole::{open, seal};
use crate::error::ErrorKind;
use crate::segments::Segments;
use std::sync::Arc;

const SEGMENT: u32 = 65_536;

#[test]
fn a_panic_or_failure_in_any_thread_is_one_error_and_leaves_no_plaintext() {
    let plaintext: Vec<u8> = (1..=251).cycle().take(5 << 20).collect();
    let layout = Plain::new(SEGMENT).layout();
    let sealed_len = usize::try_from(layout.sealed_len(plaintext.len() as u64).unwrap()).unwrap();
    let mut message = vec![0; sealed_len];
    seal(&Plain::new(SEGMENT), &plaintext, &mut message, 3).unwrap();
    let last = (sealed_len as u64).div_ceil(u64::from(SEGMENT)) - 1;
    let mut out = vec![0; plaintext.len()];
    assert_eq!(open(&Plain::new(SEGMENT), &message, &mut out, 3).unwrap(), plaintext.len());
    assert!(out == plaintext);

    quiet_on_purpose();
    let (plaintext, message) = (Arc::new(plaintext), Arc::new(message));
    for threads in [2, 3, 8, 16] {
        for at in [0, 1, 15, 16, 40, last - 1, last] {
            for (trouble, kind) in
                [(Trouble::Panic, ErrorKind::Internal), (Trouble::Fail, ErrorKind::AuthenticationFailed)]
            {
                let (plaintext, message) = (Arc::clone(&plaintext), Arc::clone(&message));
                let (sealing, opening, out) = bounded(move || {
                    let segments = || Plain::with_trouble(SEGMENT, at, trouble);
                    let mut sealed = vec![0; message.len()];
                    let sealing = seal(&segments(), &plaintext, &mut sealed, threads).unwrap_err();
                    let mut out = vec![0xEE; plaintext.len()];
                    let opening = open(&segments(), &message, &mut out, threads).unwrap_err();
                    (sealing, opening, out)
                });
                for error in [&sealing, &opening] {
                    assert_eq!(error.kind(), kind, "segment {at} on {threads} threads: {error}");
                    assert_eq!(error.segment(), (trouble == Trouble::Fail).then_some(at));
                }
                assert!(out.iter().all(|byte| *byte == 0), "{trouble:?} at {at} on {threads} threads: plaintext stays");
            }
        }
    }
}
