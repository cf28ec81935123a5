//! Cached data keys: a hit against 24 random bytes of the system, and small messages under a cached key
//! against the bare primitives that they need, called in sequence: `cargo bench --bench cache --features
//! test-util [-- WORDS OF A TITLE]`.

#[path = "common/mod.rs"]
mod common;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::report::Report;
use common::{Amount, Clock, Group, touched};
use envelock::{CacheLimits, EncryptionContext, Envelope, Header, RawKeyProvider};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;
use std::hint::black_box;
use std::time::Duration;

const ROUNDS: usize = 101;
/// How often a case runs in a row in one round.
const REPEAT: usize = 1000;
const TENANTS: usize = 1_000;
const THREADS_ROUNDS: usize = 15;

fn main() {
    let mut report = Report::new("cache", std::env::args().skip(1));
    let context = EncryptionContext::from([("tenant", "acme")]);
    let provider = RawKeyProvider::generate("bench").expect("random bytes");
    let limits = CacheLimits::default().max_messages(1 << 32).max_bytes(u64::MAX).max_entries(4 * TENANTS);
    let envelope = Envelope::builder(provider).cache(limits).build().expect("valid");
    let sealed = pollster::block_on(envelope.encrypt(&touched(100), &context)).expect("encrypts");
    let header = Header::parse(&sealed).expect("a message");
    let probe = envelope.cache_probe(&header, &context).expect("its context");

    let title = "a hit, either direction";
    if report.wants(title) {
        let measured = Group::new("cache-hit", title, Amount::Message, REPEAT)
            .case("24 random bytes of the system", random::<24>)
            .case("to encrypt", || pollster::block_on(probe.writing(100)))
            .case("to decrypt", || pollster::block_on(probe.reading()))
            .run(ROUNDS);
        report.add(&measured, &["24 random bytes of the system"]);
    }
    for len in [100, 1024] {
        let plain = touched(len);
        let sealed = pollster::block_on(envelope.encrypt(&plain, &context)).expect("encrypts");
        let bare = Bare::new(&Header::parse(&sealed).expect("a message"), &plain);
        let title = format!("encrypt {len} B under a cached key");
        if report.wants(&title) {
            let measured = Group::new(format!("cached-{len}-encrypt"), &title, Amount::Message, REPEAT)
                .case("bare primitives", || bare.encrypt(&plain))
                .case("`Envelope::encrypt`", || pollster::block_on(envelope.encrypt(&plain, &context)))
                .run(ROUNDS);
            report.add(&measured, &["bare primitives"]);
        }
        let title = format!("decrypt {len} B under a cached key");
        if report.wants(&title) {
            let measured = Group::new(format!("cached-{len}-decrypt"), &title, Amount::Message, REPEAT)
                .case("bare primitives", || bare.decrypt())
                .case("`Envelope::decrypt`", || pollster::block_on(envelope.decrypt(&sealed, &context)))
                .run(ROUNDS);
            report.add(&measured, &["bare primitives"]);
        }
    }
    for title in TENANTS_TITLES {
        if report.wants(title) {
            tenants(&mut report, &envelope, title);
        }
    }
    report.write();
}

const TENANTS_TITLES: [&str; 2] = ["encrypt 100 B for 1,000 tenants", "decrypt 100 B of 1,000 tenants"];

/// One of these titles: a message of each tenant in turn, by several threads, and on the wall.
fn tenants(report: &mut Report, envelope: &Envelope, title: &str) {
    let plain = [7; 100];
    let context = EncryptionContext::from([("column", "orders.address")]);
    let tenants: Vec<_> = (0..TENANTS).map(|number| envelope.for_tenant(&number.to_string())).collect();
    let encrypt = |at: usize| pollster::block_on(tenants[at % TENANTS].encrypt(&plain, &context)).expect("encrypts");
    let sealed: Vec<_> = (0..TENANTS).map(encrypt).collect();
    let bare = Bare::new(&Header::parse(&sealed[0]).expect("a message"), &plain);
    let decrypt = |at: usize| {
        let at = at % TENANTS;
        pollster::block_on(tenants[at].decrypt(&sealed[at], &context)).expect("authentic")
    };
    let (id, work, bare): (_, &Each<'_>, &Each<'_>) = if title == TENANTS_TITLES[0] {
        ("cache-tenants-encrypt", &encrypt, &|_| bare.encrypt(&plain))
    } else {
        ("cache-tenants-decrypt", &decrypt, &|_| bare.decrypt())
    };
    // The bare primitives share nothing: what this machine has to give to more than one thread just now.
    let measured = Group::new(id, title, Amount::Message, 1)
        .by(Clock::Wall)
        .self_timed(1, "one thread", |_| each(1, work))
        .self_timed(1, "2 threads", |_| each(2, work))
        .self_timed(1, "16 threads", |_| each(16, work))
        .self_timed(1, "bare primitives, one thread", |_| each(1, bare))
        .self_timed(1, "bare primitives, 16 threads", |_| each(16, bare))
        .run(THREADS_ROUNDS);
    report.add(&measured, &["one thread", "bare primitives, one thread"]);
}

