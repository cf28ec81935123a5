//! Processes that are killed by SIGKILL while they write files, at moments that are proven by what is
//! left. Each test runs itself again as the process that is killed. (Keystores: `kms_processes`.)

use crate::support::child::{Running, leftovers, long, tell, words};
use crate::support::providers::{all, raw};
use crate::support::random::Random;
use crate::support::say;
use envelock::{EncryptionContext, Envelope, FileOptions, KeyProvider, RewrapOptions, blocking};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn an_encryption_to_a_new_file_killed_at_any_instant_leaves_it_whole_or_not_there() {
    play_or_kill(Job::EncryptNew, "an_encryption_to_a_new_file_killed_at_any_instant_leaves_it_whole_or_not_there");
}

#[test]
fn an_encryption_over_a_file_killed_at_any_instant_leaves_the_old_or_the_new_message() {
    play_or_kill(Job::EncryptOver, "an_encryption_over_a_file_killed_at_any_instant_leaves_the_old_or_the_new_message");
}

#[test]
fn a_decryption_killed_at_any_instant_leaves_the_old_or_the_new_plaintext() {
    play_or_kill(Job::Decrypt, "a_decryption_killed_at_any_instant_leaves_the_old_or_the_new_plaintext");
}

#[test]
fn a_rewrap_in_place_killed_at_any_instant_leaves_a_message_that_the_old_or_the_new_provider_opens() {
    play_or_kill(
        Job::Rewrap,
        "a_rewrap_in_place_killed_at_any_instant_leaves_a_message_that_the_old_or_the_new_provider_opens",
    );
}

#[test]
fn a_rewrap_to_a_new_file_killed_at_any_instant_leaves_it_whole_or_not_there() {
    play_or_kill(Job::RewrapNew, "a_rewrap_to_a_new_file_killed_at_any_instant_leaves_it_whole_or_not_there");
}

/// What is done over and over, each time for the next version: it has a content and a key of its own,
/// so that what is found tells which version it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    EncryptNew,
    EncryptOver,
    Decrypt,
    /// The content stays that of version 0.
    Rewrap,
    /// The source stays that of version 0.
    RewrapNew,
}

const LEN: usize = 2 << 20;
/// A part of the content that is one number over and over.
const PIECE: usize = 4 << 10;

fn content(version: u64) -> Vec<u8> {
    let base = version.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..(LEN / PIECE) as u64).map(|i| base.wrapping_add(i).to_le_bytes().repeat(PIECE / 8)).collect::<Vec<_>>().concat()
}

fn provider(version: u64) -> Arc<dyn KeyProvider> {
    raw(&format!("key {version:08}"), u8::try_from(version % 251).unwrap())
}

fn by(provider: Arc<dyn KeyProvider>) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(provider).build().unwrap())
}

fn envelope(version: u64) -> blocking::Envelope {
    by(provider(version))
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("object", "killed")])
}

fn over() -> FileOptions {
    FileOptions::default().replace_existing()
}

impl Job {
    /// Whether each version is a file of its own.
    fn makes_new(self) -> bool {
        matches!(self, Self::EncryptNew | Self::RewrapNew)
    }

    fn target(self, folder: &Path, version: u64) -> PathBuf {
        match self {
            Self::EncryptNew | Self::RewrapNew => folder.join(format!("{version}.elk")),
            Self::EncryptOver | Self::Rewrap => folder.join("a.elk"),
            Self::Decrypt => folder.join("a"),
        }
    }

    /// What must be there before `run`; its loss costs nothing.
    fn prepare(self, folder: &Path, version: u64) {
        match self {
            Self::EncryptNew | Self::EncryptOver => fs::write(folder.join("source"), content(version)).unwrap(),
            Self::Decrypt => {
                let message = envelope(version).encrypt(&content(version), &context()).unwrap();
                fs::write(folder.join("source"), message).unwrap();
            }
            Self::Rewrap | Self::RewrapNew => {}
        }
    }

