//! Attempts, waits, time and places of single calls.

use super::scripted::{Ask, Reply, Scripted, client, client_with, ms};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::http::client::Client;
use crate::provider::http::exchange::{Exchange, Verdict};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::{TransportError, TransportFailure};
use async_trait::async_trait;
use bytes::Bytes;
use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// One call over a network of its own: what came of it, after how many requests and how long.
async fn one(policy: HttpPolicy, reply: Reply) -> (Result<u16>, usize, Duration) {
    let network = Scripted::always(reply);
    let client = client(&network, policy);
    let answer = client.call(&Ask::default()).await;
    (answer, network.count(), network.now())
}

#[tokio::test(start_paused = true)]
async fn each_outcome_takes_its_attempts_and_its_time() {
    use TransportFailure::{Broken, Connect, Dns, NotHttp, Timeout, Tls, TooLarge, Unusable};
    // The waits before the repetitions are 100, 200 and 400 ms.
    let table = [
        (Reply::Status(200), 1, 0, None),
        (Reply::Status(400), 1, 0, Some(ErrorKind::KeyState)),
        (Reply::Status(302), 1, 0, Some(ErrorKind::KeyState)),
        (Reply::Status(401), 2, 0, Some(ErrorKind::KeyDenied)),
        (Reply::Status(429), 4, 700, Some(ErrorKind::Busy)),
        (Reply::Status(503), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Later(429, "2"), 4, 6700, Some(ErrorKind::Busy)),
        (Reply::Later(503, "2"), 4, 6700, Some(ErrorKind::Unavailable)),
        (Reply::Later(429, "Sun, 06 Nov 1994 08:49:37 GMT"), 4, 1100 + 200 + 400, Some(ErrorKind::Busy)),
        (Reply::Later(429, "40"), 1, 0, Some(ErrorKind::Busy)),
        (Reply::Nothing(Dns), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(Connect), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(Timeout), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(Broken), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(NotHttp), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(TooLarge), 4, 700, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(Tls), 1, 0, Some(ErrorKind::Unavailable)),
        (Reply::Nothing(Unusable), 1, 0, Some(ErrorKind::Unsupported)),
        // 10 s, 0.1 s, 10 s, 0.2 s, and what is left of 30 s.
        (Reply::Hang, 3, 30_000, Some(ErrorKind::Unavailable)),
        (Reply::HangForEver, 1, 30_000, Some(ErrorKind::Unavailable)),
    ];
    for (reply, attempts, time, kind) in table {
        let shown = format!("{reply:?}");
        let (answer, sent, took) = one(HttpPolicy::default(), reply).await;
        assert_eq!(sent, attempts, "{shown}: {answer:?}");
        // A timer of tokio's is exact to a millisecond.
        assert!(took >= ms(time) && took <= ms(time + 10), "{shown} took {took:?}");
        assert_eq!(answer.as_ref().err().map(Error::kind), kind, "{shown}");
        let text = format!("{answer:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_tells_operation_key_endpoint_attempts_time_and_what_to_do() {
    let (answer, ..) = one(HttpPolicy::default(), Reply::Nothing(TransportFailure::Connect)).await;
    let error = answer.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Decrypt for alias/orders got no answer from https://kms.example: no answer (4 attempts in 0.7 s); check that the KMS \
         runs and listens there, and that no firewall or proxy is in between; then try again"
    );
    let source = error.source().unwrap().downcast_ref::<TransportError>().unwrap();
    assert_eq!(source.failure(), TransportFailure::Connect);
    let (answer, ..) = one(HttpPolicy::default().attempts(2), Reply::Status(503)).await;
    assert_eq!(answer.unwrap_err().to_string(), "HTTP 503 (2 attempts in 0.1 s)");
    let (answer, ..) = one(HttpPolicy::default(), Reply::Later(429, "40")).await;
    assert_eq!(answer.unwrap_err().to_string(), "HTTP 429 (1 attempt in 0.0 s, and no time for another)");
    let (answer, ..) = one(HttpPolicy::default().retry_budget(0.0, 0), Reply::Status(503)).await;
    assert_eq!(answer.unwrap_err().to_string(), "HTTP 503 (1 attempt in 0.0 s, and the retry budget is used up)");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_twice_and_then_works_is_an_answer() {
    let network = Scripted::new(|number, _| (ms(5), if number < 2 { Reply::Status(500) } else { Reply::Status(200) }));
    assert_eq!(client(&network, HttpPolicy::default()).call(&Ask::default()).await.unwrap(), 200);
    assert_eq!(*network.sent.lock().unwrap(), [ms(0), ms(105), ms(310)]);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_once_in_a_call_however_few_attempts_it_has() {
    let network = Scripted::new(|number, _| (ms(0), if number == 0 { Reply::Status(401) } else { Reply::Status(200) }));
    let ask = Ask::default();
    let policy = HttpPolicy::default().attempts(1);
    assert_eq!(client(&network, policy).call(&ask).await.unwrap(), 200);
    assert_eq!((ask.renewals.load(Ordering::SeqCst), network.count()), (1, 2));
    // A failed renewal ends the call, with its own error.
    let network = Scripted::always(Reply::Status(401));
    let ask = Ask { renewal_fails: true, ..Ask::default() };
    let error = client(&network, HttpPolicy::default()).call(&ask).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), network.count()), ("no new token", 1));
}

