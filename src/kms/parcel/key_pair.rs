//! The key pairs that others wrap for: one for each import, and one that receives replicas.
//!
//! The private half is kept as PKCS#8, wrapped under the root key
//! ([`wrap_bytes`](crate::kms::cipher::wrap_bytes)) in a place that names its purpose: a pair has one purpose.

use crate::crypto::rsa::{RsaPrivateKey, RsaPublicKey};
use crate::error::Result;
use crate::worker;
use std::fmt;
use zeroize::Zeroizing;

/// A key pair, as it is kept.
pub(crate) struct KeyPair {
    /// PKCS#8 in DER: secret.
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
    pub(crate) public_key: RsaPublicKey,
}

impl KeyPair {
    /// A fresh pair, made on a thread of its own, since two primes have to be found: 0.2 to 1.3 s of a core,
    /// as luck has it, and now and then more. Not inside a transaction.
    ///
    /// # Errors
    /// Kind RandomFailed; kind Io if no thread can be started.
    pub(crate) async fn generate() -> Result<Self> {
        worker::run("envelock-rsa", Self::generate_here).await
    }

    /// [`generate`](Self::generate), on this thread.
    pub(crate) fn generate_here() -> Result<Self> {
        let key = RsaPrivateKey::generate()?;
        Ok(Self { pkcs8: key.to_pkcs8()?, public_key: key.public_key()? })
    }

    /// The private key that was kept.
    ///
    /// # Errors
    /// Kind Malformed for what [`generate`](Self::generate) did not make.
    pub(crate) fn private_key(pkcs8: &[u8]) -> Result<RsaPrivateKey> {
        RsaPrivateKey::from_pkcs8(pkcs8)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}
