//! Many calls while the network fails: what the budget and the breaker keep from it.

use super::scripted::{Ask, Reply, Scripted, client, client_with, ms};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::http::client::Client;
use crate::provider::http::exchange::{Exchange, Verdict};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// `tasks` that make `calls` each: how many succeeded.
async fn crowd(client: &Client, tasks: usize, calls: usize) -> usize {
    let good = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..tasks)
        .map(|_| {
            let (client, good) = (client.clone(), good.clone());
            tokio::spawn(async move {
                for _ in 0..calls {
                    if client.call(&Ask::default()).await.is_ok() {
                        good.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for task in all {
        task.await.unwrap();
    }
    good.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn however_many_calls_fail_the_load_grows_by_the_stated_share() {
    for (share, burst) in [(0.1, 10), (0.2, 0), (0.0, 7), (0.0, 0)] {
        let network = Scripted::new(|_, _| (ms(1), Reply::Status(503)));
        let client = client(&network, HttpPolicy::default().retry_budget(share, burst).without_breaker());
        assert_eq!(crowd(&client, 20, 50).await, 0);
        let most = 1000.0 * (1.0 + share) + f64::from(burst);
        let sent = f64::from(u32::try_from(network.count()).unwrap());
        assert!(sent <= most && sent > most - 5.0, "{share} {burst}: {sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_thirty_percent_failing_at_random_retries_stay_within_the_budget_and_the_breaker_stays_closed() {
    // A fixed sequence that looks random: every run is the same.
    let random = |number: usize| (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) % 100;
    let network = Scripted::new(move |number, _| {
        let reply = match random(number) {
            0..15 => Reply::Status(500),
            15..30 => Reply::Nothing(TransportFailure::Broken),
            _ => Reply::Status(200),
        };
        (ms(3), reply)
    });
    let client = client_with(&network, HttpPolicy::default().retry_budget(0.1, 100), |backoff| backoff);
    let good = crowd(&client, 100, 100).await;
    let (calls, sent) = (10_000, network.count());
    assert!(sent <= calls + calls / 10 + 100, "{sent} requests");
    // Nobody was held back: each call was sent at least once, and what the budget paid for helped.
    assert!(sent >= calls && good > 7400, "{good} of {calls} succeeded with {sent} requests");
}

#[tokio::test(start_paused = true)]
async fn through_thirty_seconds_of_outage_calls_fail_fast_one_probe_goes_per_interval_and_nobody_stampedes_back() {
    let (dies, lives) = (ms(10_000), ms(40_000));
    let network = Scripted::new(move |_, now| {
        let dead = now >= dies && now < lives;
        (ms(20), if dead { Reply::Nothing(TransportFailure::Connect) } else { Reply::Status(200) })
    });
    let client = client_with(&network, HttpPolicy::default(), |backoff| backoff);
    // A hundred calls a second, for sixty seconds.
    let (fast, good_after) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::<Duration>::new())));
    let mut calls = Vec::new();
    for _ in 0..6000 {
        let (client, network, fast, good_after) = (client.clone(), network.clone(), fast.clone(), good_after.clone());
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            let answer = client.call(&Ask::default()).await;
            match answer {
                Ok(_) if network.now() > dies + ms(25) => good_after.lock().unwrap().push(network.now()),
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    if error.to_string().contains("was not sent") {
                        assert!(began.elapsed() < ms(5), "{:?}", began.elapsed());
                        fast.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        }));
        sleep(ms(10)).await;
    }
    for call in calls {
        call.await.unwrap();
    }
    let sent = network.sent.lock().unwrap().clone();
    let between = |from: Duration, to: Duration| sent.iter().filter(|at| **at >= from && **at < to).count();
    // It opens within what was under way and ten failures; then one request in each second.
    let dying = between(dies, dies + ms(1000));
    assert!(dying <= 30, "{dying} requests in the first second of the outage");
    for second in 11..40 {
        let probes = between(ms(second * 1000), ms(second * 1000 + 1000));
        assert!(probes <= 2, "{probes} in second {second}");
    }
    let probes = between(dies + ms(1000), lives);
    assert!((27..=30).contains(&probes), "{probes} probes");
    // Nearly all calls of the outage were told at once.
    let fast = fast.load(Ordering::SeqCst);
    assert!(fast > 2850, "{fast} were held back");
    // It is back within a probe's interval and the time of an answer.
    let back = *good_after.lock().unwrap().first().unwrap();
    assert!(back <= lives + ms(1000 + 30), "back after {:?}", back - lives);
    // And the load is what it was before: ten in each tenth of a second.
    for tenth in 400..599 {
        let load = between(ms(tenth * 100), ms(tenth * 100 + 100));
        assert!(load <= 12, "{load} requests in the tenth {tenth}");
    }
    assert!(between(ms(42_000), ms(59_000)) >= 1690);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_probed_all_the_same_and_late_time_outs_do_not_open_it_again() {
    let lives = ms(20_000);
    let network =
        Scripted::new(move |_, now| if now < lives { (ms(0), Reply::Hang) } else { (ms(20), Reply::Status(200)) });
    let policy = HttpPolicy::default().attempts(1).breaker(5, ms(1000));
    let client = client(&network, policy);
    let good = Arc::new(std::sync::Mutex::new(Vec::<Duration>::new()));
    let mut calls = Vec::new();
    for _ in 0..400 {
        let (client, network, good) = (client.clone(), network.clone(), good.clone());
        calls.push(tokio::spawn(async move {
            if client.call(&Ask::default()).await.is_ok() {
                good.lock().unwrap().push(network.now());
            }
        }));
        sleep(ms(100)).await;
    }
    for call in calls {
        call.await.unwrap();
    }
    let good = good.lock().unwrap();
    assert!(good[0] <= lives + ms(1100), "back after {:?}", good[0] - lives);
    // Probes hang into the time after: each call that came then succeeded.
    assert!(good.len() >= 188, "{} succeeded", good.len());
}

#[tokio::test(start_paused = true)]
async fn throttling_and_refusals_do_not_open_the_breaker() {
    for status in [400, 429] {
        let network = Scripted::always(Reply::Status(status));
        let client = client(&network, HttpPolicy::default().breaker(1, ms(60_000)).attempts(1));
        for _ in 0..20 {
            client.call(&Ask::default()).await.unwrap_err();
        }
        assert_eq!(network.count(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_says_since_when_why_and_when_it_is_tried_again() {
    let network = Scripted::always(Reply::Nothing(TransportFailure::Connect));
    let client = client(&network, HttpPolicy::default().breaker(2, ms(3000)));
    let error = client.call(&Ask::default()).await.unwrap_err();
    // The call's own failure says more than that the breaker has opened meanwhile.
    assert!(error.to_string().contains("no answer (2 attempts in 0.1 s, and it is held back"), "{error}");
    sleep(ms(1000)).await;
    let error = client.call(&Ask::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        "Decrypt for alias/orders was not sent to https://kms.example: it has been failing for 1.0 s (last: no answer), and is \
         tried again in 2.0 s; see to the KMS or the way there; calls go through again by themselves once one succeeds"
    );
    assert_eq!(network.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_ignores_its_limits_counts_against_the_endpoint() {
    let network = Scripted::always(Reply::HangForEver);
    let client = client(&network, HttpPolicy::default().breaker(2, ms(60_000)).total(ms(500)));
    for _ in 0..5 {
        client.call(&Ask::default()).await.unwrap_err();
    }
    assert_eq!(network.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_that_the_end_of_their_call_cuts_short_do_not_open_the_breaker() {
    // At the end of the time the fourth lot is a tenth of a second old.
    let network = Scripted::new(|_, _| (ms(300), Reply::Status(200)));
    let client = client(&network, HttpPolicy::default().at_once(4).total(ms(1000)).breaker(2, ms(60_000)));
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&Ask::default()).await.is_ok() })
        })
        .collect();
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.unwrap());
    }
    assert_eq!(good, 12);
    client.call(&Ask::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_with_less_patience_than_the_policy_open_the_breaker_of_what_hangs_and_hasty_ones_do_not() {
    for (patience, opens) in [(ms(5000), true), (ms(1000), false)] {
        let network = Scripted::always(Reply::Hang);
        let client = client(&network, HttpPolicy::default().breaker(5, ms(60_000)));
        for _ in 0..20 {
            let _ = tokio::time::timeout(patience, client.call(&Ask::default())).await;
        }
        assert_eq!(network.count(), if opens { 5 } else { 20 });
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_wrote_is_in_no_other_calls_error() {
    let network = Scripted::always(Reply::Status(503));
    let client = client(&network, HttpPolicy::default().attempts(1).breaker(1, ms(60_000)));
    let told = Told("plaintext was c2VjcmV0IGtleQ==");
    let own = client.call(&told).await.unwrap_err().to_string();
    assert!(own.contains("c2VjcmV0"), "{own}");
    let other = format!("{:?}", client.call(&Ask::default()).await.unwrap_err());
    assert!(!other.contains("c2VjcmV0") && other.contains("(last: HTTP 503)"), "{other}");
}

/// An exchange that repeats what a server wrote.
struct Told(&'static str);

#[async_trait]
impl Exchange for Told {
    type Answer = u16;

    fn operation(&self) -> &'static str {
        "Decrypt"
    }

    fn subject(&self) -> String {
        "alias/orders".into()
    }

    fn may_hedge(&self) -> bool {
        false
    }

    async fn request(&self) -> Result<http::Request<Bytes>> {
        Ask::default().request().await
    }

    fn judge(&self, _: http::Response<Bytes>) -> Verdict<u16> {
        Verdict::Unwell(Error::new(ErrorKind::Unavailable, self.0))
    }

    async fn renew(&self) -> Result<()> {
        Ok(())
    }
}
