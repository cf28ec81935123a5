//! A keystore with rows in every table, and SQLite's own view of them.

use super::{CHEAP, Place, block_on, context, new_key};
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::kms::rows::RowName;
use crate::kms::schema::{TABLES, Table};
use crate::kms::{
    CreateGrantRequest, CreateKeyRequest, GrantOperation, ImportKeyMaterialRequest, ImportParameters, IssuedFile,
    KeyPolicy, KmsOptions, LocalKms, MultiRegionKeyType, ReplicationParameters, RootKey, Tag, seal_key_material,
    wrap_key_material,
};
use crate::secret::Secret;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::fs;
use std::sync::OnceLock;

/// What is made once, since it takes RSA keys: the files of a keystore, and what was given out for an import.
struct Made {
    keystore: Vec<u8>,
    root_key: Vec<u8>,
}

/// What was given out for an import into the external key: the same for every [`furnished`] keystore.
static PARAMETERS: OnceLock<ImportParameters> = OnceLock::new();

/// What was encrypted under the first version of the key of `alias/orders`, which has a second one.
static OLD_BLOB: OnceLock<Vec<u8>> = OnceLock::new();

/// What the keystore in `us-1` has to say, and was not taken in yet.
#[derive(Debug)]
pub(super) struct Letters {
    /// About its key of which there is a replica.
    pub(super) rotation: Vec<u8>,
    /// With another key.
    pub(super) bundle: IssuedFile,
}

static LETTERS: OnceLock<Letters> = OnceLock::new();

/// The replication key of the keystore in `us-1`.
static TARGET: OnceLock<ReplicationParameters> = OnceLock::new();

/// A keystore with two keys of two versions each, with tags, policies and grants; two aliases, and a moved alias; an
/// external key, into which something may be imported; a multi-Region key with two replicas; a
/// replica of another keystore's.
pub(super) fn furnished() -> (Place, LocalKms) {
    let place = furnished_place();
    let kms = place.open();
    (place, kms)
}

/// As [`furnished`], before anybody has opened it.
pub(super) fn furnished_place() -> Place {
    static MADE: OnceLock<Made> = OnceLock::new();
    let made = MADE.get_or_init(make);
    let place = Place::new();
    fs::write(place.keystore(), &made.keystore).unwrap();
    fs::write(place.root_key(), &made.root_key).unwrap();
    let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(place.root_key(), only_mine).unwrap();
    place
}

fn make() -> Made {
    let place = Place::new();
    let kms = place.open();
    for name in ["orders", "invoices"] {
        let key = block_on(kms.create_key(CreateKeyRequest::default().alias(format!("alias/{name}")))).unwrap().key_id;
        let old = block_on(kms.encrypt(&key, b"old", &context())).unwrap().ciphertext_blob;
        OLD_BLOB.get_or_init(|| old);
        block_on(kms.rotate(&key)).unwrap();
        block_on(kms.tag_resource(&key, [Tag::new("team", name)])).unwrap();
        block_on(kms.put_key_policy(&key, &policy_of(name))).unwrap();
        let grant =
            CreateGrantRequest::new("reader", [GrantOperation::Decrypt]).retiring_principal("steward").name("one");
        block_on(kms.create_grant(&key, &grant)).unwrap();
    }
    let third = new_key(&kms);
    let [orders, _] = named_keys(&kms);
    block_on(kms.update_alias("alias/orders", &third)).unwrap();
    block_on(kms.update_alias("alias/orders", &orders)).unwrap();
    let external = block_on(kms.create_key(CreateKeyRequest::default().external())).unwrap().key_id;
    import(&kms, &external);
    PARAMETERS.set(block_on(kms.get_parameters_for_import(&external)).unwrap()).unwrap();
    block_on(kms.replication_parameters()).unwrap();
    let shared = block_on(kms.create_key(CreateKeyRequest::default().multi_region())).unwrap().key_id;
    for region in ["us-1", "ap-1"] {
        let place = Place::new();
        let options = KmsOptions::default().region(region);
        let root = RootKey::file(place.root_key()).unwrap();
        let other = LocalKms::open_with(place.keystore(), root, options).unwrap();
        let target = block_on(other.replication_parameters()).unwrap();
        block_on(kms.replicate_key(&shared, &target.file, &target.fingerprint)).unwrap();
        if region == "us-1" {
            LETTERS.set(replicate_from(&other, &kms)).unwrap();
            TARGET.set(target).unwrap();
        }
    }
    block_on(kms.close()).unwrap();
    for table in TABLES {
        let rows = dump(&place.sql(), table).len();
        assert!(rows >= if table.name == "meta" { 1 } else { 2 }, "{}", table.name);
    }
    Made { keystore: fs::read(place.keystore()).unwrap(), root_key: fs::read(place.root_key()).unwrap() }
}

