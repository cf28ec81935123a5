//! Reads the stack back, and finds no key on it.

use super::{SHA2, on_every_backend};
use crate::crypto::backend::Backend;
use crate::crypto::hkdf::{Chain, Hkdf, aead_once, chain_once, expand_each_once, expand_once, hmac_once};
use crate::crypto::xaes::Xaes;
use crate::crypto::{Aead, AeadAlgorithm, KdfKey, copy_of_secret, password, sha256_of_secret, stack};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use xaes_256_gcm::aead::KeyInit;
use xaes_256_gcm::aes::cipher::BlockCipherEncrypt;
use xaes_256_gcm::aes::{Aes256Enc, Block};

on_every_backend!(
    no_aead_leaves_a_key_on_the_stack,
    no_derivation_leaves_a_key_on_the_stack,
    no_extended_nonce_leaves_a_key_on_the_stack,
);

/// How far below its own frame a search looks.
const WINDOW: usize = 96 * 1024;
/// Keys are kept masked while they are searched for, so that the search does not find itself.
const MASK: u8 = 0xA7;

/// How often half of the secret that `work` returns, or that it was given, lies below this frame.
///
/// On a thread of its own: no other code writes to its stack, so what `work` leaves stays.
fn copies_left(work: impl FnOnce(&[u8; 32]) -> Vec<u8> + Send + 'static) -> usize {
    let searching = move || {
        let key = black_box(Box::new([0_u8; 32]));
        let mut key = key;
        getrandom::fill(&mut key[..]).unwrap();
        let mut masked: Vec<Vec<u8>> = halves_masked(&key[..]);
        // HMAC's padded keys are as good as the key (RFC 2104: ipad, opad).
        for pad in [0x36, 0x5C] {
            masked.extend(halves_masked(&key[..]).into_iter().map(|half| half.iter().map(|byte| byte ^ pad).collect()));
        }
        clear();
        let derived = black_box(work(&key));
        let mut memory = vec![0; WINDOW];
        let here = std::ptr::from_ref(&memory) as usize;
        // The frame of this closure is above; what `work` used lies below `here`.
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut memory, (here - WINDOW) as u64).unwrap();
        masked.extend(halves_masked(&derived));
        let is = |window: &[u8], half: &[u8]| window.iter().zip(half).all(|(byte, masked)| byte ^ MASK == *masked);
        memory.windows(16).filter(|window| masked.iter().any(|half| is(window, half))).count()
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(searching).unwrap().join().unwrap()
}

fn halves_masked(secret: &[u8]) -> Vec<Vec<u8>> {
    secret.chunks_exact(16).take(2).map(|half| half.iter().map(|byte| byte ^ MASK).collect()).collect()
}

/// Overwrites what making the key has left.
#[inline(never)]
fn clear() {
    black_box(&mut [0_u8; WINDOW]);
}

#[inline(never)]
fn copies_to_the_stack(key: &[u8; 32]) {
    black_box(&mut black_box([0; 512])[100..132]).copy_from_slice(key);
}

#[test]
fn the_search_finds_a_key_that_is_left_and_none_that_is_covered() {
    let left = copies_left(|key| {
        copies_to_the_stack(key);
        vec![]
    });
    assert!(left >= 2, "both halves, found {left}");
    let covered = copies_left(|key| {
        stack::wiped(2, || copies_to_the_stack(key));
        vec![]
    });
    assert_eq!(covered, 0);
}

#[test]
fn no_copy_and_no_hash_of_a_secret_leaves_it_on_the_stack() {
    let copied = copies_left(|key| {
        let copy = copy_of_secret(key);
        drop((copy_of_secret(copy.expose()), copy));
        vec![]
    });
    let hashed = copies_left(|key| {
        black_box(sha256_of_secret(&[b"id", key, b"more"]));
        black_box(sha256_of_secret(&[&[7; 300], key]));
        vec![]
    });
    assert_eq!((copied, hashed), (0, 0));
}

fn no_aead_leaves_a_key_on_the_stack<B: Backend>() {
    for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
        for len in [0, 100, 600, 5000, 70_000] {
            let left = copies_left(move |key| {
                let aead = B::aead(algorithm, key);
                let (mut sealed, mut out) = (vec![0; len + 16], vec![0; len]);
                aead.seal_in_place(&[1; 12], b"aad", &mut sealed).unwrap();
                aead.open_to(&[1; 12], b"aad", &sealed, &mut out).unwrap();
                aead.seal_to(&[1; 12], b"aad", &out, &mut sealed).unwrap();
                aead.open_in_place(&[1; 12], b"aad", &mut sealed).unwrap();
                vec![]
            });
            assert_eq!(left, 0, "{} {algorithm:?} {len}", B::NAME);
        }
    }
}

