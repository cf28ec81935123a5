//! One envelope's way into a cache: its tenant, its provider, and the calls that are made for it.

use crate::cache::accounts::{Account, Counters};
use crate::cache::call::Ride;
use crate::cache::flight::{Caller, Lead, Look, Old, Turn, Way};
use crate::cache::handed::{ReadingAnswer, ReadingKey, WritingKey};
use crate::cache::held::{Age, Epoch, Held, Left, Life, Need, Taken, Usage};
use crate::cache::key::{Partition, Probe, ProviderKey};
use crate::cache::{Cause, DataKeyCache, Failure, Happened, Slot, background};
use crate::clock::Clock;
use crate::context::KmsContext;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, KeyProvider, Revocations};
use futures_channel::oneshot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A cache as one tenant's envelope uses it.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    cache: DataKeyCache,
    provider: Arc<dyn KeyProvider>,
    revocations: Option<Revocations>,
    partition: Arc<Partition>,
    account: Arc<Account>,
}

impl Binding {
    /// Of an envelope without a tenant. A provider without an identity is one of its own here.
    pub(crate) fn new(cache: DataKeyCache, provider: Arc<dyn KeyProvider>) -> Self {
        let key = match provider.identity() {
            Some(identity) => ProviderKey::Identity(identity),
            None => ProviderKey::Own(cache.inner.nameless.fetch_add(1, Ordering::Relaxed) + 1),
        };
        let (partition, account) = cache.inner.accounts.of(Partition::new(None, key, &cache.inner.hasher));
        let revocations = provider.revocations();
        Self { cache, provider, revocations, partition, account }
    }

    pub(crate) fn for_tenant(&self, tenant: &str) -> Self {
        let inner = &self.cache.inner;
        let partition = Partition::new(Some(tenant), self.partition.provider.clone(), &inner.hasher);
        let (partition, account) = inner.accounts.of(partition);
        Self { partition, account, ..self.clone() }
    }

    pub(crate) fn cache(&self) -> &DataKeyCache {
        &self.cache
    }

    /// A data key for something new that is bound to `kms` and will take `need` of it.
    ///
    /// # Errors
    /// The provider's own, perhaps from a call that another caller made.
    pub(crate) async fn writing_key(&self, kms: &KmsContext, need: Need) -> Result<WritingKey> {
        let counters = &self.account.encrypt;
        if let Some(bytes) = need.whole().filter(|bytes| *bytes > self.cache.inner.limits.bytes) {
            // Not even a fresh key may take that and something else.
            bump(&counters.misses);
            let generated = self.provider.generate_data_key(DataKeyLength::Bytes32, kms).await;
            counters.bytes.fetch_add(if generated.is_ok() { bytes } else { 0 }, Ordering::Relaxed);
            return generated.map(WritingKey::Own).inspect_err(|_| bump(&counters.failures));
        }
        let slot = self.cache.slot(Probe { partition: &self.partition, slot: None, kms }, &self.account);
        let writer = Writer { clock: &*self.cache.inner.clock, need };
        match slot.flight.turn(&writer).await {
            Turn::Use(used, way) => {
                counters.served(way);
                Ok(used)
            }
            Turn::Renew(used, lead) => match self.renew(&slot, lead).await {
                Ok(()) => {
                    bump(&counters.hits);
                    Ok(used)
                }
                Err(refusal) => Err(refusal.error()),
            },
            Turn::Lead(lead) => match self.call(&slot, lead, Why::Miss, move |held| take(held, need)).await {
                Ok(Some((used, _))) => Ok(used),
                Ok(None) => Err(Error::internal("a fresh data key takes what its limits allow")),
                Err(failure) => Err(failure.error()),
            },
            Turn::Failed(failure) => Err(failure.error()),
        }
    }

    /// The data key of `encrypted`, bound to `kms`.
    pub(crate) async fn reading_key(&self, encrypted: &EncryptedDataKey, kms: &KmsContext) -> ReadingAnswer {
        let counters = &self.account.decrypt;
        let probe = Probe { partition: &self.partition, slot: Some(encrypted), kms };
        let Some(slot) = self.cache.slot_to_read(probe, &self.account) else { return ReadingAnswer::NotMine };
        let reader = Reader { clock: &*self.cache.inner.clock };
        let failure = match slot.flight.turn(&reader).await {
            Turn::Use(held, way) => {
                counters.served(way);
                return ReadingAnswer::Key(ReadingKey::Cached(held));
            }
            Turn::Renew(held, lead) => match self.renew(&slot, lead).await {
                Ok(()) => {
                    bump(&counters.hits);
                    return ReadingAnswer::Key(ReadingKey::Cached(held));
                }
                Err(refusal) => refusal,
            },
            Turn::Lead(lead) => match self.call(&slot, lead, Why::Miss, Arc::clone).await {
                Ok(held) => return ReadingAnswer::Key(held.into()),
                Err(failure) => failure,
            },
            Turn::Failed(failure) => failure,
        };
        match failure.cause {
            Cause::NotMine => ReadingAnswer::NotMine,
            Cause::Error(error) => match self.graced(&slot, &error) {
                Some(held) => {
                    bump(&counters.graces);
                    slot.tell(Happened::Graced);
                    ReadingAnswer::Key(held.into())
                }
                None => ReadingAnswer::Failed(error.again()),
            },
        }
    }

