//! Counters, a gauge and a histogram for the crate `metrics`.
//!
//! `http.client.request.duration` and `http.client.active_requests` are OpenTelemetry's, with their labels; what the conventions
//! have no name for begins with `envelock_kms_`, as the cache's begin with `envelock_cache_`.

use super::breaker::Seen;
use super::told::{Happened, Sending, Sent, Server};
use crate::error::Error;
use ::metrics::{Gauge, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Counts as under way until it is dropped.
pub(super) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

pub(super) fn under_way(server: &Server) -> UnderWay {
    let gauge = gauge!(ACTIVE, of_server(server));
    gauge.increment(1.0);
    UnderWay(gauge)
}

pub(super) fn sent(sending: &Sending<'_>, sent: &Sent<'_>) {
    counter!(ATTEMPTS, of_operation(sending.server, sending.operation)).increment(1);
    let mut labels = of_server(sending.server);
    labels.push(Label::new("http.request.method", sending.method.to_string()));
    if let Some(status) = sent.status {
        labels.push(Label::new("http.response.status_code", status.as_str().to_owned()));
    }
    if let Some(error) = sent.error {
        labels.push(Label::new("error.type", error.to_owned()));
    }
    histogram!(DURATION, labels).record(sent.time.as_secs_f64());
}

pub(super) fn called(server: &Server, operation: &'static str, error: Option<&Error>) {
    let mut labels = of_operation(server, operation);
    if let Some(error) = error {
        let kind = error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned);
        labels.push(Label::new("error.type", kind));
    }
    counter!(CALLS, labels).increment(1);
}

pub(super) fn tell(server: &Server, operation: &'static str, happened: &Happened<'_>) {
    let name = match happened {
        Happened::Breaker { seen, .. } => {
            gauge!(BREAKER, of_server(server)).set(match seen {
                Seen::Closed => 0.0,
                Seen::HalfOpen => 1.0,
                Seen::Open => 2.0,
            });
            return;
        }
        Happened::Retrying { .. } => RETRIES,
        Happened::OverBudget => OVER_BUDGET,
        Happened::Hedged => HEDGES,
        Happened::Throttled => THROTTLES,
        Happened::HeldBack => HELD_BACK,
        Happened::Renewing => RENEWALS,
    };
    counter!(name, of_operation(server, operation)).increment(1);
}

/// Tells the recorder of the crate `metrics` the units and meanings of what calls to key providers over HTTP record. To be called
/// once, after the recorder is installed.
///
/// | name | type | labels |
/// |---|---|---|
/// | `http.client.request.duration` | histogram, seconds | `server.address`, `server.port`, `http.request.method`, `http.response.status_code`, `error.type` |
/// | `http.client.active_requests` | gauge | `server.address`, `server.port` |
/// | `envelock_kms_calls_total` | counter | `server.address`, `server.port`, `rpc.method`, `error.type` |
/// | `envelock_kms_attempts_total`, `…_retries_total`, `…_retries_over_budget_total`, `…_hedges_total`, `…_throttles_total`, `…_held_back_total`, `…_renewals_total` | counters | `server.address`, `server.port`, `rpc.method` |
/// | `envelock_kms_breaker_state` | gauge: 0 closed, 1 a probe is under way, 2 open | `server.address`, `server.port` |
///
/// `error.type` is there only where something failed.
pub fn describe_http_metrics() {
    describe_histogram!(DURATION, Unit::Seconds, "Duration of HTTP client requests");
    describe_gauge!(ACTIVE, Unit::Count, "Number of active HTTP requests");
    describe_counter!(CALLS, Unit::Count, "Calls to a key provider, each of one or more requests");
    describe_counter!(ATTEMPTS, Unit::Count, "Requests sent");
    describe_counter!(RETRIES, Unit::Count, "Requests that are repeated");
    describe_counter!(OVER_BUDGET, Unit::Count, "Requests that are not repeated, since the retry budget is used up");
    describe_counter!(HEDGES, Unit::Count, "Second requests beside slow ones");
    describe_counter!(THROTTLES, Unit::Count, "Answers that said the server had too much");
    describe_counter!(HELD_BACK, Unit::Count, "Calls that an open breaker held back");
    describe_counter!(RENEWALS, Unit::Count, "Renewals of credentials that an answer made necessary");
    describe_gauge!(BREAKER, "State of the breaker: 0 closed, 1 a probe is under way, 2 open");
}

fn of_server(server: &Server) -> Vec<Label> {
    vec![Label::new("server.address", server.address.clone()), Label::new("server.port", server.port.to_string())]
}

fn of_operation(server: &Server, operation: &'static str) -> Vec<Label> {
    let mut labels = of_server(server);
    labels.push(Label::from_static_parts("rpc.method", operation));
    labels
}

const DURATION: &str = "http.client.request.duration";
const ACTIVE: &str = "http.client.active_requests";
const CALLS: &str = "envelock_kms_calls_total";
const ATTEMPTS: &str = "envelock_kms_attempts_total";
const RETRIES: &str = "envelock_kms_retries_total";
const OVER_BUDGET: &str = "envelock_kms_retries_over_budget_total";
const HEDGES: &str = "envelock_kms_hedges_total";
const THROTTLES: &str = "envelock_kms_throttles_total";
const HELD_BACK: &str = "envelock_kms_held_back_total";
const RENEWALS: &str = "envelock_kms_renewals_total";
const BREAKER: &str = "envelock_kms_breaker_state";
