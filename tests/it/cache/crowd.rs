//! Many callers at once: each data key is fetched by one call, whoever is slow, fails or is cancelled.

use super::{Scene, context};
use crate::support::say;
use crate::support::virtual_time::{Caller, Remote};
use envelock::blocking::wait;
use envelock::clock::Clock;
use envelock::{CacheLimits, EncryptionContext, ErrorKind};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const CALLERS: usize = 10_000;
const CONTEXTS: usize = 10;

/// What each caller says at its end: how long it took, or `None` if it was cancelled.
type Done = Option<Duration>;
type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Who polls the callers.
#[derive(Clone, Copy, Debug)]
enum Executor {
    None,
    #[cfg(feature = "tokio")]
    CurrentThread,
    #[cfg(feature = "tokio")]
    MultiThread,
}

const EXECUTORS: &[Executor] = &[
    Executor::None,
    #[cfg(feature = "tokio")]
    Executor::CurrentThread,
    #[cfg(feature = "tokio")]
    Executor::MultiThread,
];

struct Crowd {
    scene: Arc<Scene>,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Crowd {
    fn new(scene: Scene) -> Self {
        Self { scene: Arc::new(scene), begun: Arc::default(), ended: Arc::default() }
    }

    /// A caller that goes on until its message is made.
    fn caller(&self, number: usize) -> Call {
        let (scene, begun, ended) = (Arc::clone(&self.scene), Arc::clone(&self.begun), Arc::clone(&self.ended));
        let doomed = Arc::clone(&scene.remote.doomed);
        let call = async move {
            begun.fetch_add(1, Ordering::SeqCst);
            let start = scene.clock.now();
            let context = context(number % CONTEXTS);
            loop {
                match scene.envelope.encrypt(b"attack at dawn", &context).await {
                    Ok(message) => {
                        assert!(message.len() > 100);
                        return scene.clock.now() - start;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                        scene.clock.sleep(Duration::from_millis(60)).await;
                    }
                }
            }
        };
        let caller = Caller { number, doomed, inner: Some(Box::pin(call)) };
        Box::pin(async move {
            let done = caller.await;
            ended.fetch_add(1, Ordering::SeqCst);
            done
        })
    }

    /// Runs all of them, and moves time on when all have begun and some sleep.
    fn run(&self, executor: Executor) -> Vec<Done> {
        let calls = (0..CALLERS).map(|number| self.caller(number));
        match executor {
            Executor::None => {
                let mut calls: FuturesUnordered<_> = calls.collect();
                let mut all = Vec::new();
                loop {
                    match calls.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(Some(done)) => all.push(done),
                        Poll::Ready(None) => return all,
                        Poll::Pending => assert!(self.scene.clock.advance_to_next() || self.is_awake(&calls)),
                    }
                }
            }
            #[cfg(feature = "tokio")]
            Executor::CurrentThread => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let calls: Vec<_> = calls.map(tokio::spawn).collect();
                    while self.ended.load(Ordering::SeqCst) < CALLERS {
                        // All who can do something do, before time moves on: a step of a call wakes all who wait.
                        for _ in 0..CALLERS / 50 {
                            tokio::task::yield_now().await;
                        }
                        if self.begun.load(Ordering::SeqCst) == CALLERS {
                            self.scene.clock.advance_to_next();
                        }
                    }
                    collect(calls).await
                })
            }
            #[cfg(feature = "tokio")]
            Executor::MultiThread => {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
                let calls: Vec<_> = calls.map(|call| runtime.spawn(call)).collect();
                while self.ended.load(Ordering::SeqCst) < CALLERS {
                    std::thread::sleep(Duration::from_millis(1));
                    // First, each context has a call on its way: what is not asleep yet waits for one of these.
                    let quiet = self.begun.load(Ordering::SeqCst) == CALLERS && self.scene.clock.sleepers() >= CONTEXTS;
                    if quiet || self.scene.remote.calls() > CONTEXTS {
                        self.scene.clock.advance_to_next();
                    }
                }
                runtime.block_on(collect(calls))
            }
        }
    }

    /// `FuturesUnordered` lets its caller breathe now and then.
    fn is_awake(&self, calls: &FuturesUnordered<Call>) -> bool {
        !calls.is_empty()
    }
}

#[cfg(feature = "tokio")]
async fn collect(calls: Vec<tokio::task::JoinHandle<Done>>) -> Vec<Done> {
    let mut all = Vec::new();
    for call in calls {
        all.push(call.await.unwrap());
    }
    all
}

#[test]
fn ten_thousand_callers_of_ten_contexts_make_ten_calls_and_wait_for_no_more_than_one() {
    for &executor in EXECUTORS {
        let crowd = Crowd::new(Scene::new(CacheLimits::default(), Remote::new));
        let done = crowd.run(executor);
        let scene = &crowd.scene;
        let slowest = done.iter().map(|time| time.unwrap()).max().unwrap();
        assert_eq!((done.len(), scene.remote.calls()), (CALLERS, CONTEXTS));
        let call = scene.remote.latency();
        assert!(slowest <= call.mul_f64(1.2), "the slowest took {slowest:?}, a call {call:?}");
        let [encrypt, _] = scene.agree();
        assert_eq!(encrypt.misses, CONTEXTS as u64);
        assert_eq!(encrypt.hits + encrypt.waits, (CALLERS - CONTEXTS) as u64);
        assert_eq!(encrypt.calls_saved(), (CALLERS - CONTEXTS) as u64);
        assert_eq!(encrypt.bytes, 14 * CALLERS as u64);
        say(format!(
            "cache, {executor:?}: {CALLERS} callers, {} calls, {} waited, the slowest {slowest:?} where a call takes {call:?}",
            scene.remote.calls(),
            encrypt.waits
        ));
    }
}

