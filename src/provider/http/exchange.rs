//! What a provider says about one operation of its KMS: how to ask, and what an answer means.

use super::transport::TransportFailure;
use crate::error::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// One operation of a KMS over HTTP, as [`Client`](super::client::Client) needs it.
#[async_trait]
pub(crate) trait Exchange: Send + Sync {
    /// What a good answer comes to.
    type Answer: Send;

    /// The operation's name, for spans, metrics and errors: `GenerateDataKey`, `transit/encrypt`.
    fn operation(&self) -> &'static str;

    /// What kind of interface that is, as OpenTelemetry's `rpc.system` names it: `aws-api`. Default: none that has a name.
    fn system(&self) -> Option<&'static str> {
        None
    }

    /// What it is about, for errors: a key's name or ARN.
    fn subject(&self) -> String;

    /// Whether a second request may be sent while the first is still under way: for what only reads.
    fn may_hedge(&self) -> bool;

    /// The request, made and signed anew for each attempt.
    async fn request(&self) -> Result<http::Request<Bytes>>;

    /// What `response` means.
    fn judge(&self, response: http::Response<Bytes>) -> Verdict<Self::Answer>;

    /// What to do about a request that got no answer for this reason, where that is more than can be said of any server.
    fn advice(&self, _failure: TransportFailure) -> Option<String> {
        None
    }

    /// Gets new credentials after [`Verdict::Renew`]. An error ends the call.
    async fn renew(&self) -> Result<()>;
}

/// What an answer means.
#[derive(Debug)]
pub(crate) enum Verdict<T> {
    /// It is the answer.
    Done(T),
    /// It is a failure that no other attempt mends. The endpoint works.
    Fail(Error),
    /// The endpoint, or the way there, is not well (5xx, garbage): it counts against the endpoint, and is tried again.
    Unwell(Error),
    /// The endpoint is well and has had too much (429, `ThrottlingException`): it is tried again, not before `after`.
    Throttled { error: Error, after: Option<Duration> },
    /// The credentials are not valid any more: new ones are got, once, and then it is tried again.
    Renew(Error),
}
