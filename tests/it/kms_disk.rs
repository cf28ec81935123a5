//! The embedded KMS on disks that are full or read-only: a clear error that names the file, every key
//! that was acknowledged is there and opens, and the keystore goes on once the disk is well.

use crate::disk::{as_nobody, folders, mount, with_mounts};
use crate::support::child::{Running, tell, words};
use envelock::kms::{AuditQuery, Prices};
use envelock::{CreateKeyRequest, EncryptionContext, Error, ErrorKind, LocalKms, RootKey};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn open(keystore: &Path, root: &Path) -> Result<LocalKms, Error> {
    LocalKms::open(keystore, RootKey::file(root)?)
}

fn new_key(kms: &LocalKms) -> Result<String, Error> {
    pollster::block_on(kms.create_key(CreateKeyRequest::default())).map(|key| key.key_id)
}

/// A keystore, what was acknowledged of it, and what it encrypted.
struct Scene {
    keystore: PathBuf,
    root: PathBuf,
    keys: Vec<String>,
    blob: Vec<u8>,
}

impl Scene {
    fn new(folder: &Path) -> (Self, LocalKms) {
        let (keystore, root) = (folder.join("keys.db"), folder.join("root.key"));
        let kms = open(&keystore, &root).unwrap();
        let key = new_key(&kms).unwrap();
        let blob = pollster::block_on(kms.encrypt(&key, b"before", &EncryptionContext::new())).unwrap();
        (Self { keystore, root, keys: vec![key], blob: blob.ciphertext_blob }, kms)
    }

    fn open(&self) -> Result<LocalKms, Error> {
        open(&self.keystore, &self.root)
    }

    /// Exactly the keys that were acknowledged, and all usable.
    #[track_caller]
    fn is_whole(&self, kms: &LocalKms) {
        let mut found: Vec<_> = pollster::block_on(kms.list_keys()).unwrap().into_iter().map(|it| it.key_id).collect();
        let mut keys = self.keys.clone();
        found.sort();
        keys.sort();
        assert_eq!(found, keys);
        let context = EncryptionContext::new();
        assert_eq!(pollster::block_on(kms.decrypt(&self.blob, &context)).unwrap().plaintext(), b"before");
        let blob = pollster::block_on(kms.encrypt(&keys[0], b"now", &context)).unwrap().ciphertext_blob;
        assert_eq!(pollster::block_on(kms.decrypt(&blob, &context)).unwrap().plaintext(), b"now");
    }

    /// Opens again and goes on.
    #[track_caller]
    fn goes_on(&mut self) {
        let kms = self.open().unwrap();
        self.is_whole(&kms);
        self.keys.push(new_key(&kms).unwrap());
        self.is_whole(&kms);
        pollster::block_on(kms.close()).unwrap();
    }
}

/// `call` fails with kind Io and a text that names `path` and says what to do.
#[track_caller]
fn refused<T: Debug>(path: &Path, call: Result<T, Error>) {
    let error = call.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Io, "{text}");
    assert_eq!(error.path(), Some(path), "{text}");
    assert!(text.starts_with(path.to_str().unwrap()) && text.contains("; "), "{text}");
    tell(format!("refused: {text}"));
}

fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|it| (it.file_name().into_string().unwrap(), fs::read(it.path()).unwrap())).collect()
}

#[test]
fn a_keystore_on_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing() {
    const TEST: &str = "kms_disk::a_keystore_on_a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &bad);
        let (mut scene, kms) = Scene::new(&bad);
        let filler = bad.join("filler");
        let fill = || {
            let mut file = fs::File::create(&filler).unwrap();
            while file.write(&[0; 4_096]).is_ok() {}
        };
        fill();
        // There may be room yet in the last page of the log.
        let error = loop {
            match new_key(&kms) {
                Ok(key) => scene.keys.push(key),
                Err(error) => break error,
            }
            assert!(scene.keys.len() < 100, "the disk is not full");
        };
        refused(&scene.keystore, Err::<(), _>(error));
        // Nothing happens without its record, and so nothing is decrypted either.
        for _ in 0..3 {
            refused(&scene.keystore, pollster::block_on(kms.list_keys()));
            refused(&scene.keystore, new_key(&kms));
        }
        // With room again, the same connection goes on.
        fs::remove_file(&filler).unwrap();
        scene.keys.push(new_key(&kms).unwrap());
        scene.is_whole(&kms);
        fill();
        let _ = new_key(&kms).map(|key| scene.keys.push(key));
        pollster::block_on(kms.close()).unwrap();

        // Keystores that cannot be made: what is left is no file, or an empty one, and the next try makes it.
        fill();
        let names = || content(&bad).into_keys().filter(|name| !name.starts_with("keys.db")).collect::<Vec<_>>();
        let before = names();
        for (keystore, root, named) in
            [("one.db", good.join("one.key"), "one.db"), ("two.db", bad.join("two.key"), "two.key")]
        {
            refused(&bad.join(named), open(&bad.join(keystore), &root));
            assert!(fs::read(bad.join(keystore)).unwrap_or_default().is_empty());
            let left: Vec<_> = names().into_iter().filter(|name| !before.contains(name)).collect();
            assert!(left.is_empty() || left == [keystore], "{left:?}");
            let root_made = root.exists();
            fs::remove_file(&filler).unwrap();
            let kms = open(&bad.join(keystore), &root).unwrap();
            assert!(kms.made_keystore() && kms.made_root_key_file() != root_made, "{keystore}");
            new_key(&kms).unwrap();
            pollster::block_on(kms.close()).unwrap();
            for name in content(&bad).into_keys().filter(|name| name.starts_with(&keystore[..3])) {
                fs::remove_file(bad.join(name)).unwrap();
            }
            fill();
        }
        fs::remove_file(&filler).unwrap();
        scene.goes_on();
    });
}

