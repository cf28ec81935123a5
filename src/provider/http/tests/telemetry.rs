//! What the crates `tracing` and `metrics` are told of calls, and that it holds no secret.

use super::scripted::{Ask, Reply, Scripted, client, ms};
use crate::provider::http::errand::Errand;
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata as MetricMetadata, Recorder,
    SharedString, Unit,
};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps spans, with all that was recorded in them, and events, as lines.
#[derive(Clone, Default)]
struct Lines {
    spans: Arc<Mutex<BTreeMap<u64, String>>>,
    events: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU64>,
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    // Whatever our own code says, at every level.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("envelock")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let mut line = attributes.metadata().name().to_owned();
        attributes.record(&mut Line(&mut line));
        self.spans.lock().unwrap().insert(id, line);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut Line(self.spans.lock().unwrap().get_mut(&id.into_u64()).unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut Line(&mut line));
        self.events.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Adds up counters and gauges, and counts the values of histograms.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<BTreeMap<String, f64>>>);

struct Value(Values, String);

impl Value {
    fn add(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("counters are incremented");
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value), "{value} is no time in seconds");
        self.add(1.0);
    }
}

impl Values {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        // What every metric has is checked once, here.
        let labels: Vec<_> =
            labels.filter(|label| label != "server.address=kms.example" && label != "server.port=443").collect();
        assert_eq!(key.labels().len(), labels.len() + 2, "{key}");
        Arc::new(Value(self.clone(), format!("{} {}", key.name(), labels.join(","))))
    }
}

impl Recorder for Values {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.0.lock().unwrap().insert(format!("described {}", key.as_str()), 1.0);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe_counter(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe_counter(key, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &MetricMetadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &MetricMetadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, key: &Key, _: &MetricMetadata<'_>) -> Histogram {
        Histogram::from_arc(self.value(key))
    }
}

/// Spans, events and metrics of `work`, in virtual time; none of them holds what the requests keep secret.
fn watch(work: impl Future<Output = ()>) -> (Vec<String>, Vec<String>, BTreeMap<String, f64>) {
    let (lines, values) = (Lines::default(), Values::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tracing::subscriber::with_default(lines.clone(), || {
        metrics::with_local_recorder(&values, || {
            crate::provider::http::meter_metrics::describe_http_metrics();
            runtime.block_on(work);
        });
    });
    let spans: Vec<_> = lines.spans.lock().unwrap().values().cloned().collect();
    let events = lines.events.lock().unwrap().clone();
    let mut values = values.0.lock().unwrap().clone();
    let all = format!("{spans:?} {events:?} {values:?}");
    assert!(!all.contains("hunter2") && !all.contains("nonce"), "{all}");
    // Whatever is recorded has a description.
    let (described, recorded): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut values).into_iter().partition(|(name, _)| name.starts_with("described "));
    for name in recorded.keys().filter_map(|name| name.split(' ').next()) {
        assert!(described.contains_key(&format!("described {name}")), "{name}");
    }
    (spans, events, recorded)
}

#[test]
fn what_goes_on_elsewhere_is_told_to_the_subscriber_of_whoever_began_it() {
    let network = Scripted::new(|_, _| (ms(0), Reply::Status(200)));
    let client = client(&network, HttpPolicy::default());
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let work = || async move { client.call(&Ask::default()).await.map(drop) };
        pollster::block_on(Errand::new().join(work)).unwrap();
    });
    let spans = lines.spans.lock().unwrap().values().cloned().collect::<String>();
    assert!(spans.contains("kms.call") && spans.contains("http.request"), "{spans}");
}

