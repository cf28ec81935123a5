//! Keystores that older versions wrote: each opens, with everything that was encrypted under it.

use envelock::clock::Clock;
use envelock::kms::{AuditQuery, KeyState, MultiRegionKeyType};
use envelock::{EncryptionContext, Envelope, ErrorKind, KmsOptions, LocalKms, RootKey, blocking};
use pollster::block_on;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The message, whom it is under, whether it has the context `tenant=acme`, and what it says.
type Message = (&'static str, &'static str, bool, &'static [u8]);

const OF_SCHEMA_1: [Message; 4] = [
    ("before-rotation.elk", "alias/orders", true, b"encrypted before the rotation"),
    ("after-rotation.elk", "alias/orders", true, b"encrypted after the rotation"),
    ("under-the-default-key.elk", "alias/envelock/default", false, b"encrypted under the managed key"),
    ("through-the-moved-alias.elk", "alias/invoices", false, b"encrypted before the alias was moved back"),
];

/// Of schema 3 as well.
const OF_SCHEMA_2: [Message; 5] = [
    ("before-rotation.elk", "alias/orders", true, b"encrypted before the rotation"),
    ("after-rotation.elk", "alias/orders", true, b"encrypted after the rotation"),
    ("under-the-default-key.elk", "alias/envelock/default", false, b"encrypted under the managed key"),
    ("under-imported-material.elk", "alias/imported", false, b"encrypted under imported material"),
    ("under-a-shared-key.elk", "alias/shared", false, b"encrypted under a multi-Region key"),
];

/// On the day on which the keystores of schemas 2 and 3 were made.
#[derive(Debug)]
struct ThatDay;

impl Clock for ThatDay {
    fn wall(&self) -> Duration {
        Duration::from_secs(1_795_740_000)
    }
}

fn frozen(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/keystore-{schema}"))
}

fn root_key_of(schema: u32) -> RootKey {
    RootKey::value(&fs::read_to_string(frozen(schema).join("root-key.txt")).unwrap()).unwrap()
}

fn root_key() -> RootKey {
    root_key_of(1)
}

fn tenant(with_context: bool) -> EncryptionContext {
    if with_context { EncryptionContext::from([("tenant", "acme")]) } else { EncryptionContext::new() }
}

fn opens_everything(kms: &LocalKms, schema: u32, messages: &[Message]) {
    for &(name, key, with_context, expected) in messages {
        let context = tenant(with_context);
        let envelope = Envelope::builder(kms.provider(key).unwrap()).build().unwrap();
        let opened = blocking::Envelope::new(envelope).decrypt(&fs::read(frozen(schema).join(name)).unwrap(), &context);
        assert_eq!(opened.unwrap(), expected, "{name}");
    }
}

#[test]
fn a_keystore_of_schema_1_opens_with_all_that_was_encrypted_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    fs::copy(frozen(1).join("keys.db"), &path).unwrap();
    let before = fs::read(&path).unwrap();
    // Another keystore's root key changes nothing in it.
    let error = LocalKms::open(&path, RootKey::value(RootKey::generate().unwrap().expose()).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    for _ in 0..2 {
        let kms = LocalKms::open_existing(&path, root_key()).unwrap();
        opens_everything(&kms, 1, &OF_SCHEMA_1);
        let keys = block_on(kms.list_keys()).unwrap();
        assert_eq!(keys.iter().map(|key| key.current_version).collect::<Vec<_>>(), [2, 1, 1]);
        block_on(kms.close()).unwrap();
    }
    // It goes on from there.
    let kms = LocalKms::open_existing(&path, root_key()).unwrap();
    block_on(kms.rotate("alias/orders")).unwrap();
    opens_everything(&kms, 1, &OF_SCHEMA_1);
}

#[test]
fn a_backup_of_schema_1_is_restored_and_put_under_another_root_key() {
    let folder = tempfile::tempdir().unwrap();
    let (path, root) = (folder.path().join("keys.db"), folder.path().join("root.key"));
    let backup = frozen(1).join("keys.db");
    let before = fs::read(&backup).unwrap();
    LocalKms::restore(&backup, &path, root_key(), envelock::kms::RestoreOptions::default()).unwrap();
    assert!(fs::read(&backup).unwrap() == before, "a backup is only read");
    let kms = LocalKms::open_existing(&path, root_key()).unwrap();
    opens_everything(&kms, 1, &OF_SCHEMA_1);
    block_on(kms.rekey(RootKey::file(&root).unwrap())).unwrap();
    block_on(kms.close()).unwrap();
    let kms = LocalKms::open_existing(&path, RootKey::file(&root).unwrap()).unwrap();
    opens_everything(&kms, 1, &OF_SCHEMA_1);
    assert_eq!(block_on(kms.check()).unwrap().versions, 4);
    assert_eq!(LocalKms::open_existing(&path, root_key()).unwrap_err().kind(), ErrorKind::NoMatchingKey);
}

#[test]
fn a_keystore_of_schema_1_that_was_changed_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    for change in [
        "UPDATE keys SET state = 'Disabled' WHERE key_id LIKE 'c%'",
        "DELETE FROM alias_history WHERE position = 2",
        "UPDATE head SET sequence = sequence - 1",
        "UPDATE head SET schema_version = 2",
    ] {
        fs::copy(frozen(1).join("keys.db"), &path).unwrap();
        let sql = rusqlite::Connection::open(&path).unwrap();
        assert!(sql.execute(change, []).unwrap() > 0);
        sql.close().unwrap();
        let error = LocalKms::open_existing(&path, root_key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{change}: {error}");
        let sql = rusqlite::Connection::open(&path).unwrap();
        let version: i64 = sql.query_row("SELECT user_version FROM pragma_user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 1, "{change}");
    }
}

#[test]
fn keystores_of_schemas_2_and_3_open_with_all_that_was_encrypted_and_said_under_them() {
    for schema in [2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        fs::copy(frozen(schema).join("keys.db"), &path).unwrap();
        opens_with_all_that_was_said(&path, schema);
    }
}

fn opens_with_all_that_was_said(path: &Path, schema: u32) {
    let open = || {
        let options = KmsOptions::default().must_exist().clock(Arc::new(ThatDay)).region("eu-1");
        LocalKms::open_with(path, root_key_of(schema), options).unwrap()
    };
    let kms = open();
    opens_everything(&kms, schema, &OF_SCHEMA_2);
    let keys = block_on(kms.list_keys()).unwrap();
    assert_eq!(keys.iter().map(|key| key.current_version).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
    assert_eq!(keys.iter().filter(|key| key.key_state == KeyState::PendingDeletion).count(), 1);
    assert_eq!(block_on(kms.describe_key("alias/shared")).unwrap().multi_region, Some(MultiRegionKeyType::Primary));
    assert_eq!(block_on(kms.describe_key("alias/orders")).unwrap().rotation_period_in_days, Some(365));
    let tags = block_on(kms.list_resource_tags("alias/orders")).unwrap();
    assert_eq!(tags.len(), 1);
    for (who, may) in [("billing", true), ("auditor", true), ("somebody", false)] {
        let provider = kms.as_principal(who).unwrap().provider("alias/orders").unwrap();
        let envelope = blocking::Envelope::new(Envelope::builder(provider).build().unwrap());
        let sealed = fs::read(frozen(schema).join("after-rotation.elk")).unwrap();
        assert_eq!(envelope.decrypt(&sealed, &tenant(true)).is_ok(), may, "{who}");
    }
    let before = block_on(kms.verify_audit(None)).unwrap();
    assert_eq!((before.first, before.checkpoint), (1, 0));
    // What was done then is found by key, whoever wrote the index.
    let query = AuditQuery::default().key("alias/orders").event_name("RotateKeyOnDemand");
    assert_eq!(block_on(kms.query_audit(&query)).unwrap().len(), 1);
    let query = AuditQuery::default().event_name("MigrateKeystore");
    let migrated: Vec<_> =
        block_on(kms.query_audit(&query)).unwrap().into_iter().map(|it| it.request_parameters).collect();
    assert_eq!(migrated.concat().contains("\"fromSchema\":2"), schema == 2, "{migrated:?}");
    block_on(kms.close()).unwrap();
    let kms = open();
    block_on(kms.rotate("alias/orders")).unwrap();
    block_on(kms.rotate("alias/shared")).unwrap();
    opens_everything(&kms, schema, &OF_SCHEMA_2);
    block_on(kms.check()).unwrap();
}

#[test]
fn a_backup_of_schema_2_is_restored_and_a_changed_one_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    let options = || envelock::kms::RestoreOptions::default().clock(Arc::new(ThatDay));
    LocalKms::restore(frozen(2).join("keys.db"), &path, root_key_of(2), options()).unwrap();
    opens_with_all_that_was_said(&path, 2);
    for (change, expected) in [
        ("UPDATE keys SET state = 'Enabled' WHERE state = 'PendingDeletion'", "was changed"),
        ("DELETE FROM policies", "was removed"),
        ("UPDATE head SET sequence = sequence - 1", "not authentic"),
        ("UPDATE head SET schema_version = 3", "not authentic"),
        ("PRAGMA user_version = 3", "no such column"),
        // Past the trail's end: what is appended would never be read.
        (
            "INSERT INTO audit SELECT sequence + 5, at, name, principal, key_id, code, details, changes, previous, mac
             FROM audit ORDER BY sequence DESC LIMIT 1",
            "its audit trail ends with the record",
        ),
    ] {
        let path = folder.path().join("changed.db");
        fs::copy(frozen(2).join("keys.db"), &path).unwrap();
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.execute_batch(change).unwrap();
        sql.close().unwrap();
        let options = KmsOptions::default().must_exist().clock(Arc::new(ThatDay));
        let error = LocalKms::open_with(&path, root_key_of(2), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{change}: {error}");
        assert!(format!("{error:?}").contains(expected), "{change}: {error:?}");
        let sql = rusqlite::Connection::open(&path).unwrap();
        let heads: i64 = sql.query_row("SELECT count(*) FROM head", [], |row| row.get(0)).unwrap();
        assert_eq!(heads, 1, "{change}");
    }
}
