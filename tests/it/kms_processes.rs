//! The embedded KMS in several processes, and killed at any moment.

use crate::kms_helper::{helper, holds_write_lock, open, rotate};
use crate::kms_reports::{find_recorded, find_reported, is_call, is_report};
use crate::support::child::long;
use crate::support::say;
use envelock::{CreateKeyRequest, EncryptionContext, LocalKms};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn two_processes_at_once_lose_no_update() {
    const TIMES: u32 = 20;
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let key = pollster::block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
    let mut other = helper(&format!("rotate {key} {TIMES}"), folder.path()).stdout(Stdio::null()).spawn().unwrap();
    rotate(&kms, &key, TIMES);
    assert!(other.wait().unwrap().success());
    let versions = pollster::block_on(kms.list_key_versions(&key)).unwrap();
    assert_eq!(versions.len(), 1 + 2 * TIMES as usize);
    assert_eq!(pollster::block_on(kms.list_keys()).unwrap().len(), 1 + 2 * TIMES as usize);
}

/// `ENVELOCK_KILLS` sets how often; without it 16 times, and 1,000 in `scripts/long`.
fn kills() -> u32 {
    std::env::var("ENVELOCK_KILLS").map_or(if long() { 1_000 } else { 16 }, |text| text.parse().unwrap())
}

#[test]
fn a_keystore_killed_at_any_instant_opens_with_every_acknowledged_operation_and_its_record() {
    let (kills, mut left) = (kills(), Left::new());
    let mut inside = 0;
    for kill in 0..kills {
        // Now and then anew, since everything is looked at after each kill.
        if kill % 20 == 19 {
            left.begin_anew();
        }
        let delay = Duration::from_micros(u64::from(random(150_000)));
        let killed = kill_at(left.folder.path(), At::FirstOpened, delay, kill % 2 == 0);
        inside += u32::from(killed.inside);
        assert!(!left.check(&[killed]), "it was there before");
    }
    left.say("killed", kills, inside);
}

#[test]
fn two_processes_at_work_on_one_keystore_and_killed_lose_nothing_and_leave_a_whole_trail() {
    let (kills, mut left) = (kills(), Left::new());
    let mut inside = 0;
    for kill in 0..kills {
        if kill % 20 == 19 {
            left.begin_anew();
        }
        let both = std::thread::scope(|scope| {
            let one = |most, inside| {
                let folder = left.folder.path();
                let delay = Duration::from_micros(u64::from(random(most)));
                scope.spawn(move || kill_at(folder, At::FirstOpened, delay, inside))
            };
            // The one while it holds the write lock, every second time; the other at any instant.
            [one(200_000, kill % 2 == 0), one(200_000, false)].map(|thread| thread.join().unwrap())
        });
        inside += u32::from(both.iter().any(|killed| killed.inside));
        left.check(&both);
    }
    left.say("two processes killed", kills, inside);
}

/// Of the calls in the load.
const KINDS: usize = 16;

/// A keystore whose processes are killed again and again, and what they had said.
struct Left {
    folder: TempDir,
    reports: Vec<String>,
    /// How far the trail was looked at.
    looked_at: u64,
    answered: usize,
    cut_off: usize,
    /// The events of the calls that were answered.
    kinds: BTreeSet<String>,
}

impl Left {
    fn new() -> Self {
        let (folder, reports, kinds) = (tempfile::tempdir().unwrap(), Vec::new(), BTreeSet::new());
        Self { folder, reports, looked_at: 0, answered: 0, cut_off: 0, kinds }
    }

    fn begin_anew(&mut self) {
        (self.folder, self.looked_at) = (tempfile::tempdir().unwrap(), 0);
        self.reports.clear();
    }

    /// Opens what was left, and looks for everything that was reported, for the record of each call that was answered,
    /// for no more than one call for each of those killed that was done and not answered, and that nothing else is
    /// left. Whether the keystore was made by that.
    fn check(&mut self, killed: &[Killed]) -> bool {
        let kms = open(self.folder.path()).unwrap();
        let new: Vec<_> = killed.iter().flat_map(Killed::reports).collect();
        let cut_off = find_recorded(&kms, self.looked_at, &new).unwrap();
        assert!(cut_off <= killed.len(), "{cut_off} calls with records were not answered");
        self.cut_off += cut_off;
        let calls = new.iter().filter(|line| is_call(line));
        self.kinds.extend(calls.clone().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned));
        self.answered += calls.count();
        self.reports.extend(new);
        let made = check_open(&kms, &mut self.reports);
        self.looked_at = pollster::block_on(kms.audit_head()).unwrap().sequence();
        pollster::block_on(kms.close()).unwrap();
        nothing_else(self.folder.path());
        made
    }

    fn say(&self, what: &str, kills: u32, inside: u32) {
        assert!(inside * 2 >= kills, "only {inside} of {kills} kills fell inside a transaction");
        // All of them, once there were enough.
        let kinds = self.kinds.len();
        assert!(kinds == if kills >= 200 { KINDS } else { kinds.max(2) }, "{:?}", self.kinds);
        say(format!(
            "keystore: {what} {kills} times, {inside} times while one held SQLite's write lock; {} calls of {kinds} kinds answered, none \
             lost, each with its record in a whole trail; {} done and not answered",
            self.answered, self.cut_off
        ));
    }
}

