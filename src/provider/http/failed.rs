//! What a user reads of a request that got no answer.

use super::transport::{TransportError, TransportFailure};
use crate::error::Error;
use crate::error::remote::Tried;
use std::borrow::Cow;

/// The error of a call whose last attempt failed with `error`, with the advice of whoever called, or that for any server.
pub(super) fn unanswered(tried: &Tried<'_>, error: TransportError, better: Option<String>) -> Error {
    let what = error.message().to_owned();
    if error.failure() == TransportFailure::Unusable {
        return Error::not_sendable(tried, what, error);
    }
    let advice = better.map_or_else(|| Cow::Borrowed(advice(error.failure())), Cow::Owned);
    Error::unanswered(tried, what, advice, error)
}

fn advice(failure: TransportFailure) -> &'static str {
    match failure {
        TransportFailure::Dns => "check the host's name and this machine's resolver",
        TransportFailure::Connect => {
            "check that the KMS runs and listens there, and that no firewall or proxy is in between; then try again"
        }
        TransportFailure::Tls => {
            "check which certificate the server shows and which roots are trusted: the system's, or those that \
             `ReqwestTransport::builder` was given; no other try mends that, and do not turn the check off"
        }
        TransportFailure::Timeout => {
            "try again; if it persists, see whether the KMS is overloaded, or allow more time (`HttpPolicy`; in a profile, `timeout`)"
        }
        TransportFailure::Broken => "try again; if it persists, look at the KMS and at any proxy in between",
        TransportFailure::NotHttp => {
            "something else than a KMS answers there: check the address and its port, and any proxy"
        }
        TransportFailure::TooLarge => {
            "something else than a KMS may answer there: check the address, or allow longer answers (`HttpPolicy`)"
        }
        TransportFailure::Unusable => "check the address and the credentials",
    }
}

/// What telemetry calls it.
pub(super) fn name(failure: TransportFailure) -> &'static str {
    match failure {
        TransportFailure::Dns => "dns",
        TransportFailure::Connect => "connect",
        TransportFailure::Tls => "tls",
        TransportFailure::Timeout => "timeout",
        TransportFailure::Broken => "broken",
        TransportFailure::NotHttp => "not_http",
        TransportFailure::TooLarge => "too_large",
        TransportFailure::Unusable => "unusable",
    }
}
