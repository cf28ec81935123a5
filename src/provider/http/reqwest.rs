//! The transport that envelock brings: `reqwest`, with rustls.

use super::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use crate::error::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// HTTP by the crate `reqwest`, TLS by `rustls`. Runs on tokio.
#[derive(Clone, Debug)]
pub struct ReqwestTransport {
    client: ::reqwest::Client,
}

impl ReqwestTransport {
    /// The operating system's trusted roots, the proxies that the environment names.
    ///
    /// # Errors
    /// Kind Io if TLS cannot be set up.
    pub fn new() -> Result<Self> {
        let client = ::reqwest::Client::builder().redirect(::reqwest::redirect::Policy::none()).build();
        Ok(Self {
            client: client
                .map_err(|e| Error::new(crate::error::ErrorKind::Io, "TLS cannot be set up").with_source(e))?,
        })
    }
}

#[async_trait]
impl HttpTransport for ReqwestTransport {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let failed = |e: ::reqwest::Error| TransportError::new(TransportFailure::Broken, e.without_url().to_string());
        let (parts, body) = request.into_parts();
        let request = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let response = request.timeout(limits.total).send().await.map_err(failed)?;
        let mut answer = http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        let body = response.bytes().await.map_err(failed)?;
        answer.body(body).map_err(|e| TransportError::new(TransportFailure::NotHttp, e.to_string()))
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
