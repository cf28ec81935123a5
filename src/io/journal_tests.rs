use super::journal::*;
use crate::crypto::sha256;
use crate::durable::crash::{Folder, Recorder, Until, fill, list};
use crate::durable::{AtomicFile, FileSystem, LockedFile, OsFileSystem, Overwrite};
use crate::error::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The parts of a message that a rewrap needs to know; lengths that fit no sector.
struct Message {
    core: Vec<u8>,
    slots: Vec<u8>,
    floe: Vec<u8>,
}

impl Message {
    fn new(slot_byte: u8) -> Self {
        // Old and new slots share bytes, as real ones do.
        let slots = (0..SLOTS).map(|i| if i % 3 == 0 { slot_byte } else { 0 }).collect();
        Self { core: vec![0xC0; 103], slots, floe: vec![0xF1; 74] }
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.core, &SLOTS.to_be_bytes()[..], &self.slots, &self.floe, &[0xB0; 900]].concat()
    }

    fn with_place<T>(&self, run: impl FnOnce(Place<'_>) -> T) -> T {
        run(Place { offset: self.core.len() as u64 + 2, len: SLOTS, binding: &[&self.core, &self.floe] })
    }

    fn recover(&self, fs: Arc<dyn FileSystem>, path: &Path) -> Result<Recovery> {
        let locked = LockedFile::open(fs, path, Duration::ZERO)?;
        self.with_place(|place| recover(&locked, place))
    }

    fn rewrite(&self, fs: Arc<dyn FileSystem>, path: &Path, new: &[u8]) -> Result<()> {
        let locked = LockedFile::open(fs, path, Duration::ZERO)?;
        let _ = self.with_place(|place| recover(&locked, place))?;
        self.with_place(|place| rewrite(&locked, place, new))
    }

    /// What a reader finds whose open with the slots in the file fails.
    fn pending(&self, path: &Path) -> Option<Pending> {
        let bytes = fs::read(path).unwrap();
        let start = self.core.len() + 2;
        let current = &bytes[start..start + usize::from(SLOTS)];
        self.with_place(|place| pending(path, current, place.binding)).unwrap()
    }
}

const SLOTS: u16 = 2_900;

fn os() -> Arc<dyn FileSystem> {
    Arc::new(OsFileSystem)
}

struct Setup {
    folder: tempfile::TempDir,
    path: PathBuf,
    journal: PathBuf,
    old: Message,
    new: Message,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = (folder.path().join("a.elk"), folder.path().join("a.elk.rewrap"));
    let (old, new) = (Message::new(1), Message::new(2));
    fs::write(&path, old.bytes()).unwrap();
    Setup { folder, path, journal, old, new }
}

impl Setup {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn rewrite(&self, fs: Arc<dyn FileSystem>) -> Result<()> {
        self.old.rewrite(fs, &self.path, &self.new.slots)
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// The journal of this rewrap, as its own code writes it: taken from a disk that turns read-only
    /// once it is written.
    fn whole_journal(&self) -> Vec<u8> {
        let other = setup();
        for call in 0.. {
            fill(other.folder(), &Folder::from([("a.elk".into(), self.old.bytes())]));
            let recorder = Recorder::failing(other.folder(), call, Errno::ROFS, Until::ReadOnly);
            assert!(self.old.rewrite(recorder, &other.path, &self.new.slots).is_err());
            if fs::metadata(&other.journal).is_ok_and(|m| m.len() == 3 + 2 * u64::from(SLOTS) + 32) {
                return fs::read(&other.journal).unwrap();
            }
        }
        unreachable!()
    }

    /// Some sectors of the new slots over the old ones.
    fn torn_message(&self) -> Vec<u8> {
        let mut slots = self.old.slots.clone();
        for sector in [0..407, 919..1_431] {
            slots[sector.clone()].copy_from_slice(&self.new.slots[sector]);
        }
        Message { slots, ..Message::new(0) }.bytes()
    }

    fn fill_torn(&self) {
        let journal = self.whole_journal();
        fill(self.folder(), &Folder::from([("a.elk".into(), self.torn_message()), ("a.elk.rewrap".into(), journal)]));
    }

