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
fn a_full_disk_leaves_the_old_target_and_nothing_half_written() {
    let test = "disk::a_full_disk_leaves_the_old_target_and_nothing_half_written";
    if let Some(words) = part() {
        return full_disk(Path::new(&words[0]));
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(running) = start_apart(test, folder.path()) else { return };
    let lines = running.succeed();
    say(format!("disk: full: {} operations refused, such as: {}", lines.len(), lines[0]));
    assert!(lines.len() >= 5);
}

fn full_disk(folder: &Path) {
    mount(&["-t", "tmpfs", "-o", "size=1m", "none"], folder);
    let outside = tempfile::tempdir().unwrap();
    let (old, new) = (envelope(1), envelope(2));
    fs::write(outside.path().join("long"), vec![1; 3 << 20]).unwrap();
    let (long, sealed_long) = (outside.path().join("long"), outside.path().join("long.elk"));
    old.encrypt_file(&long, &sealed_long, &none(), FileOptions::default()).unwrap();
    fs::write(outside.path().join("short"), vec![2; 100_000]).unwrap();
    let target = folder.join("target");
    let options = || FileOptions::default().replace_existing();
    old.encrypt_file(outside.path().join("short"), &target, &none(), options()).unwrap();
    let before = listing(folder);
    let unchanged = || assert!(listing(folder) == before, "something changed or was left");

    assert_names(&old.encrypt_file(&long, &target, &none(), options()).unwrap_err(), &target);
    unchanged();
    let other = folder.join("new");
    assert_names(&old.encrypt_file(&long, &other, &none(), FileOptions::default()).unwrap_err(), &other);
    unchanged();
    assert_names(&old.decrypt_file(&sealed_long, &target, &none(), options()).unwrap_err(), &target);
    unchanged();
    let copy = RewrapOptions::default().to_file(folder.join("copy"));
    assert_names(&old.rewrap_file(&sealed_long, &new, &none(), copy).unwrap_err(), &folder.join("copy"));
    unchanged();

    // To the last byte: no room for a journal, nor for a keystore.
    let mut filler = fs::File::create(folder.join("filler")).unwrap();
    while filler.write(&[3; 4096]).is_ok_and(|count| count > 0) {}
    drop(filler);
    let before = listing(folder);
    let unchanged = || assert!(listing(folder) == before, "something changed or was left");
    assert_names(&old.rewrap_file(&target, &new, &none(), RewrapOptions::default()).unwrap_err(), &target);
    unchanged();
    assert_eq!(old.verify_file(&target, &none()).unwrap(), 100_000);
    let keystore = folder.join("keys.db");
    let root = RootKey::file(outside.path().join("root.key")).unwrap();
    let error = LocalKms::open(&keystore, root).unwrap_err();
    assert!(error.to_string().contains(keystore.to_str().unwrap()), "{error}");
    tell(error.to_string().replace('\n', " "));

    // With room again, all of it works.
    fs::remove_file(folder.join("filler")).unwrap();
    assert!(old.rewrap_file(&target, &new, &none(), RewrapOptions::default()).unwrap().in_place);
    assert_eq!(new.verify_file(&target, &none()).unwrap(), 100_000);
    let root = RootKey::file(outside.path().join("root.key")).unwrap();
    let kms = LocalKms::open(&keystore, root).unwrap();
    blocking::wait(kms.close()).unwrap();
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

    // A target that is no regular file is never replaced by one.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), b"x").unwrap();
    let options = FileOptions::default().replace_existing();
    let error = envelope(1).encrypt_file(folder.path().join("plain"), "/dev/full", &none(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let mut byte = [1];
    fs::File::open("/dev/full").unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0], "it is still the device");
}
