//! What the keys of a body commit to, and what a segment is bound to. Known answers and the meeting
//! with another implementation stand in files of their own.

mod examples;
mod foreign;
mod known_answers;

use super::*;
use crate::error::ErrorKind;
use crate::material::DataKeyLength;
use std::io::Write as _;

const IV: [u8; 32] = [0x1F; 32];
const AAD: &[u8] = b"core and unstored entries";
const SEGMENT_IV: [u8; 12] = [7; 12];
const SEGMENT_LEN: u32 = 64;
const PLAIN: usize = 32;

/// Prints a count that is to be seen when the test passes, too.
pub(super) fn say(line: std::fmt::Arguments<'_>) {
    // Not `eprintln!`, which the harness swallows too.
    std::io::stderr().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(super) fn data_key(byte: u8) -> DataKey {
    DataKey::from_slice(&[byte; 32]).unwrap()
}

fn floe() -> Floe {
    Floe::create_with_iv(&data_key(1), AeadAlgorithm::Aes256Gcm, SEGMENT_LEN, AAD.to_vec(), IV).unwrap()
}

/// The same body, with segment keys that change sooner.
fn rotating(rotation_bits: u32) -> Floe {
    let header = *floe().header();
    Floe::open_rotating((&data_key(1)).into(), &header, AAD.to_vec(), rotation_bits).unwrap().unwrap()
}

fn opens(key: &DataKey, header: &FloeHeader, aad: &[u8]) -> bool {
    Floe::open(key, header, aad.to_vec()).unwrap().is_some()
}

#[test]
fn a_prepared_key_makes_and_opens_the_same_body() {
    let prepared = crypto::hkdf_sha384(data_key(1).expose());
    let made = Floe::create_with_iv(&prepared, AeadAlgorithm::Aes256Gcm, SEGMENT_LEN, AAD.to_vec(), IV).unwrap();
    assert_eq!(made.header(), floe().header());
    let last = Position { index: 0, last: true };
    assert_eq!(seal(&made, last, b"one"), seal(&floe(), last, b"one"));
    assert!(Floe::open(&prepared, floe().header(), AAD.to_vec()).unwrap().is_some());
    assert!(Floe::open(&prepared, floe().header(), b"other".to_vec()).unwrap().is_none());
    let other = crypto::hkdf_sha384(data_key(2).expose());
    assert!(Floe::open(&other, floe().header(), AAD.to_vec()).unwrap().is_none());
}

fn seal(floe: &Floe, at: Position, plaintext: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; plaintext.len() + OVERHEAD as usize];
    floe.seal_to(at, &SEGMENT_IV, plaintext, &mut segment).unwrap();
    let mut in_place = vec![0; segment.len()];
    in_place[floe.plaintext_at()..][..plaintext.len()].copy_from_slice(plaintext);
    floe.seal_in_place(at, &SEGMENT_IV, &mut in_place).unwrap();
    assert_eq!(segment, in_place, "both ways to seal give the same bytes");
    segment
}

/// Opens both ways. What fails must leave no byte behind.
pub(super) fn open(floe: &Floe, at: Position, segment: &[u8]) -> Result<Vec<u8>> {
    let mut plaintext = vec![0xEE; segment.len().saturating_sub(OVERHEAD as usize)];
    let opened = floe.open_to(at, segment, &mut plaintext);
    let mut in_place = segment.to_vec();
    let opened_in_place = floe.open_in_place(at, &mut in_place);
    match (&opened, opened_in_place) {
        (Ok(()), Ok(())) => assert_eq!(&in_place[floe.plaintext_at()..][..plaintext.len()], plaintext),
        (Err(one), Err(other)) => {
            assert_eq!(one.kind(), other.kind());
            assert_eq!(one.segment(), Some(at.index));
            assert!(plaintext.iter().chain(&in_place).all(|&byte| byte == 0), "the buffer of {at:?} is not wiped");
        }
        (one, other) => panic!("the two ways to open differ: {one:?}, {other:?}"),
    }
    opened.map(|()| plaintext)
}

fn middle(index: u64) -> Position {
    Position { index, last: false }
}

fn last(index: u64) -> Position {
    Position { index, last: true }
}

/// The derivation as the format writes it down, over one buffer.
fn kdf(key: &[u8], header: &FloeHeader, purpose: &[u8], len: usize) -> Vec<u8> {
    let bytes = header.encode();
    let info = [&bytes[..PARAMETERS_LEN + IV_LEN], purpose, AAD].concat();
    let mut out = vec![0; len];
    crypto::hkdf_expand_sha384(key, &[&info], &mut out).unwrap();
    out
}

