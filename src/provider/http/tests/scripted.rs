//! A network that does what a script says, by tokio's virtual time, and an exchange that judges by the status.

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::http::backoff::Backoff;
use crate::provider::http::client::Client;
use crate::provider::http::endpoint::Endpoint;
use crate::provider::http::exchange::{Exchange, Verdict};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What the network does with one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// An answer of this status.
    Status(u16),
    /// The same with `Retry-After`.
    Later(u16, &'static str),
    /// No answer.
    Nothing(TransportFailure),
    /// No answer ever, within what the limits allow.
    Hang,
    /// No answer ever, whatever the limits say.
    HangForEver,
}

type Script = dyn Fn(usize, Duration) -> (Duration, Reply) + Send + Sync;

/// The network: a script says for each request, by its number and its time, what comes when.
pub(super) struct Scripted {
    script: Box<Script>,
    started: Instant,
    /// When each request came.
    pub(super) sent: Mutex<Vec<Duration>>,
    under_way: AtomicUsize,
    pub(super) most: AtomicUsize,
}

impl Scripted {
    pub(super) fn new(script: impl Fn(usize, Duration) -> (Duration, Reply) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            started: Instant::now(),
            sent: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    /// One reply for every request, at once.
    pub(super) fn always(reply: Reply) -> Arc<Self> {
        Self::new(move |_, _| (Duration::ZERO, reply.clone()))
    }

    pub(super) fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

struct Inside<'a>(&'a AtomicUsize);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl HttpTransport for Scripted {
    async fn send(
        &self,
        _: http::Request<Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let number = {
            let mut sent = self.sent.lock().unwrap();
            sent.push(self.now());
            sent.len() - 1
        };
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        let _inside = Inside(&self.under_way);
        let (after, reply) = (self.script)(number, self.now());
        let late = |_| TransportError::new(TransportFailure::Timeout, "the answer was not there in time");
        match reply {
            Reply::HangForEver => std::future::pending().await,
            Reply::Hang => timeout(limits.total, std::future::pending()).await.map_err(late)?,
            reply => {
                timeout(limits.total, sleep(after)).await.map_err(late)?;
                let mut response = http::Response::new(Bytes::new());
                let status = match reply {
                    Reply::Status(status) => status,
                    Reply::Later(status, after) => {
                        response.headers_mut().insert("retry-after", after.parse().unwrap());
                        status
                    }
                    Reply::Nothing(failure) => return Err(TransportError::new(failure, "no answer")),
                    Reply::Hang | Reply::HangForEver => unreachable!(),
                };
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                Ok(response)
            }
        }
    }

    async fn sleep(&self, time: Duration) {
        sleep(time).await;
    }
}

/// Virtual time.
#[derive(Debug)]
struct Virtual(Instant);

impl Clock for Virtual {
    fn wall(&self) -> Duration {
        // A second before the example of RFC 9110.
        Duration::from_secs(784_111_776) + self.now()
    }

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A client whose waits are always the longest.
pub(super) fn client(network: &Arc<Scripted>, policy: HttpPolicy) -> Client {
    client_with(network, policy, |backoff| backoff.drawing(|| Ok(u32::MAX)))
}

/// A client whose waits `change` decides.
pub(super) fn client_with(
    network: &Arc<Scripted>,
    policy: HttpPolicy,
    change: impl FnOnce(Backoff) -> Backoff,
) -> Client {
    let backoff = change(Backoff::new(policy.backoff, policy.backoff_max));
    let endpoint = Endpoint::named("the address of the KMS", "https://kms.example", false).unwrap();
    Client::with_parts(network.clone(), policy, endpoint, Arc::new(Virtual(Instant::now())), backoff)
}

/// 200 is an answer, 401 needs new credentials, 429 is too much, 5xx is unwell, the rest a failure.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) hedge: bool,
    pub(super) renewals: AtomicUsize,
    pub(super) renewal_fails: bool,
}

#[async_trait]
impl Exchange for Ask {
    type Answer = u16;

    fn operation(&self) -> &'static str {
        "Decrypt"
    }

    fn subject(&self) -> String {
        "alias/orders".into()
    }

    fn may_hedge(&self) -> bool {
        self.hedge
    }

    async fn request(&self) -> Result<http::Request<Bytes>> {
        let request = http::Request::post("https://kms.example/v1/decrypt?nonce=hunter2");
        let request = request.header("authorization", "Bearer hunter2");
        request.body(Bytes::from_static(b"hunter2")).map_err(|_| Error::internal("a request"))
    }

    fn judge(&self, response: http::Response<Bytes>) -> Verdict<u16> {
        let status = response.status().as_u16();
        let error = |kind| Error::new(kind, format!("HTTP {status}"));
        match status {
            200 => Verdict::Done(status),
            401 => Verdict::Renew(error(ErrorKind::KeyDenied)),
            429 => Verdict::Throttled { error: error(ErrorKind::Busy), after: None },
            500..=599 => Verdict::Unwell(error(ErrorKind::Unavailable)),
            _ => Verdict::Fail(error(ErrorKind::KeyState)),
        }
    }

    async fn renew(&self) -> Result<()> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        if self.renewal_fails { Err(Error::new(ErrorKind::KeyDenied, "no new token")) } else { Ok(()) }
    }
}
