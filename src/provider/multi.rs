//! Several providers at once: all must wrap, or k of n.

use crate::context::KmsContext;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::at_once::AtOnce;
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use async_trait::async_trait;
use std::collections::HashSet;
use std::sync::Arc;

/// Several providers, each of which alone can open what is encrypted under them.
///
/// Writing wraps the data key for every member. With [`all`](Self::all) one member that fails fails
/// the whole; with [`at_least`](Self::at_least) k of them must succeed, and a member that fails is
/// recorded in the message as missing, so that `inspect` names it and a later rewrap can fill it.
#[derive(Debug)]
pub struct MultiProvider {
    members: Vec<Arc<dyn KeyProvider>>,
    needed: usize,
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
        Ok(Self { members, needed, revocations })
    }

    /// One slot for each recipient: a wrapped key, or the record that it is missing. The members are asked at the same
    /// time, so that one that is out of reach does not add its time to that of another.
    async fn wrap(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        let mut calls = AtOnce::new();
        for (number, member) in self.members.iter().enumerate() {
            calls.push(number, Box::pin(encrypted(&**member, key, context)));
        }
        let mut slots = Vec::new();
        let mut failures = Vec::new();
        for (member, answer) in self.members.iter().zip(calls.all().await?) {
            match answer {
                Ok(encrypted) => slots.extend(encrypted),
                Err(error) => {
                    let missing = member.recipients();
                    slots.extend(missing.into_iter().map(|it| EncryptedDataKey::missing(it.provider, it.key_id)));
                    failures.push((name(&**member), error));
                }
            }
        }
        let (all, reached) = (self.members.len(), self.members.len() - failures.len());
        if reached >= self.needed {
            return Ok(slots);
        }
        let what = format!("{reached} of {all} key providers encrypted the data key, and {} must", self.needed);
        Err(summed_up(&what, failures))
    }
}

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

/// What `member` makes of a data key: slots, one of which at least holds it, or an outage of its own.
///
/// # Errors
/// What no other member's answer makes good.
pub(super) async fn encrypted(
    member: &dyn KeyProvider,
    key: &DataKey,
    context: &KmsContext,
) -> Result<Result<Vec<EncryptedDataKey>>> {
    match member.encrypt_data_key(key, context).await {
        Ok(encrypted) => {
            holds_a_key(member, &encrypted)?;
            Ok(Ok(encrypted))
        }
        Err(error) if is_outage(&error) => Ok(Err(error)),
        Err(error) => Err(error),
    }
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