/// What is no call on the KMS works: it needs no room for a record.
#[track_caller]
fn can_be_looked_into(kms: &LocalKms, records: u64, backup: &Path) {
    let head = pollster::block_on(kms.audit_head()).unwrap();
    let report = pollster::block_on(kms.verify_audit(Some(&head))).unwrap();
    assert_eq!(report.records, records);
    let found = pollster::block_on(kms.query_audit(&AuditQuery::default().newest_first().limit(3))).unwrap();
    assert_eq!(found[0].sequence, records);
    let mut lines = Vec::new();
    assert_eq!(pollster::block_on(kms.export_audit(&AuditQuery::default(), &mut lines)).unwrap(), records);
    pollster::block_on(kms.cost_report(Prices::AWS)).unwrap();
    pollster::block_on(kms.backup(backup)).unwrap();
    fs::remove_file(backup).unwrap();
}

#[test]
fn on_a_full_disk_the_audit_trail_is_read_and_the_keystore_backed_up_in_a_fresh_process_too() {
    const TEST: &str =
        "kms_disk::on_a_full_disk_the_audit_trail_is_read_and_the_keystore_backed_up_in_a_fresh_process_too";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &bad);
        let (mut scene, kms) = Scene::new(&bad);
        let records = pollster::block_on(kms.audit_head()).unwrap().sequence();
        pollster::block_on(kms.close()).unwrap();
        let filler = bad.join("filler");
        let fill = || {
            let mut file = fs::File::create(&filler).unwrap();
            while file.write(&[0; 4_096]).is_ok() {}
        };
        fill();
        // There is no room for SQLite's shared index of the log, nor for a log.
        assert!(!bad.join("keys.db-shm").exists());
        let kms = scene.open().unwrap();
        can_be_looked_into(&kms, records, &good.join("backup.db"));
        refused(&scene.keystore, new_key(&kms));
        refused(&scene.keystore, pollster::block_on(kms.list_keys()));
        can_be_looked_into(&kms, records, &good.join("backup.db"));
        // Who comes besides is told that it is busy, or that the disk is full; nothing is harmed.
        let error = KmsProcess::open(&scene).unwrap_err();
        assert!(error.contains("Busy") || error.contains("Io"), "{error}");
        tell(format!("refused: {error}"));
        // With room again the same handle goes on.
        fs::remove_file(&filler).unwrap();
        scene.keys.push(new_key(&kms).unwrap());
        scene.is_whole(&kms);
        pollster::block_on(kms.close()).unwrap();

        // Somebody who had it open before keeps it, and others share his index.
        let first = scene.open().unwrap();
        scene.keys.push(new_key(&first).unwrap());
        let records = pollster::block_on(first.audit_head()).unwrap().sequence();
        fill();
        let told = KmsProcess::open(&scene).unwrap();
        assert_eq!(told, format!("verified {records}"));
        can_be_looked_into(&first, records, &good.join("backup.db"));
        fs::remove_file(&filler).unwrap();
        scene.is_whole(&first);
        pollster::block_on(first.close()).unwrap();
        scene.goes_on();
    });
}

