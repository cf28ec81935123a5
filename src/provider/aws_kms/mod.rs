//! AWS KMS as key provider.
//!
//! In slots, the provider's name is `aws-kms`, the key id the ARN of the key that the KMS answered with, never an alias, and
//! the wrapped key AWS's ciphertext blob. The KMS context is the EncryptionContext.

mod arn;
pub(crate) mod builder;
mod call;
mod caller;
mod chain;
pub(crate) mod credentials;
mod errors;
mod keys;
mod profile;
mod region;
mod renewal;
pub(crate) mod source;
mod surroundings;
#[cfg(test)]
mod tests;
mod wire;

use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use arn::KeyArn;
use async_trait::async_trait;
use builder::AwsKmsBuilder;
use call::Regional;
use keys::Keys;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Keys in AWS KMS.
///
/// It writes a slot for each key of its list, and opens slots of exactly those keys, of the same multi-Region keys in other
/// Regions, and of the keys of [`also_opens`](AwsKmsBuilder::also_opens). The KMS is told which key it shall decrypt with,
/// and an answer about another key, or of another length, is refused. All keys must be reached to write, as with AWS's own
/// Encryption SDK; for writing on while one of them is not, make a provider of each and put them into a
/// [`MultiProvider`](crate::MultiProvider).
///
/// docs/aws-kms.md tells how to begin, which permissions are needed, and what each error asks for.
///
/// ```no_run
/// use envelock::{AwsKmsProvider, EncryptionContext, Envelope};
/// # async fn example() -> Result<(), envelock::Error> {
/// let provider = AwsKmsProvider::strict(["arn:aws:kms:eu-central-1:111122223333:alias/app"]).connect().await?;
/// let envelope = Envelope::builder(provider).build()?;
/// let context = EncryptionContext::from([("tenant", "acme")]);
/// let sealed = envelope.encrypt(b"attack at dawn", &context).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AwsKmsProvider {
    keys: Keys,
    /// By partition and Region.
    regions: BTreeMap<(String, String), Regional>,
    revocations: Revocations,
    /// When each key was found to be revoked last.
    revoked: Mutex<BTreeMap<String, Instant>>,
    identity: ProviderIdentity,
}

impl AwsKmsProvider {
    /// A provider on these keys, each named by its ARN, by an alias's ARN, or, in a Region that follows from elsewhere, by
    /// `alias/NAME` or a key id. The first makes data keys, and every one wraps them.
    pub fn strict<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> AwsKmsBuilder {
        AwsKmsBuilder::strict(keys.into_iter().map(Into::into).collect())
    }

    /// A provider that opens slots of *any* key of these accounts in these Regions of a partition (`aws`), and encrypts
    /// nothing.
    ///
    /// Dangerous: whoever may use or make a key in one of the accounts can make messages that it opens, as their author
    /// chose the data key. Name the keys ([`strict`](Self::strict)) wherever they are known.
    pub fn dangerous_discovery<A: Into<String>, R: Into<String>>(
        partition: impl Into<String>,
        accounts: impl IntoIterator<Item = A>,
        regions: impl IntoIterator<Item = R>,
    ) -> AwsKmsBuilder {
        let accounts = accounts.into_iter().map(Into::into).collect();
        AwsKmsBuilder::discovery(partition.into(), accounts, regions.into_iter().map(Into::into).collect())
    }

    /// The ARNs of the keys that it writes under, as they were found.
    pub fn key_arns(&self) -> impl Iterator<Item = &str> {
        self.keys.written().iter().map(KeyArn::as_str)
    }

    /// As whom it calls, and where, as people want to know it: the id of the access key, which is no secret, what gave it, and the
    /// addresses. `None` before a call had credentials. It is for reading: [`identity`](KeyProvider::identity) is what tells
    /// providers apart.
    pub fn caller(&self) -> Option<String> {
        let endpoints: Vec<_> = self.regions.values().map(Regional::endpoint).collect();
        let caller = self.regions.values().find_map(Regional::caller)?;
        Some(format!("{caller}, at {}", endpoints.join(" ")))
    }

    fn regional(&self, key: &KeyArn) -> Result<&Regional> {
        let place = (key.partition().to_owned(), key.region().to_owned());
        self.regions.get(&place).ok_or_else(|| Error::internal(format!("no client was made for {key}")))
    }