#[test]
fn a_call_that_is_tried_again_is_a_span_with_one_for_each_request() {
    let (spans, events, values) = watch(async {
        let network = Scripted::new(|number, _| match number {
            0 => (ms(5), Reply::Status(503)),
            1 => (ms(5), Reply::Nothing(TransportFailure::Broken)),
            _ => (ms(5), Reply::Status(200)),
        });
        client(&network, HttpPolicy::default()).call(&Ask::default()).await.unwrap();
    });
    assert_eq!(spans.len(), 4);
    let has = |line: &str, parts: &[&str]| {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    };
    let server = "server.address=\"kms.example\" server.port=443";
    has(
        &spans[0],
        &["kms.call ", "otel.name=\"Decrypt\"", "rpc.method=\"Decrypt\"", server, "envelock.key=\"alias/orders\""],
    );
    has(&spans[0], &["envelock.attempts=3"]);
    assert!(!spans[0].contains("error.type"), "{}", spans[0]);
    let common = ["http.request ", "otel.kind=\"client\"", "http.request.method=\"POST\"", server];
    spans[1..].iter().for_each(|span| has(span, &common));
    has(
        &spans[1],
        &["url.full=\"https://kms.example/v1/decrypt\"", "http.response.status_code=503", "error.type=\"503\""],
    );
    has(&spans[2], &["http.request.resend_count=1", "error.type=\"broken\"", "otel.status_code=\"ERROR\""]);
    has(&spans[3], &["http.request.resend_count=2", "http.response.status_code=200"]);
    assert!(!spans[1].contains("resend_count") && !spans[3].contains("error.type"), "{spans:?}");
    assert_eq!(events.iter().filter(|event| event.contains("is repeated")).count(), 2, "{events:?}");
    let expected = [
        ("envelock_kms_attempts_total rpc.method=Decrypt", 3.0),
        ("envelock_kms_calls_total rpc.method=Decrypt", 1.0),
        ("envelock_kms_retries_total rpc.method=Decrypt", 2.0),
        ("http.client.active_requests ", 0.0),
        ("http.client.request.duration http.request.method=POST,error.type=broken", 1.0),
        ("http.client.request.duration http.request.method=POST,http.response.status_code=200", 1.0),
        ("http.client.request.duration http.request.method=POST,http.response.status_code=503,error.type=503", 1.0),
    ];
    let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(values, expected);
}

#[test]
fn throttles_renewals_the_budget_and_each_state_of_the_breaker_are_told() {
    let (spans, events, values) = watch(async {
        let network = Scripted::always(Reply::Status(429));
        client(&network, HttpPolicy::default().retry_budget(0.0, 1)).call(&Ask::default()).await.unwrap_err();
        let network =
            Scripted::new(|number, _| (ms(0), if number < 2 { Reply::Status(401) } else { Reply::Status(400) }));
        client(&network, HttpPolicy::default()).call(&Ask::default()).await.unwrap_err();
        let network =
            Scripted::new(|_, now| (ms(0), if now < ms(500) { Reply::Status(500) } else { Reply::Status(200) }));
        let client = client(&network, HttpPolicy::default().attempts(1).breaker(2, ms(1000)));
        for _ in 0..3 {
            client.call(&Ask::default()).await.unwrap_err();
        }
        tokio::time::sleep(ms(1000)).await;
        client.call(&Ask::default()).await.unwrap();
    });
    let value = |name: &str| values.get(name).copied();
    assert_eq!(value("envelock_kms_throttles_total rpc.method=Decrypt"), Some(2.0));
    assert_eq!(value("envelock_kms_retries_over_budget_total rpc.method=Decrypt"), Some(1.0));
    assert_eq!(value("envelock_kms_renewals_total rpc.method=Decrypt"), Some(1.0));
    assert_eq!(value("envelock_kms_held_back_total rpc.method=Decrypt"), Some(1.0));
    assert_eq!(value("envelock_kms_breaker_state "), Some(0.0));
    assert_eq!(value("envelock_kms_calls_total rpc.method=Decrypt,error.type=Busy"), Some(1.0));
    assert_eq!(value("envelock_kms_calls_total rpc.method=Decrypt,error.type=Unavailable"), Some(3.0));
    let order = ["WARN", "the breaker is open", "lets a probe through", "the breaker is closed"];
    let at: Vec<_> = order[1..].iter().map(|part| events.iter().position(|event| event.contains(part))).collect();
    assert!(at.is_sorted() && at.iter().all(Option::is_some), "{events:?}");
    assert!(events.iter().any(|event| event.starts_with("WARN") && event.contains("cause=\"HTTP 500\"")), "{events:?}");
    assert!(
        spans.iter().any(|span| span.contains("error.type=\"Busy\"") || span.contains("error.type=Busy")),
        "{spans:?}"
    );
}
