//! 256 MiB from memory to memory on one thread, against the raw AEAD over the same segments and
//! against memcpy: `cargo bench --bench bulk [-- WORDS OF A TITLE]`.
//!
//! The raw AEAD is the ideal one-pass loop: aws-lc-rs from one slice to another, one call for each
//! segment, with the key set up and the IVs drawn before the clock starts.

#[path = "common/mod.rs"]
mod common;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use common::{Amount, Group, Report, touched};
use envelock::{AeadAlgorithm, EncryptionContext, Envelope, Header, Layout, RawKeyProvider};
use std::cell::RefCell;
use std::io::{Read, Write};

const LEN: usize = 256 << 20;
const ROUNDS: usize = 21;
const SWEEP_ROUNDS: usize = 11;
const TAG_LEN: usize = 16;
const SEGMENT_HEAD_LEN: usize = 16;
/// How much a caller writes or reads at once.
const CHUNK: usize = 64 << 10;

fn main() {
    let mut report = Report::new("bulk");
    let buffers = Buffers {
        plain: touched(LEN),
        sealed: RefCell::new(touched(LEN + (LEN >> 8) + 4096)),
        out: RefCell::new(touched(LEN)),
    };
    for aead in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
        for (segment_len, name) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
            let subject = Subject::new(aead, segment_len);
            subject.encrypt(&mut report, &buffers, &format!("{aead:?}, {name} segments: encrypt 256 MiB"));
            subject.decrypt(&mut report, &buffers, &format!("{aead:?}, {name} segments: decrypt 256 MiB"));
        }
    }
    for kib in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096] {
        Subject::new(AeadAlgorithm::Aes256Gcm, kib << 10).sweep(&mut report, &buffers, kib);
    }
    report.write();
}

/// 256 MiB in the clear, sealed, and opened again.
struct Buffers {
    plain: Vec<u8>,
    sealed: RefCell<Vec<u8>>,
    out: RefCell<Vec<u8>>,
}

/// An envelope and the raw AEAD that it is measured against.
struct Subject {
    envelope: Envelope,
    context: EncryptionContext,
    raw: Raw,
}

impl Subject {
    fn new(aead: AeadAlgorithm, segment_len: u32) -> Self {
        let provider = RawKeyProvider::generate("bench").expect("random bytes");
        let envelope = Envelope::builder(provider).aead(aead).segment_len(segment_len).build().expect("valid");
        let context = EncryptionContext::from([("tenant", "acme")]);
        let layout = pollster::block_on(envelope.encryptor(&context)).expect("a raw key wraps").layout();
        Self { envelope, context, raw: Raw::new(aead, layout) }
    }

    fn encryptor(&self) -> envelock::Encryptor {
        pollster::block_on(self.envelope.encryptor(&self.context)).expect("a raw key wraps")
    }

    fn seal_to(&self, buffers: &Buffers) {
        let encryptor = self.encryptor();
        let len = encryptor.sealed_len(LEN as u64).expect("within limits") as usize;
        encryptor.seal_to(&buffers.plain, &mut buffers.sealed.borrow_mut()[..len]).expect("seals");
    }

    fn open_to(&self, sealed: &[u8], out: &mut [u8]) {
        let header = Header::parse(sealed).expect("a message");
        let decryptor = pollster::block_on(self.envelope.decryptor(&header, &self.context)).expect("our key");
        assert_eq!(decryptor.open_to(&sealed[header.len()..], out).expect("authentic"), LEN);
    }

    fn write(&self, buffers: &Buffers, chunk: usize) {
        let mut sealed = buffers.sealed.borrow_mut();
        let mut writer = self.encryptor().into_writer(sealed.as_mut_slice());
        buffers.plain.chunks(chunk).for_each(|piece| writer.write_all(piece).expect("room"));
        writer.finish().expect("room");
    }

    fn read(&self, sealed: &[u8], out: &mut [u8], chunk: usize) {
        let mut reader = pollster::block_on(self.envelope.decrypt_reader(sealed, &self.context)).expect("our message");
        out.chunks_mut(chunk).for_each(|piece| reader.read_exact(piece).expect("authentic"));
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    }

