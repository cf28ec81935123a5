//! Small messages under a raw key, nothing cached, and compact records under a set at hand, against the bare
//! primitives that one needs, called in sequence: `cargo bench --bench small [-- WORDS OF A TITLE]`.
//!
//! The primitives are those that the crate uses, from the same libraries: AES-256 and AES-256-GCM of aws-lc-rs,
//! HMAC-SHA-384 of RustCrypto, random bytes of the system. They run over inputs of the same lengths
//! and wipe nothing, parse nothing and check nothing but tags.

#[path = "common/mod.rs"]
mod common;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use common::report::Report;
use common::{Amount, Group, touched};
use envelock::{Column, EncryptionContext, Envelope, Header, RawKeyProvider, RecordSet};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;

const ROUNDS: usize = 101;
/// How often a case runs in a row in one round.
const REPEAT: usize = 1000;

fn main() {
    let mut report = Report::new("small", std::env::args().skip(1));
    let context = EncryptionContext::from([("tenant", "acme")]);
    let provider = RawKeyProvider::generate("bench").expect("random bytes");
    let envelope = Envelope::builder(provider).build().expect("valid");
    for len in [100, 1024] {
        let plain = touched(len);
        let sealed = pollster::block_on(envelope.encrypt(&plain, &context)).expect("encrypts");
        let header = Header::parse(&sealed).expect("a message");
        let bare = Bare::new(&header, &plain);

        let title = format!("encrypt {len} B under a raw key, nothing cached");
        if report.wants(&title) {
            let measured = Group::new(format!("bare-{len}-encrypt"), &title, Amount::Message, REPEAT)
                .case("bare primitives", || bare.encrypt(&plain))
                .case("`Envelope::encrypt`", || pollster::block_on(envelope.encrypt(&plain, &context)))
                .run(ROUNDS);
            report.add(&measured, &["bare primitives"]);
        }
        let title = format!("decrypt {len} B under a raw key, nothing cached");
        if report.wants(&title) {
            let measured = Group::new(format!("bare-{len}-decrypt"), &title, Amount::Message, REPEAT)
                .case("bare primitives", || bare.decrypt())
                .case("`Envelope::decrypt`", || pollster::block_on(envelope.decrypt(&sealed, &context)))
                .run(ROUNDS);
            report.add(&measured, &["bare primitives"]);
        }
    }
    for len in [100, 1024] {
        records(&mut report, &pollster::block_on(envelope.record_set(&context)).expect("a set"), len);
    }
    let title = "the primitives by themselves";
    if report.wants(title) {
        let key = random::<32>();
        let aead = aead(&key);
        let prepared = prepare(&key);
        let blocks = aes(&key);
        let measured = Group::new("primitives", title, Amount::Message, REPEAT)
            .case("32 random bytes of the system", random::<32>)
            .case("12 random bytes of the system", random::<12>)
            .case("number of the process", std::process::id)
            .case("24 random bytes of the system", random::<24>)
            .case("two blocks of AES-256, key prepared", || two_blocks(&blocks, &[0; 12]))
            .case("AES-256-GCM, key", || self::aead(&key))
            .case("AES-256-GCM, seal 100 B", || seal(&aead, [0; 12], &[0; 9], &[0; 100], &mut [0; 116]))
            .case("HMAC-SHA-384, key", || prepare(&key))
            .case("HKDF-Expand-SHA-384 to 32 B, key prepared", || expand::<32>(&prepared, &[&[0; 64]]))
            .run(ROUNDS);
        report.add(&measured, &[]);
    }
    report.write();
}

