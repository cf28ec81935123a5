use super::crash::{Recorder, Until, list};
use super::lock::lock;
use super::*;
use crate::error::{Error, ErrorKind};
use rustix::io::Errno;
use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

fn os() -> Arc<dyn FileSystem> {
    Arc::new(OsFileSystem)
}

fn replace(fs: Arc<dyn FileSystem>, target: &Path, overwrite: Overwrite, pieces: &[&[u8]]) -> Result<(), Error> {
    let mut file = AtomicFile::create(fs, target, overwrite)?;
    file.set_mode(0o640);
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.commit().map(drop)
}

/// Three pieces across sector borders, none of them like what was there.
fn pieces() -> [Vec<u8>; 3] {
    [vec![1; 1_700], vec![2; 1_300], vec![3; 900]]
}

fn is_already_exists(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::AlreadyExists)
}

#[test]
fn a_crash_at_any_point_of_a_replacement_leaves_the_old_or_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a.elk");
    let (old, pieces) = (vec![9; 1_500], pieces());
    let new = pieces.concat();
    fs::write(&target, &old).unwrap();

    let recorder = Recorder::new(folder.path());
    replace(recorder.clone(), &target, Overwrite::Replace, &pieces.each_ref().map(Vec::as_slice)).unwrap();
    recorder.acknowledge();

    let states = recorder.check_every_crash(folder.path(), |acknowledged| {
        let found = fs::read(&target).unwrap();
        assert!(found == new || (found == old && !acknowledged));
        assert!(list(folder.path()).len() <= 2, "more than one temporary file is left");
        drop(AtomicFile::create(os(), &target, Overwrite::Replace).unwrap());
        assert_eq!(list(folder.path()), ["a.elk"], "the next run leaves the leftover");
    });
    println!("{states} states of the disk checked");
    assert!(states > 500, "only {states} states");
}

#[test]
fn a_crash_at_any_point_of_a_creation_leaves_the_whole_file_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a.elk");
    let pieces = pieces();

    let recorder = Recorder::new(folder.path());
    replace(recorder.clone(), &target, Overwrite::Never, &pieces.each_ref().map(Vec::as_slice)).unwrap();
    recorder.acknowledge();

    let states = recorder.check_every_crash(folder.path(), |acknowledged| {
        match fs::read(&target) {
            Ok(found) => assert_eq!(found, pieces.concat()),
            Err(_) => assert!(!acknowledged),
        }
        fs::write(&target, "").unwrap();
        drop(AtomicFile::create(os(), &target, Overwrite::Replace).unwrap());
        assert_eq!(list(folder.path()), ["a.elk"]);
    });
    println!("{states} states of the disk checked");
    assert!(states > 500, "only {states} states");
}

#[test]
fn a_failure_of_any_call_keeps_the_old_file_and_leaves_nothing_behind() {
    let old = vec![9; 1_500];
    for (errno, until, advice) in [
        (Errno::NOSPC, Until::Full, "free space on this disk, nothing was changed"),
        (Errno::DQUOT, Until::Next, "free space on this disk, nothing was changed"),
        (Errno::ROFS, Until::Next, "mounted read-only"),
        (Errno::ACCESS, Until::Next, "who may write to this file and to its folder"),
        (Errno::IO, Until::Next, "check the disk"),
    ] {
        let mut failures = 0;
        for call in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("a.elk");
            fs::write(&target, &old).unwrap();
            let recorder = Recorder::failing(folder.path(), call, errno, until);
            let pieces = pieces();
            let result = replace(recorder.clone(), &target, Overwrite::Replace, &pieces.each_ref().map(Vec::as_slice));
            if !recorder.failed() {
                result.unwrap();
                break;
            }
            assert_eq!(list(folder.path()), ["a.elk"], "call {call}");
            let Err(error) = result else { continue };
            failures += 1;
            assert_eq!(error.kind(), ErrorKind::Io);
            assert_eq!(error.path(), Some(&*target));
            let unchanged = fs::read(&target).unwrap() == old;
            let expected = if unchanged { advice } else { "may not survive a power failure" };
            assert!(error.to_string().contains(expected), "call {call}: {error}");
            assert_eq!(unchanged, !error.to_string().contains("cannot sync the folder"), "call {call}: {error}");
        }
        // Create, three writes, mode, sync, rename, sync of the folder; a search for leftovers may fail.
        assert!(failures >= 8, "{errno}");
    }
}