    /// A message of the plaintext for the cases that open it.
    fn message(&self, buffers: &Buffers) -> usize {
        let len = self.encryptor().sealed_len(LEN as u64).expect("within limits") as usize;
        self.seal_to(buffers);
        len
    }

    fn encrypt(&self, report: &mut Report, buffers: &Buffers, title: &str) {
        if !report.wants(title) {
            return;
        }
        let measured = Group::new(title, Amount::Bytes(LEN), 1)
            .case("raw AEAD", || self.raw.seal(&buffers.plain, &mut buffers.sealed.borrow_mut()))
            .case("raw AEAD and one copy", || self.raw.seal_and_copy(&buffers.plain, &mut buffers.sealed.borrow_mut()))
            .case("memcpy", || buffers.sealed.borrow_mut()[..LEN].copy_from_slice(&buffers.plain))
            .case("`Encryptor::seal_to`", || self.seal_to(buffers))
            .case("`EncryptWriter`, one write", || self.write(buffers, LEN))
            .case("`EncryptWriter`, 64 KiB writes", || self.write(buffers, CHUNK))
            .run(ROUNDS);
        report.add(&measured, &[0, 1, 2]);
    }

    fn decrypt(&self, report: &mut Report, buffers: &Buffers, title: &str) {
        if !report.wants(title) {
            return;
        }
        let len = self.message(buffers);
        let message = buffers.sealed.borrow()[..len].to_vec();
        self.raw.seal(&buffers.plain, &mut buffers.sealed.borrow_mut());
        let sealed = buffers.sealed.borrow();
        let mut out = buffers.out.borrow_mut();
        for open in [Self::open_to, |it: &Self, sealed: &[u8], out: &mut [u8]| it.read(sealed, out, CHUNK)] {
            out.fill(0);
            open(self, &message, &mut out);
            assert!(out[..] == buffers.plain[..], "what is measured must be a decryption");
        }
        let out = RefCell::new(&mut out[..]);
        let measured = Group::new(title, Amount::Bytes(LEN), 1)
            .case("raw AEAD", || self.raw.open(&sealed, &mut out.borrow_mut()))
            .case("raw AEAD and one copy", || self.raw.open_and_copy(&sealed, &mut out.borrow_mut()))
            .case("memcpy", || out.borrow_mut().copy_from_slice(&sealed[..LEN]))
            .case("`Decryptor::open_to`", || self.open_to(&message, &mut out.borrow_mut()))
            .case("`DecryptReader`, one read", || self.read(&message, &mut out.borrow_mut(), LEN))
            .case("`DecryptReader`, 64 KiB reads", || self.read(&message, &mut out.borrow_mut(), CHUNK))
            .run(ROUNDS);
        report.add(&measured, &[0, 1, 2]);
    }

    fn sweep(&self, report: &mut Report, buffers: &Buffers, kib: u32) {
        let title = format!("Sweep of segment lengths, Aes256Gcm, {kib} KiB: encrypt and decrypt 256 MiB");
        if !report.wants(&title) {
            return;
        }
        let len = self.message(buffers);
        let message = buffers.sealed.borrow()[..len].to_vec();
        self.raw.seal(&buffers.plain, &mut buffers.sealed.borrow_mut());
        let raw = buffers.sealed.borrow().clone();
        let measured = Group::new(title, Amount::Bytes(LEN), 1)
            .case("memcpy", || buffers.out.borrow_mut().copy_from_slice(&buffers.plain))
            .case("raw AEAD seal", || self.raw.seal(&buffers.plain, &mut buffers.sealed.borrow_mut()))
            .case("`Encryptor::seal_to`", || self.seal_to(buffers))
            .case("`EncryptWriter`, 64 KiB writes", || self.write(buffers, CHUNK))
            .case("raw AEAD open", || self.raw.open(&raw, &mut buffers.out.borrow_mut()))
            .case("`Decryptor::open_to`", || self.open_to(&message, &mut buffers.out.borrow_mut()))
            .case("`DecryptReader`, 64 KiB reads", || self.read(&message, &mut buffers.out.borrow_mut(), CHUNK))
            .run(SWEEP_ROUNDS);
        report.add(&measured, &[0, 1, 4]);
    }
}

