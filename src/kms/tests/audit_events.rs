//! Each event of the audit trail, allowed, denied and failed: one record, of this name, by this principal, about this key
//! and with this code.

use super::audit::{furnished, named};
use super::{CHEAP, DAY, Hands, Place, block_on, context};
use crate::clock::Clock;
use crate::error::Result;
use crate::kms::policy::PolicyAction;
use crate::kms::{
    AUDIT_EVENTS, AuditRetention, CacheFigures, CreateGrantRequest, CreateKeyRequest, DeletionWindow, GrantOperation,
    ImportKeyMaterialRequest, KeyPolicy, KmsOptions, LocalKms, OWNER, RestoreOptions, RootKey, RotationPeriod,
    Sha256Fingerprint, Tag, seal_key_material,
};
use crate::material::DataKeyLength;
use crate::secret::Secret;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const NOW: u64 = 20_000 * DAY;
const DENIED: &str = "AccessDeniedException";
/// No key has this id.
const NO_KEY: &str = "00000000-0000-4000-8000-000000000000";
const PASSPHRASE: &[u8] = b"a passphrase";

/// What the keystore does by itself, and what nobody is asked about.
const NEVER_DENIED: [&str; 7] = [
    "CreateKeystore",
    "DeleteExpiredKeyMaterial",
    "DeleteExpiredWrappingKey",
    "DeleteKey",
    "MigrateKeystore",
    "RestoreKeystore",
    "RotateKey",
];
/// Likewise; and what has nothing to go wrong once it is allowed.
const NEVER_FAILED: [&str; 16] = [
    "CreateKeystore",
    "DeleteExpiredKeyMaterial",
    "DeleteExpiredWrappingKey",
    "DeleteKey",
    "ExportRootKey",
    "GenerateRandom",
    "GetReplicationParameters",
    "ListAliases",
    "ListKeys",
    "ListRetirableGrants",
    "MigrateKeystore",
    "RecordCacheStatistics",
    "RekeyKeystore",
    "RestoreKeystore",
    "RotateKey",
    "TrimAudit",
];

type Act<'a> = &'a dyn Fn(&LocalKms, &str) -> Result<()>;

/// Which records were seen: of which event, and whether it was allowed, denied or failed.
type Seen = BTreeSet<(&'static str, &'static str)>;

struct Store {
    place: Place,
    kms: LocalKms,
    mallory: LocalKms,
}

