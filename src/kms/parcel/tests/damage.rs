//! Every file comes back, and every truncation, every flipped bit and every appended byte is a clear error.

use super::{
    address, confirmed, content, here, issue, material, private_key, public_key, realm, replication_key, there,
};
use crate::error::{Error, ErrorKind};
use crate::kms::parcel::bundle::{self, Bundle};
use crate::kms::parcel::content::{Content, VERSIONS_MAX};
use crate::kms::parcel::fingerprint::Sha256Fingerprint;
use crate::kms::parcel::frame::{Address, FILE_MAX, FileKind};
use crate::kms::parcel::letter::{self, Letter, News};
use crate::kms::parcel::replication_key::ReplicationKey;
use crate::kms::parcel::{FileDescription, ImportParameters, describe_file};
use proptest::collection::vec;
use proptest::prelude::*;

const KEY_ID: &str = super::KEY_ID;

fn a_bundle() -> Vec<u8> {
    bundle::make(&issue(7), &content(&[1, 2]), &confirmed()).unwrap().0
}

fn a_rotation() -> Vec<u8> {
    letter::make_rotation(&issue(8), &content(&[3]), &confirmed(), &material(1)).unwrap()
}

fn a_receipt() -> Vec<u8> {
    letter::make_deletion_receipt(&address(9), &material(1)).unwrap()
}

fn a_change() -> Vec<u8> {
    letter::make_primary_change(&address(10), &realm(0x33, "local"), &material(1)).unwrap()
}

fn open_letter(file: &[u8]) -> Result<(Address, News), Error> {
    Letter::parse(file)?.open(&material(1), &here(), &private_key())
}

/// What parsing may say of bytes that were damaged.
fn is_clear(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::Malformed
            | Kind::Unsupported
            | Kind::Truncated
            | Kind::TrailingData
            | Kind::LimitExceeded
            | Kind::InvalidInput
            | Kind::AuthenticationFailed
    )
}

/// Every truncation and every flipped bit of `file` is an error of `open`, and none makes `describe_file` panic.
fn is_refused_when_damaged<T: std::fmt::Debug>(file: &[u8], open: impl Fn(&[u8]) -> Result<T, Error>) {
    open(file).unwrap();
    for len in 0..file.len() {
        let kind = open(&file[..len]).unwrap_err().kind();
        assert!(is_clear(kind), "cut to {len}: {kind:?}");
        describe_file(&file[..len]).unwrap_err();
    }
    let more = [file, b"\0"].concat();
    assert!(is_clear(open(&more).unwrap_err().kind()));
    assert_eq!(describe_file(&more).unwrap_err().kind(), ErrorKind::TrailingData);
    for bit in 0..8 * file.len() {
        let mut flipped = file.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = open(&flipped).unwrap_err();
        assert!(is_clear(error.kind()), "bit {bit}: {error}");
        assert!(error.to_string().contains(';'), "what to do: {error}");
        if let Err(error) = describe_file(&flipped) {
            assert!(is_clear(error.kind()), "bit {bit}: {error}");
        }
    }
}

#[test]
fn a_bundle_comes_back_under_its_hash_and_every_damage_is_refused() {
    let (file, hash) = bundle::make(&issue(7), &content(&[1, 2]), &confirmed()).unwrap();
    let (from, opened) = bundle::open(&file, &hash, &here(), &private_key()).unwrap();
    assert_eq!((from, opened), (address(7), content(&[1, 2])));
    assert_eq!(describe_file(&file).unwrap().sha256, hash);
    // The hash is compared before anything else.
    is_refused_when_damaged(&file, |file| match bundle::open(file, &hash, &here(), &private_key()) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
            Err(error)
        }
        opened => opened,
    });
}