    /// What serves while the provider is out of reach.
    fn graced(&self, slot: &Slot, error: &Error) -> Option<Arc<Held>> {
        if error.kind() != ErrorKind::Unavailable {
            return None;
        }
        let now = self.cache.inner.clock.now();
        slot.flight.peek(|held| (held.age(now) != Age::Over).then(|| Arc::clone(held)))
    }

    /// Renews an entry in the background, or here and now if there is none.
    ///
    /// # Errors
    /// A refusal that is known by then: the old data key is not to be used any more. Whatever else a renewal
    /// fails with concerns whoever finds the entry over.
    async fn renew(&self, slot: &Arc<Slot>, lead: Lead<Arc<Held>, Failure>) -> Result<(), Failure> {
        let (mut answer, ride) = self.share(slot, lead, Why::Renewal, |_| ());
        if let Some(ride) = background::start(Box::pin(ride)) {
            ride.await;
        }
        match answer.try_recv() {
            Ok(Some(Err(failure))) if failure.refuses() => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes the call for an entry, unless others who wait for it do. `first` takes from what it brings before
    /// anybody else does.
    async fn call<T: Send + 'static>(
        &self,
        slot: &Arc<Slot>,
        lead: Lead<Arc<Held>, Failure>,
        why: Why,
        first: impl FnOnce(&Arc<Held>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (mut answer, ride) = self.share(slot, lead, why, first);
        ride.await;
        match answer.try_recv() {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(self.failure(Error::internal("the call for a data key was given up").into())),
        }
    }

    /// Begins the call for an entry: it is driven by all who wait for it.
    fn share<T: Send + 'static>(
        &self,
        slot: &Arc<Slot>,
        lead: Lead<Arc<Held>, Failure>,
        why: Why,
        first: impl FnOnce(&Arc<Held>) -> T + Send + 'static,
    ) -> (oneshot::Receiver<Result<T, Failure>>, Ride) {
        let (sender, answer) = oneshot::channel();
        let (this, slot) = (self.clone(), Arc::clone(slot));
        let ride = lead.share(|lead| Box::pin(async move { this.make(&slot, lead, why, first, sender).await }));
        (answer, ride)
    }

    async fn make<T>(
        &self,
        slot: &Arc<Slot>,
        lead: Lead<Arc<Held>, Failure>,
        why: Why,
        first: impl FnOnce(&Arc<Held>) -> T,
        sender: oneshot::Sender<Result<T, Failure>>,
    ) {
        let (counter, happened) = match why {
            Why::Miss => (&slot.counters().misses, Happened::Fetched),
            Why::Renewal => (&slot.counters().renewals, Happened::Renewed),
        };
        bump(counter);
        // Before the provider is asked: what it revokes meanwhile counts as later.
        let asked = (self.cache.inner.clock.now(), Epoch::now(self.revocations.as_ref()));
        let answer = match &slot.key.slot {
            None => self.generate(&slot.key.kms, asked.clone()).await,
            Some(encrypted) => self.decrypt(encrypted, &slot.key.kms, asked.clone()).await,
        };
        match answer {
            Ok(held) => {
                let held = Arc::new(held);
                // Whoever began it may have left: then nothing is taken from the key.
                if !sender.is_canceled() {
                    let _ = sender.send(Ok(first(&held)));
                }
                lead.complete(held);
                slot.tell(happened);
            }
            Err(cause) => {
                let failure = self.failure(cause);
                lead.fail(failure.clone(), if failure.refuses() { Old::Drop } else { Old::Keep });
                match &failure.cause {
                    Cause::Error(error) => {
                        bump(&slot.counters().failures);
                        slot.tell(Happened::Failed(error));
                        // What a stranger made up keeps no place, though its call had one.
                        if error.kind() == ErrorKind::AuthenticationFailed {
                            self.cache.forget(slot);
                        }
                    }
                    Cause::NotMine => self.cache.disown(slot, asked.0, asked.1),
                }
                let _ = sender.send(Err(failure));
            }
        }
        self.cache.sweep();
    }

    /// A failure that answers for a while.
    fn failure(&self, cause: Cause) -> Failure {
        let wait = BACK_OFF.mul_f64(0.5 + random_part());
        Failure { cause, until: self.cache.inner.clock.now().saturating_add(wait) }
    }

    async fn generate(&self, kms: &KmsContext, asked: (Duration, Epoch)) -> Result<Held, Cause> {
        match self.provider.generate_data_key(DataKeyLength::Bytes32, kms).await {
            Ok(generated) if generated.key.expose().len() == DataKeyLength::Bytes32.bytes() => {
                Ok(self.held(asked, &generated.key, generated.encrypted, Duration::ZERO))
            }
            Ok(_) => Err(Error::invalid_input("a native message takes a data key of 32 bytes").into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn decrypt(
        &self,
        encrypted: &EncryptedDataKey,
        kms: &KmsContext,
        asked: (Duration, Epoch),
    ) -> Result<Held, Cause> {
        match self.provider.decrypt_data_key(encrypted, kms).await {
            DataKeyAnswer::Key(key) if key.expose().len() == DataKeyLength::Bytes32.bytes() => {
                Ok(self.held(asked, &key, Vec::new(), self.cache.inner.limits.grace))
            }
            DataKeyAnswer::Key(_) => Err(Error::authentication().into()),
            DataKeyAnswer::Failed(error) => Err(error.into()),
            DataKeyAnswer::NotMine => Err(Cause::NotMine),
        }
    }

    fn held(
        &self,
        (asked, epoch): (Duration, Epoch),
        key: &DataKey,
        slots: Vec<EncryptedDataKey>,
        grace: Duration,
    ) -> Held {
        let (limits, jitter) = (&self.cache.inner.limits, random_part());
        let mut life = Life::new(asked, limits.age, grace, jitter);
        if slots.iter().any(EncryptedDataKey::is_missing) {
            life = life.renewed_by(asked.saturating_add(MISSING_FOR.mul_f64(0.5 + random_part())));
        }
        Held::new(key, slots, Usage::new(limits, Arc::clone(&self.account), jitter), life, epoch)
    }
}

/// Why a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Miss,
    Renewal,
}

/// Takes a message's share of a data key.
struct Writer<'a> {
    clock: &'a dyn Clock,
    need: Need,
}

fn take(held: &Arc<Held>, need: Need) -> Option<(WritingKey, Left)> {
    let Taken { grant, left } = held.take(need)?;
    Some((WritingKey::Cached { held: Arc::clone(held), grant }, left))
}

impl Caller<Arc<Held>, Failure> for Writer<'_> {
    type Use = WritingKey;

    fn look(&self, held: &Arc<Held>) -> Look<WritingKey> {
        let age = held.age(self.clock.now());
        match age {
            Age::Fresh | Age::Ageing => {}
            Age::Grace | Age::Over => return Look::Useless,
        }
        match take(held, self.need) {
            Some((taken, left)) if age == Age::Ageing || left == Left::Little => Look::UseAndRenew(taken),
            Some((taken, _)) => Look::Use(taken),
            None => Look::Useless,
        }
    }

    fn stands(&self, failure: &Failure) -> bool {
        failure.stands(self.clock)
    }
}

struct Reader<'a> {
    clock: &'a dyn Clock,
}

