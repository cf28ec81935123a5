//! What the keystore does by itself, under a clock that the test sets.

use super::{DAY, Hands, Place, block_on, context};
use crate::context::EncryptionContext;
use crate::kms::records::{KeyRecord, Source, VersionRecord};
use crate::kms::schema::KEY_VERSIONS;
use crate::kms::{
    CreateKeyRequest, DeletionWindow, KeyState, KmsOptions, LocalKms, RootKey, RotationPeriod, RotationType, Tag,
};
use crate::provider::KeyProvider as _;
use crate::secret::Secret;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

const NOW: u64 = 20_000 * DAY;

fn customer(kms: &LocalKms) -> String {
    block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id
}

fn version(kms: &LocalKms, key: &str) -> u32 {
    block_on(kms.describe_key(key)).unwrap().current_version
}

fn state(kms: &LocalKms, key: &str) -> KeyState {
    block_on(kms.describe_key(key)).unwrap().key_state
}

/// How often the keystore did this by itself.
fn done(place: &Place, name: &str, key: &str) -> usize {
    place.trail().iter().filter(|record| *record == &[name, "envelock", key, ""]).count()
}

/// An imported key whose material expires then.
fn imported(kms: &LocalKms, expires_at: u64) -> String {
    let key = block_on(kms.create_key(CreateKeyRequest::default().external())).unwrap().key_id;
    let name = key.clone();
    block_on(kms.call(kms.asks("ImportKeyMaterial"), move |tx| {
        let mut key = KeyRecord::existing(tx, &name)?;
        let wrapped = Some(key.wrap(tx, 1, &Secret::init(|out: &mut [u8; 32]| out.fill(7)))?);
        let expires_at = i64::try_from(expires_at).ok();
        let (source, created_at) = (Source::Imported, tx.now);
        let record = VersionRecord { version: 1, wrapped, created_at, source, expires_at, sameness: None };
        tx.insert(&KEY_VERSIONS, record.to_row(&key.key_id))?;
        (key.state, key.current_version) = (KeyState::Enabled, 1);
        key.save(tx)
    }))
    .unwrap();
    key
}

#[test]
fn a_key_is_rotated_on_its_date_and_not_a_millisecond_before() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let key = customer(&kms);
    let blob = block_on(kms.encrypt(&key, b"old data", &context())).unwrap().ciphertext_blob;
    block_on(kms.enable_key_rotation(&key, RotationPeriod::from_days(90).unwrap())).unwrap();
    let status = block_on(kms.get_key_rotation_status(&key)).unwrap();
    assert_eq!((status.key_rotation_enabled, status.rotation_period_in_days), (true, Some(90)));
    hands.set(NOW + 90 * DAY - 1);
    assert_eq!(version(&kms, &key), 1);
    hands.set(NOW + 90 * DAY);
    assert_eq!(version(&kms, &key), 2);
    assert_eq!(done(&place, "RotateKey", &key), 1);
    // The same period again moves no date; nor does a rotation on demand.
    hands.set(NOW + 100 * DAY);
    block_on(kms.enable_key_rotation(&key, RotationPeriod::from_days(90).unwrap())).unwrap();
    block_on(kms.rotate(&key)).unwrap();
    hands.set(NOW + 180 * DAY - 1);
    assert_eq!(version(&kms, &key), 3);
    // Slept through three dates: one rotation, and the next on the next date.
    hands.set(NOW + 400 * DAY);
    assert_eq!(version(&kms, &key), 4);
    hands.set(NOW + 450 * DAY - 1);
    assert_eq!(version(&kms, &key), 4);
    // Another opening, after the date.
    drop(kms);
    hands.set(NOW + 450 * DAY);
    let kms = place.open_at(&hands);
    assert_eq!(version(&kms, &key), 5);
    let kinds: Vec<_> =
        block_on(kms.list_key_rotations(&key)).unwrap().iter().map(|rotation| rotation.rotation_type).collect();
    use RotationType::{Automatic, OnDemand};
    assert_eq!(kinds, [Automatic, OnDemand, Automatic, Automatic]);
    // A clock that goes back undoes nothing, and nothing is done twice when the date comes again.
    hands.set(NOW);
    assert_eq!(version(&kms, &key), 5);
    hands.set(NOW + 451 * DAY);
    assert_eq!((version(&kms, &key), done(&place, "RotateKey", &key)), (5, 3));
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"old data");
    block_on(kms.disable_key_rotation(&key)).unwrap();
    hands.set(NOW + 9_000 * DAY);
    assert_eq!(version(&kms, &key), 5);
    assert!(!block_on(kms.get_key_rotation_status(&key)).unwrap().key_rotation_enabled);
}

