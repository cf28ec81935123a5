//! Calls that fail at random, and how many calls a cache makes: counted where they arrive.

use crate::support::aws::Account;
use crate::support::faults::{FaultServer, Reply};
use crate::support::http;
use crate::support::kms::{FakeKms, provider};
use crate::support::peers::Peer;
use crate::support::providers::Counted;
use crate::support::transport::{Counting, shared};
use crate::support::{run, say};
use envelock::{
    AwsCredentials, AwsKmsProvider, CacheLimits, DataKeyAnswer, DataKeyLength, EncryptionContext, Envelope, Error,
    HttpPolicy, KeyProvider, KmsContext,
};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TASKS: usize = 100;

fn context(task: usize) -> EncryptionContext {
    EncryptionContext::from([("task", task.to_string())])
}

fn text(task: usize, number: usize) -> String {
    format!("message {number} of task {task}")
}

/// As a program would: what may succeed later is tried again, a little later. How often is counted.
async fn persistently<T, F: Future<Output = Result<T, Error>>>(again: &AtomicUsize, call: impl Fn() -> F) -> T {
    let started = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert!(started.elapsed() < Duration::from_secs(60), "it never succeeds: {error}");
                again.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    }
}

/// What came of the writing and reading of many messages.
struct Done {
    calls: usize,
    requests: usize,
    again: usize,
}

