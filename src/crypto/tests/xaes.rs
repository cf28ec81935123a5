//! XAES-256-GCM on each backend: the vectors of c2sp.org/XAES-256-GCM, one backend against the other, and both
//! against the crate `xaes-256-gcm`.

use super::on_every_backend;
use crate::crypto::backend::Backend;
use crate::crypto::xaes::Xaes;
use crate::crypto::{TAG_LEN, XAES_NONCE_LEN};
use crate::error::ErrorKind;
use proptest::collection::vec;
use proptest::prelude::*;
use shake::{ExtendableOutput, Shake128, Update, XofReader};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::inout::InOutBuf;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};

on_every_backend!(
    the_published_vectors_hold,
    the_accumulated_tests_hold,
    every_flipped_bit_is_refused_and_the_output_wiped,
    values_are_those_of_the_crate_xaes_256_gcm,
    debug_prints_no_key,
);

fn seal<B: Backend>(key: &[u8; 32], nonce: &[u8; XAES_NONCE_LEN], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0x55; plaintext.len() + TAG_LEN];
    Xaes::<B, B>::new(key).seal_to(nonce, aad, plaintext, &mut sealed).unwrap();
    sealed
}

fn open<B: Backend>(key: &[u8; 32], nonce: &[u8; XAES_NONCE_LEN], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let mut plaintext = vec![0x55; sealed.len() - TAG_LEN];
    Xaes::<B, B>::new(key).open_to(nonce, aad, sealed, &mut plaintext).unwrap();
    plaintext
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first has a block L whose first bit is clear, the second one whose first bit is set.
fn the_published_vectors_hold<B: Backend>() {
    let vectors: [(u8, &[u8], &str); 2] = [
        (0x01, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (0x03, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ];
    for (byte, aad, sealed) in vectors {
        let (key, nonce) = ([byte; 32], b"ABCDEFGHIJKLMNOPQRSTUVWX");
        assert_eq!(hex(&seal::<B>(&key, nonce, aad, b"XAES-256-GCM")), sealed);
    }
}

/// Keys, nonces, plaintexts and associated data from SHAKE128 of nothing; all ciphertexts into another.
fn the_accumulated_tests_hold<B: Backend>() {
    accumulate::<B>(10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    if std::env::var("ENVELOCK_LONG").is_ok_and(|value| value == "1") {
        accumulate::<B>(1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
    }
}

fn accumulate<B: Backend>(iterations: usize, expected: &str) {
    let mut source = Shake128::default().finalize_xof();
    let mut all = Shake128::default();
    for _ in 0..iterations {
        let (mut key, mut nonce, mut len) = ([0; 32], [0; XAES_NONCE_LEN], [0]);
        source.read(&mut key);
        source.read(&mut nonce);
        source.read(&mut len);
        let mut plaintext = vec![0; usize::from(len[0])];
        source.read(&mut plaintext);
        source.read(&mut len);
        let mut aad = vec![0; usize::from(len[0])];
        source.read(&mut aad);
        let sealed = seal::<B>(&key, &nonce, &aad, &plaintext);
        assert_eq!(open::<B>(&key, &nonce, &aad, &sealed), plaintext);
        all.update(&sealed);
    }
    let mut digest = [0; 32];
    all.finalize_xof().read(&mut digest);
    println!("{}: {iterations} accumulated values", B::NAME);
    assert_eq!(hex(&digest), expected);
}

fn every_flipped_bit_is_refused_and_the_output_wiped<B: Backend>() {
    let (key, nonce) = ([7; 32], [9; XAES_NONCE_LEN]);
    let sealed = seal::<B>(&key, &nonce, b"aad", &[0xAB; 21]);
    let xaes = Xaes::<B, B>::new(&key);
    let refuse = |nonce: &[u8; XAES_NONCE_LEN], aad: &[u8], sealed: &[u8]| {
        let mut out = vec![0x55; 21];
        let error = xaes.open_to(nonce, aad, sealed, &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        assert_eq!(out, [0; 21]);
    };
    for bit in 0..sealed.len() * 8 {
        let mut damaged = sealed.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refuse(&nonce, b"aad", &damaged);
    }
    for bit in 0..XAES_NONCE_LEN * 8 {
        let mut other = nonce;
        other[bit / 8] ^= 1 << (bit % 8);
        refuse(&other, b"aad", &sealed);
    }
    refuse(&nonce, b"aae", &sealed);
    refuse(&nonce, b"", &sealed);
}

fn values_are_those_of_the_crate_xaes_256_gcm<B: Backend>() {
    let cases = (any::<[u8; 32]>(), any::<[u8; XAES_NONCE_LEN]>(), vec(any::<u8>(), 0..80), vec(any::<u8>(), 0..600));
    proptest!(ProptestConfig::with_cases(10_000), |((key, nonce, aad, plaintext) in cases)| {
        let ours = seal::<B>(&key, &nonce, &aad, &plaintext);
        let mut theirs = plaintext.clone();
        let foreign = Xaes256Gcm::new(&key.into());
        let tag = foreign.encrypt_inout_detached(&nonce.into(), &aad, InOutBuf::from(&mut theirs[..])).unwrap();
        theirs.extend_from_slice(&tag);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(open::<B>(&key, &nonce, &aad, &theirs), plaintext);
    });
}

fn debug_prints_no_key<B: Backend>() {
    let text = format!("{:?} {:?}", Xaes::<B, B>::new(&[0xAB; 32]), B::aes(&[0xAB; 32]));
    assert!(!text.contains("171") && !text.to_lowercase().contains("ab, ab"), "{text}");
}