#[test]
fn a_bundle_whose_hash_somebody_made_anew_is_refused_all_the_same() {
    let file = a_bundle();
    let key = private_key();
    let open = |file: &[u8]| bundle::open(file, &Sha256Fingerprint::of(file), &here(), &key);
    open(&file).unwrap();
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(is_clear(open(&flipped).unwrap_err().kind()), "byte {at}");
        assert!(is_clear(open(&file[..at]).unwrap_err().kind()), "cut to {at}");
    }
}

#[test]
fn letters_come_back_and_every_damage_is_refused() {
    assert_eq!(open_letter(&a_rotation()).unwrap(), (address(8), News::Rotated(content(&[3]))));
    assert_eq!(open_letter(&a_receipt()).unwrap(), (address(9), News::Deleted));
    assert_eq!(open_letter(&a_change()).unwrap(), (address(10), News::PrimaryIs(realm(0x33, "local"))));
    for file in [a_rotation(), a_receipt(), a_change()] {
        is_refused_when_damaged(&file, open_letter);
    }
}

#[test]
fn a_letter_of_another_key_or_for_another_keystore_is_refused() {
    for file in [a_rotation(), a_receipt(), a_change()] {
        let error = Letter::parse(&file).unwrap().open(&material(2), &here(), &private_key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
        for elsewhere in [there(), realm(0x22, "eu-west-2"), realm(0x23, "eu-west-1")] {
            let error = Letter::parse(&file).unwrap().open(&material(1), &elsewhere, &private_key()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        let error = bundle::open(&file, &Sha256Fingerprint::of(&file), &here(), &private_key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "no bundle");
    }
    let (file, hash) = bundle::make(&issue(1), &content(&[1]), &confirmed()).unwrap();
    let error = bundle::open(&file, &hash, &there(), &private_key()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(Letter::parse(&file).is_err_and(|error| error.kind() == ErrorKind::InvalidInput));
}

#[test]
fn a_replication_key_comes_back_and_is_used_under_its_fingerprint_only() {
    let file = replication_key().encode().unwrap();
    assert_eq!(ReplicationKey::parse(&file).unwrap(), replication_key());
    is_refused_when_damaged(&file, ReplicationKey::parse);
    let other = Sha256Fingerprint::of(b"another key");
    assert_eq!(replication_key().confirm(&other).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    let description = describe_file(&file).unwrap();
    assert_eq!(description.public_key, Some(Sha256Fingerprint::of(public_key().spki())));
    assert_eq!(description.issuer.unwrap(), here().to_string());
}

#[test]
fn a_description_names_what_people_ask_for() {
    let FileDescription { kind, key_id, issuer, target, primary, serial, issued, .. } =
        describe_file(&a_change()).unwrap();
    assert_eq!(
        (kind, kind.name(), kind.to_string().as_str()),
        (FileKind::PrimaryChange, "primary-change", kind.name())
    );
    assert_eq!(key_id.unwrap(), KEY_ID);
    assert_eq!(issuer.unwrap(), "envelock:us-east-1:11111111-1111-1111-1111-111111111111");
    assert_eq!(target.unwrap(), "envelock:eu-west-1:22222222-2222-2222-2222-222222222222");
    assert_eq!(primary.unwrap(), "envelock:local:33333333-3333-3333-3333-333333333333");
    assert_eq!(serial, Some(10));
    assert_eq!(issued.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(), 1_700_000_000_000);
    for (file, kind) in [
        (a_bundle(), FileKind::ReplicaBundle),
        (a_rotation(), FileKind::Rotation),
        (a_receipt(), FileKind::DeletionReceipt),
    ] {
        assert_eq!(describe_file(&file).unwrap().kind, kind);
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let invalid =
        |issue: &bundle::Issue, content: &Content| bundle::make(issue, content, &confirmed()).unwrap_err().kind();
    let mut to_itself = issue(1);
    to_itself.issuer = here();
    let mut no_mrk = issue(1);
    no_mrk.key_id = "11111111-1111-1111-1111-111111111111".to_owned();
    for issue in [to_itself, no_mrk, issue(0)] {
        assert_eq!(invalid(&issue, &content(&[1])), ErrorKind::InvalidInput);
    }
    for versions in [&[][..], &[2], &[1, 1], &[1, 3, 2], &[0, 1]] {
        assert_eq!(invalid(&issue(1), &content(versions)), ErrorKind::InvalidInput, "{versions:?}");
    }
    for days in [0, 89, 2_561] {
        assert_eq!(
            invalid(&issue(1), &Content { rotation_days: Some(days), ..content(&[1]) }),
            ErrorKind::InvalidInput
        );
    }
    let long = Content { description: "x".repeat(8_193), ..content(&[1]) };
    assert_eq!(invalid(&issue(1), &long), ErrorKind::InvalidInput);
    let count = u32::try_from(VERSIONS_MAX).unwrap();
    let most: Vec<u32> = (1..=count).collect();
    // As long as a file can be: it comes back.
    let longest = Content { description: "\u{1f511}".repeat(8_192), ..content(&most) };
    let (file, hash) = bundle::make(&issue(1), &longest, &confirmed()).unwrap();
    assert!(file.len() <= FILE_MAX, "{}", file.len());
    assert_eq!(bundle::open(&file, &hash, &here(), &private_key()).unwrap().1, longest);
    let more: Vec<u32> = (1..=count + 1).collect();
    assert_eq!(invalid(&issue(1), &content(&more)), ErrorKind::LimitExceeded);
    let own = letter::make_primary_change(&address(1), &there(), &material(1));
    assert_eq!(own.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn other_versions_and_kinds_are_unsupported_and_too_much_is_above_a_limit() {
    let mut file = a_receipt();
    file[4] = 2;
    assert_eq!(describe_file(&file).unwrap_err().kind(), ErrorKind::Unsupported);
    file[4] = 1;
    file[5] = 7;
    assert_eq!(describe_file(&file).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(describe_file(b"ELK\x01").unwrap_err().kind(), ErrorKind::Malformed);
    assert_eq!(describe_file(b"EK").unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!(describe_file(&vec![0; FILE_MAX + 1]).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let printed = format!("{:?}", Bundle::parse(&a_bundle()).unwrap());
    assert!(printed.contains("Bundle"), "{printed}");
    assert!(!format!("{:?}", content(&[1])).contains("[1, 1"), "no byte of material is printed");
}

proptest! {
    #[test]
    fn any_bytes_are_a_content_or_a_clear_error(bytes in vec(any::<u8>(), 0..400)) {
        match Content::parse(&bytes) {
            Ok(content) => prop_assert_eq!(content.encode().unwrap().to_vec(), bytes),
            Err(error) => prop_assert!(is_clear(error.kind())),
        }
    }

    #[test]
    fn any_bytes_after_a_beginning_are_a_file_or_a_clear_error(kind in 0..8_u8, bytes in vec(any::<u8>(), 0..900)) {
        let file = [b"EKMS\x01", &[kind][..], &bytes].concat();
        match describe_file(&file) {
            Ok(description) => prop_assert_eq!(description.sha256, Sha256Fingerprint::of(&file)),
            Err(error) => prop_assert!(is_clear(error.kind())),
        }
        prop_assert!(ImportParameters::parse(&file).is_err());
    }
}

#[test]
fn every_truncation_and_flip_of_a_content_is_a_clear_error_or_another_content() {
    let bytes = content(&[1, 2]).encode().unwrap();
    assert_eq!(Content::parse(&bytes).unwrap(), content(&[1, 2]));
    for len in 0..bytes.len() {
        assert_eq!(Content::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Truncated, "{len}");
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match Content::parse(&flipped) {
            Ok(other) => assert_ne!(other, content(&[1, 2])),
            Err(error) => assert!(is_clear(error.kind()), "bit {bit}: {error}"),
        }
    }
}
