//! Who works on a keystore: its thread, or a caller who waits.

use super::{Place, block_on, context, new_key};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::kms::records::{KeyRecord, Source};
use crate::kms::state::KeyState;
use crate::kms::{KmsOptions, LocalKms, RootKey, version_of_blob};
use crate::worker::waiting;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A clock that knows which threads asked it: each transaction asks once at least. And it may panic.
#[derive(Debug, Default)]
struct Asked {
    threads: Mutex<BTreeSet<String>>,
    panics: AtomicBool,
}

impl Asked {
    /// Who asked since the last time.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.threads.lock().unwrap()).into_iter().collect()
    }
}

impl Clock for Asked {
    fn wall(&self) -> Duration {
        self.threads.lock().unwrap().insert(thread::current().name().unwrap_or_default().to_owned());
        assert!(!self.panics.load(Ordering::SeqCst), "for the test");
        SystemClock.wall()
    }
}

fn open(place: &Place, clock: &Arc<Asked>) -> LocalKms {
    open_with(place, clock, KmsOptions::default())
}

fn open_with(place: &Place, clock: &Arc<Asked>, options: KmsOptions) -> LocalKms {
    let options = options.clock(Arc::clone(clock) as _).busy_timeout(Duration::from_secs(60));
    LocalKms::open_with(place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap()
}

/// On a thread of this name, which waits for what it calls.
pub(super) fn caller<'s, T: Send + 's>(
    scope: &'s thread::Scope<'s, '_>,
    name: &str,
    call: impl FnOnce() -> T + Send + 's,
) -> thread::ScopedJoinHandle<'s, T> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || waiting(call)).unwrap()
}

/// Until somebody is at work, and so many stand in line.
pub(super) fn until(kms: &LocalKms, line: usize) {
    until_line(kms, (true, line));
}

/// Until nobody is at work: an answer comes before that.
pub(super) fn idle(kms: &LocalKms) {
    until_line(kms, (false, 0));
}

