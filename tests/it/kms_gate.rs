//! Every method of an embedded keystore obeys the state table: real keys of each kind are driven into each state that the
//! kind has, and asked for everything. What the table itself says is compared with AWS's in `kms_states`.

use crate::support::child::long;
use envelock::kms::{
    CreateGrantRequest, DeletionWindow, GrantOperation, ImportKeyMaterialRequest, KeyKind, KeyMetadata, KeyOperation,
    KeyPolicy, KeyState, Refusal, ReplicationParameters, RotationPeriod, Tag, allowed, seal_key_material,
};
use envelock::{
    CreateKeyRequest, DataKeyLength, EncryptionContext, Error, KmsOptions, LocalKms, PassphraseCost, RootKey, Secret,
};
use pollster::block_on;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A key in its state, and what was made with it while it could.
struct Subject {
    kind: KeyKind,
    state: KeyState,
    key: String,
    /// An alias of the key's own.
    alias: String,
    blob: Vec<u8>,
    grants: [String; 2],
}

/// A keystore with a key of each kind in each state, and the file as it was then.
struct Scene {
    folder: TempDir,
    kms: LocalKms,
    copies: usize,
    /// An enabled key, and what it encrypted.
    other: String,
    others_blob: Vec<u8>,
    /// The keystore that has replicas of the primary keys here, and another one.
    elsewhere: [ReplicationParameters; 2],
    subjects: Vec<Subject>,
    material: ImportKeyMaterialRequest,
    new_material: ImportKeyMaterialRequest,
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn open(path: &Path, root: &Path, region: &str) -> LocalKms {
    // Nobody kills this process, and so the many calls that change nothing need not wait for the disk.
    let options = KmsOptions::default().region(region).risk_losing_audit_records(Duration::from_secs(1));
    LocalKms::open_with(path, RootKey::file(root).unwrap(), options).unwrap()
}

fn under_passphrase(byte: u8) -> ImportKeyMaterialRequest {
    let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
    let text = seal_key_material(&Secret::init(|out| out.fill(byte)), b"a passphrase", cost).unwrap();
    ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"a passphrase")
}

fn is_imported(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Imported | KeyKind::ImportedPrimary | KeyKind::ImportedReplica)
}

fn new_key(kms: &LocalKms, kind: KeyKind, material: &ImportKeyMaterialRequest) -> KeyMetadata {
    let request = match kind {
        KeyKind::Managed => return block_on(kms.describe_key("alias/envelock/default")).unwrap(),
        KeyKind::Customer | KeyKind::Imported => CreateKeyRequest::default(),
        _ => CreateKeyRequest::default().multi_region(),
    };
    if !is_imported(kind) {
        return block_on(kms.create_key(request)).unwrap();
    }
    let key = block_on(kms.create_key(request.external())).unwrap();
    block_on(kms.import_key_material(&key.key_id, material.clone())).unwrap();
    key
}