#[test]
fn a_key_that_is_disabled_on_its_date_is_rotated_when_it_is_enabled_again() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let key = customer(&kms);
    block_on(kms.enable_key_rotation(&key, RotationPeriod::default())).unwrap();
    block_on(kms.disable_key(&key)).unwrap();
    hands.set(NOW + 366 * DAY);
    assert_eq!(version(&kms, &key), 1);
    block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
    assert!(!block_on(kms.get_key_rotation_status(&key)).unwrap().key_rotation_enabled);
    block_on(kms.cancel_key_deletion(&key)).unwrap();
    assert!(block_on(kms.get_key_rotation_status(&key)).unwrap().key_rotation_enabled);
    block_on(kms.enable_key(&key)).unwrap();
    assert_eq!(version(&kms, &key), 2);
}

#[test]
fn a_managed_key_is_rotated_every_year() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let key = block_on(kms.describe_key("alias/envelock/default")).unwrap().key_id;
    for year in 1..=3 {
        hands.set(NOW + u64::from(year) * 365 * DAY - 1);
        assert_eq!(version(&kms, &key), year);
        hands.set(NOW + u64::from(year) * 365 * DAY);
        assert_eq!(version(&kms, &key), year + 1);
    }
    assert_eq!(done(&place, "RotateKey", &key), 3);
}

#[test]
fn a_deleted_key_is_gone_from_the_file_with_all_that_was_its() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let request = CreateKeyRequest::default().alias("alias/gone").tag(Tag::new("planted-tag", "x"));
    let key = block_on(kms.create_key(request)).unwrap().key_id;
    let kept = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/kept").tag(Tag::new("kept", "x"))));
    let kept = kept.unwrap().key_id;
    block_on(kms.rotate(&key)).unwrap();
    let blob = block_on(kms.encrypt(&key, b"lost", &context())).unwrap().ciphertext_blob;
    let sql = place.sql();
    let mut statement = sql.prepare("SELECT wrapped FROM key_versions WHERE key_id = ?").unwrap();
    let wrapped: Vec<Vec<u8>> = statement.query_map([&key], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(statement);
    drop(sql);
    let lies_in_a_file = |needle: &[u8]| {
        fs::read_dir(place.folder.path()).unwrap().any(|file| {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle)
        })
    };
    assert!(wrapped.len() == 2 && wrapped.iter().all(|wrapped| lies_in_a_file(wrapped)), "the search works");
    block_on(kms.schedule_key_deletion(&key, DeletionWindow::from_days(7).unwrap())).unwrap();
    hands.set(NOW + 7 * DAY - 1);
    assert_eq!(state(&kms, &key), KeyState::PendingDeletion);
    hands.set(NOW + 7 * DAY);
    let error = block_on(kms.decrypt(&blob, &context())).unwrap_err();
    assert_eq!(error.code(), Some("NotFoundException"));
    assert_eq!(done(&place, "DeleteKey", &key), 1);
    for wrapped in &wrapped {
        assert!(!lies_in_a_file(wrapped) && !lies_in_a_file(&wrapped[33..]) && !lies_in_a_file(&wrapped[..33]));
    }
    for (table, left) in [("keys", 1), ("key_versions", 1), ("aliases", 1), ("tags", 1)] {
        let count: i64 = place.sql().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(count, left, "{table}");
    }
    assert_eq!(block_on(kms.list_keys()).unwrap()[0].key_id, kept);
    // The clock goes back: it does not come back. And the name is free again.
    hands.set(NOW);
    assert_eq!(block_on(kms.describe_key(&key)).unwrap_err().code(), Some("NotFoundException"));
    block_on(kms.create_alias("alias/gone", &kept)).unwrap();
    block_on(place.open().list_keys()).unwrap();
}

