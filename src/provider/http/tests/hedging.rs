//! A second request beside a slow one.

use super::scripted::{Ask, Reply, Scripted, client, ms};
use crate::error::ErrorKind;
use crate::provider::http::client::Client;
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

const READS: fn() -> Ask = || Ask { hedge: true, ..Ask::default() };

/// A client that has seen 100 answers of 10 ms each, on a network whose later replies are `script`'s, counted from 0.
async fn warmed(
    policy: HttpPolicy,
    script: impl Fn(usize) -> (u64, Reply) + Send + Sync + 'static,
) -> (Arc<Scripted>, Client) {
    let network = Scripted::new(move |number, _| match number.checked_sub(100) {
        None => (ms(10), Reply::Status(200)),
        Some(number) => {
            let (time, reply) = script(number);
            (ms(time), reply)
        }
    });
    let client = client(&network, policy.hedge());
    for _ in 0..100 {
        client.call(&READS()).await.unwrap();
    }
    assert_eq!(network.count(), 100);
    (network, client)
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_of_two_wins() {
    let slow = |number| if number == 0 { (5000, Reply::Status(200)) } else { (10, Reply::Status(200)) };
    let (network, client) = warmed(HttpPolicy::default(), slow).await;
    let started = Instant::now();
    assert_eq!(client.call(&READS()).await.unwrap(), 200);
    // The p95 of 10 ms, and an answer of 10 ms; a timer of tokio's is exact to a millisecond.
    assert!(started.elapsed() <= ms(25), "{:?}", started.elapsed());
    assert_eq!(network.count(), 102);
}

#[tokio::test(start_paused = true)]
async fn what_writes_is_never_sent_twice_at_once() {
    let (network, client) = warmed(HttpPolicy::default(), |_| (5000, Reply::Status(200))).await;
    client.call(&Ask::default()).await.unwrap();
    assert_eq!(network.count(), 101);
}

#[tokio::test(start_paused = true)]
async fn a_second_request_is_paid_from_the_budget_needs_a_place_and_counts_as_an_attempt() {
    let slow = |_| (200, Reply::Status(200));
    for policy in [
        HttpPolicy::default().retry_budget(0.0, 0),
        HttpPolicy::default().at_once(1),
        HttpPolicy::default().attempts(1),
    ] {
        let (network, client) = warmed(policy, slow).await;
        client.call(&READS()).await.unwrap();
        assert_eq!(network.count(), 101);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_leaves_the_answer_to_the_other() {
    // The first fails after the second was sent; then the second does.
    for failing in [0, 1] {
        let script = move |number| match number {
            0 | 1 if number == failing => (60, Reply::Nothing(TransportFailure::Broken)),
            _ => (100, Reply::Status(200)),
        };
        let (network, client) = warmed(HttpPolicy::default(), script).await;
        assert_eq!(client.call(&READS()).await.unwrap(), 200);
        assert_eq!(network.count(), 102, "{failing}");
    }
    // Both fail: it is tried again.
    let both = |number| if number < 2 { (60, Reply::Status(503)) } else { (1, Reply::Status(200)) };
    let (network, client) = warmed(HttpPolicy::default(), both).await;
    assert_eq!(client.call(&READS()).await.unwrap(), 200);
    assert_eq!(network.count(), 103);
}

#[tokio::test(start_paused = true)]
async fn where_all_become_slow_seconds_are_sent_within_the_budget_only() {
    let (network, client) = warmed(HttpPolicy::default().retry_budget(0.1, 5), |_| (300, Reply::Status(200))).await;
    for _ in 0..1000 {
        client.call(&READS()).await.unwrap();
    }
    let seconds = network.count() - 1100;
    assert!(seconds <= 115, "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_second_leaves_the_answer_to_the_first() {
    for status in [400, 401] {
        let script = move |number| if number == 0 { (200, Reply::Status(200)) } else { (5, Reply::Status(status)) };
        let (network, client) = warmed(HttpPolicy::default(), script).await;
        let ask = READS();
        assert_eq!(client.call(&ask).await.unwrap(), 200);
        assert_eq!((network.count(), ask.renewals.load(Ordering::SeqCst)), (102, 0));
    }
    // Unless the first fails too.
    let script = |number| if number == 0 { (200, Reply::Status(503)) } else { (5, Reply::Status(400)) };
    let (network, client) = warmed(HttpPolicy::default(), script).await;
    assert_eq!(client.call(&READS()).await.unwrap_err().kind(), ErrorKind::KeyState);
    assert_eq!(network.count(), 102);
}

#[tokio::test(start_paused = true)]
async fn the_credentials_of_the_first_are_not_renewed_where_the_second_has_an_answer() {
    let script = |number| if number == 0 { (60, Reply::Status(401)) } else { (100, Reply::Status(200)) };
    let (network, client) = warmed(HttpPolicy::default(), script).await;
    let ask = READS();
    assert_eq!(client.call(&ask).await.unwrap(), 200);
    assert_eq!((network.count(), ask.renewals.load(Ordering::SeqCst)), (102, 0));
    // Where it has none, or is refused as well, they are.
    for second in [400, 401, 503].map(Reply::Status).into_iter().chain([Reply::Nothing(TransportFailure::Broken)]) {
        let script = move |number| match number {
            0 => (60, Reply::Status(401)),
            1 => (100, second.clone()),
            _ => (1, Reply::Status(200)),
        };
        let (network, client) = warmed(HttpPolicy::default(), script).await;
        let ask = READS();
        assert_eq!(client.call(&ask).await.unwrap(), 200);
        assert_eq!((network.count(), ask.renewals.load(Ordering::SeqCst)), (103, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_with_second_requests_sends_no_more_than_its_attempts() {
    let (network, client) = warmed(HttpPolicy::default().attempts(4), |_| (200, Reply::Status(503))).await;
    client.call(&READS()).await.unwrap_err();
    assert_eq!(network.count(), 104);
}
