//! Cached data keys: a hit against 24 random bytes of the system, and small messages under a cached key
//! against the bare primitives that they need, called in sequence: `cargo bench --bench cache --features
//! test-util [-- WORDS OF A TITLE]`.

#[path = "common/mod.rs"]
mod common;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::report::Report;
use common::{Amount, Group, touched};
use envelock::{CacheLimits, EncryptionContext, Envelope, Header, RawKeyProvider};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;
use std::time::Instant;

const ROUNDS: usize = 101;
/// How often a case runs in a row in one round.
const REPEAT: usize = 1000;
const TENANTS: usize = 1_000;

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
    let title = "100 B messages of 1,000 tenants";
    if report.wants(title) {
        let tenants: Vec<_> = (0..TENANTS).map(|number| envelope.for_tenant(&number.to_string())).collect();
        let cached = |number: usize| {
            drop(pollster::block_on(tenants[number % TENANTS].encrypt(&[7; 100], &context)).expect("encrypts"));
        };
        let plain = [7; 100];
        let bare = Bare::new(&header, &plain);
        // What this machine has to give to more than one thread just now, by primitives that share nothing.
        let bare = |_| drop(bare.encrypt(&plain));
        for threads in [2, 16] {
            report.fact(format!("{title}, {threads} threads against one"), faster(threads, &cached).into());
            report.fact(format!("bare primitives, {threads} threads against one"), faster(threads, &bare).into());
        }
    }
    report.write();
}

/// How much faster so many threads are than one: the median of pairs of runs.
fn faster(threads: usize, work: &(impl Fn(usize) + Sync)) -> f64 {
    let mut ratios: Vec<_> = (0..15).map(|_| seconds(1, work) / seconds(threads, work)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// How long so many threads take for a number of messages.
fn seconds(threads: usize, work: &(impl Fn(usize) + Sync)) -> f64 {
    const MESSAGES: usize = 32_000;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..MESSAGES).step_by(threads).for_each(work));
        }
    });
    start.elapsed().as_secs_f64()
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
