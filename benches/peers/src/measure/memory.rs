//! The most memory that the program `envelock` has resident while it works on a file: `VmHWM` of a child
//! process, read until it ends (the kernel forgets it then; it only ever grows).

use super::Scratch;
use crate::common::report::Report;
use crate::common::touched;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MIB: [usize; 2] = [64, 1024];

/// Facts `peak KiB`: by length in MiB, then by direction and threads.
pub fn measure(report: &mut Report, scratch: &Scratch, program: Option<&Path>) {
    if !report.wants("memory") {
        return;
    }
    let Some(program) = program else {
        report.fact("peak memory not measured", json!("ENVELOCK_BIN names no program (see scripts/bench)"));
        return;
    };
    // The program refuses a key that others may read.
    let key = OpenOptions::new().write(true).create_new(true).mode(0o600).open(scratch.path("raw.key"));
    key.expect("a new folder").write_all(("07".repeat(32) + "\n").as_bytes()).expect("room on the disk");
    let mut peaks = serde_json::Map::new();
    for mib in MIB {
        let piece = touched(1 << 20);
        let mut plain = File::create(scratch.path("plain")).expect("room on the disk");
        (0..mib).for_each(|_| plain.write_all(&piece).expect("room on the disk"));
        drop(plain);
        let mut of_length = serde_json::Map::new();
        for (name, words) in SETTINGS {
            let work = |direction: &str, from: &str, to: &str| {
                scratch.remove(to);
                let mut command = Command::new(program);
                command.arg(direction).arg(scratch.path(from)).arg("-o").arg(scratch.path(to)).args(*words);
                let mut provider = std::ffi::OsString::from("raw:file=");
                provider.push(scratch.path("raw.key"));
                command.arg("--provider").arg(provider);
                peak_kib(command)
            };
            let (sealed, opened) = (work("encrypt", "plain", "sealed"), work("decrypt", "sealed", "out"));
            of_length.insert(format!("encrypt, {name}"), json!(sealed));
            of_length.insert(format!("decrypt, {name}"), json!(opened));
        }
        ["plain", "sealed", "out"].iter().for_each(|name| scratch.remove(name));
        peaks.insert(format!("{mib} MiB"), Value::Object(of_length));
    }
    report.fact("peak KiB", Value::Object(peaks));
}

/// What the command line is told for each number of threads.
const SETTINGS: &[(&str, &[&str])] = &[("one thread", &["--threads", "1"]), ("two threads", &["--threads", "2"])];

fn peak_kib(mut command: Command) -> u64 {
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = child.expect("the program starts");
    let mut peak = 0;
    let status = loop {
        peak = peak.max(resident_peak(&child));
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    if !status.success() {
        let mut said = String::new();
        if let Some(mut error) = child.stderr.take() {
            // What it said is only for the message.
            let _ = std::io::Read::read_to_string(&mut error, &mut said);
        }
        panic!("{command:?} failed: {said}");
    }
    peak
}

/// 0 once it has ended, or before it has become the program.
fn resident_peak(child: &Child) -> u64 {
    let id = child.id();
    let is_program = std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "envelock");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).filter(|_| is_program);
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