#[test]
fn a_disk_that_turns_read_only_keeps_the_old_file_and_at_most_one_leftover() {
    for call in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.elk");
        fs::write(&target, "old").unwrap();
        let recorder = Recorder::failing(folder.path(), call, Errno::ROFS, Until::ReadOnly);
        let result = replace(recorder.clone(), &target, Overwrite::Replace, &[b"new"]);
        if !recorder.failed() {
            result.unwrap();
            break;
        }
        let error = result.unwrap_err();
        let found = fs::read(&target).unwrap();
        assert!(found == b"old" || (found == b"new" && error.to_string().contains("in place")), "{error}");
        assert!(list(folder.path()).len() <= 2);
        drop(AtomicFile::create(os(), &target, Overwrite::Replace).unwrap());
        assert_eq!(list(folder.path()), ["a.elk"]);
    }
}

#[test]
fn an_abandoned_write_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a.elk");
    let mut file = AtomicFile::create(os(), &target, Overwrite::Never).unwrap();
    file.write_all(b"half").unwrap();
    assert_eq!(list(folder.path()), [".a.elk.0.envelock-tmp"]);
    drop(file);
    assert!(list(folder.path()).is_empty());
}

#[test]
fn leftovers_of_killed_runs_go_and_all_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    let live = AtomicFile::create(os(), &target, Overwrite::Replace).unwrap();
    for name in [".a.1.envelock-tmp", ".a.7.envelock-tmp", ".a.b.1.envelock-tmp", ".a.x.envelock-tmp", "b"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let second = AtomicFile::create(os(), &target, Overwrite::Replace).unwrap();
    assert_eq!(
        list(folder.path()),
        [".a.0.envelock-tmp", ".a.1.envelock-tmp", ".a.b.1.envelock-tmp", ".a.x.envelock-tmp", "b"]
    );
    live.write_at(b"live", 0).unwrap();
    drop(live.commit().unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"live");
    second.write_at(b"later", 0).unwrap();
    drop(second.commit().unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"later");
}

#[test]
fn a_ninth_writer_of_one_file_is_told_that_it_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    let live: Vec<_> = (0..8).map(|_| AtomicFile::create(os(), &target, Overwrite::Replace).unwrap()).collect();
    let error = AtomicFile::create(os(), &target, Overwrite::Replace).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    drop(live);
    AtomicFile::create(os(), &target, Overwrite::Replace).unwrap();
}

#[test]
fn writers_of_one_file_in_many_threads_never_mix() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    std::thread::scope(|scope| {
        for byte in 0..4 {
            let target = &target;
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut file = AtomicFile::create(os(), target, Overwrite::Replace).unwrap();
                    file.write_all(&[byte; 64]).unwrap();
                    file.write_all(&[byte; 64]).unwrap();
                    drop(file.commit().unwrap());
                    let found = fs::read(target).unwrap();
                    assert!(found.len() == 128 && found.iter().all(|b| *b == found[0]));
                }
            });
        }
    });
    assert_eq!(list(folder.path()), ["a"]);
}

#[test]
fn a_link_at_the_temporary_name_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (target, victim) = (folder.path().join("a"), folder.path().join("victim"));
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, folder.path().join(".a.0.envelock-tmp")).unwrap();
    replace(os(), &target, Overwrite::Never, &[b"new"]).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"kept");
    assert_eq!(fs::read(&target).unwrap(), b"new");
}

