//! FLOE known answers of the specification's C++, Go and Java implementations, which lie beside the
//! repository (`../shared/vectors/floe`) and not in it.

use crate::error::{Error, ErrorKind, Result};
use crate::material::DataKey;
use crate::native::floe::tests::{data_key, open, say};
use crate::native::floe::{FLOE_HEADER_LEN, Floe, FloeHeader, OVERHEAD, ROTATION_BITS};
use crate::native::header::SEGMENT_LEN_MAX;
use crate::segments::{Position, Segments};
use std::path::Path;

const AAD: &[u8] = b"This is AAD";
/// The shortest segment that carries a byte: for known answers only.
const SEGMENT_LEN_MIN: u32 = OVERHEAD + 1;

struct KnownAnswer {
    name: String,
    ciphertext: Vec<u8>,
    plaintext: Vec<u8>,
    rotation_bits: u32,
}

/// `None` where the folder `../shared` is not there.
fn known_answers() -> Option<Vec<KnownAnswer>> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !shared.is_dir() {
        say(format_args!("SKIPPED (exempt): ../shared is absent"));
        return None;
    }
    let folder = shared.join("vectors/floe");
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.strip_suffix("_ct.txt")?.to_owned())).collect();
    names.sort();
    let read = |name: String| unhex(&std::fs::read_to_string(folder.join(name)).unwrap());
    let answers = names.into_iter().map(|name| KnownAnswer {
        ciphertext: read(format!("{name}_ct.txt")),
        plaintext: read(format!("{name}_pt.txt")),
        rotation_bits: if name.ends_with("_rotation") { 2 } else { ROTATION_BITS },
        name,
    });
    Some(answers.collect())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_end().as_bytes();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A whole FLOE ciphertext; gives the plaintext and how many segments it had.
fn decrypt(key: &DataKey, aad: &[u8], bytes: &[u8], rotation_bits: u32) -> Result<(Vec<u8>, u64)> {
    let parsed = FloeHeader::parse_within(bytes, SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX)?;
    let header = parsed.ok_or_else(Error::truncated)?;
    let floe =
        Floe::open_rotating(key.into(), &header, aad.to_vec(), rotation_bits)?.ok_or_else(Error::authentication)?;
    let mut rest = &bytes[FLOE_HEADER_LEN..];
    let mut plaintext = Vec::new();
    for index in 0.. {
        let start = rest.first_chunk().ok_or_else(Error::truncated)?;
        let peek = floe.peek(index, *start)?;
        let (segment, later) = rest.split_at_checked(peek.len).ok_or_else(Error::truncated)?;
        plaintext.extend(open(&floe, peek.at, segment)?);
        // The segment at hand opens as no other.
        let elsewhere = Position { index: index + 1, ..peek.at };
        assert_eq!(open(&floe, elsewhere, segment).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        rest = later;
        if peek.at.last {
            if !rest.is_empty() {
                return Err(Error::trailing_data());
            }
            return Ok((plaintext, index + 1));
        }
    }
    unreachable!("the segments end before their numbers do")
}

#[test]
fn all_known_answers_decrypt() {
    let Some(answers) = known_answers() else { return };
    let mut segments = 0;
    for answer in &answers {
        let decrypted = decrypt(&data_key(0), AAD, &answer.ciphertext, answer.rotation_bits);
        let (plaintext, count) = decrypted.unwrap_or_else(|error| panic!("{}: {error}", answer.name));
        assert!(plaintext == answer.plaintext, "{}: another plaintext", answer.name);
        segments += count;
    }
    assert_eq!(answers.len(), 11, "the known answers in ../shared/vectors/floe");
    say(format_args!("FLOE known answers: {} decrypt, {segments} segments", answers.len()));
}

#[test]
fn known_answers_are_rejected_under_another_key_aad_or_rotation() {
    let Some(answers) = known_answers() else { return };
    let kind = |key: &DataKey, aad: &[u8], answer: &KnownAnswer, bits| {
        decrypt(key, aad, &answer.ciphertext, bits).unwrap_err().kind()
    };
    let mut rotations = 0;
    for answer in &answers {
        let (name, bits) = (&answer.name, answer.rotation_bits);
        assert_eq!(kind(&data_key(1), AAD, answer, bits), ErrorKind::AuthenticationFailed, "{name}");
        for aad in [b"".as_slice(), b"This is AA", b"This is AAD.", b"this is AAD"] {
            assert_eq!(kind(&data_key(0), aad, answer, bits), ErrorKind::AuthenticationFailed, "{name}");
        }
        if bits != ROTATION_BITS {
            rotations += 1;
            for bits in [ROTATION_BITS, 1, 3] {
                assert_eq!(kind(&data_key(0), AAD, answer, bits), ErrorKind::AuthenticationFailed, "{name}");
            }
        }
    }
    assert_eq!(rotations, 3, "known answers that rotate");
}

#[test]
fn every_truncation_of_a_known_answer_is_rejected() {
    let Some(answers) = known_answers() else { return };
    let mut tried = 0;
    for answer in &answers {
        for len in 0..answer.ciphertext.len() {
            let error = decrypt(&data_key(0), AAD, &answer.ciphertext[..len], answer.rotation_bits).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Truncated, "{} cut to {len} bytes", answer.name);
            tried += 1;
        }
        let longer = [answer.ciphertext.as_slice(), &[0]].concat();
        let error = decrypt(&data_key(0), AAD, &longer, answer.rotation_bits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TrailingData, "{}", answer.name);
    }
    say(format_args!("FLOE known answers: {tried} truncations rejected"));
}