#[tokio::test(start_paused = true)]
async fn requests_by_renewed_credentials_are_paid_from_the_budget_too() {
    let network = Scripted::always(Reply::Status(401));
    let client = client(&network, HttpPolicy::default().retry_budget(0.1, 10));
    for _ in 0..1000 {
        client.call(&Ask::default()).await.unwrap_err();
    }
    assert!((1100..=1110).contains(&network.count()), "{}", network.count());
    // Where there is no budget, the credentials are renewed all the same: the next call has them.
    let network = Scripted::always(Reply::Status(401));
    let ask = Ask::default();
    let client = super::scripted::client(&network, HttpPolicy::default().retry_budget(0.0, 0));
    let error = client.call(&ask).await.unwrap_err();
    assert_eq!((error.kind(), ask.renewals.load(Ordering::SeqCst), network.count()), (ErrorKind::Unavailable, 1, 1));
    // The refusal is what it comes from, and no word about the new ones.
    let refusal = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!((refusal.kind(), refusal.to_string().as_str()), (ErrorKind::KeyDenied, "HTTP 401"));
    assert!(error.is_retryable() && error.to_string().contains("the retry budget is used up"), "{error}");
    assert_eq!(
        client.call(&Ask { renewal_fails: true, ..Ask::default() }).await.unwrap_err().kind(),
        ErrorKind::KeyDenied
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    let policy = HttpPolicy::default().total(ms(250));
    let (answer, sent, took) = one(policy, Reply::Status(503)).await;
    // 100 ms, then 200 ms would end at 300 ms.
    assert_eq!((sent, took), (2, ms(100)));
    assert!(answer.unwrap_err().to_string().contains("no time for another"));
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_way_at_once_than_allowed_and_waiting_counts_as_time() {
    let network = Scripted::new(|_, _| (ms(1000), Reply::Status(200)));
    let client = client(&network, HttpPolicy::default().at_once(2).total(ms(2500)));
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&Ask::default()).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert_eq!(network.most.load(Ordering::SeqCst), 2);
    // The last two get their place at 2000 ms, and have half a second left.
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4);
    assert!(network.now() <= ms(2510), "{:?}", network.now());
    // With less time they do not even get a place, and the error says what was waited for.
    let network = Scripted::new(|_, _| (ms(10_000), Reply::Status(200)));
    let client = super::scripted::client(&network, HttpPolicy::default().at_once(1).total(ms(2500)));
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call(&Ask::default()).await }
    });
    tokio::task::yield_now().await;
    let error = client.call(&Ask::default()).await.unwrap_err();
    assert!(error.to_string().contains("its turn among the requests under way (0 attempts"), "{error}");
    assert!(first.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_nothing_behind() {
    // Attempts of 50 ms that fail twice; dropped at every 10 ms: while sending, waiting, and waiting for a place.
    let network =
        Scripted::new(|number, _| (ms(50), if number % 3 < 2 { Reply::Status(503) } else { Reply::Status(200) }));
    let policy = HttpPolicy::default().at_once(1).retry_budget(0.0, 5).without_breaker();
    let client = client(&network, policy);
    for round in 0..200 {
        let patience = ms(round % 50 * 10);
        let before = network.count();
        let _ = timeout(patience, client.call(&Ask::default())).await;
        let _ = before;
    }
    // Whatever of the burst was taken, was spent on requests: the first of each call, and no more than five others.
    assert!(network.count() <= 205, "{}", network.count());
    // The only place is free.
    let network_before = network.count();
    let _ = client.call(&Ask::default()).await;
    assert!(network.count() > network_before);
}

#[tokio::test(start_paused = true)]
async fn a_token_for_a_retry_that_is_never_sent_returns() {
    let network = Scripted::new(|_, _| (ms(0), Reply::Status(503)));
    let client = client(&network, HttpPolicy::default().retry_budget(0.0, 1).without_breaker());
    // Each is dropped in the pause before its retry.
    for _ in 0..10 {
        timeout(ms(50), client.call(&Ask::default())).await.unwrap_err();
    }
    assert_eq!(network.count(), 10);
    client.call(&Ask::default()).await.unwrap_err();
    assert_eq!(network.count(), 12);
}

/// An exchange that makes another call by the same client for its credentials.
struct Nested {
    client: Client,
    logins: AtomicUsize,
}

#[async_trait]
impl Exchange for Nested {
    type Answer = u16;

    fn operation(&self) -> &'static str {
        "transit/encrypt"
    }

    fn subject(&self) -> String {
        "orders".into()
    }

    fn may_hedge(&self) -> bool {
        false
    }

    async fn request(&self) -> Result<http::Request<Bytes>> {
        self.client.call(&Ask::default()).await?;
        self.logins.fetch_add(1, Ordering::SeqCst);
        Ask::default().request().await
    }

    fn judge(&self, response: http::Response<Bytes>) -> Verdict<u16> {
        Ask::default().judge(response)
    }

    async fn renew(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_by_the_same_client_finds_a_place_even_if_there_is_only_one() {
    let network = Scripted::new(|_, _| (ms(10), Reply::Status(200)));
    let client = client(&network, HttpPolicy::default().at_once(1));
    let calls = (0..20).map(|_| {
        let exchange = Nested { client: client.clone(), logins: AtomicUsize::new(0) };
        tokio::spawn(async move { exchange.client.clone().call(&exchange).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap(), 200);
    }
    assert_eq!(network.count(), 40);
}

#[tokio::test(start_paused = true)]
async fn waits_differ_from_call_to_call() {
    let network = Scripted::always(Reply::Status(503));
    let client = client_with(&network, HttpPolicy::default().attempts(2).without_breaker(), |backoff| backoff);
    let mut waits = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        client.call(&Ask::default()).await.unwrap_err();
        waits.push(started.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait <= ms(102)));
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 10, "{waits:?}");
}
