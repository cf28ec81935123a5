//! The life of a key, its tags and its lists: what each operation does, answers, refuses and records.

use super::{DAY, Hands, Place, block_on, context, new_key};
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind};
use crate::kms::{
    CreateKeyRequest, DeletionWindow, KeyOrigin, KeyState, LocalKms, MultiRegionKeyType, Page, PageRequest,
    RotationPeriod, RotationType, Tag,
};
use std::time::{Duration, UNIX_EPOCH};

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.unwrap_err().code().unwrap()
}

fn state(kms: &LocalKms, key: &str) -> KeyState {
    block_on(kms.describe_key(key)).unwrap().key_state
}

fn seal(kms: &LocalKms, key: &str) -> Vec<u8> {
    block_on(kms.encrypt(key, b"old data", &context())).unwrap().ciphertext_blob
}

fn opens(kms: &LocalKms, blob: &[u8]) -> bool {
    block_on(kms.decrypt(blob, &context())).is_ok_and(|opened| opened.plaintext() == b"old data")
}

/// That the last record says so of the key.
#[track_caller]
fn recorded(place: &Place, name: &str, key: &str, code: &str) {
    assert_eq!(place.trail().last().unwrap(), &[name, "owner", key, code]);
}

#[test]
fn a_disabled_key_does_nothing_until_it_is_enabled_and_then_opens_what_it_encrypted() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let blob = seal(&kms, &key);
    assert!(block_on(kms.describe_key(&key)).unwrap().enabled);
    block_on(kms.disable_key(&key)).unwrap();
    recorded(&place, "DisableKey", &key, "");
    assert!(!block_on(kms.describe_key(&key)).unwrap().enabled);
    assert_eq!(code(block_on(kms.decrypt(&blob, &context()))), "DisabledException");
    recorded(&place, "Decrypt", &key, "DisabledException");
    assert_eq!(code(block_on(kms.encrypt(&key, b"x", &context()))), "DisabledException");
    assert_eq!(code(block_on(kms.rotate(&key))), "DisabledException");
    block_on(kms.disable_key(&key)).unwrap();
    assert_eq!(state(&place.open(), &key), KeyState::Disabled, "it is in the file");
    block_on(kms.enable_key(&key)).unwrap();
    recorded(&place, "EnableKey", &key, "");
    block_on(kms.enable_key(&key)).unwrap();
    assert!(opens(&kms, &blob));
    let unknown = "11111111-2222-4333-8444-555555555555";
    assert_eq!(code(block_on(kms.disable_key(unknown))), "NotFoundException");
    assert_eq!(code(block_on(kms.enable_key("x"))), "ValidationException");
}

#[test]
fn a_deletion_is_scheduled_refused_twice_and_cancelled() {
    let (place, hands) = (Place::new(), Hands::at(1_000 * DAY));
    let kms = place.open_at(&hands);
    let key = new_key(&kms);
    let blob = seal(&kms, &key);
    let window = DeletionWindow::from_days(7).unwrap();
    let answer = block_on(kms.schedule_key_deletion(&key, window)).unwrap();
    let date = UNIX_EPOCH + Duration::from_millis(1_007 * DAY);
    assert_eq!((answer.deletion_date, answer.key_state), (Some(date), KeyState::PendingDeletion));
    assert!(answer.pending_window_in_days == 7 && answer.key_id.ends_with(&key));
    recorded(&place, "ScheduleKeyDeletion", &key, "");
    let described = block_on(kms.describe_key(&key)).unwrap();
    assert_eq!((described.deletion_date, described.pending_deletion_window_in_days), (Some(date), Some(7)));
    for refused in [
        code(block_on(kms.schedule_key_deletion(&key, window))),
        code(block_on(kms.decrypt(&blob, &context()))),
        code(block_on(kms.enable_key(&key))),
        code(block_on(kms.tag_resource(&key, [Tag::new("a", "b")]))),
        code(block_on(kms.update_key_description(&key, "d"))),
        code(block_on(kms.create_alias("alias/a", &key))),
    ] {
        assert_eq!(refused, "KMSInvalidStateException");
    }
    assert_eq!(block_on(kms.cancel_key_deletion(&key)).unwrap().key_state, KeyState::Disabled);
    recorded(&place, "CancelKeyDeletion", &key, "");
    assert_eq!(block_on(kms.describe_key(&key)).unwrap().deletion_date, None);
    assert_eq!(code(block_on(kms.cancel_key_deletion(&key))), "KMSInvalidStateException");
    block_on(kms.enable_key(&key)).unwrap();
    hands.set(2_000 * DAY);
    assert!(opens(&kms, &blob), "nothing is left of the date");
    for days in [0, 6, 31] {
        assert_eq!(code(DeletionWindow::from_days(days)), "ValidationException");
    }
    assert_eq!(
        block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap().pending_window_in_days,
        30
    );
}

