//! The files that an independent program made (tests/vectors/kms/files.json): each is read, and made again, byte for
//! byte, from what was random in it.

use super::{material, private_key, public_key};
use crate::crypto::rsa::RSA_LEN;
use crate::error::Error;
use crate::kms::key::{KeyOrigin, Realm};
use crate::kms::parcel::bundle;
use crate::kms::parcel::content::{Content, SharedVersion};
use crate::kms::parcel::fingerprint::Sha256Fingerprint;
use crate::kms::parcel::frame::{self, Address, FileKind};
use crate::kms::parcel::import::{ImportParameters, TokenPlace, check_token};
use crate::kms::parcel::letter::{self, Letter, News};
use crate::kms::parcel::material_text::{open_key_material, seal_with};
use crate::kms::parcel::replication_key::ReplicationKey;
use crate::kms::parcel::sealed::{Fresh, seal_with as seal_content};
use crate::provider::passphrase::PassphraseCost;
use crate::secret::Secret;
use serde_json::Value;

const VECTORS: &str = include_str!("../../../../tests/vectors/kms/files.json");

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

fn secret(value: &Value) -> Secret<32> {
    Secret::from_slice(&unhex(value)).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

fn realm(value: &Value) -> Realm {
    Realm { keystore_id: array(&value["keystore"]), region: text(&value["region"]) }
}

fn address(vector: &Value) -> Address {
    Address {
        issuer: realm(&vector["issuer"]),
        target: realm(&vector["target"]),
        key_id: text(&vector["key_id"]),
        serial: number(&vector["serial"]),
        issued_at: number(&vector["issued_at"]),
    }
}

fn content(vector: &Value) -> Content {
    let version = |it: &Value| SharedVersion {
        version: number(&it["version"]),
        created_at: number(&it["created_at"]),
        material: secret(&it["material"]),
    };
    Content {
        origin: if vector["origin"] == "local" { KeyOrigin::Local } else { KeyOrigin::External },
        rotation_days: Some(number(&vector["rotation_days"])).filter(|days| *days != 0),
        description: text(&vector["description"]),
        versions: vector["versions"].as_array().unwrap().iter().map(version).collect(),
    }
}

/// The sealed part made again. What RSA-OAEP made of the content key is taken from the file, since no backend takes
/// its seed; that it is of this content key, the reading shows.
fn sealed_again(kind: FileKind, vector: &Value, file: &[u8]) -> Vec<u8> {
    let mut begun = frame::begin(kind);
    address(vector).put(&mut begun).unwrap();
    let fresh = Fresh {
        key: secret(&vector["fresh"]["key"]),
        wrapped: file[begun.len() + 4..begun.len() + 4 + RSA_LEN].try_into().unwrap(),
        iv: array(&vector["fresh"]["iv"]),
    };
    assert_eq!(private_key().decrypt(&fresh.wrapped).unwrap().as_slice(), fresh.key.expose());
    seal_content(begun, &content(vector), &fresh).unwrap()
}

fn news(vector: &Value, file: &[u8]) -> Result<(Address, News), Error> {
    let here = realm(&vector["target"]);
    let refused = Letter::parse(file)?.open(&material(0xEE), &here, &private_key());
    assert!(refused.is_err(), "under another material");
    Letter::parse(file)?.open(&secret(&vector["first"]), &here, &private_key())
}

#[test]
fn every_vector_is_read_and_made_again() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut kinds = Vec::new();
    for vector in vectors["vectors"].as_array().unwrap() {
        let kind = vector["kind"].as_str().unwrap();
        kinds.push(kind);
        if kind == "material-text" {
            material_text(vector);
            continue;
        }
        let file = unhex(&vector["file"]);
        match kind {
            "import-parameters" => import_parameters(vector, &file),
            "replication-key" => {
                let key = ReplicationKey { realm: realm(&vector["issuer"]), key: public_key() };
                assert_eq!(ReplicationKey::parse(&file).unwrap(), key);
                assert_eq!(key.encode().unwrap(), file);
            }
            "replica-bundle" => {
                let hash = Sha256Fingerprint::of(&file);
                let opened = bundle::open(&file, &hash, &realm(&vector["target"]), &private_key()).unwrap();
                assert_eq!(opened, (address(vector), content(vector)));
                assert_eq!(sealed_again(FileKind::ReplicaBundle, vector, &file), file);
            }
            "rotation" => {
                assert_eq!(news(vector, &file).unwrap(), (address(vector), News::Rotated(content(vector))));
                let sealed = sealed_again(FileKind::Rotation, vector, &file);
                let again = letter::authenticate(sealed, &text(&vector["key_id"]), &secret(&vector["first"]));
                assert_eq!(again.unwrap(), file);
            }
            "deletion-receipt" => {
                assert_eq!(news(vector, &file).unwrap(), (address(vector), News::Deleted));
                let again = letter::make_deletion_receipt(&address(vector), &secret(&vector["first"]));
                assert_eq!(again.unwrap(), file);
            }
            "primary-change" => {
                let primary = realm(&vector["primary"]);
                let again = letter::make_primary_change(&address(vector), &primary, &secret(&vector["first"]));
                assert_eq!(again.unwrap(), file);
                assert_eq!(news(vector, &file).unwrap(), (address(vector), News::PrimaryIs(primary)));
            }
            other => panic!("a vector of the kind {other}"),
        }
    }
    let names = FileKind::ALL.map(FileKind::name);
    assert_eq!(kinds, [&names[..], &["material-text"]].concat(), "one of each kind");
}

fn material_text(vector: &Value) {
    let line = text(&vector["file"]);
    let passphrase = text(&vector["passphrase"]);
    let opened = open_key_material(line.as_bytes(), passphrase.as_bytes()).unwrap();
    assert_eq!(opened.expose().as_slice(), unhex(&vector["material"]));
    let cost = &vector["argon2"];
    let cost = PassphraseCost { memory_kib: number(&cost[0]), passes: number(&cost[1]), lanes: number(&cost[2]) };
    let again = seal_with(&opened, cost, &array(&vector["salt"]), &array(&vector["iv"]), |salt, cost| {
        Secret::try_init(|out| {
            let lanes = u32::from(cost.lanes);
            crate::crypto::password::argon2id(passphrase.as_bytes(), salt, cost.memory_kib, cost.passes, lanes, out)
        })
    });
    assert_eq!(again.unwrap().as_str(), line);
}

fn import_parameters(vector: &Value, file: &[u8]) {
    let (keystore_id, key_id, token_key) =
        (array(&vector["keystore"]), text(&vector["key_id"]), secret(&vector["token_key"]));
    let place = TokenPlace { keystore_id: &keystore_id, key_id: &key_id, token_key: &token_key };
    let now = number(&vector["now"]);
    let again = ImportParameters::issue_with(place, public_key(), now, array(&vector["random"])).unwrap();
    assert_eq!(again.to_file(), file);
    let parsed = ImportParameters::parse(file).unwrap();
    assert_eq!(parsed, again);
    let token = check_token(parsed.import_token(), place, now).unwrap();
    assert_eq!((token.id, token.fingerprint), (array(&vector["random"]), parsed.fingerprint()));
}
