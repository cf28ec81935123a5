//! The one source of time, so that tests own it.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Object-safe; [`SystemClock`] is the real one.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since the Unix epoch, by the wall clock. It may go backwards.
    fn wall(&self) -> Duration;

    /// Time since some moment of this process, by a clock that never goes backwards: for ages. Nothing in
    /// this crate sleeps by it, so that a clock that stands still holds nothing up.
    ///
    /// Default: the operating system's monotonic clock, which on Linux stands still while the machine
    /// is suspended.
    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
