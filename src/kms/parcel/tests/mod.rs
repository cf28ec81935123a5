//! The files by themselves: what comes back, what is refused, and the bytes that an independent program makes.

mod damage;
mod imports;
mod rules;
mod vectors;

use super::bundle::Issue;
use super::content::{Content, SharedVersion};
use super::frame::Address;
use super::replication_key::{ConfirmedKey, ReplicationKey};
use crate::crypto::rsa::{RsaPrivateKey, RsaPublicKey};
use crate::kms::key::{KeyOrigin, Realm};
use crate::secret::Secret;

const KEY_ID: &str = "mrk-0123456789abcdef0123456789abcdef";
const PKCS8: &[u8] = include_bytes!("../../../crypto/tests/openssl-rsa-4096.pkcs8.der");
const SPKI: &[u8] = include_bytes!("../../../crypto/tests/openssl-rsa-4096.spki.der");

fn realm(byte: u8, region: &str) -> Realm {
    Realm { keystore_id: [byte; 16], region: region.to_owned() }
}

fn here() -> Realm {
    realm(0x22, "eu-west-1")
}

fn there() -> Realm {
    realm(0x11, "us-east-1")
}

fn private_key() -> RsaPrivateKey {
    RsaPrivateKey::from_pkcs8(PKCS8).unwrap()
}

fn public_key() -> RsaPublicKey {
    RsaPublicKey::parse(SPKI).unwrap()
}

fn replication_key() -> ReplicationKey {
    ReplicationKey { realm: here(), key: public_key() }
}

fn confirmed() -> ConfirmedKey {
    let key = replication_key();
    let fingerprint = key.fingerprint();
    key.confirm(&fingerprint).unwrap()
}

fn issue(serial: u64) -> Issue {
    Issue { issuer: there(), key_id: KEY_ID.to_owned(), serial, issued_at: 1_700_000_000_000 }
}

fn address(serial: u64) -> Address {
    issue(serial).to(&here())
}

fn material(byte: u8) -> Secret<32> {
    Secret::init(|out| *out = [byte; 32])
}

fn content(versions: &[u32]) -> Content {
    let version = |&version: &u32| SharedVersion {
        version,
        created_at: 1_600_000_000_000 + i64::from(version),
        material: material(u8::try_from(version % 251).unwrap()),
    };
    Content {
        origin: KeyOrigin::Local,
        rotation_days: Some(365),
        description: "invoices \u{1f511}".to_owned(),
        versions: versions.iter().map(version).collect(),
    }
}