impl Scene {
    fn new() -> Self {
        // Hundreds of changes that need no disk: in memory, where there is such a folder.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let keystore = |name: &str| {
            open(&folder.path().join(format!("{name}.db")), &folder.path().join(format!("{name}.key")), name)
        };
        let [kms, eu, ap] = ["us-1", "eu-1", "ap-1"].map(keystore);
        let parameters = |kms: &LocalKms| block_on(kms.replication_parameters()).unwrap();
        let (here, elsewhere) = (parameters(&kms), [parameters(&eu), parameters(&ap)]);
        let material = under_passphrase(7);
        let other = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/other"))).unwrap().key_id;
        let others_blob = block_on(kms.encrypt(&other, b"x", &context())).unwrap().ciphertext_blob;
        let mut subjects = Vec::new();
        for kind in KeyKind::ALL {
            for &state in kind.states() {
                let key = match kind {
                    KeyKind::MultiRegionReplica | KeyKind::ImportedReplica => {
                        let key = new_key(&eu, kind, &material).key_id;
                        let bundle = block_on(eu.replicate_key(&key, &here.file, &here.fingerprint)).unwrap();
                        block_on(kms.import_replica(&bundle.file, &bundle.sha256)).unwrap().key_id
                    }
                    _ => new_key(&kms, kind, &material).key_id,
                };
                let is_primary = matches!(kind, KeyKind::MultiRegionPrimary | KeyKind::ImportedPrimary);
                // A key with replicas waits for these first.
                if is_primary && state != KeyState::PendingDeletion {
                    block_on(kms.replicate_key(&key, &elsewhere[0].file, &elsewhere[0].fingerprint)).unwrap();
                }
                subjects.push(subject(&kms, kind, state, key));
            }
        }
        block_on(kms.close()).unwrap();
        let mut scene = Self {
            folder,
            kms,
            copies: 0,
            other,
            others_blob,
            elsewhere,
            subjects,
            material,
            new_material: under_passphrase(8).new_key_material(),
        };
        scene.start_again();
        scene
    }

    /// Everything as it was: another copy of the keystore's file.
    fn start_again(&mut self) {
        self.copies += 1;
        let _ = block_on(self.kms.close());
        let path = self.folder.path().join(format!("copy-{}.db", self.copies));
        fs::copy(self.folder.path().join("us-1.db"), &path).unwrap();
        self.kms = open(&path, &self.folder.path().join("us-1.key"), "us-1");
    }

    /// Asks for an operation by the method that is for it, with what succeeds where the key allows it.
    fn ask(&self, subject: &Subject, operation: KeyOperation) -> Result<(), Error> {
        use KeyOperation as Op;
        let (kms, key, of) = (&self.kms, &*subject.key, context());
        let length = DataKeyLength::Bytes32;
        match operation {
            Op::CancelKeyDeletion => block_on(kms.cancel_key_deletion(key)).map(drop),
            Op::CreateAlias => block_on(kms.create_alias(&format!("alias/another-{key}"), key)),
            Op::CreateGrant => block_on(kms.create_grant(key, &grant("another"))).map(drop),
            Op::Decrypt => block_on(kms.decrypt(&subject.blob, &of)).map(drop),
            Op::DeleteAlias => block_on(kms.delete_alias(&subject.alias)),
            Op::DeleteImportedKeyMaterial => block_on(kms.delete_imported_key_material(key)),
            Op::DescribeKey => block_on(kms.describe_key(key)).map(drop),
            Op::DisableKey => block_on(kms.disable_key(key)),
            Op::DisableKeyRotation => block_on(kms.disable_key_rotation(key)),
            Op::EnableKey => block_on(kms.enable_key(key)),
            Op::EnableKeyRotation => block_on(kms.enable_key_rotation(key, RotationPeriod::default())),
            Op::Encrypt => block_on(kms.encrypt(key, b"x", &of)).map(drop),
            Op::GenerateDataKey => block_on(kms.generate_data_key(key, length, &of)).map(drop),
            Op::GenerateDataKeyWithoutPlaintext => {
                block_on(kms.generate_data_key_without_plaintext(key, length, &of)).map(drop)
            }
            Op::GetKeyPolicy => block_on(kms.get_key_policy(key)).map(drop),
            Op::GetKeyRotationStatus => block_on(kms.get_key_rotation_status(key)).map(drop),
            Op::GetParametersForImport => block_on(kms.get_parameters_for_import(key)).map(drop),
            Op::ImportKeyMaterial => block_on(kms.import_key_material(key, self.material.clone())).map(drop),
            Op::ListAliases => block_on(kms.list_aliases_of(key)).map(drop),
            Op::ListGrants => block_on(kms.list_grants(key)).map(drop),
            Op::ListKeyPolicies => block_on(kms.get_key_policy(key)).map(drop),
            Op::ListKeyRotations => block_on(kms.list_key_rotations(key)).map(drop),
            Op::ListResourceTags => block_on(kms.list_resource_tags(key)).map(drop),
            Op::ListRetirableGrants => block_on(kms.list_retirable_grants("steward")).map(drop),
            Op::PutKeyPolicy => block_on(kms.put_key_policy(key, &KeyPolicy::default())),
            Op::ReEncryptFrom => block_on(kms.re_encrypt(&subject.blob, &of, &self.other)).map(drop),
            Op::ReEncryptTo => block_on(kms.re_encrypt(&self.others_blob, &of, key)).map(drop),
            Op::ReplicateKey => {
                let [_, target] = &self.elsewhere;
                block_on(kms.replicate_key(key, &target.file, &target.fingerprint)).map(drop)
            }
            Op::RetireGrant => block_on(kms.retire_grant(key, &subject.grants[0])),
            Op::RevokeGrant => block_on(kms.revoke_grant(key, &subject.grants[1])),
            Op::RotateKeyOnDemand => {
                if is_imported(subject.kind) {
                    // There is something to rotate to, where the key takes it.
                    drop(block_on(kms.import_key_material(key, self.new_material.clone())));
                }
                block_on(kms.rotate(key)).map(drop)
            }
            Op::ScheduleKeyDeletion => block_on(kms.schedule_key_deletion(key, DeletionWindow::default())).map(drop),
            Op::TagResource => block_on(kms.tag_resource(key, [Tag::new("stage", "x")])),
            Op::UntagResource => block_on(kms.untag_resource(key, ["team"])),
            Op::UpdateAlias => block_on(kms.update_alias("alias/other", key)),
            Op::UpdateKeyDescription => block_on(kms.update_key_description(key, "described")),
            Op::UpdatePrimaryRegion => block_on(kms.update_primary_region(key, "eu-1")).map(drop),
            _ => panic!("no method is known for {operation:?}"),
        }
    }
}

