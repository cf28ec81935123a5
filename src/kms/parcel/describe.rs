//! What a file says of itself, to whoever has no key.

use super::bundle::Bundle;
use super::fingerprint::Sha256Fingerprint;
use super::frame::{self, Address, FileKind};
use super::import::ImportParameters;
use super::letter::Letter;
use super::replication_key::ReplicationKey;
use crate::error::Result;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a keystore's file says of itself. Nothing of it is verified: that takes a keystore, and a fingerprint that came
/// another way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileDescription {
    /// What the file is for.
    pub kind: FileKind,
    /// The id of the key that it is about; a replication key is about none.
    pub key_id: Option<String>,
    /// Who made it: `envelock:<region>:<keystore id>`. Import parameters do not say.
    pub issuer: Option<String>,
    /// Who it is for, where it is for one keystore alone.
    pub target: Option<String>,
    /// The keystore that it says has the primary key now: in a primary change.
    pub primary: Option<String>,
    /// The issuer's serial number.
    pub serial: Option<u64>,
    /// When it was made.
    pub issued: Option<SystemTime>,
    /// Until when it is good: import parameters.
    pub valid_to: Option<SystemTime>,
    /// SHA-256 of the public key in it, to be compared by another way.
    pub public_key: Option<Sha256Fingerprint>,
    /// SHA-256 of the whole file, which the import of a replica bundle is asked for. The one that counts is the one
    /// that its source printed.
    pub sha256: Sha256Fingerprint,
}

/// Says what a keystore's file is, without any key, and so unverified. The whole of it is parsed, up to what is
/// encrypted.
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed) for what is no file of a keystore;
/// [`Unsupported`](crate::ErrorKind::Unsupported) for a version or kind that is unknown here;
/// [`Truncated`](crate::ErrorKind::Truncated); [`TrailingData`](crate::ErrorKind::TrailingData);
/// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 256 KiB.
pub fn describe_file(file: &[u8]) -> Result<FileDescription> {
    let (kind, _) = frame::kind_of(file)?;
    let nothing = FileDescription {
        kind,
        key_id: None,
        issuer: None,
        target: None,
        primary: None,
        serial: None,
        issued: None,
        valid_to: None,
        public_key: None,
        sha256: Sha256Fingerprint::of(file),
    };
    Ok(match kind {
        FileKind::ImportParameters => {
            let parameters = ImportParameters::parse(file)?;
            FileDescription {
                key_id: Some(parameters.key_id().to_owned()),
                valid_to: Some(parameters.valid_to()),
                public_key: Some(parameters.fingerprint()),
                ..nothing
            }
        }
        FileKind::ReplicationKey => {
            let key = ReplicationKey::parse(file)?;
            FileDescription { issuer: Some(key.realm.to_string()), public_key: Some(key.fingerprint()), ..nothing }
        }
        FileKind::ReplicaBundle => addressed(nothing, &Bundle::parse(file)?.unverified_address),
        FileKind::Rotation | FileKind::DeletionReceipt | FileKind::PrimaryChange => {
            let letter = Letter::parse(file)?;
            let primary = letter.unverified_primary().map(ToString::to_string);
            FileDescription { primary, ..addressed(nothing, &letter.unverified_address) }
        }
    })
}

fn addressed(nothing: FileDescription, address: &Address) -> FileDescription {
    let issued = u64::try_from(address.issued_at).unwrap_or(0);
    FileDescription {
        key_id: Some(address.key_id.clone()),
        issuer: Some(address.issuer.to_string()),
        target: Some(address.target.to_string()),
        serial: Some(address.serial),
        issued: Some(UNIX_EPOCH + Duration::from_millis(issued)),
        ..nothing
    }
}
