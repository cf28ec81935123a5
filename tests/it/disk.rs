//! Disks that are full and folders that are read-only: a clear error that names the path, what was
//! there is intact, and nothing half-written stays.

use crate::support::child::{Running, tell, words};
use crate::support::providers::raw;
use crate::support::say;
use envelock::{EncryptionContext, Envelope, Error, ErrorKind, FileOptions, RewrapOptions, blocking};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn envelope(key: &str) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(raw(key, 7)).build().unwrap())
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "disk")])
}

fn replacing() -> FileOptions {
    FileOptions::default().replace_existing()
}

/// A source and a message of 2 MiB on a good disk, and on the bad one what they are to replace, and
/// messages to rewrap.
struct Scene {
    plain: PathBuf,
    message: PathBuf,
    bad: PathBuf,
}

impl Scene {
    fn new(good: &Path, bad: &Path) -> Self {
        let scene = Self { plain: good.join("plain"), message: good.join("plain.elk"), bad: bad.to_path_buf() };
        fs::write(&scene.plain, vec![0xA5; 2 << 20]).unwrap();
        envelope("old").encrypt_file(&scene.plain, &scene.message, &context(), FileOptions::default()).unwrap();
        fs::write(bad.join("target"), "what was there").unwrap();
        // One with room for other slots, and one without, which a rewrap copies.
        let roomy = envelope("old").file_encryptor(&context()).unwrap().seal(&[1; 300 << 10]).unwrap();
        let tight = envelope("old").encrypt(&[2; 300 << 10], &context()).unwrap();
        fs::write(bad.join("roomy.elk"), roomy).unwrap();
        fs::write(bad.join("tight.elk"), tight).unwrap();
        scene
    }

    /// Names and contents.
    fn bad_disk(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.bad).unwrap().map(Result::unwrap);
        entries.map(|it| (it.file_name().into_string().unwrap(), fs::read(it.path()).unwrap())).collect()
    }

    fn encrypt(&self, name: &str) -> Result<(), Error> {
        envelope("old").encrypt_file(&self.plain, self.bad.join(name), &context(), replacing()).map(drop)
    }

    fn decrypt(&self, name: &str) -> Result<(), Error> {
        envelope("old").decrypt_file(&self.message, self.bad.join(name), &context(), replacing()).map(drop)
    }

    fn rewrap(&self, name: &str) -> Result<(), Error> {
        // A longer name, which does not fit into slots without room.
        let new = envelope("the new key, of a longer name");
        envelope("old").rewrap_file(self.bad.join(name), &new, &context(), RewrapOptions::default()).map(drop)
    }

    /// A rewrap to a file on the good disk only reads what lies on the bad one.
    fn rewraps_to_the_good_disk(&self) {
        let before = self.bad_disk();
        for name in ["roomy.elk", "tight.elk"] {
            let (from, to) = (self.bad.join(name), self.plain.with_file_name(name));
            let new = envelope("the new key, of a longer name");
            let done = envelope("old").rewrap_file(&from, &new, &context(), RewrapOptions::default().to_file(&to));
            assert!(!done.unwrap().in_place);
            assert_eq!(new.verify_file(&to, &context()).unwrap(), 300 << 10);
            fs::remove_file(&to).unwrap();
        }
        assert!(before == self.bad_disk());
    }

    /// `call` on the file `name` fails with kind Io and an error that names that file or one beside it
    /// that belongs to it, says what to do and comes from `cause`; it changes nothing on the disk.
    #[track_caller]
    fn refused<T: Debug>(&self, name: &str, cause: std::io::ErrorKind, call: impl FnOnce() -> Result<T, Error>) {
        let before = self.bad_disk();
        let error = call().expect_err(name);
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Io, "{text}");
        let path = error.path().unwrap_or_else(|| panic!("no path: {text}"));
        assert!(path.starts_with(&self.bad), "{text}");
        assert!(path.file_name().unwrap().to_str().unwrap().contains(name), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        let source = std::error::Error::source(&error).and_then(|it| it.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(cause), "{text}");
        assert_eq!(text.matches("nothing was changed").count(), 1, "{text}");
        assert!(before == self.bad_disk(), "{:?} was there, now {:?}", before.keys(), self.bad_disk().keys());
        tell(format!("refused: {text}"));
    }

    /// Every call that writes is refused.
    fn all_refused(&self, cause: std::io::ErrorKind) {
        for name in ["target", "new"] {
            self.refused(name, cause, || self.encrypt(name));
            self.refused(name, cause, || self.decrypt(name));
        }
        for name in ["roomy.elk", "tight.elk"] {
            self.refused(name, cause, || self.rewrap(name));
            assert_eq!(envelope("old").verify_file(self.bad.join(name), &context()).unwrap(), 300 << 10);
        }
    }

    /// Every one of these calls succeeds: it was the disk.
    fn all_done(&self, names: &[&str]) {
        for name in names {
            match *name {
                "target" => self.encrypt(name).unwrap(),
                "new" => self.decrypt(name).unwrap(),
                _ => self.rewrap(name).unwrap(),
            }
        }
    }
}

