//! Where data keys come from, for messages and whatever else is encrypted under one: the cache, or the
//! key provider where there is none.

use crate::cache::DataKeyCache;
use crate::cache::binding::Binding;
use crate::cache::handed::{ReadingAnswer, WritingKey};
use crate::cache::held::Need;
use crate::context::KmsContext;
use crate::envelope::{Config, Envelope};
use crate::error::Result;
use crate::material::{DataKeyLength, EncryptedDataKey};
use std::sync::Arc;

impl Envelope {
    /// A data key for something new that is bound to `kms`, of which it will take `need`.
    ///
    /// # Errors
    /// The provider's own.
    pub(super) async fn writing_key(&self, kms: &KmsContext, need: Need) -> Result<WritingKey> {
        match &self.config.cache {
            Some(cache) => cache.writing_key(kms, need).await,
            None => {
                let generated = self.config.provider.generate_data_key(DataKeyLength::Bytes32, kms).await?;
                Ok(WritingKey::Own(generated))
            }
        }
    }

    /// The data key in a slot that is bound to `kms`. It is for whoever asks to check that it is the right
    /// one: a cached key is what the provider answers to this slot, and nothing more is known of it.
    pub(super) async fn reading_key(&self, slot: &EncryptedDataKey, kms: &KmsContext) -> ReadingAnswer {
        match &self.config.cache {
            Some(cache) => cache.reading_key(slot, kms).await,
            None => self.config.provider.decrypt_data_key(slot, kms).await.into(),
        }
    }

    /// The same envelope for one tenant, whose cached data keys serve nobody else: neither other tenants nor
    /// this envelope itself. Cheap enough for every request. Without a cache it makes no difference.
    ///
    /// It separates keys in memory. What separates messages is the encryption context: name the tenant
    /// there too, so that one tenant's message does not open as another's.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        let cache = self.config.cache.as_ref().map(|cache| cache.for_tenant(tenant));
        Self { config: Arc::new(Config { cache, ..(*self.config).clone() }) }
    }

    /// The same envelope without its cache: each message under a data key of its own, each opened by the
    /// key provider itself.
    #[must_use]
    pub fn without_cache(&self) -> Self {
        Self { config: Arc::new(Config { cache: None, ..(*self.config).clone() }) }
    }

    /// The cache of this envelope, if it has one.
    #[must_use]
    pub fn cache(&self) -> Option<&DataKeyCache> {
        self.config.cache.as_ref().map(Binding::cache)
    }
}