#[test]
fn a_managed_key_takes_no_operation_of_a_customers() {
    let place = Place::new();
    let kms = place.open();
    block_on(kms.encrypt("alias/envelock/default", b"x", &context())).unwrap();
    let name = "alias/envelock/default";
    for refused in [
        code(block_on(kms.disable_key(name))),
        code(block_on(kms.enable_key(name))),
        code(block_on(kms.schedule_key_deletion(name, DeletionWindow::default()))),
        code(block_on(kms.cancel_key_deletion(name))),
        code(block_on(kms.update_key_description(name, "d"))),
        code(block_on(kms.tag_resource(name, [Tag::new("a", "b")]))),
        code(block_on(kms.untag_resource(name, ["a"]))),
        code(block_on(kms.enable_key_rotation(name, RotationPeriod::default()))),
        code(block_on(kms.disable_key_rotation(name))),
    ] {
        assert_eq!(refused, "UnsupportedOperationException");
    }
    let status = block_on(kms.get_key_rotation_status(name)).unwrap();
    assert_eq!((status.key_rotation_enabled, status.rotation_period_in_days), (true, Some(365)));
}

#[test]
fn tags_are_put_replaced_listed_and_taken_within_awss_limits() {
    let place = Place::new();
    let kms = place.open();
    let request = CreateKeyRequest::default().tag(Tag::new("team", "billing")).tag(Tag::new("stage", ""));
    let key = block_on(kms.create_key(request)).unwrap().key_id;
    assert_eq!(block_on(kms.list_resource_tags(&key)).unwrap(), [Tag::new("stage", ""), Tag::new("team", "billing")]);
    block_on(kms.tag_resource(&key, [Tag::new("team", "sales"), Tag::new("a/b", "ä 1")])).unwrap();
    recorded(&place, "TagResource", &key, "");
    block_on(kms.untag_resource(&key, ["stage", "none"])).unwrap();
    recorded(&place, "UntagResource", &key, "");
    assert_eq!(block_on(kms.list_resource_tags(&key)).unwrap(), [Tag::new("a/b", "ä 1"), Tag::new("team", "sales")]);
    let put = |tags: Vec<Tag>| code(block_on(kms.tag_resource(&key, tags)));
    assert_eq!(put(vec![Tag::new("", "x")]), "ValidationException");
    assert_eq!(put(vec![Tag::new("k".repeat(129), "x")]), "ValidationException");
    assert_eq!(put(vec![Tag::new("k", "v".repeat(257))]), "ValidationException");
    assert_eq!(put(vec![Tag::new("k", "a\nb")]), "TagException");
    assert_eq!(put(vec![Tag::new("AWS:k", "x")]), "TagException");
    assert_eq!(put(vec![Tag::new("k", "1"), Tag::new("k", "2")]), "TagException");
    recorded(&place, "TagResource", &key, "TagException");
    let many = |count: usize| (0..count).map(|at| Tag::new(format!("t{at:02}"), "x")).collect::<Vec<_>>();
    assert_eq!(put(many(49)), "LimitExceededException");
    block_on(kms.tag_resource(&key, many(48))).unwrap();
    let longest = [Tag::new("t00", "v".repeat(256))];
    block_on(kms.tag_resource(&key, longest)).unwrap();
    let tags = block_on(kms.list_resource_tags(&key)).unwrap();
    assert_eq!(tags.len(), 50);
    let first = block_on(kms.list_resource_tags_page(&key, PageRequest::default().limit(30))).unwrap();
    let second = first.next_marker.clone().unwrap();
    let second = block_on(kms.list_resource_tags_page(&key, PageRequest::default().limit(30).after(second))).unwrap();
    assert!(first.truncated() && !second.truncated());
    assert_eq!([first.items, second.items].concat(), tags);
    let refused = CreateKeyRequest::default().tag(Tag::new("k", "a\nb"));
    assert_eq!(code(block_on(kms.create_key(refused))), "TagException");
    assert_eq!(block_on(kms.list_keys()).unwrap().len(), 1, "a refused call leaves nothing");
}

