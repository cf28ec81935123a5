//! The two backends against each other: the same bytes, from different implementations.

use crate::crypto::aws_lc::AwsLc;
use crate::crypto::backend::{Backend, Sha256Hasher};
use crate::crypto::hkdf::{expand_once, hmac_once};
use crate::crypto::rsa::{OAEP_MAX, RsaBackend, RsaPrivate};
use crate::crypto::rust_crypto::RustCrypto;
use crate::crypto::tests::SHA2;
use crate::crypto::{Aead, AeadAlgorithm};
use crate::error::ErrorKind;
use proptest::collection::vec;
use proptest::prelude::*;
use std::any::{TypeId, type_name};

/// Without this, every test below would pass if one backend called the other.
#[test]
fn the_two_backends_are_different_implementations() {
    assert_ne!(AwsLc::NAME, RustCrypto::NAME);
    assert_ne!(TypeId::of::<<AwsLc as Backend>::Aead>(), TypeId::of::<<RustCrypto as Backend>::Aead>());
    assert_ne!(TypeId::of::<<AwsLc as Backend>::Hmac>(), TypeId::of::<<RustCrypto as Backend>::Hmac>());
    let hashers = [type_name::<<AwsLc as Backend>::Sha256>(), type_name::<<RustCrypto as Backend>::Sha256>()];
    assert_ne!(hashers[0], hashers[1]);
    // The keys print the types of the crates that hold them.
    for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
        let aws_lc = format!("{:?}", AwsLc::aead(algorithm, &[0; 32]));
        let rust_crypto = format!("{:?}", RustCrypto::aead(algorithm, &[0; 32]));
        assert!(aws_lc.contains("LessSafeKey"), "{aws_lc}");
        assert!(rust_crypto.contains("AesGcm {") || rust_crypto.contains("ChaChaPoly1305 {"), "{rust_crypto}");
    }
}

fn lengths() -> impl Strategy<Value = usize> {
    // Around the block sizes, and into the range where the wide code paths work.
    prop_oneof![0..300_usize, 4000..4200_usize, 65_500..65_600_usize, 0..200_000_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_backend_opens_what_the_other_sealed(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; 12]>(),
        aad in vec(any::<u8>(), 0..100),
        len in lengths(),
        seed in any::<u8>(),
        flip in any::<prop::sample::Index>(),
        chacha in any::<bool>(),
    ) {
        let algorithm = if chacha { AeadAlgorithm::ChaCha20Poly1305 } else { AeadAlgorithm::Aes256Gcm };
        let plaintext: Vec<u8> = (0..len).map(|at| seed.wrapping_mul(31).wrapping_add(((at * 7) >> 3) as u8)).collect();
        let aws_lc = AwsLc::aead(algorithm, &key);
        let rust_crypto = RustCrypto::aead(algorithm, &key);
        let mut sealed: [Vec<u8>; 4] = std::array::from_fn(|_| [&plaintext[..], &[0; 16]].concat());
        aws_lc.seal_in_place(&nonce, &aad, &mut sealed[0]).unwrap();
        rust_crypto.seal_in_place(&nonce, &aad, &mut sealed[1]).unwrap();
        aws_lc.seal_to(&nonce, &aad, &plaintext, &mut sealed[2]).unwrap();
        rust_crypto.seal_to(&nonce, &aad, &plaintext, &mut sealed[3]).unwrap();
        prop_assert!(sealed.iter().all(|other| *other == sealed[0]));

        let [mut one, mut other, ..] = sealed;
        let damaged_at = flip.index(one.len());
        for opener in [&aws_lc as &dyn Aead, &rust_crypto] {
            let mut out = vec![0x55; len];
            opener.open_to(&nonce, &aad, &one, &mut out).unwrap();
            prop_assert_eq!(&out, &plaintext);
            let mut damaged = one.clone();
            damaged[damaged_at] ^= 1 << (seed % 8);
            let error = opener.open_to(&nonce, &aad, &damaged, &mut out).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
            prop_assert!(out.iter().all(|&byte| byte == 0));
            let error = opener.open_in_place(&nonce, &aad, &mut damaged).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
            prop_assert!(damaged.iter().all(|&byte| byte == 0));
        }
        aws_lc.open_in_place(&nonce, &aad, &mut one).unwrap();
        rust_crypto.open_in_place(&nonce, &aad, &mut other).unwrap();
        prop_assert_eq!(&one[..len], &plaintext[..]);
        prop_assert_eq!(&other[..len], &plaintext[..]);
    }

    #[test]
    fn both_backends_hash_and_derive_alike(
        key in vec(any::<u8>(), 0..300),
        data in vec(any::<u8>(), 0..1000),
        split in any::<prop::sample::Index>(),
        out_len in 0..2000_usize,
    ) {
        let (head, tail) = data.split_at(split.index(data.len() + 1));
        prop_assert_eq!(AwsLc::sha384(&[&data]), RustCrypto::sha384(&[head, tail]));
        prop_assert_eq!(sha256::<AwsLc>(&[head, tail]), sha256::<RustCrypto>(&[&data]));
        for hash in SHA2 {
            let (mut one, mut other) = (vec![0; hash.output_len()], vec![0; hash.output_len()]);
            hmac_once::<AwsLc>(hash, &key, &[&data], &mut one);
            hmac_once::<RustCrypto>(hash, &key, &[head, tail], &mut other);
            prop_assert_eq!(&one, &other);
            let (mut one, mut other) = (vec![0; out_len], vec![0; out_len]);
            expand_once::<AwsLc>(hash, &key, &[&data], &mut one).unwrap();
            expand_once::<RustCrypto>(hash, &key, &[head, tail], &mut other).unwrap();
            prop_assert_eq!(&one, &other);
        }
    }
}

/// Each takes the keys of the other, gives them the same forms, and opens what the other sealed.
#[test]
fn both_backends_do_the_same_rsa() {
    fn cross<A: RsaBackend, B: RsaBackend>() {
        let ours = A::generate().unwrap();
        let theirs = B::private(&ours.pkcs8().unwrap()).unwrap();
        assert_eq!(ours.pkcs8().unwrap(), theirs.pkcs8().unwrap());
        assert_eq!(ours.spki().unwrap(), theirs.spki().unwrap());
        let spki = ours.spki().unwrap().try_into().unwrap();
        for plaintext in [&[][..], &[7; 32], &[9; OAEP_MAX]] {
            for sealed in [A::encrypt(&spki, plaintext).unwrap(), B::encrypt(&spki, plaintext).unwrap()] {
                assert_eq!(ours.decrypt(&sealed).unwrap().as_slice(), plaintext);
                assert_eq!(theirs.decrypt(&sealed).unwrap().as_slice(), plaintext);
            }
        }
    }
    cross::<AwsLc, RustCrypto>();
    cross::<RustCrypto, AwsLc>();
    assert_ne!(type_name::<<AwsLc as RsaBackend>::Private>(), type_name::<<RustCrypto as RsaBackend>::Private>());
}

fn sha256<B: Backend>(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = B::Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish()
}