#[test]
fn the_creation_of_a_keystore_killed_at_any_instant_is_completed_by_the_next() {
    let kills = kills();
    let (mut between, mut before, mut after) = (0, 0, 0);
    for kill in 0..4 * kills {
        let folder = tempfile::tempdir().unwrap();
        // Some time after the file is there, every other time at once; and now and then wherever that is.
        let (at, latest) = match kill % 4 {
            3 => (At::Begun, 8_000),
            1 => (At::FileThere, 2_000),
            _ => (At::FileThere, 1),
        };
        let killed = kill_at(folder.path(), at, Duration::from_micros(u64::from(random(latest))), false);
        let there = folder.path().join("keys.db").exists();
        let reports: Vec<String> = killed.reports().collect();
        // Who makes the keystore is who commits it: if that is the next, then the killed one had not.
        let made = check(folder.path(), &reports);
        assert!(reports.is_empty() || !made, "it was acknowledged, and is made anew");
        *match (there, made) {
            (true, true) => &mut between,
            (false, _) => &mut before,
            (true, false) => &mut after,
        } += 1;
        if kill + 1 >= kills && between * 2 > kill {
            return say(format!(
                "keystore: its creation killed {} times: {between} times between first write and commit, {before} before, \
                 {after} after",
                kill + 1
            ));
        }
    }
    panic!("only {between} of {} kills fell between the first write of a keystore and its commit", 4 * kills);
}

/// From when on the time to a kill is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begun,
    FileThere,
    FirstOpened,
}

/// A helper that was killed.
struct Killed {
    /// What it said.
    lines: Vec<String>,
    /// Whether it held SQLite's write lock, and so was between the beginning of a transaction and its end.
    inside: bool,
}

impl Killed {
    /// What it said was acknowledged.
    fn reports(&self) -> impl Iterator<Item = String> {
        self.lines.iter().filter(|line| is_report(line)).cloned()
    }
}

/// Runs the helper and kills it: where `inside`, not before it holds the write lock, which is looked for while it is
/// stopped.
fn kill_at(folder: &Path, at: At, delay: Duration, inside: bool) -> Killed {
    let mut child = helper("work", folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let awaited: &[u8] = if at == At::FirstOpened { b"OPENED" } else { b"BEGIN\n" };
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(awaited) {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "the helper ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    let started = Instant::now();
    while at == At::FileThere && !folder.join("keys.db").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "it makes no keystore");
        std::thread::sleep(Duration::from_micros(20));
    }
    std::thread::sleep(delay);
    // Read on, so that it never waits for somebody to hear it.
    let rest = std::thread::spawn(move || {
        out.read_to_end(&mut said).unwrap();
        said
    });
    let mut holds = stop_and_look(&child, folder);
    while inside && !holds {
        assert!(child.try_wait().unwrap().is_none(), "the helper has failed");
        assert!(started.elapsed() < Duration::from_secs(60), "it never held the write lock");
        send(&child, Signal::CONT);
        std::thread::sleep(Duration::from_micros(u64::from(random(2_000))));
        holds = stop_and_look(&child, folder);
    }
    child.kill().unwrap();
    let said = rest.join().unwrap();
    child.wait().unwrap();
    // The last line may be cut off: then its report did not arrive.
    let text = String::from_utf8(said).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Killed { lines, inside: holds }
}

/// Stops the helper, and tells whether it is between the beginning of a transaction that writes and its end.
fn stop_and_look(child: &Child, folder: &Path) -> bool {
    send(child, Signal::STOP);
    let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid(child)), stopped).unwrap();
    // This process has no lock of its own there that the closing would drop.
    holds_write_lock(pid(child), &folder.join("keys.db"))
}

fn send(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).unwrap();
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Opens what was left of a creation, and looks for everything that was reported, and that nothing else is left.
/// Whether the keystore was made by that.
fn check(folder: &Path, reports: &[String]) -> bool {
    let kms = open(folder).unwrap();
    find_recorded(&kms, 0, reports).unwrap();
    let made = check_open(&kms, &mut reports.to_vec());
    pollster::block_on(kms.close()).unwrap();
    nothing_else(folder);
    made
}

fn check_open(kms: &LocalKms, reports: &mut Vec<String>) -> bool {
    let more = find_reported(kms, reports).unwrap();
    reports.extend(more);
    let context = EncryptionContext::from([("tenant", "acme")]);
    pollster::block_on(kms.encrypt("alias/envelock/default", b"x", &context)).unwrap();
    kms.made_keystore()
}

fn nothing_else(folder: &Path) {
    let mut left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["keys.db", "root.key"], "the next run leaves nothing of the killed one");
}

/// Not for keys: where the kills fall.
fn random(below: u32) -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash % u64::from(below)).unwrap()
}
