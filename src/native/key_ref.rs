//! A data key, as messages and record sets take it: it only ever keys HKDF-Expand-SHA-384.

use crate::crypto::{self, Expansion, HkdfKey, KdfKey};
use crate::error::{Error, Result};
use crate::material::DataKey;

/// A data key, for this once or prepared for many.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyRef<'a> {
    /// For this once.
    Fresh(&'a DataKey),
    /// Its HMAC is keyed already. It was made of 32 bytes.
    Prepared(&'a HkdfKey),
}

impl KeyRef<'_> {
    /// All expansions that `what` takes from its data key.
    ///
    /// # Errors
    /// Kind InvalidInput for a data key of another length than 32 bytes.
    pub(super) fn expand_each(self, what: &str, each: &mut [Expansion<'_>]) -> Result<()> {
        match self {
            Self::Fresh(key) if key.expose().len() == 32 => crypto::hkdf_expand_sha384_each(key.expose(), each),
            Self::Fresh(_) => Err(Error::invalid_input(format!("{what} takes a data key of 32 bytes"))),
            Self::Prepared(key) => key.expand_each(each),
        }
    }
}

impl<'a> From<&'a DataKey> for KeyRef<'a> {
    fn from(key: &'a DataKey) -> Self {
        Self::Fresh(key)
    }
}

impl<'a> From<&'a HkdfKey> for KeyRef<'a> {
    fn from(key: &'a HkdfKey) -> Self {
        Self::Prepared(key)
    }
}
