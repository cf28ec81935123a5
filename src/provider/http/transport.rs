//! The seam to the network: one request out, one whole answer back, and time to wait in between.

use async_trait::async_trait;
use bytes::Bytes;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Sends one HTTP request and brings the whole answer: [`ReqwestTransport`](crate::ReqwestTransport), or your own client.
///
/// Object-safe. It does what it is asked once: no retries, no redirects followed, no cookies; envelock retries by itself. Its
/// futures may be dropped at any time.
///
/// Requests and answers hold credentials and data keys: an implementation neither logs them nor shows them in `Debug` or in
/// its errors.
#[async_trait]
pub trait HttpTransport: Send + Sync + fmt::Debug {
    /// Sends `request`, whose address is absolute, and reads the whole answer within `limits`. Any status is an answer.
    ///
    /// # Errors
    /// What kept the answer from coming, as a [`TransportError`].
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError>;

    /// Whether it can send from here at all. Default: it can.
    ///
    /// # Errors
    /// [`Unusable`](TransportFailure::Unusable), where there is no runtime that it needs, say.
    fn check(&self) -> Result<(), TransportError> {
        Ok(())
    }

    /// Waits for `time`, by the same runtime that drives [`send`](Self::send).
    async fn sleep(&self, time: Duration);
}

/// A shared transport is a transport.
#[async_trait]
impl<T: HttpTransport + ?Sized> HttpTransport for Arc<T> {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        (**self).send(request, limits).await
    }

    fn check(&self) -> Result<(), TransportError> {
        (**self).check()
    }

    async fn sleep(&self, time: Duration) {
        (**self).sleep(time).await;
    }
}

/// What one request may take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeLimits {
    /// How long a connection may take to be made, TLS included.
    pub connect: Duration,
    /// How long the whole exchange may take, connecting included.
    pub total: Duration,
    /// The most bytes of an answer's body that are read; more is [`TooLarge`](TransportFailure::TooLarge).
    pub body: usize,
}

impl Default for ExchangeLimits {
    /// 3 s to connect, 10 s in all, 256 KiB of body.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), total: Duration::from_secs(10), body: 256 << 10 }
    }
}

/// What kept an answer from coming. It decides whether the request is sent again, and what the error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportFailure {
    /// The host's name has no address.
    Dns,
    /// No connection was made: refused, unreachable, or not within its time. Nothing was sent.
    Connect,
    /// The connection was made, and TLS was not: a certificate that is not trusted, for one. Nothing was sent.
    Tls,
    /// The request was, or may have been, sent, and the answer was not there in time.
    Timeout,
    /// The connection broke after the request was, or may have been, sent.
    Broken,
    /// The answer is not HTTP.
    NotHttp,
    /// The answer's body is larger than [`ExchangeLimits::body`].
    TooLarge,
    /// The transport cannot send from here: no runtime, an address it cannot use, an invalid request. Another try fails as well.
    Unusable,
}

/// A request that got no answer.
#[derive(Debug)]
pub struct TransportError {
    failure: TransportFailure,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// A failure and a sentence about it. The sentence holds no secret: no header, no body, no query of an address.
    #[must_use]
    pub fn new(failure: TransportFailure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), source: None }
    }

    /// The same, caused by `source`, which holds no secret either.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kept the answer from coming.
    #[must_use]
    pub fn failure(&self) -> TransportFailure {
        self.failure
    }

    /// The sentence about it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
