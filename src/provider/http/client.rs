//! Runs an [`Exchange`] to its end, whatever the network does.

use super::endpoint::Endpoint;
use super::exchange::{Exchange, Verdict};
use super::policy::HttpPolicy;
use super::transport::{HttpTransport, TransportError};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;

/// What sends a provider's requests to one endpoint. Cheap to clone; clones share their counts.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    transport: Arc<dyn HttpTransport>,
    policy: HttpPolicy,
    endpoint: Endpoint,
}

impl Client {
    /// A client of `endpoint`, under `policy`.
    pub(crate) fn new(transport: Arc<dyn HttpTransport>, policy: HttpPolicy, endpoint: Endpoint) -> Self {
        Self { transport, policy, endpoint }
    }

    /// Where the requests go.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the requests go over: for the calls that get credentials.
    pub(crate) fn transport(&self) -> &Arc<dyn HttpTransport> {
        &self.transport
    }

    /// Sends `exchange` until it is answered or the policy is at its end.
    ///
    /// # Errors
    /// What the exchange says of the answer; kind Unavailable where there is none.
    pub(crate) async fn call<E: Exchange>(&self, exchange: &E) -> Result<E::Answer> {
        let request = exchange.request().await?;
        let response =
            self.transport.send(request, &self.policy.exchange).await.map_err(|e| self.unanswered(exchange, e))?;
        match exchange.judge(response) {
            Verdict::Done(answer) => Ok(answer),
            Verdict::Fail(error)
            | Verdict::Unwell(error)
            | Verdict::Throttled { error, .. }
            | Verdict::Renew(error) => Err(error),
        }
    }

    fn unanswered<E: Exchange>(&self, exchange: &E, error: TransportError) -> Error {
        let (operation, subject) = (exchange.operation(), exchange.subject());
        let at = self.endpoint.as_str();
        Error::new(ErrorKind::Unavailable, format!("{operation} for {subject} got no answer from {at}"))
            .with_source(error)
    }
}