#[test]
fn a_provider_that_fails_at_first_is_asked_once_for_each_failure_and_each_context() {
    for &executor in EXECUTORS {
        for failing in [1, 10, 37] {
            let crowd = Crowd::new(Scene::new(CacheLimits::default(), Remote::new));
            crowd.scene.remote.fail(failing, ErrorKind::Unavailable);
            let done = crowd.run(executor);
            assert!(done.iter().all(Option::is_some));
            assert_eq!(crowd.scene.remote.calls(), failing + CONTEXTS);
            let [encrypt, _] = crowd.scene.agree();
            assert_eq!(encrypt.failures, failing as u64);
            say(format!("cache, {executor:?}: {failing} failures first, {} calls in all", crowd.scene.remote.calls()));
        }
    }
}

#[test]
fn callers_that_are_cancelled_at_any_point_of_a_call_leave_it_to_the_others() {
    for &executor in EXECUTORS {
        for cancelled in [1, 4, 30] {
            let crowd = Crowd::new(Scene::new(CacheLimits::default(), Remote::new));
            crowd.scene.remote.cancelling.store(cancelled, Ordering::SeqCst);
            let done = crowd.run(executor);
            assert_eq!(done.iter().filter(|done| done.is_none()).count(), cancelled);
            let slowest = done.iter().flatten().max().unwrap();
            let call = crowd.scene.remote.latency();
            assert!(*slowest <= call.mul_f64(1.2), "the slowest took {slowest:?}, a call {call:?}");
            assert_eq!(crowd.scene.remote.calls(), CONTEXTS);
            let [encrypt, _] = crowd.scene.agree();
            // Who began a call counts as a miss, also where he was cancelled.
            let served = encrypt.hits + encrypt.waits;
            assert!(served <= (CALLERS - cancelled) as u64, "{encrypt:?}");
            assert!(served >= (CALLERS - cancelled - CONTEXTS) as u64, "{encrypt:?}");
            assert_eq!(encrypt.bytes, 14 * (CALLERS - cancelled) as u64);
            say(format!(
                "cache, {executor:?}: {cancelled} callers cancelled in the middle of calls, {} calls in all, {} served",
                crowd.scene.remote.calls(),
                CALLERS - cancelled
            ));
        }
    }
}

type Sealing<'a> = Pin<Box<dyn Future<Output = envelock::Result<Vec<u8>>> + 'a>>;

fn poll(call: &mut Sealing<'_>) -> Poll<envelock::Result<Vec<u8>>> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the call that `call` makes arrive.
fn travel(scene: &Scene, call: &mut Sealing<'_>) -> Poll<envelock::Result<Vec<u8>>> {
    for _ in 0..scene.remote.steps {
        assert!(poll(call).is_pending());
        scene.clock.advance(scene.remote.step);
    }
    poll(call)
}

#[track_caller]
fn unavailable(polled: Poll<envelock::Result<Vec<u8>>>) {
    match polled {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_call_fails_each_who_waited_once_and_answers_for_a_short_time_only() {
    let scene = Scene::new(CacheLimits::default(), Remote::new);
    scene.remote.fail(2, ErrorKind::Unavailable);
    let none = EncryptionContext::new();
    let call = || -> Sealing<'_> { Box::pin(scene.envelope.encrypt(b"x", &none)) };
    let mut calls: Vec<_> = (0..5).map(|_| call()).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call).is_pending()));
    unavailable(travel(&scene, &mut calls[0]));
    // Those who come to it late have failed all the same, and make no call of their own.
    scene.clock.advance(Duration::from_secs(1));
    calls.iter_mut().skip(1).for_each(|call| unavailable(poll(call)));
    drop(calls);
    assert_eq!(scene.remote.calls(), 1);
    // For half of 100 ms at least, and for one and a half times at the most, nobody else asks.
    unavailable(travel(&scene, &mut call()));
    scene.clock.advance(Duration::from_millis(49));
    unavailable(poll(&mut call()));
    assert_eq!(scene.remote.calls(), 2);
    scene.clock.advance(Duration::from_millis(102));
    assert!(matches!(travel(&scene, &mut call()), Poll::Ready(Ok(_))));
    assert_eq!(scene.remote.calls(), 3);
    scene.agree();
}

#[test]
fn blocking_callers_park_while_another_thread_makes_the_call() {
    const THREADS: usize = 64;
    let scene = Scene::new(CacheLimits::default(), Remote::new);
    let envelope = envelock::blocking::Envelope::new(scene.envelope.clone());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn({
                    let envelope = &envelope;
                    move || envelope.encrypt(b"x", &context(number % 4)).unwrap()
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
            scene.clock.advance_to_next();
        }
    });
    assert_eq!(scene.remote.calls(), 4);
    let [encrypt, _] = scene.agree();
    assert_eq!(encrypt.hits + encrypt.waits, THREADS as u64 - 4);
    say(format!("cache, blocking: {THREADS} threads, 4 calls, {} parked", encrypt.waits));
}

#[test]
fn a_million_messages_of_one_tenant_take_one_call() {
    let messages = if crate::support::child::long() { 1_000_000 } else { 20_000 };
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let acme = scene.envelope.for_tenant("acme");
    let none = EncryptionContext::new();
    for _ in 0..messages {
        wait(acme.encrypt(b"x", &none)).unwrap();
    }
    let [encrypt, _] = scene.agree();
    assert_eq!((scene.remote.calls(), encrypt.hits), (1, messages - 1));
    say(format!("cache: {messages} messages of one tenant, {} call", scene.remote.calls()));
}