#[test]
fn on_a_full_disk_every_call_fails_clearly_and_changes_nothing() {
    const TEST: &str = "disk::on_a_full_disk_every_call_fails_clearly_and_changes_nothing";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &bad);
        let scene = Scene::new(&good, &bad);
        let full = std::io::ErrorKind::StorageFull;
        // Room for some of the megabytes that come.
        for name in ["target", "new"] {
            scene.refused(name, full, || scene.encrypt(name));
            scene.refused(name, full, || scene.decrypt(name));
        }
        // Room for nothing.
        let mut filler = fs::File::create(bad.join("filler")).unwrap();
        while filler.write(&[0; 4_096]).is_ok() {}
        scene.all_refused(full);
        fs::remove_file(bad.join("filler")).unwrap();
        mount(&["-o", "remount,size=16m"], &bad);
        scene.all_done(&["target", "new", "roomy.elk", "tight.elk"]);
    });
}

#[test]
fn a_resumable_encryption_on_a_full_disk_goes_on_once_there_is_room() {
    const TEST: &str = "disk::a_resumable_encryption_on_a_full_disk_goes_on_once_there_is_room";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"], &bad);
        let scene = Scene::new(&good, &bad);
        // Older than the partial file, by the clock of the file system.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let target = bad.join("large.elk");
        let resume = || {
            let options = FileOptions::default();
            envelope("old").encrypt_file_resumable(&scene.plain, &target, &context(), options)
        };
        let error = resume().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("free space on this disk"), "{error}");
        assert!(!target.exists());
        let left = fs::read(bad.join(".large.elk.envelock-partial")).unwrap();
        assert!(left.len() > 1 << 20, "{}", left.len());
        tell(format!("refused: {error}"));
        mount(&["-o", "remount,size=16m"], &bad);
        let done = resume().unwrap();
        if fs::metadata(&target).unwrap().created().is_err() {
            return tell("SKIPPED: this file system does not tell when a file was made");
        }
        assert!(matches!(done.start, envelock::ResumeStart::Continued { verified_segments: 15.., .. }), "{done:?}");
        assert!(fs::read(&target).unwrap()[..1 << 20] == left[..1 << 20]);
        assert_eq!(envelope("old").verify_file(&target, &context()).unwrap(), 2 << 20);
    });
}

#[test]
fn where_no_file_has_a_birth_time_a_resumed_encryption_is_a_new_message() {
    const TEST: &str = "disk::where_no_file_has_a_birth_time_a_resumed_encryption_is_a_new_message";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "ramfs", "ramfs"], &bad);
        let scene = Scene::new(&good, &bad);
        if fs::metadata(bad.join("target")).unwrap().created().is_ok() {
            return tell("SKIPPED: here ramfs tells when a file was made");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        let target = bad.join("new.elk");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let resume = |options| envelope("old").encrypt_file_resumable(&scene.plain, &target, &context(), options);
        let error = resume(FileOptions::default().stop_when(stop)).unwrap_err();
        assert!(bad.join(".new.elk.envelock-partial").exists(), "{error}");
        let done = resume(FileOptions::default()).unwrap();
        assert_eq!(done.start, envelock::ResumeStart::BegunAnew(envelock::Restart::SourceAgeUnknown));
        assert_eq!(envelope("old").verify_file(&target, &context()).unwrap(), 2 << 20);
        tell("refused: to go on with what may be younger than the source");
    });
}

