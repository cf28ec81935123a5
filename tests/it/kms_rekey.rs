//! Another root key, and a backup in the keystore's place, while processes are killed and others use the keystore.

use crate::kms_helper::{PATIENCE, kill_writing, open};
use crate::kms_reports::find_recorded;
use crate::support::child::{Running, hear, long, tell, words};
use crate::support::random::Random;
use crate::support::{hex, say, unhex};
use envelock::kms::RestoreOptions;
use envelock::{CreateKeyRequest, EncryptionContext, Error, ErrorKind, KmsOptions, LocalKms, RootKey};
use pollster::block_on;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

fn root(folder: &Path) -> RootKey {
    RootKey::file(folder.join("root.key")).unwrap()
}

fn new_key(kms: &LocalKms) -> Result<String, Error> {
    block_on(kms.create_key(CreateKeyRequest::default())).map(|key| key.key_id)
}

fn kills() -> u32 {
    if long() { 200 } else { 20 }
}

/// Everything that was told is there, and everything is in order.
#[track_caller]
fn is_whole(kms: &LocalKms, told: &[String]) {
    let context = EncryptionContext::new();
    let keys = block_on(kms.list_keys()).unwrap();
    for line in told {
        match *line.split(' ').collect::<Vec<_>>() {
            ["KEY", key, blob] => {
                assert!(keys.iter().any(|it| it.key_id == key), "lost: {line}");
                assert_eq!(block_on(kms.decrypt(&unhex(blob), &context)).unwrap().plaintext(), key.as_bytes());
            }
            _ => continue,
        }
    }
    block_on(kms.check()).unwrap();
}

/// What the trail has of them at least.
fn calls(told: &[String]) -> Vec<String> {
    let keys = told.iter().filter_map(|line| line.split(' ').nth(1));
    keys.flat_map(|key| ["CreateKey", "Encrypt"].map(|event| format!("CALLED {event} {key}"))).collect()
}