/// Gives the keystore a replica of a key of the other, and makes what the other has to say later.
fn replicate_from(other: &LocalKms, kms: &LocalKms) -> Letters {
    let here = block_on(kms.replication_parameters()).unwrap();
    let replicate = || {
        let key = block_on(other.create_key(CreateKeyRequest::default().multi_region())).unwrap().key_id;
        let bundle = block_on(other.replicate_key(&key, &here.file, &here.fingerprint)).unwrap();
        (key, bundle)
    };
    let (theirs, taken) = replicate();
    block_on(kms.import_replica(&taken.file, &taken.sha256)).unwrap();
    block_on(other.rotate(&theirs)).unwrap();
    let rotation = block_on(other.export_rotation(&theirs, &here.file, &here.fingerprint)).unwrap().file;
    Letters { rotation, bundle: replicate().1 }
}

pub(super) fn letters() -> &'static Letters {
    LETTERS.get().unwrap()
}

pub(super) fn old_blob() -> &'static [u8] {
    OLD_BLOB.get().unwrap()
}

pub(super) fn target() -> &'static ReplicationParameters {
    TARGET.get().unwrap()
}

/// Imports the material that the external key is to have.
pub(super) fn import(kms: &LocalKms, external: &str) {
    let text = seal_key_material(&Secret::init(|out| out.fill(7)), b"a passphrase", CHEAP).unwrap();
    let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"a passphrase");
    block_on(kms.import_key_material(external, request)).unwrap();
}

/// Imports the same by what was given out for it, whose key pair goes with that.
pub(super) fn import_wrapped(kms: &LocalKms, external: &str) -> Result<()> {
    let parameters = PARAMETERS.get().unwrap();
    let material = Secret::init(|out| out.fill(7));
    let wrapped = wrap_key_material(&material, parameters, &parameters.fingerprint()).unwrap();
    let request = ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token());
    block_on(kms.import_key_material(external, request)).map(drop)
}

/// The keys that were made with an alias: of `orders` and of `invoices`.
pub(super) fn named_keys(kms: &LocalKms) -> [String; 2] {
    ["team=orders", "team=invoices"].map(|label| {
        let (name, value) = label.split_once('=').unwrap();
        let mut keys = block_on(kms.list_keys()).unwrap().into_iter().map(|key| key.key_id);
        keys.find(|key| block_on(kms.list_resource_tags(key)).unwrap().contains(&Tag::new(name, value))).unwrap()
    })
}

/// The key whose material is imported, and the one that other keystores have.
pub(super) fn special_keys(kms: &LocalKms) -> [String; 2] {
    let keys = block_on(kms.list_keys()).unwrap();
    let external = keys.iter().find(|key| key.origin == crate::kms::KeyOrigin::External).unwrap();
    let shared = keys.iter().find(|key| key.multi_region == Some(MultiRegionKeyType::Primary)).unwrap();
    [external.key_id.clone(), shared.key_id.clone()]
}

/// The owner's, and somebody's.
pub(super) fn policy_of(somebody: &str) -> KeyPolicy {
    let policy = KeyPolicy::default().text().replace("\"owner\"", &format!("[\"owner\", {somebody:?}]"));
    KeyPolicy::parse(&policy).unwrap()
}

/// Every operation that reads deciding rows, so that each row is used by one of them.
pub(super) fn use_everything(kms: &LocalKms) -> Result<()> {
    for key in block_on(kms.list_keys())? {
        block_on(kms.list_key_versions(&key.key_id))?;
        block_on(kms.encrypt(&key.key_id, b"x", &context()))?;
        block_on(kms.list_resource_tags(&key.key_id))?;
        block_on(kms.get_key_policy(&key.key_id))?;
        block_on(kms.list_grants(&key.key_id))?;
    }
    for alias in block_on(kms.list_aliases())? {
        block_on(kms.describe_key(&alias.alias_name))?;
        let provider = kms.provider(&alias.alias_name)?;
        let slot = crate::material::EncryptedDataKey::new("local", provider.key_name(), vec![1]);
        let kms_context = crate::context::KmsContext::new(&context())?;
        match block_on(crate::provider::KeyProvider::decrypt_data_key(&provider, &slot, &kms_context)) {
            crate::provider::DataKeyAnswer::Failed(error) if error.kind() != ErrorKind::AuthenticationFailed => {
                return Err(error);
            }
            _ => {}
        }
    }
    block_on(kms.replication_parameters())?;
    let parameters = PARAMETERS.get().unwrap();
    let request = ImportKeyMaterialRequest::wrapped(vec![1; 512], parameters.import_token());
    // Nobody wrapped that, and so nothing is imported.
    let refused = block_on(kms.import_key_material(parameters.key_id(), request)).unwrap_err();
    unless(refused, "InvalidCiphertextException")?;
    for key in block_on(kms.list_keys())? {
        if key.multi_region.is_some() {
            block_on(kms.multi_region_configuration(&key.key_id))?;
            // Looks through all files that were given out.
            let none = block_on(kms.export_deletion_receipt(&key.key_id)).unwrap_err();
            unless(none, "NotFoundException")?;
        }
    }
    Ok(())
}

