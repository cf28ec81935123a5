//! Restoring: what is checked, what is moved aside, who is in the way.

use super::{DAY, Hands, Place, block_on, context, new_key};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::{DeletionWindow, LocalKms, RestoreOptions, Restored, RootKey, RotationPeriod};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// A keystore with a backup of one key, and a second key since.
struct Scene {
    place: Place,
    backup: PathBuf,
    first: String,
    second: String,
    blob: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let kms = place.open();
        let first = new_key(&kms);
        let blob = block_on(kms.encrypt(&first, b"kept", &context())).unwrap().ciphertext_blob;
        let backup = place.folder.path().join("backup.db");
        block_on(kms.backup(&backup)).unwrap();
        let second = new_key(&kms);
        block_on(kms.close()).unwrap();
        Self { place, backup, first, second, blob }
    }

    fn restore(&self, options: RestoreOptions) -> Result<Restored> {
        LocalKms::restore(&self.backup, self.place.keystore(), RootKey::file(self.place.root_key()).unwrap(), options)
    }

    fn keys(&self, path: &Path) -> Vec<String> {
        let kms = LocalKms::open_existing(path, RootKey::file(self.place.root_key()).unwrap()).unwrap();
        assert_eq!(block_on(kms.decrypt(&self.blob, &context())).unwrap().plaintext(), b"kept");
        block_on(kms.check()).unwrap();
        let mut keys: Vec<_> = block_on(kms.list_keys()).unwrap().into_iter().map(|it| it.key_id).collect();
        block_on(kms.close()).unwrap();
        keys.sort();
        keys
    }

    fn both(&self) -> Vec<String> {
        let mut both = vec![self.first.clone(), self.second.clone()];
        both.sort();
        both
    }
}

fn aside() -> RestoreOptions {
    RestoreOptions::default().move_existing_aside()
}

#[test]
fn a_lost_keystore_is_restored_and_says_so_in_its_trail() {
    let scene = Scene::new();
    fs::remove_file(scene.place.keystore()).unwrap();
    assert_eq!(scene.restore(RestoreOptions::default()).unwrap().moved_aside, None);
    assert_eq!(scene.keys(&scene.place.keystore()), std::slice::from_ref(&scene.first));
    let sql = scene.place.sql();
    let details: String = sql
        .query_row("SELECT details FROM audit WHERE name = 'RestoreKeystore' AND code = ''", [], |row| row.get(0))
        .unwrap();
    assert!(details.contains("backup.db"), "{details}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(scene.place.keystore()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_keystore_that_is_there_is_kept_or_moved_aside_whole() {
    let scene = Scene::new();
    let before = fs::read(scene.place.keystore()).unwrap();
    let error = scene.restore(RestoreOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidInput, Some(&*scene.place.keystore())));
    assert_eq!(scene.keys(&scene.place.keystore()), scene.both());
    assert_eq!(fs::read(scene.place.keystore()).unwrap().len(), before.len());
    for number in 1..=3 {
        let moved = scene.restore(aside()).unwrap().moved_aside.unwrap();
        assert_eq!(moved, scene.place.folder.path().join(format!("keys.db.replaced-{number}")));
        assert_eq!(scene.keys(&scene.place.keystore()), std::slice::from_ref(&scene.first));
    }
    assert_eq!(scene.keys(&scene.place.folder.path().join("keys.db.replaced-1")), scene.both());
}

