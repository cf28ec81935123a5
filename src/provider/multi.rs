//! Several providers at once: all must wrap, or k of n.

use crate::context::KmsContext;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::at_once::{AtOnce, Call};
use crate::provider::patience::Patience;
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use async_trait::async_trait;
use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// Several providers, each of which alone can open what is encrypted under them.
///
/// Writing wraps the data key for every member. With [`all`](Self::all) one member that fails fails
/// the whole; with [`at_least`](Self::at_least) k of them must succeed, and a member that fails, in
/// whatever way, is recorded in the message as missing, so that `inspect` names it and a later rewrap can
/// fill it.
#[derive(Debug)]
pub struct MultiProvider {
    members: Vec<Arc<dyn KeyProvider>>,
    needed: usize,
    /// How long those that are not needed are waited for.
    pub(super) grace: Option<Arc<dyn Patience>>,
    /// `None` if no member has any.
    revocations: Option<Revocations>,
}

impl MultiProvider {
    /// Every member must wrap.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) without members, or if two of them write the
    /// same recipient (a message has one passphrase slot at most).
    pub fn all(members: Vec<Arc<dyn KeyProvider>>) -> Result<Self> {
        let needed = members.len();
        Self::at_least(needed, members)
    }

    /// At least `needed` of the members must wrap.
    ///
    /// One that is out of reach is waited for as long as its own policy lets it take, which is 30 s for those across a
    /// network: give it less (`HttpPolicy::total`), or the others a grace (`with_grace`, feature `http`).
    ///
    /// # Errors
    /// As [`all`](Self::all), and if `needed` is zero or more than there are members.
    pub fn at_least(needed: usize, members: Vec<Arc<dyn KeyProvider>>) -> Result<Self> {
        if needed == 0 || needed > members.len() {
            return Err(Error::invalid_input(format!("{needed} of {} key providers cannot be met", members.len())));
        }
        let mut seen = HashSet::new();
        for recipient in members.iter().flat_map(|member| member.recipients()) {
            let name = recipient.to_string();
            if !seen.insert(recipient) {
                return Err(Error::invalid_input(format!("two key providers write the same recipient {name}")));
            }
        }
        let parts: Vec<_> = members.iter().filter_map(|member| member.revocations()).collect();
        let revocations = (!parts.is_empty()).then(|| Revocations::of_any(parts));
        Ok(Self { members, needed, grace: None, revocations })
    }

    /// One slot for each recipient: a wrapped key, or the record that it is missing. The members are asked at the same
    /// time, so that one that is out of reach does not add its time to that of another.
    async fn wrap(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        let mut calls = AtOnce::new();
        for (number, member) in self.members.iter().enumerate() {
            calls.push(number, Box::pin(encrypted(&**member, key, context)));
        }
        let answers = self.gathered(calls).await?;
        let mut slots = Vec::new();
        let mut failures = Vec::new();
        for (member, answer) in self.members.iter().zip(answers) {
            match answer {
                Some(Ok(encrypted)) => slots.extend(encrypted),
                other => {
                    let missing = member.recipients();
                    slots.extend(missing.into_iter().map(|it| EncryptedDataKey::missing(it.provider, it.key_id)));
                    failures.extend(other.and_then(Result::err).map(|error| (name(&**member), error)));
                }
            }
        }
        let (all, failed) = (self.members.len(), failures.len());
        if failed <= all - self.needed {
            return Ok(slots);
        }
        let reached = all - failed;
        let what = format!("{reached} of {all} key providers encrypted the data key, and {} must", self.needed);
        Err(summed_up(&what, failures))
    }

    /// The members' answers in their order; `None` of those that had not answered when the grace was over.
    ///
    /// # Errors
    /// That of a member which is no outage, if too few are left then: the others are cancelled.
    async fn gathered(&self, mut calls: AtOnce<'_, Wrapped>) -> Result<Vec<Option<Wrapped>>> {
        let mut answers: Vec<Option<Wrapped>> = self.members.iter().map(|_| None).collect();
        let (mut reached, mut failed) = (0, 0);
        let mut grace: Option<Call<'_, ()>> = None;
        while !calls.is_empty() {
            let ended = poll_fn(|context| {
                if let Poll::Ready(ended) = calls.poll(context) {
                    return Poll::Ready(Some(ended));
                }
                match grace.as_mut().map(|grace| grace.as_mut().poll(context)) {
                    Some(Poll::Ready(())) => Poll::Ready(None),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            });
            let Some((number, answer)) = ended.await else { break };
            match &answer {
                Ok(_) => reached += 1,
                Err(_) => failed += 1,
            }
            match answer {
                Err(error) if failed > self.members.len() - self.needed && !is_outage(&error) => return Err(error),
                answer => answers[number] = Some(answer),
            }
            if reached == self.needed && grace.is_none() {
                grace = self.grace.as_ref().map(|grace| grace.wait());
            }
        }
        Ok(answers)
    }
}

/// What a member made of a data key.
type Wrapped = Result<Vec<EncryptedDataKey>>;

#[async_trait]
impl KeyProvider for MultiProvider {
    fn recipients(&self) -> Vec<Recipient> {
        self.members.iter().flat_map(|member| member.recipients()).collect()
    }

