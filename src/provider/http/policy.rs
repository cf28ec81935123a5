//! How patient a provider across a network is.

use super::transport::ExchangeLimits;
use std::time::Duration;

/// Time-outs, retries and their budget, the circuit breaker, and how many requests run at once, for one provider.
///
/// ```
/// use envelock::HttpPolicy;
/// use std::time::Duration;
/// let policy = HttpPolicy::default().attempts(5).total(Duration::from_secs(20));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
pub struct HttpPolicy {
    pub(super) exchange: ExchangeLimits,
    pub(super) total: Duration,
    pub(super) attempts: u32,
    pub(super) backoff: Duration,
    pub(super) backoff_max: Duration,
    pub(super) budget: f64,
    pub(super) budget_burst: u32,
    pub(super) breaker_failures: u32,
    pub(super) breaker_probe: Duration,
    pub(super) at_once: usize,
    pub(super) hedge: bool,
}

impl Default for HttpPolicy {
    /// 3 s to connect and 10 s for an attempt, 30 s for a call, 4 attempts, retries of at most 10 % of the calls (a burst of 10), a
    /// breaker that opens after 5 failures and probes each second, 64 requests at once, no hedging.
    fn default() -> Self {
        Self {
            exchange: ExchangeLimits::default(),
            total: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            budget: 0.1,
            budget_burst: 10,
            breaker_failures: 5,
            breaker_probe: Duration::from_secs(1),
            at_once: 64,
            hedge: false,
        }
    }
}

impl HttpPolicy {
    /// How long a call may take, all its attempts and waits together. Default: 30 s.
    #[must_use]
    pub fn total(mut self, time: Duration) -> Self {
        self.total = time;
        self
    }

    /// How many times a request is sent at most, the first included; at least 1. Default: 4.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }
}