/// Makes keys and gives the keystore one root key after the other, until it is killed or has done so `times`.
fn rekey_often(folder: &Path, times: u32) {
    let mut kms = open(folder).unwrap();
    tell("OPENED");
    for _ in 0..times {
        loop {
            let done = (|| {
                let key = new_key(&kms)?;
                let blob = block_on(kms.encrypt(&key, key.as_bytes(), &EncryptionContext::new()))?.ciphertext_blob;
                tell(format!("KEY {key} {}", hex(&blob)));
                tell("BEGIN");
                block_on(kms.rekey(root(folder)))?;
                tell("DONE");
                Ok::<_, Error>(())
            })();
            match done {
                Ok(()) => break,
                // The other process was first.
                Err(error) if error.kind() == ErrorKind::NoMatchingKey => {
                    assert!(error.to_string().contains("new root key"), "{error}");
                    drop(kms);
                    kms = open(folder).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_rekey_killed_at_any_instant_leaves_a_keystore_that_its_root_key_file_opens() {
    const TEST: &str = "kms_rekey::a_rekey_killed_at_any_instant_leaves_a_keystore_that_its_root_key_file_opens";
    if let Some(words) = words() {
        return rekey_often(Path::new(&words[0]), u32::MAX);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (mut told, mut inside, mut between, mut random) = (Vec::new(), 0, 0, Random::new(0x7E4E));
    let (mut rekeys, mut within) = (Vec::new(), 0);
    for kill in 0..kills() {
        let mut child = Running::start(TEST, &[path]);
        assert_eq!(child.line().as_deref(), Some("OPENED"));
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        // Every second one in the middle of a rekey's transaction, the others at any instant.
        let begun: &dyn Fn(&str) -> bool = &|told| told == "BEGIN";
        let keystore = [folder.path().join("keys.db")];
        let (writing, lines) = kill_writing(child, &keystore, &mut random, (kill % 2 == 0).then_some(begun));
        let last = |word: &str| lines.iter().rposition(|line| line == word);
        let rekeying = last("BEGIN") > last("DONE");
        within += u32::from(rekeying);
        inside += u32::from(rekeying && writing);
        rekeys.extend(lines.iter().filter(|line| *line == "DONE").map(|_| "CALLED RekeyKeystore ".to_owned()));
        told.extend(lines.into_iter().filter(|line| line.starts_with("KEY ")));
        between += u32::from(folder.path().join("root.key.new").exists());
        let kms = open(folder.path()).unwrap();
        find_recorded(&kms, 0, &[rekeys.as_slice(), &calls(&told)].concat()).unwrap();
        is_whole(&kms, &told);
        block_on(kms.close()).unwrap();
    }
    let kept = told.len();
    say(format!(
        "rekey: {} kills, {within} inside a rekey, {inside} while that held SQLite's write lock, {between} with a root key \
         beside the old one; {} rekeys done, {kept} keys acknowledged, none lost",
        kills(),
        rekeys.len()
    ));
    assert!(inside * 2 >= kills(), "only {inside} kills fell inside a rekey's transaction");
    assert!(!rekeys.is_empty(), "none was done");
}

#[test]
fn two_processes_that_replace_the_root_key_at_once_never_lose_it() {
    const TEST: &str = "kms_rekey::two_processes_that_replace_the_root_key_at_once_never_lose_it";
    if let Some(words) = words() {
        return rekey_often(Path::new(&words[0]), words[1].parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let path = folder.path().to_str().unwrap();
    let times = if long() { "60" } else { "12" };
    let children = [(); 2].map(|()| Running::start(TEST, &[path, times]));
    let told: Vec<String> = children.into_iter().flat_map(Running::succeed).collect();
    let rekeys = told.iter().filter(|line| *line == "DONE").count();
    assert_eq!(rekeys, 2 * times.parse::<usize>().unwrap());
    is_whole(&open(folder.path()).unwrap(), &told);
    assert!(!folder.path().join("root.key.new").exists());
}

#[test]
fn another_process_is_told_to_reopen_and_finds_everything_then() {
    const TEST: &str = "kms_rekey::another_process_is_told_to_reopen_and_finds_everything_then";
    if let Some(words) = words() {
        let folder = Path::new(&words[0]);
        let kms = open(folder).unwrap();
        tell("OPENED");
        assert_eq!(hear(), "rekeyed");
        let error = new_key(&kms).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
        tell(format!("REFUSED {error}"));
        block_on(kms.close()).unwrap();
        let kms = open(folder).unwrap();
        return tell(format!("MADE {}", new_key(&kms).unwrap()));
    }
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let key = new_key(&kms).unwrap();
    let mut child = Running::start(TEST, &[folder.path().to_str().unwrap()]);
    assert_eq!(child.line().as_deref(), Some("OPENED"));
    block_on(kms.rekey(root(folder.path()))).unwrap();
    child.say("rekeyed");
    let told = child.succeed();
    assert!(told[1].contains("open it with its new root key") && !told[1].contains("changed by"), "{}", told[1]);
    let keys = block_on(kms.list_keys()).unwrap();
    assert!(keys.iter().any(|it| it.key_id == key) && keys.iter().any(|it| told[2].ends_with(&it.key_id)));
}

#[test]
fn a_restore_killed_at_any_instant_leaves_the_old_keystore_or_the_backup_whole() {
    const TEST: &str = "kms_rekey::a_restore_killed_at_any_instant_leaves_the_old_keystore_or_the_backup_whole";
    if let Some(words) = words() {
        let folder = Path::new(&words[0]);
        tell("BEGIN");
        let options = RestoreOptions::default().move_existing_aside();
        LocalKms::restore(folder.join("backup.db"), folder.join("keys.db"), root(folder), options).unwrap();
        tell("DONE");
        // Killed here at the latest.
        return drop(hear());
    }
    let scene = Scene::new();
    let (mut old, mut new, mut done, mut random) = (0, 0, 0, Random::new(0x4E57));
    // How long one takes, a little more: most are to be killed before they are done.
    let mut latest = 20_000;
    for round in 0..kills() {
        let folder = tempfile::tempdir().unwrap();
        let with_log = round % 2 == 1;
        scene.put(folder.path(), with_log);
        let mut child = Running::start(TEST, &[folder.path().to_str().unwrap()]);
        assert_eq!(child.line().as_deref(), Some("BEGIN"));
        let started = Instant::now();
        if round == 0 {
            assert_eq!(child.line().as_deref(), Some("DONE"));
            latest = u64::try_from(started.elapsed().as_micros()).unwrap();
        } else {
            // Every second one early, so that half are killed before they are done.
            let most = if round % 4 < 2 { latest } else { latest / 3 };
            std::thread::sleep(Duration::from_micros(random.next() % most.max(1)));
        }
        let acknowledged = child.kill().iter().any(|line| line == "DONE");
        latest = if acknowledged && round > 0 { latest / 2 } else { latest * 11 / 10 };
        let kms = LocalKms::open_existing(folder.path().join("keys.db"), root(folder.path())).unwrap();
        let record = acknowledged.then(|| "CALLED RestoreKeystore ".to_owned());
        find_recorded(&kms, 0, &[calls(&scene.told[..1]).as_slice(), record.as_slice()].concat()).unwrap();
        is_whole(&kms, &scene.told[..1]);
        let keys = block_on(kms.list_keys()).unwrap().len();
        match keys {
            1 => {
                new += 1;
                let aside = folder.path().join("keys.db.replaced-1");
                let aside = LocalKms::open_existing(aside, root(folder.path())).unwrap();
                find_recorded(&aside, 0, &calls(&scene.told)).unwrap();
                is_whole(&aside, &scene.told);
            }
            2 => {
                old += 1;
                assert!(!acknowledged, "it was acknowledged, and the old keystore is there");
                find_recorded(&kms, 0, &calls(&scene.told)).unwrap();
                is_whole(&kms, &scene.told);
            }
            _ => panic!("{keys} keys"),
        }
        done += u32::from(acknowledged);
    }
    say(format!(
        "restore: {} kills, {} between its begin and its end; {old} left the old keystore, {new} the backup ({done} had \
         been acknowledged)",
        kills(),
        kills() - done
    ));
    assert!(done * 2 <= kills(), "{done} of {} had ended", kills());
    assert!(old > 0 && new > 0, "all kills fell on one side");
}

/// A backup with one key; a keystore with a second one, which lies in the log, or not.
struct Scene {
    told: Vec<String>,
    root: Vec<u8>,
    backup: Vec<u8>,
    whole: Vec<u8>,
    file: Vec<u8>,
    log: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let kms = open(folder.path()).unwrap();
        let make = || {
            let key = new_key(&kms).unwrap();
            let blob = block_on(kms.encrypt(&key, key.as_bytes(), &EncryptionContext::new())).unwrap();
            format!("KEY {key} {}", hex(&blob.ciphertext_blob))
        };
        let first = make();
        block_on(kms.backup(path("backup.db"))).unwrap();
        // Somebody who reads keeps the log from being folded.
        let reader = rusqlite::Connection::open(path("keys.db")).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
        let second = make();
        // By other processes: closing a descriptor here would drop SQLite's locks.
        let copy = |name: &str| {
            let to = path("copy");
            assert!(std::process::Command::new("cp").arg(path(name)).arg(&to).status().unwrap().success());
            fs::read(to).unwrap()
        };
        let (file, log) = (copy("keys.db"), copy("keys.db-wal"));
        assert!(log.len() > 4_000);
        drop(reader);
        block_on(kms.close()).unwrap();
        Self {
            told: vec![first, second],
            root: fs::read(path("root.key")).unwrap(),
            backup: fs::read(path("backup.db")).unwrap(),
            whole: fs::read(path("keys.db")).unwrap(),
            file,
            log,
        }
    }

    fn put(&self, folder: &Path, with_log: bool) {
        fs::write(folder.join("root.key"), &self.root).unwrap();
        fs::set_permissions(folder.join("root.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(folder.join("backup.db"), &self.backup).unwrap();
        fs::write(folder.join("keys.db"), if with_log { &self.file } else { &self.whole }).unwrap();
        if with_log {
            fs::write(folder.join("keys.db-wal"), &self.log).unwrap();
        }
    }
}

#[test]
fn a_keystore_that_another_process_has_open_is_not_replaced() {
    const TEST: &str = "kms_rekey::a_keystore_that_another_process_has_open_is_not_replaced";
    if let Some(words) = words() {
        let kms = open(Path::new(&words[0])).unwrap();
        tell("OPENED");
        hear();
        return tell(format!("MADE {}", new_key(&kms).unwrap()));
    }
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    scene.put(folder.path(), true);
    let mut child = Running::start(TEST, &[folder.path().to_str().unwrap()]);
    assert_eq!(child.line().as_deref(), Some("OPENED"));
    let restore = || {
        let options = RestoreOptions::default().move_existing_aside();
        LocalKms::restore(folder.path().join("backup.db"), folder.path().join("keys.db"), root(folder.path()), options)
    };
    for _ in 0..3 {
        let error = restore().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("close it everywhere"), "{error}");
    }
    child.say("go on");
    let told = child.succeed();
    let kms = open(folder.path()).unwrap();
    let keys = block_on(kms.list_keys()).unwrap();
    assert!(keys.iter().any(|it| told[1].ends_with(&it.key_id)) && keys.len() == 3);
    block_on(kms.close()).unwrap();
    restore().unwrap();
    assert_eq!(block_on(open(folder.path()).unwrap().list_keys()).unwrap().len(), 1);
}

#[test]
fn openings_while_a_keystore_is_restored_again_and_again_see_one_or_the_other() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    scene.put(folder.path(), false);
    let rounds = if long() { 200 } else { 25 };
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while busy.load(std::sync::atomic::Ordering::Relaxed) {
                let options = KmsOptions::default().busy_timeout(PATIENCE).must_exist();
                match LocalKms::open_with(folder.path().join("keys.db"), root(folder.path()), options) {
                    Ok(kms) => {
                        is_whole(&kms, &scene.told[..1]);
                        block_on(kms.close()).unwrap();
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut done = 0;
        let started = Instant::now();
        while done < rounds && started.elapsed() < PATIENCE {
            let options = RestoreOptions::default().move_existing_aside();
            let (backup, keystore) = (folder.path().join("backup.db"), folder.path().join("keys.db"));
            match LocalKms::restore(backup, keystore, root(folder.path()), options) {
                Ok(_) => done += 1,
                Err(error) if error.kind() == ErrorKind::Busy => {}
                Err(error) => {
                    busy.store(false, std::sync::atomic::Ordering::Relaxed);
                    panic!("{error}");
                }
            }
        }
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(done > 0, "it never came to restoring");
    });
}