/// Records of `len` bytes under a set at hand, one by one and in batches.
fn records(report: &mut Report, set: &RecordSet, len: usize) {
    let (plain, place) = (touched(len), Column::new("customers", "iban").row("4711"));
    let record = set.seal(&plain, &place).expect("seals");
    let key = aes(&random());
    let bare_seal = |nonce: &[u8; 24]| {
        let mut out = vec![0; 57 + len];
        out[17..41].copy_from_slice(nonce);
        let aead = aead(&two_blocks(&key, &nonce[..12]));
        seal(&aead, nonce[12..].try_into().expect("12"), place.as_bytes(), &plain, &mut out[41..]);
        out
    };
    let sealed = bare_seal(&random());

    let title = format!("seal a record of {len} B, its set at hand");
    if report.wants(&title) {
        let measured = Group::new(format!("record-{len}-seal"), &title, Amount::Message, REPEAT)
            .case("bare primitives", || bare_seal(&random()))
            .case("`RecordSet::seal`", || set.seal(&plain, &place))
            .run(ROUNDS);
        report.add(&measured, &["bare primitives"]);
    }
    let title = format!("open a record of {len} B, its set at hand");
    if report.wants(&title) {
        let measured = Group::new(format!("record-{len}-open"), &title, Amount::Message, REPEAT)
            .case("bare primitives", || {
                let mut out = vec![0; len];
                let aead = aead(&two_blocks(&key, &sealed[17..29]));
                open(&aead, sealed[29..41].try_into().expect("12"), place.as_bytes(), &sealed[41..], &mut out);
                out
            })
            .case("`RecordSet::open`", || set.open(&record, &place))
            .run(ROUNDS);
        report.add(&measured, &["bare primitives"]);
    }
    let title = format!("seal a batch of 100 records of {len} B");
    if report.wants(&title) {
        let batch = vec![(plain.clone(), place.clone()); 100];
        let measured = Group::new(format!("record-{len}-batch"), &title, Amount::Message, REPEAT / 100)
            .case("bare primitives", || {
                let nonces = random::<2400>();
                nonces.as_chunks().0.iter().map(bare_seal).collect::<Vec<_>>()
            })
            .case("`RecordSet::seal_batch`", || set.seal_batch(&batch))
            .run(ROUNDS);
        report.add(&measured, &["bare primitives"]);
    }
}

/// What derives a record's key: two blocks of AES, under masks that were made before.
fn two_blocks(key: &EncryptingKey, nonce: &[u8]) -> [u8; 32] {
    let mut blocks = [0; 32];
    for (counter, half) in (1..).zip(blocks.chunks_exact_mut(16)) {
        half[1] = counter;
        half[4..].copy_from_slice(nonce);
    }
    key.encrypt(&mut blocks).expect("whole blocks");
    blocks
}

/// What a message costs at the least: randomness, key derivation, two AEADs, one allocation.
struct Bare {
    wrapping_key: [u8; 32],
    /// As long as the AAD of the wrap without version and salt, and as FLOE's AAD.
    wrap_aad: Vec<u8>,
    floe_aad: Vec<u8>,
    head_len: usize,
    sealed: Sealed,
}

/// What the reader of a message starts from.
struct Sealed {
    salt_and_iv: [u8; 44],
    wrapped: [u8; 48],
    floe_iv: [u8; 32],
    floe_tag: [u8; 32],
    segment_iv: [u8; 12],
    segment: Vec<u8>,
}

const PARAMETERS: [u8; 10] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 32];
const SEGMENT_OVERHEAD: usize = 32;

impl Bare {
    fn new(header: &Header, plain: &[u8]) -> Self {
        let core_len = header.len() - header.slots_len() - 2 - 74;
        let stored: usize = header.stored_context().iter().map(|(key, value)| 4 + key.len() + value.len()).sum();
        // The KMS context is the stored one and the constant entry; the key id comes before it.
        let kms_context = 2 + stored + 4 + "envelock-use".len() + "message/1".len();
        let mut bare = Self {
            wrapping_key: random(),
            wrap_aad: touched(2 + "bench".len() + kms_context),
            floe_aad: touched(core_len),
            head_len: header.len(),
            sealed: Sealed {
                salt_and_iv: random(),
                wrapped: [0; 48],
                floe_iv: random(),
                floe_tag: [0; 32],
                segment_iv: random(),
                segment: vec![0; plain.len() + 16],
            },
        };
        let key = random();
        let Sealed { salt_and_iv, floe_iv, segment_iv, .. } = bare.sealed;
        bare.sealed.wrapped = bare.wrap(&salt_and_iv, &key);
        let (tag, aead) = bare.derive(&key, &floe_iv);
        bare.sealed.floe_tag = tag;
        seal(&aead, segment_iv, &[0; 9], plain, &mut bare.sealed.segment);
        bare
    }

