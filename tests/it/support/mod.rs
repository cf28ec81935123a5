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
pub(crate) mod sources;
pub(crate) mod virtual_time;

use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lets loops in other threads end, also when the test fails: a scope waits for its threads. So it comes
/// first in the scope's closure.
pub(crate) struct Rest<'a>(pub(crate) &'a AtomicBool);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A line on standard error, also from a test that passes: libtest captures `eprintln!`.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Panics whose text begins with "on purpose" say nothing, wherever they happen; others what they always say.
pub(crate) fn quiet_on_purpose() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It puts a talkative hook in place when it first runs, and never again: this one goes over it.
        shuttle::check_random(|| {}, 1);
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
            if !text.is_some_and(|text| text.starts_with("on purpose")) {
                loud(panic);
            }
        }));
    });
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
