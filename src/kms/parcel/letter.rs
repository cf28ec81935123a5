//! The files by which keystores that share a key tell each other what became of it.
//!
//! ```text
//! rotation         = "EKMS" || 01 || 04 || address || sealed || HMAC (32)
//! deletion receipt = "EKMS" || 01 || 05 || address || HMAC (32)
//! primary change   = "EKMS" || 01 || 06 || address || keystore id (16) and byte string of the Region of the new
//!                    primary || HMAC (32)
//! HMAC-SHA-256 over all before it, under
//!   HKDF-Expand-SHA-384(the key's first material, "envelock/kms/v1 replica" || 00 || byte string of the key id, 32)
//! ```
//! Only keystores that have the key can make them, and each of these can: they trust one another as far as this
//! key goes. A rotation is sealed besides, so that whoever learns the first material does not learn later ones
//! from it.

use super::bundle::Issue;
use super::content::Content;
use super::frame::{self, Address, Fields, FileKind, put_realm};
use super::replication_key::ConfirmedKey;
use super::sealed::{self, Sealed};
use crate::codec::put_byte_string;
use crate::crypto;
use crate::crypto::rsa::RsaPrivateKey;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::Realm;
use crate::secret::Secret;
use subtle::ConstantTimeEq;

/// Makes a rotation file.
///
/// # Errors
/// Kind InvalidInput for what could not be read again.
pub(crate) fn make_rotation(
    issue: &Issue,
    content: &Content,
    target: &ConfirmedKey,
    first: &Secret<32>,
) -> Result<Vec<u8>> {
    let mut file = frame::begin(FileKind::Rotation);
    issue.to(target.realm()).put(&mut file)?;
    let file = sealed::seal(file, content, target.key())?;
    authenticate(file, &issue.key_id, first)
}

/// Makes a deletion receipt: that the issuer has wiped the key's material.
///
/// # Errors
/// Kind InvalidInput for what could not be read again.
pub(crate) fn make_deletion_receipt(address: &Address, first: &Secret<32>) -> Result<Vec<u8>> {
    let mut file = frame::begin(FileKind::DeletionReceipt);
    address.put(&mut file)?;
    authenticate(file, &address.key_id, first)
}

/// Makes a primary change: that the issuer was the primary, and `primary` is from now on.
///
/// # Errors
/// Kind InvalidInput for what could not be read again, and if the issuer names itself.
pub(crate) fn make_primary_change(address: &Address, primary: &Realm, first: &Secret<32>) -> Result<Vec<u8>> {
    if primary.keystore_id == address.issuer.keystore_id {
        return Err(Error::invalid_input("the keystore that steps down cannot be the new primary")
            .with_advice("name the keystore of a replica"));
    }
    let mut file = frame::begin(FileKind::PrimaryChange);
    address.put(&mut file)?;
    put_realm(&mut file, primary)?;
    authenticate(file, &address.key_id, first)
}

/// Appends the HMAC to a file that is complete but for it.
pub(crate) fn authenticate(mut file: Vec<u8>, key_id: &str, first: &Secret<32>) -> Result<Vec<u8>> {
    let tag = crypto::hmac_sha256(letter_key(key_id, first)?.expose(), &[&file]);
    file.extend_from_slice(&tag);
    Ok(file)
}

fn letter_key(key_id: &str, first: &Secret<32>) -> Result<Secret<32>> {
    let mut name = Vec::new();
    put_byte_string(&mut name, key_id.as_bytes())?;
    Secret::try_init(|out| crypto::hkdf_expand_sha384(first.expose(), &[LABEL, &name], out))
}

/// What a letter says besides its address.
#[derive(Debug)]
enum Said<'a> {
    Rotated(Sealed<'a>),
    Deleted,
    PrimaryIs(Realm),
}

/// A letter, taken apart and not yet authenticated: its address says by which key it can be.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) unverified_address: Address,
    said: Said<'a>,
    signed: &'a [u8],
    tag: [u8; 32],
}

/// What a letter said, known to come from a keystore that has the key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Later versions of the key, and the properties that replicas share.
    Rotated(Content),
    /// The issuer's replica is gone.
    Deleted,
    /// The keystore that has the primary key now.
    PrimaryIs(Realm),
}

impl<'a> Letter<'a> {
    /// # Errors
    /// Kind InvalidInput for a file of another kind; whatever parsing finds.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self> {
        let (kind, mut fields) = frame::kind_of(file)?;
        let unverified_address = match kind {
            FileKind::Rotation | FileKind::DeletionReceipt | FileKind::PrimaryChange => Address::read(&mut fields)?,
            _ => {
                return Err(Error::invalid_input(format!("a file of the kind {kind} tells nothing about a key"))
                    .with_advice("check which file this is"));
            }
        };
        let said = match kind {
            FileKind::Rotation => Said::Rotated(Sealed::read(&mut fields)?),
            FileKind::PrimaryChange => Said::PrimaryIs(fields.realm()?),
            _ => Said::Deleted,
        };
        if matches!(&said, Said::PrimaryIs(realm) if realm.keystore_id == unverified_address.issuer.keystore_id) {
            return Err(frame::malformed("this file names the keystore that steps down as the new primary"));
        }
        Self::read_tag(unverified_address, said, fields)
    }

    fn read_tag(unverified_address: Address, said: Said<'a>, mut fields: Fields<'a>) -> Result<Self> {
        let signed = fields.before();
        let tag = fields.array()?;
        fields.end()?;
        Ok(Self { unverified_address, said, signed, tag })
    }

    /// What it says, in the keystore `here`, which has the key's `first` material and, for a rotation, the private key
    /// of its replication key.
    ///
    /// # Errors
    /// Kind AuthenticationFailed if it was not made with that material, or is not sealed to `key`; kind
    /// InvalidInput if it is for another keystore.
    pub(crate) fn open<'k>(
        self,
        first: &Secret<32>,
        here: &Realm,
        key: impl Into<Option<&'k RsaPrivateKey>>,
    ) -> Result<(Address, News)> {
        let letter_key = letter_key(&self.unverified_address.key_id, first)?;
        let tag = crypto::hmac_sha256(letter_key.expose(), &[self.signed]);
        if !bool::from(tag.ct_eq(&self.tag)) {
            return Err(Error::new(
                ErrorKind::AuthenticationFailed,
                "no keystore that has this key has made this file",
            )
            .with_advice("it was changed, or is forged: do not use it, and have it sent again"));
        }
        self.unverified_address.check_target(here)?;
        let news = match self.said {
            Said::Rotated(sealed) => News::Rotated(sealed.open(key.into().ok_or_else(no_replication_key)?)?),
            Said::Deleted => News::Deleted,
            Said::PrimaryIs(realm) => News::PrimaryIs(realm),
        };
        Ok((self.unverified_address, news))
    }

    /// The new primary that it claims, for people.
    pub(crate) fn unverified_primary(&self) -> Option<&Realm> {
        match &self.said {
            Said::PrimaryIs(realm) => Some(realm),
            _ => None,
        }
    }
}

/// What is wrong where something sealed comes to a keystore that never gave out a key for it.
pub(crate) fn no_replication_key() -> Error {
    Error::new(ErrorKind::NoMatchingKey, "this keystore has no replication key, and so nothing was sealed to it")
        .with_code("NotFoundException")
        .with_advice("give out this keystore's replication key, and have the file made for that")
}

const LABEL: &[u8] = b"envelock/kms/v1 replica\0";
