//! Key providers: who encrypts and decrypts data keys.

mod at_once;
#[cfg(feature = "aws-kms")]
pub(crate) mod aws_kms;
#[cfg(feature = "http")]
mod delay;
pub(crate) mod failover;
#[cfg(feature = "http")]
pub(crate) mod http;
pub(crate) mod multi;
pub(crate) mod passphrase;
mod patience;
pub(crate) mod raw;
#[cfg(feature = "vault")]
pub(crate) mod vault;

#[cfg(feature = "test-util")]
pub mod conformance;

use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A key management service, as envelopes need it: it makes, encrypts and decrypts data keys.
///
/// Small, object-safe and asynchronous; implement it with the re-exported
/// [`async_trait`](crate::async_trait). A provider takes no lock across an await that a dropped future would
/// leave behind: any of these futures may be dropped at any time.
///
/// A provider outside this crate writes slots under a name with a dot in it
/// (`com.example.hsm`). The conformance suite, `envelock::conformance` (feature `test-util`), checks
/// the promises made here.
#[async_trait]
pub trait KeyProvider: Send + Sync + fmt::Debug {
    /// The recipients that this provider writes, told without any call: each a provider name and a
    /// key id, as they go into a message's slots. Used to record a recipient that cannot be reached.
    fn recipients(&self) -> Vec<Recipient>;

    /// [`recipients`](Self::recipients), those together of which a message gets any one: a provider that writes for
    /// one of several members says here which those are. Default: each alone, so that a message gets all of them.
    fn alternatives(&self) -> Vec<Vec<Recipient>> {
        self.recipients().into_iter().map(|recipient| vec![recipient]).collect()
    }

    /// Makes a fresh data key and encrypts it under this provider's key, bound to `context`.
    ///
    /// # Errors
    /// The provider's own: [`Unavailable`](crate::ErrorKind::Unavailable),
    /// [`KeyDenied`](crate::ErrorKind::KeyDenied), [`KeyState`](crate::ErrorKind::KeyState) and so on.
    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey>;

    /// Encrypts a data key under this provider's key, bound to `context`: one slot for each recipient.
    ///
    /// # Errors
    /// As [`generate_data_key`](Self::generate_data_key).
    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>>;

    /// Decrypts one encrypted data key, if it is this provider's.
    ///
    /// Answers [`NotMine`](DataKeyAnswer::NotMine) without any call where the slot's provider name or
    /// key id is not one of its own.
    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer;

    /// Re-encrypts a data key of this provider's KMS under its current key *inside the KMS*, so that
    /// this process never sees it. `None` where the slot is not its own or the KMS cannot do that.
    ///
    /// # Errors
    /// As [`generate_data_key`](Self::generate_data_key).
    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let _ = (slot, context);
        Ok(None)
    }

    /// How many data keys one call to this provider's KMS takes at the most, for those who have many at hand:
    /// 1, the default, where it has no call for several.
    fn batch_len(&self) -> usize {
        1
    }

    /// As [`decrypt_data_key`](Self::decrypt_data_key) for each of `slots`, the answers in their order. Up to
    /// [`batch_len`](Self::batch_len) of them make one call. Default: one after the other.
    async fn decrypt_data_keys(&self, slots: &[(&EncryptedDataKey, &KmsContext)]) -> Vec<DataKeyAnswer> {
        let mut answers = Vec::with_capacity(slots.len());
        for (slot, context) in slots {
            answers.push(self.decrypt_data_key(slot, context).await);
        }
        answers
    }

    /// As [`encrypt_data_key`](Self::encrypt_data_key) for each of `keys`, the answers in their order. Up to
    /// [`batch_len`](Self::batch_len) of them make one call. Default: one after the other.
    async fn encrypt_data_keys(&self, keys: &[(&DataKey, &KmsContext)]) -> Vec<Result<Vec<EncryptedDataKey>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (key, context) in keys {
            answers.push(self.encrypt_data_key(key, context).await);
        }
        answers
    }

    /// As [`re_encrypt_data_key`](Self::re_encrypt_data_key) for each of `slots`, the answers in their order. Up
    /// to [`batch_len`](Self::batch_len) of them make one call. Default: one after the other.
    async fn re_encrypt_data_keys(
        &self,
        slots: &[(&EncryptedDataKey, &KmsContext)],
    ) -> Vec<Result<Option<Vec<EncryptedDataKey>>>> {
        let mut answers = Vec::with_capacity(slots.len());
        for (slot, context) in slots {
            answers.push(self.re_encrypt_data_key(slot, context).await);
        }
        answers
    }

    /// An epoch that moves whenever keys are disabled, deleted or denied, where the provider can tell.
    fn revocations(&self) -> Option<Revocations> {
        None
    }

    /// Which providers may share cached data keys: those whose identities are equal.
    /// `None`: this one shares with no other.
    ///
    /// It is shown: statistics and metrics of the cache name the provider by it. It holds no secret, no
    /// password in an endpoint's address for one.
    fn identity(&self) -> Option<ProviderIdentity> {
        None
    }
}

