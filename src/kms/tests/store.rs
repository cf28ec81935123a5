//! Transactions: who waits for whom, what other processes' changes do, what lies in the file.

use super::{Place, block_on, context, new_key};
use crate::error::ErrorKind;
use crate::kms::CreateKeyRequest;
use crate::kms::schema::SCHEMA_VERSION;
use crate::material::DataKeyLength;
use std::time::{Duration, Instant};
use std::{fs, thread};

#[test]
fn changes_of_another_connection_are_seen_at_the_next_call() {
    let place = Place::new();
    let (one, two) = (place.open(), place.open());
    let key = new_key(&one);
    for _ in 0..5 {
        block_on(one.rotate(&key)).unwrap();
        block_on(two.rotate(&key)).unwrap();
    }
    assert_eq!(block_on(one.describe_key(&key)).unwrap().current_version, 11);
    let blob = block_on(two.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    assert_eq!(block_on(one.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
}

#[test]
fn a_call_waits_for_another_writer_and_then_says_busy() {
    let place = Place::new();
    let kms = place.open();
    let patient = place.open_waiting(Duration::from_secs(60)).unwrap();
    let key = new_key(&kms);
    let sql = place.sql();
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let error = block_on(kms.rotate(&key)).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Busy, true));
    assert!(start.elapsed() >= Duration::from_millis(250) && start.elapsed() < Duration::from_secs(60));
    // Nothing happens without its record, and so no reading call either.
    assert_eq!(block_on(kms.encrypt(&key, b"x", &context())).unwrap_err().kind(), ErrorKind::Busy);
    let waiting = thread::spawn({
        let key = key.clone();
        move || block_on(patient.rotate(&key))
    });
    thread::sleep(Duration::from_millis(50));
    sql.execute_batch("COMMIT").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().current_version, 2);
}

#[test]
fn an_operation_that_fails_half_way_changes_nothing() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let sql = place.sql();
    // The insertion of a version succeeds and the update of its key does not.
    sql.execute_batch("CREATE UNIQUE INDEX spoil ON keys (current_version)").unwrap();
    block_on(kms.create_key(CreateKeyRequest::default())).unwrap_err();
    sql.execute_batch("DROP INDEX spoil").unwrap();
    assert_eq!(block_on(kms.list_keys()).unwrap().len(), 1);
    assert_eq!(block_on(kms.rotate(&key)).unwrap().current_version, 2);
    let versions: i64 = sql.query_row("SELECT count(*) FROM key_versions", [], |row| row.get(0)).unwrap();
    assert_eq!(versions, 2);
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let kms = place.open();
    block_on(kms.close()).unwrap();
    place.sql().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let error = place.try_open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("update envelock"), "{error}");
    place.sql().pragma_update(None, "user_version", 0).unwrap();
    assert_eq!(place.try_open().unwrap_err().kind(), ErrorKind::Storage);
    place.sql().pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
    place.open();
}

#[test]
fn the_file_is_in_wal_mode_and_says_what_it_is() {
    let place = Place::new();
    let kms = place.open();
    let sql = place.sql();
    let pragma =
        |name: &str| sql.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("journal_mode").unwrap(), rusqlite::types::Value::Text("wal".to_owned()));
    assert_eq!(pragma("application_id").unwrap(), rusqlite::types::Value::Integer(0x656c_6b31));
    drop(kms);
}

#[test]
fn no_key_material_and_no_root_key_lies_in_the_clear_in_any_file() {
    let place = Place::new();
    let kms = place.open();
    let key = block_on(kms.create_key(CreateKeyRequest::default().description("planted-canary"))).unwrap().key_id;
    let data_key = block_on(kms.generate_data_key(&key, DataKeyLength::Bytes32, &context())).unwrap();
    for _ in 0..3 {
        block_on(kms.rotate(&key)).unwrap();
    }
    let name = key.clone();
    let secrets = block_on(kms.look(move |store| {
        let keys = store.keys();
        let mut secrets: Vec<[u8; 32]> = [&keys.root, &keys.rows.key, &keys.head].map(|it| *it.expose()).to_vec();
        store.read(|tx| {
            let key = crate::kms::records::KeyRecord::existing(tx, &name)?;
            for version in 1..=key.current_version {
                secrets.push(*key.material(tx, version)?.unwrap().secret.expose());
            }
            Ok(secrets)
        })
    }))
    .unwrap();
    assert_eq!(secrets.len(), 7);
    let files: Vec<_> =
        ["keys.db", "keys.db-wal", "keys.db-shm"].map(|it| fs::read(place.folder.path().join(it)).unwrap()).into();
    let holds = |needle: &[u8]| files.iter().any(|file| file.windows(needle.len()).any(|window| window == needle));
    // What is known to be there is found, so that the search is known to work.
    assert!(holds(b"planted-canary"));
    for secret in secrets.iter().map(|it| &it[..]).chain([data_key.plaintext.expose()]) {
        assert!(!holds(secret) && !holds(&secret[..16]) && !holds(&secret[16..]));
    }
}
