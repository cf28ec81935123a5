//! A full disk and a folder that cannot be written to: a clear error that names the path, the old target
//! as it was, and nothing half written left.
//!
//! The disk is a small tmpfs in a mount namespace of the part's own, so that nothing outside sees it.

use crate::support::process::{Part, part, tell};
use crate::support::{kind_of, providers, say};
use envelock::blocking::{self, Envelope};
use envelock::{EncryptionContext, Error, ErrorKind, FileOptions, LocalKms, RewrapOptions, RootKey};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

fn envelope(seed: u8) -> Envelope {
    let id = format!("key-{seed}");
    Envelope::new(envelock::Envelope::builder(providers::raw(&id, seed)).build().unwrap())
}

fn none() -> EncryptionContext {
    EncryptionContext::new()
}

/// Starts a part of `test` in a mount namespace of its own, as root in it.
fn start_apart(test: &str, folder: &Path) -> Option<Part> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    for way in ways {
        let tried = Command::new("unshare").args(way).args(["mount", "-t", "tmpfs", "none"]).arg(folder).output();
        if tried.is_ok_and(|tried| tried.status.success()) {
            let mut command = Command::new("unshare");
            command.args(way).arg(std::env::current_exe().unwrap());
            return Some(Part::start_by(command, test, &[folder.to_str().unwrap()]));
        }
    }
    say(format!("SKIPPED: {test}: needs root or user namespaces, to mount a small file system"));
    None
}

fn mount(arguments: &[&str], folder: &Path) {
    let done = Command::new("mount").args(arguments).arg(folder).output().unwrap();
    assert!(done.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// `error` is of kind Io and says which path.
#[track_caller]
fn assert_names(error: &Error, path: &Path) {
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text:?} does not name {}", path.display());
    tell(text.replace('\n', " "));
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
fn on_a_read_only_disk_every_call_fails_clearly_and_changes_nothing() {
    const TEST: &str = "disk::on_a_read_only_disk_every_call_fails_clearly_and_changes_nothing";
    with_mounts(TEST, |folder| {
        let (good, bad) = folders(folder);
        mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], &bad);
        let scene = Scene::new(&good, &bad);
        mount(&["-o", "remount,ro"], &bad);
        scene.all_refused(std::io::ErrorKind::ReadOnlyFilesystem);
        mount(&["-o", "remount,rw"], &bad);
        scene.all_done(&["target", "new", "roomy.elk", "tight.elk"]);
    });
}

#[test]
fn in_a_folder_that_may_not_be_written_every_call_fails_clearly_and_changes_nothing() {
    const TEST: &str = "disk::in_a_folder_that_may_not_be_written_every_call_fails_clearly_and_changes_nothing";
    let Some(words) = words() else {
        let folder = tempfile::tempdir().unwrap();
        let child = Running::start(TEST, &[folder.path().to_str().unwrap()]);
        return report(TEST, &child.succeed());
    };
    let folder = Path::new(&words[0]);
    // Root may write everywhere, so this process becomes nobody.
    open_to_all(folder);
    if let Err(error) = become_nobody() {
        return tell(format!("SKIPPED: it runs as nobody, and root may not become that here: {error}"));
    }
    let (good, bad) = folders(folder);
    let scene = Scene::new(&good, &bad);
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o555)).unwrap();
    scene.all_refused(std::io::ErrorKind::PermissionDenied);
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).unwrap();
    scene.all_done(&["target", "new", "roomy.elk", "tight.elk"]);
    fs::set_permissions(bad.join("roomy.elk"), fs::Permissions::from_mode(0o444)).unwrap();
    scene.refused("roomy.elk", std::io::ErrorKind::PermissionDenied, || scene.rewrap("roomy.elk"));
}

/// Runs `work` on an empty folder, in a process whose mounts nobody else sees.
fn with_mounts(test: &str, work: impl FnOnce(&Path)) {
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

fn report(test: &str, told: &[String]) {
    assert!(!told.is_empty());
    if let Some(skipped) = told.iter().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        return say(format!("SKIPPED: {test}: {skipped}"));
    }
    say(format!("disk: {test}: {} calls refused, nothing changed", told.len()));
}

#[test]
fn a_read_only_folder_is_named_and_left_as_it_is() {
    let test = "disk::a_read_only_folder_is_named_and_left_as_it_is";
    if let Some(words) = part() {
        return read_only(Path::new(&words[0]));
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(running) = start_apart(test, folder.path()) else { return };
    let lines = running.succeed();
    say(format!("disk: read-only: {} operations refused, such as: {}", lines.len(), lines[0]));
    assert!(lines.len() >= 5);
}

fn read_only(folder: &Path) {
    mount(&["-t", "tmpfs", "-o", "size=4m", "none"], folder);
    let outside = tempfile::tempdir().unwrap();
    let (old, new) = (envelope(1), envelope(2));
    let plain = outside.path().join("plain");
    fs::write(&plain, vec![2; 100_000]).unwrap();
    let target = folder.join("target");
    old.encrypt_file(&plain, &target, &none(), FileOptions::default()).unwrap();
    old.encrypt_file(&plain, outside.path().join("sealed"), &none(), FileOptions::default()).unwrap();
    mount(&["-o", "remount,ro"], folder);
    let before = listing(folder);

    let options = || FileOptions::default().replace_existing();
    let other = folder.join("new");
    assert_names(&old.encrypt_file(&plain, &target, &none(), options()).unwrap_err(), &target);
    assert_names(&old.encrypt_file(&plain, &other, &none(), options()).unwrap_err(), &other);
    assert_names(&old.decrypt_file(&target, &other, &none(), options()).unwrap_err(), &other);
    assert_names(&old.rewrap_file(&target, &new, &none(), RewrapOptions::default()).unwrap_err(), &target);
    let copy = RewrapOptions::default().to_file(&other);
    assert_names(&old.rewrap_file(outside.path().join("sealed"), &new, &none(), copy).unwrap_err(), &other);
    let keystore = folder.join("keys.db");
    let error = LocalKms::open(&keystore, RootKey::file(folder.join("root.key")).unwrap()).unwrap_err();
    assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
    tell(error.to_string().replace('\n', " "));

    assert!(listing(folder) == before, "something changed or was left");
    // Reading needs no writing.
    assert_eq!(old.verify_file(&target, &none()).unwrap(), 100_000);
    old.decrypt_file(&target, outside.path().join("copy"), &none(), FileOptions::default()).unwrap();
}

#[test]
fn a_writer_onto_a_full_device_reports_it_and_finishes_nothing() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        return say("SKIPPED: disk: there is no /dev/full");
    };
    let mut writer = envelope(1).encrypt_writer(full, &none()).unwrap();
    let written = writer.write_all(&vec![1; 1 << 20]).map_err(|error| (error.kind(), kind_of(&error)));
    assert_eq!(written, Err((std::io::ErrorKind::StorageFull, ErrorKind::Io)));
    let error = writer.finish().unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Io);

fn become_nobody() -> std::io::Result<()> {
    // SAFETY: the calls take numbers and touch no memory of ours; glibc changes all threads.
    let changed = unsafe { libc::geteuid() != 0 || libc::seteuid(65_534) == 0 };
    if changed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