    /// The key that makes data keys.
    fn generator(&self) -> Result<&KeyArn> {
        self.keys.written().first().ok_or_else(|| {
            Error::invalid_input("a discovery provider of AWS KMS only opens messages")
                .with_advice("name the keys to encrypt under, by `AwsKmsProvider::strict`")
        })
    }

    /// Passes an outcome on. That a key is disabled, gone or about to be deleted is made known to caches first, at most once in
    /// ten seconds for each key: who can have old slots opened shall not keep caches empty.
    fn noted<T>(&self, key: &KeyArn, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|error| {
            if errors::revokes(error) && self.is_news(key) {
                self.revocations.bump();
            }
        })
    }

    fn is_news(&self, key: &KeyArn) -> bool {
        // Under discovery strangers choose the names, which are counted as one.
        let name = if self.keys.written().is_empty() { "" } else { key.as_str() };
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_news = revoked.get(name).is_none_or(|before| now.duration_since(*before) >= NEWS);
        if is_news {
            revoked.insert(name.to_owned(), now);
        }
        is_news
    }

    async fn wrap(&self, key: &KeyArn, data_key: &DataKey, context: &KmsContext) -> Result<EncryptedDataKey> {
        let blob = self.noted(key, self.regional(key)?.encrypt(key, data_key, context).await)?;
        Ok(EncryptedDataKey::new(NAME, key.as_str(), blob))
    }

    /// Asks the slot's key, and the same key in other Regions only where that one is not available. Each has the policy's whole
    /// time for a call.
    async fn unwrap(&self, keys: &[KeyArn], slot: &EncryptedDataKey, context: &KmsContext) -> Result<DataKey> {
        let mut failure = Error::internal("no key was asked");
        for key in keys {
            match self.noted(key, self.regional(key)?.decrypt(key, slot.wrapped(), context).await) {
                Err(error) if error.is_retryable() => failure = error,
                outcome => return outcome,
            }
        }
        Err(failure)
    }
}

#[async_trait]
impl KeyProvider for AwsKmsProvider {
    fn recipients(&self) -> Vec<Recipient> {
        self.keys.written().iter().map(|key| Recipient::new(NAME, key.as_str())).collect()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let first = self.generator()?;
        let (key, blob) = self.noted(first, self.regional(first)?.generate(first, length, context).await)?;
        let mut encrypted = vec![EncryptedDataKey::new(NAME, first.as_str(), blob)];
        for other in self.keys.written().iter().skip(1) {
            encrypted.push(self.wrap(other, &key, context).await?);
        }
        Ok(GeneratedDataKey { key, encrypted })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.generator()?;
        let mut encrypted = Vec::new();
        for arn in self.keys.written() {
            encrypted.push(self.wrap(arn, key, context).await?);
        }
        Ok(encrypted)
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let keys = self.keys.that_may_open(slot);
        if keys.is_empty() {
            return DataKeyAnswer::NotMine;
        }
        // More than AWS ever answers with: damaged, or a stranger's, and not worth a call.
        if slot.wrapped().len() > wire::BLOB_MAX {
            return DataKeyAnswer::Failed(Error::authentication().with_code("InvalidCiphertextException"));
        }
        match self.unwrap(&keys, slot, context).await {
            Ok(key) => DataKeyAnswer::Key(key),
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }

    /// `ReEncrypt`, which works within a Region: `None` where a key of this provider's is in another than every key that
    /// opens the slot.
    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let sources = self.keys.that_may_open(slot);
        if sources.is_empty() {
            return Ok(None);
        }
        if slot.wrapped().len() > wire::BLOB_MAX {
            return Err(Error::authentication().with_code("InvalidCiphertextException"));
        }
        let mut pairs = Vec::new();
        for key in self.keys.written() {
            match sources.iter().find(|source| source.region() == key.region()) {
                Some(source) => pairs.push((source, key)),
                None => return Ok(None),
            }
        }
        let mut encrypted = Vec::new();
        for (source, key) in &pairs {
            let regional = self.regional(key)?;
            let blob = self.noted(key, regional.re_encrypt(source, slot.wrapped(), key, context).await)?;
            encrypted.push(EncryptedDataKey::new(NAME, key.as_str(), blob));
        }
        Ok((!encrypted.is_empty()).then_some(encrypted))
    }

    fn revocations(&self) -> Option<Revocations> {
        Some(self.revocations.clone())
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        Some(self.identity.clone())
    }
}

const NEWS: Duration = Duration::from_secs(10);
/// The provider name in slots.
const NAME: &str = "aws-kms";
