//! The transport that envelock brings: `reqwest`, with rustls.

use super::body::{Incoming, TooLarge};
use super::endpoint::is_own;
use super::failure::classify;
use super::setup::{ReqwestTransportBuilder, Route, Setup};
use super::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use crate::error::{Error, ErrorKind, Result};
use crate::worker;
use crate::worker::network::{self, Within};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{self, Handle};

/// HTTP/1.1 by the crate `reqwest`, TLS by `rustls`. Cheap to clone; clones share their connections.
///
/// It runs on tokio, in a runtime with its I/O and its timers enabled (`enable_all`), or under `envelock::blocking`, which brings
/// one; a runtime without them panics, as tokio's own sockets do. Each runtime has connections of its own. Redirects are answers, and not followed; nothing is decompressed.
///
/// What is wiped: the buffer of each answer's body, once nobody has it any more. What is not: the buffers of `hyper`, which reads
/// an answer and writes a request (of a connection, reused for the next), and those of `rustls`, which hold them before and
/// after encryption.
#[derive(Clone)]
pub struct ReqwestTransport {
    shared: Arc<Shared>,
}

struct Shared {
    setup: Setup,
    /// The one that was used last at the end.
    made: Mutex<Vec<Made>>,
}

/// A client with its open connections, for one time that connecting may take and one route, in one runtime: a connection is driven
/// by the runtime that opened it, and by nobody where that stands still or is in the parent of a fork. (What is started after a
/// fork has an id of its own, since ids are counted on.)
struct Made {
    connect: Duration,
    route: Route,
    /// `None`: for the first that comes.
    runtime: Option<runtime::Id>,
    client: ::reqwest::Client,
}

impl ReqwestTransport {
    /// The operating system's trusted roots, the proxies that the environment names.
    ///
    /// # Errors
    /// Kind Io if the system has no trusted roots.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Another setup: roots of your own, a client's certificate, a proxy or none.
    #[must_use]
    pub fn builder() -> ReqwestTransportBuilder {
        ReqwestTransportBuilder::default()
    }

    pub(super) fn set_up(setup: Setup) -> Result<Self> {
        let transport = Self { shared: Arc::new(Shared { setup, made: Mutex::default() }) };
        // What cannot work says so now, and not at the first call.
        transport.client(ExchangeLimits::default().connect, Route::Configured, None).map_err(|error| {
            Error::new(ErrorKind::Io, "TLS cannot be set up").with_source(error).with_advice(
                "if the system has no trusted roots, install its package ca-certificates, or give the roots of the KMS",
            )
        })?;
        Ok(transport)
    }

    /// Within a runtime.
    async fn exchange(
        &self,
        request: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let route = match request.uri().host() {
            Some(host) if is_own(host) => Route::Direct,
            _ => Route::Configured,
        };
        let runtime = Handle::try_current().ok().map(|runtime| runtime.id());
        let client = self.client(limits.connect, route, runtime).map_err(classify)?;
        let mut request = ::reqwest::Request::try_from(request).map_err(classify)?;
        *request.timeout_mut() = Some(limits.total);
        let mut response = client.execute(request).await.map_err(classify)?;
        let mut body = Incoming::new(response.content_length(), limits.body).map_err(|TooLarge| too_large(limits))?;
        while let Some(part) = response.chunk().await.map_err(classify)? {
            body.push(&part).map_err(|TooLarge| too_large(limits))?;
        }
        let mut answer = http::Response::new(body.finish());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }

    /// A client for calls in `runtime`.
    fn client(
        &self,
        connect: Duration,
        route: Route,
        runtime: Option<runtime::Id>,
    ) -> ::reqwest::Result<::reqwest::Client> {
        let mut made = self.shared.made.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |made: &Made| {
            made.connect == connect && made.route == route && (made.runtime == runtime || made.runtime.is_none())
        };
        let found = match made.iter().position(fits) {
            Some(at) => Made { runtime, ..made.remove(at) },
            None => {
                let client = self.shared.setup.client(connect, route)?;
                Made { connect, route, runtime, client }
            }
        };
        if made.len() == CLIENTS_MAX {
            made.remove(0);
        }
        let client = found.client.clone();
        made.push(found);
        Ok(client)
    }
}

/// So many clients are kept, each with connections of its own: enough for a runtime on each core of a large machine.
const CLIENTS_MAX: usize = 64;

#[async_trait]
impl HttpTransport for ReqwestTransport {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let runtime = runtime_here()?;
        Within::new(runtime, self.exchange(request, limits)).await
    }

    fn check(&self) -> Result<(), TransportError> {
        runtime_here().map(drop)
    }

    async fn sleep(&self, time: Duration) {
        if let Ok(Some(runtime)) = network::runtime() {
            return Within::new(runtime, async move { tokio::time::sleep(time).await }).await;
        }
        // Nothing is sent from here, which `check` says before anything is waited for; but a wait is a wait.
        let _ = worker::run("envelock-wait", move || {
            std::thread::sleep(time);
            Ok(())
        })
        .await;
    }
}

impl fmt::Debug for ReqwestTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReqwestTransport(..)")
    }
}

/// The runtime that requests made here run on.
fn runtime_here() -> Result<Handle, TransportError> {
    let runtime = network::runtime().map_err(|error| {
        TransportError::new(TransportFailure::Unusable, "no thread could be started for the network").with_source(error)
    })?;
    runtime.ok_or_else(|| TransportError::new(TransportFailure::Unusable, "there is no tokio runtime here"))
}

fn too_large(limits: &ExchangeLimits) -> TransportError {
    let message = format!("the answer's body is longer than {} bytes", limits.body);
    TransportError::new(TransportFailure::TooLarge, message)
}
