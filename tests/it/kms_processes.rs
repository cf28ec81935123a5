//! The embedded KMS in several processes, and killed at any moment.

use crate::kms_helper::{find_reported, helper, open, rotate};
use crate::support::child::long;
use crate::support::say;
use envelock::{CreateKeyRequest, EncryptionContext};
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

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

/// `ENVELOCK_KILLS` sets how often; without it 30 times, and 200 in `scripts/long`.
#[test]
fn a_keystore_killed_at_any_instant_opens_with_every_acknowledged_operation() {
    let kills: u32 =
        std::env::var("ENVELOCK_KILLS").map_or(if long() { 200 } else { 30 }, |text| text.parse().unwrap());
    let shared = tempfile::tempdir().unwrap();
    let (mut inside, mut opening, mut acknowledged) = (0, 0, 0);
    let mut reported = Vec::new();
    for kill in 0..kills {
        // Every other keystore is new, so that its creation is hit as well.
        let fresh = tempfile::tempdir().unwrap();
        let creates = kill % 2 == 0;
        let folder = if creates { fresh.path() } else { shared.path() };
        let latest = if creates { 8_000 } else { 40_000 };
        let lines = kill_at(folder, Duration::from_micros(u64::from(random(latest))), creates);
        let began = lines.iter().rposition(|line| line == "BEGIN");
        let done = lines.iter().rposition(|line| line.split(' ').count() > 1 && !line.starts_with("test"));
        inside += u32::from(began > done);
        opening += u32::from(!lines.iter().any(|line| line.starts_with("OPENED")));
        acknowledged += lines.iter().filter(|line| is_report(line)).count();
        let fresh_reports: Vec<String> = lines.into_iter().filter(|line| is_report(line)).collect();
        match kill % 2 {
            0 => check(folder, &fresh_reports),
            _ => {
                reported.extend(fresh_reports);
                check(folder, &reported);
            }
        }
    }
    say(format!(
        "keystore: {kills} kills: {inside} inside an operation, {opening} of them while opening; {acknowledged} operations acknowledged, none lost"
    ));
    assert!(inside * 2 >= kills, "only {inside} of {kills} kills fell inside an operation");
}

/// Runs the helper, kills it, and gives what it said. The delay counts from the first operation's
/// beginning, or with `from_start` so that many fall into the creation of the keystore.
fn kill_at(folder: &Path, delay: Duration, from_start: bool) -> Vec<String> {
    let mut child = helper("work", folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let awaited: &[u8] = if from_start { b"BEGIN\n" } else { b"OPENED" };
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(awaited) {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "the helper ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
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

/// Opens what was left, and looks for everything that was reported.
fn check(folder: &Path, reports: &[String]) {
    let kms = open(folder).unwrap();
    find_reported(&kms, reports).unwrap();
    let context = EncryptionContext::from([("tenant", "acme")]);
    pollster::block_on(kms.encrypt("alias/envelock/default", b"x", &context)).unwrap();
    pollster::block_on(kms.close()).unwrap();
}

/// Not for keys: where the kills fall.
fn random(below: u32) -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let hash = RandomState::new().build_hasher().finish();
    u32::try_from(hash % u64::from(below)).unwrap()
}
