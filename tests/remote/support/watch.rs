//! Everything that a program could log or count: events and spans of `tracing`, lines of `log`, names and labels of `metrics`.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata as MetricMetadata, Recorder, SharedString, Unit as MetricUnit,
};
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps all lines, of all levels and targets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Everything(Arc<Mutex<Vec<String>>>);

impl Everything {
    /// Listens to the whole process, for good: for a test in a process of its own.
    pub(crate) fn listen() -> Self {
        let all = Self::default();
        tracing::subscriber::set_global_default(all.clone()).unwrap();
        log::set_boxed_logger(Box::new(all.clone())).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        metrics::set_global_recorder(all.clone()).unwrap();
        all
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        write!(self.0, " {field}={value} {value:?}").unwrap();
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut line = Line(format!("span {} {}", span.metadata().target(), span.metadata().name()));
        span.record(&mut line);
        self.push(line.0);
        Id::from_u64(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("span, later:".to_owned());
        values.record(&mut line);
        self.push(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("event {} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.push(format!("log {} {} {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// What it counts is numbers: names and labels are what could show something.
impl Recorder for Everything {
    fn describe_counter(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &MetricMetadata<'_>) -> Counter {
        self.push(format!("metric {key}"));
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &MetricMetadata<'_>) -> Gauge {
        self.push(format!("metric {key}"));
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &MetricMetadata<'_>) -> Histogram {
        self.push(format!("metric {key}"));
        Histogram::noop()
    }
}
