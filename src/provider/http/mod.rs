//! What key providers across a network share: one way to send a request, and what is done when that fails.
//!
//! A provider says what to send and what an answer means ([`Exchange`](exchange::Exchange)); [`Client`](client::Client)
//! does everything else: limits on how many run at once, retries under a budget, a circuit breaker for each endpoint, a
//! second request where the first is slow. Bytes go over [`HttpTransport`](transport::HttpTransport), which a user may
//! bring.
//!
//! `breaker`, `budget`, `backoff`, `latency` and `retry_after` are values that know no clock and no network; `gate` and `race`
//! know no runtime; `call` is where they meet. Time comes from the transport's `sleep` and a [`Clock`](crate::clock::Clock).
//! `errand` is what several calls need done once, such as a login.

mod backoff;
pub(crate) mod body;
mod breaker;
mod budget;
mod call;
pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod errand;
pub(crate) mod exchange;
mod failed;
mod failure;
mod gate;
mod latency;
#[cfg(feature = "metrics")]
pub(crate) mod meter_metrics;
#[cfg(not(feature = "metrics"))]
mod meter_none;
pub(crate) mod policy;
#[cfg(feature = "test-util")]
pub(crate) mod probe;
mod race;
pub(crate) mod reqwest;
mod retry_after;
pub(crate) mod setup;
#[cfg(test)]
mod tests;
mod told;
#[cfg(not(feature = "tracing"))]
mod trace_none;
#[cfg(feature = "tracing")]
mod trace_tracing;
pub(crate) mod transport;

#[cfg(feature = "metrics")]
use meter_metrics as meter;
#[cfg(not(feature = "metrics"))]
use meter_none as meter;
#[cfg(not(feature = "tracing"))]
use trace_none as trace;
#[cfg(feature = "tracing")]
use trace_tracing as trace;
