//! What the crates `tracing` and `metrics` are told.

use super::{Scene, context};
use crate::support::say;
use crate::support::virtual_time::Remote;
use envelock::blocking::wait;
use envelock::{CacheLimits, DataKeyCache, ErrorKind};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata as MetricMetadata, Recorder, SharedString,
    Unit,
};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps events as lines, and uses the cache meanwhile.
#[derive(Clone, Debug)]
struct Lines(Arc<Mutex<Vec<String>>>, DataKeyCache);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "envelock::cache"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.1.invalidate_tenant(Some("nobody"));
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Keeps the last value of each metric.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<BTreeMap<String, f64>>>);

struct Value(Values, String);

impl CounterFn for Value {
    fn increment(&self, _: u64) {
        panic!("counters are set");
    }

    fn absolute(&self, value: u64) {
        GaugeFn::set(self, value as f64);
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl Values {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Value(self.clone(), format!("{} {}", key.name(), labels.join(","))))
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &MetricMetadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &MetricMetadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, _: &Key, _: &MetricMetadata<'_>) -> Histogram {
        panic!("there is none");
    }
}

/// Calls, a renewal, a failure that a grace covers, and more entries than there is room for.
fn busy(scene: &Scene) {
    let acme = scene.envelope.for_tenant("acme");
    let message = wait(acme.encrypt(b"x", &context(1))).unwrap();
    (0..10).for_each(|_| drop(wait(acme.decrypt(&message, &context(1))).unwrap()));
    scene.clock.advance(Duration::from_secs(280));
    wait(acme.decrypt(&message, &context(1))).unwrap();
    scene.clock.advance(Duration::from_secs(300));
    scene.remote.fail(1, ErrorKind::Unavailable);
    wait(acme.decrypt(&message, &context(1))).unwrap();
    (2..4).for_each(|number| drop(wait(scene.envelope.encrypt(b"x", &context(number))).unwrap()));
}

#[test]
fn events_tell_of_calls_failures_and_graces_and_of_no_hit() {
    let limits = CacheLimits::default().offline_grace(Duration::from_secs(60)).max_entries(2);
    // Once for nobody: what another test's thread is just making known to `tracing` for the first time would be
    // taken for something that nobody wants.
    busy(&Scene::new(limits.clone(), Remote::quick));
    let scene = Scene::new(limits, Remote::quick);
    let lines = Lines(Arc::default(), scene.cache.clone());
    tracing::subscriber::with_default(lines.clone(), || busy(&scene));
    let lines = lines.0.lock().unwrap();
    let find = |parts: &[&str]| lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(find(&["DEBUG", "tenant=\"acme\"", "direction=\"encrypt\"", "was fetched"]), 1);
    assert_eq!(find(&["DEBUG", "tenant=\"acme\"", "direction=\"decrypt\"", "was fetched"]), 1);
    assert_eq!(find(&["DEBUG", "tenant=\"acme\"", "direction=\"decrypt\"", "was renewed"]), 1);
    assert_eq!(find(&["WARN", "tenant=\"acme\"", "kind=Unavailable", "on purpose"]), 1);
    assert_eq!(find(&["WARN", "tenant=\"acme\"", "past its age"]), 1);
    let [encrypt, decrypt] = scene.agree();
    let evicted = encrypt.evictions + decrypt.evictions;
    assert!(evicted > 0);
    assert_eq!(find(&["DEBUG", "made room"]) as u64, evicted);
    assert_eq!(lines.len() as u64, 7 + evicted, "{lines:#?}");
    say(format!("cache: {} events for {} calls", lines.len(), scene.remote.calls()));
}

#[test]
fn metrics_are_what_the_statistics_say() {
    let scene = Scene::new(CacheLimits::default(), Remote::quick);
    let acme = scene.envelope.for_tenant("acme");
    let values = Values::default();
    for round in 1..4_u32 {
        let message = wait(acme.encrypt(b"four", &context(1))).unwrap();
        wait(acme.decrypt(&message, &context(1))).unwrap();
        metrics::with_local_recorder(&values, || scene.cache.publish_metrics());
        let values = values.0.lock().unwrap();
        let of = |name: &str, direction: &str| {
            values[&format!("envelock_cache_{name}_total tenant=acme,provider=#1,direction={direction}")]
        };
        assert_eq!((of("hits", "encrypt"), of("misses", "encrypt")), (f64::from(round - 1), 1.0));
        assert_eq!((of("hits", "decrypt"), of("misses", "decrypt")), (f64::from(round - 1), 1.0));
        assert_eq!(of("bytes", "encrypt"), f64::from(4 * round));
        assert_eq!(values["envelock_cache_entries "], 2.0);
        // Eight counters for each direction of the tenant and of the envelope that names none.
        assert_eq!(values.len(), 1 + 8 * 2 * 2);
    }
}
