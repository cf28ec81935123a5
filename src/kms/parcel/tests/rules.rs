//! What a file may change of what a keystore knows.

use super::{KEY_ID, address, content, here, realm, there};
use crate::error::ErrorKind;
use crate::kms::key::MultiRegionKeyType;
use crate::kms::parcel::rules::{Family, check_new, check_serial, new_versions, version_not_here};

/// A primary key `there`, with replicas `here` and in a third keystore.
fn family() -> Family {
    let mut family = Family::alone(KEY_ID, there());
    family.replicate(&there(), &third()).unwrap();
    family.replicate(&there(), &here()).unwrap();
    family
}

fn third() -> crate::kms::key::Realm {
    realm(0x33, "ap-south-1")
}

#[test]
fn a_configuration_is_what_describe_key_says() {
    let alone = Family::alone(KEY_ID, there()).configuration(&there());
    assert_eq!(alone.multi_region_key_type, MultiRegionKeyType::Primary);
    assert_eq!(alone.primary_key.arn, there().full_name(KEY_ID));
    assert!(alone.replica_keys.is_empty());
    let family = family();
    let primary = family.configuration(&there());
    let regions: Vec<_> = primary.replica_keys.iter().map(|key| key.region.as_str()).collect();
    assert_eq!(regions, ["ap-south-1", "eu-west-1"], "by Region");
    let replica = family.configuration(&here());
    assert_eq!(replica.multi_region_key_type, MultiRegionKeyType::Replica);
    assert_eq!((replica.primary_key, replica.replica_keys), (primary.primary_key, primary.replica_keys));
    let made = Family::of_bundle(&address(1));
    assert_eq!((made.primary, made.replicas), (there(), vec![here()]));
}

#[test]
fn only_the_primary_key_is_replicated_and_once_in_each_region() {
    let mut family = family();
    let before = family.clone();
    family.replicate(&there(), &here()).unwrap();
    assert_eq!(family, before, "a bundle is made again for the same keystore");
    let error = family.replicate(&here(), &realm(0x44, "local")).unwrap_err();
    assert_eq!(error.code(), Some("UnsupportedOperationException"));
    for taken in [realm(0x44, "eu-west-1"), realm(0x44, "us-east-1"), there()] {
        let error = family.replicate(&there(), &taken).unwrap_err();
        assert_eq!(error.code(), Some("AlreadyExistsException"), "{taken}");
    }
    assert_eq!(family, before);
    assert!(family.check_primary(&there()).is_ok() && family.check_primary(&here()).is_err(), "rotation, say");
}

#[test]
fn the_old_primary_steps_down_before_it_can_say_so() {
    let (mut old, mut new, mut other) = (family(), family(), family());
    assert!(old.check_stepped_down(&there()).is_err(), "no file yet");
    let error = old.step_down(&there(), &realm(0x44, "local")).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NoMatchingKey, Some("NotFoundException")));
    assert!(old.step_down(&here(), &third()).is_err(), "a replica chooses nobody");
    old.step_down(&there(), &here()).unwrap();
    assert_eq!(*old.check_stepped_down(&there()).unwrap(), here());
    assert!(old.check_primary(&there()).is_err(), "there are never two");
    for keystore in [&mut new, &mut other] {
        assert!(keystore.primary_changed(&third(), &here()).is_err(), "only the primary's word counts");
        keystore.primary_changed(&there(), &here()).unwrap();
        assert!(keystore.primary_changed(&there(), &third()).is_err(), "and not the old one's");
        assert_eq!(*keystore, old);
    }
    assert!(new.check_primary(&here()).is_ok());
    assert_eq!(old.replicas, [third(), there()]);
}

#[test]
fn a_primary_key_goes_with_its_last_replica() {
    let mut family = family();
    assert!(!family.may_be_deleted());
    family.deleted(&here()).unwrap();
    assert_eq!(family.deleted(&here()).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(family.deleted(&there()).is_err(), "the primary key is no replica");
    assert!(!family.may_be_deleted());
    family.deleted(&third()).unwrap();
    assert!(family.may_be_deleted());
}

#[test]
fn a_file_is_taken_once_and_no_older_one_after_it() {
    assert!(check_serial(None, &address(1)).is_ok());
    assert!(check_serial(Some(3), &address(4)).is_ok());
    for serial in [1, 3] {
        assert_eq!(check_serial(Some(3), &address(serial)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(check_new(KEY_ID, None).is_ok());
    assert_eq!(check_new(KEY_ID, Some("Disabled")).unwrap_err().code(), Some("AlreadyExistsException"));
}

#[test]
fn a_rotation_adds_what_is_new_and_leaves_no_gap() {
    let numbers = |current, versions: &[u32]| {
        new_versions(current, &content(versions).versions).map(|it| it.iter().map(|it| it.version).collect::<Vec<_>>())
    };
    assert_eq!(numbers(2, &[3]).unwrap(), [3]);
    assert_eq!(numbers(2, &[1, 2, 3, 4]).unwrap(), [3, 4], "what is here is not replaced");
    for (current, versions) in [(2, &[4][..]), (2, &[3, 5]), (2, &[1, 2]), (3, &[3]), (u32::MAX, &[1])] {
        assert_eq!(numbers(current, versions).unwrap_err().kind(), ErrorKind::InvalidInput, "{current} {versions:?}");
    }
    let error = version_not_here(KEY_ID, 4).to_string();
    assert!(error.contains(&format!("version 4 of the key {KEY_ID} is not here: import the rotation")), "{error}");
}
