//! Large plaintexts from memory to memory on one core: envelock against the ideal loop.

use super::raw::Raw;
use super::report::Report;
use super::subject::Subject;
use super::{Amount, Group, touched};
use envelock::AeadAlgorithm;
use std::cell::RefCell;

pub const LEN: usize = 256 << 20;
/// More than any message adds.
pub const ROOM: usize = 16 << 20;
/// How much a caller writes or reads at once.
pub const CHUNK: usize = 64 << 10;

/// 256 MiB in the clear, sealed, and opened again.
pub struct Buffers {
    pub plain: Vec<u8>,
    pub sealed: RefCell<Vec<u8>>,
    pub out: RefCell<Vec<u8>>,
}

impl Buffers {
    pub fn new() -> Self {
        Self { plain: touched(LEN), sealed: RefCell::new(touched(LEN + ROOM)), out: RefCell::new(touched(LEN)) }
    }

    /// Holds that `read` decrypts what it was given: what is measured must be a decryption.
    pub fn check(&self, name: &str, read: impl FnOnce(&mut [u8])) {
        let mut out = self.out.borrow_mut();
        out.fill(0);
        read(&mut out);
        assert!(*out == self.plain, "{name} did not give the plaintext back");
    }
}

/// The names of the cases, which the targets refer to.
pub const RAW: &str = "raw AEAD";
pub const RAW_COPY: &str = "raw AEAD and one copy";
pub const MEMCPY: &str = "memcpy";
pub const ONE_SHOT: &str = "slice to slice";
pub const STREAM: &str = "stream, 64 KiB pieces";
pub const STREAM_WHOLE: &str = "stream, one piece";

/// Encrypts and decrypts under one AEAD and one segment length, in groups `bulk-AEAD-LENGTH-encrypt`
/// and `-decrypt`.
pub fn measure(report: &mut Report, buffers: &Buffers, aead: AeadAlgorithm, kib: u32, rounds: usize) {
    let short = if aead == AeadAlgorithm::Aes256Gcm { "aes" } else { "chacha" };
    let name = |direction: &str| {
        (format!("bulk-{short}-{kib}-{direction}"), format!("{aead:?}, segments of {kib} KiB: {direction} 256 MiB"))
    };
    let subject = Subject::new(aead, kib << 10);
    let raw = Raw::new(aead, subject.encryptor().layout(), LEN);
    let plain = &buffers.plain[..];

    let (id, title) = name("encrypt");
    if report.wants(&id) || report.wants(&title) {
        let sealed = &buffers.sealed;
        let measured = Group::new(id, title, Amount::Bytes(LEN), 1)
            .case(RAW, || raw.seal(plain, &mut sealed.borrow_mut()))
            .case(RAW_COPY, || raw.seal_and_copy(plain, &mut sealed.borrow_mut()))
            .case(MEMCPY, || sealed.borrow_mut()[..LEN].copy_from_slice(plain))
            .case(ONE_SHOT, || subject.seal_to(plain, &mut sealed.borrow_mut()))
            .case(STREAM_WHOLE, || subject.write(plain, &mut sealed.borrow_mut(), LEN))
            .case(STREAM, || subject.write(plain, &mut sealed.borrow_mut(), CHUNK))
            .run(rounds);
        report.add(&measured, &[RAW, RAW_COPY, MEMCPY]);
    }

    let (id, title) = name("decrypt");
    if report.wants(&id) || report.wants(&title) {
        let len = subject.seal_to(plain, &mut buffers.sealed.borrow_mut());
        let message = buffers.sealed.borrow()[..len].to_vec();
        raw.seal(plain, &mut buffers.sealed.borrow_mut());
        let sealed = buffers.sealed.borrow();
        buffers.check(RAW, |out| raw.open(&sealed, out));
        buffers.check(RAW_COPY, |out| raw.open_and_copy(&sealed, out));
        buffers.check(ONE_SHOT, |out| subject.open_to(&message, out));
        buffers.check(STREAM, |out| subject.read(&message, out, CHUNK));
        let out = &buffers.out;
        let measured = Group::new(id, title, Amount::Bytes(LEN), 1)
            .case(RAW, || raw.open(&sealed, &mut out.borrow_mut()))
            .case(RAW_COPY, || raw.open_and_copy(&sealed, &mut out.borrow_mut()))
            .case(MEMCPY, || out.borrow_mut().copy_from_slice(&sealed[..LEN]))
            .case(ONE_SHOT, || subject.open_to(&message, &mut out.borrow_mut()))
            .case(STREAM_WHOLE, || subject.read(&message, &mut out.borrow_mut(), LEN))
            .case(STREAM, || subject.read(&message, &mut out.borrow_mut(), CHUNK))
            .run(rounds);
        report.add(&measured, &[RAW, RAW_COPY, MEMCPY]);
    }
}

/// One length of segments, both directions, in the group `sweep-LENGTH`: what the default is chosen by.
pub fn sweep(report: &mut Report, buffers: &Buffers, (segment_len, name): (u32, &str), rounds: usize) {
    let id = format!("sweep-{segment_len}");
    let title = format!("Sweep of segment lengths, {name}: encrypt and decrypt 256 MiB");
    if !report.wants(&id) && !report.wants(&title) {
        return;
    }
    let aead = AeadAlgorithm::Aes256Gcm;
    let subject = Subject::new(aead, segment_len);
    let raw = Raw::new(aead, subject.encryptor().layout(), LEN);
    let plain = &buffers.plain[..];
    let (sealed, out) = (&buffers.sealed, &buffers.out);
    let message = subject.encrypt(plain);
    let len = raw.seal(plain, &mut sealed.borrow_mut());
    let of_raw = sealed.borrow()[..len].to_vec();
    let measured = Group::new(id, title, Amount::Bytes(LEN), 1)
        .case("raw AEAD, seal", || raw.seal(plain, &mut sealed.borrow_mut()))
        .case("slice to slice, seal", || subject.seal_to(plain, &mut sealed.borrow_mut()))
        .case("writer, 64 KiB pieces", || subject.write(plain, &mut sealed.borrow_mut(), CHUNK))
        .case("raw AEAD, open", || raw.open(&of_raw, &mut out.borrow_mut()))
        .case("slice to slice, open", || subject.open_to(&message, &mut out.borrow_mut()))
        .case("reader, 64 KiB pieces", || subject.read(&message, &mut out.borrow_mut(), CHUNK))
        .run(rounds);
    report.add(&measured, &["raw AEAD, seal", "raw AEAD, open"]);
}

/// What the sweep goes over. The one between 64 and 128 KiB holds 64 KiB of plaintext.
pub const SWEEP: [(u32, &str); 10] = [
    (16 << 10, "16 KiB"),
    (32 << 10, "32 KiB"),
    (64 << 10, "64 KiB"),
    ((64 << 10) + 32, "64 KiB and 32 B"),
    (128 << 10, "128 KiB"),
    (256 << 10, "256 KiB"),
    (512 << 10, "512 KiB"),
    (1 << 20, "1 MiB"),
    (2 << 20, "2 MiB"),
    (4 << 20, "4 MiB"),
];
