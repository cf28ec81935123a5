//! RSA-OAEP by the crate `rsa`, version 0.10 or newer.
//!
//! Versions before it leaked private keys by their timing (RUSTSEC-2023-0071, "Marvin"). 0.10 computes in
//! constant time (`crypto-bigint`), blinds base, exponents and primes with fresh random numbers, judges the
//! padding in constant time, and wipes its keys on drop. Some numbers between are not wiped, as the crate
//! says in its own source; they lie on the heap. The first byte of the padding, which must be zero, is not looked
//! at: draft-irtf-cfrg-rsa-guidance wants that, against Manger's attack, and it gives nobody another plaintext.

use super::rsa::{RSA_LEN, RsaBackend, RsaPrivate, SPKI_LEN, no_private_key, no_public_key};
use super::rust_crypto::RustCrypto;
use super::{random, stack};
use crate::error::{Error, Result};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::sha2::Sha256;
use rsa::{PrivateKey, PublicKey};
use std::fmt;
use zeroize::Zeroizing;

/// How much of the stack is overwritten after a call that worked on a private key or a plaintext, in KiB.
const RSA_STACK_KIB: usize = 16;
/// Length of a modulus in bits.
const BITS: usize = 8 * RSA_LEN;

impl RsaBackend for RustCrypto {
    type Private = RustCryptoRsa;

    fn generate() -> Result<RustCryptoRsa> {
        match stack::wiped(RSA_STACK_KIB, || PrivateKey::new(&mut System, BITS)) {
            Ok(key) => Ok(RustCryptoRsa(Box::new(key))),
            // Nothing else that it reports depends on more than the length of the key.
            Err(rsa::Error::Rng) => Err(Error::random(getrandom::Error::UNEXPECTED)),
            Err(_) => Err(Error::internal("no RSA key could be made")),
        }
    }

    fn private(pkcs8: &[u8]) -> Result<RustCryptoRsa> {
        let key = stack::wiped(RSA_STACK_KIB, || PrivateKey::from_pkcs8_der(pkcs8));
        key.map(|key| RustCryptoRsa(Box::new(key))).map_err(|_| no_private_key())
    }

    fn encrypt(spki: &[u8; SPKI_LEN], plaintext: &[u8]) -> Result<[u8; RSA_LEN]> {
        let key = PublicKey::from_public_key_der(spki).map_err(|_| no_public_key())?;
        let sealed = stack::wiped(RSA_STACK_KIB, || key.oaep_encrypt_with_rng::<Sha256, _>(&mut System, plaintext));
        let sealed = sealed.map_err(|error| match error {
            rsa::Error::Rng => Error::random(getrandom::Error::UNEXPECTED),
            _ => no_public_key(),
        })?;
        sealed.try_into().map_err(|_| no_public_key())
    }
}

/// A private key, boxed so that moving it leaves no copy behind.
pub(crate) struct RustCryptoRsa(Box<PrivateKey>);

impl RsaPrivate for RustCryptoRsa {
    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let der = stack::wiped(RSA_STACK_KIB, || self.0.to_pkcs8_der());
        Ok(der.map_err(|_| Error::internal("an RSA key has no PKCS#8"))?.to_bytes())
    }

    fn spki(&self) -> Result<Vec<u8>> {
        let der = self.0.as_public_key().to_public_key_der();
        Ok(der.map_err(|_| Error::internal("an RSA key has no public key"))?.into_vec())
    }

    fn decrypt(&self, ciphertext: &[u8; RSA_LEN]) -> Result<Zeroizing<Vec<u8>>> {
        let opened = stack::wiped(RSA_STACK_KIB, || self.0.oaep_decrypt_with_rng::<Sha256, _>(&mut System, ciphertext));
        opened.map(Zeroizing::new).map_err(|_| Error::authentication())
    }
}

impl fmt::Debug for RustCryptoRsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustCryptoRsa(..)")
    }
}

/// The operating system, as the crate asks for random bytes.
struct System;

impl TryRng for System {
    type Error = getrandom::Error;

    fn try_next_u32(&mut self) -> Result<u32, getrandom::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, getrandom::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), getrandom::Error> {
        random::fill(out).map_err(|_| getrandom::Error::UNEXPECTED)
    }
}

impl TryCryptoRng for System {}