    /// Checks what a reader finds, recovers, and checks the result.
    fn check(&self, acknowledged: bool) {
        let (old, new) = (self.old.bytes(), self.new.bytes());
        let found = self.content();
        if found != old && found != new {
            let expected = Pending { new: self.new.slots.clone(), old: self.old.slots.clone() };
            assert_eq!(self.old.pending(&self.path), Some(expected), "a reader cannot open this file");
        }
        assert!(list(self.folder()).len() <= 2);
        let recovery = self.old.recover(os(), &self.path).unwrap();
        let recovered = self.content();
        assert!(recovered == new || (recovered == old && !acknowledged));
        match recovery {
            Recovery::Applied => assert!(recovered == new),
            Recovery::Removed | Recovery::Nothing => assert!(recovered == found),
        }
        assert_eq!(list(self.folder()), ["a.elk"]);
    }
}

#[test]
fn a_crash_at_any_point_of_a_rewrap_leaves_the_old_or_the_new_slots() {
    let setup = setup();
    let recorder = Recorder::new(setup.folder());
    setup.rewrite(recorder.clone()).unwrap();
    recorder.acknowledge();
    assert!(setup.content() == setup.new.bytes());
    let states = recorder.check_every_crash(setup.folder(), |acknowledged| setup.check(acknowledged));
    println!("{states} states of the disk checked");
    assert!(states > 100, "only {states} states");
}

#[test]
fn a_crash_at_any_point_of_a_recovery_loses_nothing() {
    let setup = setup();
    setup.fill_torn();
    let recorder = Recorder::new(setup.folder());
    assert_eq!(setup.old.recover(recorder.clone(), &setup.path).unwrap(), Recovery::Applied);
    recorder.acknowledge();
    let states = recorder.check_every_crash(setup.folder(), |_| {
        setup.check(true);
    });
    println!("{states} states of the disk checked");
    assert!(states > 15, "only {states} states");
}

#[test]
fn a_crash_at_any_point_of_replacing_a_half_rewrapped_file_leaves_one_whole_file() {
    // Once recovered first, and once with a header that nobody can parse, so that the journal stays
    // until the new file is in place.
    for recovers in [true, false] {
        let setup = setup();
        setup.fill_torn();
        let new = vec![7; 4_500];
        let recorder = Recorder::new(setup.folder());
        let old = LockedFile::open(recorder.clone(), &setup.path, Duration::ZERO).unwrap();
        if recovers {
            assert_eq!(setup.old.with_place(|place| recover(&old, place)).unwrap(), Recovery::Applied);
        }
        let mut file = AtomicFile::create(recorder.clone(), &setup.path, Overwrite::Replace).unwrap();
        file.write_all(&new).unwrap();
        commit_over(file, Some(old)).unwrap();
        recorder.acknowledge();

        let states = recorder.check_every_crash(setup.folder(), |acknowledged| {
            assert!(list(setup.folder()).len() <= 3);
            if setup.content() != new {
                assert!(!acknowledged);
                drop(AtomicFile::create(os(), &setup.path, Overwrite::Replace).unwrap());
                setup.check(false);
                assert!(setup.content() == setup.new.bytes());
            } else if acknowledged {
                assert_eq!(list(setup.folder()), ["a.elk"]);
            } else {
                let other = Message { floe: vec![0; 74], ..Message::new(0) };
                assert_ne!(other.recover(os(), &setup.path).unwrap(), Recovery::Applied);
                drop(AtomicFile::create(os(), &setup.path, Overwrite::Replace).unwrap());
                assert!(setup.content() == new);
                assert_eq!(list(setup.folder()), ["a.elk"]);
            }
        });
        println!("{states} states of the disk checked");
        assert!(states > 20, "only {states} states");
    }
}

#[test]
fn a_failure_of_any_call_of_a_rewrap_leaves_old_slots_or_a_journal() {
    for (errno, until) in [
        (Errno::NOSPC, Until::Next),
        (Errno::NOSPC, Until::Full),
        (Errno::ACCESS, Until::Next),
        (Errno::ROFS, Until::ReadOnly),
    ] {
        let mut failures = 0;
        for call in 0.. {
            let setup = setup();
            let (old, new) = (setup.old.bytes(), setup.new.bytes());
            let recorder = Recorder::failing(setup.folder(), call, errno, until);
            let result = setup.rewrite(recorder.clone());
            if !recorder.failed() {
                result.unwrap();
                break;
            }
            failures += 1;
            let error = result.unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.path().is_some_and(|path| path == setup.path || path == setup.journal), "{text}");
            let found = setup.content();
            if text.contains("nothing was changed") {
                assert!(found == old, "call {call}: {text}");
                assert!(matches!(until, Until::ReadOnly) || list(setup.folder()) == ["a.elk"], "call {call}: {text}");
            } else if text.contains("journal was kept") {
                assert!(setup.old.pending(&setup.path).is_some(), "call {call}: {text}");
            } else if text.contains("is whole") {
                assert!(found == new, "call {call}: {text}");
            } else {
                assert!(text.contains("cannot open the journal"), "call {call}: {text}");
                assert!(found == old);
            }
            setup.check(false);
            // A crash later than the failure, which the caller heard of.
            let states = recorder.check_every_crash(setup.folder(), |_| setup.check(false));
            assert!(states > 0);
        }
        // Two openings, then create, mode, write, sync, sync of the folder, overwrite, sync, remove, sync.
        assert_eq!(failures, 11, "{errno}");
    }
}

