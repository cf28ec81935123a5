//! The tests against real peers: moto, ministack, OpenBao, microburst, a proxy and a server that misbehave.
//!
//! A binary of its own, since the peers are started once in it, each when it is first needed, and end with it. What each
//! peer gets wrong is in peers.md; tests assert on each only what it gets right. A peer that does not start is a failure.

mod aws;
mod chaos;
mod cli;
mod conformance;
mod failover;
mod harness;
mod matrix;
mod memory;
mod outage;
mod overhead;
mod readme;
mod secrets;
mod several;
mod support;
mod vault;
mod vault_auth;