    fn wrap_key(&self, salt: &[u8]) -> LessSafeKey {
        aead(&expand(&prepare(&self.wrapping_key), &[b"envelock/v1 raw\0\x01", salt]))
    }

    fn wrap_aad(&self, salt: &[u8]) -> Vec<u8> {
        [&[1], salt, &self.wrap_aad].concat()
    }

    fn wrap(&self, salt_and_iv: &[u8; 44], key: &[u8; 32]) -> [u8; 48] {
        let (salt, iv) = salt_and_iv.split_at(32);
        let mut wrapped = [0; 48];
        let iv = iv.try_into().expect("12 bytes");
        seal(&self.wrap_key(salt), iv, &self.wrap_aad(salt), key, &mut wrapped);
        wrapped
    }

    /// FLOE's header tag and first segment key.
    fn derive(&self, key: &[u8; 32], iv: &[u8; 32]) -> ([u8; 32], LessSafeKey) {
        let prepared = prepare(key);
        let tag = expand(&prepared, &[&PARAMETERS, iv, b"HEADER_TAG:", &self.floe_aad]);
        let message_key: [u8; 48] = expand(&prepared, &[&PARAMETERS, iv, b"MESSAGE_KEY:", &self.floe_aad]);
        let segment_key = expand(&prepare(&message_key), &[&PARAMETERS, iv, b"DEK:", &[0; 8], &self.floe_aad]);
        (tag, aead(&segment_key))
    }

    fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let key = random::<32>();
        let wrapped = self.wrap(&random::<44>(), &key);
        let (tag, aead) = self.derive(&key, &random::<32>());
        let mut out = vec![0; self.head_len + SEGMENT_OVERHEAD + plain.len()];
        out[..48].copy_from_slice(&wrapped);
        out[48..80].copy_from_slice(&tag);
        let start = out.len() - plain.len() - 16;
        seal(&aead, random::<12>(), &[0; 9], plain, &mut out[start..]);
        out
    }

    fn decrypt(&self) -> Vec<u8> {
        let Sealed { salt_and_iv, wrapped, floe_iv, floe_tag, segment_iv, segment } = &self.sealed;
        let (salt, iv) = salt_and_iv.split_at(32);
        let mut key = [0; 32];
        open(&self.wrap_key(salt), iv.try_into().expect("12 bytes"), &self.wrap_aad(salt), wrapped, &mut key);
        let (tag, aead) = self.derive(&key, floe_iv);
        assert!(tag == *floe_tag, "another key");
        let mut out = vec![0; segment.len() - 16];
        open(&aead, *segment_iv, &[0; 9], segment, &mut out);
        out
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("random bytes");
    out
}

fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"))
}

fn aes(key: &[u8; 32]) -> EncryptingKey {
    UnboundCipherKey::new(&AES_256, key).and_then(EncryptingKey::ecb).expect("32 bytes")
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

fn seal(key: &LessSafeKey, iv: [u8; 12], aad: &[u8], plain: &[u8], out: &mut [u8]) {
    let (data, tag) = out.split_at_mut(plain.len());
    let nonce = Nonce::assume_unique_for_key(iv);
    key.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, data, &[], tag).expect("seals");
}

fn open(key: &LessSafeKey, iv: [u8; 12], aad: &[u8], sealed: &[u8], out: &mut [u8]) {
    let (data, tag) = sealed.split_at(out.len());
    key.open_separate_gather(Nonce::assume_unique_for_key(iv), Aad::from(aad), data, tag, out).expect("authentic");
}