type Each<'a> = dyn Fn(usize) -> Vec<u8> + Sync + 'a;

/// The time that each of a number of messages takes on so many threads.
fn each(threads: usize, work: &Each<'_>) -> Duration {
    const MESSAGES: usize = 32_000;
    let start = Clock::Wall.now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..MESSAGES).step_by(threads).for_each(|at| drop(black_box(work(at)))));
        }
    });
    (Clock::Wall.now() - start) / MESSAGES as u32
}

/// What a message under a cached key costs at the least: randomness, key derivation, an AEAD, one allocation.
struct Bare {
    key: Hmac<Sha384>,
    aad: Vec<u8>,
    head_len: usize,
    floe_iv: [u8; 32],
    tag: [u8; 32],
    iv: [u8; 12],
    segment: Vec<u8>,
}

const PARAMETERS: [u8; 10] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 32];
const SEGMENT_OVERHEAD: usize = 32;

impl Bare {
    fn new(header: &Header, plain: &[u8]) -> Self {
        let core_len = header.len() - header.slots_len() - 2 - 74;
        let key = prepare(&random::<32>());
        let mut bare = Self {
            key,
            aad: touched(core_len),
            head_len: header.len(),
            floe_iv: random(),
            tag: [0; 32],
            iv: random(),
            segment: vec![0; plain.len() + 16],
        };
        let (tag, aead) = bare.derive(&bare.floe_iv);
        bare.tag = tag;
        seal(&aead, bare.iv, plain, &mut bare.segment);
        bare
    }

    /// FLOE's header tag and first segment key.
    fn derive(&self, iv: &[u8; 32]) -> ([u8; 32], LessSafeKey) {
        let tag = expand(&self.key, &[&PARAMETERS, iv, b"HEADER_TAG:", &self.aad]);
        let message_key: [u8; 48] = expand(&self.key, &[&PARAMETERS, iv, b"MESSAGE_KEY:", &self.aad]);
        let segment_key: [u8; 32] = expand(&prepare(&message_key), &[&PARAMETERS, iv, b"DEK:", &[0; 8], &self.aad]);
        (tag, LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &segment_key).expect("32 bytes")))
    }

    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let (tag, aead) = self.derive(&random::<32>());
        let mut out = vec![0; self.head_len + SEGMENT_OVERHEAD + plain.len()];
        out[..32].copy_from_slice(&tag);
        let start = out.len() - plain.len() - 16;
        seal(&aead, random::<12>(), plain, &mut out[start..]);
        out
    }

    fn decrypt(&self) -> Vec<u8> {
        let (tag, aead) = self.derive(&self.floe_iv);
        assert!(tag == self.tag, "another key");
        let (data, tag) = self.segment.split_at(self.segment.len() - 16);
        let mut out = vec![0; data.len()];
        let nonce = Nonce::assume_unique_for_key(self.iv);
        aead.open_separate_gather(nonce, Aad::from(&[0; 9]), data, tag, &mut out).expect("authentic");
        out
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("random bytes");
    out
}

fn prepare(key: &[u8]) -> Hmac<Sha384> {
    Hmac::new_from_slice(key).expect("any length")
}

/// At most one hash.
fn expand<const N: usize>(prepared: &Hmac<Sha384>, info: &[&[u8]]) -> [u8; N] {
    let mut hmac = prepared.clone();
    info.iter().for_each(|part| hmac.update(part));
    hmac.update(&[1]);
    hmac.finalize().into_bytes()[..N].try_into().expect("at most 48 bytes")
}

fn seal(key: &LessSafeKey, iv: [u8; 12], plain: &[u8], out: &mut [u8]) {
    let (data, tag) = out.split_at_mut(plain.len());
    let nonce = Nonce::assume_unique_for_key(iv);
    key.seal_out_of_place_scatter(nonce, Aad::from(&[0; 9]), plain, data, &[], tag).expect("seals");
}
