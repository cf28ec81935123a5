//! A caller that is held and not polled makes nobody wait: whoever needs its call drives it.

use super::time::{SECOND, at_once, in_time, limits};
use super::{Scene, context};
use crate::support::providers::raw;
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{
    CacheLimits, DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Envelope, GeneratedDataKey, KeyProvider,
    KmsContext, Recipient, Result, async_trait,
};
use futures_util::StreamExt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

fn poll<F: Future>(call: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    call.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_loop_over_buffered_decryptions_may_decrypt_another_message_of_the_same_slot() {
    let scene = Scene::new(CacheLimits::default(), Remote::new);
    let [one, two] = [1, 2].map(|number| in_time(&scene, scene.envelope.encrypt(b"x", &context(number))).unwrap());
    in_time(&scene, scene.envelope.decrypt(&one, &context(1))).unwrap();
    let before = scene.remote.calls();
    // The first waits for its call while the second, a hit, is handed out; the loop then asks for the first's key.
    let rows = [(&two, context(2)), (&one, context(1)), (&one, context(1)), (&two, context(2))];
    let opened = in_time(&scene, async {
        let mut opened = 0;
        let calls = rows.iter().map(|(message, context)| scene.envelope.decrypt(message, context));
        let mut rows = pin!(futures_util::stream::iter(calls).buffer_unordered(2));
        while let Some(row) = rows.next().await {
            assert_eq!(row.unwrap(), b"x");
            assert_eq!(scene.envelope.decrypt(&two, &context(2)).await.unwrap(), b"x");
            opened += 2;
        }
        opened
    });
    assert_eq!((opened, scene.remote.calls() - before), (8, 1));
    let [_, decrypt] = scene.agree();
    assert_eq!(decrypt.hits + decrypt.waits, 7);
    assert!(decrypt.waits >= 1, "{decrypt:?}");
    say(format!("cache: {opened} messages opened in a loop that holds the leader, one call"));
}

#[test]
fn a_pinned_call_that_lost_a_race_serves_those_who_come_after_it_and_itself_later() {
    let scene = Scene::new(CacheLimits::default().max_messages(2), Remote::new);
    let one = context(1);
    // As in a `select!` by reference: polled to each of its waits, and no more.
    for polls in 1..=scene.remote.steps {
        let before = scene.remote.calls();
        let mut held = pin!(scene.envelope.encrypt(b"x", &one));
        for _ in 0..polls {
            assert!(poll(held.as_mut()).is_pending());
            scene.clock.advance(scene.remote.step);
        }
        in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
        // Its own share was kept for it: the key has served its two messages.
        assert_eq!(scene.remote.calls(), before + 1);
        assert!(at_once(poll_fn(|cx| held.as_mut().poll(cx))).expect("it is there").is_ok());
        assert_eq!(scene.remote.calls(), before + 1);
        let mut next = pin!(scene.envelope.encrypt(b"x", &one));
        assert!(poll(next.as_mut()).is_pending() && scene.remote.calls() == before + 2);
        scene.cache.invalidate_all();
    }
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.waits, encrypt.misses), (4, 8));
}

#[test]
fn a_call_that_all_have_left_is_given_up_and_made_anew() {
    let scene = Scene::new(CacheLimits::default(), Remote::new);
    let one = context(1);
    {
        let (mut first, mut second) =
            (Box::pin(scene.envelope.encrypt(b"x", &one)), Box::pin(scene.envelope.encrypt(b"x", &one)));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        drop(first);
        assert_eq!(scene.clock.sleepers(), 1, "the call goes on");
        drop(second);
        assert_eq!(scene.clock.sleepers(), 0, "nobody wants it");
    }
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    assert_eq!(scene.remote.calls(), 2);
    scene.agree();
}

