//! 256 MiB from memory to memory on one core, against the raw AEAD over the same segments and against
//! memcpy, and the sweep of segment lengths: `cargo bench --bench bulk [-- WORDS OF A TITLE]`.

#[path = "common/mod.rs"]
mod common;

use common::bulk::{Buffers, SWEEP, measure, sweep};
use common::report::Report;
use envelock::AeadAlgorithm;

const ROUNDS: usize = 21;
const SWEEP_ROUNDS: usize = 11;

fn main() {
    let mut report = Report::new("bulk", std::env::args().skip(1));
    let buffers = Buffers::new();
    for aead in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
        for kib in [64, 1024] {
            measure(&mut report, &buffers, aead, kib, ROUNDS);
        }
    }
    for length in SWEEP {
        sweep(&mut report, &buffers, length, SWEEP_ROUNDS);
    }
    report.write();
}
