//! Another root key: what is under it, what is left of the old one, who must reopen.

use super::{CHEAP, Place, block_on, context, new_key};
use crate::error::ErrorKind;
use crate::kms::root_file;
use crate::kms::root_text::Material;
use crate::kms::{KmsOptions, LocalKms, RootKey};
use crate::provider::raw::RawKeyProvider;
use crate::secret::Secret;
use std::fs;
use std::path::Path;

fn passphrase() -> RootKey {
    RootKey::passphrase("correct horse").unwrap().with_cost(CHEAP).unwrap()
}

fn file(path: impl AsRef<Path>) -> RootKey {
    RootKey::file(path).unwrap()
}

/// Everything wrapped, the MACs and the check value, as they lie in the file now.
fn secrets(place: &Place) -> Vec<Vec<u8>> {
    let sql = place.sql();
    let queries = [
        "SELECT wrapped FROM key_versions",
        "SELECT row_mac FROM key_versions",
        "SELECT row_mac FROM keys",
        "SELECT row_mac FROM aliases",
        "SELECT audit_key FROM meta",
        "SELECT check_value FROM meta",
        "SELECT head FROM audit WHERE head IS NOT NULL",
    ];
    let mut all = Vec::new();
    for query in queries {
        let mut statement = sql.prepare(query).unwrap();
        all.extend(statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap));
    }
    all
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn nothing_under_the_old_root_key_is_left_in_the_file_or_beside_it() {
    let place = Place::new();
    let kms = place.open();
    let keys: Vec<_> = (0..60).map(|_| new_key(&kms)).collect();
    for key in keys.iter().step_by(3) {
        block_on(kms.rotate(key)).unwrap();
    }
    block_on(kms.encrypt("alias/envelock/default", b"x", &context())).unwrap();
    let old = secrets(&place);
    assert!(old.len() > 200);
    let before = fs::read(place.keystore()).unwrap();
    assert!(old.iter().all(|it| contains(&before, it)), "the search finds what is there");
    block_on(kms.rekey(file(place.root_key()))).unwrap();
    for name in ["keys.db", "keys.db-wal"] {
        let bytes = fs::read(place.folder.path().join(name)).unwrap_or_default();
        let left = old.iter().filter(|it| contains(&bytes, it)).count();
        assert_eq!(left, 0, "{left} of {} in {name}", old.len());
    }
    let new = secrets(&place);
    assert_eq!(new.len(), old.len());
    assert!(new.iter().all(|it| !old.contains(it)));
}

#[test]
fn the_handle_that_did_it_goes_on_and_every_other_is_told_to_reopen() {
    let place = Place::new();
    let (kms, other) = (place.open(), place.open());
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"kept", &context())).unwrap().ciphertext_blob;
    let old = fs::read(place.root_key()).unwrap();
    block_on(kms.rekey(file(place.root_key()))).unwrap();
    assert_ne!(fs::read(place.root_key()).unwrap(), old);
    assert!(!root_file::pending(&place.root_key()).unwrap().exists());
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"kept");
    block_on(kms.rotate(&key)).unwrap();
    for error in [
        block_on(other.decrypt(&blob, &context())).unwrap_err(),
        block_on(other.rotate(&key)).unwrap_err(),
        block_on(other.rekey(passphrase())).unwrap_err(),
        block_on(other.backup(place.folder.path().join("b.db"))).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
        assert!(error.to_string().contains("open it with its new root key"), "{error}");
    }
    let again = place.open();
    assert_eq!(block_on(again.describe_key(&key)).unwrap().current_version, 2);
    assert_eq!(block_on(again.decrypt(&blob, &context())).unwrap().plaintext(), b"kept");
    let report = block_on(again.check()).unwrap();
    assert_eq!((report.keys, report.versions, report.secrets), (1, 2, 3));
}

#[test]
fn a_keystore_moves_from_each_kind_of_root_key_to_each() {
    let place = Place::new();
    let provider = || RawKeyProvider::new("unlock", Secret::init(|out| out.fill(7))).unwrap();
    let kms = place.open();
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"kept", &context())).unwrap().ciphertext_blob;
    drop(kms);
    let second = place.folder.path().join("second.key");
    let mut value = String::new();
    // Opened by the kind before it.
    let kinds = ["file", "passphrase", "value", "provider", "other file", "provider", "passphrase", "file", "value"];
    for pair in kinds.windows(2) {
        let kms = match pair[0] {
            "file" => place.open(),
            "other file" => LocalKms::open(place.keystore(), file(&second)).unwrap(),
            "passphrase" => LocalKms::open(place.keystore(), passphrase()).unwrap(),
            "value" => LocalKms::open(place.keystore(), RootKey::value(&value).unwrap()).unwrap(),
            _ => block_on(LocalKms::unseal(place.keystore(), provider())).unwrap(),
        };
        assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"kept", "{pair:?}");
        match pair[1] {
            "file" => block_on(kms.rekey(file(place.root_key()))).unwrap(),
            "other file" => block_on(kms.rekey(file(&second))).unwrap(),
            "passphrase" => block_on(kms.rekey(passphrase())).unwrap(),
            "value" => {
                value = kms.new_root_key().unwrap().expose().to_owned();
                block_on(kms.rekey(RootKey::value(&value).unwrap())).unwrap();
            }
            _ => block_on(kms.rekey_sealed(provider())).unwrap(),
        }
        // The export opens every kind.
        let export = block_on(kms.export_root_key()).unwrap();
        drop(kms);
        let kms = LocalKms::open(place.keystore(), RootKey::value(export.expose()).unwrap()).unwrap();
        assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"kept", "{pair:?}");
    }
    let refused = [
        LocalKms::open(place.keystore(), passphrase()).unwrap_err(),
        block_on(LocalKms::unseal(place.keystore(), provider())).unwrap_err(),
        place.try_open().unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
    }
}