impl Caller<Arc<Held>, Failure> for Reader<'_> {
    type Use = Arc<Held>;

    fn look(&self, held: &Arc<Held>) -> Look<Arc<Held>> {
        match held.age(self.clock.now()) {
            Age::Fresh => Look::Use(Arc::clone(held)),
            Age::Ageing => Look::UseAndRenew(Arc::clone(held)),
            Age::Grace | Age::Over => Look::Useless,
        }
    }

    fn stands(&self, failure: &Failure) -> bool {
        failure.stands(self.clock)
    }
}

impl Failure {
    fn stands(&self, clock: &dyn Clock) -> bool {
        clock.now() < self.until
    }

    /// Whether the provider means that the key is not to be used, rather than that it could not tell.
    fn refuses(&self) -> bool {
        match &self.cause {
            Cause::Error(error) => {
                !error.is_retryable()
                    && !matches!(error.kind(), ErrorKind::Io | ErrorKind::Storage | ErrorKind::Internal)
            }
            Cause::NotMine => true,
        }
    }

    fn error(&self) -> Error {
        match &self.cause {
            Cause::Error(error) => error.again(),
            Cause::NotMine => Error::internal("a provider disowned a data key that it was to make"),
        }
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Error(Arc::new(error))
    }
}

impl From<Arc<Held>> for ReadingKey {
    fn from(held: Arc<Held>) -> Self {
        Self::Cached(held)
    }
}

impl Counters {
    fn served(&self, way: Way) {
        bump(match way {
            Way::Hit => &self.hits,
            Way::Wait => &self.waits,
        });
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// From 0 to 1; the middle where the system has no random bytes, which the next message reports.
fn random_part() -> f64 {
    let mut bytes = [0; 4];
    match crypto::random::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// How long the failure of a call answers for others: half of this to one and a half times.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long a data key serves that one of several providers did not encrypt, before it is renewed: half of
/// this to one and a half times.
const MISSING_FOR: Duration = Duration::from_secs(5);
