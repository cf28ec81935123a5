//! A span for each call and, within it, one for each request, by the crate `tracing`, target `envelock::http`.
//!
//! Fields have the names of OpenTelemetry's semantic conventions for RPC and HTTP clients (1.4x); `otel.name` and `otel.kind` are
//! what the crate `tracing-opentelemetry` makes a span's name and kind from.

use super::breaker::Seen;
use super::told::{Happened, Sending, Sent, Server};
use crate::error::Error;
use std::future::Future;
use tracing::field::Empty;
use tracing::instrument::{Instrumented, WithDispatch, WithSubscriber};
use tracing::{Instrument, Span, debug, info, info_span, warn};

pub(super) struct CallSpan(Span);

impl CallSpan {
    pub(super) fn new(
        server: &Server,
        operation: &'static str,
        system: Option<&'static str>,
        subject: impl FnOnce() -> String,
    ) -> Self {
        let span = info_span!(
            target: TARGET,
            "kms.call",
            otel.name = operation,
            otel.kind = "internal",
            otel.status_code = Empty,
            rpc.system = system,
            rpc.method = operation,
            server.address = server.address,
            server.port = server.port,
            envelock.key = Empty,
            envelock.attempts = Empty,
            "error.type" = Empty,
        );
        if !span.is_disabled() {
            span.record("envelock.key", subject());
        }
        Self(span)
    }

    pub(super) fn around<F: Future>(&self, work: F) -> Instrumented<F> {
        work.instrument(self.0.clone())
    }

    pub(super) fn ended(&self, error: Option<&Error>, attempts: u32) {
        self.0.record("envelock.attempts", attempts);
        if let Some(error) = error {
            self.0.record("otel.status_code", "ERROR");
            match error.code() {
                Some(code) => self.0.record("error.type", code),
                None => self.0.record("error.type", tracing::field::debug(error.kind())),
            };
        }
    }
}

pub(super) struct AttemptSpan(Span);

impl AttemptSpan {
    pub(super) fn new(sending: &Sending<'_>) -> Self {
        let span = info_span!(
            target: TARGET,
            "http.request",
            otel.name = sending.method.as_str(),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = sending.method.as_str(),
            url.full = without_query(&sending.uri),
            server.address = sending.server.address,
            server.port = sending.server.port,
            network.protocol.name = "http",
            http.request.resend_count = Empty,
            http.response.status_code = Empty,
            "error.type" = Empty,
        );
        if sending.resend > 0 {
            span.record("http.request.resend_count", sending.resend);
        }
        Self(span)
    }

    pub(super) fn around<F: Future>(&self, work: F) -> Instrumented<F> {
        work.instrument(self.0.clone())
    }

    pub(super) fn ended(&self, sent: &Sent<'_>) {
        if let Some(status) = sent.status {
            self.0.record("http.response.status_code", status.as_u16());
        }
        if let Some(error) = sent.error {
            self.0.record("error.type", error);
            self.0.record("otel.status_code", "ERROR");
        }
    }
}

/// Work that goes on elsewhere: within the span of whoever begins it, and told to his subscriber.
pub(super) fn here<F: Future>(work: F) -> WithDispatch<Instrumented<F>> {
    work.in_current_span().with_current_subscriber()
}

pub(super) fn tell(server: &Server, operation: &'static str, happened: &Happened<'_>) {
    let (address, port) = (&server.address, server.port);
    match happened {
        Happened::Retrying { wait, why } => {
            debug!(target: TARGET, { rpc.method = operation, ?wait, why }, "an attempt failed and is repeated");
        }
        Happened::OverBudget => {
            warn!(target: TARGET, { rpc.method = operation }, "an attempt failed and is not repeated: the retry budget is used up");
        }
        Happened::Hedged => {
            debug!(target: TARGET, { rpc.method = operation }, "a second request goes out beside a slow one")
        }
        Happened::Throttled => debug!(target: TARGET, { rpc.method = operation }, "the server had too much"),
        Happened::HeldBack => {
            debug!(target: TARGET, { rpc.method = operation }, "a call was held back: the breaker is open")
        }
        Happened::Renewing => debug!(target: TARGET, { rpc.method = operation }, "credentials are renewed"),
        Happened::Breaker { seen: Seen::Open, cause } => {
            warn!(target: TARGET, { server.address = address, server.port = port, cause }, "the breaker is open");
        }
        Happened::Breaker { seen: Seen::HalfOpen, .. } => {
            debug!(target: TARGET, { server.address = address, server.port = port }, "the breaker lets a probe through");
        }
        Happened::Breaker { seen: Seen::Closed, .. } => {
            info!(target: TARGET, { server.address = address, server.port = port }, "the breaker is closed");
        }
    }
}

fn without_query(uri: &http::Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    // What an endpoint does not allow, a provider's address does not have: but what is shown is checked here.
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

const TARGET: &str = "envelock::http";