#[test]
fn imported_material_is_gone_when_it_expires_and_the_key_waits_for_its_import() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let keys: Vec<_> = (0..3).map(|_| imported(&kms, NOW + 5_000)).collect();
    let blob = block_on(kms.encrypt(&keys[0], b"x", &context())).unwrap().ciphertext_blob;
    block_on(kms.disable_key(&keys[1])).unwrap();
    block_on(kms.schedule_key_deletion(&keys[2], DeletionWindow::default())).unwrap();
    let revocations = kms.provider(&keys[0]).unwrap().revocations().unwrap();
    let epoch = revocations.epoch();
    hands.set(NOW + 4_999);
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
    assert_eq!(revocations.epoch(), epoch);
    hands.set(NOW + 5_000);
    let error = block_on(kms.decrypt(&blob, &context())).unwrap_err();
    assert_eq!(error.code(), Some("KMSInvalidStateException"));
    assert_ne!(revocations.epoch(), epoch);
    assert_eq!(
        keys.iter().map(|key| state(&kms, key)).collect::<Vec<_>>(),
        [KeyState::PendingImport, KeyState::PendingImport, KeyState::PendingDeletion]
    );
    for key in &keys {
        assert_eq!(done(&place, "DeleteExpiredKeyMaterial", key), 1);
    }
    let left: i64 = place
        .sql()
        .query_row("SELECT count(*) FROM key_versions WHERE wrapped IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(block_on(kms.cancel_key_deletion(&keys[2])).unwrap().key_state, KeyState::PendingImport);
}

#[test]
fn what_is_due_is_done_while_nobody_calls_and_in_the_buffered_mode() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let delay = Duration::from_secs(60);
    let options = KmsOptions::default().clock(Arc::clone(&hands) as _).risk_losing_audit_records(delay);
    let kms = LocalKms::open_with(place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap();
    let key = customer(&kms);
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
    hands.set(NOW + 30 * DAY);
    let error = block_on(kms.decrypt(&blob, &EncryptionContext::new())).unwrap_err();
    assert_eq!(error.code(), Some("NotFoundException"));
    // A cache watches: the thread looks at the clock twice a second. Other programs may keep it from the processor,
    // though not each time.
    let reached = (31..36).any(|day| {
        let key = imported(&kms, NOW + day * DAY);
        let revocations = kms.provider(&key).unwrap().revocations().unwrap();
        let epoch = revocations.epoch();
        hands.set(NOW + day * DAY);
        let start = Instant::now();
        while revocations.epoch() == epoch {
            assert!(start.elapsed() < Duration::from_secs(60), "the expiry never reached a cache");
            thread::sleep(Duration::from_millis(5));
        }
        let took = start.elapsed();
        assert_eq!(done(&place, "DeleteExpiredKeyMaterial", &key), 1);
        took < Duration::from_secs(1)
    });
    assert!(reached, "the expiry reached no cache within a second");
}

