//! Ctrl-C, SIGTERM and SIGHUP: the work is undone, then the program ends.

use crate::failure::Failure;
use envelock::blocking;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Delivered;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long work has to undo itself before the future that drives it is dropped.
const GRACE: Duration = Duration::from_secs(5);
/// How long what was dropped has before the program ends anyway.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// Which signal came, and who must know of it.
#[derive(Clone, Debug)]
pub(crate) struct Signals(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The library looks at it between two pieces of work.
    stop: Arc<AtomicBool>,
    number: AtomicI32,
    /// Something may have to be undone: a temporary file, a terminal without echo.
    undoes: AtomicBool,
    /// The grace is over.
    late: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Signals {
    /// Takes the signals over. Where nothing has to be undone, one of them ends the program at once.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::io("signals cannot be caught", &e);
        let mut delivered = Delivered::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let signals = Self(Arc::default());
        let state = Arc::clone(&signals.0);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(number) = delivered.forever().next() {
                    state.number.store(number, Ordering::SeqCst);
                    state.stop.store(true, Ordering::SeqCst);
                    if state.undoes.load(Ordering::SeqCst) {
                        std::thread::sleep(GRACE);
                        state.late.store(true, Ordering::SeqCst);
                        state.wake();
                        std::thread::sleep(LAST_GRACE);
                    }
                    Failure::signal(exit_number(number)).report();
                    std::process::exit(128 + number);
                }
            })
            .map_err(failed)?;
        Ok(signals)
    }

    /// Set once a signal came.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.stop)
    }

    /// # Errors
    /// The failure to end with, once a signal came.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.0.stop.load(Ordering::SeqCst) {
            true => Err(Failure::signal(exit_number(self.0.number.load(Ordering::SeqCst)))),
            false => Ok(()),
        }
    }

    /// Runs `work`, which a signal lets undo what it began before the program ends.
    pub(crate) fn undoing<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.0.undoes.store(true, Ordering::SeqCst);
        let result = self.check().and_then(|()| work());
        if result.is_err() {
            // A failure that the signal caused is no failure of its own.
            self.check()?;
        }
        self.0.undoes.store(false, Ordering::SeqCst);
        result
    }

    /// Drives a call of the library that may leave something to undo. It is dropped when it has not
    /// ended some time after a signal.
    pub(crate) fn drive<T>(&self, work: impl Future<Output = envelock::Result<T>>) -> Result<T, Failure> {
        self.undoing(|| {
            let mut work = Box::pin(work);
            let done = blocking::wait(std::future::poll_fn(|context| {
                *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
                match work.as_mut().poll(context) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if self.0.late.load(Ordering::SeqCst) => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            }));
            match done {
                Some(result) => result.map_err(Failure::from),
                None => {
                    // The dropped call's thread cleans up behind itself.
                    drop(work);
                    std::thread::sleep(LAST_GRACE / 2);
                    Err(Failure::signal(exit_number(self.0.number.load(Ordering::SeqCst))))
                }
            }
        })
    }
}

impl State {
    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// Signals are small numbers.
fn exit_number(number: i32) -> u8 {
    u8::try_from(number).unwrap_or(0)
}
