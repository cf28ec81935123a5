//! envelock against its rivals and its targets, and what is published of that: see `scripts/bench`.
//!
//! ```text
//! envelock-peers targets [WORDS]   measures all that has a target, and prints the table of targets
//! envelock-peers sweeps [WORDS]    measures what the defaults are chosen by
//! envelock-peers table             the table again, from the last runs (of the benches `small` and `cache` too)
//! envelock-peers render DOCS       puts tables and charts of the last runs into the folder DOCS
//! ```
//! WORDS choose groups by their ids and titles.

#[path = "../../common/mod.rs"]
mod common;

mod chart;
mod measure;
mod render;
mod results;
mod rivals;
mod targets;

use common::bulk::{Buffers, SWEEP, measure as bulk, sweep};
use common::report::{Report, folder};
use envelock::AeadAlgorithm;
use measure::{Scratch, asynchronous, files, memory, ranges, records, rivals as large, small, threads};
use results::Results;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const ROUNDS: usize = 15;
const SWEEP_ROUNDS: usize = 7;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let done = match command.as_str() {
        "targets" => {
            measure_targets(words.collect());
            Ok(())
        }
        "sweeps" => {
            measure_sweeps(words.collect());
            Ok(())
        }
        "table" => table(),
        "render" => render::all(Path::new(&words.next().unwrap_or_else(|| "docs".to_owned()))),
        _ => Err("commands: targets [WORDS], sweeps [WORDS], table, render DOCS".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("envelock-peers: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure_targets(words: Vec<String>) {
    let mut report = Report::new("targets", words);
    let scratch = Scratch::new();
    report.fact("versions", json!(rivals::versions()));
    let python = std::env::var("ENVELOCK_PEERS_PYTHON").ok();
    {
        let buffers = Buffers::new();
        for kib in [1024, 64] {
            bulk(&mut report, &buffers, AeadAlgorithm::Aes256Gcm, kib, ROUNDS);
        }
        threads::measure(&mut report, &buffers);
        asynchronous::measure(&mut report, &buffers);
        large::measure(&mut report, &buffers, &scratch, python.as_deref());
    }
    files::measure(&mut report, &scratch);
    ranges::measure(&mut report, &scratch);
    memory::measure(&mut report, &scratch, std::env::var_os("ENVELOCK_BIN").map(PathBuf::from).as_deref());
    small::measure(&mut report);
    records::measure(&mut report);
    report.write();
    println!("\n## Targets\n");
    if let Err(why) = table() {
        eprintln!("envelock-peers: no table: {why}");
    }
}

/// The table of targets, from the last runs.
fn table() -> Result<(), String> {
    Results::read(&folder(), &["targets", "small", "cache"]).map(|results| print!("{}", targets::table(&results)))
}

fn measure_sweeps(words: Vec<String>) {
    let mut report = Report::new("sweeps", words);
    let buffers = Buffers::new();
    for length in SWEEP {
        sweep(&mut report, &buffers, length, SWEEP_ROUNDS);
    }
    for kib in [64, 1024] {
        bulk(&mut report, &buffers, AeadAlgorithm::ChaCha20Poly1305, kib, SWEEP_ROUNDS);
    }
    report.write();
}
