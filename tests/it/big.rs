//! Large messages through pipes and files: identical, in little memory; and a rewrap that does not depend
//! on the length.

use crate::support::process::{Part, hex, long, part, tell};
use crate::support::{providers, say};
use envelock::blocking::Envelope;
use envelock::{EncryptionContext, FileOptions, RewrapOptions};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// "Peak resident memory under 32 MiB each way."
const MOST_MEMORY_KIB: u64 = 32 * 1024;

fn len() -> u64 {
    if long() { 5 << 30 } else { 256 << 20 }
}

fn envelope() -> Envelope {
    Envelope::new(envelock::Envelope::builder(providers::raw("big", 1)).build().unwrap())
}

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

/// Bytes that differ from block to block, made as they are read.
struct Pattern {
    at: u64,
    end: u64,
}

impl Read for Pattern {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = usize::try_from((self.end - self.at).min(out.len() as u64)).unwrap();
        for out in &mut out[..count] {
            *out = (self.at >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[(self.at & 7) as usize];
            self.at += 1;
        }
        Ok(count)
    }
}

fn hash(input: &mut impl Read) -> String {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match input.read(&mut buffer).unwrap() {
            0 => return hex(&sha.finalize()),
            count => sha.update(&buffer[..count]),
        }
    }
}

/// The most memory that this process ever had resident.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// One way of a part, and the memory that it took.
fn one_way(words: &[String]) {
    let path = |n: usize| Path::new(&words[n]);
    let started = Instant::now();
    match words[0].as_str() {
        // Standard streams stand for pipes: opened by path, since libtest writes to standard output.
        "encrypt-pipe" => {
            let out = File::options().write(true).open(path(2)).unwrap();
            let mut writer = envelope().encrypt_writer(out, &none()).unwrap();
            std::io::copy(&mut File::open(path(1)).unwrap(), &mut writer).unwrap();
            writer.finish().unwrap();
        }
        "decrypt-pipe" => {
            let mut reader = envelope().decrypt_reader(File::open(path(1)).unwrap(), &none()).unwrap();
            let mut out = File::options().write(true).open(path(2)).unwrap();
            std::io::copy(&mut reader, &mut out).unwrap();
        }
        "encrypt-file" => {
            envelope().encrypt_file(path(1), path(2), &none(), FileOptions::default()).unwrap();
        }
        "decrypt-file" => {
            envelope().decrypt_file(path(1), path(2), &none(), FileOptions::default()).unwrap();
        }
        other => panic!("{other}"),
    }
    tell(format!("{} {}", peak_kib(), started.elapsed().as_millis()));
}

fn report(way: &str, lines: &[String]) {
    let words: Vec<u64> = lines[0].split(' ').map(|word| word.parse().unwrap()).collect();
    let (peak, ms) = (words[0], words[1].max(1));
    say(format!(
        "big: {way}: {} MiB in {ms} ms ({} MiB/s), peak resident memory {:.1} MiB",
        len() >> 20,
        (len() >> 20) * 1000 / ms,
        peak as f64 / 1024.0
    ));
    assert!(peak < MOST_MEMORY_KIB, "{way}: {peak} KiB");
}

fn make_pipe(path: &Path) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_large_message_goes_through_pipes_in_little_memory() {
    let test = "big::a_large_message_goes_through_pipes_in_little_memory";
    if let Some(words) = part() {
        return one_way(&words);
    }
    let folder = tempfile::tempdir().unwrap();
    let pipes = ["plain", "sealed", "opened"].map(|name| folder.path().join(name));
    pipes.iter().for_each(|pipe| make_pipe(pipe));
    let [plain, sealed, opened] = pipes.each_ref().map(|pipe| pipe.to_str().unwrap());
    let encrypting = Part::start(test, &["encrypt-pipe", plain, sealed]);
    let decrypting = Part::start(test, &["decrypt-pipe", sealed, opened]);
    let source = pipes[0].clone();
    let feeding = std::thread::spawn(move || {
        let mut out = File::options().write(true).open(source).unwrap();
        std::io::copy(&mut Pattern { at: 0, end: len() }, &mut out).unwrap();
    });
    let mut result = File::open(&pipes[2]).unwrap();
    let arrived = hash(&mut result);
    feeding.join().unwrap();
    report("encrypt, pipe to pipe", &encrypting.succeed());
    report("decrypt, pipe to pipe", &decrypting.succeed());
    assert_eq!(arrived, hash(&mut Pattern { at: 0, end: len() }));
}

#[test]
fn a_large_file_is_encrypted_rewrapped_in_place_and_decrypted_in_little_memory() {
    let test = "big::a_large_file_is_encrypted_rewrapped_in_place_and_decrypted_in_little_memory";
    if let Some(words) = part() {
        return one_way(&words);
    }
    let folder = tempfile::tempdir().unwrap();
    let paths = ["plain", "sealed", "opened"].map(|name| folder.path().join(name));
    let [plain, sealed, opened] = paths.each_ref().map(|path| path.to_str().unwrap());
    std::io::copy(&mut Pattern { at: 0, end: len() }, &mut File::create(plain).unwrap()).unwrap();
    report("encrypt, file to file", &Part::start(test, &["encrypt-file", plain, sealed]).succeed());
    std::fs::remove_file(plain).unwrap();

    let body = |path: &str| {
        let mut file = File::open(path).unwrap();
        let head = envelock::read_header(&mut file, &envelock::Limits::default()).unwrap().len();
        file.seek(SeekFrom::Start(u64::try_from(head).unwrap())).unwrap();
        (head, hash(&mut file))
    };
    let before = body(sealed);
    let old = Envelope::new(envelock::Envelope::builder(providers::raw("big", 1)).build().unwrap());
    let other = Envelope::new(envelock::Envelope::builder(providers::raw("other", 2)).build().unwrap());
    let started = Instant::now();
    assert!(old.rewrap_file(sealed, &other, &none(), RewrapOptions::default()).unwrap().in_place);
    let took = started.elapsed();
    assert_eq!(body(sealed), before, "the body is as it was");
    say(format!(
        "big: {} MiB rewrapped in place in {:.1} ms, its body unchanged",
        len() >> 20,
        took.as_secs_f64() * 1e3
    ));
    other.rewrap_file(sealed, &old, &none(), RewrapOptions::default()).unwrap();

    report("decrypt, file to file", &Part::start(test, &["decrypt-file", sealed, opened]).succeed());
    assert_eq!(hash(&mut File::open(opened).unwrap()), hash(&mut Pattern { at: 0, end: len() }));
}

#[test]
fn the_pattern_repeats_nothing_that_a_swap_could_hide() {
    let mut bytes = vec![0; 1 << 16];
    Pattern { at: 3, end: 1 << 20 }.read_exact(&mut bytes).unwrap();
    let mut blocks: Vec<_> = bytes[5..].chunks_exact(8).collect();
    let count = blocks.len();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), count);
    std::io::sink().write_all(&bytes).unwrap();
}
