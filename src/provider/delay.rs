//! How long several providers wait for one another.

use crate::provider::at_once::Call;
use crate::provider::failover::FailoverProvider;
use crate::provider::http::transport::HttpTransport;
use crate::provider::multi::MultiProvider;
use crate::provider::patience::Patience;
use std::sync::Arc;
use std::time::Duration;

impl FailoverProvider {
    /// The same, asking the next member as well each time that nobody has answered for `delay`. The first good answer
    /// counts, and the others are cancelled.
    ///
    /// It makes one slow member harmless, at the price of calls that were not needed: choose a delay that 95 of 100 calls
    /// keep under. `transport` only sleeps here: the one that the members send their requests by, since their runtime is
    /// its own.
    #[must_use]
    pub fn hedged_after(mut self, delay: Duration, transport: Arc<dyn HttpTransport>) -> Self {
        self.hedge = Some(Arc::new(Delay { delay, transport }));
        self
    }
}

impl MultiProvider {
    /// The same, which waits for the others no longer than `grace` once as many have wrapped as must: those that have not
    /// answered by then are recorded as missing, and their calls are cancelled.
    ///
    /// Without it, a member that is out of reach holds each call as long as its own policy lets it. `transport` only
    /// sleeps here, as in [`FailoverProvider::hedged_after`].
    #[must_use]
    pub fn with_grace(mut self, grace: Duration, transport: Arc<dyn HttpTransport>) -> Self {
        self.grace = Some(Arc::new(Delay { delay: grace, transport }));
        self
    }
}

struct Delay {
    delay: Duration,
    transport: Arc<dyn HttpTransport>,
}

impl Patience for Delay {
    fn wait(&self) -> Call<'_, ()> {
        self.transport.sleep(self.delay)
    }
}