impl Store {
    fn new(region: &str, hands: &Arc<Hands>) -> Self {
        let place = Place::new();
        let options = KmsOptions::default().region(region).clock(Arc::clone(hands) as Arc<dyn Clock>);
        let kms = LocalKms::open_with(place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap();
        let mallory = kms.as_principal("mallory").unwrap();
        Self { place, kms, mallory }
    }

    fn key(&self, request: CreateKeyRequest) -> String {
        block_on(self.kms.create_key(request)).unwrap().key_id
    }

    /// Does `act`, which leaves one record, of this event, by whoever did it, and about this key. Its code.
    #[track_caller]
    fn one(&self, event: &str, who: &LocalKms, key: &str, act: impl FnOnce(&LocalKms) -> Result<()>) -> String {
        let before = self.place.trail();
        let answer = act(who);
        let trail = self.place.trail();
        let [more] = &trail[before.len()..] else {
            panic!("{event}: {:?} after {answer:?}", &trail[before.len()..]);
        };
        let [name, principal, about, code] = more;
        assert_eq!((name.as_str(), principal.as_str(), about.as_str()), (event, who.principal(), key), "{answer:?}");
        match &answer {
            Ok(()) => assert_eq!(code, "", "{event}"),
            Err(error) => assert!(!code.is_empty() && error.code().is_none_or(|it| it == code), "{event}: {error}"),
        }
        code.clone()
    }

    #[track_caller]
    fn allowed(&self, seen: &mut Seen, event: &'static str, key: &str, act: impl FnOnce(&LocalKms) -> Result<()>) {
        assert_eq!(self.one(event, &self.kms, key, act), "", "{event}");
        seen.insert((event, "allowed"));
    }

    #[track_caller]
    fn denied(&self, seen: &mut Seen, event: &'static str, key: &str, act: impl FnOnce(&LocalKms) -> Result<()>) {
        assert_eq!(self.one(event, &self.mallory, key, act), DENIED, "{event}");
        seen.insert((event, "denied"));
    }

    #[track_caller]
    fn failed(&self, seen: &mut Seen, event: &'static str, key: &str, act: impl FnOnce(&LocalKms) -> Result<()>) {
        let code = self.one(event, &self.kms, key, act);
        assert!(!code.is_empty() && code != DENIED, "{event}: {code:?}");
        seen.insert((event, "failed"));
    }

    /// What is about a key: denied, failed since there is no such key, and allowed.
    #[track_caller]
    fn each(&self, seen: &mut Seen, event: &'static str, key: &str, act: Act<'_>) {
        self.denied(seen, event, key, |kms| act(kms, key));
        self.failed(seen, event, "", |kms| act(kms, NO_KEY));
        self.allowed(seen, event, key, |kms| act(kms, key));
    }

    /// What is about no key, or one that is named otherwise.
    #[track_caller]
    fn plain(&self, seen: &mut Seen, event: &'static str, act: &dyn Fn(&LocalKms) -> Result<()>) {
        self.denied(seen, event, "", act);
        self.allowed(seen, event, "", act);
    }

    /// How often the keystore did this by itself.
    fn by_itself(&self, seen: &mut Seen, event: &'static str, key: &str) {
        let record = [event, "envelock", key, ""].map(str::to_owned);
        assert_eq!(
            self.place.trail().iter().filter(|it| **it == record).count(),
            1,
            "{event}: {:?}",
            self.place.trail()
        );
        seen.insert((event, "allowed"));
    }
}

#[test]
fn every_event_leaves_one_record_whatever_became_of_it() {
    let hands = Hands::at(NOW);
    let mut seen = Seen::new();
    let [eu, us] = ["eu-1", "us-1"].map(|region| Store::new(region, &hands));
    keystores(&mut seen, &eu);
    keys(&mut seen, &eu);
    permissions(&mut seen, &eu);
    data(&mut seen, &eu);
    imports(&mut seen, &eu, &hands);
    families(&mut seen, [&eu, &us], &hands);
    due(&mut seen, &eu, &hands);
    whole(&mut seen, &eu);
    for event in AUDIT_EVENTS {
        assert!(seen.contains(&(event, "allowed")), "{event} was not allowed");
        assert!(seen.contains(&(event, "denied")) != NEVER_DENIED.contains(&event), "{event} denied");
        assert!(seen.contains(&(event, "failed")) != NEVER_FAILED.contains(&event), "{event} failed");
    }
}

/// How a keystore comes about.
fn keystores(seen: &mut Seen, store: &Store) {
    let begin = |event: &'static str| [event, OWNER, "", ""].map(str::to_owned);
    assert_eq!(store.place.trail(), [begin("CreateKeystore")]);
    let (frozen, restored) = (Place::new(), Place::new());
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/keystore-1/");
    std::fs::copy(format!("{old}keys.db"), frozen.keystore()).unwrap();
    let root = || RootKey::value(&std::fs::read_to_string(format!("{old}root-key.txt")).unwrap()).unwrap();
    let kms = LocalKms::open_existing(frozen.keystore(), root()).unwrap();
    assert_eq!(frozen.trail().iter().map(|it| it[0].as_str()).collect::<Vec<_>>(), ["MigrateKeystore"]);
    let backup = frozen.folder.path().join("backup.db");
    block_on(kms.backup(&backup)).unwrap();
    LocalKms::restore(backup, restored.keystore(), root(), RestoreOptions::default()).unwrap();
    assert_eq!(restored.trail()[1..], [begin("RestoreKeystore")]);
    seen.extend(["CreateKeystore", "MigrateKeystore", "RestoreKeystore"].map(|event| (event, "allowed")));
}

fn keys(seen: &mut Seen, store: &Store) {
    let key = &*store.key(CreateKeyRequest::default());
    store.denied(seen, "CreateKey", "", |kms| block_on(kms.create_key(CreateKeyRequest::default())).map(drop));
    // Its record has the new key, which nobody knows before.
    let made = store.place.trail();
    let created: Vec<_> = made.iter().filter(|it| it[0] == "CreateKey" && it[3].is_empty()).collect();
    assert_eq!(created, [&["CreateKey", OWNER, key, ""].map(str::to_owned)]);
    seen.insert(("CreateKey", "allowed"));
    let twice = |kms: &LocalKms| block_on(kms.create_key(CreateKeyRequest::default().alias("alias/first"))).map(drop);
    twice(&store.kms).unwrap();
    store.failed(seen, "CreateKey", "", twice);
    store.plain(seen, "ListKeys", &|kms| block_on(kms.list_keys()).map(drop));
    store.plain(seen, "ListAliases", &|kms| block_on(kms.list_aliases()).map(drop));
    store.each(seen, "DescribeKey", key, &|kms, key| block_on(kms.describe_key(key)).map(drop));
    store.each(seen, "UpdateKeyDescription", key, &|kms, key| block_on(kms.update_key_description(key, "text")));
    store.each(seen, "CreateAlias", key, &|kms, key| block_on(kms.create_alias("alias/one", key)));
    // It is about the key that the alias has, too.
    store.denied(seen, "UpdateAlias", key, |kms| block_on(kms.update_alias("alias/one", key)));
    store.failed(seen, "UpdateAlias", key, |kms| block_on(kms.update_alias("alias/one", NO_KEY)));
    store.allowed(seen, "UpdateAlias", key, |kms| block_on(kms.update_alias("alias/one", key)));
    store.denied(seen, "DeleteAlias", key, |kms| block_on(kms.delete_alias("alias/one")));
    store.failed(seen, "DeleteAlias", "", |kms| block_on(kms.delete_alias("alias/none")));
    store.allowed(seen, "DeleteAlias", key, |kms| block_on(kms.delete_alias("alias/one")));
    store.each(seen, "TagResource", key, &|kms, key| block_on(kms.tag_resource(key, [Tag::new("team", "one")])));
    store.each(seen, "ListResourceTags", key, &|kms, key| block_on(kms.list_resource_tags(key)).map(drop));
    store.each(seen, "UntagResource", key, &|kms, key| block_on(kms.untag_resource(key, ["team"])));
    store.each(seen, "RotateKeyOnDemand", key, &|kms, key| block_on(kms.rotate(key)).map(drop));
    store.each(seen, "ListKeyRotations", key, &|kms, key| block_on(kms.list_key_rotations(key)).map(drop));
    let period = RotationPeriod::default();
    store.each(seen, "EnableKeyRotation", key, &|kms, key| block_on(kms.enable_key_rotation(key, period)));
    store.each(seen, "GetKeyRotationStatus", key, &|kms, key| block_on(kms.get_key_rotation_status(key)).map(drop));
    store.each(seen, "DisableKeyRotation", key, &|kms, key| block_on(kms.disable_key_rotation(key)));
    store.each(seen, "DisableKey", key, &|kms, key| block_on(kms.disable_key(key)));
    store.each(seen, "EnableKey", key, &|kms, key| block_on(kms.enable_key(key)));
    let window = DeletionWindow::default();
    store
        .each(seen, "ScheduleKeyDeletion", key, &|kms, key| block_on(kms.schedule_key_deletion(key, window)).map(drop));
    store.each(seen, "CancelKeyDeletion", key, &|kms, key| block_on(kms.cancel_key_deletion(key)).map(drop));
}

fn permissions(seen: &mut Seen, store: &Store) {
    let key = &*store.key(CreateKeyRequest::default());
    let policy = KeyPolicy::default();
    store.each(seen, "GetKeyPolicy", key, &|kms, key| block_on(kms.get_key_policy(key)).map(drop));
    store.each(seen, "PutKeyPolicy", key, &|kms, key| block_on(kms.put_key_policy(key, &policy)));
    let action = PolicyAction::all().next().unwrap();
    store.each(seen, "SimulatePrincipalPolicy", key, &|kms, key| {
        block_on(kms.simulate("worker", action, key, &context())).map(drop)
    });
    let request = CreateGrantRequest::new("worker", [GrantOperation::Decrypt]).name("one");
    store.each(seen, "CreateGrant", key, &|kms, key| block_on(kms.create_grant(key, &request)).map(drop));
    store.each(seen, "ListGrants", key, &|kms, key| block_on(kms.list_grants(key)).map(drop));
    store.plain(seen, "ListRetirableGrants", &|kms| block_on(kms.list_retirable_grants("steward")).map(drop));
    let grant = || block_on(store.kms.list_grants(key)).unwrap()[0].grant_id.clone();
    let id = grant();
    store.each(seen, "RetireGrant", key, &|kms, key| block_on(kms.retire_grant(key, &id)));
    block_on(store.kms.create_grant(key, &request)).unwrap();
    let id = grant();
    store.each(seen, "RevokeGrant", key, &|kms, key| block_on(kms.revoke_grant(key, &id)));
}

fn data(seen: &mut Seen, store: &Store) {
    let key = &*store.key(CreateKeyRequest::default());
    let length = DataKeyLength::Bytes32;
    store.each(seen, "Encrypt", key, &|kms, key| block_on(kms.encrypt(key, b"x", &context())).map(drop));
    store.each(seen, "GenerateDataKey", key, &|kms, key| {
        block_on(kms.generate_data_key(key, length, &context())).map(drop)
    });
    store.each(seen, "GenerateDataKeyWithoutPlaintext", key, &|kms, key| {
        block_on(kms.generate_data_key_without_plaintext(key, length, &context())).map(drop)
    });
    store.plain(seen, "GenerateRandom", &|kms| block_on(kms.generate_random(32)).map(drop));
    let blob = block_on(store.kms.encrypt(key, b"x", &context())).unwrap().ciphertext_blob;
    let mut damaged = blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    store.denied(seen, "Decrypt", key, |kms| block_on(kms.decrypt(&blob, &context())).map(drop));
    store.failed(seen, "Decrypt", key, |kms| block_on(kms.decrypt(&damaged, &context())).map(drop));
    store.allowed(seen, "Decrypt", key, |kms| block_on(kms.decrypt(&blob, &context())).map(drop));
    store.denied(seen, "ReEncrypt", key, |kms| block_on(kms.re_encrypt(&blob, &context(), key)).map(drop));
    store.failed(seen, "ReEncrypt", key, |kms| block_on(kms.re_encrypt(&damaged, &context(), key)).map(drop));
    store.allowed(seen, "ReEncrypt", key, |kms| block_on(kms.re_encrypt(&blob, &context(), key)).map(drop));
}

fn imports(seen: &mut Seen, store: &Store, hands: &Arc<Hands>) {
    let key = &*store.key(CreateKeyRequest::default().external());
    store.each(seen, "GetParametersForImport", key, &|kms, key| block_on(kms.get_parameters_for_import(key)).map(drop));
    let text = seal_key_material(&Secret::init(|out| out.fill(7)), PASSPHRASE, CHEAP).unwrap();
    let request = || ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), PASSPHRASE);
    store.each(seen, "ImportKeyMaterial", key, &|kms, key| block_on(kms.import_key_material(key, request())).map(drop));
    store.each(seen, "DeleteImportedKeyMaterial", key, &|kms, key| block_on(kms.delete_imported_key_material(key)));
    let at = UNIX_EPOCH + Duration::from_millis(NOW + DAY);
    block_on(store.kms.import_key_material(key, request().valid_to(at))).unwrap();
    // The parameters, which nobody used, and the material.
    hands.set(NOW + DAY);
    block_on(store.kms.list_keys()).unwrap();
    store.by_itself(seen, "DeleteExpiredKeyMaterial", key);
    let thrown_away = store.place.trail().into_iter().find(|it| it[0] == "DeleteExpiredWrappingKey").unwrap();
    store.by_itself(seen, "DeleteExpiredWrappingKey", &thrown_away[2]);
}

