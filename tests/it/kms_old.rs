//! Keystores that older versions wrote: each opens, with everything that was encrypted under it.

use envelock::{EncryptionContext, Envelope, ErrorKind, LocalKms, RootKey, blocking};
use pollster::block_on;
use std::fs;
use std::path::{Path, PathBuf};

/// The message, whom it is under, whether it has the context `tenant=acme`, and what it says.
const MESSAGES: [(&str, &str, bool, &[u8]); 4] = [
    ("before-rotation.elk", "alias/orders", true, b"encrypted before the rotation"),
    ("after-rotation.elk", "alias/orders", true, b"encrypted after the rotation"),
    ("under-the-default-key.elk", "alias/envelock/default", false, b"encrypted under the managed key"),
    ("through-the-moved-alias.elk", "alias/invoices", false, b"encrypted before the alias was moved back"),
];

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keystore-1")
}

fn root_key() -> RootKey {
    RootKey::value(&fs::read_to_string(frozen().join("root-key.txt")).unwrap()).unwrap()
}

fn opens_everything(kms: &LocalKms) {
    for (name, key, with_context, expected) in MESSAGES {
        let context =
            if with_context { EncryptionContext::from([("tenant", "acme")]) } else { EncryptionContext::new() };
        let envelope = Envelope::builder(kms.provider(key).unwrap()).build().unwrap();
        let opened = blocking::Envelope::new(envelope).decrypt(&fs::read(frozen().join(name)).unwrap(), &context);
        assert_eq!(opened.unwrap(), expected, "{name}");
    }
}

#[test]
fn a_keystore_of_schema_1_opens_with_all_that_was_encrypted_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.db");
    fs::copy(frozen().join("keys.db"), &path).unwrap();
    let before = fs::read(&path).unwrap();
    // Another keystore's root key changes nothing in it.
    let error = LocalKms::open(&path, RootKey::value(RootKey::generate().unwrap().expose()).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    for _ in 0..2 {
        let kms = LocalKms::open_existing(&path, root_key()).unwrap();
        opens_everything(&kms);
        let keys = block_on(kms.list_keys()).unwrap();
        assert_eq!(keys.iter().map(|key| key.current_version).collect::<Vec<_>>(), [2, 1, 1]);
        block_on(kms.close()).unwrap();
    }
    // It goes on from there.
    let kms = LocalKms::open_existing(&path, root_key()).unwrap();
    block_on(kms.rotate("alias/orders")).unwrap();
    opens_everything(&kms);
}

#[test]
fn a_backup_of_schema_1_is_restored_and_put_under_another_root_key() {
    let folder = tempfile::tempdir().unwrap();
    let (path, root) = (folder.path().join("keys.db"), folder.path().join("root.key"));
    let backup = frozen().join("keys.db");
    let before = fs::read(&backup).unwrap();
    LocalKms::restore(&backup, &path, root_key(), envelock::kms::RestoreOptions::default()).unwrap();
    assert!(fs::read(&backup).unwrap() == before, "a backup is only read");
    let kms = LocalKms::open_existing(&path, root_key()).unwrap();
    opens_everything(&kms);
    block_on(kms.rekey(RootKey::file(&root).unwrap())).unwrap();
    block_on(kms.close()).unwrap();
    let kms = LocalKms::open_existing(&path, RootKey::file(&root).unwrap()).unwrap();
    opens_everything(&kms);
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
        fs::copy(frozen().join("keys.db"), &path).unwrap();
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
