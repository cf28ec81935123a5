//! The locks of [`line`](super::line), which a test replaces by those of a model checker.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
