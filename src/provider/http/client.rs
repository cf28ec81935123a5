//! Runs an [`Exchange`] to its end, whatever the network does.

use super::backoff::Backoff;
use super::breaker::{Breaker, Pass, Refused, Seen};
use super::budget::Budget;
use super::call::Call;
use super::endpoint::Endpoint;
use super::exchange::Exchange;
use super::gate::Gate;
use super::latency::Latencies;
use super::policy::HttpPolicy;
use super::told::{Happened, Server};
use super::transport::HttpTransport;
use super::{meter, trace};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What sends a provider's requests to one endpoint. Cheap to clone; clones share the retry budget, the breaker, the places for
/// requests and what is known of latencies.
#[derive(Clone)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

/// What all calls to one endpoint have in common.
pub(super) struct Shared {
    pub(super) transport: Arc<dyn HttpTransport>,
    pub(super) policy: HttpPolicy,
    pub(super) endpoint: Endpoint,
    pub(super) server: Server,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) backoff: Backoff,
    pub(super) gate: Gate,
    state: Mutex<State>,
}

/// Never locked across an await.
struct State {
    budget: Budget,
    breaker: Breaker,
    latencies: Latencies,
}

impl Client {
    /// A client of `endpoint`, under `policy`.
    pub(crate) fn new(transport: Arc<dyn HttpTransport>, policy: HttpPolicy, endpoint: Endpoint) -> Self {
        let backoff = Backoff::new(policy.backoff, policy.backoff_max);
        Self::with_parts(transport, policy, endpoint, Arc::new(SystemClock), backoff)
    }

    /// The same by another clock, which must agree with the transport's `sleep`, and other waits.
    pub(super) fn with_parts(
        transport: Arc<dyn HttpTransport>,
        policy: HttpPolicy,
        endpoint: Endpoint,
        clock: Arc<dyn Clock>,
        backoff: Backoff,
    ) -> Self {
        let state = State {
            budget: Budget::new(policy.budget, policy.budget_burst),
            breaker: Breaker::new(policy.breaker_failures, policy.breaker_probe),
            latencies: Latencies::new(),
        };
        let (server, gate) = (Server::of(&endpoint), Gate::new(policy.at_once));
        let state = Mutex::new(state);
        Self { shared: Arc::new(Shared { transport, policy, endpoint, server, clock, backoff, gate, state }) }
    }

    /// Where the requests go.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// How long a call may take in all.
    #[cfg_attr(not(feature = "vault"), allow(dead_code, reason = "Vault's logins ask for it"))]
    pub(crate) fn total(&self) -> Duration {
        self.shared.policy.total
    }

    /// What the requests go over: for the calls that get credentials.
    #[cfg_attr(not(feature = "vault"), allow(dead_code, reason = "Vault's logins ask for it"))]
    pub(crate) fn transport(&self) -> &Arc<dyn HttpTransport> {
        &self.shared.transport
    }

    /// Sends `exchange` until it is answered or the policy is at its end.
    ///
    /// Dropping the future ends the call and leaves nothing behind. While the exchange makes a request or renews its
    /// credentials, the call has no place among the requests under way, so that it may make calls of its own for that.
    ///
    /// # Errors
    /// What the exchange says of the answer; kind Unavailable where there is none, nobody is asked, or the time is up; kind
    /// Unsupported where the transport cannot send from here.
    pub(crate) async fn call<E: Exchange>(&self, exchange: &E) -> Result<E::Answer> {
        Call::new(&self.shared, exchange).run().await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.endpoint.as_str())
    }
}

/// What an outcome says about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    Ill,
    /// Nothing: no request left this program.
    Unknown,
}

impl Shared {
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A call's first request goes out.
    pub(super) fn earn(&self) {
        self.state().budget.earn();
    }

    /// A token for one more request, which returns by itself unless it is spent.
    pub(super) fn ticket(&self) -> Option<Ticket<'_>> {
        let taken = self.state().budget.take();
        taken.then(|| Ticket { shared: self, spent: false })
    }

    /// When a second request is worth its while.
    pub(super) fn slow(&self) -> Option<Duration> {
        self.state().latencies.p95()
    }

    /// A good answer took `time`, or a slower one's request was given up after it.
    pub(super) fn took(&self, time: Duration) {
        self.state().latencies.add(time);
    }

    /// Whether a request would be let through.
    pub(super) fn would_admit(&self) -> Result<(), Refused> {
        self.state().breaker.would_admit(self.now())
    }

    /// Leave to send a request.
    pub(super) fn admit(&self, operation: &'static str) -> Result<Pass, Refused> {
        self.changing(operation, "", |breaker, now| breaker.admit(now))
    }

    /// What became of a request.
    pub(super) fn note(&self, operation: &'static str, pass: Pass, health: Health, cause: &str) {
        self.changing(operation, cause, |breaker, now| match health {
            Health::Well => breaker.succeeded(pass),
            Health::Ill => breaker.failed(pass, now, cause),
            Health::Unknown => {}
        });
    }

    pub(super) fn tell(&self, operation: &'static str, happened: &Happened<'_>) {
        trace::tell(&self.server, operation, happened);
        meter::tell(&self.server, operation, happened);
    }

    /// Tells of a change of the breaker, after the lock.
    fn changing<T>(&self, operation: &'static str, cause: &str, change: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let mut state = self.state();
        let before: Seen = state.breaker.seen();
        let changed = change(&mut state.breaker, self.now());
        let seen = state.breaker.seen();
        drop(state);
        if seen != before {
            self.tell(operation, &Happened::Breaker { seen, cause });
        }
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token of the retry budget.
pub(super) struct Ticket<'a> {
    shared: &'a Shared,
    spent: bool,
}

impl Ticket<'_> {
    /// Its request goes out.
    pub(super) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.spent {
            self.shared.state().budget.give_back();
        }
    }
}
