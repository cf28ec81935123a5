//! Argon2id.

use crate::crypto::password::argon2id;
use crate::error::ErrorKind;

fn hash(passphrase: &[u8], salt: &[u8], memory_kib: u32, passes: u32, lanes: u32, len: usize) -> String {
    let mut out = vec![0; len];
    argon2id(passphrase, salt, memory_kib, passes, lanes, &mut out).unwrap();
    out.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// From the test suite of the reference implementation (phc-winner-argon2, src/test.c, version 0x13).
#[test]
fn argon2id_gives_the_reference_implementations_answers() {
    let cases = [
        (b"password", 65_536, 2, 1, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"),
        (b"password", 256, 2, 1, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
        (b"password", 256, 2, 2, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
    ];
    for (passphrase, memory_kib, passes, lanes, answer) in cases {
        assert_eq!(hash(passphrase, b"somesalt", memory_kib, passes, lanes, 32), answer);
    }
}

/// Made with OpenSSL's Argon2id (Python's cryptography 48), in the shape that passphrase slots use.
#[test]
fn argon2id_gives_openssls_answers_for_48_bytes_and_more() {
    let salt: Vec<u8> = (0..16).collect();
    assert_eq!(
        hash(b"passphrase", &salt, 65_536, 3, 4, 48),
        "ff1c9f7a9793b5b8e194b84bfb73568b080901e8e99ceeb546f369d87c170d854428a16eca397a36be3afb8a5e5e2e01"
    );
    assert_eq!(
        hash(b"", &[0xFF; 16], 40, 1, 5, 48),
        "ee9f97ba04a77c062339c7f8cb1e0c4bddccebf08bd9ffd48eba004c129d040ab593f544940fc135d22a2f2fefd413bc"
    );
    assert_eq!(
        hash("päss".as_bytes(), &salt, 100, 2, 3, 64),
        "df8ed2b4af480c3ed04af566f223928544fa8a45ab90d0fb6324a01d77486574\
         39ba0c2dd042b1dec933fd204876a0195b59fbc72173efe2a811f93e20416ae4"
    );
}

#[test]
fn argon2id_refuses_parameters_outside_its_definition() {
    let refused = [
        (31, 1, 4),
        (0, 1, 1),
        (8, 0, 1),
        (8, 1, 0),
        (u32::MAX, 1, u32::MAX),
        // 8 x lanes is 0 in 32 bits.
        (64, 1, 1 << 29),
    ];
    for (memory_kib, passes, lanes) in refused {
        let mut out = [0x55; 48];
        let error = argon2id(b"pw", &[0; 16], memory_kib, passes, lanes, &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{memory_kib} {passes} {lanes}");
        assert_eq!(out, [0x55; 48]);
    }
    let short_salt = argon2id(b"pw", &[0; 7], 8, 1, 1, &mut [0; 48]).unwrap_err();
    assert_eq!(short_salt.kind(), ErrorKind::InvalidInput);
    let short_out = argon2id(b"pw", &[0; 16], 8, 1, 1, &mut [0; 3]).unwrap_err();
    assert_eq!(short_out.kind(), ErrorKind::InvalidInput);
    argon2id(b"pw", &[0; 16], 32, 1, 4, &mut [0; 48]).unwrap();
}
