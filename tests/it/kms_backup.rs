//! The keystore file alone is the keystore, once its last handle is dropped, and its backups are.

use crate::kms_helper::{PATIENCE, open, wait};
use crate::support::child::{Running, peak_kib, tell, words};
use crate::support::{Rest, say};
use envelock::kms::RestoreOptions;
use envelock::{
    CreateKeyRequest, EncryptionContext, Envelope, Error, ErrorKind, KmsOptions, LocalKms, RootKey, blocking,
};
use pollster::block_on;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn new_key(kms: &LocalKms) -> String {
    block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id
}

/// The README's lines.
fn seal(folder: &Path) -> Result<Vec<u8>, Error> {
    let envelope = Envelope::builder(open(folder)?.provider("alias/envelock/default")?).build()?;
    blocking::Envelope::new(envelope).encrypt(b"attack at dawn", &context())
}

fn unseal(keystore: &Path, root: &Path, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let kms = LocalKms::open_existing(keystore, RootKey::file(root)?)?;
    let envelope = Envelope::builder(kms.provider("alias/envelock/default")?).build()?;
    blocking::Envelope::new(envelope).decrypt(sealed, &context())
}

#[test]
fn what_the_readmes_lines_leave_is_whole_in_two_files() {
    let mut at_once = 0;
    for _ in 0..5 {
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = seal(folder.path()).unwrap();
        // A drop waits for a second, which a disk may take longer than.
        let (log, started) = (folder.path().join("keys.db-wal"), Instant::now());
        at_once += u32::from(!log.exists());
        while log.exists() {
            assert!(started.elapsed() < PATIENCE, "the last handle's drop closes the file");
            std::thread::sleep(Duration::from_millis(5));
        }
        for name in ["keys.db", "root.key"] {
            fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        let opened = unseal(&copy.path().join("keys.db"), &copy.path().join("root.key"), &sealed).unwrap();
        assert_eq!(opened, b"attack at dawn");
    }
    assert!(at_once > 0, "no drop waits until the file is closed");
}

/// The copying must not close a descriptor of the keystore in this process, which would drop SQLite's locks.
fn copied_by_another_process(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").args([from, to]).status().unwrap().success());
}

#[test]
fn after_each_change_the_file_alone_has_it_though_the_keystore_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let (keystore, root, copy) =
        (folder.path().join("keys.db"), folder.path().join("root.key"), folder.path().join("copy.db"));
    let keys_of_the_copy = || {
        let _ = fs::remove_file(&copy);
        copied_by_another_process(&keystore, &copy);
        let copy = LocalKms::open_existing(&copy, RootKey::file(&root).unwrap()).unwrap();
        block_on(copy.list_keys()).unwrap()
    };
    assert_eq!(keys_of_the_copy(), [], "made");
    let key = new_key(&kms);
    assert_eq!(keys_of_the_copy().len(), 1);
    block_on(kms.rotate(&key)).unwrap();
    assert_eq!(keys_of_the_copy()[0].current_version, 2);
    block_on(kms.encrypt("alias/envelock/default", b"x", &context())).unwrap();
    assert_eq!(keys_of_the_copy().len(), 2, "a managed key");
}

