//! What several tests lean on: fakes, sample messages, damage as data, faulty inputs and outputs.

pub(crate) mod alloc;
#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
pub(crate) mod child;
pub(crate) mod damage;
pub(crate) mod flaky;
pub(crate) mod model;
pub(crate) mod providers;
pub(crate) mod random;
pub(crate) mod sample;

use std::io::Write;

/// A line on standard error, also from a test that passes: libtest captures `eprintln!`.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The kind of the structured error inside an I/O error.
pub(crate) fn kind_of(error: &std::io::Error) -> envelock::ErrorKind {
    envelock::Error::from_io(error).map_or(envelock::ErrorKind::Io, envelock::Error::kind)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