    fn run(self, folder: &Path, version: u64) {
        let (source, target) = (folder.join("source"), self.target(folder, version));
        match self {
            Self::EncryptNew => {
                envelope(version).encrypt_file(source, target, &context(), FileOptions::default()).unwrap();
            }
            Self::EncryptOver => {
                envelope(version).encrypt_file(source, target, &context(), over()).unwrap();
            }
            Self::Decrypt => {
                envelope(version).decrypt_file(source, target, &context(), over()).unwrap();
            }
            Self::Rewrap => {
                let done =
                    envelope(version - 1).rewrap_file(target, &envelope(version), &context(), RewrapOptions::default());
                assert!(done.unwrap().in_place);
            }
            Self::RewrapNew => {
                let options = RewrapOptions::default().to_file(target);
                let source = folder.join("a.elk");
                envelope(0).rewrap_file(source, &envelope(version), &context(), options).unwrap();
            }
        }
    }

    /// The first version, made without being killed.
    fn found(self, folder: &Path) {
        match self {
            Self::Rewrap | Self::RewrapNew => {
                Self::EncryptOver.prepare(folder, 0);
                Self::EncryptOver.run(folder, 0);
            }
            _ => {
                self.prepare(folder, 0);
                self.run(folder, 0);
            }
        }
    }

    /// Whether the target is whole, and of this version.
    fn is(self, folder: &Path, version: u64) -> bool {
        let target = self.target(folder, version);
        match self {
            Self::Decrypt => fs::read(target).unwrap() == content(version),
            Self::EncryptNew | Self::EncryptOver => opens(&target, version, version),
            Self::Rewrap => opens(&target, version, 0),
            Self::RewrapNew => opens(&target, version, 0) && opens(&folder.join("a.elk"), 0, 0),
        }
    }

    /// The version that stands once a run was killed that was told to begin with `first`, returned
    /// from all up to `done` and had begun `begun`.
    fn judge(self, folder: &Path, first: u64, done: u64, begun: u64) -> u64 {
        if self.makes_new() {
            for version in first..=done {
                assert!(self.is(folder, version), "version {version} was acknowledged and is lost");
            }
            let there = begun > done && self.target(folder, begun).exists();
            assert!(!there || self.is(folder, begun), "version {begun} is there and not whole");
            return if there { begun } else { done };
        }
        let standing = [begun, done].into_iter().find(|&version| self.is(folder, version));
        standing.unwrap_or_else(|| panic!("neither {done}, which was acknowledged, nor {begun} stands whole"))
    }

    /// The next run to the same target, which must remove what the killed one left. Its version, and
    /// what a rewrap said of the journal.
    fn clean(self, folder: &Path, done: u64, begun: u64) -> (u64, Option<&'static str>) {
        if self == Self::Rewrap {
            // The journal may be applied first, so either of the two keys can be the one that is needed.
            let (old, new) = (provider(done), provider(begun));
            let reader = if done == begun { old } else { all(&[&old, &new]) };
            let target = self.target(folder, 0);
            let next = envelope(begun + 1);
            let done = by(reader).rewrap_file(target, &next, &context(), RewrapOptions::default()).unwrap();
            assert!(done.in_place);
            return (begun + 1, done.notice);
        }
        // A new file's name has to be the same, for the leftover to be its own.
        let version = if self.makes_new() { begun } else { begun + 1 };
        self.prepare(folder, version);
        if self.makes_new() && self.target(folder, version).exists() {
            fs::remove_file(self.target(folder, version)).unwrap();
        }
        self.run(folder, version);
        (version, None)
    }
}

fn opens(message: &Path, key: u64, text: u64) -> bool {
    let Ok(mut reader) = envelope(key).file_reader(message, &context()) else { return false };
    let mut plaintext = Vec::new();
    reader.read_to_end(&mut plaintext).unwrap_or_else(|error| panic!("opened, and is not whole: {error}"));
    plaintext == content(text)
}

fn play_or_kill(job: Job, test: &str) {
    match words() {
        Some(words) => play(job, Path::new(&words[0]), words[1].parse().unwrap()),
        None => kill_often(job, test),
    }
}

fn play(job: Job, folder: &Path, first: u64) {
    for version in first.. {
        job.prepare(folder, version);
        tell(format!("begun {version}"));
        job.run(folder, version);
        tell(format!("done {version}"));
    }
}