#[test]
fn keys_are_derived_under_the_labels_of_the_format() {
    let floe = floe();
    let key = data_key(1);
    assert_eq!(floe.header.tag.as_slice(), kdf(key.expose(), &floe.header, b"HEADER_TAG:", 32));
    let message_key = kdf(key.expose(), &floe.header, b"MESSAGE_KEY:", 48);
    assert_eq!(floe.message_key.expose().as_slice(), message_key);

    let purpose = [b"DEK:".as_slice(), &(5_u64 << 20).to_be_bytes()].concat();
    let segment_key: [u8; 32] = kdf(&message_key, &floe.header, &purpose, 32).try_into().unwrap();
    let at = middle((5 << 20) + 77);
    let mut expected = vec![0; PLAIN + TAG_LEN];
    let aad = [&at.index.to_be_bytes()[..], &[0]].concat();
    let aead = crypto::aead(AeadAlgorithm::Aes256Gcm, &segment_key);
    aead.seal_to(&SEGMENT_IV, &aad, &[9; PLAIN], &mut expected).unwrap();
    let sealed = seal(&floe, at, &[9; PLAIN]);
    assert_eq!(sealed[..4], [0xFF; 4]);
    assert_eq!(sealed[4..16], SEGMENT_IV);
    assert_eq!(sealed[16..], expected);
}

#[test]
fn the_header_tag_commits_to_each_bit_of_key_parameters_iv_and_aad() {
    let header = *floe().header();
    assert!(opens(&data_key(1), &header, AAD));
    let mut tried = 0;
    for bit in 0..256 {
        let mut key = [1; 32];
        key[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&DataKey::from_slice(&key).unwrap(), &header, AAD), "bit {bit} of the key");
        tried += 1;
    }
    for bit in 0..AAD.len() * 8 {
        let mut aad = AAD.to_vec();
        aad[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&data_key(1), &header, &aad), "bit {bit} of the AAD");
        tried += 1;
    }
    let (mut rejected, mut refused) = (0, 0);
    for bit in 0..FLOE_HEADER_LEN * 8 {
        let mut bytes = header.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match FloeHeader::parse(&bytes, SEGMENT_LEN_MAX) {
            Ok(changed) => {
                assert!(!opens(&data_key(1), &changed.unwrap(), AAD), "bit {bit} of the header");
                rejected += 1;
            }
            Err(error) => {
                assert!(bit < PARAMETERS_LEN * 8, "bit {bit}: {error}");
                refused += 1;
            }
        }
    }
    assert!(rejected >= 512 && refused > 16, "{rejected} rejected by the tag, {refused} by the parser");
    for aad in [&AAD[1..], &AAD[..AAD.len() - 1], &[], &[AAD, &[0]].concat()] {
        assert!(!opens(&data_key(1), &header, aad));
        tried += 1;
    }
    let other = FloeHeader { aead: AeadAlgorithm::ChaCha20Poly1305, ..header };
    assert!(!opens(&data_key(1), &other, AAD));
    say(format_args!("header tag: {} changes rejected, {refused} refused by the parser", tried + rejected + 1));
}

#[test]
fn a_header_parses_to_what_it_was_and_asks_for_more_at_every_cut() {
    let header = *floe().header();
    let bytes = header.encode();
    assert_eq!(FloeHeader::parse(&bytes, SEGMENT_LEN_MAX).unwrap(), Some(header));
    for len in 0..bytes.len() {
        assert_eq!(FloeHeader::parse(&bytes[..len], SEGMENT_LEN_MAX).unwrap(), None, "{len} bytes");
    }
}

#[test]
fn segment_lengths_outside_the_limits_are_refused_both_ways() {
    let parse = |len: u32, most| {
        let mut bytes = floe().header().encode();
        bytes[2..6].copy_from_slice(&len.to_be_bytes());
        FloeHeader::parse(&bytes, most).map(|_| ()).map_err(|error| error.kind())
    };
    for len in [0, 32, 33, 63] {
        assert_eq!(parse(len, SEGMENT_LEN_MAX), Err(ErrorKind::Malformed), "{len}");
    }
    for len in [64, 65, 16 << 20] {
        assert_eq!(parse(len, SEGMENT_LEN_MAX), Ok(()), "{len}");
    }
    for len in [(16 << 20) + 1, 1 << 31, u32::MAX] {
        assert_eq!(parse(len, u32::MAX), Err(ErrorKind::LimitExceeded), "{len}");
    }
    assert_eq!(parse(4_096, 4_096), Ok(()));
    assert_eq!(parse(4_097, 4_096), Err(ErrorKind::LimitExceeded));
    for len in [0, 63, (16 << 20) + 1, u32::MAX] {
        let made = Floe::create(&data_key(1), AeadAlgorithm::Aes256Gcm, len, Vec::new());
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput, "{len}");
    }
}

