//! Large plaintexts from memory to memory, every rival in the same interleaved run.
//!
//! Each writes through its own writer into a slice that is there already, in pieces of 64 KiB where its
//! caller may choose them, and reads the other way round. Those that know whole messages only, and
//! envelock's and fast-floe's calls for these, answer with memory of their own.

use super::Scratch;
use crate::common::bulk::{Buffers, CHUNK, LEN, ROOM};
use crate::common::raw::Raw;
use crate::common::report::Report;
use crate::common::subject::Subject;
use crate::common::{Amount, Group};
use crate::rivals::age::Age;
use crate::rivals::aws::Aws;
use crate::rivals::floe::Floe;
use crate::rivals::python::Python;
use crate::rivals::rust_crypto::RustCrypto;
use crate::rivals::tink::{SegmentLength, Tink};
use envelock::AeadAlgorithm;
use serde_json::json;
use std::cell::RefCell;

const ROUNDS: usize = 9;
/// The slow ones run in every third round.
const SLOW: usize = 3;

const KIB_64: u32 = 64 << 10;
const MIB_1: u32 = 1 << 20;

pub const ENVELOCK_STREAM: [&str; 2] = ["envelock, stream, 64 KiB", "envelock, stream, 1 MiB"];
pub const ENVELOCK_WHOLE: [&str; 2] = ["envelock, whole, 64 KiB", "envelock, whole, 1 MiB"];
pub const ENVELOCK_SLICE: [&str; 2] = ["envelock, slice to slice, 64 KiB", "envelock, slice to slice, 1 MiB"];
pub const FLOE_STREAM: [&str; 2] = ["fast-floe, stream, 64 KiB", "fast-floe, stream, 1 MiB"];
pub const FLOE_WHOLE: [&str; 2] = ["fast-floe, whole, 64 KiB", "fast-floe, whole, 1 MiB"];
pub const AGE: &str = "age, stream, 64 KiB";
pub const TINK: [&str; 2] = ["tink-rs, stream, 4 KiB", "tink-rs, stream, 1 MiB"];
pub const AWS: &str = "aws-esdk, whole, 64 KiB";
pub const PYTHON: &str = "AWS SDK for Python, whole, 64 KiB";
pub const RAW_AWS_LC: &str = "raw aws-lc-rs, 64 KiB";
pub const RAW_RUST_CRYPTO: &str = "raw RustCrypto, 64 KiB";

/// Everybody, with keys.
struct All {
    age: Age,
    tink: [Tink; 2],
    floe: [Floe; 2],
    aws: Result<Aws, String>,
    /// It borrows itself for each turn.
    python: Result<RefCell<Python>, String>,
    envelock: [Subject; 2],
    raw: Raw,
    rust_crypto: RustCrypto,
}

/// Groups `rivals-encrypt` and `rivals-decrypt`.
pub fn measure(report: &mut Report, buffers: &Buffers, scratch: &Scratch, python: Option<&str>) {
    if !["rivals-encrypt", "rivals-decrypt"].iter().any(|id| report.wants(id)) {
        return;
    }
    let all = All::new(report, buffers, scratch, python);
    if report.wants("rivals-encrypt") {
        all.encrypt(report, buffers);
    }
    if report.wants("rivals-decrypt") {
        all.decrypt(report, buffers);
    }
}

impl All {
    fn new(report: &mut Report, buffers: &Buffers, scratch: &Scratch, python: Option<&str>) -> Self {
        let envelock = [KIB_64, MIB_1].map(|len| Subject::new(AeadAlgorithm::Aes256Gcm, len));
        let layout = envelock[0].encryptor().layout();
        let python = start_python(buffers, scratch, python);
        match &python {
            Ok(python) => report.fact("aws-encryption-sdk (Python)", json!(python.borrow().versions)),
            Err(why) => report.fact("AWS SDK for Python not measured", json!(why)),
        }
        let aws = Aws::start(KIB_64 as usize);
        if let Err(why) = &aws {
            report.fact("aws-esdk not measured", json!(why));
        }
        Self {
            age: Age::new(),
            tink: [SegmentLength::Kib4, SegmentLength::Mib1].map(|length| Tink::new(length).with_room(LEN + ROOM)),
            floe: [KIB_64, MIB_1].map(Floe::new),
            aws,
            python,
            raw: Raw::new(AeadAlgorithm::Aes256Gcm, layout, LEN),
            rust_crypto: RustCrypto::new(KIB_64 as usize),
            envelock,
        }
    }