#[test]
fn on_a_read_only_disk_every_call_fails_clearly_and_changes_nothing() {
    const TEST: &str = "disk::on_a_read_only_disk_every_call_fails_clearly_and_changes_nothing";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], &bad);
        let scene = Scene::new(&good, &bad);
        mount(&["-o", "remount,ro"], &bad);
        scene.all_refused(std::io::ErrorKind::ReadOnlyFilesystem);
        scene.rewraps_to_the_good_disk();
        mount(&["-o", "remount,rw"], &bad);
        scene.all_done(&["target", "new", "roomy.elk", "tight.elk"]);
    });
}

#[test]
fn in_a_folder_that_may_not_be_written_every_call_fails_clearly_and_changes_nothing() {
    const TEST: &str = "disk::in_a_folder_that_may_not_be_written_every_call_fails_clearly_and_changes_nothing";
    as_nobody(TEST, |folder| {
        let (good, bad) = folders(folder);
        let scene = Scene::new(&good, &bad);
        fs::set_permissions(&bad, fs::Permissions::from_mode(0o555)).unwrap();
        scene.all_refused(std::io::ErrorKind::PermissionDenied);
        fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).unwrap();
        scene.all_done(&["target", "new", "roomy.elk", "tight.elk"]);
        fs::set_permissions(bad.join("roomy.elk"), fs::Permissions::from_mode(0o444)).unwrap();
        scene.refused("roomy.elk", std::io::ErrorKind::PermissionDenied, || scene.rewrap("roomy.elk"));
    });
}

/// Runs `work` on an empty folder, in a process whose mounts nobody else sees.
pub(crate) fn with_mounts(test: &str, work: impl FnOnce(&Path)) {
    if let Some(words) = words() {
        return work(Path::new(&words[0]));
    }
    // With -r where the kernel lets everybody be root among mounts of his own.
    let works = |how: &&str| Command::new("unshare").args([how, "true"]).output().is_ok_and(|out| out.status.success());
    let Some(how) = ["-m", "-rm"].into_iter().find(|how| works(how)) else {
        return say(format!("SKIPPED: {test}: it mounts a disk of its own, and `unshare -m` and `-rm` are refused"));
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.arg(how).arg(std::env::current_exe().unwrap());
    report(test, &Running::start_by(command, test, &[folder.path().to_str().unwrap()]).succeed());
}

pub(crate) fn report(test: &str, told: &[String]) {
    assert!(!told.is_empty());
    if let Some(skipped) = told.iter().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        return say(format!("SKIPPED: {test}: {skipped}"));
    }
    say(format!("disk: {test}: {} calls refused, nothing changed", told.len()));
}

pub(crate) fn folders(folder: &Path) -> (PathBuf, PathBuf) {
    let (good, bad) = (folder.join("good"), folder.join("bad"));
    fs::create_dir(&good).unwrap();
    fs::create_dir(&bad).unwrap();
    (good, bad)
}

pub(crate) fn mount(arguments: &[&str], at: &Path) {
    let out = Command::new("mount").args(arguments).arg(at).output().unwrap();
    assert!(out.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Runs `work` in a process of its own that is nobody, since root may read and write everywhere, in a folder open to all.
pub(crate) fn as_nobody(test: &str, work: impl FnOnce(&Path)) {
    let Some(words) = words() else {
        let folder = tempfile::tempdir().unwrap();
        let child = Running::start(test, &[folder.path().to_str().unwrap()]);
        return report(test, &child.succeed());
    };
    let folder = Path::new(&words[0]);
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    // SAFETY: the calls take numbers and touch no memory of ours; glibc changes all threads.
    let changed = unsafe { libc::geteuid() != 0 || libc::seteuid(65_534) == 0 };
    if !changed {
        let error = std::io::Error::last_os_error();
        return tell(format!("SKIPPED: it runs as nobody, and root may not become that here: {error}"));
    }
    work(folder);
}