#[test]
fn only_a_data_key_of_32_bytes_is_taken() {
    for length in [DataKeyLength::Bytes16, DataKeyLength::Bytes24] {
        let short = DataKey::try_init(length, |_| Ok::<_, Error>(())).unwrap();
        let made = Floe::create(&short, AeadAlgorithm::Aes256Gcm, SEGMENT_LEN, Vec::new());
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput);
        let opened = Floe::open(&short, floe().header(), AAD.to_vec());
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

/// Ciphertext without the tag: under one key and IV it depends on the plaintext only.
fn stream(floe: &Floe, index: u64) -> Vec<u8> {
    seal(floe, middle(index), &[0; PLAIN])[16..16 + PLAIN].to_vec()
}

#[test]
fn a_rotation_begins_a_new_key_and_serves_all_its_segments() {
    let floe = rotating(2);
    for rotation in 0..5_u64 {
        let first = stream(&floe, rotation * 4);
        for index in rotation * 4..rotation * 4 + 4 {
            assert_eq!(stream(&floe, index), first, "segment {index} is in rotation {rotation}");
        }
        for other in (0..5).filter(|&other| other != rotation) {
            assert_ne!(stream(&floe, other * 4), first, "rotations {rotation} and {other}");
        }
    }
}

#[test]
fn messages_rotate_after_two_to_the_twenty_segments() {
    let floe = floe();
    let (edge, end) = (1 << 20, (1 << 40) - 2);
    assert_eq!(stream(&floe, 0), stream(&floe, edge - 1));
    assert_ne!(stream(&floe, edge - 1), stream(&floe, edge));
    assert_eq!(stream(&floe, edge), stream(&floe, 2 * edge - 1));
    assert_ne!(stream(&floe, edge), stream(&floe, 2 * edge));
    // Back and forth: the key that is kept must be the key of the segment at hand.
    let (late, early) = (stream(&floe, end), stream(&floe, 3));
    assert_eq!([stream(&floe, end), stream(&floe, 0), stream(&floe, end)], [late.clone(), early, late]);
}

#[test]
fn threads_in_different_rotations_use_each_its_own_key() {
    let (shared, alone) = (rotating(2), rotating(2));
    let expected: Vec<_> = (0..40).map(|index| stream(&alone, index)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (shared, expected) = (&shared, &expected);
            scope.spawn(move || {
                for round in 0..200_usize {
                    let index = (round * 7 + thread * 11) % 40;
                    assert_eq!(stream(shared, index as u64), expected[index]);
                }
            });
        }
    });
}

#[test]
fn indices_end_where_the_format_ends() {
    let floe = floe();
    let most = 1 << 40;
    let mut segment = vec![0; SEGMENT_LEN as usize];
    for at in [middle(most - 2), last(most - 1), last(0)] {
        floe.seal_to(at, &SEGMENT_IV, &[3; PLAIN], &mut segment).unwrap();
        assert_eq!(open(&floe, at, &segment).unwrap(), [3; PLAIN], "{at:?}");
    }
    for at in [middle(most - 1), last(most), middle(most), last(u64::MAX), middle(u64::MAX)] {
        let sealed = floe.seal_to(at, &SEGMENT_IV, &[3; PLAIN], &mut segment);
        assert_eq!(sealed.unwrap_err().kind(), ErrorKind::LimitExceeded, "{at:?}");
        let sealed = floe.seal_in_place(at, &SEGMENT_IV, &mut segment.clone());
        assert_eq!(sealed.unwrap_err().kind(), ErrorKind::LimitExceeded, "{at:?}");
        // Bytes that would be right but for the limit: the raw primitives do not know it.
        let forged = forge(&floe, at, &[3; PLAIN]);
        assert_eq!(open(&floe, at, &forged).unwrap_err().kind(), ErrorKind::AuthenticationFailed, "{at:?}");
    }
}

/// A segment sealed past the checks of position and length.
fn forge(floe: &Floe, at: Position, plaintext: &[u8]) -> Vec<u8> {
    let len = plaintext.len() + OVERHEAD as usize;
    let prefix = if at.last { u32::try_from(len).unwrap() } else { NOT_FINAL };
    let mut segment = [&prefix.to_be_bytes()[..], &SEGMENT_IV, &vec![0; len - 16]].concat();
    let sealed = &mut segment[16..];
    floe.aead(at.index).unwrap().seal_to(&SEGMENT_IV, &associated(at), plaintext, sealed).unwrap();
    segment
}

