//! How long a data key serves: renewed ahead of its end, over at its end, and in an outage as stated.

use super::{Scene, context, data_key_of};
use crate::support::providers::raw;
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::clock::Clock;
use envelock::{CacheLimits, Envelope, ErrorKind, Header, KeyProvider, MultiProvider};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn limits() -> CacheLimits {
    CacheLimits::default().max_age(Duration::from_secs(100))
}

/// The answer of a call that has to wait for nothing.
pub(super) fn at_once<F: Future>(call: F) -> Option<F::Output> {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// The answer of a call for which time moves on.
pub(super) fn in_time<F: Future>(scene: &Scene, call: F) -> F::Output {
    let mut call = pin!(call);
    loop {
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => return done,
            Poll::Pending => assert!(scene.clock.advance_to_next(), "it waits for nobody"),
        }
    }
}

#[test]
fn a_data_key_serves_to_its_last_moment_and_not_beyond() {
    let scene = Scene::new(limits(), Remote::quick);
    let key = || data_key_of(&wait(scene.envelope.encrypt(b"x", &context(1))).unwrap());
    let message = wait(scene.envelope.encrypt(b"x", &context(1))).unwrap();
    let first = key();
    wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
    scene.clock.advance(Duration::from_secs(75) - Duration::from_nanos(1));
    assert_eq!((key(), scene.remote.calls()), (first.clone(), 2));
    wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
    assert_eq!(scene.remote.calls(), 2);
    // Nobody came while it was to be renewed.
    scene.clock.advance(Duration::from_secs(25) + Duration::from_nanos(1));
    assert_ne!(key(), first);
    wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
    let [encrypt, decrypt] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, decrypt.misses, decrypt.renewals), (2, 0, 2, 0));
}

#[test]
fn the_age_counts_from_before_the_call() {
    let scene = Scene::new(limits(), Remote::new);
    let one = context(1);
    let mut call = Box::pin(scene.envelope.encrypt(b"x", &one));
    let mut cx = Context::from_waker(Waker::noop());
    let message = loop {
        match call.as_mut().poll(&mut cx) {
            Poll::Ready(message) => break message.unwrap(),
            Poll::Pending => scene.clock.advance(10 * SECOND),
        };
    };
    assert_eq!(scene.clock.now(), 40 * SECOND);
    scene.clock.advance(60 * SECOND);
    // It is 100 s old by now.
    assert!(at_once(scene.envelope.encrypt(b"x", &context(1))).is_none());
    assert!(!message.is_empty());
}

#[cfg(feature = "tokio")]
#[test]
fn across_ten_ends_of_a_data_key_every_caller_but_the_first_is_served_at_once() {
    let scene = Scene::new(limits(), Remote::new);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // The first of each kind waits for its call.
        let one = context(1);
        let message = in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
        in_time(&scene, scene.envelope.decrypt(&message, &one)).unwrap();
        let (mut served, end) = (0, 1_100 * SECOND);
        while scene.clock.now() < end {
            for _ in 0..3 {
                at_once(scene.envelope.encrypt(b"x", &one)).expect("a hit").unwrap();
                at_once(scene.envelope.decrypt(&message, &one)).expect("a hit").unwrap();
                served += 2;
            }
            // Renewals go on in the background, and take their time.
            scene.clock.advance(Duration::from_millis(25));
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            if scene.clock.sleepers() == 0 {
                scene.clock.advance(SECOND);
            }
        }
        let [encrypt, decrypt] = scene.agree();
        assert_eq!((encrypt.misses, decrypt.misses), (1, 1));
        assert!((10..=15).contains(&encrypt.renewals) && (10..=15).contains(&decrypt.renewals), "{encrypt:?}");
        assert_eq!((encrypt.waits, decrypt.waits), (0, 0));
        say(format!(
            "cache: {served} callers in 1,100 s where a data key lives for 100 s, all at once; {} and {} renewals",
            encrypt.renewals, decrypt.renewals
        ));
    });
}

#[test]
fn without_a_runtime_one_caller_renews_while_the_others_go_on() {
    let scene = Scene::new(limits(), Remote::new);
    let mut cx = Context::from_waker(Waker::noop());
    let one = context(1);
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    let (mut slow, mut served, mut ends) = (0, 0, 0);
    let mut waiting: Option<std::pin::Pin<Box<dyn Future<Output = _> + '_>>> = None;
    while scene.clock.now() < 1_100 * SECOND {
        if let Some(call) = &mut waiting
            && let Poll::Ready(done) = call.as_mut().poll(&mut cx)
        {
            let _: Vec<u8> = envelock::Result::unwrap(done);
            waiting = None;
            ends += 1;
        }
        let mut call = Box::pin(scene.envelope.encrypt(b"x", &one));
        match call.as_mut().poll(&mut cx) {
            Poll::Ready(message) => {
                message.unwrap();
                served += 1;
            }
            Poll::Pending => {
                assert!(waiting.is_none(), "two wait at once");
                slow += 1;
                waiting = Some(call);
            }
        }
        scene.clock.advance(Duration::from_millis(25));
        if scene.clock.sleepers() == 0 && waiting.is_none() {
            scene.clock.advance(SECOND);
        }
    }
    drop(waiting);
    let [encrypt, _] = scene.agree();
    assert_eq!(encrypt.misses, 1);
    assert!((10..=15).contains(&encrypt.renewals), "{encrypt:?}");
    say(format!("cache: {served} callers at once, {slow} that waited for {ends} calls, without a runtime"));
}