#[test]
fn only_a_journal_of_this_very_state_is_applied() {
    let setup = setup();
    let whole = setup.whole_journal();
    let journals = [
        ("empty", Vec::new()),
        ("shorter", whole[..whole.len() - 1].to_vec()),
        ("its first bytes", whole[..2].to_vec()),
        ("without its first sector", [&[0; 512], &whole[512..]].concat()),
        ("zeros", vec![0; whole.len()]),
    ];
    let flipped = (3..whole.len()).step_by(97).map(|at| {
        let mut journal = whole.clone();
        journal[at] ^= 1;
        ("flipped", journal)
    });
    for (what, journal) in journals.into_iter().chain(flipped) {
        fs::write(&setup.journal, journal).unwrap();
        assert_eq!(setup.old.pending(&setup.path), None, "{what}");
        assert_eq!(setup.old.recover(os(), &setup.path).unwrap(), Recovery::Removed, "{what}");
        assert!(setup.content() == setup.old.bytes(), "{what}");
        assert!(!setup.journal.exists(), "{what}");
    }

    // Another message, and other slots than the old and the new ones.
    for other in [Message { floe: vec![0; 74], ..Message::new(1) }, Message::new(3)] {
        fs::write(&setup.path, other.bytes()).unwrap();
        fs::write(&setup.journal, &whole).unwrap();
        assert_eq!(other.pending(&setup.path), None);
        assert_eq!(other.recover(os(), &setup.path).unwrap(), Recovery::Removed);
        assert!(setup.content() == other.bytes());
    }

    fs::write(&setup.path, setup.old.bytes()).unwrap();
    fs::write(&setup.journal, &whole).unwrap();
    assert_eq!(setup.old.recover(os(), &setup.path).unwrap(), Recovery::Applied);
    assert!(setup.content() == setup.new.bytes());
    assert_eq!(setup.old.recover(os(), &setup.path).unwrap(), Recovery::Nothing);
}

#[test]
fn the_journal_has_the_published_bytes() {
    let setup = setup();
    let journal = setup.whole_journal();
    let m = SLOTS.to_be_bytes();
    let content = [&[1], &m[..], &setup.old.slots, &setup.new.slots].concat();
    let hash = sha256(&[&content, &setup.old.core, &setup.old.floe]);
    assert!(journal == [&content[..], &hash].concat());
}

#[test]
fn what_cannot_be_a_journal_is_neither_followed_nor_removed() {
    let setup = setup();
    let victim = setup.folder().join("victim");
    fs::write(&victim, setup.whole_journal()).unwrap();
    let refused = |make: &dyn Fn(&Path)| {
        make(&setup.journal);
        let error: Error = setup.old.recover(os(), &setup.path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.path(), Some(&*setup.journal));
        assert!(setup.rewrite(os()).is_err());
        assert!(fs::symlink_metadata(&setup.journal).is_ok());
        assert!(setup.content() == setup.old.bytes());
        fs::remove_file(&setup.journal).unwrap();
    };
    refused(&|path| symlink(&victim, path).unwrap());
    refused(&|path| fs::write(path, "somebody's own").unwrap());
    refused(&|path| fs::write(path, [&setup.whole_journal()[..], &[0]].concat()).unwrap());
    refused(&|path| fs::write(path, [&[2], &setup.whole_journal()[1..]].concat()).unwrap());
    refused(&|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap());
    refused(&|path| {
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    });
    assert!(victim.exists());
}

#[test]
fn a_rewrap_through_a_link_uses_the_journal_of_the_real_file() {
    let setup = setup();
    setup.fill_torn();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(&setup.path, &link).unwrap();
    assert!(setup.old.pending(&link).is_some());
    assert_eq!(setup.old.recover(os(), &link).unwrap(), Recovery::Applied);
    assert!(setup.content() == setup.new.bytes());
}

#[test]
fn a_rewrap_waits_its_turn() {
    let setup = setup();
    let other = LockedFile::open(os(), &setup.path, Duration::ZERO).unwrap();
    assert_eq!(setup.rewrite(os()).unwrap_err().kind(), ErrorKind::Busy);
    drop(other);
    setup.rewrite(os()).unwrap();
    assert!(setup.content() == setup.new.bytes());
    assert_eq!(list(setup.folder()), ["a.elk"]);
}

#[test]
fn slots_of_another_length_are_refused_before_anything_is_written() {
    let setup = setup();
    let error = setup.old.rewrite(os(), &setup.path, &[0; 5]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(setup.content() == setup.old.bytes());
}

#[test]
fn who_may_read_the_message_may_read_its_journal_and_nobody_else() {
    for mode in [0o600, 0o640] {
        let setup = setup();
        fs::set_permissions(&setup.path, fs::Permissions::from_mode(mode)).unwrap();
        let recorder = Recorder::failing(setup.folder(), 6, Errno::ROFS, Until::ReadOnly);
        assert!(setup.rewrite(recorder).is_err());
        assert_eq!(fs::metadata(&setup.journal).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn every_notice_says_what_happened() {
    assert_eq!(Recovery::Nothing.notice(), None);
    assert!(Recovery::Applied.notice().is_some_and(|line| line.contains("finished")));
    assert!(Recovery::Removed.notice().is_some_and(|line| line.contains("removed")));
}
