//! The embedded KMS in recorded form: every prefix of the file operations of a process that makes or
//! changes a keystore, SQLite's own among them, is replayed as a crash could leave it, and opens with
//! everything that had been acknowledged by then. The process is recorded by `kms_record/record.c`.

mod disk;
mod others;

use crate::kms_helper::open;
use crate::kms_reports::{find_recorded, find_reported};
use crate::support::child::{Running, leftovers, long, words};
use crate::support::random::Random;
use crate::support::{hex, say};
use disk::{Disk, Folder, Keep, Op, parse};
use envelock::kms::RestoreOptions;
use envelock::{CreateKeyRequest, EncryptionContext, LocalKms, RootKey};
use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tempfile::TempDir;

#[test]
fn a_keystore_creation_cut_off_after_any_file_operation_is_whole_or_begins_again() {
    const TEST: &str = "kms_record::a_keystore_creation_cut_off_after_any_file_operation_is_whole_or_begins_again";
    if play(create) {
        return;
    }
    let Some(recording) = Recording::of(TEST, Folder::new(), Vec::new()) else { return };
    let counts = recording.replay();
    // The root key is kept by those that begin again.
    assert!(counts.without_root_key > 0 && counts.begun_again > 0 && counts.opened > 0, "{counts:?}");
    assert!(recording.lost_without_syncs());
}

#[test]
fn a_keystore_change_cut_off_after_any_file_operation_loses_nothing_acknowledged() {
    const TEST: &str = "kms_record::a_keystore_change_cut_off_after_any_file_operation_loses_nothing_acknowledged";
    if play(change) {
        return;
    }
    let folder = memory_folder();
    let kms = open(folder.path()).unwrap();
    pollster::block_on(kms.create_key(CreateKeyRequest::default().alias("alias/first"))).unwrap();
    pollster::block_on(kms.close()).unwrap();
    drop(kms);
    let Some(recording) = Recording::of(TEST, read(folder.path()), Vec::new()) else { return };
    let counts = recording.replay();
    assert_eq!((counts.without_root_key, counts.begun_again), (0, 0), "{counts:?}");
    assert!(recording.lost_without_syncs());
}

#[test]
fn a_rekey_cut_off_after_any_file_operation_opens_with_its_root_key_file() {
    const TEST: &str = "kms_record::a_rekey_cut_off_after_any_file_operation_opens_with_its_root_key_file";
    if play(rekey) {
        return;
    }
    let folder = memory_folder();
    let kms = open(folder.path()).unwrap();
    pollster::block_on(kms.create_key(CreateKeyRequest::default().alias("alias/first"))).unwrap();
    pollster::block_on(kms.close()).unwrap();
    drop(kms);
    let Some(recording) = Recording::of(TEST, read(folder.path()), Vec::new()) else { return };
    let counts = recording.replay();
    assert_eq!((counts.without_root_key, counts.begun_again), (0, 0), "{counts:?}");
    assert!(recording.lost_without_syncs());
}

/// Does the work, if this is the process that is recorded.
fn play(work: fn(&Path, Acknowledged<'_>)) -> bool {
    let Some(words) = words() else { return false };
    let mut said = fs::OpenOptions::new().append(true).open(&words[1]).unwrap();
    // Each line in one call, since each is one record.
    work(Path::new(&words[0]), &mut |line| said.write_all(format!("{line}\n").as_bytes()).unwrap());
    true
}

fn create(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    acknowledged(format!("OPENED {}", kms.keystore_id()));
    let key = make(&kms, "alias/first", acknowledged);
    acknowledged(format!("ALIAS alias/first {key}"));
    pollster::block_on(kms.close()).unwrap();
}

fn change(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    acknowledged(format!("OPENED {}", kms.keystore_id()));
    let aliases = pollster::block_on(kms.list_aliases()).unwrap();
    let first = &aliases.iter().find(|it| it.alias_name == "alias/first").unwrap().target_key_id;
    let key = make(&kms, "alias/second", acknowledged);
    let version = pollster::block_on(kms.rotate(first)).unwrap().current_version;
    acknowledged(format!("KEY {first} {version}\nCALLED RotateKeyOnDemand {first}"));
    // Under the new version.
    use_key(&kms, first, acknowledged);
    pollster::block_on(kms.update_alias("alias/first", &key)).unwrap();
    acknowledged(format!("ALIAS alias/first {key}\nCALLED UpdateAlias {key}"));
    use_key(&kms, "alias/envelock/default", acknowledged);
    // Calls that come together are answered together, and none of them before its record is durable.
    let acknowledged = Mutex::new(acknowledged);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| use_key(&kms, first, &mut |line| (acknowledged.lock().unwrap())(line)));
        }
    });
    pollster::block_on(kms.close()).unwrap();
}

