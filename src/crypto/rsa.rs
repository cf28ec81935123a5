//! RSA-OAEP with SHA-256 and MGF1-SHA-256 (RFC 8017, section 7.1), 4096 bits, empty label.
//!
//! Only for material that enters or leaves a keystore: 32 bytes a time, seldom. Keys are made here or come
//! from this project's own keystores, so one form of each is taken and nothing else: public keys as
//! SubjectPublicKeyInfo (RFC 5280, section 4.1) with the exponent 65537, in DER, 550 bytes; private keys
//! as PKCS#8 (RFC 5208) in DER.

use super::choice;
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use zeroize::Zeroizing;

/// Length of a modulus, and so of what is encrypted, in bytes.
pub(crate) const RSA_LEN: usize = 512;
/// Length of a public key in bytes.
pub(crate) const SPKI_LEN: usize = SPKI_HEAD.len() + RSA_LEN + SPKI_TAIL.len();
/// The most that fits under OAEP: two hashes of SHA-256 and two bytes are its own.
pub(crate) const OAEP_MAX: usize = RSA_LEN - 2 * 32 - 2;

/// What a backend must bring for RSA. Stateless, as [`Backend`](super::backend::Backend) is.
pub(crate) trait RsaBackend: 'static {
    /// A private key. Moving it moves no secret: it lies on the heap, and is wiped there.
    type Private: RsaPrivate;

    /// A fresh key of 4096 bits with the exponent 65537.
    fn generate() -> Result<Self::Private>;

    /// The key of a PKCS#8 document; nothing of its length or exponent is judged here.
    fn private(pkcs8: &[u8]) -> Result<Self::Private>;

    /// Encrypts at most [`OAEP_MAX`] bytes under a public key whose form was judged.
    fn encrypt(spki: &[u8; SPKI_LEN], plaintext: &[u8]) -> Result<[u8; RSA_LEN]>;
}

/// A private key of a backend.
pub(crate) trait RsaPrivate: Send + Sync + fmt::Debug {
    /// As PKCS#8 in DER.
    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>>;

    /// Its public key as SubjectPublicKeyInfo in DER.
    fn spki(&self) -> Result<Vec<u8>>;

    /// What was encrypted; every failure is the one error of kind AuthenticationFailed.
    fn decrypt(&self, ciphertext: &[u8; RSA_LEN]) -> Result<Zeroizing<Vec<u8>>>;
}

/// A public key in its one form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RsaPublicKey(Box<[u8; SPKI_LEN]>);

impl RsaPublicKey {
    /// # Errors
    /// Kind Malformed if this is no SubjectPublicKeyInfo of an RSA key of 4096 bits with the exponent 65537 in
    /// DER, so that one key has one form and one fingerprint.
    pub(crate) fn parse(spki: &[u8]) -> Result<Self> {
        let modulus = spki.strip_prefix(SPKI_HEAD).and_then(|rest| rest.strip_suffix(SPKI_TAIL));
        let good = modulus.is_some_and(|modulus| {
            modulus.len() == RSA_LEN
                && modulus.first().is_some_and(|byte| byte & 0x80 != 0)
                && modulus.last().is_some_and(|byte| byte & 1 != 0)
        });
        match <[u8; SPKI_LEN]>::try_from(spki) {
            Ok(spki) if good => Ok(Self(Box::new(spki))),
            _ => Err(Error::new(ErrorKind::Malformed, "this is no public RSA key of 4096 bits")
                .with_advice("give SubjectPublicKeyInfo in DER, with the exponent 65537: 550 bytes")),
        }
    }

    /// SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> &[u8; SPKI_LEN] {
        &self.0
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what people compare.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        super::sha256(&[self.0.as_slice()])
    }

    /// Encrypts at most [`OAEP_MAX`] bytes.
    ///
    /// # Errors
    /// Kind InvalidInput for more; kind Malformed if the modulus is none that the backend works with.
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Result<[u8; RSA_LEN]> {
        if plaintext.len() > OAEP_MAX {
            return Err(Error::invalid_input(format!("RSA-OAEP takes at most {OAEP_MAX} bytes")));
        }
        choice::ForRsa::encrypt(&self.0, plaintext)
    }
}

/// Public, and long.
impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaPublicKey(..)")
    }
}

/// A private key.
#[derive(Debug)]
pub(crate) struct RsaPrivateKey(<choice::ForRsa as RsaBackend>::Private);

impl RsaPrivateKey {
    /// A fresh key. Two primes are searched for, which takes as long as luck has it, from a fifth of a second
    /// to more than one: run it on a thread of its own (`worker`), and outside of any transaction.
    ///
    /// # Errors
    /// Kind RandomFailed, where the system gives no random bytes; kind Internal if the backend fails.
    pub(crate) fn generate() -> Result<Self> {
        choice::ForRsa::generate().map(Self)
    }

    /// The key of a PKCS#8 document that [`to_pkcs8`](Self::to_pkcs8) made, on any backend.
    ///
    /// # Errors
    /// Kind Malformed for anything else, other lengths and exponents included.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let key = Self(choice::ForRsa::private(der)?);
        key.public_key().map(|_| key)
    }

    /// The key as PKCS#8 in DER: about 2,375 bytes.
    ///
    /// # Errors
    /// Kind Internal if the backend fails.
    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        self.0.pkcs8()
    }

    /// # Errors
    /// Kind Malformed if it is not of 4096 bits or its exponent is not 65537.
    pub(crate) fn public_key(&self) -> Result<RsaPublicKey> {
        RsaPublicKey::parse(&self.0.spki()?)
    }

    /// Decrypts what was encrypted to the public key.
    ///
    /// # Errors
    /// Kind AuthenticationFailed, whatever it is that fails.
    pub(crate) fn decrypt(&self, ciphertext: &[u8; RSA_LEN]) -> Result<Zeroizing<Vec<u8>>> {
        self.0.decrypt(ciphertext)
    }
}

/// What a private key that cannot be read is.
pub(crate) fn no_private_key() -> Error {
    Error::new(ErrorKind::Malformed, "this is no private RSA key of 4096 bits in PKCS#8")
        .with_advice("make a new one: this one was damaged, or made by something else")
}

/// What a public key of good form and bad modulus is.
pub(crate) fn no_public_key() -> Error {
    Error::new(ErrorKind::Malformed, "this public RSA key has a modulus that is none")
        .with_advice("have it sent again, and compare its fingerprint")
}

/// SEQUENCE of 546 bytes { SEQUENCE { rsaEncryption, NULL }, BIT STRING of 527 bytes { SEQUENCE of 522 bytes
/// { INTEGER of 513 bytes: 00 and the modulus, …
const SPKI_HEAD: &[u8] = b"\x30\x82\x02\x22\x30\x0D\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01\x05\x00\
                           \x03\x82\x02\x0F\x00\x30\x82\x02\x0A\x02\x82\x02\x01\x00";
/// … INTEGER 65537 } }.
const SPKI_TAIL: &[u8] = b"\x02\x03\x01\x00\x01";
