//! Single calls through the client, for benchmarks and for tests of one's own transport.

use super::client::Client;
use super::endpoint::Endpoint;
use super::exchange::{Exchange, Verdict};
use super::policy::HttpPolicy;
use super::transport::HttpTransport;
use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// What providers send their requests by, with nothing of a provider around it: one POST of a constant body to one address.
///
/// ```no_run
/// use envelock::{HttpPolicy, HttpProbe, ReqwestTransport};
/// use std::sync::Arc;
/// # async fn f() -> Result<(), envelock::Error> {
/// let probe = HttpProbe::new(Arc::new(ReqwestTransport::new()?), HttpPolicy::default(), "https://kms.example")?;
/// let answer = probe.call(b"{}".as_slice().into()).await?;
/// # let _ = answer;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HttpProbe {
    client: Client,
}

impl HttpProbe {
    /// Calls to `endpoint` over `transport`, under `policy`.
    ///
    /// # Errors
    /// Kind InvalidInput if `endpoint` is no address, or neither TLS nor this machine.
    pub fn new(transport: Arc<dyn HttpTransport>, policy: HttpPolicy, endpoint: &str) -> Result<Self> {
        Ok(Self { client: Client::new(transport, policy, Endpoint::named("the address of the KMS", endpoint, false)?) })
    }

    /// Posts `body`, and again as the policy says while the status is 429 or 5xx.
    ///
    /// # Errors
    /// Kind Unavailable if no answer came or the status was one of those to the end; kind Io for any other status but 200.
    pub async fn call(&self, body: Bytes) -> Result<Bytes> {
        self.client.call(&Post { address: self.client.endpoint().as_str(), body }).await
    }
}

struct Post<'a> {
    address: &'a str,
    body: Bytes,
}

#[async_trait]
impl Exchange for Post<'_> {
    type Answer = Bytes;

    fn operation(&self) -> &'static str {
        "POST"
    }

    fn subject(&self) -> String {
        "a probe".into()
    }

    fn may_hedge(&self) -> bool {
        true
    }

    async fn request(&self) -> Result<http::Request<Bytes>> {
        let request = http::Request::post(self.address).header("content-type", "application/json");
        request.body(self.body.clone()).map_err(|_| Error::invalid_input("the address is none"))
    }

    fn judge(&self, response: http::Response<Bytes>) -> Verdict<Bytes> {
        let status = response.status();
        let failed = |kind| Error::new(kind, format!("the server answered {status}"));
        match status.as_u16() {
            200 => Verdict::Done(response.into_body()),
            429 => Verdict::Throttled { error: failed(ErrorKind::Unavailable), after: None },
            500..=599 => Verdict::Unwell(failed(ErrorKind::Unavailable)),
            _ => Verdict::Fail(failed(ErrorKind::Io)),
        }
    }

    async fn renew(&self) -> Result<()> {
        Ok(())
    }
}