fn until_line(kms: &LocalKms, expected: (bool, usize)) {
    let start = Instant::now();
    while kms.shared.thread.as_ref().unwrap().desk.line() != expected {
        assert!(start.elapsed() < Duration::from_secs(30), "the line was never {expected:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// How many transactions wrote so far.
pub(super) fn transactions(place: &Place) -> i64 {
    let head = "SELECT head FROM audit WHERE head IS NOT NULL";
    let head: Vec<u8> = place.sql().query_row(head, [], |row| row.get(0)).unwrap();
    i64::from_be_bytes(head[4..12].try_into().unwrap())
}

const THREAD: &str = "envelock-kms";

#[test]
fn a_caller_who_waits_does_the_work_himself_and_one_who_awaits_does_not() {
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open(&place, &clock);
    let key = new_key(&kms);
    clock.take();
    let encrypt = || block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    let blob = encrypt();
    idle(&kms);
    assert_eq!(clock.take(), [THREAD]);
    thread::scope(|scope| {
        let blob = caller(scope, "waits", || {
            assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
            block_on(kms.rotate(&key)).unwrap();
            kms.provider("alias/envelock/default").unwrap();
            idle(&kms);
            encrypt()
        });
        blob.join().unwrap();
    });
    // What is looked up for the provider is no call, and the thread's.
    assert_eq!(clock.take(), [THREAD, "waits"]);
    assert_eq!(block_on(kms.describe_key(&key)).unwrap().current_version, 2);
    let done: Vec<_> = place.trail().into_iter().map(|[name, ..]| name).collect();
    let expected = [
        "CreateKeystore",
        "CreateKey",
        "Encrypt",
        "Decrypt",
        "RotateKeyOnDemand",
        "DescribeKey",
        "Encrypt",
        "DescribeKey",
    ];
    assert_eq!(done, expected);
    block_on(kms.verify_audit(None)).unwrap();
}

#[test]
fn those_who_call_while_a_caller_is_at_work_share_the_next_transaction_of_the_thread() {
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open(&place, &clock);
    let key = new_key(&kms);
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = transactions(&place);
    idle(&kms);
    clock.take();
    thread::scope(|scope| {
        let leader = caller(scope, "leader", || block_on(kms.rotate(&key)).unwrap().current_version);
        until(&kms, 0);
        let followers: Vec<_> = (0..7)
            .map(|_| caller(scope, "follower", || block_on(kms.encrypt(&key, b"x", &context())).unwrap()))
            .collect();
        until(&kms, 7);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(leader.join().unwrap(), 2);
        followers.into_iter().for_each(|it| drop(it.join().unwrap()));
    });
    assert_eq!(transactions(&place) - before, 2, "one for the first, and one for all others");
    assert_eq!(clock.take(), [THREAD, "leader"]);
}

#[test]
fn calls_of_one_transaction_see_what_those_before_them_changed_and_not_what_was_undone() {
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open(&place, &clock);
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    let decrypts = || block_on(kms.decrypt(&blob, &context())).map(drop);
    let version = || block_on(kms.describe_key(&key)).map(|it| it.current_version);
    let blobs = Mutex::new(Vec::new());
    let encrypts = || {
        let blob = block_on(kms.encrypt(&key, b"x", &context())).map(|it| it.ciphertext_blob)?;
        let version = version_of_blob(&blob).unwrap_or_default();
        blobs.lock().unwrap().push(blob);
        Ok::<_, Error>(version)
    };
    // One that looks at what it has changed, and fails.
    let fails = || {
        let key_id = key.clone();
        block_on(kms.call(kms.asks("DisableKey"), move |tx| {
            let mut record = KeyRecord::find(tx, &key_id)?.unwrap();
            record.rotate(tx, Source::OnDemand)?;
            assert_eq!(record.current_material(tx)?.version, 4);
            record.state = KeyState::Disabled;
            record.save(tx)?;
            assert_eq!(KeyRecord::find(tx, &key_id)?.unwrap().state, KeyState::Disabled);
            // So that what was undone would be remembered.
            assert_eq!(record.current_material(tx)?.version, 4);
            Err::<(), _>(Error::internal("for the test"))
        }))
    };
    let other = place.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = transactions(&place);
    idle(&kms);
    let steps: [(&str, &(dyn Fn() -> String + Sync)); 15] = [
        ("Ok(())", &|| format!("{:?}", decrypts().map_err(|e| e.code()))),
        ("Ok(())", &|| format!("{:?}", block_on(kms.disable_key(&key)).map(drop).map_err(|e| e.code()))),
        (r#"Err(Some("DisabledException"))"#, &|| format!("{:?}", decrypts().map_err(|e| e.code()))),
        ("Ok(())", &|| format!("{:?}", block_on(kms.enable_key(&key)).map(drop).map_err(|e| e.code()))),
        ("Ok(())", &|| format!("{:?}", decrypts().map_err(|e| e.code()))),
        ("Ok(1)", &|| format!("{:?}", encrypts().map_err(|e| e.code()))),
        ("Ok(2)", &|| format!("{:?}", block_on(kms.rotate(&key)).map(|it| it.current_version).map_err(|e| e.code()))),
        ("Ok(2)", &|| format!("{:?}", encrypts().map_err(|e| e.code()))),
        ("Ok(3)", &|| format!("{:?}", block_on(kms.rotate(&key)).map(|it| it.current_version).map_err(|e| e.code()))),
        ("Err(None)", &|| format!("{:?}", fails().map_err(|e| e.code()))),
        ("Ok(())", &|| format!("{:?}", decrypts().map_err(|e| e.code()))),
        ("Ok(3)", &|| format!("{:?}", version().map_err(|e| e.code()))),
        ("Ok(3)", &|| format!("{:?}", encrypts().map_err(|e| e.code()))),
        // The number that was undone, and other material.
        ("Ok(4)", &|| format!("{:?}", block_on(kms.rotate(&key)).map(|it| it.current_version).map_err(|e| e.code()))),
        ("Ok(4)", &|| format!("{:?}", encrypts().map_err(|e| e.code()))),
    ];
    thread::scope(|scope| {
        let leader = caller(scope, "leader", || version().map(drop).unwrap());
        until(&kms, 0);
        let mut calls = Vec::new();
        for (at, (_, step)) in steps.iter().enumerate() {
            calls.push(caller(scope, "follower", step));
            until(&kms, at + 1);
        }
        other.execute_batch("ROLLBACK").unwrap();
        leader.join().unwrap();
        for ((expected, _), call) in steps.iter().zip(calls) {
            assert_eq!(call.join().unwrap(), *expected);
        }
    });
    assert_eq!(transactions(&place) - before, 2, "one for the first, and one for all others");
    block_on(kms.verify_audit(None)).unwrap();
    for blob in blobs.into_inner().unwrap() {
        assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"x");
    }
}

#[test]
fn threads_that_call_at_the_same_time_share_their_commits() {
    const CALLS: i64 = 25;
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open(&place, &clock);
    let key = new_key(&kms);
    let before = transactions(&place);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            caller(scope, "one", || {
                start.wait();
                (0..CALLS).for_each(|_| drop(block_on(kms.encrypt(&key, b"x", &context())).unwrap()));
            });
        }
    });
    let transactions = transactions(&place) - before;
    assert!(transactions * 2 <= 8 * CALLS, "{transactions} transactions for {} calls", 8 * CALLS);
    assert_eq!(place.trail().iter().filter(|[name, ..]| name == "Encrypt").count(), 200);
}