fn rekey(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    acknowledged(format!("OPENED {}", kms.keystore_id()));
    use_key(&kms, "alias/first", acknowledged);
    pollster::block_on(kms.rekey(RootKey::file(folder.join("root.key")).unwrap())).unwrap();
    acknowledged("CALLED RekeyKeystore ".to_owned());
    make(&kms, "alias/second", acknowledged);
    pollster::block_on(kms.close()).unwrap();
}

fn make(kms: &LocalKms, alias: &str, acknowledged: Acknowledged<'_>) -> String {
    let key = pollster::block_on(kms.create_key(CreateKeyRequest::default().alias(alias))).unwrap().key_id;
    acknowledged(format!("KEY {key} 1\nCALLED CreateKey {key}"));
    key
}

/// Calls that leave nothing but their records, by the keystore's thread, whose caller may go on as soon as it answers.
fn use_key(kms: &LocalKms, key: &str, acknowledged: Acknowledged<'_>) {
    let context = EncryptionContext::from([("tenant", "acme")]);
    let answer = pollster::block_on(kms.encrypt(key, b"secret", &context)).unwrap();
    let key = answer.key_id.rsplit('/').next().unwrap();
    acknowledged(format!("BLOB secret {}\nCALLED Encrypt {key}", hex(&answer.ciphertext_blob)));
    for _ in 0..2 {
        pollster::block_on(kms.decrypt(&answer.ciphertext_blob, &context)).unwrap();
        acknowledged(format!("CALLED Decrypt {key}"));
    }
}

/// Tells at once that a call was answered.
type Acknowledged<'a> = &'a mut (dyn FnMut(String) + Send);

/// What a process did to the files of a folder.
struct Recording {
    name: &'static str,
    start: Folder,
    known: Vec<String>,
    first: std::collections::BTreeMap<String, usize>,
    ops: Vec<Op>,
}

#[derive(Debug, Default)]
struct Counts {
    opened: usize,
    without_root_key: usize,
    begun_again: usize,
}

impl Recording {
    /// Records `test` as the child that works on a folder with the files `start`, of which these reports are true.
    fn of(test: &'static str, start: Folder, known: Vec<String>) -> Option<Self> {
        let (folder, tools) = (memory_folder(), tempfile::tempdir().unwrap());
        fill(folder.path(), &start);
        let Some(recorder) = compile(tools.path()) else {
            say(format!("SKIPPED: {test}: no C compiler made the recorder"));
            return None;
        };
        let (log, said) = (tools.path().join("log"), tools.path().join("said"));
        fs::write(&log, "").unwrap();
        fs::write(&said, "").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("LD_PRELOAD", recorder).env("ENVELOCK_RECORD_LOG", &log).env("ENVELOCK_RECORD_SAID", &said);
        command.env("ENVELOCK_RECORD_FOLDER", folder.path());
        let words = [folder.path().to_str().unwrap(), said.to_str().unwrap()];
        Running::start_by(command, test, &words).succeed();
        let (first, ops) = parse(&fs::read(&log).unwrap(), &start);
        let recording = Self { name: test, start, known, first, ops };
        // Nothing was done to the folder that the record does not have.
        let mut disk = recording.disk();
        recording.ops.iter().for_each(|op| disk.take(op));
        assert!(disk.crash(Keep::Everything, Keep::Everything) == read(folder.path()));
        Some(recording)
    }

    fn disk(&self) -> Disk {
        Disk::new(self.first.clone(), &self.start)
    }

    /// Checks what a crash can leave after each operation.
    fn replay(&self) -> Counts {
        let folder = memory_folder();
        let (mut disk, mut acknowledged) = (self.disk(), self.known.clone());
        let (mut seen, mut counts, mut torn) = (HashSet::new(), Counts::default(), 0);
        let mut random = Random::new(0x5EC7_0125);
        for op in [None].into_iter().chain(self.ops.iter().map(Some)) {
            if let Some(op) = op {
                disk.take(op);
            }
            if let Some(Op::Said(line)) = op {
                acknowledged.push(line.clone());
            }
            let (states, torn_states) = crashes(&disk, op, &mut random);
            for (number, state) in states.into_iter().enumerate() {
                let mut hasher = DefaultHasher::new();
                (acknowledged.len(), &state).hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    torn += usize::from(number < torn_states);
                    check(folder.path(), &state, &acknowledged, &mut counts);
                }
            }
        }
        let Counts { opened, without_root_key, begun_again } = counts;
        say(format!(
            "{}: {} operations, {} acknowledgements, {} states after a crash ({torn} torn in the last write): \
             {opened} opened, {begun_again} began again under their root key, {without_root_key} had none yet",
            self.name,
            self.ops.len(),
            acknowledged.len() - self.known.len(),
            seen.len(),
        ));
        counts
    }

    /// Whether the checks notice a disk that ignores syncs: that they can fail at all.
    fn lost_without_syncs(&self) -> bool {
        let folder = memory_folder();
        let (mut disk, mut acknowledged) = (self.disk(), self.known.clone());
        for op in &self.ops {
            match op {
                Op::SyncFile { .. } => continue,
                Op::Said(line) => acknowledged.push(line.clone()),
                _ => {}
            }
            disk.take(op);
        }
        fill(folder.path(), &disk.crash(Keep::Everything, Keep::Nothing));
        let found = |kms| find_recorded(&kms, 0, &acknowledged).and_then(|_| find_reported(&kms, &acknowledged));
        open(folder.path()).map_or(true, |kms| found(kms).is_err())
    }
}