fn families(seen: &mut Seen, [eu, us]: [&Store; 2], hands: &Arc<Hands>) {
    eu.plain(seen, "GetReplicationParameters", &|kms| block_on(kms.replication_parameters()).map(drop));
    let [of_eu, of_us] = [eu, us].map(|it| block_on(it.kms.replication_parameters()).unwrap());
    let key = &*eu.key(CreateKeyRequest::default().multi_region());
    eu.each(seen, "ReplicateKey", key, &|kms, key| {
        block_on(kms.replicate_key(key, &of_us.file, &of_us.fingerprint)).map(drop)
    });
    let bundle = block_on(eu.kms.replicate_key(key, &of_us.file, &of_us.fingerprint)).unwrap();
    let import =
        |kms: &LocalKms, sha256: &Sha256Fingerprint| block_on(kms.import_replica(&bundle.file, sha256)).map(drop);
    us.denied(seen, "ImportReplica", "", |kms| import(kms, &bundle.sha256));
    us.failed(seen, "ImportReplica", "", |kms| import(kms, &Sha256Fingerprint::of(b"another")));
    us.allowed(seen, "ImportReplica", key, |kms| import(kms, &bundle.sha256));
    block_on(eu.kms.rotate(key)).unwrap();
    eu.each(seen, "ExportRotation", key, &|kms, key| {
        block_on(kms.export_rotation(key, &of_us.file, &of_us.fingerprint)).map(drop)
    });
    let rotation = block_on(eu.kms.export_rotation(key, &of_us.file, &of_us.fingerprint)).unwrap().file;
    take(seen, us, "ImportRotation", key, &rotation, &|kms, file| block_on(kms.import_rotation(file)).map(drop));
    eu.each(seen, "UpdatePrimaryRegion", key, &|kms, key| block_on(kms.update_primary_region(key, "us-1")).map(drop));
    eu.each(seen, "ExportPrimaryChange", key, &|kms, key| block_on(kms.export_primary_change(key, "us-1")).map(drop));
    let change = block_on(eu.kms.export_primary_change(key, "us-1")).unwrap().file;
    take(seen, us, "ImportPrimaryChange", key, &change, &|kms, file| {
        block_on(kms.import_primary_change(file)).map(drop)
    });
    // The replica, which is in `eu` now, is deleted; another one is only forgotten.
    block_on(eu.kms.schedule_key_deletion(key, DeletionWindow::from_days(7).unwrap())).unwrap();
    hands.set(NOW + 9 * DAY);
    block_on(eu.kms.list_keys()).unwrap();
    eu.by_itself(seen, "DeleteKey", key);
    eu.denied(seen, "ExportDeletionReceipt", "", |kms| block_on(kms.export_deletion_receipt(key)).map(drop));
    eu.failed(seen, "ExportDeletionReceipt", NO_KEY, |kms| block_on(kms.export_deletion_receipt(NO_KEY)).map(drop));
    eu.allowed(seen, "ExportDeletionReceipt", key, |kms| block_on(kms.export_deletion_receipt(key)).map(drop));
    let receipt = block_on(eu.kms.export_deletion_receipt(key)).unwrap().file;
    take(seen, us, "ImportDeletionReceipt", key, &receipt, &|kms, file| {
        block_on(kms.import_deletion_receipt(file)).map(drop)
    });
    let other = &*us.key(CreateKeyRequest::default().multi_region());
    block_on(us.kms.replicate_key(other, &of_eu.file, &of_eu.fingerprint)).unwrap();
    us.each(seen, "ForgetReplica", other, &|kms, key| block_on(kms.forget_replica(key, "eu-1")).map(drop));
}

