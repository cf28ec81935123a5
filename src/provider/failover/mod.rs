//! Several providers for one purpose: one that works is enough, and which is asked first is a matter of policy.

mod pace;
mod run;

use self::pace::Paces;
use self::run::{Said, Task};
use crate::clock::{Clock, SystemClock};
use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::multi::holds_a_key;
use crate::provider::patience::Patience;
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use async_trait::async_trait;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Several providers that stand for the same purpose: a multi-Region key in two Regions, or a KMS and another that stands
/// by.
///
/// **Writing**: the first that works encrypts the data key, and a message has its slots only, so that only it opens the
/// message. Where each message must open after one of them is lost for good, use
/// [`MultiProvider`](crate::MultiProvider), or members that are one key in several places.
/// **Reading**: each member is asked whose slot it is, until one opens it. A slot that one Region's key wrote is opened by
/// the member of another Region, if both are replicas of one multi-Region key.
///
/// The next member is asked whatever kept one from doing it: it is out of reach, it refuses its key or has it no more, or
/// what it answers is wrong. A mistake in the call is one at each member, and their answers are told together. After
/// AWS's `ThrottlingException`, members of the same account and Region are passed over: they share what is used up.
///
/// How long a member may take is its own policy (`HttpPolicy`, of those across a network), and so is the circuit breaker
/// that makes a dead one fail at once.
///
/// ```
/// use envelock::{Envelope, EncryptionContext, FailoverProvider, KeyProvider, RawKeyProvider, blocking};
/// use std::sync::Arc;
/// # fn main() -> Result<(), envelock::Error> {
/// let primary: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("orders-primary")?);
/// let standby: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("orders-standby")?);
/// let envelope = Envelope::builder(FailoverProvider::in_order(vec![primary, standby])?).build()?;
/// let context = EncryptionContext::from([("tenant", "acme")]);
/// # pollster::block_on(async {
/// let sealed = envelope.encrypt(b"attack at dawn", &context).await?;
/// assert_eq!(envelope.decrypt(&sealed, &context).await?, b"attack at dawn");
/// # Ok(())
/// # })
/// # }
/// ```
pub struct FailoverProvider {
    members: Vec<Arc<dyn KeyProvider>>,
    order: Order,
    clock: Arc<dyn Clock>,
    /// When the next member is asked though the one before has not answered.
    pub(super) hedge: Option<Arc<dyn Patience>>,
    /// `None` if no member has any.
    revocations: Option<Revocations>,
}

/// Which member is asked first.
#[derive(Debug)]
enum Order {
    Listed,
    Nearest(Paces),
}

impl FailoverProvider {
    /// The members in this order: the first is asked first, each time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) without members.
    pub fn in_order(members: Vec<Arc<dyn KeyProvider>>) -> Result<Self> {
        Self::new(members, Order::Listed)
    }

    /// The members by how fast they answered: the nearest first.
    ///
    /// Each starts as unknown, and is tried once. What was measured loses half of its weight every 10 s in which it is not
    /// measured again, so that one that was slow or had failed is tried again, by one call, after a while: a
    /// failure counts as a second and doubles up to a minute, so that a member that recovers is found within two minutes
    /// of use where the other takes 20 ms.
    ///
    /// # Errors
    /// As [`in_order`](Self::in_order).
    pub fn nearest(members: Vec<Arc<dyn KeyProvider>>) -> Result<Self> {
        let paces = Paces::new(members.len());
        Self::new(members, Order::Nearest(paces))
    }

    fn new(members: Vec<Arc<dyn KeyProvider>>, order: Order) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::invalid_input("failover needs a key provider").with_advice("give one at least"));
        }
        let parts: Vec<_> = members.iter().filter_map(|member| member.revocations()).collect();
        let revocations = (!parts.is_empty()).then(|| Revocations::of_any(parts));
        Ok(Self { members, order, clock: Arc::new(SystemClock), hedge: None, revocations })
    }

    /// The same, measuring by another clock: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

#[async_trait]
impl KeyProvider for FailoverProvider {
    /// Those of every member, each once. A message has one member's only.
    fn recipients(&self) -> Vec<Recipient> {
        let mut seen = HashSet::new();
        let all = self.members.iter().flat_map(|member| member.recipients());
        all.filter(|recipient| seen.insert(recipient.clone())).collect()
    }

    /// A message has one member's.
    fn alternatives(&self) -> Vec<Vec<Recipient>> {
        vec![self.recipients()]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let said = self.first(Task::Generate, |member| {
            Box::pin(async move {
                let made = member.generate_data_key(length, context).await;
                Said::of(made.and_then(|made| holds_a_key(member, &made.encrypted).map(|()| made)))
            })
        });
        said.await.written()
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        let said = self.first(Task::Encrypt, |member| {
            Box::pin(async move {
                let made = member.encrypt_data_key(key, context).await;
                Said::of(made.and_then(|encrypted| holds_a_key(member, &encrypted).map(|()| encrypted)))
            })
        });
        said.await.written()
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let said = self.first(Task::Decrypt, |member| {
            Box::pin(async move {
                match member.decrypt_data_key(slot, context).await {
                    DataKeyAnswer::Key(key) => Said::Answer(key),
                    DataKeyAnswer::Failed(error) => Said::Failed(error),
                    DataKeyAnswer::NotMine => Said::NotMine,
                }
            })
        });
        match said.await {
            Said::Answer(key) => DataKeyAnswer::Key(key),
            Said::Failed(error) => DataKeyAnswer::Failed(error),
            Said::NotMine => DataKeyAnswer::NotMine,
        }
    }

    /// By the first member that can: under its key, whichever member's it was before.
    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let said = self.first(Task::ReEncrypt, |member| {
            Box::pin(async move {
                match member.re_encrypt_data_key(slot, context).await {
                    Ok(Some(encrypted)) => Said::Answer(encrypted),
                    Ok(None) => Said::NotMine,
                    Err(error) => Said::Failed(error),
                }
            })
        });
        match said.await {
            Said::Answer(encrypted) => Ok(Some(encrypted)),
            Said::Failed(error) => Err(error),
            Said::NotMine => Ok(None),
        }
    }

    /// Moves when any member's does. A member that cannot tell adds nothing.
    fn revocations(&self) -> Option<Revocations> {
        self.revocations.clone()
    }

    /// Every member's identity, each with its length before it, in any order: none where one member has none.
    fn identity(&self) -> Option<ProviderIdentity> {
        let all: Option<Vec<_>> = self.members.iter().map(|member| member.identity()).collect();
        let mut all = all?;
        all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        let each = all.iter().map(|identity| format!(" {}:{}", identity.as_str().len(), identity.as_str()));
        Some(ProviderIdentity::new(format!("one of {}{}", all.len(), each.collect::<String>())))
    }
}

impl fmt::Debug for FailoverProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, order, hedge, .. } = self;
        f.debug_struct("FailoverProvider")
            .field("members", members)
            .field("order", order)
            .field("hedged", &hedge.is_some())
            .finish_non_exhaustive()
    }
}
