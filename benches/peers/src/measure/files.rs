//! File to file, page cache warm, against `dd bs=1M conv=fsync` of the same file to the same file system.
//! envelock calls fsync too, on the file and on its folder. Time on the wall.

use super::Scratch;
use crate::common::bulk::LEN;
use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Clock, Group, touched};
use envelock::{AeadAlgorithm, FileOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;

pub const DD: &str = "`dd bs=1M conv=fsync`";
pub const FILE: &str = "envelock";

/// Groups `file-encrypt` and `file-decrypt`.
pub fn measure(report: &mut Report, scratch: &Scratch) {
    if !["file-encrypt", "file-decrypt"].iter().any(|id| report.wants(id)) {
        return;
    }
    let subject = Subject::new(AeadAlgorithm::Aes256Gcm, 64 << 10);
    let plain = touched(LEN);
    std::fs::write(scratch.path("plain"), &plain).expect("room on the disk");
    encrypt_file(&subject, scratch, "sealed");
    decrypt_file(&subject, scratch, "out");
    assert!(std::fs::read(scratch.path("out")).expect("just written") == plain, "the file did not come back");

    if report.wants("file-encrypt") {
        let measured = Group::new("file-encrypt", "encrypt a file of 256 MiB to a file", Amount::Bytes(LEN), 1)
            .by(Clock::Wall)
            .self_timed(1, DD, |_| onto_new(scratch, "copy", || dd(&scratch.path("plain"), &scratch.path("copy"))))
            .self_timed(1, FILE, |_| onto_new(scratch, "out", || encrypt_file(&subject, scratch, "out")))
            .run(ROUNDS);
        report.add(&measured, &[DD]);
    }
    if report.wants("file-decrypt") {
        let measured = Group::new("file-decrypt", "decrypt a file of 256 MiB to a file", Amount::Bytes(LEN), 1)
            .by(Clock::Wall)
            .self_timed(1, DD, |_| onto_new(scratch, "copy", || dd(&scratch.path("sealed"), &scratch.path("copy"))))
            .self_timed(1, FILE, |_| onto_new(scratch, "out", || decrypt_file(&subject, scratch, "out")))
            .run(ROUNDS);
        report.add(&measured, &[DD]);
    }
    ["plain", "sealed", "copy", "out"].iter().for_each(|name| scratch.remove(name));
}

/// Both write a new file: taking the old one away is not part of the work.
fn onto_new(scratch: &Scratch, target: &str, work: impl FnOnce()) -> Duration {
    scratch.remove(target);
    let start = Instant::now();
    work();
    start.elapsed()
}

fn encrypt_file(subject: &Subject, scratch: &Scratch, to: &str) {
    let (from, to) = (scratch.path("plain"), scratch.path(to));
    let call = subject.envelope.encrypt_file(from, to, &subject.context, FileOptions::default());
    pollster::block_on(call).expect("encrypts the file");
}

fn decrypt_file(subject: &Subject, scratch: &Scratch, to: &str) {
    let (from, to) = (scratch.path("sealed"), scratch.path(to));
    let call = subject.envelope.decrypt_file(from, to, &subject.context, FileOptions::default());
    pollster::block_on(call).expect("decrypts the file");
}

fn dd(from: &Path, to: &Path) {
    let operand = |name: &str, path: &Path| {
        let mut operand = std::ffi::OsString::from(name);
        operand.push(path);
        operand
    };
    let status = Command::new("dd")
        .args([operand("if=", from), operand("of=", to)])
        .args(["bs=1M", "conv=fsync", "status=none"])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("there is a dd").success(), "dd copies a file");
}
