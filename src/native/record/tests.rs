//! What needs the insides of a record set: which check refuses what.

use super::*;
use crate::error::ErrorKind;
use crate::material::{DataKey, DataKeyLength};

fn keys(byte: u8, aad: &[u8]) -> RecordKey {
    let key = DataKey::try_init(DataKeyLength::Bytes32, |key| {
        key.fill(byte);
        Ok::<_, Error>(())
    });
    RecordKey::create(&key.unwrap(), aad).unwrap()
}

fn place(name: &str) -> AssociatedData {
    AssociatedData::from_bytes(name)
}

fn unseal(keys: &RecordKey, record: &[u8], place: &AssociatedData) -> Result<Vec<u8>, ErrorKind> {
    Record::parse(record).and_then(|record| keys.unseal(record, place)).map_err(|error| error.kind())
}

#[test]
fn tag_and_key_are_what_the_format_says() {
    let expand = |label: &[u8]| {
        let mut out = [0; 32];
        crypto::hkdf_expand_sha384(&[7; 32], &[label, b"core||unstored"], &mut out).unwrap();
        out
    };
    let keys = keys(7, b"core||unstored");
    assert_eq!(keys.tag, expand(b"envelock/v1 record set\0"));
    assert_eq!(keys.fingerprint.0, keys.tag[..16]);
    let record = keys.seal(&[9; 24], b"value", &place("here")).unwrap();
    let mut value = [0; 5];
    let xaes = crypto::xaes(&expand(b"envelock/v1 records\0"));
    xaes.open_to(&[9; 24], b"here", &record[41..], &mut value).unwrap();
    assert_eq!(
        (&value, &record[..1], &record[1..17], &record[17..41]),
        (b"value", &[0xE1][..], &keys.tag[..16], &[9; 24][..])
    );
}

/// "Two record sets with equal first 16 bytes cannot be made by a test": so the fingerprint is forced.
#[test]
fn with_a_planted_collision_of_fingerprints_the_tag_of_the_record_refuses() {
    let ours = keys(1, b"set");
    let record = ours.seal(&[0; 24], b"value", &place("here")).unwrap();
    assert_eq!(unseal(&ours, &record, &place("here")), Ok(b"value".to_vec()));
    for mut other in [keys(2, b"set"), keys(1, b"another set")] {
        // As they are, the fingerprint refuses, before anything is decrypted.
        assert_eq!(unseal(&other, &record, &place("here")), Err(ErrorKind::NoMatchingKey));
        other.fingerprint = ours.fingerprint;
        assert_eq!(unseal(&other, &record, &place("here")), Err(ErrorKind::AuthenticationFailed));
        // And such a set is not taken for the same one.
        other.tag[..16].copy_from_slice(&ours.tag[..16]);
        assert!(!other.is(&ours) && ours.is(&keys(1, b"set")));
    }
}

#[test]
fn the_fingerprint_is_judged_before_the_tag_and_after_the_length() {
    let keys = keys(1, b"set");
    let mut record = keys.seal(&[0; 24], b"value", &place("here")).unwrap();
    let last = record.len() - 1;
    record[last] ^= 1;
    assert_eq!(unseal(&keys, &record, &place("here")), Err(ErrorKind::AuthenticationFailed));
    record[1] ^= 1;
    assert_eq!(unseal(&keys, &record, &place("here")), Err(ErrorKind::NoMatchingKey));
    assert_eq!(unseal(&keys, &record[..56], &place("here")), Err(ErrorKind::Malformed));
}

#[test]
fn nothing_above_a_limit_is_sealed_or_opened() {
    let keys = keys(1, b"set");
    let most = vec![1; VALUE_MAX];
    let record = keys.seal(&[0; 24], &most, &place("")).unwrap();
    assert!(unseal(&keys, &record, &place("")).unwrap() == most);
    let refused = |value: &[u8], place: &AssociatedData| keys.seal(&[0; 24], value, place).unwrap_err().kind();
    assert_eq!(refused(&vec![1; VALUE_MAX + 1], &place("")), ErrorKind::LimitExceeded);
    assert_eq!(unseal(&keys, &[&record[..], &[0]].concat(), &place("")), Err(ErrorKind::LimitExceeded));
    let long = place(&"x".repeat(ASSOCIATED_MAX));
    let record = keys.seal(&[0; 24], b"value", &long).unwrap();
    assert_eq!(unseal(&keys, &record, &long), Ok(b"value".to_vec()));
    let longer = place(&"x".repeat(ASSOCIATED_MAX + 1));
    assert_eq!(refused(b"value", &longer), ErrorKind::LimitExceeded);
    assert_eq!(unseal(&keys, &record, &longer), Err(ErrorKind::LimitExceeded));
}

#[test]
fn a_data_key_of_another_length_makes_no_set() {
    for length in [DataKeyLength::Bytes16, DataKeyLength::Bytes24] {
        let key = DataKey::try_init(length, |_| Ok::<_, Error>(())).unwrap();
        assert_eq!(RecordKey::create(&key, b"").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn debug_prints_no_key_and_no_value() {
    let text = format!("{:?}", keys(0xAB, b"set"));
    assert!(text.starts_with("RecordKey { fingerprint: Fingerprint(") && text.ends_with(", .. }"), "{text}");
}