#[test]
fn a_link_at_the_target_stays_and_what_it_points_to_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    let (link, second) = (folder.path().join("link"), folder.path().join("second"));
    symlink("real/a", &link).unwrap();
    symlink("link", &second).unwrap();

    replace(os(), &second, Overwrite::Never, &[b"created"]).unwrap();
    assert_eq!(fs::read(real.join("a")).unwrap(), b"created");
    replace(os(), &link, Overwrite::Replace, &[b"replaced"]).unwrap();
    assert_eq!(fs::read(real.join("a")).unwrap(), b"replaced");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(list(&real), ["a"]);

    symlink("loop", folder.path().join("loop")).unwrap();
    let error = AtomicFile::create(os(), &folder.path().join("loop"), Overwrite::Replace).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_mode_is_0600_unless_another_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    let mode = || fs::metadata(&target).unwrap().mode() & 0o7777;
    drop(AtomicFile::create(os(), &target, Overwrite::Never).unwrap().commit().unwrap());
    assert_eq!(mode(), 0o600);
    let mut file = AtomicFile::create(os(), &target, Overwrite::Replace).unwrap();
    file.set_mode(0o644);
    drop(file.commit().unwrap());
    assert_eq!(mode(), 0o644);
}

#[test]
fn a_file_that_appears_meanwhile_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a");
    let file = AtomicFile::create(os(), &target, Overwrite::Never).unwrap();
    fs::write(&target, "theirs").unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(is_already_exists(&error));
    assert!(is_already_exists(&AtomicFile::create(os(), &target, Overwrite::Never).unwrap_err()));
    let mut file = AtomicFile::create(os(), &target, Overwrite::Replace).unwrap();
    file.refuse_existing();
    assert!(is_already_exists(&file.commit().unwrap_err()));
    assert_eq!(fs::read(&target).unwrap(), b"theirs");
    assert_eq!(list(folder.path()), ["a"]);
}

#[test]
fn without_an_exclusive_rename_a_hard_link_keeps_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, "new").unwrap();
    fs::write(&to, "old").unwrap();
    assert_eq!(super::fs::link_exclusively(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&to).unwrap(), b"old");
    fs::remove_file(&to).unwrap();
    super::fs::link_exclusively(&from, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"new");
    assert_eq!(list(folder.path()), ["to"]);
}

#[test]
fn devices_folders_and_nameless_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in [Path::new("/dev/null"), folder.path(), Path::new("/"), Path::new(".."), Path::new("")] {
        let error = AtomicFile::create(os(), path, Overwrite::Replace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", path.display());
    }
}

#[test]
fn the_longest_names_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["n".repeat(255), "ü".repeat(127), format!("x{}", "ü".repeat(127))] {
        let target = folder.path().join(name);
        let file = AtomicFile::create(os(), &target, Overwrite::Never).unwrap();
        // `list` fails on a name that is cut inside a character.
        assert!(list(folder.path()).iter().any(|name| name.ends_with(".0.envelock-tmp")));
        drop(file.commit().unwrap());
        assert!(target.exists());
    }
}

#[test]
fn a_lock_excludes_every_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "").unwrap();
    let [one, two] = [(); 2].map(|()| File::open(&path).unwrap());
    lock(&one, &path, NOW).unwrap();
    let error = lock(&two, &path, Duration::from_millis(20)).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Busy, Some(&*path)));
    drop(one);
    lock(&two, &path, NOW).unwrap();
    assert_eq!(LockedFile::open(os(), &path, NOW).unwrap_err().kind(), ErrorKind::Busy);
    drop(two);
    let locked = LockedFile::open(os(), &path, NOW).unwrap();
    assert_eq!(locked.path(), path);
}

#[test]
fn who_waits_for_a_file_that_is_replaced_gets_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "old").unwrap();
    let old = LockedFile::open(os(), &path, NOW).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let locked = LockedFile::open(os(), &path, Duration::from_secs(20)).unwrap();
            io::read_to_string(locked.file()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(20));
        let mut file = AtomicFile::create(os(), &path, Overwrite::Replace).unwrap();
        file.write_all(b"new").unwrap();
        let new = file.commit().unwrap();
        drop(old);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "the new file is still locked");
        drop(new);
        assert_eq!(waiting.join().unwrap(), "new");
    });
}
