//! RSA-OAEP by aws-lc-rs. Its numbers lie in memory of the C side, which wipes what it frees.

use super::aws_lc::AwsLc;
use super::rsa::{RSA_LEN, RsaBackend, RsaPrivate, SPKI_LEN, no_private_key, no_public_key};
use super::stack;
use crate::error::{Error, Result};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use std::fmt;
use zeroize::Zeroizing;

/// How much of the stack is overwritten after a call that worked on a private key or a plaintext, in KiB.
const RSA_STACK_KIB: usize = 16;

impl RsaBackend for AwsLc {
    type Private = AwsLcRsa;

    fn generate() -> Result<AwsLcRsa> {
        stack::wiped(RSA_STACK_KIB, || PrivateDecryptingKey::generate(KeySize::Rsa4096))
            .and_then(AwsLcRsa::new)
            .map_err(|_| Error::internal("no RSA key could be made"))
    }

    fn private(pkcs8: &[u8]) -> Result<AwsLcRsa> {
        let key = stack::wiped(RSA_STACK_KIB, || PrivateDecryptingKey::from_pkcs8(pkcs8));
        let key = key.map_err(|_| no_private_key())?;
        AwsLcRsa::new(key).map_err(|_| no_private_key())
    }

    fn encrypt(spki: &[u8; SPKI_LEN], plaintext: &[u8]) -> Result<[u8; RSA_LEN]> {
        let key = PublicEncryptingKey::from_der(spki).map_err(|_| no_public_key())?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| no_public_key())?;
        let mut out = [0; RSA_LEN];
        let encrypted = stack::wiped(RSA_STACK_KIB, || {
            key.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut out, None).map(|encrypted| encrypted.len())
        });
        match encrypted {
            Ok(RSA_LEN) => Ok(out),
            _ => Err(no_public_key()),
        }
    }
}

/// A private key.
pub(crate) struct AwsLcRsa {
    key: PrivateDecryptingKey,
    /// The same key, by its counted pointer.
    opener: OaepPrivateDecryptingKey,
}

impl AwsLcRsa {
    fn new(key: PrivateDecryptingKey) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self { opener: OaepPrivateDecryptingKey::new(key.clone())?, key })
    }
}

impl RsaPrivate for AwsLcRsa {
    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let der: Result<Pkcs8V1Der<'_>, _> = self.key.as_der();
        let der = der.map_err(|_| Error::internal("an RSA key has no PKCS#8"))?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    fn spki(&self) -> Result<Vec<u8>> {
        let der: Result<PublicKeyX509Der<'_>, _> = self.key.public_key().as_der();
        Ok(der.map_err(|_| Error::internal("an RSA key has no public key"))?.as_ref().to_vec())
    }

    fn decrypt(&self, ciphertext: &[u8; RSA_LEN]) -> Result<Zeroizing<Vec<u8>>> {
        if self.opener.min_output_size() != RSA_LEN {
            return Err(no_private_key());
        }
        let mut out = Zeroizing::new(vec![0; RSA_LEN]);
        let opened = stack::wiped(RSA_STACK_KIB, || {
            self.opener.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut out, None).map(|plaintext| plaintext.len())
        });
        let len = opened.map_err(|_| Error::authentication())?;
        // (The rest of the buffer was never written to, or is wiped with it.)
        out.truncate(len);
        Ok(out)
    }
}

impl fmt::Debug for AwsLcRsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsLcRsa(..)")
    }
}