#[test]
fn a_backup_made_while_others_write_is_the_state_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let sealed = block_on(kms.encrypt("alias/envelock/default", b"x", &context())).unwrap().ciphertext_blob;
    let busy = AtomicBool::new(true);
    let root = folder.path().join("root.key");
    std::thread::scope(|scope| {
        let _rest = Rest(&busy);
        // Another connection, as another process has it.
        scope.spawn(|| {
            let other = open(folder.path()).unwrap();
            while busy.load(Ordering::Relaxed) {
                new_key(&other);
            }
        });
        let mut before = 0;
        for round in 0..10 {
            new_key(&kms);
            let path = folder.path().join(format!("backup-{round}.db"));
            block_on(kms.backup(&path)).unwrap();
            let backup = LocalKms::open_existing(&path, RootKey::file(&root).unwrap()).unwrap();
            let keys = block_on(backup.list_keys()).unwrap().len();
            assert!(keys > before, "{keys} keys after {before}");
            before = keys;
            assert_eq!(block_on(backup.decrypt(&sealed, &context())).unwrap().plaintext(), b"x");
            assert_eq!(backup.keystore_id(), kms.keystore_id());
        }
    });
    let there = folder.path().join("backup-0.db");
    let size = fs::metadata(&there).unwrap().len();
    let error = block_on(kms.backup(&there)).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidInput, Some(&*there)));
    assert_eq!(fs::metadata(&there).unwrap().len(), size);
    assert!(block_on(kms.backup(folder.path().join("keys.db"))).is_err(), "never over itself");
    block_on(kms.close()).unwrap();
    assert_eq!(block_on(kms.backup(folder.path().join("late.db"))).unwrap_err().kind(), ErrorKind::Storage);
    assert!(!folder.path().join("late.db").exists());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_has_every_page_as_the_keystore_has_it_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    (0..20).for_each(|_| drop(new_key(&kms)));
    let to = tempfile::tempdir().unwrap();
    let backup = to.path().join("b.db");
    block_on(kms.backup(&backup)).unwrap();
    assert_eq!(names(to.path()), ["b.db"]);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    block_on(kms.close()).unwrap();
    let [keystore, backup] = [folder.path().join("keys.db"), backup].map(|path| fs::read(path).unwrap());
    assert_eq!(keystore.len(), backup.len());
    // SQLite's file format, 1.3: what says that there is no log, and SQLite's own counts of changes.
    let differing = |at: &usize| keystore[*at] != backup[*at];
    let allowed = |at: &usize| [18..20, 24..28, 40..44, 92..100].iter().any(|it| it.contains(at));
    let found: Vec<_> = (0..backup.len()).filter(differing).filter(|at| !allowed(at)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(backup[18..20], [1, 1]);
}

#[test]
fn backing_up_and_restoring_take_no_more_memory_where_the_keystore_is_long() {
    const TEST: &str = "kms_backup::backing_up_and_restoring_take_no_more_memory_where_the_keystore_is_long";
    const MIB: u64 = 48;
    const CONTEXT: usize = 1_500;
    const GROWTH_MAX_KIB: u64 = 12 << 10;
    if let Some(words) = words() {
        let folder = Path::new(&words[0]);
        let (backup, root) = (folder.join("b.db"), RootKey::file(folder.join("root.key")).unwrap());
        if words[1] == "backup" {
            let kms = open(folder).unwrap();
            let before = peak_kib();
            block_on(kms.backup(&backup)).unwrap();
            return tell(peak_kib() - before);
        }
        let before = peak_kib();
        LocalKms::restore(backup, folder.join("restored.db"), root, RestoreOptions::default()).unwrap();
        return tell(peak_kib() - before);
    }
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let options = KmsOptions::default().risk_losing_audit_records(PATIENCE);
    let root = || RootKey::file(folder.path().join("root.key")).unwrap();
    let keystore = folder.path().join("keys.db");
    let kms = LocalKms::open_with(&keystore, root(), options).unwrap();
    let key = new_key(&kms);
    // The trail has each call's context.
    let context = EncryptionContext::from([("long", "x".repeat(CONTEXT))]);
    let blob = block_on(kms.encrypt(&key, b"x", &context)).unwrap().ciphertext_blob;
    while fs::metadata(&keystore).unwrap().len() < MIB << 20 {
        (0..500).for_each(|_| drop(wait(kms.decrypt(&blob, &context)).unwrap()));
        // A change of a key writes the records of before, and folds the log.
        block_on(kms.update_key_description(&key, "")).unwrap();
    }
    block_on(kms.close()).unwrap();
    let growth = ["backup", "restore"].map(|what| {
        let told = Running::start(TEST, &[folder.path().to_str().unwrap(), what]).succeed();
        told[0].parse::<u64>().unwrap()
    });
    for name in ["b.db", "restored.db"] {
        assert!(fs::metadata(folder.path().join(name)).unwrap().len() > MIB << 20, "{name}");
    }
    say(format!("backup: {MIB} MiB: resident memory grew by {} KiB, restoring by {} KiB", growth[0], growth[1]));
    assert!(growth.iter().all(|it| *it < GROWTH_MAX_KIB), "{growth:?} KiB");
    let restored = LocalKms::open_existing(folder.path().join("restored.db"), root()).unwrap();
    assert_eq!(block_on(restored.decrypt(&blob, &context)).unwrap().plaintext(), b"x");
}