/// The AEAD and nothing else, over the same layout: prefix and IV, ciphertext, tag.
struct Raw {
    key: LessSafeKey,
    layout: Layout,
    ivs: Vec<[u8; 12]>,
    buffer: RefCell<Vec<u8>>,
}

impl Raw {
    fn new(aead: AeadAlgorithm, layout: Layout) -> Self {
        let algorithm = if aead == AeadAlgorithm::Aes256Gcm { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes"));
        let segments = LEN.div_ceil(layout.plaintext_per_segment());
        let ivs = touched(12 * segments).chunks(12).map(|iv| iv.try_into().expect("12")).collect();
        Self { key, layout, ivs, buffer: RefCell::new(touched(layout.segment_len())) }
    }

    fn seal_segment(&self, index: usize, plain: &[u8], segment: &mut [u8]) {
        let (head, sealed) = segment.split_at_mut(SEGMENT_HEAD_LEN);
        head[4..].copy_from_slice(&self.ivs[index]);
        let (data, tag) = sealed.split_at_mut(plain.len());
        let nonce = Nonce::assume_unique_for_key(self.ivs[index]);
        self.key.seal_out_of_place_scatter(nonce, Aad::from([0; 9]), plain, data, &[], tag).expect("seals");
    }

    fn open_segment(&self, segment: &[u8], plain: &mut [u8]) {
        let nonce = Nonce::try_assume_unique_for_key(&segment[4..SEGMENT_HEAD_LEN]).expect("12 bytes");
        let (data, tag) = segment[SEGMENT_HEAD_LEN..].split_at(plain.len());
        self.key.open_separate_gather(nonce, Aad::from([0; 9]), data, tag, plain).expect("authentic");
    }

    fn seal(&self, plain: &[u8], out: &mut [u8]) {
        let pieces = plain.chunks(self.layout.plaintext_per_segment());
        for (index, (piece, segment)) in pieces.zip(out.chunks_mut(self.layout.segment_len())).enumerate() {
            self.seal_segment(index, piece, &mut segment[..SEGMENT_HEAD_LEN + piece.len() + TAG_LEN]);
        }
    }

    /// As a writer must: into a segment of its own, and from there to where the caller wants it.
    fn seal_and_copy(&self, plain: &[u8], out: &mut [u8]) {
        let mut buffer = self.buffer.borrow_mut();
        let pieces = plain.chunks(self.layout.plaintext_per_segment());
        for (index, (piece, segment)) in pieces.zip(out.chunks_mut(self.layout.segment_len())).enumerate() {
            let len = SEGMENT_HEAD_LEN + piece.len() + TAG_LEN;
            self.seal_segment(index, piece, &mut buffer[..len]);
            segment[..len].copy_from_slice(&buffer[..len]);
        }
    }

    fn open(&self, sealed: &[u8], plain: &mut [u8]) {
        let pieces = plain.chunks_mut(self.layout.plaintext_per_segment());
        for (piece, segment) in pieces.zip(sealed.chunks(self.layout.segment_len())) {
            self.open_segment(&segment[..SEGMENT_HEAD_LEN + piece.len() + TAG_LEN], piece);
        }
    }

    fn open_and_copy(&self, sealed: &[u8], plain: &mut [u8]) {
        let mut buffer = self.buffer.borrow_mut();
        let pieces = plain.chunks_mut(self.layout.plaintext_per_segment());
        for (piece, segment) in pieces.zip(sealed.chunks(self.layout.segment_len())) {
            let segment = &segment[..SEGMENT_HEAD_LEN + piece.len() + TAG_LEN];
            let buffer = &mut buffer[..segment.len()];
            buffer.copy_from_slice(segment);
            self.open_segment(buffer, piece);
        }
    }
}
