//! The locks of [`flight`](super::flight) and [`call`](super::call), which a test replaces by those of a
//! model checker.

pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