#[test]
fn a_rekey_is_the_owners_and_what_is_wrong_with_it_changes_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let (kms, theirs) = (place.open(), other.open());
    let key = new_key(&kms);
    let root = fs::read(place.root_key()).unwrap();
    let error = block_on(kms.as_principal("somebody").unwrap().rekey(file(place.root_key()))).unwrap_err();
    assert_eq!(error.code(), Some("AccessDeniedException"));
    let export = block_on(kms.export_root_key()).unwrap();
    let foreign = block_on(theirs.export_root_key()).unwrap();
    let junk = place.folder.path().join("junk");
    fs::write(&junk, "no root key").unwrap();
    fs::set_permissions(&junk, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (new, kind) in [
        (RootKey::value(export.expose()).unwrap(), ErrorKind::InvalidInput),
        (RootKey::value(foreign.expose()).unwrap(), ErrorKind::InvalidInput),
        (file(other.root_key()), ErrorKind::InvalidInput),
        (file(&junk), ErrorKind::NoMatchingKey),
        (file(place.folder.path().join("none/root.key")), ErrorKind::Io),
    ] {
        let error = block_on(kms.rekey(new)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        block_on(kms.describe_key(&key)).unwrap();
    }
    assert_eq!(fs::read(place.root_key()).unwrap(), root);
    assert_eq!(fs::read(&junk).unwrap(), b"no root key");
    drop(kms);
    let kms = place.open();
    let names: Vec<(String, String)> = {
        let sql = place.sql();
        let mut statement = sql.prepare("SELECT name, code FROM audit WHERE name = 'RekeyKeystore'").unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    // Two were refused before there was a transaction: they name another keystore.
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(names[0].1, "AccessDeniedException");
    block_on(kms.rekey(file(place.root_key()))).unwrap();
    assert!(!format!("{:?} {kms:?}", RootKey::value(export.expose()).unwrap()).contains(&export.expose()[20..60]));
}

#[test]
fn a_rekey_that_was_cut_off_before_or_after_the_keystores_change_opens_with_the_same_file() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let pending = root_file::pending(&place.root_key()).unwrap();
    // Before: a root key that the keystore never came under lies beside it.
    let id = kms.realm().keystore_id;
    let old = fs::read(place.root_key()).unwrap();
    let keys = crate::kms::root::RootKeys::derive(&Material::parse(&old).unwrap()).unwrap();
    root_file::prepare(&place.root_key(), &Material::generate_for(id).unwrap(), &keys).unwrap();
    drop(kms);
    let kms = place.open();
    block_on(kms.describe_key(&key)).unwrap();
    assert_eq!(fs::read(place.root_key()).unwrap(), old);
    // After: it is under the one beside, which takes the place when it is opened.
    block_on(kms.rekey(file(place.root_key()))).unwrap();
    let new = fs::read(place.root_key()).unwrap();
    drop(kms);
    for there in [Some(&old), None] {
        fs::rename(place.root_key(), &pending).unwrap();
        if let Some(old) = there {
            fs::write(place.root_key(), old).unwrap();
            fs::set_permissions(place.root_key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let kms = place.open();
        block_on(kms.describe_key(&key)).unwrap();
        assert_eq!(fs::read(place.root_key()).unwrap(), new);
        assert!(!pending.exists());
    }
    // Opened by its text meanwhile, a further rekey does not lose the one beside.
    fs::rename(place.root_key(), &pending).unwrap();
    let text = String::from_utf8(new).unwrap();
    let kms = LocalKms::open(place.keystore(), RootKey::value(&text).unwrap()).unwrap();
    block_on(kms.rekey(file(place.root_key()))).unwrap();
    drop(kms);
    assert!(!pending.exists());
    block_on(place.open().describe_key(&key)).unwrap();
}

#[test]
fn a_rekey_through_a_link_replaces_what_the_link_points_to() {
    let place = Place::new();
    let link = place.folder.path().join("link.key");
    std::os::unix::fs::symlink(place.root_key(), &link).unwrap();
    let kms = LocalKms::open(place.keystore(), file(&link)).unwrap();
    let key = new_key(&kms);
    block_on(kms.rekey(file(&link))).unwrap();
    drop(kms);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    block_on(place.open().describe_key(&key)).unwrap();
}

#[test]
fn records_that_waited_are_in_the_trail_before_the_rekey_and_the_trail_goes_on() {
    let place = Place::new();
    let options = KmsOptions::default().risk_losing_audit_records(std::time::Duration::from_secs(600));
    let kms = LocalKms::open_with(place.keystore(), file(place.root_key()), options).unwrap();
    let key = new_key(&kms);
    block_on(kms.describe_key(&key)).unwrap();
    block_on(kms.rekey(passphrase())).unwrap();
    block_on(kms.rotate(&key)).unwrap();
    drop(kms);
    let kms = LocalKms::open(place.keystore(), passphrase()).unwrap();
    block_on(kms.describe_key(&key)).unwrap();
    let sql = place.sql();
    let mut statement = sql.prepare("SELECT name FROM audit ORDER BY sequence").unwrap();
    let names: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let expected = ["CreateKeystore", "CreateKey", "DescribeKey", "RekeyKeystore", "RotateKeyOnDemand", "DescribeKey"];
    assert_eq!(names, expected);
    assert_eq!(block_on(kms.verify_audit(None)).unwrap().records, expected.len() as u64);
}