fn grant(name: &str) -> CreateGrantRequest {
    CreateGrantRequest::new("worker", [GrantOperation::Decrypt]).retiring_principal("steward").name(name)
}

/// Brings a key that is enabled into `state`, with everything that is to be asked of it later.
fn subject(kms: &LocalKms, kind: KeyKind, state: KeyState, key: String) -> Subject {
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    let mut alias = "alias/envelock/default".to_owned();
    let mut grants = [String::new(), String::new()];
    if kind != KeyKind::Managed {
        alias = format!("alias/{key}");
        block_on(kms.create_alias(&alias, &key)).unwrap();
        grants = ["one", "two"].map(|name| block_on(kms.create_grant(&key, &grant(name))).unwrap().grant_id);
        block_on(kms.tag_resource(&key, [Tag::new("team", "x")])).unwrap();
    }
    match state {
        KeyState::Disabled => block_on(kms.disable_key(&key)).unwrap(),
        KeyState::PendingDeletion | KeyState::PendingReplicaDeletion => {
            drop(block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap());
        }
        KeyState::PendingImport => block_on(kms.delete_imported_key_material(&key)).unwrap(),
        _ => {}
    }
    let found = block_on(kms.describe_key(&key)).unwrap();
    assert_eq!(found.key_state, state, "{kind:?}");
    assert_eq!(KeyKind::of(found.key_manager, found.origin, found.multi_region), kind);
    Subject { kind, state, key, alias, blob, grants }
}

/// The error of what cannot be asked of a managed key: it has no grants, and no alias but the one that the keystore made,
/// which is refused by its name.
fn beyond_the_table(subject: &Subject, operation: KeyOperation) -> Option<&'static str> {
    match (subject.kind, operation) {
        (KeyKind::Managed, KeyOperation::RetireGrant | KeyOperation::RevokeGrant) => Some("NotFoundException"),
        (KeyKind::Managed, KeyOperation::DeleteAlias) => Some("InvalidAliasNameException"),
        _ => None,
    }
}

#[test]
fn every_method_obeys_the_table_for_every_kind_of_key_in_every_state() {
    let mut scene = Scene::new();
    let (mut succeeded, mut refused) = (0, Vec::<Refusal>::new());
    for at in 0..scene.subjects.len() {
        for operation in KeyOperation::ALL {
            let subject = &scene.subjects[at];
            let (kind, state) = (subject.kind, subject.state);
            let expected = allowed(kind, state, operation);
            // An RSA key pair takes a second, and more without AWS-LC.
            let slow = operation == KeyOperation::GetParametersForImport && expected.is_ok();
            if slow && (kind, state) != (KeyKind::Imported, KeyState::Enabled) && !long() {
                continue;
            }
            let beyond = beyond_the_table(subject, operation);
            let before = block_on(scene.kms.describe_key(&subject.key)).unwrap();
            let answer = scene.ask(subject, operation);
            match (answer, expected) {
                (Err(e), _) if beyond.is_some() => {
                    assert_eq!(e.code(), beyond, "{kind:?} {state:?} {operation:?}: {e}");
                }
                (Ok(()), Ok(())) => succeeded += 1,
                (Err(e), Err(refusal)) => {
                    assert_eq!(e.code(), Some(refusal.code()), "{kind:?} {state:?} {operation:?}: {e}");
                    let says = format!("the key {} {refusal}", subject.key);
                    assert!(e.to_string().contains(&says), "{kind:?} {state:?} {operation:?}: {e}");
                    refused.push(refusal);
                }
                (answer, expected) => panic!("{kind:?} {state:?} {operation:?}: {answer:?}, not {expected:?}"),
            }
            let after = block_on(scene.kms.describe_key(&subject.key)).unwrap();
            match expected {
                Err(_) => assert_eq!(after, before, "{kind:?} {state:?} {operation:?}: refused, and done"),
                // The next operation finds the state that it is to be asked in.
                Ok(()) if (after.key_state, after.multi_region) != (state, before.multi_region) => scene.start_again(),
                Ok(()) => {}
            }
        }
    }
    assert!(succeeded > 300 && refused.len() > 200, "{succeeded} {}", refused.len());
    assert!(Refusal::ALL.iter().all(|refusal| refused.contains(refusal)));
}
