//! The embedded KMS in several processes, and killed at any moment.

use crate::kms_helper::{find_reported, helper, open, rotate};
use crate::support::child::long;
use crate::support::say;
use envelock::{CreateKeyRequest, EncryptionContext};
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

/// `ENVELOCK_KILLS` sets how often; without it 15 times, and 200 in `scripts/long`.
fn kills() -> u32 {
    std::env::var("ENVELOCK_KILLS").map_or(if long() { 200 } else { 15 }, |text| text.parse().unwrap())
}

#[test]
fn a_keystore_killed_at_any_instant_opens_with_every_acknowledged_operation() {
    let (kills, folder) = (kills(), tempfile::tempdir().unwrap());
    let (mut inside, mut reported) = (0, Vec::new());
    for kill in 0..4 * kills {
        let lines = kill_at(folder.path(), At::FirstOpened, Duration::from_micros(u64::from(random(40_000))));
        let began = lines.iter().rposition(|line| line == "BEGIN");
        inside += u32::from(began > lines.iter().rposition(|line| is_report(line)));
        reported.extend(lines.into_iter().filter(|line| is_report(line)));
        assert!(!check(folder.path(), &reported), "it was there before");
        if kill + 1 >= kills && inside * 2 > kill {
            let acknowledged = reported.len();
            return say(format!(
                "keystore: {} kills, {inside} inside an operation; {acknowledged} operations acknowledged, none lost",
                kill + 1
            ));
        }
    }
    panic!("only {inside} of {} kills fell inside an operation", 4 * kills);
}

#[test]
fn two_processes_at_work_on_one_keystore_and_killed_lose_nothing_and_leave_a_whole_trail() {
    let (kills, mut folder) = (kills(), tempfile::tempdir().unwrap());
    let (mut inside, mut reported, mut acknowledged) = (0, Vec::new(), 0);
    for kill in 0..4 * kills {
        // Now and then anew, since everything is looked at after each kill.
        if kill % 20 == 19 {
            folder = tempfile::tempdir().unwrap();
            acknowledged += std::mem::take(&mut reported).len();
        }
        let both = std::thread::scope(|scope| {
            let one = |most| {
                let folder = folder.path();
                scope.spawn(move || kill_at(folder, At::FirstOpened, Duration::from_micros(u64::from(random(most)))))
            };
            [one(60_000), one(60_000)].map(|thread| thread.join().unwrap())
        });
        let mut caught = false;
        for lines in both {
            let began = lines.iter().rposition(|line| line == "BEGIN");
            caught |= began > lines.iter().rposition(|line| is_report(line));
            reported.extend(lines.into_iter().filter(|line| is_report(line)));
        }
        inside += u32::from(caught);
        check(folder.path(), &reported);
        let kms = open(folder.path()).unwrap();
        pollster::block_on(kms.verify_audit(None)).unwrap();
        pollster::block_on(kms.close()).unwrap();
        if kill + 1 >= kills && inside * 2 > kill {
            acknowledged += reported.len();
            return say(format!(
                "keystore: two processes killed {} times, {inside} times inside an operation; {acknowledged} operations \
                 acknowledged, none lost, each trail whole",
                kill + 1
            ));
        }
    }
    panic!("only {inside} of {} kills fell inside an operation", 4 * kills);
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
        let lines = kill_at(folder.path(), at, Duration::from_micros(u64::from(random(latest))));
        let there = folder.path().join("keys.db").exists();
        let reports: Vec<String> = lines.into_iter().filter(|line| is_report(line)).collect();
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

/// Runs the helper, kills it, and gives what it said.
fn kill_at(folder: &Path, at: At, delay: Duration) -> Vec<String> {
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
    child.kill().unwrap();
    out.read_to_end(&mut said).unwrap();
    child.wait().unwrap();
    // The last line may be cut off: then its report did not arrive.
    let text = String::from_utf8(said).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn is_report(line: &str) -> bool {
    ["OPENED ", "KEY ", "BLOB ", "ALIAS "].iter().any(|word| line.starts_with(word))
}

/// Opens what was left, and looks for everything that was reported, and that nothing else is left. Whether
/// the keystore was made by that.
fn check(folder: &Path, reports: &[String]) -> bool {
    let kms = open(folder).unwrap();
    let made = kms.made_keystore();
    find_reported(&kms, reports).unwrap();
    let context = EncryptionContext::from([("tenant", "acme")]);
    pollster::block_on(kms.encrypt("alias/envelock/default", b"x", &context)).unwrap();
    pollster::block_on(kms.close()).unwrap();
    let mut left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["keys.db", "root.key"], "the next run leaves nothing of the killed one");
    made
}

/// Not for keys: where the kills fall.
fn random(below: u32) -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash % u64::from(below)).unwrap()
}
