//! How patient a provider across a network is.

use super::transport::ExchangeLimits;
use std::time::Duration;

/// Time-outs, retries and their budget, the circuit breaker, and how many requests run at once, for one provider.
///
/// Every method takes any value and keeps it within the limits that it states. docs/remote-kms.md says how to choose.
///
/// ```
/// use envelock::HttpPolicy;
/// use std::time::Duration;
/// // For a request that a person waits for: less patience, and a second request where the first is slow.
/// let policy = HttpPolicy::default().total(Duration::from_secs(5)).attempt(Duration::from_secs(2)).hedge();
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
    pub(super) breaker_failures: Option<u32>,
    pub(super) breaker_probe: Duration,
    pub(super) at_once: usize,
    pub(super) hedge: bool,
}

impl Default for HttpPolicy {
    /// 3 s to connect and 10 s for an attempt, 30 s for a call, 4 attempts, up to 0.1 s before the second and 5 s before any,
    /// retries of at most 10 % of the calls after a burst of 100, a breaker that opens after 10 failures in a row and probes each
    /// second, 64 requests at once, answers of up to 256 KiB, no hedging.
    fn default() -> Self {
        Self {
            exchange: ExchangeLimits::default(),
            total: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            budget: 0.1,
            budget_burst: 100,
            breaker_failures: Some(10),
            breaker_probe: Duration::from_secs(1),
            at_once: 64,
            hedge: false,
        }
    }
}

impl HttpPolicy {
    /// How long a connection may take to be made, TLS included; 1 ms to an hour. Default: 3 s.
    #[must_use]
    pub fn connect(mut self, time: Duration) -> Self {
        self.exchange.connect = within_reason(time);
        self
    }

    /// How long one attempt may take, connecting included; 1 ms to an hour. Default: 10 s.
    #[must_use]
    pub fn attempt(mut self, time: Duration) -> Self {
        self.exchange.total = within_reason(time);
        self
    }

    /// How long a call may take, all its attempts and waits together; 1 ms to an hour. Default: 30 s.
    #[must_use]
    pub fn total(mut self, time: Duration) -> Self {
        self.total = within_reason(time);
        self
    }

    /// How many times a request is sent at most, the first included; at least 1. Default: 4.
    ///
    /// One more may follow where credentials had to be renewed.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The time before an attempt is repeated: drawn between nothing and `base` for the first repetition, `2 * base` for the
    /// second and so on, and never above `max`; 1 ms to an hour. Default: 100 ms and 5 s.
    ///
    /// A longer `Retry-After` of the server's is honoured.
    #[must_use]
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.backoff = within_reason(base);
        self.backoff_max = within_reason(max).max(self.backoff);
        self
    }

    /// The most requests that are sent beyond the first of each call: `share` of the calls (0 to 1), after a `burst` of so many.
    /// Default: 0.1 and 100.
    ///
    /// It is what keeps an outage from being made worse: however many calls fail, the load grows by that share. The burst
    /// is for what fails all at once, as when a load balancer is restarted. Hedging draws on it too. `0.0` and `0`: no retry.
    #[must_use]
    pub fn retry_budget(mut self, share: f64, burst: u32) -> Self {
        self.budget = share.clamp(0.0, 1.0);
        self.budget_burst = burst;
        self
    }

    /// When requests are held back: after `failures` in a row, at least 1, and until one of the probes that are sent every `probe`
    /// (1 ms to an hour) succeeds. Default: 10, and each second.
    ///
    /// Failures are those of the network and the server's (5xx, no answer, no HTTP), and not refusals or throttling.
    #[must_use]
    pub fn breaker(mut self, failures: u32, probe: Duration) -> Self {
        self.breaker_failures = Some(failures.max(1));
        self.breaker_probe = within_reason(probe);
        self
    }

    /// No breaker: every call tries.
    #[must_use]
    pub fn without_breaker(mut self) -> Self {
        self.breaker_failures = None;
        self
    }

    /// How many requests are under way at once, at least 1; others wait for their turn, within their time. Default: 64.
    #[must_use]
    pub fn at_once(mut self, requests: usize) -> Self {
        self.at_once = requests.max(1);
        self
    }

    /// Sends a second request where the first, one that only reads, takes longer than 95 of 100 did lately, and takes
    /// whichever good answer comes first. Default: not.
    ///
    /// It costs about one request in twenty, out of the retry budget.
    #[must_use]
    pub fn hedge(mut self) -> Self {
        self.hedge = true;
        self
    }

    /// The most bytes of an answer's body, 1 KiB to 64 MiB; a longer answer is a failure. Default: 256 KiB.
    #[must_use]
    pub fn answer_limit(mut self, bytes: usize) -> Self {
        self.exchange.body = bytes.clamp(1 << 10, 64 << 20);
        self
    }
}

/// A time that a timer can be set to.
fn within_reason(time: Duration) -> Duration {
    time.clamp(Duration::from_millis(1), Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_kept_within_what_makes_sense() {
        let policy = HttpPolicy::default()
            .connect(Duration::MAX)
            .attempt(Duration::ZERO)
            .total(Duration::MAX)
            .attempts(0)
            .backoff(Duration::from_secs(7), Duration::ZERO)
            .retry_budget(7.0, 3)
            .breaker(0, Duration::ZERO)
            .at_once(0)
            .answer_limit(usize::MAX);
        assert_eq!(policy.exchange.connect, Duration::from_secs(3600));
        assert_eq!(policy.exchange.total, Duration::from_millis(1));
        assert_eq!((policy.total, policy.attempts), (Duration::from_secs(3600), 1));
        assert_eq!((policy.backoff, policy.backoff_max), (Duration::from_secs(7), Duration::from_secs(7)));
        assert_eq!((policy.budget, policy.budget_burst), (1.0, 3));
        assert_eq!((policy.breaker_failures, policy.breaker_probe), (Some(1), Duration::from_millis(1)));
        assert_eq!((policy.at_once, policy.exchange.body), (1, 64 << 20));
        assert_eq!(policy.without_breaker().breaker_failures, None);
    }
}