/// Folders that a crash after `op` can leave, and how many of them, the first ones, have that torn.
fn crashes(disk: &Disk, op: Option<&Op>, random: &mut Random) -> (Vec<Folder>, usize) {
    let mut states = Vec::new();
    if let Some((file, parts)) = op.and_then(|op| disk.last_change(op)) {
        for cut in 1..parts {
            states.push(disk.crash_torn(file, Keep::Everything, &|part| part < cut));
            states.push(disk.crash_torn(file, Keep::Nothing, &|part| part < cut));
            if long() {
                states.push(disk.crash_torn(file, Keep::Everything, &|part| part >= cut));
                states.push(disk.crash_torn(file, Keep::Nothing, &|part| part >= cut));
            }
        }
        // The last write whole, and none of those before it.
        states.push(disk.crash_torn(file, Keep::Nothing, &|_| true));
    }
    let torn = states.len();
    let names: &[Keep] = if disk.unsynced_names() == 0 { &[Keep::Nothing] } else { &[Keep::Nothing, Keep::Everything] };
    for names in names {
        states.extend([disk.crash(*names, Keep::Nothing), disk.crash(*names, Keep::Everything)]);
    }
    for _ in 0..if long() { 60 } else { 4 } {
        let mut state = disk.crash_at_random(&mut || random.one_in(2));
        // Memory that processes share, and so what a crash leaves of it may be anything.
        if let Some(shared) = state.get_mut("keys.db-shm").filter(|_| random.one_in(2)) {
            *shared = random.bytes(32_768);
        }
        states.push(state);
    }
    (states, torn)
}

/// Fills the folder, opens the keystore and looks for everything acknowledged; what is left is usable.
fn check(folder: &Path, state: &Folder, acknowledged: &[String], counts: &mut Counts) {
    fill(folder, state);
    let names: Vec<_> = state.iter().map(|(name, content)| (name, content.len())).collect();
    let kms = open(folder).unwrap_or_else(|error| panic!("{error}\nafter {acknowledged:?}, in {names:?}"));
    match (kms.made_keystore(), kms.made_root_key_file()) {
        (false, made_root_key) => {
            assert!(!made_root_key);
            counts.opened += 1;
        }
        (true, true) => counts.without_root_key += 1,
        (true, false) => counts.begun_again += 1,
    }
    let lost = find_recorded(&kms, 0, acknowledged).and_then(|_| find_reported(&kms, acknowledged)).err();
    if let Some(lost) = lost {
        panic!("{lost}\nafter {acknowledged:?}, in {names:?}");
    }
    let key = pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
    let context = EncryptionContext::new();
    let blob = pollster::block_on(kms.encrypt(&key, b"x", &context)).unwrap().ciphertext_blob;
    assert_eq!(pollster::block_on(kms.decrypt(&blob, &context)).unwrap().plaintext(), b"x");
    pollster::block_on(kms.close()).unwrap();
    if let Some(root) = state.get("root.key") {
        let now = fs::read(folder.join("root.key")).unwrap();
        let kept = now == *root || Some(&now) == state.get("root.key.new");
        assert!(kept, "the root key was replaced, in {names:?}");
    }
    if leftovers(folder).iter().any(|(name, _)| name.starts_with(".root.key.new.")) {
        // What a rekey that was cut off leaves is removed by the next.
        let kms = open(folder).unwrap();
        pollster::block_on(kms.rekey(RootKey::file(folder.join("root.key")).unwrap())).unwrap();
        pollster::block_on(kms.close()).unwrap();
    }
    if leftovers(folder).iter().any(|(name, _)| name.starts_with(".keys.db.")) {
        // Likewise a restore.
        let (backup, root) = (folder.join("backup.db"), RootKey::file(folder.join("root.key")).unwrap());
        let options = RestoreOptions::default().move_existing_aside();
        LocalKms::restore(backup, folder.join("keys.db"), root, options).unwrap();
    }
    assert_eq!(leftovers(folder), []);
}

fn compile(folder: &Path) -> Option<PathBuf> {
    let recorder = folder.join("record.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kms_record/record.c");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
        .arg(&recorder)
        .arg(source)
        .arg("-ldl");
    let out = compiler.output().ok()?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(recorder)
}

/// In memory where that can be: thousands of keystores are opened, and each syncs.
fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn read(folder: &Path) -> Folder {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|it| (it.file_name().into_string().unwrap(), fs::read(it.path()).unwrap())).collect()
}

fn fill(folder: &Path, state: &Folder) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, content) in state {
        fs::write(folder.join(name), content).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}
