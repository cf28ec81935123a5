//! The client against a scripted network in virtual time, and the transport against real sockets.

mod calls;
mod hedging;
mod outage;
mod scripted;
mod server;
mod sockets;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod telemetry;
mod tls;
