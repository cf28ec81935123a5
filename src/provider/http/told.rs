//! What spans, events and metrics are told about calls: by names of OpenTelemetry's conventions, and nothing secret.

use super::breaker::Seen;
use super::endpoint::Endpoint;
use std::time::Duration;

/// Where requests go, as telemetry names it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: String,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let (address, port) = endpoint.server();
        Self { address, port }
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    pub(super) server: &'a Server,
    pub(super) operation: &'static str,
    pub(super) method: http::Method,
    /// The address without its query.
    pub(super) url: String,
    /// How many requests of the same call were sent before.
    pub(super) resend: u32,
}

/// What became of one request.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    pub(super) status: Option<http::StatusCode>,
    /// `None` where it went well.
    pub(super) error: Option<&'a str>,
    pub(super) time: Duration,
}

/// What happens between requests.
#[derive(Debug)]
pub(super) enum Happened<'a> {
    /// The request is repeated after `wait`.
    Retrying { wait: Duration, why: &'a str },
    /// It would be, and the retry budget is used up.
    OverBudget,
    /// A second request is sent beside a slow one.
    Hedged,
    /// The server had too much.
    Throttled,
    /// A call was held back by the breaker.
    HeldBack,
    /// Credentials are renewed.
    Renewing,
    /// The breaker is in another state than before.
    Breaker { seen: Seen, cause: &'a str },
}