#[test]
fn lists_come_in_pages() {
    let place = Place::new();
    let kms = place.open();
    for number in 0..7 {
        let alias = format!("alias/k{number}");
        let key = block_on(kms.create_key(CreateKeyRequest::default().alias(alias))).unwrap().key_id;
        block_on(kms.create_alias(&format!("alias/other{number}"), &key)).unwrap();
    }
    fn walk<T>(mut page: impl FnMut(PageRequest) -> Result<Page<T>, Error>) -> Vec<T> {
        let (mut all, mut request) = (Vec::new(), PageRequest::default().limit(3));
        loop {
            let page = page(request.clone()).unwrap();
            all.extend(page.items);
            let Some(marker) = page.next_marker else { return all };
            request = request.after(marker);
        }
    }
    let keys = block_on(kms.list_keys()).unwrap();
    assert_eq!(walk(|page| block_on(kms.list_keys_page(page))), keys);
    assert_eq!(walk(|page| block_on(kms.list_aliases_page(page))), block_on(kms.list_aliases()).unwrap());
    let of_one: Vec<_> =
        block_on(kms.list_aliases_of("alias/k3")).unwrap().into_iter().map(|it| it.alias_name).collect();
    assert_eq!(of_one, ["alias/k3", "alias/other3"]);
    for _ in 0..7 {
        block_on(kms.rotate("alias/k3")).unwrap();
    }
    let rotations = block_on(kms.list_key_rotations("alias/k3")).unwrap();
    assert_eq!(rotations.iter().map(|it| it.version).collect::<Vec<_>>(), (2..=8).collect::<Vec<_>>());
    assert!(rotations.iter().all(|it| it.rotation_type == RotationType::OnDemand));
    assert_eq!(walk(|page| block_on(kms.list_key_rotations_page("alias/k3", page))), rotations);
    for bad in [PageRequest::default().limit(0), PageRequest::default().limit(1_001)] {
        assert_eq!(code(block_on(kms.list_keys_page(bad))), "ValidationException");
    }
    assert_eq!(code(block_on(kms.list_keys_page(PageRequest::default().after("x")))), "InvalidMarkerException");
    let other = kms.as_principal("billing").unwrap();
    assert_eq!(code(block_on(other.list_keys_page(PageRequest::default()))), "AccessDeniedException");
}

#[test]
fn a_description_is_changed_and_random_bytes_are_drawn() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    block_on(kms.update_key_description(&key, "of the orders")).unwrap();
    recorded(&place, "UpdateKeyDescription", &key, "");
    assert_eq!(block_on(kms.describe_key(&key)).unwrap().description, "of the orders");
    assert_eq!(code(block_on(kms.update_key_description(&key, &"d".repeat(8_193)))), "ValidationException");
    let drawn = block_on(kms.generate_random(1_024)).unwrap();
    recorded(&place, "GenerateRandom", "", "");
    assert!(drawn.plaintext().len() == 1_024 && drawn.plaintext().iter().any(|byte| *byte != drawn.plaintext()[0]));
    assert_ne!(
        block_on(kms.generate_random(32)).unwrap().plaintext(),
        block_on(kms.generate_random(32)).unwrap().plaintext()
    );
    assert!(!format!("{drawn:?}").contains(&format!("{}", drawn.plaintext()[0])));
    for count in [0, 1_025] {
        assert_eq!(code(block_on(kms.generate_random(count))), "ValidationException");
    }
    let other = kms.as_principal("billing").unwrap();
    assert_eq!(code(block_on(other.generate_random(1))), "AccessDeniedException");
    assert_eq!(code(kms.as_principal("envelock").map(drop)), "ValidationException");
}

