//! The one source of time, so that tests own it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the wall time. Object-safe; [`SystemClock`] is the real one.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since the Unix epoch, by the wall clock. It may go backwards.
    fn wall(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