/// A fresh data key, in the clear and as encrypted for each recipient.
#[derive(Debug)]
pub struct GeneratedDataKey {
    /// The data key.
    pub key: DataKey,
    /// The same, encrypted: at least one that is not missing.
    pub encrypted: Vec<EncryptedDataKey>,
}

/// What a provider says to an encrypted data key.
#[derive(Debug)]
pub enum DataKeyAnswer {
    /// It is mine, and this is the key.
    Key(DataKey),
    /// It is mine by name, and could not be decrypted.
    Failed(Error),
    /// It is not mine.
    NotMine,
}

/// Who can open a message: a provider's name and its key id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// The provider's name, as in [`EncryptedDataKey::provider`].
    pub provider: String,
    /// The key id, as in [`EncryptedDataKey::key_id`].
    pub key_id: Vec<u8>,
}

impl Recipient {
    /// A recipient of these names.
    #[must_use]
    pub fn new(provider: impl Into<String>, key_id: impl Into<Vec<u8>>) -> Self {
        Self { provider: provider.into(), key_id: key_id.into() }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A stranger may have written these names: control characters must not reach a log.
        let key_id = EncryptedDataKey::missing("", self.key_id.as_slice()).key_id_text();
        let shown = format!("{}:{key_id}", self.provider.escape_debug());
        match shown.char_indices().nth(NAME_MAX) {
            None => f.write_str(&shown),
            Some((end, _)) => write!(f, "{}...", shown.get(..end).unwrap_or_default()),
        }
    }
}

/// As text: it comes before people's eyes, since `main` prints its errors so.
impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

impl From<&EncryptedDataKey> for Recipient {
    fn from(slot: &EncryptedDataKey) -> Self {
        Self::new(slot.provider(), slot.key_id())
    }
}

/// The recipients that an error is about, as its [source](std::error::Error::source): those that a message
/// is for, where none of the configured keys opens it, and those that a refused rewrap would have removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients(pub Vec<Recipient>);

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, recipient) in self.0.iter().take(NAMES_MAX).enumerate() {
            write!(f, "{}{recipient}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(NAMES_MAX) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// Recipients that a text names, and characters of each: a stranger's names do not flood a log. A full
/// key name of the embedded KMS fits.
const NAMES_MAX: usize = 4;
const NAME_MAX: usize = 120;

impl std::error::Error for Recipients {}

/// An epoch that a provider bumps when it revokes a key: a cache compares one number.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    own: Arc<AtomicU64>,
    parts: Arc<[Revocations]>,
}

impl Revocations {
    /// An epoch that moves when any of `parts` does, and when it is bumped itself.
    #[must_use]
    pub fn of_any(parts: impl IntoIterator<Item = Self>) -> Self {
        Self { own: Arc::default(), parts: parts.into_iter().collect() }
    }

    /// The epoch now. It is only ever compared with itself.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        // Each only grows, so a sum stays the same only if none has moved.
        let own = self.own.load(Ordering::Acquire);
        self.parts.iter().fold(own, |sum, part| sum.wrapping_add(part.epoch()))
    }

    /// Makes every data key that was cached before this call stale.
    pub fn bump(&self) {
        self.own.fetch_add(1, Ordering::AcqRel);
    }
}

/// Which configured provider a cached data key came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProviderIdentity(String);

impl ProviderIdentity {
    /// An identity: it must name kind, endpoint, key list and the principal that the provider calls as.
    ///
    /// Whoever reads [statistics](crate::DataKeyCache::statistics) or metrics of a cache reads it as it is, so it
    /// must hold no secret: of a credential, name the user or role that it is for.
    #[must_use]
    pub fn new(identity: impl Into<String>) -> Self {
        Self(identity.into())
    }

    /// What it was made of.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shared provider is a provider.
#[async_trait]
impl<P: KeyProvider + ?Sized> KeyProvider for Arc<P> {
    fn recipients(&self) -> Vec<Recipient> {
        (**self).recipients()
    }

    fn alternatives(&self) -> Vec<Vec<Recipient>> {
        (**self).alternatives()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        (**self).generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        (**self).encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        (**self).decrypt_data_key(slot, context).await
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        (**self).re_encrypt_data_key(slot, context).await
    }

    fn batch_len(&self) -> usize {
        (**self).batch_len()
    }

    async fn decrypt_data_keys(&self, slots: &[(&EncryptedDataKey, &KmsContext)]) -> Vec<DataKeyAnswer> {
        (**self).decrypt_data_keys(slots).await
    }

    async fn encrypt_data_keys(&self, keys: &[(&DataKey, &KmsContext)]) -> Vec<Result<Vec<EncryptedDataKey>>> {
        (**self).encrypt_data_keys(keys).await
    }

    async fn re_encrypt_data_keys(
        &self,
        slots: &[(&EncryptedDataKey, &KmsContext)],
    ) -> Vec<Result<Option<Vec<EncryptedDataKey>>>> {
        (**self).re_encrypt_data_keys(slots).await
    }

    fn revocations(&self) -> Option<Revocations> {
        (**self).revocations()
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        (**self).identity()
    }
}
