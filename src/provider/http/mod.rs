//! What key providers across a network share: one way to send a request, and what is done when that fails.
//!
//! A provider says what to send and what an answer means ([`Exchange`](exchange::Exchange)); [`Client`](client::Client)
//! does everything else: limits on how many run at once, retries under a budget, a circuit breaker for each endpoint, a
//! second request where the first is slow. Bytes go over [`HttpTransport`](transport::HttpTransport), which a user may
//! bring.

pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod exchange;
pub(crate) mod policy;
pub(crate) mod reqwest;
pub(crate) mod transport;