#[test]
fn a_backup_or_a_restore_to_a_disk_that_fills_up_leaves_nothing_there() {
    const TEST: &str = "kms_disk::a_backup_or_a_restore_to_a_disk_that_fills_up_leaves_nothing_there";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &bad);
        let (scene, kms) = Scene::new(&good);
        for _ in 0..200 {
            pollster::block_on(kms.decrypt(&scene.blob, &EncryptionContext::new())).unwrap();
        }
        let whole = good.join("whole.db");
        pollster::block_on(kms.backup(&whole)).unwrap();
        // Restored, it takes more pages than the copy that it begins as: those of the index, which is made anew.
        let sql = rusqlite::Connection::open(&whole).unwrap();
        sql.execute_batch("DROP TABLE audit_by_key; VACUUM").unwrap();
        drop(sql);
        let pages = usize::try_from(fs::metadata(&whole).unwrap().len() / 4_096).unwrap();
        let root = || RootKey::file(&scene.root).unwrap();
        let (backup, restored) = (bad.join("b.db"), bad.join("keys.db"));
        let (mut backed_up, mut put_back) = (0, 0);
        // Room for nothing, for more and more of it, and for all.
        for room in 0..pages + 32 {
            let mut filler = fs::File::create(bad.join("filler")).unwrap();
            while filler.write(&[0; 4_096]).is_ok() {}
            let filled = filler.metadata().unwrap().len();
            filler.set_len(filled - 4_096 * room as u64).unwrap();
            let done = pollster::block_on(kms.backup(&backup));
            let nothing_else = |name: &str| {
                let names: Vec<_> = content(&bad).into_keys().filter(|it| it != "filler").collect();
                assert!(names.is_empty() || names == [name], "{room}: {names:?}");
            };
            nothing_else("b.db");
            assert_eq!(done.is_ok(), backup.exists(), "{room} of {pages} pages");
            match done {
                Ok(()) => {
                    fs::remove_file(&backup).unwrap();
                    backed_up += 1;
                }
                failed => refused(&backup, failed),
            }
            let done = LocalKms::restore(&whole, &restored, root(), envelock::kms::RestoreOptions::default());
            nothing_else("keys.db");
            assert_eq!(done.is_ok(), restored.exists(), "{room} of {pages} pages");
            match done {
                Ok(_) => {
                    fs::remove_file(&restored).unwrap();
                    put_back += 1;
                }
                failed => refused(&restored, failed),
            }
        }
        assert!(backed_up > 0 && backed_up < pages + 32, "{backed_up} of {pages} pages");
        assert!(put_back > 0 && put_back < 32, "no disk filled up under what restoring adds: {put_back}");
        scene.is_whole(&kms);
    });
}

/// Another process, which opens a keystore and verifies its trail.
struct KmsProcess;

impl KmsProcess {
    fn open(scene: &Scene) -> Result<String, String> {
        const TEST: &str = "kms_disk::another_process_verifies_the_trail";
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let child = Running::start(TEST, &["verify", &path(&scene.keystore), &path(&scene.root)]);
        let told = child.succeed().pop().unwrap();
        match told.strip_prefix("failed ") {
            Some(error) => Err(error.to_owned()),
            None => Ok(told),
        }
    }
}

#[test]
fn another_process_verifies_the_trail() {
    // Nothing by itself: the test above runs it in a process of its own.
    let Some(words) = words() else { return };
    let verified = open(Path::new(&words[1]), Path::new(&words[2])).and_then(|kms| {
        let report = pollster::block_on(kms.verify_audit(None))?;
        pollster::block_on(kms.close()).map(|()| report.records)
    });
    match verified {
        Ok(records) => tell(format!("verified {records}")),
        Err(error) => tell(format!("failed {:?} {error}", error.kind())),
    }
}

#[test]
fn a_keystore_on_a_read_only_disk_is_refused_and_unharmed() {
    const TEST: &str = "kms_disk::a_keystore_on_a_read_only_disk_is_refused_and_unharmed";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], &bad);
        let (mut scene, kms) = Scene::new(&bad);
        pollster::block_on(kms.close()).unwrap();
        drop(kms);
        mount(&["-o", "remount,ro"], &bad);
        let before = content(&bad);
        refused(&scene.keystore, scene.open());
        refused(&bad.join("new.db"), open(&bad.join("new.db"), &good.join("new.key")));
        assert!(content(&bad) == before && content(&good).is_empty());
        mount(&["-o", "remount,rw"], &bad);
        scene.goes_on();
    });
}

#[test]
fn a_keystore_in_a_folder_that_may_not_be_written_is_refused_and_unharmed() {
    const TEST: &str = "kms_disk::a_keystore_in_a_folder_that_may_not_be_written_is_refused_and_unharmed";
    as_nobody(TEST, |folder| {
        let (good, bad) = folders(folder);
        let (mut scene, kms) = Scene::new(&bad);
        pollster::block_on(kms.close()).unwrap();
        drop(kms);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&bad, 0o555);
        let before = content(&bad);
        refused(&scene.keystore, scene.open());
        refused(&bad.join("new.db"), open(&bad.join("new.db"), &good.join("new.key")));
        assert!(content(&bad) == before && content(&good).is_empty());
        mode(&bad, 0o755);
        scene.goes_on();
        // A keystore that may be read only: SQLite would make files beside it that may not be written either.
        mode(&scene.keystore, 0o400);
        let before = content(&bad);
        refused(&scene.keystore, scene.open());
        assert!(content(&bad) == before);
        mode(&scene.keystore, 0o600);
        scene.goes_on();
    });
}
