//! Root keys: their text, their sources, and what happens without the right one.

use super::{CHEAP, Place, block_on, context, new_key};
use crate::error::{Error, ErrorKind, KeystoreCause};
use crate::kms::{KmsOptions, LocalKms, RootKey, RootKeyExport};
use crate::provider::passphrase::PassphraseCost;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::{fs, iter};

fn passphrase(text: &str) -> RootKey {
    RootKey::passphrase(text).unwrap().with_cost(CHEAP).unwrap()
}

fn refused(place: &Place, root: RootKey) -> Error {
    LocalKms::open(place.keystore(), root).unwrap_err()
}

#[test]
fn the_first_use_makes_keystore_and_root_key_for_their_owner_only_and_says_so() {
    let place = Place::new();
    let kms = place.open();
    assert!(kms.made_keystore() && kms.made_root_key_file());
    new_key(&kms);
    for file in ["keys.db", "keys.db-wal", "keys.db-shm", "root.key"] {
        let mode = fs::metadata(place.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(kms);
    let kms = place.open();
    assert!(!kms.made_keystore() && !kms.made_root_key_file());
}

#[test]
fn a_keystore_that_must_exist_is_never_made() {
    let place = Place::new();
    let open = || LocalKms::open_existing(place.keystore(), RootKey::file(place.root_key()).unwrap());
    let missed = || {
        let error = open().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*place.keystore())));
        assert!(error.to_string().contains("restore "), "{error}");
    };
    missed();
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0, "nothing is made");
    let key = new_key(&place.open());
    assert_eq!(block_on(open().unwrap().list_keys()).unwrap()[0].key_id, key);
    // The root key alone, and an empty file beside it.
    let (saved, root_key) = (fs::read(place.keystore()).unwrap(), fs::read(place.root_key()).unwrap());
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let _ = fs::remove_file(place.folder.path().join(name));
    }
    missed();
    assert!(!place.keystore().exists());
    fs::write(place.keystore(), "").unwrap();
    missed();
    assert_eq!(fs::metadata(place.keystore()).unwrap().len(), 0);
    fs::write(place.keystore(), saved).unwrap();
    assert_eq!(block_on(open().unwrap().list_keys()).unwrap()[0].key_id, key);
    assert_eq!(fs::read(place.root_key()).unwrap(), root_key);
}

#[test]
fn the_text_of_a_root_key_is_read_strictly() {
    let exported = RootKey::generate().unwrap();
    let text = exported.expose();
    assert_eq!((text.len(), text.starts_with("envelock-root1.")), (85, true));
    for good in [text.to_owned(), format!("{text}\n"), format!("{text}\r\n")] {
        RootKey::value(&good).unwrap();
    }
    let mut bad: Vec<String> = vec![
        String::new(),
        format!("{text}="),
        format!("{text}\n\n"),
        format!("{text}\r"),
        format!(" {text}"),
        text.replace("root1", "root2"),
        format!("{}A", &text[..84]),
        format!("{}_", &text[..84]),
    ];
    bad.extend((0..text.len()).map(|len| text[..len].to_owned()));
    // Every other character at one place each: the check or the strictness of base64 must see it.
    bad.extend((15..84).map(|at| {
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &text[..at], &text[at + 1..])
    }));
    for text in bad.iter().filter(|it| *it != text) {
        let error = RootKey::value(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    }
    assert!(!format!("{exported:?} {:?}", RootKey::value(text).unwrap()).contains(&text[20..]));
}

#[test]
fn a_missing_root_key_is_never_made_anew_and_its_export_put_back_restores() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"kept", &context())).unwrap().ciphertext_blob;
    let exported = block_on(kms.export_root_key()).unwrap();
    assert_eq!(fs::read_to_string(place.root_key()).unwrap(), format!("{}\n", exported.expose()));
    block_on(kms.close()).unwrap();
    fs::remove_file(place.root_key()).unwrap();
    let error = place.try_open().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*place.root_key())));
    assert!(error.to_string().contains("export"), "{error}");
    assert!(!place.root_key().exists());
    fs::write(place.root_key(), exported.expose()).unwrap();
    fs::set_permissions(place.root_key(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(block_on(place.open().decrypt(&blob, &context())).unwrap().plaintext(), b"kept");
    let by_value = LocalKms::open(place.keystore(), RootKey::value(exported.expose()).unwrap()).unwrap();
    assert_eq!(block_on(by_value.decrypt(&blob, &context())).unwrap().plaintext(), b"kept");
}

#[test]
fn a_root_key_file_that_others_may_read_is_refused() {
    let place = Place::new();
    drop(place.open());
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(place.root_key(), fs::Permissions::from_mode(mode)).unwrap();
        let error = place.try_open().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(error.path(), Some(&*place.root_key()));
    }
}

#[test]
fn another_keystores_root_key_is_named_as_such() {
    let (place, other) = (Place::new(), Place::new());
    let (kms, theirs) = (place.open(), other.open());
    let root = block_on(theirs.export_root_key()).unwrap();
    let error = refused(&place, RootKey::value(root.expose()).unwrap());
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert!(error.to_string().contains(&theirs.keystore_id()) && error.to_string().contains(&kms.keystore_id()));
}