#[test]
fn writers_that_never_rest_let_each_other_come_next() {
    const CHANGES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    // Both are open before either begins.
    let handles = [(); 2].map(|()| open(folder.path()).unwrap());
    let start = std::sync::Barrier::new(2);
    let busy = AtomicBool::new(true);
    // Until one of both has made its changes.
    let changes = |kms: &LocalKms| {
        start.wait();
        let _rest = Rest(&busy);
        (0..CHANGES).take_while(|_| busy.load(Ordering::Relaxed)).inspect(|_| drop(new_key(kms))).count()
    };
    let made = std::thread::scope(|scope| {
        let other = scope.spawn(|| changes(&handles[1]));
        [changes(&handles[0]), other.join().unwrap()]
    });
    say(format!("two writers that never rest: {made:?} changes"));
    assert!(made.iter().all(|it| *it > CHANGES / 2), "{made:?}");
}

#[test]
fn a_backup_older_than_a_rotation_says_which_version_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let key = new_key(&kms);
    let backup = folder.path().join("backup.db");
    block_on(kms.backup(&backup)).unwrap();
    block_on(kms.rotate(&key)).unwrap();
    let envelope =
        |kms: &LocalKms| blocking::Envelope::new(Envelope::builder(kms.provider(&key).unwrap()).build().unwrap());
    let sealed = envelope(&kms).encrypt(b"x", &context()).unwrap();
    let root = RootKey::file(folder.path().join("root.key")).unwrap();
    let restored = LocalKms::open_existing(&backup, root).unwrap();
    let error = envelope(&restored).decrypt(&sealed, &context()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::KeyState, Some(&*backup)), "{error}");
    let text = error.to_string();
    assert!(text.contains("version 2") && text.contains(&key) && text.contains("older backup"), "{text}");
}

#[test]
fn a_backup_of_a_keystore_that_was_tampered_with_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    new_key(&kms);
    let keystore = folder.path().join("keys.db");
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute(\"update keys set state = 'Disabled'\")\nc.commit()";
    let changed = std::process::Command::new("python3").args(["-c", script]).arg(&keystore).status().unwrap();
    assert!(changed.success());
    let error = block_on(kms.backup(folder.path().join("b.db"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert!(!folder.path().join("b.db").exists());
}

#[test]
fn dropping_the_last_handle_waits_for_the_file_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    new_key(&kms);
    // Somebody else holds the file for longer than a drop waits, and a call of ours waits for it.
    let sql = rusqlite::Connection::open(folder.path().join("keys.db")).unwrap();
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut pending = Box::pin({
        let kms = kms.clone();
        async move { kms.create_key(CreateKeyRequest::default()).await }
    });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(pending.as_mut().poll(&mut context).is_pending());
    drop(pending);
    let started = Instant::now();
    drop(kms);
    let waited = started.elapsed();
    // Less by far than a call of ours would wait.
    assert!(waited > Duration::from_millis(900) && waited < PATIENCE / 2, "{waited:?}");
    sql.execute_batch("ROLLBACK").unwrap();
}
