//! A transport that counts what is sent, also where nothing that could count answers.

use envelock::http::{Request, Response};
use envelock::{ExchangeLimits, HttpTransport, ReqwestTransport, TransportError, async_trait};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// envelock's own transport, one for all tests: each has certificates to read.
pub(crate) fn shared() -> Arc<ReqwestTransport> {
    static SHARED: LazyLock<Arc<ReqwestTransport>> = LazyLock::new(|| Arc::new(ReqwestTransport::new().unwrap()));
    Arc::clone(&SHARED)
}

/// Counts the requests that go over another transport.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    inner: Arc<dyn HttpTransport>,
    sent: Arc<AtomicUsize>,
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn HttpTransport>) -> Self {
        Self { inner, sent: Arc::default() }
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl HttpTransport for Counting {
    async fn send(
        &self,
        request: Request<bytes::Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        self.inner.send(request, limits).await
    }

    async fn sleep(&self, time: Duration) {
        self.inner.sleep(time).await;
    }
}
