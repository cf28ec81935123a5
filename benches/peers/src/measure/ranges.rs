//! 4 KiB at random places of a message of 1 GiB, against opening the touched segments with the raw AEAD.

use super::Scratch;
use crate::common::raw::Raw;
use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Group, touched};
use envelock::{AeadAlgorithm, Layout, ReadAt};
use std::fs::File;

const LEN: usize = 1 << 30;
const RANGE: usize = 4 << 10;
const ROUNDS: usize = 15;
/// How many reads a case does in a row in one round.
const REPEAT: usize = 300;

pub const RAW: &str = "raw AEAD on the touched segments";
pub const READER: &str = "`RangeReader::read_at`";

/// Groups `range-memory` and `range-file`.
pub fn measure(report: &mut Report, scratch: &Scratch) {
    let wanted = ["range-memory", "range-file"].map(|id| report.wants(id));
    if wanted == [false; 2] {
        return;
    }
    let subject = Subject::new(AeadAlgorithm::Aes256Gcm, 64 << 10);
    let layout = subject.encryptor().layout();
    let raw = Raw::new(AeadAlgorithm::Aes256Gcm, layout, LEN);
    let plain = touched(LEN);
    let message = subject.encrypt(&plain);
    let mut body = vec![0; layout.sealed_len(LEN as u64).expect("within limits") as usize];
    raw.seal(&plain, &mut body);
    check(&subject, &raw, layout, &message, &body, &plain);
    drop(plain);
    let [memory, file] = wanted;
    if memory {
        let names = ("range-memory", "4 KiB at random of 1 GiB, in memory");
        run(report, names, (&subject, &raw, layout), &message, Body::Memory(&body));
    }
    if file {
        let stored = |name: &str, bytes: Vec<u8>| {
            std::fs::write(scratch.path(name), bytes).expect("room on the disk");
            File::open(scratch.path(name)).expect("just written")
        };
        let (message, body) = (stored("message", message), stored("body", body));
        let names = ("range-file", "4 KiB at random of 1 GiB, in a file (page cache warm)");
        run(report, names, (&subject, &raw, layout), &message, Body::File(&body));
        ["message", "body"].iter().for_each(|name| scratch.remove(name));
    }
}

fn run<S: ReadAt + ?Sized>(
    report: &mut Report,
    (id, title): (&str, &str),
    (subject, raw, layout): (&Subject, &Raw, Layout),
    message: &S,
    body: Body<'_>,
) {
    let reader = pollster::block_on(subject.envelope.range_reader(message, &subject.context)).expect("our message");
    let (mut ours, mut theirs) = (Places::new(), Places::new());
    let mut out = touched(RANGE);
    let mut buffers = RawBuffers::new(layout);
    let mut raw_out = touched(RANGE);
    let measured = Group::new(id, title, Amount::Message, REPEAT)
        .case(RAW, || buffers.read(raw, layout, body, theirs.draw(), &mut raw_out))
        .case(READER, || assert_eq!(reader.read_at(&mut out, ours.draw()).expect("authentic"), RANGE))
        .run(ROUNDS);
    report.add(&measured, &[RAW]);
}

/// The same places for every case: an offset of 4 KiB that lie within the message.
struct Places(u64);

impl Places {
    fn new() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (LEN - RANGE) as u64
    }
}

/// Where the raw AEAD finds its segments.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// Opened from where they lie.
    Memory(&'a [u8]),
    /// Read first.
    File(&'a File),
}

/// What the raw AEAD reads a segment into and opens it to.
struct RawBuffers {
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl RawBuffers {
    fn new(layout: Layout) -> Self {
        Self { sealed: touched(layout.segment_len()), plain: touched(layout.plaintext_per_segment()) }
    }

    /// Whole segments are opened, since a tag covers a segment; what was asked for is copied out.
    fn read(&mut self, raw: &Raw, layout: Layout, body: Body<'_>, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let (index, within) = layout.locate(offset);
            let start = layout.segment_offset(index).expect("within limits");
            let body_len = layout.sealed_len(LEN as u64).expect("within limits");
            let len = layout.segment_len().min((body_len - start) as usize);
            let sealed = match body {
                Body::Memory(bytes) => &bytes[start as usize..start as usize + len],
                Body::File(file) => {
                    file.read_exact_at(&mut self.sealed[..len], start).expect("within the body");
                    &self.sealed[..len]
                }
            };
            let plain = &mut self.plain[..len - layout.overhead()];
            raw.open_segment(sealed, plain);
            let count = out.len().min(plain.len() - within);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&plain[within..within + count]);
            out = later;
            offset += count as u64;
        }
    }
}

/// What is measured must give the plaintext.
fn check(subject: &Subject, raw: &Raw, layout: Layout, message: &Vec<u8>, body: &[u8], plain: &[u8]) {
    let reader = pollster::block_on(subject.envelope.range_reader(message, &subject.context)).expect("our message");
    let (mut buffers, mut places) = (RawBuffers::new(layout), Places::new());
    for _ in 0..200 {
        let offset = places.draw();
        let expected = &plain[offset as usize..offset as usize + RANGE];
        let mut out = vec![0; RANGE];
        reader.read_at(&mut out, offset).expect("authentic");
        assert!(out == expected, "a range is not the plaintext's");
        out.fill(0);
        buffers.read(raw, layout, Body::Memory(body), offset, &mut out);
        assert!(out == expected, "a raw range is not the plaintext's");
    }
}
