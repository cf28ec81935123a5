//! A KMS that is dead for a while, by the real clock: who goes on, who fails and how fast, and how it comes back.

use crate::support::child::long;
use crate::support::kms::{FakeKms, Outage, provider};
use crate::support::{run, say};
use envelock::{CacheLimits, EncryptionContext, Envelope, ErrorKind, HttpPolicy};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CACHED: usize = 20;
const OTHERS: usize = 50;
const AT_ONCE: usize = 8;
const PROBE: Duration = Duration::from_secs(1);
const ATTEMPT: Duration = Duration::from_millis(500);
/// How often each tenant writes.
const PACE: Duration = Duration::from_millis(50);
/// How long a cache passes a failure on.
const REMEMBERED: Duration = Duration::from_millis(150);
/// For a machine that has other things to do.
const SLACK: Duration = Duration::from_millis(1_500);

fn context(of: &str) -> EncryptionContext {
    EncryptionContext::from([("tenant", of)])
}

/// A try by a tenant whose data key is not cached.
#[derive(Clone, Copy, Debug)]
struct Try {
    begun: Instant,
    took: Duration,
    good: bool,
}

/// The KMS is dead for `time`.
fn outage(outage: Outage, time: Duration) {
    let kms = FakeKms::with(outage);
    let server = kms.serve();
    let policy = HttpPolicy::default()
        .attempt(ATTEMPT)
        .attempts(3)
        .backoff(Duration::from_millis(20), Duration::from_millis(100))
        .breaker(5, PROBE)
        .at_once(AT_ONCE);
    let provider = provider(&server.url()).policy(policy).build().unwrap();
    let envelope = Envelope::builder(provider).cache(CacheLimits::default()).build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(Mutex::new(Vec::new()));
    let (died, back, requests) = run(async {
        let cached: Vec<_> = (0..CACHED)
            .map(|number| {
                let (tenant, over) = (format!("cached {number}"), Arc::clone(&over));
                let envelope = envelope.for_tenant(&tenant);
                tokio::spawn(async move {
                    let mut messages = 0;
                    while !over.load(Ordering::SeqCst) {
                        let sealed = envelope.encrypt(b"goes on", &context(&tenant)).await?;
                        assert_eq!(envelope.decrypt(&sealed, &context(&tenant)).await?, b"goes on");
                        messages += 1;
                        tokio::time::sleep(PACE).await;
                    }
                    Ok::<usize, envelock::Error>(messages)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.requests(), 2 * CACHED, "each cached tenant has its data key, to write and to read");

        kms.be_dead(true);
        let died = Instant::now();
        let others: Vec<_> = (0..OTHERS)
            .map(|number| {
                let (tenant, over, tries) = (format!("other {number}"), Arc::clone(&over), Arc::clone(&tries));
                let envelope = envelope.for_tenant(&tenant);
                tokio::spawn(async move {
                    while !over.load(Ordering::SeqCst) {
                        let begun = Instant::now();
                        let written = envelope.encrypt(b"waits", &context(&tenant)).await;
                        if let Err(error) = &written {
                            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                        }
                        tries.lock().unwrap().push(Try { begun, took: begun.elapsed(), good: written.is_ok() });
                        tokio::time::sleep(PACE).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(time).await;
        let while_dead = server.requests() - 2 * CACHED;
        let back = Instant::now();
        kms.be_dead(false);
        tokio::time::sleep(Duration::from_secs(5)).await;
        over.store(true, Ordering::SeqCst);
        for task in others {
            task.await.unwrap();
        }
        for task in cached {
            let messages = task.await.unwrap().expect("a cached tenant notices nothing");
            assert!(messages > 20, "{messages} messages");
        }
        (died, back, while_dead)
    });
    let tries = tries.lock().unwrap();
    judge(&tries, died, back, outage);

    // What the server had to bear. Before the breaker opens, each of those at once may be tried.
    let probes = usize::try_from(time.as_secs()).unwrap() + 1;
    let most = 5 + 2 * AT_ONCE + probes;
    assert!((1..=most).contains(&requests), "{requests} requests reached a dead server; {most} may");
    // What hangs has left the client before the server sees that.
    let at_once = server.most_at_once();
    assert!(outage == Outage::Hangs || at_once <= AT_ONCE, "{at_once} requests at once");
    let afterwards = server.requests() - 2 * CACHED - requests;
    let most = OTHERS + 5;
    assert!((OTHERS..=most).contains(&afterwards), "{afterwards} requests for {OTHERS} data keys on recovery");
    say(format!(
        "{outage:?} for {} s: {CACHED} cached tenants went on, {} of {} tries of {OTHERS} others failed, {requests} requests \
         reached the server, {afterwards} when it was back",
        time.as_secs(),
        tries.iter().filter(|it| !it.good).count(),
        tries.len(),
    ));
}

fn judge(tries: &[Try], died: Instant, back: Instant, outage: Outage) {
    // Until the breaker opens, calls take what their attempts take, and their turns.
    let opened = died + Duration::from_secs(3);
    let mut held: Vec<_> = tries.iter().filter(|it| it.begun > opened && it.begun + it.took < back).collect();
    assert!(held.len() > OTHERS && held.iter().all(|it| !it.good));
    held.sort_by_key(|it| it.took);
    let (median, slow) = (held[held.len() / 2].took, held[held.len() * 98 / 100].took);
    assert!(median < Duration::from_millis(50), "half of the calls take {median:?} or more to fail");
    // Whoever has the probe waits for it; all others fail at once.
    assert!(slow < Duration::from_millis(50) + SLACK, "one call in fifty takes {slow:?} or more to fail");

    // The last probe before it may hang for the time of an attempt, and the next comes an interval after that.
    let hanging = if outage == Outage::Hangs { ATTEMPT } else { Duration::ZERO };
    let first = tries.iter().filter(|it| it.good).map(|it| it.begun + it.took).min().expect("it recovers");
    let (recovered, most) = (first - back, PROBE + hanging + REMEMBERED + PACE + SLACK);
    assert!(
        recovered < most,
        "the first call got through {recovered:?} after the server was back, not within {most:?}"
    );
    let failed = tries.iter().filter(|it| !it.good).map(|it| it.begun + it.took).max().unwrap();
    assert!(failed < back + most + REMEMBERED, "the last call failed {:?} after that", failed - back);
}

fn seconds(usual: u64) -> Duration {
    Duration::from_secs(if long() { 30 } else { usual })
}

#[test]
fn a_dead_kms_is_left_alone_and_cached_tenants_notice_nothing() {
    outage(Outage::Resets, Duration::from_secs(30));
}

#[test]
fn a_kms_that_hangs_is_left_alone_as_well() {
    outage(Outage::Hangs, seconds(8));
}
