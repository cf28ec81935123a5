//! Trees that somebody else filled.

use super::{by, context, fill, moved, new, old, plaintext, put, run, state, try_run};
use crate::disk::as_nobody;
use crate::support::child::tell;
use crate::support::providers::Scripted;
use crate::support::random::Random;
use envelock::fleet::{Files, Inventory, InventoryReport, Outcome, Rewrap, Separator};
use envelock::{DataKeyAnswer, EncryptedDataKey, Envelope, blocking};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn take(folder: &Path) -> InventoryReport {
    blocking::wait(Inventory::new().take(Files::below([folder]), |_| {})).unwrap()
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn loops_pipes_sockets_and_odd_names_neither_hang_nor_end_a_walk() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = fill(folder.path(), 30, &old());
    symlink("..", folder.path().join("a/up")).unwrap();
    symlink("self", folder.path().join("self")).unwrap();
    symlink("nowhere", folder.path().join("dangling.elk")).unwrap();
    fifo(&folder.path().join("pipe.elk"));
    let _socket = UnixListener::bind(folder.path().join("socket.elk")).unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    for name in [&b"not \xff utf-8"[..], b"\x1b[2J", b"line\nend", b" ", b"-", b"--json"] {
        let path = folder.path().join(OsStr::from_bytes(name));
        fs::write(&path, by(&old()).encrypt(&plaintext("odd"), &context("odd")).unwrap()).unwrap();
    }
    let mut deep = folder.path().to_path_buf();
    for _ in 0..300 {
        deep.push("deeper");
    }
    fs::create_dir_all(&deep).unwrap();
    let at = deep.strip_prefix(folder.path()).unwrap().join("a.elk");
    paths.push(put(folder.path(), at.to_str().unwrap(), &old()));

    let found = take(folder.path());
    assert_eq!((found.messages, found.not_envelock, found.links, found.special), (37, 1, 3, 2));
    assert_eq!((found.damaged, found.unreadable), (0, 0));
    let (moved_all, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((moved_all.rewrapped, moved_all.failed, moved_all.ignored), (37, 0, 6));
    moved(folder.path(), &paths);
    // Through links, the loops are found and not followed.
    let through = Files::below([folder.path()]).following_links();
    let found = blocking::wait(Inventory::new().take(through, |_| {})).unwrap();
    assert_eq!((found.messages, found.links, found.unreadable), (37, 1, 2), "{found:?}");
}

#[test]
fn every_cut_of_a_head_is_damage_and_stays_as_it_is() {
    let folder = super::in_memory();
    let whole = by(&old()).encrypt(b"x", &context("x")).unwrap();
    let head = envelock::Header::parse(&whole).unwrap().len();
    for len in 0..head {
        fs::write(folder.path().join(format!("{len:04}")), &whole[..len]).unwrap();
    }
    let good = put(folder.path(), "good.elk", &old());
    let found = take(folder.path());
    assert_eq!((found.messages, found.damaged, found.not_envelock), (1, head as u64 - 3, 3));
    let before = state(folder.path());
    let (report, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.failed), (1, head as u64 - 3));
    moved(folder.path(), std::slice::from_ref(&good));
    let mut after = state(folder.path());
    let mut before = before;
    [&mut before, &mut after].into_iter().for_each(|files| files.retain(|(path, ..)| *path != good));
    assert!(before == after, "what is damaged stays as it is");
}

#[test]
fn noise_behind_the_magic_is_damage_and_no_panic() {
    let folder = super::in_memory();
    let mut random = Random::new(7);
    for at in 0..400 {
        let len = random.below(3_000);
        let start: &[u8] = [b"ELK\x01\x00".as_slice(), b"ELK\x01\x02", b"ELK\x02", b"ELK\x01\xff"][at % 4];
        fs::write(folder.path().join(at.to_string()), [start, &random.bytes(len)].concat()).unwrap();
    }
    // Lengths that promise more than a head may have.
    fs::write(folder.path().join("context"), b"ELK\x01\x00\xff\xff").unwrap();
    fs::write(folder.path().join("slots"), b"ELK\x01\x00\x00\x02\x00\x00\xff\xff").unwrap();
    let found = take(folder.path());
    assert_eq!((found.messages + found.record_sets, found.damaged), (0, 402));
    let (report, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!((report.rewrapped, report.failed), (0, 402));
}

#[test]
fn a_head_as_long_as_heads_may_be_is_read_and_one_beyond_a_callers_limits_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let slot = |at: u8| EncryptedDataKey::new("com.example.x", vec![at; 900], vec![at; 1_000]);
    let provider = Scripted::shared((0..32).map(slot).collect(), |_| DataKeyAnswer::NotMine);
    let envelope = blocking::Envelope::new(Envelope::builder(provider).build().unwrap());
    fs::write(folder.path().join("long"), envelope.encrypt(b"x", &context("x")).unwrap()).unwrap();
    assert_eq!(take(folder.path()).messages, 1);
    let mut limits = envelock::Limits::default();
    limits.header_bytes = 8_192;
    let tight = Inventory::new().limits(limits);
    let found = blocking::wait(tight.take(Files::below([folder.path()]), |_| {})).unwrap();
    assert_eq!((found.messages, found.damaged), (0, 1));
}