    fn encrypt(&self, report: &mut Report, buffers: &Buffers) {
        let plain = &buffers.plain[..];
        let sealed = &buffers.sealed;
        let mut group = Group::new("rivals-encrypt", "encrypt 256 MiB", Amount::Bytes(LEN), 1)
            .case(RAW_AWS_LC, || self.raw.seal(plain, &mut sealed.borrow_mut()))
            .case(RAW_RUST_CRYPTO, || self.rust_crypto.seal(plain, &mut sealed.borrow_mut()))
            .case(AGE, || self.age.encrypt(plain, &mut sealed.borrow_mut()));
        if let Ok(aws) = &self.aws {
            group = group.self_timed(SLOW, AWS, |_| aws.encrypt(Aws::blob(plain)).0);
        }
        for at in 0..2 {
            let (tink, floe, envelock) = (&self.tink[at], &self.floe[at], &self.envelock[at]);
            group = group
                .case(TINK[at], || tink.encrypt(plain))
                .case(FLOE_STREAM[at], || floe.write(plain, &mut sealed.borrow_mut(), CHUNK))
                .case(ENVELOCK_STREAM[at], || envelock.write(plain, &mut sealed.borrow_mut(), CHUNK))
                .case(FLOE_WHOLE[at], || floe.encrypt(plain))
                .case(ENVELOCK_WHOLE[at], || envelock.encrypt(plain))
                .case(ENVELOCK_SLICE[at], || envelock.seal_to(plain, &mut sealed.borrow_mut()));
        }
        if let Ok(python) = &self.python {
            group = group.self_timed(SLOW, PYTHON, |repeat| python.borrow_mut().time("encrypt", repeat));
        }
        report.add(&group.run(ROUNDS), &[ENVELOCK_STREAM[0], ENVELOCK_WHOLE[0]]);
    }

    fn decrypt(&self, report: &mut Report, buffers: &Buffers) {
        let plain = &buffers.plain[..];
        let message = |seal: &dyn Fn(&mut [u8]) -> usize| {
            let mut sealed = buffers.sealed.borrow_mut();
            let len = seal(&mut sealed);
            sealed[..len].to_vec()
        };
        let of_raw = message(&|out| self.raw.seal(plain, out));
        let of_rust_crypto = message(&|out| self.rust_crypto.seal(plain, out));
        let of_age = message(&|out| self.age.encrypt(plain, out));
        let of_floe = self.floe.each_ref().map(|floe| floe.encrypt(plain));
        let of_envelock = self.envelock.each_ref().map(|envelock| envelock.encrypt(plain));
        let of_aws = self.aws.as_ref().ok().map(|aws| aws.encrypt(Aws::blob(plain)).1);
        for tink in &self.tink {
            tink.keep(tink.encrypt(plain));
            buffers.check("tink-rs", |out| tink.decrypt(out));
        }
        buffers.check(RAW_AWS_LC, |out| self.raw.open(&of_raw, out));
        buffers.check(RAW_RUST_CRYPTO, |out| self.rust_crypto.open(&of_rust_crypto, out));
        buffers.check(AGE, |out| self.age.decrypt(&of_age, out));
        if let (Ok(aws), Some(sealed)) = (&self.aws, &of_aws) {
            buffers.check(AWS, |out| out.copy_from_slice(aws.decrypt(sealed.clone()).1.as_ref()));
        }
        for at in 0..2 {
            buffers.check(FLOE_STREAM[at], |out| self.floe[at].read(&of_floe[at], out, CHUNK));
            buffers.check(ENVELOCK_STREAM[at], |out| self.envelock[at].read(&of_envelock[at], out, CHUNK));
            buffers.check(ENVELOCK_SLICE[at], |out| self.envelock[at].open_to(&of_envelock[at], out));
        }

        let out = &buffers.out;
        let mut group = Group::new("rivals-decrypt", "decrypt 256 MiB", Amount::Bytes(LEN), 1)
            .case(RAW_AWS_LC, || self.raw.open(&of_raw, &mut out.borrow_mut()))
            .case(RAW_RUST_CRYPTO, || self.rust_crypto.open(&of_rust_crypto, &mut out.borrow_mut()))
            .case(AGE, || self.age.decrypt(&of_age, &mut out.borrow_mut()));
        if let (Ok(aws), Some(sealed)) = (&self.aws, &of_aws) {
            group = group.self_timed(SLOW, AWS, |_| aws.decrypt(sealed.clone()).0);
        }
        for at in 0..2 {
            let (tink, floe, envelock) = (&self.tink[at], &self.floe[at], &self.envelock[at]);
            let (of_floe, of_envelock) = (&of_floe[at], &of_envelock[at]);
            group = group
                .case(TINK[at], || tink.decrypt(&mut out.borrow_mut()))
                .case(FLOE_STREAM[at], || floe.read(of_floe, &mut out.borrow_mut(), CHUNK))
                .case(ENVELOCK_STREAM[at], || envelock.read(of_envelock, &mut out.borrow_mut(), CHUNK))
                .case(FLOE_WHOLE[at], || floe.decrypt(of_floe))
                .case(ENVELOCK_WHOLE[at], || envelock.decrypt(of_envelock))
                .case(ENVELOCK_SLICE[at], || envelock.open_to(of_envelock, &mut out.borrow_mut()));
        }
        if let Ok(python) = &self.python {
            group = group.self_timed(SLOW, PYTHON, |repeat| python.borrow_mut().time("decrypt", repeat));
        }
        report.add(&group.run(ROUNDS), &[ENVELOCK_STREAM[0], ENVELOCK_WHOLE[0]]);
    }
}

/// The Python SDK reads the same bytes from a file.
fn start_python(buffers: &Buffers, scratch: &Scratch, python: Option<&str>) -> Result<RefCell<Python>, String> {
    let python =
        python.ok_or("its environment was not made: ENVELOCK_PEERS_PYTHON names no Python (see scripts/bench)")?;
    std::fs::write(scratch.path("plain"), &buffers.plain).map_err(|error| error.to_string())?;
    let started = Python::start(python, &scratch.path("plain"), KIB_64 as usize);
    scratch.remove("plain");
    started.map(RefCell::new)
}
