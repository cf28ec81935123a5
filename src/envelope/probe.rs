//! A look-up in the cache by itself, for tests and benchmarks.

use crate::cache::handed::ReadingAnswer;
use crate::cache::held::Need;
use crate::context::{EncryptionContext, KmsContext};
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::material::EncryptedDataKey;
use crate::native::header::{Committed as _, Header};

/// What an envelope's messages of one context ask their data key for, and nothing else of a message.
#[derive(Clone, Debug)]
pub struct CacheProbe {
    envelope: Envelope,
    kms: KmsContext,
    slot: EncryptedDataKey,
}

impl Envelope {
    /// The look-ups that the message of `header` and others of its context take.
    ///
    /// # Errors
    /// [`ContextMismatch`](crate::ErrorKind::ContextMismatch) for another context.
    pub fn cache_probe(&self, header: &Header, context: &EncryptionContext) -> Result<CacheProbe> {
        let kms = self.reader_context(header.head(), context)?.kms;
        let slot = header.slots().first().cloned().ok_or_else(|| Error::internal("a header has a slot"))?;
        Ok(CacheProbe { envelope: self.clone(), kms, slot })
    }
}

impl CacheProbe {
    /// Takes one message of `bytes` from the data key that encrypts.
    ///
    /// # Errors
    /// The provider's own.
    pub async fn writing(&self, bytes: u64) -> Result<()> {
        self.envelope.writing_key(&self.kms, Need::Whole(bytes)).await.map(drop)
    }

    /// Gets the data key that the message's first slot holds.
    ///
    /// # Errors
    /// The provider's own; [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) if the slot is not its own.
    pub async fn reading(&self) -> Result<()> {
        match self.envelope.reading_key(&self.slot, &self.kms).await {
            ReadingAnswer::Key(_) => Ok(()),
            ReadingAnswer::Failed(error) => Err(error),
            ReadingAnswer::NotMine => Err(Error::no_matching_key("the slot is not this provider's")),
        }
    }
}
