//! A replica of a multi-Region key on its way to another keystore.
//!
//! ```text
//! file = "EKMS" || 01 || 03 || address || sealed
//! ```
//! Anybody can seal to a public key: that the bundle comes from the key's owner is known by its SHA-256 alone,
//! which the source prints and which reaches the target another way.

use super::content::Content;
use super::fingerprint::Sha256Fingerprint;
use super::frame::{self, Address, FileKind};
use super::replication_key::ConfirmedKey;
use super::sealed::{self, Sealed};
use crate::crypto::rsa::RsaPrivateKey;
use crate::error::{Error, Result};
use crate::kms::key::Realm;

/// What one keystore tells another, apart from the keystore that is told: the public key names that.
#[derive(Clone, Debug)]
pub(crate) struct Issue {
    pub(crate) issuer: Realm,
    pub(crate) key_id: String,
    pub(crate) serial: u64,
    pub(crate) issued_at: i64,
}

impl Issue {
    pub(crate) fn to(&self, target: &Realm) -> Address {
        Address {
            issuer: self.issuer.clone(),
            target: target.clone(),
            key_id: self.key_id.clone(),
            serial: self.serial,
            issued_at: self.issued_at,
        }
    }
}

/// Makes a bundle, and its SHA-256.
///
/// # Errors
/// Kind InvalidInput for what could not be read again.
pub(crate) fn make(issue: &Issue, content: &Content, target: &ConfirmedKey) -> Result<(Vec<u8>, Sha256Fingerprint)> {
    check_first(content)?;
    let mut file = frame::begin(FileKind::ReplicaBundle);
    issue.to(target.realm()).put(&mut file)?;
    let file = sealed::seal(file, content, target.key())?;
    let hash = Sha256Fingerprint::of(&file);
    Ok((file, hash))
}

/// A bundle, taken apart and not yet authenticated.
#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) unverified_address: Address,
    sealed: Sealed<'a>,
}

impl<'a> Bundle<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self> {
        let mut fields = frame::read(FileKind::ReplicaBundle, file)?;
        let unverified_address = Address::read(&mut fields)?;
        let sealed = Sealed::read(&mut fields)?;
        fields.end()?;
        Ok(Self { unverified_address, sealed })
    }
}

/// Opens a bundle in the keystore `here`. Its hash is compared before anything of it is looked at.
///
/// # Errors
/// Kind AuthenticationFailed if it does not have the SHA-256 that the source printed, or is not sealed to `key`;
/// kind InvalidInput if it is for another keystore; whatever parsing finds.
pub(crate) fn open(
    file: &[u8],
    expected: &Sha256Fingerprint,
    here: &Realm,
    key: &RsaPrivateKey,
) -> Result<(Address, Content)> {
    Sha256Fingerprint::of(file).check(expected, "the replica bundle")?;
    let bundle = Bundle::parse(file)?;
    bundle.unverified_address.check_target(here)?;
    let content = bundle.sealed.open(key)?;
    check_first(&content)?;
    Ok((bundle.unverified_address, content))
}

/// The first version's material is what later files are authenticated by.
fn check_first(content: &Content) -> Result<()> {
    match content.versions.first().map(|it| it.version) {
        Some(1) => Ok(()),
        _ => Err(Error::invalid_input("a replica needs the first version of its key, and this has none")
            .with_advice("import the first version's material at the primary key again, then replicate it")),
    }
}