#[test]
fn entries_of_one_moment_are_renewed_at_different_ones() {
    let scene = Scene::new(limits(), Remote::quick);
    const ENTRIES: usize = 200;
    let make = |number: usize| drop(wait(scene.envelope.encrypt(b"x", &context(number))).unwrap());
    (0..ENTRIES).for_each(make);
    let mut most = 0;
    for _ in 0..100 {
        scene.clock.advance(SECOND);
        let before = scene.remote.calls();
        (0..ENTRIES).for_each(make);
        most = most.max(scene.remote.calls() - before);
    }
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals), (ENTRIES as u64, ENTRIES as u64));
    // Fifteen seconds take them all: evenly, 13 in each.
    assert!(most <= 40, "{most} in one second");
    say(format!("cache: {ENTRIES} entries of one moment, {most} renewals in the worst second of 15"));
}

#[test]
fn a_renewal_that_fails_is_tried_again_while_the_old_key_serves_and_a_refusal_ends_it() {
    let scene = Scene::new(limits(), Remote::quick);
    let key = || wait(scene.envelope.encrypt(b"x", &context(1))).map(|message| data_key_of(&message));
    let first = key().unwrap();
    scene.clock.advance(90 * SECOND);
    scene.remote.fail(2, ErrorKind::Unavailable);
    assert_eq!(key().unwrap(), first);
    assert_eq!((key().unwrap(), scene.remote.calls()), (first.clone(), 2));
    scene.clock.advance(SECOND);
    assert_eq!((key().unwrap(), scene.remote.calls()), (first.clone(), 3));
    scene.clock.advance(SECOND);
    // Whoever starts the renewal still has the old one.
    assert_eq!(key().unwrap(), first);
    let second = key().unwrap();
    assert!(second != first && scene.remote.calls() == 4);
    // A refusal is about the key, also while it would have served for some time: nobody who knows of it goes on.
    scene.clock.advance(90 * SECOND);
    scene.remote.fail(2, ErrorKind::KeyDenied);
    assert_eq!(key().unwrap_err().kind(), ErrorKind::KeyDenied);
    assert_eq!(key().unwrap_err().kind(), ErrorKind::KeyDenied);
    assert_eq!(scene.remote.calls(), 5);
    scene.clock.advance(SECOND);
    assert_eq!(key().unwrap_err().kind(), ErrorKind::KeyDenied);
    scene.clock.advance(SECOND);
    assert_ne!(key().unwrap(), second);
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, encrypt.failures), (3, 4, 4));
}

#[test]
fn a_reader_whose_own_renewal_is_refused_is_not_served() {
    let scene = Scene::new(limits(), Remote::quick);
    let message = wait(scene.envelope.encrypt(b"x", &context(1))).unwrap();
    let open = || wait(scene.envelope.decrypt(&message, &context(1))).map_err(|error| error.kind());
    open().unwrap();
    scene.clock.advance(90 * SECOND);
    scene.remote.fail(1, ErrorKind::KeyState);
    assert_eq!((open(), scene.remote.calls()), (Err(ErrorKind::KeyState), 3));
    scene.clock.advance(SECOND);
    assert_eq!((open(), open(), scene.remote.calls()), (Ok(b"x".to_vec()), Ok(b"x".to_vec()), 4));
    let [_, decrypt] = scene.agree();
    assert_eq!((decrypt.hits, decrypt.misses, decrypt.renewals, decrypt.failures), (1, 2, 1, 1));
}

