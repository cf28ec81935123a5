//! A clock that moves when a test says so, with sleepers on it; and a key provider that is as slow, as
//! faulty and as unreachable as told, and counts its calls.

use crate::support::providers::raw;
use envelock::clock::Clock;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Error, ErrorKind, GeneratedDataKey, KeyProvider,
    KmsContext, ProviderIdentity, Recipient, Result, Revocations, async_trait,
};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Time that stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock {
    state: Mutex<Timers>,
}

#[derive(Debug, Default)]
struct Timers {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

impl Clock for VirtualClock {
    fn wall(&self) -> Duration {
        self.now()
    }

    fn now(&self) -> Duration {
        self.state.lock().unwrap().now
    }
}

impl VirtualClock {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap();
        state.now += by;
        Self::wake(state);
    }

    /// Moves to the next moment that somebody sleeps until; `false` if nobody sleeps.
    pub(crate) fn advance_to_next(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let Some((&(until, _), _)) = state.sleepers.first_key_value() else { return false };
        state.now = state.now.max(until);
        Self::wake(state);
        true
    }

    fn wake(mut state: std::sync::MutexGuard<'_, Timers>) {
        let now = state.now;
        let later = state.sleepers.split_off(&(now + Duration::from_nanos(1), 0));
        let woken = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    pub(crate) fn sleepers(&self) -> usize {
        self.state.lock().unwrap().sleepers.len()
    }

    pub(crate) fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        Sleep { until: (state.now + time, state.next), clock: Arc::clone(self) }
    }
}

pub(crate) struct Sleep {
    until: (Duration, u64),
    clock: Arc<VirtualClock>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state.lock().unwrap();
        if state.now >= self.until.0 {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.until, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.state.lock().unwrap().sleepers.remove(&self.until);
    }
}

/// A raw key behind a slow line.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) inner: Arc<dyn KeyProvider>,
    pub(crate) clock: Arc<VirtualClock>,
    /// How long a call takes, in steps between which it may be cancelled.
    pub(crate) step: Duration,
    pub(crate) steps: usize,
    pub(crate) identity: Option<ProviderIdentity>,
    pub(crate) revocations: Option<Revocations>,
    pub(crate) generates: AtomicUsize,
    pub(crate) decrypts: AtomicUsize,
    /// Slots that were another's.
    pub(crate) disowned: AtomicUsize,
    pub(crate) failures: AtomicUsize,
    /// So many calls fail, from now on.
    pub(crate) failing: AtomicUsize,
    /// Of what kind failures are.
    pub(crate) kind: Mutex<ErrorKind>,
    /// So many callers are cancelled, each at a step of a call that it drives, after the first one.
    pub(crate) cancelling: AtomicUsize,
    pub(crate) doomed: Arc<Doomed>,
}

impl Remote {
    pub(crate) fn new(clock: &Arc<VirtualClock>) -> Self {
        Self {
            inner: raw("remote", 7),
            clock: Arc::clone(clock),
            step: Duration::from_millis(25),
            steps: 4,
            identity: None,
            revocations: None,
            generates: AtomicUsize::new(0),
            decrypts: AtomicUsize::new(0),
            disowned: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            failing: AtomicUsize::new(0),
            kind: Mutex::new(ErrorKind::Unavailable),
            cancelling: AtomicUsize::new(0),
            doomed: Arc::default(),
        }
    }

    /// Answers at once.
    pub(crate) fn quick(clock: &Arc<VirtualClock>) -> Self {
        Self { steps: 0, ..Self::new(clock) }
    }

    /// How long a call takes.
    pub(crate) fn latency(&self) -> Duration {
        self.step * u32::try_from(self.steps).unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.generates.load(Ordering::SeqCst) + self.decrypts.load(Ordering::SeqCst)
    }

    /// Fails the next `count` calls.
    pub(crate) fn fail(&self, count: usize, kind: ErrorKind) {
        *self.kind.lock().unwrap() = kind;
        self.failing.store(count, Ordering::SeqCst);
    }

    async fn travel(&self) -> Result<()> {
        for step in 0..self.steps {
            if step > 0 && take_one(&self.cancelling).is_some() {
                self.doomed.doom_current();
            }
            self.clock.sleep(self.step).await;
        }
        if take_one(&self.failing).is_some() {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(*self.kind.lock().unwrap(), "on purpose"));
        }
        Ok(())
    }
}

fn take_one(from: &AtomicUsize) -> Option<usize> {
    from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()
}

#[async_trait]
impl KeyProvider for Remote {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.generates.fetch_add(1, Ordering::SeqCst);
        self.travel().await?;
        self.inner.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        if take_one(&self.failing).is_some() {
            return Err(Error::new(*self.kind.lock().unwrap(), "on purpose"));
        }
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        if slot.key_id() != b"remote" {
            self.disowned.fetch_add(1, Ordering::SeqCst);
            return DataKeyAnswer::NotMine;
        }
        self.decrypts.fetch_add(1, Ordering::SeqCst);
        match self.travel().await {
            Ok(()) => self.inner.decrypt_data_key(slot, context).await,
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        self.identity.clone()
    }

    fn revocations(&self) -> Option<Revocations> {
        self.revocations.clone()
    }
}

/// Callers to be cancelled where they wait.
#[derive(Debug, Default)]
pub(crate) struct Doomed {
    numbers: Mutex<HashSet<usize>>,
}

thread_local! {
    static POLLED: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Doomed {
    /// Dooms whoever is being polled.
    fn doom_current(&self) {
        if let Some(number) = POLLED.get() {
            self.numbers.lock().unwrap().insert(number);
        }
    }
}

/// A caller with a number, which ends with `None` where it is cancelled.
pub(crate) struct Caller<F> {
    pub(crate) number: usize,
    pub(crate) doomed: Arc<Doomed>,
    pub(crate) inner: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Caller<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.number;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        POLLED.set(Some(number));
        let polled = inner.as_mut().poll(cx);
        POLLED.set(None);
        match polled {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.doomed.numbers.lock().unwrap().remove(&number) => {
                // Dropped where it waits.
                self.inner = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