fn unless(error: Error, expected: &str) -> Result<()> {
    if error.code() == Some(expected) { Ok(()) } else { Err(error) }
}

/// All rows of a table with their MACs, by identity.
pub(super) fn dump(sql: &Connection, table: &Table) -> Vec<Vec<Value>> {
    let order = table.columns[..table.identity].join(", ");
    let query = format!("SELECT {}, row_mac FROM {} ORDER BY {order}", table.columns.join(", "), table.name);
    let mut statement = sql.prepare(&query).unwrap();
    let rows = statement.query_map([], |row| {
        (0..=table.columns.len()).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

pub(super) fn condition(table: &Table) -> String {
    table.columns[..table.identity].iter().map(|it| format!("{it} IS ?")).collect::<Vec<_>>().join(" AND ")
}

pub(super) fn remove_all(sql: &Connection, table: &Table, row: &[Value]) {
    let statement = format!("DELETE FROM {} WHERE {}", table.name, condition(table));
    sql.execute(&statement, params_from_iter(&row[..table.identity])).unwrap();
}

/// Exactly this row, not another that was given its identity.
pub(super) fn remove(sql: &Connection, table: &Table, row: &[Value]) {
    let all: Vec<_> = table.columns.iter().chain([&"row_mac"]).map(|it| format!("{it} IS ?")).collect();
    let statement = format!("DELETE FROM {} WHERE {}", table.name, all.join(" AND "));
    assert_eq!(sql.execute(&statement, params_from_iter(row)).unwrap(), 1);
}

/// Another value of the same type, as a forger would choose it.
pub(super) fn other(value: &Value) -> Value {
    match value {
        Value::Null => Value::Integer(1),
        Value::Integer(number) => Value::Integer(number ^ 1),
        Value::Real(number) => Value::Real(number + 1.0),
        Value::Text(text) => Value::Text(match text.as_str() {
            "Enabled" => "Disabled".to_owned(),
            "customer" => "managed".to_owned(),
            _ => format!("{text}x"),
        }),
        Value::Blob(bytes) => {
            let mut bytes = bytes.clone();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            Value::Blob(bytes)
        }
    }
}

/// Without the checks and keys that the tables were made with: what a writer of the file can do.
pub(super) fn without_constraints(sql: &Connection, table: &Table) {
    let columns = format!("{}, row_mac", table.columns.join(", "));
    sql.execute_batch(&format!(
        "CREATE TABLE free ({columns}); INSERT INTO free SELECT {columns} FROM {0};
         DROP TABLE {0}; ALTER TABLE free RENAME TO {0};",
        table.name
    ))
    .unwrap();
}

/// That the tampering is told as such, with one of these sentences in it.
#[track_caller]
pub(super) fn assert_tampered(error: &Error, sentences: &[String], what: &str) {
    assert_eq!(
        (error.kind(), error.keystore_cause()),
        (ErrorKind::Storage, Some(KeystoreCause::Tampered)),
        "{what}: {error:?}"
    );
    let told = error.to_string();
    assert!(sentences.iter().any(|it| told.contains(it.as_str())), "{what}: none of {sentences:?} is in {told}");
}

/// `the row "keys …" was removed`, and the like.
pub(super) fn sentence(table: &Table, row: &[Value], happened: &str) -> String {
    format!("the row {:?} {happened}", RowName::of(table, row).as_str())
}

pub(super) fn put(sql: &Connection, table: &Table, row: &[Value]) {
    let places = vec!["?"; row.len()].join(", ");
    let statement = format!("INSERT INTO {} ({}, row_mac) VALUES ({places})", table.name, table.columns.join(", "));
    sql.execute(&statement, params_from_iter(row)).unwrap();
}
