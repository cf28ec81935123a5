//! Two processes with eight threads each on one keystore: nothing is lost, nothing is there twice, nobody waits for
//! ever.

use crate::kms_helper::{helper, open, wait};
use crate::support::child::long;
use crate::support::say;
use envelock::{CreateKeyRequest, EncryptionContext, Error, ErrorKind, KmsOptions, LocalKms, RootKey};
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const THREADS: usize = 8;
/// What the calls are told to wait for others at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a call may take, as docs/kms.md has it: a transaction that was begun before, which waits for others for as
/// long as it may, then its own; and the work of both, on a machine with other things to do.
const LONGEST: Duration = Duration::from_secs(2 * PATIENCE.as_secs() + 2);
const TASK: &str = "load";

/// Of the processes, and their openings.
const STARTING: Duration = Duration::from_secs(10);

/// What one process did, as it was acknowledged.
#[derive(Default)]
struct Done {
    rotations: BTreeMap<String, u64>,
    keys: BTreeSet<String>,
    /// Where the alias that all move was moved to, and when each call began and ended.
    moves: Vec<(String, Duration, Duration)>,
    calls: u64,
    busy: u64,
}

#[test]
fn two_processes_of_eight_threads_lose_no_update_and_never_stand_still() {
    let seconds = if long() { 60 } else { 3 };
    let folder = tempfile::tempdir().unwrap();
    let kms = open(folder.path()).unwrap();
    let shared: Vec<_> = (0..3).map(|_| new_key(&kms).unwrap()).collect();
    block_on(kms.create_alias("alias/moving", &shared[0])).unwrap();
    let task = format!("{TASK} {seconds} {}", shared.join(" "));
    let started = Instant::now();
    let children: Vec<_> =
        (0..2).map(|_| helper(&task, folder.path()).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let mut done = Done::default();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        read(&mut done, &String::from_utf8(output.stdout).unwrap());
    }
    let took = started.elapsed();
    // The last round begins before the end, and has two calls.
    assert!(took < Duration::from_secs(seconds) + 2 * LONGEST + STARTING, "somebody stood still: {took:?}");
    for key in &shared {
        let versions = block_on(kms.list_key_versions(key)).unwrap();
        let numbers: Vec<_> = versions.iter().map(|it| u64::from(it.version)).collect();
        let expected = 1 + done.rotations.get(key).copied().unwrap_or_default();
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>(), "each rotation made one version, and no other did");
    }
    let found: BTreeSet<_> = block_on(kms.list_keys()).unwrap().into_iter().map(|key| key.key_id).collect();
    let expected: BTreeSet<_> = done.keys.iter().cloned().chain(shared).collect();
    assert_eq!(found, expected);
    let aliases = block_on(kms.list_aliases()).unwrap();
    let target = &aliases.iter().find(|it| it.alias_name == "alias/moving").unwrap().target_key_id;
    // Of calls that overlapped, any may have been the last.
    let latest_begin = done.moves.iter().map(|(_, began, _)| *began).max().unwrap();
    let mut last = done.moves.iter().filter(|(_, _, ended)| *ended >= latest_begin);
    assert!(last.any(|(key, ..)| key == target), "{target} is not where it was moved to last");
    block_on(kms.verify_audit(None)).unwrap();
    block_on(kms.check()).unwrap();
    let rotations: u64 = done.rotations.values().sum();
    assert!(done.calls > 100 * seconds, "{} calls", done.calls);
    say(format!(
        "keystore: 2 processes of {THREADS} threads for {seconds} s: {} calls, {rotations} rotations, {} keys made, {} told \
         to try again",
        done.calls,
        done.keys.len(),
        done.busy
    ));
}

/// What the process of [`helper`] does for `seconds` on the keys that follow.
pub(crate) fn load(folder: &Path, words: &str) {
    let mut words = words.split(' ');
    let seconds = words.next().unwrap().parse().unwrap();
    let shared: Vec<_> = words.map(str::to_owned).collect();
    let root = RootKey::file(folder.join("root.key")).unwrap();
    let kms = LocalKms::open_with(folder.join("keys.db"), root, KmsOptions::default().busy_timeout(PATIENCE)).unwrap();
    let until = Instant::now() + Duration::from_secs(seconds);
    let (calls, busy) = (AtomicU64::new(0), AtomicU64::new(0));
    let thread = |number: usize| {
        let mut said = Vec::new();
        let mut count = |line: Option<String>| said.extend(line);
        for round in number.. {
            if Instant::now() >= until {
                return said;
            }
            let began = Instant::now();
            let key = &shared[round % shared.len()];
            let outcome = match round % 7 {
                0 => wait(kms.rotate(key)).map(|_| count(Some(format!("ROTATED {key}")))),
                1 => new_key(&kms).map(|key| count(Some(format!("MADE {key}")))),
                2 => {
                    let began = now();
                    let moved = block_on(kms.update_alias("alias/moving", key));
                    moved.map(|()| count(Some(format!("MOVED {key} {began} {}", now()))))
                }
                _ => round_trip(&kms, if round % 2 == 0 { key } else { "alias/moving" }),
            };
            calls.fetch_add(1, Ordering::Relaxed);
            let took = began.elapsed();
            match outcome {
                Ok(()) => assert!(took < LONGEST, "a call took {took:?}"),
                Err(error) if error.kind() == ErrorKind::Busy => {
                    assert!(took >= PATIENCE && took < LONGEST, "busy after {took:?}");
                    busy.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        said
    };
    let said: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || thread(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let figures = [format!("CALLS {}", calls.into_inner()), format!("BUSY {}", busy.into_inner())];
    println!("\n{}", said.into_iter().chain(figures).collect::<Vec<_>>().join("\n"));
}

/// In nanoseconds, for both processes.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn new_key(kms: &LocalKms) -> Result<String, Error> {
    block_on(kms.create_key(CreateKeyRequest::default())).map(|key| key.key_id)
}

fn round_trip(kms: &LocalKms, key: &str) -> Result<(), Error> {
    let context = EncryptionContext::from([("tenant", "acme")]);
    let blob = wait(kms.encrypt(key, b"attack at dawn", &context))?.ciphertext_blob;
    assert_eq!(block_on(kms.decrypt(&blob, &context))?.plaintext(), b"attack at dawn");
    Ok(())
}

fn read(done: &mut Done, text: &str) {
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["ROTATED", key] => *done.rotations.entry(key.to_owned()).or_default() += 1,
            ["MADE", key] => assert!(done.keys.insert(key.to_owned()), "{key} was made twice"),
            ["MOVED", key, began, ended] => {
                let [began, ended] = [began, ended].map(|nanos| Duration::from_nanos(nanos.parse().unwrap()));
                done.moves.push((key.to_owned(), began, ended));
            }
            ["CALLS", count] => done.calls += count.parse::<u64>().unwrap(),
            ["BUSY", count] => done.busy += count.parse::<u64>().unwrap(),
            _ => {}
        }
    }
}