fn no_derivation_leaves_a_key_on_the_stack<B: Backend>() {
    for hash in SHA2 {
        let prepared = copies_left(move |key| {
            let mut out = vec![0; 32];
            Hkdf::<B>::new(hash, key).expand(&[b"info"], &mut out).unwrap();
            out
        });
        let once = copies_left(move |key| {
            let mut out = vec![0; 32];
            expand_once::<B>(hash, key, &[b"info"], &mut out).unwrap();
            out
        });
        let hmac = copies_left(move |key| {
            let mut out = vec![0; 32];
            hmac_once::<B>(hash, key, &[b"data"], &mut out);
            out
        });
        let each = copies_left(move |key| {
            let (mut first, mut second) = (vec![0; 32], vec![0; 48]);
            expand_each_once::<B>(hash, key, &mut [(&[b"info"], &mut first), (&[b"more"], &mut second)]).unwrap();
            second
        });
        let aead = copies_left(move |key| {
            let mut derived = vec![0; 32];
            expand_once::<B>(hash, key, &[b"info"], &mut derived).unwrap();
            aead_once::<B, B>(hash, key, &[b"info"], AeadAlgorithm::Aes256Gcm).unwrap();
            derived
        });
        let chains = [false, true].map(|prepared| {
            copies_left(move |key| {
                let (mut first, mut second, mut derived) = (vec![0; 32], vec![0; 48], vec![0; 32]);
                let algorithm = AeadAlgorithm::Aes256Gcm;
                let chain = Chain {
                    first: (&[b"info"], &mut first),
                    second: (&[b"more"], &mut second),
                    info: &[b"last"],
                    algorithm,
                };
                if prepared {
                    Hkdf::<B>::new(hash, key).chain::<B>(chain).unwrap();
                } else {
                    chain_once::<B, B>(hash, key, chain).unwrap();
                }
                expand_once::<B>(hash, &second, &[b"last"], &mut derived).unwrap();
                derived
            })
        });
        assert_eq!((prepared, once, hmac, each, aead), (0, 0, 0, 0, 0), "{} {hash:?}", B::NAME);
        assert_eq!(chains, [0, 0], "{} {hash:?}", B::NAME);
    }
}

/// Neither the key, nor what CMAC makes of it, nor the key of one nonce.
fn no_extended_nonce_leaves_a_key_on_the_stack<B: Backend>() {
    for len in [0, 100, 5_000] {
        let left = copies_left(move |key| {
            let xaes = Xaes::<B, B>::new(key);
            let (mut sealed, mut out) = (vec![0; len + 16], vec![0; len]);
            xaes.seal_to(&[1; 24], b"aad", &out, &mut sealed).unwrap();
            xaes.open_to(&[1; 24], b"aad", &sealed, &mut out).unwrap();
            vec![]
        });
        let derived = copies_left(move |key| {
            let derived = derived_key(key);
            Xaes::<B, B>::new(key).seal_to(&[1; 24], b"aad", &vec![0; len], &mut vec![0; len + 16]).unwrap();
            derived
        });
        assert_eq!((left, derived), (0, 0), "{} {len}", B::NAME);
    }
}

/// XAES-256-GCM's key under `key` for a nonce of ones, computed where its traces are overwritten.
fn derived_key(key: &[u8; 32]) -> Vec<u8> {
    stack::wiped(16, || {
        let aes = Aes256Enc::new(key.into());
        let mut block = Block::default();
        aes.encrypt_block(&mut block);
        let subkey = u128::from_be_bytes(block.into());
        let subkey = (subkey << 1) ^ if subkey >> 127 == 1 { 0x87 } else { 0 };
        let half = |counter: u128| {
            let message = (counter << 112) | (u128::from(b'X') << 104) | 0x0101_0101_0101_0101_0101_0101;
            let mut block = Block::from((message ^ subkey).to_be_bytes());
            aes.encrypt_block(&mut block);
            block
        };
        [half(1), half(2)].concat()
    })
}

#[test]
fn no_passphrase_hash_is_left_on_the_stack() {
    let left = copies_left(|key| {
        let mut out = vec![0; 48];
        password::argon2id(key, &[0; 16], 64, 1, 1, &mut out).unwrap();
        out
    });
    assert_eq!(left, 0);
}
