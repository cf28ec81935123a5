//! Data keys as they are handed out: a cached one, or one that nothing else uses.

use crate::cache::held::{Grant, Held};
use crate::error::{Error, Result};
use crate::material::{DataKey, EncryptedDataKey};
use crate::native::floe::KeyRef;
use crate::provider::{DataKeyAnswer, GeneratedDataKey};
use crate::segments::Meter;
use std::sync::Arc;

/// A data key for something new, and the slots that go with it.
#[derive(Debug)]
pub(crate) enum WritingKey {
    Own(GeneratedDataKey),
    Cached {
        held: Arc<Held>,
        /// What pays for plaintext, where its length is not known.
        grant: Option<Grant>,
    },
}

impl WritingKey {
    pub(crate) fn key(&self) -> KeyRef<'_> {
        match self {
            Self::Own(generated) => (&generated.key).into(),
            Self::Cached { held, .. } => held.key().into(),
        }
    }

    pub(crate) fn slots(&self) -> &[EncryptedDataKey] {
        match self {
            Self::Own(generated) => &generated.encrypted,
            Self::Cached { held, .. } => held.slots(),
        }
    }

    /// What has to pay for each piece of plaintext before it is sealed.
    pub(crate) fn into_meter(self) -> Option<Box<dyn Meter>> {
        match self {
            Self::Own(_) | Self::Cached { grant: None, .. } => None,
            Self::Cached { grant: Some(grant), .. } => Some(Box::new(grant)),
        }
    }
}

/// The data key of a slot.
#[derive(Debug)]
pub(crate) enum ReadingKey {
    Own(DataKey),
    Cached(Arc<Held>),
}

impl ReadingKey {
    pub(crate) fn key(&self) -> KeyRef<'_> {
        match self {
            Self::Own(key) => key.into(),
            Self::Cached(held) => held.key().into(),
        }
    }

    /// The data key itself, to be encrypted anew.
    ///
    /// # Errors
    /// Kind Internal for a cached one, which is no more than the state of an HMAC.
    pub(crate) fn data_key(&self) -> Result<&DataKey> {
        match self {
            Self::Own(key) => Ok(key),
            Self::Cached(_) => Err(Error::internal("a cached data key cannot be encrypted anew")),
        }
    }
}

/// What became of a slot.
#[derive(Debug)]
pub(crate) enum ReadingAnswer {
    Key(ReadingKey),
    Failed(Error),
    NotMine,
}

impl From<DataKeyAnswer> for ReadingAnswer {
    fn from(answer: DataKeyAnswer) -> Self {
        match answer {
            DataKeyAnswer::Key(key) => Self::Key(ReadingKey::Own(key)),
            DataKeyAnswer::Failed(error) => Self::Failed(error),
            DataKeyAnswer::NotMine => Self::NotMine,
        }
    }
}
