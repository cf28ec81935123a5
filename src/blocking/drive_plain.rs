//! Without providers across a network, the calling thread is all that is needed.

use std::future::Future;

pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}
