//! Peers, faults, and what tests of the other binary lean on as well.

pub(crate) mod aws;
#[path = "../../it/support/child.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
pub(crate) mod child;
pub(crate) mod faults;
pub(crate) mod http;
pub(crate) mod kms;
pub(crate) mod leaks;
pub(crate) mod openbao;
pub(crate) mod peers;
#[path = "../../it/support/providers.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
pub(crate) mod providers;
pub(crate) mod proxy;
#[path = "../../it/support/random.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
pub(crate) mod random;
pub(crate) mod sockets;
pub(crate) mod transport;
pub(crate) mod watch;
pub(crate) mod zeroing;

use std::future::Future;
use std::io::Write;

/// Drives `future` on tokio, by two threads.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A line on standard error, also from a test that passes: libtest captures `eprintln!`.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}
