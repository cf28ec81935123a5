//! With providers across a network, whose sockets and timers another thread serves.

use crate::worker::network;
use std::future::Future;

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    let _waiting = network::waiting();
    pollster::block_on(future)
}
