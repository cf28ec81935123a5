//! Key providers to test with: one that counts calls, one that is down, one that answers as told.

use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, Error, ErrorKind, GeneratedDataKey, KeyProvider,
    KmsContext, MultiProvider, RawKeyProvider, Recipient, Result, Secret, async_trait,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A raw provider whose wrapping key is filled with `seed`.
pub(crate) fn raw(key_id: &str, seed: u8) -> Arc<dyn KeyProvider> {
    Arc::new(RawKeyProvider::new(key_id, Secret::init(|key| key.fill(seed))).unwrap())
}

/// All of them, each alone enough.
pub(crate) fn all(members: &[&Arc<dyn KeyProvider>]) -> Arc<dyn KeyProvider> {
    Arc::new(MultiProvider::all(members.iter().map(|it| Arc::clone(it)).collect()).unwrap())
}

pub(crate) fn at_least(needed: usize, members: &[&Arc<dyn KeyProvider>]) -> Arc<dyn KeyProvider> {
    Arc::new(MultiProvider::at_least(needed, members.iter().map(|it| Arc::clone(it)).collect()).unwrap())
}

/// Calls that reached a provider.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) generate: AtomicUsize,
    pub(crate) encrypt: AtomicUsize,
    pub(crate) decrypt: AtomicUsize,
    pub(crate) re_encrypt: AtomicUsize,
}

impl Calls {
    pub(crate) fn all(&self) -> usize {
        [&self.generate, &self.encrypt, &self.decrypt, &self.re_encrypt]
            .iter()
            .map(|it| it.load(Ordering::SeqCst))
            .sum()
    }

    pub(crate) fn decrypts(&self) -> usize {
        self.decrypt.load(Ordering::SeqCst)
    }

    pub(crate) fn re_encrypts(&self) -> usize {
        self.re_encrypt.load(Ordering::SeqCst)
    }
}

/// Counts the calls to another provider.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) inner: Arc<dyn KeyProvider>,
    pub(crate) calls: Arc<Calls>,
}

impl Counted {
    pub(crate) fn wrap(inner: Arc<dyn KeyProvider>) -> (Arc<dyn KeyProvider>, Arc<Calls>) {
        let calls = Arc::new(Calls::default());
        (Arc::new(Self { inner, calls: Arc::clone(&calls) }), calls)
    }
}

#[async_trait]
impl KeyProvider for Counted {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.calls.generate.fetch_add(1, Ordering::SeqCst);
        self.inner.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.calls.encrypt.fetch_add(1, Ordering::SeqCst);
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.calls.decrypt.fetch_add(1, Ordering::SeqCst);
        self.inner.decrypt_data_key(slot, context).await
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        self.calls.re_encrypt.fetch_add(1, Ordering::SeqCst);
        self.inner.re_encrypt_data_key(slot, context).await
    }
}

/// A provider that cannot be reached: each of its answers is an error of one kind.
#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) recipient: Recipient,
    pub(crate) kind: ErrorKind,
}

impl Down {
    pub(crate) fn shared(provider: &str, key_id: &str, kind: ErrorKind) -> Arc<dyn KeyProvider> {
        Arc::new(Self { recipient: Recipient::new(provider, key_id), kind })
    }

    fn error(&self) -> Error {
        Error::new(self.kind, format!("{} is down", self.recipient))
    }

    fn owns(&self, slot: &EncryptedDataKey) -> bool {
        Recipient::from(slot) == self.recipient
    }
}

#[async_trait]
impl KeyProvider for Down {
    fn recipients(&self) -> Vec<Recipient> {
        vec![self.recipient.clone()]
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey> {
        Err(self.error())
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Err(self.error())
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        if self.owns(slot) { DataKeyAnswer::Failed(self.error()) } else { DataKeyAnswer::NotMine }
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        _: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        if self.owns(slot) { Err(self.error()) } else { Ok(None) }
    }
}

type Answer = dyn Fn(&EncryptedDataKey) -> DataKeyAnswer + Send + Sync;

/// Writes the slots it is told to, and answers as it is told to.
pub(crate) struct Scripted {
    pub(crate) slots: Vec<EncryptedDataKey>,
    pub(crate) answer: Box<Answer>,
}

impl Scripted {
    /// The data key of everything that [`Scripted`] makes.
    pub(crate) const KEY: [u8; 32] = [0x77; 32];

    pub(crate) fn shared(
        slots: Vec<EncryptedDataKey>,
        answer: impl Fn(&EncryptedDataKey) -> DataKeyAnswer + Send + Sync + 'static,
    ) -> Arc<dyn KeyProvider> {
        Arc::new(Self { slots, answer: Box::new(answer) })
    }

    /// `count` slots of `com.example.fake`, each with its number as key id and as wrapped key.
    pub(crate) fn numbered(count: u8) -> Vec<EncryptedDataKey> {
        (0..count).map(|n| EncryptedDataKey::new("com.example.fake", vec![n], vec![n])).collect()
    }

    pub(crate) fn key() -> DataKey {
        DataKey::from_slice(&Self::KEY).unwrap()
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for Scripted {
    fn recipients(&self) -> Vec<Recipient> {
        self.slots.iter().map(|slot| Recipient::new(slot.provider(), slot.key_id())).collect()
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey> {
        Ok(GeneratedDataKey { key: Self::key(), encrypted: self.slots.clone() })
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Ok(self.slots.clone())
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        (self.answer)(slot)
    }
}