#[test]
fn a_segment_opens_at_its_own_place_only() {
    let floe = floe();
    let sealed = seal(&floe, middle(1), &[5; PLAIN]);
    assert_eq!(open(&floe, middle(1), &sealed).unwrap(), [5; PLAIN]);
    for at in [middle(0), middle(2), middle(1 << 20), last(1), last(0), last(2)] {
        assert_eq!(open(&floe, at, &sealed).unwrap_err().kind(), ErrorKind::AuthenticationFailed, "{at:?}");
    }
}

#[test]
fn a_final_segment_is_no_other_and_the_other_way_round_even_with_the_prefix_made_to_fit() {
    let floe = floe();
    let full = SEGMENT_LEN.to_be_bytes();
    for (is, claims, prefix) in [(last(3), middle(3), [0xFF; 4]), (middle(3), last(3), full)] {
        let mut segment = seal(&floe, is, &[5; PLAIN]);
        assert_eq!(open(&floe, claims, &segment).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        segment[..4].copy_from_slice(&prefix);
        let peek = floe.peek(3, prefix).unwrap();
        assert_eq!(peek, Peek { at: claims, len: SEGMENT_LEN as usize });
        assert_eq!(open(&floe, claims, &segment).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
        // And at its own place with the other's prefix: the position decides, the prefix must agree.
        assert_eq!(open(&floe, is, &segment).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    }
}

#[test]
fn every_bit_of_a_segment_counts() {
    let floe = floe();
    for (at, len) in [(middle(0), PLAIN), (last(0), PLAIN), (last(2), 5), (last(0), 0)] {
        let sealed = seal(&floe, at, &vec![5; len]);
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = open(&floe, at, &changed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "bit {bit} of {at:?}");
        }
        for cut in 0..sealed.len() {
            let error = open(&floe, at, &sealed[..cut]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{cut} bytes of {at:?}");
        }
    }
}

#[test]
fn prefixes_that_no_segment_has_are_not_authentic() {
    let floe = floe();
    for len in (0..OVERHEAD).chain([SEGMENT_LEN + 1, 1 << 16, 1 << 31, NOT_FINAL - 1]) {
        let error = floe.peek(4, len.to_be_bytes()).unwrap_err();
        assert_eq!((error.kind(), error.segment()), (ErrorKind::AuthenticationFailed, Some(4)), "{len}");
    }
    for len in OVERHEAD..=SEGMENT_LEN {
        assert_eq!(floe.peek(4, len.to_be_bytes()).unwrap(), Peek { at: last(4), len: len as usize });
    }
}

#[test]
fn segments_of_a_length_that_their_place_forbids_are_not_sealed() {
    let floe = floe();
    for (at, len) in [(middle(0), 31), (middle(0), 33), (middle(0), 0), (last(0), 33)] {
        let mut segment = vec![0; len + OVERHEAD as usize];
        let sealed = floe.seal_to(at, &SEGMENT_IV, &vec![0; len], &mut segment);
        assert_eq!(sealed.unwrap_err().kind(), ErrorKind::InvalidInput, "{len} bytes at {at:?}");
    }
}

#[test]
fn two_messages_under_one_data_key_share_neither_iv_nor_keys() {
    let key = data_key(1);
    let make = |aead| Floe::create(&key, aead, SEGMENT_LEN, AAD.to_vec()).unwrap();
    let made: Vec<_> = (0..100).map(|_| make(AeadAlgorithm::Aes256Gcm)).collect();
    for (at, one) in made.iter().enumerate() {
        for other in &made[at + 1..] {
            assert_ne!(one.header.iv, other.header.iv);
            assert_ne!(one.header.tag, other.header.tag);
            assert!(one.message_key != other.message_key);
            assert_ne!(stream(one, 0), stream(other, 0));
        }
    }
    let segment = seal(&made[0], middle(0), &[5; PLAIN]);
    let error = open(&made[1], middle(0), &segment).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    // The AEAD is part of the parameters, so that no key serves two of them.
    let chacha = Floe::create_with_iv(&key, AeadAlgorithm::ChaCha20Poly1305, SEGMENT_LEN, AAD.to_vec(), IV).unwrap();
    assert!(chacha.message_key != floe().message_key);
    // Nor do two segment lengths share one.
    let longer = Floe::create_with_iv(&key, AeadAlgorithm::Aes256Gcm, 65, AAD.to_vec(), IV).unwrap();
    assert!(longer.message_key != floe().message_key);
}

#[test]
fn debug_prints_no_key() {
    let floe = floe();
    let text = format!("{floe:?}");
    let key = floe.message_key.expose()[..4].iter().map(|byte| format!("{byte}, ")).collect::<String>();
    assert!(!text.contains(key.trim_end_matches(", ")), "{text}");
    assert!(text.contains("Floe"), "{text}");
}