#[test]
fn what_may_not_be_read_is_told_and_the_rest_is_done() {
    const TEST: &str = "fleet::hostile::what_may_not_be_read_is_told_and_the_rest_is_done";
    as_nobody(TEST, |folder| {
        let paths = fill(folder, 12, &old());
        fs::create_dir(folder.join("shut")).unwrap();
        let shut = [put(folder, "shut/a.elk", &old()), put(folder, "b.elk", &old())];
        let read_only = put(folder, "c.elk", &old());
        fs::set_permissions(folder.join("shut"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(&shut[1], fs::Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
        let found = take(folder);
        assert_eq!((found.messages, found.unreadable), (13, 2));
        let (moves, told) = run(Rewrap::to([new()]).from([old()]), folder);
        assert_eq!((moves.rewrapped, moves.failed), (12, 3), "{told:?}");
        moved(folder, &paths);
        for what in ["shut", "b.elk", "c.elk"] {
            let failed = told.iter().find(|(path, _)| path.ends_with(what)).unwrap();
            assert!(failed.1.contains("Permission denied"), "{failed:?}");
        }
        fs::set_permissions(folder.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
        tell("two kinds of files that may not be read, and one that may not be written");
    });
}

#[test]
fn files_that_come_and_go_meanwhile_are_moved_or_gone_and_nothing_else() {
    let folder = super::in_memory();
    let paths = fill(folder.path(), 400, &old());
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, path) in paths.iter().rev().enumerate() {
                match at % 3 {
                    0 => fs::remove_file(path).unwrap(),
                    1 => {
                        // Replaced as the crate replaces files: whole.
                        let new_one = folder.path().join(".swap");
                        fs::copy(path, &new_one).unwrap();
                        fs::rename(&new_one, path).unwrap();
                    }
                    _ => std::thread::sleep(Duration::from_micros(200)),
                }
            }
            going.store(false, Ordering::Relaxed);
        });
        while going.load(Ordering::Relaxed) {
            let mut failures = Vec::new();
            let report = blocking::wait(Rewrap::to([new()]).from([old()]).run(
                Files::below([folder.path()]),
                |path, outcome| {
                    if let Outcome::Failed(error) = outcome {
                        failures.push(format!("{}: {error}", path.display()));
                    }
                },
            ));
            // A file that is gone may have been looked at, or only seen; one that was cut by the copy is no head.
            let real: Vec<_> =
                failures.iter().filter(|it| !it.contains("No such file") && !it.contains(".swap")).collect();
            assert!(real.is_empty(), "{real:?}, {report:?}");
        }
    });
    let (last, _) = run(Rewrap::to([new()]).from([old()]), folder.path());
    assert_eq!(last.failed, 0);
    let left: Vec<_> = paths.into_iter().filter(|path| path.exists()).collect();
    assert!(left.len() > 200);
    moved(folder.path(), &left);
}

/// A list that removes the file that it has just named before it names the next one.
struct Fickle(Vec<PathBuf>, Option<PathBuf>);

impl Read for Fickle {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if let Some(gone) = self.1.take() {
            fs::remove_file(gone)?;
        }
        let Some(path) = self.0.pop() else { return Ok(0) };
        let line = format!("{}\n", path.display());
        into[..line.len()].copy_from_slice(line.as_bytes());
        self.1 = (!self.0.is_empty()).then_some(path);
        Ok(line.len())
    }
}

#[test]
fn what_is_gone_before_it_is_looked_at_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let list = || {
        // Last first: a message, the journal that a rewrap of it keeps for a moment, and one that stays.
        let paths = ["stays.elk", "a.elk.rewrap", "a.elk"].map(|name| put(folder.path(), name, &old()));
        Files::default().and_list(Fickle(paths.to_vec(), None), Separator::Line)
    };
    let report = blocking::wait(Inventory::new().take(list(), |_| {})).unwrap();
    assert_eq!((report.messages, report.vanished, report.unreadable), (1, 1, 0));
    let (report, told) = try_run(Rewrap::to([new()]).from([old()]), list());
    let report = report.unwrap();
    assert_eq!((report.rewrapped, report.vanished, report.failed), (1, 1, 0), "{told:?}");
}
