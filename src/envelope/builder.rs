//! How an envelope is configured.

use crate::cache::DataKeyCache;
use crate::cache::binding::Binding;
use crate::cache::limits::CacheLimits;
use crate::context::ContextMatch;
use crate::crypto::AeadAlgorithm;
use crate::envelope::{Config, Envelope};
use crate::error::{Error, Result};
use crate::io::parallel::Threads;
use crate::native::header::{Limits, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN};
use crate::provider::KeyProvider;
use std::sync::Arc;

/// Configures an [`Envelope`]. Every setting has a default that is right for most.
#[derive(Debug)]
#[must_use]
pub struct EnvelopeBuilder {
    config: Config,
    cache: Option<Result<DataKeyCache>>,
}

impl EnvelopeBuilder {
    pub(crate) fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self {
            config: Config {
                provider,
                cache: None,
                aead: AeadAlgorithm::Aes256Gcm,
                segment_len: SEGMENT_LEN_DEFAULT,
                limits: Limits::default(),
                context_match: ContextMatch::Exact,
                threads: Threads::ONE,
            },
            cache: None,
        }
    }

    /// Caches data keys within these limits, in a cache of this envelope's own. Default: no cache.
    ///
    /// A cached data key outlives a revocation at the KMS by [`max_age`](CacheLimits::max_age) at the most;
    /// docs/cache.md says what else it costs.
    ///
    /// ```
    /// # use envelock::{CacheLimits, EncryptionContext, Envelope, RawKeyProvider};
    /// # fn main() -> Result<(), envelock::Error> {
    /// # pollster::block_on(async {
    /// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).cache(CacheLimits::default()).build()?;
    /// let context = EncryptionContext::from([("tenant", "acme"), ("column", "orders.address")]);
    /// let acme = envelope.for_tenant("acme");
    /// let sealed = acme.encrypt(b"1 Infinite Loop", &context).await?;
    /// assert_eq!(acme.decrypt(&sealed, &context).await?, b"1 Infinite Loop");
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn cache(mut self, limits: CacheLimits) -> Self {
        self.cache = Some(DataKeyCache::new(limits));
        self
    }

    /// Caches data keys in a cache that other envelopes use too. They share entries where the
    /// [identities](KeyProvider::identity) of their providers are equal.
    pub fn shared_cache(mut self, cache: &DataKeyCache) -> Self {
        self.cache = Some(Ok(cache.clone()));
        self
    }

    /// The AEAD of new messages. Default: [`AeadAlgorithm::Aes256Gcm`]. Readers take both.
    pub fn aead(mut self, aead: AeadAlgorithm) -> Self {
        self.config.aead = aead;
        self
    }

    /// The segment length of new messages in bytes, 64 to 16 MiB. Default: 65,536. A segment holds 32
    /// bytes less of plaintext; it is what a reader holds in memory, and the least that it reads.
    pub fn segment_len(mut self, bytes: u32) -> Self {
        self.config.segment_len = bytes;
        self
    }

    /// What readers accept, checked before anything is allocated for it.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// On how many threads calls on slices work: [`encrypt`](Envelope::encrypt),
    /// [`decrypt`](Envelope::decrypt), [`seal_to`](crate::Encryptor::seal_to),
    /// [`open_to`](crate::Decryptor::open_to) and their likes. Default: [`Threads::ONE`], the caller's own,
    /// since servers have work for the others. Threads beyond that are started for each call, and have
    /// ended when it returns. Files and streams have
    /// [a setting of their own](crate::FileOptions::threads).
    pub fn threads(mut self, threads: Threads) -> Self {
        self.config.threads = threads;
        self
    }

    /// The envelope.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a setting outside its range.
    pub fn build(self) -> Result<Envelope> {
        let mut config = self.config;
        if !(SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&config.segment_len) {
            return Err(Error::invalid_input(format!(
                "the segment length is {SEGMENT_LEN_MIN} to {SEGMENT_LEN_MAX} bytes, not {}",
                config.segment_len
            )));
        }
        if config.limits.slots_tried == 0 {
            return Err(Error::invalid_input("a reader that tries no slot opens nothing"));
        }
        if let Some(cache) = self.cache.transpose()? {
            config.cache = Some(Binding::new(cache, Arc::clone(&config.provider)));
        }
        Ok(Envelope { config: Arc::new(config) })
    }
}

/// Chosen by measurement (docs/benchmarks.md).
const SEGMENT_LEN_DEFAULT: u32 = 65_536;