/// So many messages in each of a hundred tasks, `shared` of them under one data key, written through one cache and read
/// through another.
fn write_and_read(kms: &Arc<FakeKms>, policy: HttpPolicy, messages: usize, shared: u64) -> Done {
    let server = kms.serve();
    let again = Arc::new(AtomicUsize::new(0));
    let (counted, calls) = Counted::wrap(Arc::new(provider(&server.url()).policy(policy).build().unwrap()));
    let limits = || CacheLimits::default().max_messages(shared).max_entries(2 * TASKS * messages);
    let envelope = || Envelope::builder(Arc::clone(&counted)).cache(limits()).build().unwrap();
    let (writing, reading) = (envelope(), envelope());
    run(async {
        let write = |task: usize| {
            let (envelope, again) = (writing.clone(), Arc::clone(&again));
            tokio::spawn(async move {
                let mut sealed = Vec::new();
                for number in 0..messages {
                    let (text, context) = (text(task, number), context(task));
                    sealed.push(persistently(&again, || envelope.encrypt(text.as_bytes(), &context)).await);
                }
                sealed
            })
        };
        let written: Vec<_> = (0..TASKS).map(write).collect();
        let mut tasks = Vec::new();
        for (task, sealed) in written.into_iter().enumerate() {
            let (envelope, again, sealed) = (reading.clone(), Arc::clone(&again), sealed.await.unwrap());
            tasks.push(tokio::spawn(async move {
                assert_eq!(sealed.len(), messages);
                for (number, sealed) in sealed.iter().enumerate() {
                    let context = context(task);
                    let plain = persistently(&again, || envelope.decrypt(sealed, &context)).await;
                    assert_eq!(plain, text(task, number).as_bytes());
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    Done { calls: calls.all(), requests: server.requests(), again: again.load(Ordering::SeqCst) }
}

fn quick() -> HttpPolicy {
    HttpPolicy::default().attempts(8).backoff(Duration::from_millis(2), Duration::from_millis(40))
}

#[test]
fn with_three_calls_in_ten_failing_every_message_is_written_and_read_back() {
    let (kms, started) = (FakeKms::new(), Instant::now());
    kms.fail(30);
    let done = write_and_read(&kms, quick().retry_budget(0.5, 100), 100, 20);
    let (successes, retries) = (kms.answered(), done.requests - done.calls);
    say(format!(
        "10,000 messages with 30 % of calls failing: {} calls, {successes} good answers, {retries} retries, {} tries again by \
         the program, {:.1} s",
        done.calls,
        done.again,
        started.elapsed().as_secs_f64()
    ));
    // Five data keys for each task, to make and to open.
    assert_eq!(successes, 2 * 5 * TASKS);
    assert!(done.calls * 10 <= successes * 11, "{} calls for {successes} answers", done.calls);
    assert!(retries * 2 <= done.calls + 2 * 100, "{retries} retries of {} calls", done.calls);
    // They do fail: nothing above was too easy.
    assert!(retries * 10 > successes * 3, "{retries} retries");
}

#[test]
fn a_small_budget_holds_retries_back_and_what_is_tried_again_gets_through() {
    let kms = FakeKms::new();
    kms.fail(30);
    let done = write_and_read(&kms, quick().retry_budget(0.1, 10), 20, 10);
    let retries = done.requests - done.calls;
    say(format!("a budget of 10 %: {} calls, {retries} retries, {} tries again", done.calls, done.again));
    assert_eq!(kms.answered(), 2 * 2 * TASKS);
    assert!(retries * 10 <= done.calls + 10 * 10, "{retries} retries of {} calls", done.calls);
    assert!(done.again > 0, "the budget was never used up");
}

#[test]
fn ten_thousand_cached_messages_make_the_calls_that_the_cache_promises() {
    let account = Account::moto("eu-central-1");
    let (key, moto) = (account.key(), account.endpoint.strip_prefix("http://").unwrap().to_owned());
    let server = FaultServer::new(move |_| Reply::Forward(moto.clone()));
    let provider: Arc<dyn KeyProvider> = Arc::new(
        AwsKmsProvider::strict([key])
            .environment([("PATH", "")])
            .endpoint(server.url())
            .credentials(AwsCredentials::new("testing", "testing"))
            .transport(shared())
            .build()
            .unwrap(),
    );
    let mut before = [0; 2];
    let mut counted = || {
        let counts = server.by_operation();
        let now =
            ["TrentService.GenerateDataKey", "TrentService.Decrypt"].map(|it| counts.get(it).copied().unwrap_or(0));
        let since = [now[0] - before[0], now[1] - before[1]];
        before = now;
        since
    };
    for (limits, keys) in [(CacheLimits::default(), 1), (CacheLimits::default().max_messages(1_000), 10)] {
        let envelope = || Envelope::builder(Arc::clone(&provider)).cache(limits.clone()).build().unwrap();
        let (writing, reading) = (envelope(), envelope());
        run(async {
            let sealed: Vec<Vec<u8>> = {
                let mut sealed = Vec::new();
                for number in 0..10_000 {
                    sealed.push(writing.encrypt(text(0, number).as_bytes(), &context(0)).await.unwrap());
                }
                sealed
            };
            for (number, sealed) in sealed.iter().enumerate() {
                assert_eq!(reading.decrypt(sealed, &context(0)).await.unwrap(), text(0, number).as_bytes());
            }
        });
        assert_eq!(counted(), [keys, keys], "GenerateDataKey and Decrypt of 10,000 messages");
    }
    assert_eq!(server.by_operation().len(), 2, "{:?}", server.by_operation());
}

#[test]
fn without_a_cache_each_message_is_a_call() {
    let kms = FakeKms::new();
    let server = kms.serve();
    let envelope = Envelope::builder(provider(&server.url()).build().unwrap()).build().unwrap();
    run(async {
        for number in 0..10 {
            let sealed = envelope.encrypt(text(0, number).as_bytes(), &context(0)).await.unwrap();
            assert_eq!(envelope.decrypt(&sealed, &context(0)).await.unwrap(), text(0, number).as_bytes());
        }
    });
    assert_eq!((server.requests(), kms.answered()), (20, 20));
    assert!(server.connections() <= 2, "{} connections for calls one after another", server.connections());
}

#[test]
fn each_operation_gets_through_what_microburst_does_to_it() {
    let account = Account::moto("eu-central-1");
    let (key, burst) = (account.key(), Peer::start("microburst", &[&account.endpoint]));
    let url = burst.text("url");
    let rules = json!([
        {"service": "kms", "operation": "GenerateDataKey", "times": 2,
            "error": {"code": "ThrottlingException", "status": 400}},
        {"service": "kms", "operation": "Encrypt", "times": 2, "reset": true},
        {"service": "kms", "operation": "Decrypt", "times": 1, "error": {"code": "KMSInternalException", "status": 500}},
        {"service": "kms", "operation": "ReEncrypt", "times": 1, "response": {"truncate_frac": 0.5}},
    ]);
    let set = http::send("POST", &format!("{url}/_microburst/rules"), &[], rules.to_string().as_bytes()).unwrap();
    assert_eq!(set.status(), 200, "{}", String::from_utf8_lossy(&set.body));
    let counting = Counting::new(shared());
    let provider = AwsKmsProvider::strict([key])
        .environment([("PATH", "")])
        .endpoint(url)
        .credentials(AwsCredentials::new("testing", "testing"))
        .policy(quick())
        .transport(Arc::new(counting.clone()))
        .build()
        .unwrap();
    let context = KmsContext::new(&context(0)).unwrap();
    run(async {
        let made = provider.generate_data_key(DataKeyLength::Bytes32, &context).await.unwrap();
        let again = provider.encrypt_data_key(&made.key, &context).await.unwrap();
        let fresh = provider.re_encrypt_data_key(&again[0], &context).await.unwrap().unwrap();
        match provider.decrypt_data_key(&fresh[0], &context).await {
            DataKeyAnswer::Key(key) => assert_eq!(key.expose(), made.key.expose()),
            other => panic!("{other:?}"),
        }
    });
    let fired = http::send("GET", &format!("{url}/_microburst/fired"), &[], b"").unwrap();
    let fired: serde_json::Value = serde_json::from_slice(&fired.body).unwrap();
    let fired = fired.as_array().or_else(|| fired["fired"].as_array()).expect("a list").len();
    assert_eq!((counting.sent(), fired), (4 + 6, 6));
}