#[derive(Debug, Default)]
struct Tally {
    /// Kills after the first write of an operation and before its rename, or a journal's removal.
    between: u32,
    inside: u32,
    acknowledged: u64,
    old: u32,
    new: u32,
    applied: u32,
    removed: u32,
}

fn kill_often(job: Job, test: &str) {
    let kills: u32 = if long() { 250 } else { 50 };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    job.found(folder);
    let (mut standing, mut tally, mut random) = (0, Tally::default(), Random::new(job as u64 + 1));
    for kill in 0..kills {
        let first = standing + 1;
        let aimed = kill % 4 != 3;
        let lines = kill_once(test, folder, first, aimed, &mut random);
        let last = |word: &str| {
            lines.iter().rev().find_map(|line| line.strip_prefix(word)).map(|number| number.parse::<u64>().unwrap())
        };
        let begun = last("begun ").unwrap();
        let done = last("done ").unwrap_or(standing);
        assert!(begun == done || begun == done + 1);

        let left = leftovers(folder);
        assert!(left.len() <= 1, "{left:?}");
        let between = is_between(folder);
        assert!(between || !aimed, "what was there while the process was stopped is gone");
        tally.between += u32::from(between);
        tally.inside += u32::from(begun > done);
        tally.acknowledged += done - standing;
        assert!(!between || begun > done, "{left:?} is left, though the operation had returned");
        let found = job.judge(folder, first, done, begun);
        if begun > done {
            *(if found == begun { &mut tally.new } else { &mut tally.old }) += 1;
        }

        let notice;
        (standing, notice) = job.clean(folder, done, begun);
        assert_eq!(leftovers(folder), [], "the next run leaves nothing of the killed one");
        assert!(job.is(folder, standing));
        match notice {
            Some(text) if text.starts_with("finished") => tally.applied += 1,
            Some(_) => tally.removed += 1,
            None => {}
        }
        if job.makes_new() {
            for version in first..standing {
                // The one that was begun and not finished may not be there.
                let _ = fs::remove_file(job.target(folder, version));
            }
        }
    }
    let Tally { between, inside, acknowledged, old, new, applied, removed } = tally;
    let journals = match job {
        Job::Rewrap => format!("; journals: {applied} applied, {removed} removed"),
        _ => String::new(),
    };
    say(format!(
        "kill: {job:?}: {kills} kills, {inside} inside an operation ({old} left the old, {new} the new), {between} of \
         them between first write and {}; {acknowledged} operations acknowledged, none lost{journals}",
        if job == Job::Rewrap { "the journal's removal" } else { "rename" },
    ));
    assert!(between * 2 >= kills, "only {between} of {kills} kills fell between first write and rename");
}

/// Whether something is written and not yet renamed, or a journal not yet removed.
fn is_between(folder: &Path) -> bool {
    leftovers(folder).iter().any(|(_, len)| *len > 0)
}

/// Kills a run: aimed, while it is stopped and a temporary file or journal is not empty; else some time
/// after an operation has begun, wherever that is. What the run told.
fn kill_once(test: &str, folder: &Path, first: u64, aimed: bool, random: &mut Random) -> Vec<String> {
    let mut child = Running::start(&format!("kill::{test}"), &[folder.to_str().unwrap(), &first.to_string()]);
    // Not always in the first operation of a process.
    let mut waited = random.below(3);
    loop {
        let line = child.line().unwrap_or_else(|| panic!("the process ended by itself"));
        if line.starts_with("begun ") {
            if waited == 0 {
                break;
            }
            waited -= 1;
        }
    }
    if !aimed {
        std::thread::sleep(Duration::from_micros(random.next() % 20_000));
        return child.kill();
    }
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing is written any more");
        std::thread::sleep(Duration::from_micros(50));
        if !is_between(folder) {
            continue;
        }
        // Half of them at once; the others wherever in the operation that is.
        if random.one_in(2) {
            std::thread::sleep(Duration::from_micros(random.next() % 1_000));
        }
        assert!(child.stop(), "the process ended by itself");
        if is_between(folder) {
            return child.kill();
        }
        child.go_on();
    }
}
