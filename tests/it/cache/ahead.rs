//! Near the end of its messages or bytes, a data key is renewed ahead of it, and serves to its last all the same.

#[cfg(feature = "tokio")]
use super::time::at_once;
use super::time::{SECOND, in_time};
use super::{Scene, context, data_key_of};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{CacheLimits, ErrorKind};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// The fewest messages that are renewed ahead of their last, and the fewest bytes.
const MESSAGES: usize = 10_000;
const BYTES: usize = 16 << 20;
/// From three quarters to nine tenths, and the message after that.
const AHEAD: std::ops::RangeInclusive<usize> = 7_500..=9_002;

fn messages(limit: usize) -> CacheLimits {
    CacheLimits::default().max_messages(limit as u64)
}

#[test]
fn while_one_caller_renews_the_others_take_every_message_and_the_one_after_the_last_waits_for_that_call() {
    let scene = Scene::new(messages(MESSAGES), Remote::new);
    let mut cx = Context::from_waker(Waker::noop());
    let one = context(1);
    let first = data_key_of(&in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap());
    let (mut served, mut waiting) = (1, Vec::new());
    while waiting.len() < 2 {
        let mut call = Box::pin(scene.envelope.encrypt(b"x", &one));
        match call.as_mut().poll(&mut cx) {
            Poll::Ready(message) => {
                assert_eq!(data_key_of(&message.unwrap()), first);
                served += 1;
            }
            Poll::Pending => waiting.push((served, call)),
        }
    }
    // The first that waits renews it, and has its own message of the old one.
    let after: Vec<_> = waiting.iter().map(|(after, _)| *after).collect();
    assert!(AHEAD.contains(&(after[0] + 1)), "{after:?}");
    assert_eq!((after[1], scene.remote.calls()), (MESSAGES - 1, 2));
    let keys: Vec<_> = waiting.into_iter().map(|(_, call)| data_key_of(&in_time(&scene, call).unwrap())).collect();
    assert!(keys[0] == first && keys[1] != first);
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, encrypt.waits), (1, 1, 1));
    assert_eq!(encrypt.hits + encrypt.waits + encrypt.misses, MESSAGES as u64 + 1);
    say(format!("cache: a data key of {MESSAGES} messages was renewed at {}, and served all of them", after[0]));
}

#[test]
fn sixteen_threads_never_get_one_too_many_while_data_keys_are_renewed_ahead_of_their_last_message() {
    const THREADS: usize = 16;
    const EACH: usize = 2_500;
    let scene = Scene::new(messages(MESSAGES), Remote::quick);
    let counts = Mutex::new(HashMap::<_, usize>::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let key = data_key_of(&wait(scene.envelope.encrypt(b"x", &context(1))).unwrap());
                    *counts.lock().unwrap().entry(key).or_default() += 1;
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    assert_eq!(counts.values().sum::<usize>(), THREADS * EACH);
    assert!(counts.values().all(|&count| count <= MESSAGES), "{:?}", counts.values());
    // All but the last were used for three quarters at least; one may be at hand that nobody has used yet.
    assert!(counts.values().filter(|&&count| count < *AHEAD.start()).count() <= 1, "{:?}", counts.values());
    assert!((counts.len()..=counts.len() + 1).contains(&scene.remote.calls()));
    let [encrypt, _] = scene.agree();
    assert!(encrypt.renewals > 0 && encrypt.calls() <= 7, "{encrypt:?}");
    assert_eq!(encrypt.hits + encrypt.waits + encrypt.misses, (THREADS * EACH) as u64);
    say(format!("cache: {} messages by {THREADS} threads, {} renewals ahead", THREADS * EACH, encrypt.renewals));
}

#[test]
fn entries_that_are_used_alike_are_renewed_at_different_counts_of_bytes() {
    const LEN: usize = BYTES / 64;
    const ENTRIES: usize = 30;
    let scene = Scene::new(CacheLimits::default().max_bytes(BYTES as u64), Remote::quick);
    let message = vec![1; LEN];
    let mut ends: Vec<_> = (0..ENTRIES)
        .map(|entry| {
            let key = || data_key_of(&wait(scene.envelope.encrypt(&message, &context(entry))).unwrap());
            let first = key();
            (1..65).find(|_| key() != first).expect("65 messages do not fit")
        })
        .collect();
    ends.sort_unstable();
    // From three quarters to nine tenths of 64 messages, and the one that renews.
    assert!((48..=58).contains(&ends[0]) && ends[ENTRIES - 1] <= 58, "{ends:?}");
    ends.dedup();
    assert!(ends.len() >= 5, "{ends:?}");
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals), (ENTRIES as u64, ENTRIES as u64));
    say(format!("cache: {ENTRIES} entries of {BYTES} bytes were renewed at {} different counts", ends.len()));
}

#[test]
fn a_data_key_for_little_is_used_to_its_last_without_a_call_ahead() {
    let few = Scene::new(messages(MESSAGES - 1), Remote::quick);
    (0..2 * (MESSAGES - 1)).for_each(|_| drop(wait(few.envelope.encrypt(b"x", &context(1))).unwrap()));
    let short = Scene::new(CacheLimits::default().max_bytes(BYTES as u64 - 1), Remote::quick);
    (0..2 * 255).for_each(|_| drop(wait(short.envelope.encrypt(&vec![1; BYTES / 256], &context(1))).unwrap()));
    for scene in [few, short] {
        let [encrypt, _] = scene.agree();
        assert_eq!((encrypt.misses, encrypt.renewals), (2, 0));
    }
}

#[test]
fn an_outage_near_the_end_costs_one_call_at_a_time_and_no_message() {
    let scene = Scene::new(messages(MESSAGES), Remote::quick);
    let key = || wait(scene.envelope.encrypt(b"x", &context(1))).map(|message| data_key_of(&message));
    let first = key().unwrap();
    scene.remote.fail(usize::MAX, ErrorKind::Unavailable);
    for number in 1..MESSAGES {
        assert_eq!(key().unwrap(), first);
        // What failed answers for others, until time moves on.
        if number == *AHEAD.end() {
            assert_eq!(scene.remote.calls(), 2);
            scene.clock.advance(SECOND);
        }
    }
    assert_eq!(scene.remote.calls(), 3);
    assert_eq!(key().unwrap_err().kind(), ErrorKind::Unavailable);
    scene.remote.failing.store(0, Ordering::SeqCst);
    scene.clock.advance(SECOND);
    assert_ne!(key().unwrap(), first);
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, encrypt.failures), (2, 2, 2));
}

#[cfg(feature = "tokio")]
#[test]
fn across_the_ends_of_three_data_keys_every_caller_but_the_first_is_served_at_once() {
    let scene = Scene::new(messages(MESSAGES), Remote::new);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let one = context(1);
        in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
        for number in 1..3 * MESSAGES {
            at_once(scene.envelope.encrypt(b"x", &one)).expect("a hit").unwrap();
            // A call takes as long as a few hundred messages.
            if number % 100 == 0 {
                scene.clock.advance_to_next();
                tokio::task::yield_now().await;
            }
        }
        let [encrypt, _] = scene.agree();
        assert_eq!((encrypt.misses, encrypt.waits, encrypt.failures), (1, 0, 0));
        assert!((3..=4).contains(&encrypt.renewals), "{encrypt:?}");
        say(format!("cache: {} messages, all but the first at once; {} renewals", 3 * MESSAGES, encrypt.renewals));
    });
}