#[test]
fn a_log_that_a_killed_process_left_goes_with_its_keystore_and_never_into_the_backup() {
    let scene = Scene::new();
    // A commit that is in the log alone.
    let (copy, third, log) = {
        let kms = scene.place.open();
        let reader = scene.place.sql();
        reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
        let third = new_key(&kms);
        let log = fs::read(scene.place.folder.path().join("keys.db-wal")).unwrap();
        assert!(log.len() > 4_000);
        let copy = fs::read(scene.place.keystore()).unwrap();
        drop(reader);
        block_on(kms.close()).unwrap();
        (copy, third, log)
    };
    let (keystore, wal) = (scene.place.keystore(), scene.place.folder.path().join("keys.db-wal"));
    fs::write(&keystore, &copy).unwrap();
    fs::write(&wal, &log).unwrap();
    let moved = scene.restore(aside()).unwrap().moved_aside.unwrap();
    assert!(!wal.exists());
    assert_eq!(scene.keys(&keystore), std::slice::from_ref(&scene.first));
    assert!(scene.keys(&moved).contains(&third), "what was acknowledged is in the one file");
    // The file is gone, and its log is not.
    fs::remove_file(&keystore).unwrap();
    fs::write(&wal, &log).unwrap();
    let moved = scene.restore(RestoreOptions::default()).unwrap().moved_aside.unwrap();
    assert_eq!(scene.keys(&keystore), std::slice::from_ref(&scene.first));
    let mut kept = moved.into_os_string();
    kept.push("-wal");
    assert!(fs::read(kept).unwrap() == log);
    // Both are damaged: they are kept as they are.
    fs::write(&keystore, vec![7; 8_192]).unwrap();
    fs::write(&wal, vec![9; 5_000]).unwrap();
    assert_eq!(scene.restore(RestoreOptions::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let moved = scene.restore(aside()).unwrap().moved_aside.unwrap();
    assert!(fs::read(&moved).unwrap() == vec![7; 8_192] && !wal.exists());
    assert_eq!(scene.keys(&keystore), std::slice::from_ref(&scene.first));
}

#[test]
fn a_keystore_that_is_open_is_not_replaced() {
    let scene = Scene::new();
    let kms = scene.place.open();
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("close it"), "{error}");
    };
    refused(scene.restore(aside()).unwrap_err());
    let third = new_key(&kms);
    block_on(kms.close()).unwrap();
    assert!(scene.keys(&scene.place.keystore()).contains(&third));
    // And a keystore in use is no backup.
    let used = Place::new();
    let kms = used.open();
    let root = || RootKey::file(used.root_key()).unwrap();
    let to = used.folder.path().join("to.db");
    let error = LocalKms::restore(used.keystore(), &to, root(), aside()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    block_on(kms.close()).unwrap();
    LocalKms::restore(used.keystore(), &to, root(), aside()).unwrap();
    LocalKms::open_existing(&to, root()).unwrap();
}

#[test]
fn a_backup_that_is_not_whole_or_not_of_this_root_key_changes_nothing() {
    let scene = Scene::new();
    let good = fs::read(&scene.backup).unwrap();
    let now = fs::read(scene.place.keystore()).unwrap();
    let mut kinds = Vec::new();
    let mut refuse = |bytes: &[u8]| {
        fs::write(&scene.backup, bytes).unwrap();
        let error = scene.restore(aside()).unwrap_err();
        assert_eq!(error.path(), Some(&*scene.backup), "{error}");
        kinds.push(error.kind());
    };
    refuse(b"");
    refuse(b"SQLite format 3\0");
    refuse(&vec![0; 40_000]);
    for cut in [100, 4_096, good.len() - 4_096] {
        refuse(&good[..cut]);
    }
    assert!(kinds.iter().all(|it| *it == ErrorKind::Storage), "{kinds:?}");
    // A change by SQLite that no page check finds.
    fs::write(&scene.backup, &good).unwrap();
    let sql = rusqlite::Connection::open(&scene.backup).unwrap();
    sql.execute("UPDATE keys SET state = 'Disabled'", []).unwrap();
    drop(sql);
    assert_eq!(scene.restore(aside()).unwrap_err().kind(), ErrorKind::Storage);
    fs::write(&scene.backup, &good).unwrap();
    // Under another root key since: the backup's own is needed.
    let export = {
        let kms = scene.place.open();
        let export = block_on(kms.export_root_key()).unwrap();
        block_on(kms.rekey(RootKey::file(scene.place.root_key()).unwrap())).unwrap();
        block_on(kms.close()).unwrap();
        export
    };
    let error = scene.restore(aside()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*scene.place.root_key())));
    assert!(error.to_string().contains("of its day"), "{error}");
    assert_eq!(scene.keys(&scene.place.keystore()), scene.both());
    assert_eq!(fs::read(scene.place.keystore()).unwrap().len() / 65_536, now.len() / 65_536);
    let old = RootKey::value(export.expose()).unwrap();
    LocalKms::restore(&scene.backup, scene.place.keystore(), old, aside()).unwrap();
    let old = RootKey::value(export.expose()).unwrap();
    assert_eq!(block_on(LocalKms::open(scene.place.keystore(), old).unwrap().list_keys()).unwrap().len(), 1);
}

#[test]
fn an_empty_file_is_no_keystore_to_keep_and_a_folder_is_an_error() {
    let scene = Scene::new();
    fs::write(scene.place.keystore(), "").unwrap();
    assert_eq!(scene.restore(RestoreOptions::default()).unwrap().moved_aside, None);
    assert_eq!(scene.keys(&scene.place.keystore()), std::slice::from_ref(&scene.first));
    fs::remove_file(scene.place.keystore()).unwrap();
    fs::create_dir(scene.place.keystore()).unwrap();
    scene.restore(aside()).unwrap_err();
    assert!(scene.place.keystore().is_dir());
}

#[test]
fn what_came_due_while_the_backup_lay_aside_waits_for_whoever_restored_it() {
    let place = Place::new();
    let hands = Hands::at(20_000 * DAY);
    let kms = place.open_at(&hands);
    let (rotated, deleted) = (new_key(&kms), new_key(&kms));
    block_on(kms.enable_key_rotation(&rotated, RotationPeriod::default())).unwrap();
    block_on(kms.schedule_key_deletion(&deleted, DeletionWindow::from_days(7).unwrap())).unwrap();
    let backup = place.folder.path().join("backup.db");
    block_on(kms.backup(&backup)).unwrap();
    block_on(kms.close()).unwrap();
    // A year and more later, when a version 2 was made long ago.
    let now = 20_400 * DAY;
    hands.set(now);
    let options = aside().clock(Arc::clone(&hands) as _);
    LocalKms::restore(&backup, place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap();
    let kms = place.open_at(&hands);
    let at = |day: u64| Some(UNIX_EPOCH + Duration::from_millis(now + day * DAY));
    let key = block_on(kms.describe_key(&rotated)).unwrap();
    assert_eq!((key.current_version, key.next_rotation_date), (1, at(365)), "no second version 2");
    assert_eq!(block_on(kms.describe_key(&deleted)).unwrap().deletion_date, at(7), "time to cancel it");
    block_on(kms.cancel_key_deletion(&deleted)).unwrap();
    hands.set(now + 365 * DAY);
    assert_eq!(block_on(kms.describe_key(&rotated)).unwrap().current_version, 2);
    block_on(kms.verify_audit(None)).unwrap();
}