#[test]
fn a_key_that_one_of_two_providers_missed_is_renewed_within_seconds() {
    let scene = Scene::new(limits(), Remote::quick);
    let both: Vec<Arc<dyn KeyProvider>> = vec![raw("local", 1), Arc::<Remote>::clone(&scene.remote)];
    let provider = MultiProvider::at_least(1, both).unwrap();
    let envelope = Envelope::builder(provider).shared_cache(&scene.cache).build().unwrap();
    let missing = || {
        let message = wait(envelope.encrypt(b"x", &context(1))).unwrap();
        Header::parse(&message).unwrap().slots().iter().filter(|slot| slot.is_missing()).count()
    };
    scene.remote.fail(1, ErrorKind::Unavailable);
    assert_eq!((missing(), missing()), (1, 1));
    scene.clock.advance(Duration::from_millis(2_499));
    assert_eq!((missing(), missing()), (1, 1));
    scene.clock.advance(Duration::from_millis(5_001));
    // Whoever renews it still has the old one.
    assert_eq!((missing(), missing()), (1, 0));
    scene.clock.advance(70 * SECOND);
    assert_eq!(missing(), 0);
    let [encrypt, _] = scene.counts();
    assert_eq!((encrypt.misses, encrypt.renewals), (1, 1));
}

#[test]
fn grace_serves_an_outage_only_decrypts_only_and_ends_when_stated() {
    let graced = || limits().offline_grace(50 * SECOND);
    let always = usize::MAX;
    let scene = |limits| {
        let scene = Scene::new(limits, Remote::quick);
        let message = wait(scene.envelope.encrypt(b"x", &context(1))).unwrap();
        wait(scene.envelope.decrypt(&message, &context(1))).unwrap();
        (scene, message)
    };
    // Off by default.
    let (off, message) = scene(limits());
    off.clock.advance(100 * SECOND);
    off.remote.fail(always, ErrorKind::Unavailable);
    let kind = |scene: &Scene, message: &[u8]| wait(scene.envelope.decrypt(message, &context(1))).map_err(|e| e.kind());
    assert_eq!(kind(&off, &message), Err(ErrorKind::Unavailable));

    let (on, message) = scene(graced());
    on.remote.fail(always, ErrorKind::Unavailable);
    on.clock.advance(100 * SECOND);
    for _ in 0..5 {
        assert_eq!(kind(&on, &message), Ok(b"x".to_vec()));
    }
    // New messages are not made under a key that is over.
    assert_eq!(wait(on.envelope.encrypt(b"x", &context(1))).unwrap_err().kind(), ErrorKind::Unavailable);
    on.clock.advance(50 * SECOND - Duration::from_nanos(1));
    assert_eq!(kind(&on, &message), Ok(b"x".to_vec()));
    let [_, decrypt] = on.agree();
    assert_eq!((decrypt.graces, decrypt.misses, decrypt.failures), (6, 3, 2));
    on.clock.advance(Duration::from_nanos(1));
    assert_eq!(kind(&on, &message), Err(ErrorKind::Unavailable));

    // No other failure, and none that follows a refusal.
    for refusal in [ErrorKind::KeyDenied, ErrorKind::KeyState, ErrorKind::Busy, ErrorKind::Io, ErrorKind::Internal] {
        let (scene, message) = scene(graced());
        scene.clock.advance(100 * SECOND);
        scene.remote.fail(1, refusal);
        assert_eq!(kind(&scene, &message), Err(refusal));
    }
    for refusal in [ErrorKind::KeyDenied, ErrorKind::KeyState] {
        let (scene, message) = scene(graced());
        scene.clock.advance(100 * SECOND);
        scene.remote.fail(1, refusal);
        assert_eq!(kind(&scene, &message), Err(refusal));
        scene.clock.advance(SECOND);
        scene.remote.fail(1, ErrorKind::Unavailable);
        assert_eq!(kind(&scene, &message), Err(ErrorKind::Unavailable));
        // And once it is back, all is well.
        scene.clock.advance(SECOND);
        assert_eq!(kind(&scene, &message), Ok(b"x".to_vec()));
    }
}

#[test]
fn what_is_over_is_removed_at_the_next_call_for_anything() {
    let scene = Scene::new(limits(), Remote::quick);
    (0..20).for_each(|number| drop(wait(scene.envelope.encrypt(b"x", &context(number))).unwrap()));
    assert_eq!(scene.cache.len(), 20);
    scene.clock.advance(100 * SECOND);
    wait(scene.envelope.for_tenant("acme").encrypt(b"x", &context(1))).unwrap();
    assert_eq!(scene.cache.len(), 1);
    scene.clock.advance(100 * SECOND);
    assert_eq!((scene.cache.remove_expired(), scene.cache.len()), (1, 0));
    // What failed is no entry for long, either.
    scene.remote.fail(1, ErrorKind::Unavailable);
    wait(scene.envelope.encrypt(b"x", &context(1))).unwrap_err();
    assert_eq!(scene.cache.remove_expired(), 0);
    scene.clock.advance(SECOND);
    assert_eq!((scene.cache.remove_expired(), scene.cache.len()), (1, 0));
    assert_eq!(scene.remote.decrypts.load(Ordering::SeqCst), 0);
    scene.agree();
}