#[test]
fn what_is_due_and_fails_is_recorded_and_tried_again_a_minute_later() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let kms = place.open_at(&hands);
    let (key, other) = (customer(&kms), customer(&kms));
    for key in [&key, &other] {
        block_on(kms.enable_key_rotation(key, RotationPeriod::from_days(90).unwrap())).unwrap();
    }
    // Somebody changes the file at the wrong moment, and undoes it.
    let change = |description: &str| {
        let statement = "UPDATE keys SET description = ?1 WHERE key_id = ?2";
        assert_eq!(place.sql().execute(statement, [description, &key]).unwrap(), 1);
    };
    change("forged");
    let tried = |code: &str| {
        place.trail().iter().filter(|it| it[0] == "RotateKey" && it[1] == "envelock" && it[3] == code).count()
    };
    let date = NOW + 90 * DAY;
    hands.set(date);
    assert_eq!(version(&kms, &other), 2, "one that fails holds up no other");
    assert_eq!((tried("KeystoreTampered"), tried("")), (1, 1));
    change("");
    hands.set(date + 59_999);
    assert_eq!(version(&kms, &key), 1);
    assert_eq!((tried("KeystoreTampered"), tried("")), (1, 1), "not at every call");
    hands.set(date + 60_000);
    assert_eq!(version(&kms, &key), 2);
    assert_eq!((tried("KeystoreTampered"), tried("")), (1, 2));
    hands.set(date + 90 * DAY);
    assert_eq!((version(&kms, &key), version(&kms, &other)), (3, 3), "on its own date again");
}

#[test]
fn what_is_due_while_nobody_calls_waits_for_another_writer_and_is_done_after_him() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let options = KmsOptions::default().clock(Arc::clone(&hands) as _).busy_timeout(Duration::from_millis(50));
    let kms = LocalKms::open_with(place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap();
    let key = imported(&kms, NOW + DAY);
    // A cache watches: the thread looks at the clock twice a second.
    let epoch = kms.provider(&key).unwrap().revocations().unwrap();
    let before = epoch.epoch();
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    hands.set(NOW + DAY);
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(epoch.epoch(), before, "he still writes");
    other.execute_batch("ROLLBACK").unwrap();
    let start = Instant::now();
    while done(&place, "DeleteExpiredKeyMaterial", &key) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "it was never tried again");
        thread::sleep(Duration::from_millis(20));
    }
    assert_ne!(epoch.epoch(), before);
}

#[test]
fn dates_that_another_process_sets_are_known_and_what_is_undone_leaves_none() {
    let (place, hands) = (Place::new(), Hands::at(NOW));
    let (one, two) = (place.open_at(&hands), place.open_at(&hands));
    let (first, second) = (customer(&one), customer(&two));
    block_on(two.list_keys()).unwrap();
    block_on(one.schedule_key_deletion(&first, DeletionWindow::from_days(7).unwrap())).unwrap();
    block_on(one.schedule_key_deletion(&second, DeletionWindow::from_days(7).unwrap())).unwrap();
    block_on(two.cancel_key_deletion(&first)).unwrap();
    let name = second.clone();
    let undone = block_on(one.call(one.asks("Test"), move |tx| -> crate::error::Result<()> {
        let mut key = KeyRecord::existing(tx, &name)?;
        key.deletion_at = Some(tx.now);
        key.save(tx)?;
        Err(crate::error::Error::internal("for the test"))
    }));
    undone.unwrap_err();
    let dates = |kms: &LocalKms| block_on(kms.look(|store| Ok(store.next_date()))).unwrap();
    block_on(one.list_keys()).unwrap();
    block_on(two.list_keys()).unwrap();
    let expected = i64::try_from(NOW + 7 * DAY).ok();
    assert_eq!((dates(&one), dates(&two)), (expected, expected));
    hands.set(NOW + 7 * DAY);
    assert_eq!(block_on(two.list_keys()).unwrap().len(), 1);
    assert_eq!(block_on(one.list_keys()).unwrap()[0].key_id, first);
    assert_eq!((dates(&one), dates(&two)), (None, None));
    assert_eq!(done(&place, "DeleteKey", &second), 1, "once, whoever does it");
}