#[test]
fn external_and_multi_region_keys_are_made_as_such() {
    let place = Place::new();
    let kms = place.open();
    let key = block_on(kms.create_key(CreateKeyRequest::default().external())).unwrap();
    assert_eq!((key.key_state, key.origin), (KeyState::PendingImport, KeyOrigin::External));
    assert_eq!((key.current_version, key.enabled), (0, false));
    for refused in [
        code(block_on(kms.encrypt(&key.key_id, b"x", &context()))),
        code(block_on(kms.rotate(&key.key_id))),
        code(block_on(kms.enable_key(&key.key_id))),
    ] {
        assert_eq!(refused, "KMSInvalidStateException");
    }
    assert_eq!(code(block_on(kms.get_key_rotation_status(&key.key_id))), "UnsupportedOperationException");
    assert!(block_on(kms.list_key_versions(&key.key_id)).unwrap().is_empty());
    block_on(kms.schedule_key_deletion(&key.key_id, DeletionWindow::default())).unwrap();
    assert_eq!(block_on(kms.cancel_key_deletion(&key.key_id)).unwrap().key_state, KeyState::PendingImport);
    let shared = block_on(kms.create_key(CreateKeyRequest::default().multi_region())).unwrap();
    assert!(shared.key_id.starts_with("mrk-") && shared.key_id.len() == 36);
    assert_eq!(shared.multi_region, Some(MultiRegionKeyType::Primary));
    assert_eq!(shared.primary_region.as_deref(), Some(kms.region()));
    assert!(opens(&place.open(), &seal(&kms, &shared.key_id)));
}

#[test]
fn a_context_is_changed_by_a_call_of_its_own_alone() {
    let place = Place::new();
    let kms = place.open();
    let (from, to) = (new_key(&kms), new_key(&kms));
    let blob = seal(&kms, &from);
    let other = EncryptionContext::from([("tenant", "other")]);
    let moved = block_on(kms.re_encrypt_with_context(&blob, &context(), &to, &other)).unwrap();
    let last = place.trail().pop().unwrap();
    assert_eq!(last, ["ReEncrypt", "owner", &to, ""]);
    assert_eq!(block_on(kms.decrypt_under(&to, &moved.ciphertext_blob, &other)).unwrap().plaintext(), b"old data");
    assert!(!opens(&kms, &moved.ciphertext_blob));
    let wrong = block_on(kms.re_encrypt_with_context(&blob, &other, &to, &other)).unwrap_err();
    assert_eq!((wrong.kind(), wrong.code()), (ErrorKind::AuthenticationFailed, Some("InvalidCiphertextException")));
    // Whoever may re-encrypt between the keys may not for that change the context.
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": "mover"}, "Action": "kms:ReEncrypt*", "Resource": "*"}]}"#;
    let policy = crate::kms::KeyPolicy::parse(policy).unwrap();
    for key in [&from, &to] {
        block_on(kms.put_key_policy(key, &policy)).unwrap();
    }
    let mover = kms.as_principal("mover").unwrap();
    block_on(mover.re_encrypt(&blob, &context(), &to)).unwrap();
    block_on(mover.re_encrypt_with_context(&blob, &context(), &to, &context())).unwrap();
    assert_eq!(code(block_on(mover.re_encrypt_with_context(&blob, &context(), &to, &other))), "AccessDeniedException");
}