#[test]
fn a_call_that_was_invalidated_serves_whoever_began_it_and_nobody_else() {
    let scene = Scene::new(CacheLimits::default(), Remote::new);
    let one = context(1);
    let mut first = pin!(scene.envelope.encrypt(b"x", &one));
    let mut second = pin!(scene.envelope.encrypt(b"x", &one));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    scene.cache.invalidate_all();
    let second = in_time(&scene, second.as_mut()).unwrap();
    assert_eq!(scene.remote.calls(), 2);
    let first = in_time(&scene, first.as_mut()).unwrap();
    assert_ne!(super::data_key_of(&first), super::data_key_of(&second));
    scene.agree();
}

#[test]
fn a_renewal_that_its_caller_does_not_drive_on_is_driven_by_those_who_find_the_key_over() {
    let scene = Scene::new(limits(), Remote::new);
    let one = context(1);
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    scene.clock.advance(95 * SECOND);
    let mut held = pin!(scene.envelope.encrypt(b"x", &one));
    assert!(poll(held.as_mut()).is_pending());
    assert!(at_once(scene.envelope.encrypt(b"x", &one)).expect("the old one serves").is_ok());
    scene.clock.advance(5 * SECOND);
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    assert!(at_once(poll_fn(|cx| held.as_mut().poll(cx))).expect("it is there").is_ok());
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals), (1, 1));
}

#[cfg(feature = "tokio")]
#[test]
fn a_renewal_on_a_runtime_that_nobody_drives_is_driven_by_those_who_find_the_key_over() {
    let scene = Scene::new(limits(), Remote::new);
    let one = context(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begin = |renewals| {
        // From 75 s after the last call on, whatever time that took, it is to be renewed; from 100 s on, over.
        scene.clock.advance(94 * SECOND);
        {
            let _runtime = runtime.enter();
            assert!(at_once(scene.envelope.encrypt(b"x", &one)).expect("a hit").is_ok());
        }
        assert_eq!(scene.counts()[0].renewals, renewals);
        scene.clock.advance(6 * SECOND);
    };
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    begin(0);
    // Its task has not run yet, and the call was not made.
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, encrypt.waits), (1, 1, 1));
    scene.clock.advance(SECOND);
    // A runtime that is gone takes its task with it.
    begin(1);
    drop(runtime);
    in_time(&scene, scene.envelope.encrypt(b"x", &one)).unwrap();
    let [encrypt, _] = scene.agree();
    assert_eq!((encrypt.misses, encrypt.renewals, encrypt.waits), (2, 1, 1));
}

/// Panics at its first call, once that has waited.
#[derive(Debug)]
struct Panics {
    inner: Arc<dyn KeyProvider>,
    remote: Arc<Remote>,
    calls: AtomicUsize,
}

#[async_trait]
impl KeyProvider for Panics {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let first = self.calls.fetch_add(1, Ordering::SeqCst) == 0;
        self.remote.clock.sleep(SECOND).await;
        assert!(!first, "on purpose");
        self.inner.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.inner.decrypt_data_key(slot, context).await
    }
}

#[test]
fn a_call_that_panics_takes_nobody_with_it_but_whoever_drove_it() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let provider =
        Arc::new(Panics { inner: raw("panics", 3), remote: Arc::clone(&scene.remote), calls: AtomicUsize::new(0) });
    let envelope = Envelope::builder(Arc::clone(&provider)).shared_cache(&scene.cache).build().unwrap();
    let one = context(1);
    let mut began = pin!(envelope.encrypt(b"x", &one));
    let mut drove = Box::pin(envelope.encrypt(b"x", &one));
    let mut waited = pin!(envelope.encrypt(b"x", &one));
    assert!(poll(began.as_mut()).is_pending() && poll(drove.as_mut()).is_pending());
    assert!(poll(waited.as_mut()).is_pending());
    scene.clock.advance(SECOND);
    assert!(catch_unwind(AssertUnwindSafe(|| poll(drove.as_mut()).is_ready())).is_err());
    drop(drove);
    in_time(&scene, waited.as_mut()).unwrap();
    assert!(poll(began.as_mut()).is_ready(), "it is told that its call is gone");
    assert_eq!(provider.calls.load(Ordering::SeqCst), 2);
    wait(envelope.encrypt(b"x", &one)).unwrap();
}
