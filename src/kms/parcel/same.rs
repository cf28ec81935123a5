//! Whether material that is imported again is what was there before.
//!
//! ```text
//! mark = salt (32) || SHA-256("envelock/kms/v1 same" || 00 || salt || material)
//! ```
//! It outlives the material, and is kept wrapped under the root key: with it and the mark alone, guesses at weak
//! material could be tried.

use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;
use subtle::ConstantTimeEq;

/// A mark by which a material is known again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SameMaterial(Secret<64>);

impl SameMaterial {
    pub(crate) fn of(material: &Secret<32>) -> Result<Self> {
        let mut salt = [0; 32];
        crypto::random::fill(&mut salt)?;
        Ok(Self::with_salt(material, &salt))
    }

    pub(crate) fn with_salt(material: &Secret<32>, salt: &[u8; 32]) -> Self {
        Self(Secret::init(|out| {
            out[..32].copy_from_slice(salt);
            out[32..].copy_from_slice(&hash(material, salt));
        }))
    }

    /// A mark as it was stored; `None` if it has not 64 bytes.
    pub(crate) fn from_slice(mark: &[u8]) -> Option<Self> {
        Secret::from_slice(mark).map(Self)
    }

    pub(crate) fn expose(&self) -> &[u8; 64] {
        self.0.expose()
    }

    /// # Errors
    /// IncorrectKeyMaterialException, of kind InvalidInput, if this is the mark of another material.
    pub(crate) fn check(&self, material: &Secret<32>) -> Result<()> {
        let (salt, expected) = self.0.expose().split_at(32);
        if hash(material, salt).ct_eq(expected).into() {
            return Ok(());
        }
        Err(Self::other())
    }

    /// What material is that was not imported before.
    pub(crate) fn other() -> Error {
        Error::invalid_input("this is not the key material that was imported before")
            .with_code("IncorrectKeyMaterialException")
            .with_advice("import the same material again; new material is a rotation, which keeps what was there")
    }
}

fn hash(material: &Secret<32>, salt: &[u8]) -> [u8; 32] {
    crypto::sha256_of_secret(&[LABEL, salt, material.expose()])
}

const LABEL: &[u8] = b"envelock/kms/v1 same\0";
