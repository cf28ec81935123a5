//! A keystore's public key, on its way to those who will seal to it.
//!
//! ```text
//! file = "EKMS" || 01 || 02 || keystore id (16) || byte string of its Region || SubjectPublicKeyInfo (550)
//!        || SHA-256 of all before (32)
//! ```
//! The last field finds accidents, and is no proof of anything: whoever changes the file can make it anew. Who
//! seals therefore compares the key's fingerprint, which came another way. It covers the key alone; a changed
//! keystore id or Region makes files that the right keystore refuses and no other can open.
//!
//! This key pair is for replicas only, and never one that import parameters give out: what was sealed for the one
//! use could otherwise be passed off as the other.

use super::fingerprint::Sha256Fingerprint;
use super::frame::{self, FileKind, malformed, put_realm};
use crate::crypto;
use crate::crypto::rsa::{RsaPublicKey, SPKI_LEN};
use crate::error::Result;
use crate::kms::key::Realm;

/// A public key that claims to be a keystore's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicationKey {
    pub(crate) realm: Realm,
    pub(crate) key: RsaPublicKey,
}

impl ReplicationKey {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut file = frame::begin(FileKind::ReplicationKey);
        put_realm(&mut file, &self.realm)?;
        file.extend_from_slice(self.key.spki());
        let check = crypto::sha256(&[&file]);
        file.extend_from_slice(&check);
        Ok(file)
    }

    pub(crate) fn parse(file: &[u8]) -> Result<Self> {
        let mut fields = frame::read(FileKind::ReplicationKey, file)?;
        let realm = fields.realm()?;
        let spki = fields.take(SPKI_LEN)?;
        let checked = fields.before();
        let check: [u8; 32] = fields.array()?;
        fields.end()?;
        if crypto::sha256(&[checked]) != check {
            return Err(malformed("this file was damaged on its way"));
        }
        Ok(Self { realm, key: RsaPublicKey::parse(spki)? })
    }

    pub(crate) fn fingerprint(&self) -> Sha256Fingerprint {
        Sha256Fingerprint::from_bytes(self.key.fingerprint())
    }

    /// The key, known to be the one whose fingerprint came another way.
    ///
    /// # Errors
    /// Kind AuthenticationFailed if it is not.
    pub(crate) fn confirm(self, expected: &Sha256Fingerprint) -> Result<ConfirmedKey> {
        self.fingerprint().check(expected, "the replication key")?;
        Ok(ConfirmedKey(self))
    }
}

/// A [`ReplicationKey`] whose fingerprint was compared: only to such a key is anything sealed.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmedKey(ReplicationKey);

impl ConfirmedKey {
    pub(crate) fn realm(&self) -> &Realm {
        &self.0.realm
    }

    pub(crate) fn key(&self) -> &RsaPublicKey {
        &self.0.key
    }
}