#[test]
fn a_passphrase_opens_its_keystore_and_a_wrong_one_is_told_from_tampering() {
    let place = Place::new();
    let kms = LocalKms::open(place.keystore(), passphrase("correct horse")).unwrap();
    let key = new_key(&kms);
    let root = block_on(kms.export_root_key()).unwrap();
    let error = refused(&place, passphrase("battery staple"));
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert!(error.to_string().contains("passphrase"), "{error}");
    for again in [passphrase("correct horse"), RootKey::value(root.expose()).unwrap()] {
        let kms = LocalKms::open(place.keystore(), again).unwrap();
        assert_eq!(block_on(kms.list_keys()).unwrap()[0].key_id, key);
    }
    let file = Place::new();
    drop(file.open());
    assert_eq!(refused(&file, passphrase("correct horse")).kind(), ErrorKind::NoMatchingKey);
}

#[test]
fn a_passphrases_cost_is_within_bounds_before_it_is_spent() {
    let cheap = |cost| RootKey::passphrase("p").unwrap().with_cost(cost).unwrap_err().kind();
    assert_eq!(cheap(PassphraseCost { memory_kib: 19_455, ..CHEAP }), ErrorKind::InvalidInput);
    assert_eq!(cheap(PassphraseCost { passes: 1, ..CHEAP }), ErrorKind::InvalidInput);
    assert_eq!(cheap(PassphraseCost { memory_kib: (1 << 20) + 1, ..CHEAP }), ErrorKind::LimitExceeded);
    assert_eq!(cheap(PassphraseCost { passes: 11, ..CHEAP }), ErrorKind::LimitExceeded);
    assert_eq!(cheap(PassphraseCost { lanes: 17, ..CHEAP }), ErrorKind::LimitExceeded);
    assert!(RootKey::passphrase("").is_err());
    let place = Place::new();
    block_on(LocalKms::open(place.keystore(), passphrase("p")).unwrap().close()).unwrap();
    for (column, value) in [("argon_memory_kib", 1 << 30), ("argon_passes", 4_000_000_000_i64), ("argon_lanes", 17)] {
        let sql = place.sql();
        let before: i64 = sql.query_row(&format!("SELECT {column} FROM meta"), [], |row| row.get(0)).unwrap();
        sql.execute(&format!("UPDATE meta SET {column} = ?1"), [value]).unwrap();
        assert_eq!(refused(&place, passphrase("p")).kind(), ErrorKind::LimitExceeded, "{column}");
        sql.execute(&format!("UPDATE meta SET {column} = ?1"), [before]).unwrap();
    }
    LocalKms::open(place.keystore(), passphrase("p")).unwrap();
}

#[test]
fn a_creation_killed_before_or_after_the_root_key_is_completed_by_the_next() {
    let place = Place::new();
    fs::write(place.keystore(), b"").unwrap();
    let kms = place.open();
    assert!(kms.made_keystore() && kms.made_root_key_file());
    let id = kms.keystore_id();
    block_on(kms.close()).unwrap();
    // What is left when the kill falls between the root key and the schema, in WAL mode already.
    fs::remove_file(place.keystore()).unwrap();
    place.sql().execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); DROP TABLE t;").unwrap();
    let kms = place.open();
    assert_eq!((kms.made_keystore(), kms.made_root_key_file(), kms.keystore_id()), (true, false, id));
}

#[test]
fn a_keystore_that_is_gone_while_its_root_key_is_there_is_made_anew_only_when_told() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    block_on(kms.close()).unwrap();
    let saved = place.folder.path().join("saved.db");
    fs::rename(place.keystore(), &saved).unwrap();
    let error = place.try_open().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*place.keystore())));
    assert!(error.to_string().contains("restore it from its backup") && error.to_string().contains("root.key"));
    assert!(!place.keystore().exists());
    // The root key that was about to take its place counts too.
    let pending = place.folder.path().join("root.key.new");
    fs::rename(place.root_key(), &pending).unwrap();
    assert_eq!(place.try_open().unwrap_err().kind(), ErrorKind::NoMatchingKey);
    assert!(!place.root_key().exists() && !place.keystore().exists());
    fs::rename(&pending, place.root_key()).unwrap();
    let root = RootKey::file(place.root_key()).unwrap();
    let kms = LocalKms::open_with(place.keystore(), root, KmsOptions::default().new_keystore()).unwrap();
    assert!(kms.made_keystore() && !kms.made_root_key_file());
    block_on(kms.close()).unwrap();
    fs::rename(&saved, place.keystore()).unwrap();
    block_on(place.open().describe_key(&key)).unwrap();
}

#[test]
fn a_root_key_file_that_is_none_or_anothers_is_named() {
    let (place, other) = (Place::new(), Place::new());
    drop((place.open(), other.open()));
    for content in [b"no root key".to_vec(), fs::read(other.root_key()).unwrap()] {
        fs::write(place.root_key(), content).unwrap();
        let error = place.try_open().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*place.root_key())), "{error}");
    }
}