/// A file that comes from another keystore: denied, failed since it was damaged, and taken.
fn take(
    seen: &mut Seen,
    store: &Store,
    event: &'static str,
    key: &str,
    file: &[u8],
    act: &dyn Fn(&LocalKms, &[u8]) -> Result<()>,
) {
    let mut damaged = file.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    store.denied(seen, event, "", |kms| act(kms, file));
    store.failed(seen, event, "", |kms| act(kms, &damaged));
    store.allowed(seen, event, key, |kms| act(kms, file));
}

fn due(seen: &mut Seen, store: &Store, hands: &Arc<Hands>) {
    let key = &*store.key(CreateKeyRequest::default());
    block_on(store.kms.enable_key_rotation(key, RotationPeriod::from_days(90).unwrap())).unwrap();
    hands.set(NOW + 101 * DAY);
    block_on(store.kms.list_keys()).unwrap();
    store.by_itself(seen, "RotateKey", key);
}

fn whole(seen: &mut Seen, store: &Store) {
    let figures = CacheFigures::default();
    store.plain(seen, "RecordCacheStatistics", &|kms| block_on(kms.record_cache_statistics(figures)));
    store.plain(seen, "ExportRootKey", &|kms| block_on(kms.export_root_key()).map(drop));
    let root = || RootKey::file(store.place.root_key()).unwrap();
    store.plain(seen, "RekeyKeystore", &|kms| block_on(kms.rekey(root())));
    let trim = |kms: &LocalKms| block_on(kms.trim_audit(AuditRetention::Newest(0))).map(drop);
    store.denied(seen, "TrimAudit", "", trim);
    // Its own record alone is left.
    trim(&store.kms).unwrap();
    assert_eq!(store.place.trail(), [["TrimAudit", OWNER, "", ""].map(str::to_owned)]);
    seen.insert(("TrimAudit", "allowed"));
}

#[test]
fn of_two_records_that_were_changed_the_earlier_one_is_named() {
    for (first, second) in [(4, 7), (2, 3), (1, 9), (8, 9)] {
        let (place, kms) = furnished();
        let change = format!("UPDATE audit SET principal = 'nobody' WHERE sequence IN ({first}, {second})");
        assert_eq!(place.sql().execute(&change, []).unwrap(), 2);
        named(block_on(kms.verify_audit(None)), &format!("the audit record {first} was changed"));
    }
}