    fn alternatives(&self) -> Vec<Vec<Recipient>> {
        self.members.iter().flat_map(|member| member.alternatives()).collect()
    }

    /// The data key is made here and wrapped by each member, so that no member's outage stops it.
    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let key = DataKey::try_init(length, crypto::random::fill)?;
        let encrypted = self.wrap(&key, context).await?;
        Ok(GeneratedDataKey { key, encrypted })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.wrap(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let mut failure = None;
        for member in &self.members {
            match member.decrypt_data_key(slot, context).await {
                DataKeyAnswer::Key(key) => return DataKeyAnswer::Key(key),
                DataKeyAnswer::Failed(error) => failure = more_retryable(failure, error),
                DataKeyAnswer::NotMine => {}
            }
        }
        failure.map_or(DataKeyAnswer::NotMine, DataKeyAnswer::Failed)
    }

    /// Only where every member re-encrypts inside its KMS; else the wrap must be opened.
    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let mut slots = Vec::new();
        for member in &self.members {
            match member.re_encrypt_data_key(slot, context).await? {
                Some(encrypted) => slots.extend(encrypted),
                None => return Ok(None),
            }
        }
        Ok(Some(slots))
    }

    /// Moves when any member's does. A member that cannot tell adds nothing.
    fn revocations(&self) -> Option<Revocations> {
        self.revocations.clone()
    }

    /// How many must wrap, and every member's identity in order, each with its length before it: none
    /// where one member has none.
    fn identity(&self) -> Option<ProviderIdentity> {
        let mut text = format!("{} of {}", self.needed, self.members.len());
        for member in &self.members {
            let identity = member.identity()?;
            text.push_str(&format!(" {}:{}", identity.as_str().len(), identity.as_str()));
        }
        Some(ProviderIdentity::new(text))
    }
}

/// What `member` makes of a data key: slots, one of which at least holds it.
async fn encrypted(member: &dyn KeyProvider, key: &DataKey, context: &KmsContext) -> Wrapped {
    let encrypted = member.encrypt_data_key(key, context).await?;
    holds_a_key(member, &encrypted).map(|()| encrypted)
}

/// # Errors
/// Kind Internal if all that `member` wrote are records of missing recipients, or nothing.
pub(super) fn holds_a_key(member: &dyn KeyProvider, encrypted: &[EncryptedDataKey]) -> Result<()> {
    match encrypted.iter().all(EncryptedDataKey::is_missing) {
        true => Err(Error::internal(format!("the key provider of {} answered without an encrypted key", name(member)))),
        false => Ok(()),
    }
}

/// A member by the first of its recipients.
pub(super) fn name(member: &dyn KeyProvider) -> String {
    member.recipients().first().map(ToString::to_string).unwrap_or_default()
}

/// Whether a member's failure is its KMS's state rather than a mistake in the call.
pub(crate) fn is_outage(error: &Error) -> bool {
    error.is_retryable() || matches!(error.kind(), ErrorKind::KeyDenied | ErrorKind::KeyState)
}

/// One error of several members' (at least one): it names each, and is otherwise the one to report.
pub(super) fn summed_up(what: &str, failures: Vec<(String, Error)>) -> Error {
    let each: Vec<_> = failures.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    let worst = failures.into_iter().fold(None, |worst, (_, error)| more_retryable(worst, error));
    let message = format!("{what}: {}", each.join("; "));
    worst.map_or_else(|| Error::internal(what), |error| error.behind(message))
}

/// Keeps the error to report: "the provider's own kind if it could not answer, else authentication
/// failed, the most retryable kind winning".
pub(crate) fn more_retryable(before: Option<Error>, error: Error) -> Option<Error> {
    let rank = |error: &Error| match error.kind() {
        _ if error.is_retryable() => 2,
        ErrorKind::AuthenticationFailed => 0,
        _ => 1,
    };
    match before {
        Some(before) if rank(&before) >= rank(&error) => Some(before),
        _ => Some(error),
    }
}
