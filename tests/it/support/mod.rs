//! What several tests lean on: fakes, sample messages, damage as data, faulty inputs and outputs.

pub(crate) mod alloc;
pub(crate) mod child;
pub(crate) mod damage;
pub(crate) mod flaky;
pub(crate) mod model;
pub(crate) mod process;
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