#[test]
fn several_openings_at_once_make_one_keystore() {
    let place = Place::new();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = iter::repeat_with(|| {
            scope.spawn(|| {
                let root = RootKey::file(place.root_key()).unwrap();
                let options = KmsOptions::default().busy_timeout(Duration::from_secs(60));
                let kms = LocalKms::open_with(place.keystore(), root, options).unwrap();
                new_key(&kms);
                kms.keystore_id()
            })
        })
        .take(8)
        .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(block_on(place.open().list_keys()).unwrap().len(), 8);
}

#[test]
fn other_files_are_left_alone() {
    let place = Place::new();
    fs::write(place.keystore(), b"this is a text, longer than the header of a database\n".repeat(10)).unwrap();
    let before = fs::read(place.keystore()).unwrap();
    assert_eq!(place.try_open().unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(fs::read(place.keystore()).unwrap(), before);
    let other = Place::new();
    other.sql().execute_batch("CREATE TABLE notes (x)").unwrap();
    assert_eq!(other.try_open().unwrap_err().kind(), ErrorKind::Storage);
    assert!(!other.root_key().exists() && !place.root_key().exists());
    let folder = Place::new();
    fs::create_dir(folder.keystore()).unwrap();
    assert_eq!(folder.try_open().unwrap_err().kind(), ErrorKind::InvalidInput);
    let error = LocalKms::open(folder.folder.path().join("none/keys.db"), passphrase("p")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_region_is_chosen_once() {
    let place = Place::new();
    let open = |region: &str| {
        let root = RootKey::file(place.root_key()).unwrap();
        LocalKms::open_with(place.keystore(), root, KmsOptions::default().region(region))
    };
    assert_eq!(open("eu-central").unwrap().region(), "eu-central");
    assert_eq!(open("us-east").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(open("EU").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(place.open().region(), "eu-central");
}

/// Changes one bit of what the file says of its root key in the clear.
fn flip(place: &Place, column: &str) {
    let sql = place.sql();
    let mut value: Vec<u8> = sql.query_row(&format!("SELECT {column} FROM meta"), [], |row| row.get(0)).unwrap();
    value[0] ^= 1;
    sql.execute(&format!("UPDATE meta SET {column} = ?1"), [value]).unwrap();
}

#[track_caller]
fn assert_meta_was_changed(error: &Error) {
    assert_eq!((error.kind(), error.keystore_cause()), (ErrorKind::Storage, Some(KeystoreCause::Tampered)), "{error}");
    assert!(error.to_string().contains("the row \"meta 1\" was changed"), "{error}");
}

#[test]
fn the_right_root_key_is_not_doubted_for_what_a_changed_file_says_of_it() {
    for column in ["check_value", "keystore_id"] {
        let place = Place::new();
        let kms = place.open();
        let right = block_on(kms.export_root_key()).unwrap();
        let (wrong, pending) = (kms.new_root_key().unwrap(), place.folder.path().join("root.key.new"));
        let value = |root: &RootKeyExport| refused(&place, RootKey::value(root.expose()).unwrap());
        let file = || refused(&place, RootKey::file(place.root_key()).unwrap());
        let doubted =
            |error: &Error| assert_eq!((error.kind(), error.keystore_cause()), (ErrorKind::NoMatchingKey, None));
        doubted(&value(&wrong));
        flip(&place, column);
        assert_meta_was_changed(&value(&right));
        assert_meta_was_changed(&file());
        assert_meta_was_changed(&block_on(kms.verify_audit(None)).unwrap_err());
        // A wrong one is one still.
        doubted(&value(&wrong));
        // The right one where a rekey that was killed left it, and in its place another.
        fs::rename(place.root_key(), &pending).unwrap();
        fs::write(place.root_key(), wrong.expose()).unwrap();
        fs::set_permissions(place.root_key(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_meta_was_changed(&file());
        fs::remove_file(&pending).unwrap();
        doubted(&file());
        // The file as it was.
        flip(&place, column);
        drop(LocalKms::open(place.keystore(), RootKey::value(right.expose()).unwrap()).unwrap());
    }
}

#[test]
fn the_right_passphrase_is_not_doubted_for_a_changed_check_and_the_export_tells_the_rest() {
    let place = Place::new();
    let kms = LocalKms::open(place.keystore(), passphrase("correct horse")).unwrap();
    let export = block_on(kms.export_root_key()).unwrap();
    flip(&place, "check_value");
    assert_meta_was_changed(&refused(&place, passphrase("correct horse")));
    assert_eq!(refused(&place, passphrase("battery staple")).kind(), ErrorKind::NoMatchingKey);
    flip(&place, "check_value");
    for column in ["argon_salt", "keystore_id"] {
        flip(&place, column);
        // As docs/kms.md says: it derives another root key, or has no other word for whose it is.
        assert_eq!(refused(&place, passphrase("correct horse")).kind(), ErrorKind::NoMatchingKey);
        assert_meta_was_changed(&refused(&place, RootKey::value(export.expose()).unwrap()));
        flip(&place, column);
    }
    drop(LocalKms::open(place.keystore(), passphrase("correct horse")).unwrap());
}