#[test]
fn after_a_panic_the_keystore_is_closed_whoever_was_at_work() {
    for leads in [true, false] {
        let (place, clock) = (Place::new(), Arc::new(Asked::default()));
        let kms = open(&place, &clock);
        let key = new_key(&kms);
        let other = place.sql();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let rotate = || block_on(kms.rotate(&key)).unwrap_err().kind();
        idle(&kms);
        clock.take();
        thread::scope(|scope| {
            let first = caller(scope, "first", || {
                if leads { rotate() } else { thread::scope(|it| it.spawn(rotate).join().unwrap()) }
            });
            until(&kms, 0);
            let second = scope.spawn(rotate);
            until(&kms, 1);
            clock.panics.store(true, Ordering::SeqCst);
            other.execute_batch("ROLLBACK").unwrap();
            let ends = [first.join().unwrap(), second.join().unwrap()];
            assert_eq!(ends, [ErrorKind::Storage; 2], "who was at work, and who stood in line");
        });
        assert_eq!(clock.take(), [if leads { "first" } else { THREAD }]);
        clock.panics.store(false, Ordering::SeqCst);
        assert_eq!(waiting(rotate), ErrorKind::Storage);
        assert_eq!(block_on(kms.close()).unwrap_err().kind(), ErrorKind::Storage);
        drop(other);
        drop(kms);
        let kms = open(&place, &clock);
        assert_eq!(block_on(kms.describe_key(&key)).unwrap().current_version, 1, "nothing of it was kept");
        assert_eq!(waiting(|| block_on(kms.rotate(&key))).unwrap().current_version, 2);
        block_on(kms.verify_audit(None)).unwrap();
    }
}

#[test]
fn a_keystore_is_closed_between_the_calls_of_those_who_never_rest() {
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open(&place, &clock);
    let key = new_key(&kms);
    let acknowledged = thread::scope(|scope| {
        let restless = caller(scope, "restless", || {
            let mut acknowledged = 0;
            loop {
                match block_on(kms.rotate(&key)) {
                    Ok(_) => acknowledged += 1,
                    Err(error) => return (acknowledged, error.kind()),
                }
            }
        });
        while transactions(&place) < 20 {
            thread::sleep(Duration::from_millis(1));
        }
        block_on(kms.close()).unwrap();
        let (acknowledged, kind) = restless.join().unwrap();
        assert_eq!(kind, ErrorKind::Storage);
        acknowledged
    });
    let kms = open(&place, &clock);
    assert_eq!(block_on(kms.describe_key(&key)).unwrap().current_version, 1 + acknowledged);
}

#[test]
fn the_thread_writes_in_time_what_a_caller_who_waits_left_to_be_written() {
    let (place, clock) = (Place::new(), Arc::new(Asked::default()));
    let kms = open_with(&place, &clock, KmsOptions::default().risk_losing_audit_records(Duration::from_millis(200)));
    let key = new_key(&kms);
    let records = || place.trail().iter().filter(|[name, ..]| name == "Encrypt").count();
    // It sleeps until it is called: nothing is due.
    idle(&kms);
    thread::sleep(Duration::from_millis(50));
    clock.take();
    thread::scope(|scope| {
        let one = caller(scope, "waits", || block_on(kms.encrypt(&key, b"x", &context())).unwrap());
        one.join().unwrap();
    });
    assert_eq!((clock.take(), records()), (vec!["waits".to_owned()], 0));
    let start = Instant::now();
    while records() == 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody wrote it");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(clock.take(), [THREAD]);
}
