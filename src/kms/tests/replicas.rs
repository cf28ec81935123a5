//! Multi-Region keys between keystores, under a clock that the tests set.

use super::{CHEAP, DAY, Hands, Place, block_on, context};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::{
    CreateKeyRequest, DeletionWindow, ImportKeyMaterialRequest, IssuedFile, KeyState, KmsOptions, LocalKms,
    MultiRegionKeyType, ReplicationParameters, RootKey, RotationPeriod, RotationType, Sha256Fingerprint,
    seal_key_material,
};
use crate::secret::Secret;
use std::sync::Arc;

const NOW: u64 = 20_000 * DAY;

/// A keystore in a Region, with its replication key.
struct Store {
    place: Place,
    kms: LocalKms,
    key: ReplicationParameters,
}

impl Store {
    fn new(region: &str, hands: &Arc<Hands>) -> Self {
        let place = Place::new();
        let options = KmsOptions::default().region(region).clock(Arc::clone(hands) as Arc<dyn Clock>);
        let kms = LocalKms::open_with(place.keystore(), RootKey::file(place.root_key()).unwrap(), options).unwrap();
        let key = block_on(kms.replication_parameters()).unwrap();
        Self { place, kms, key }
    }

    fn primary(&self) -> String {
        let request = CreateKeyRequest::default().multi_region().description("orders").alias("alias/orders");
        block_on(self.kms.create_key(request)).unwrap().key_id
    }

    fn bundle(&self, key: &str, to: &Self) -> IssuedFile {
        block_on(self.kms.replicate_key(key, &to.key.file, &to.key.fingerprint)).unwrap()
    }

    fn replicate(&self, key: &str, to: &Self) {
        let bundle = self.bundle(key, to);
        block_on(to.kms.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    }

    fn rotation(&self, key: &str, to: &Self) -> Result<IssuedFile> {
        block_on(self.kms.export_rotation(key, &to.key.file, &to.key.fingerprint))
    }

    fn encrypt(&self, key: &str) -> Vec<u8> {
        block_on(self.kms.encrypt(key, b"secret", &context())).unwrap().ciphertext_blob
    }

    #[track_caller]
    fn opens(&self, blob: &[u8]) {
        assert_eq!(block_on(self.kms.decrypt(blob, &context())).unwrap().plaintext(), b"secret");
    }

    fn state(&self, key: &str) -> KeyState {
        block_on(self.kms.describe_key(key)).unwrap().key_state
    }

    fn kind(&self, key: &str) -> Option<MultiRegionKeyType> {
        block_on(self.kms.describe_key(key)).unwrap().multi_region
    }

    /// The Regions of the primary key and of its replicas, as far as they are known.
    fn family(&self, key: &str) -> (String, Vec<String>) {
        let all = block_on(self.kms.multi_region_configuration(key)).unwrap();
        (all.primary_key.region, all.replica_keys.into_iter().map(|it| it.region).collect())
    }

    /// How often this was done, with this code.
    fn recorded(&self, name: &str, code: &str) -> usize {
        self.place.trail().iter().filter(|it| it[0] == name && it[3] == code).count()
    }
}

fn two() -> (Arc<Hands>, Store, Store) {
    let hands = Hands::at(NOW);
    let (one, other) = (Store::new("eu-1", &hands), Store::new("us-1", &hands));
    (hands, one, other)
}

#[track_caller]
fn kind_of<T: std::fmt::Debug>(answer: Result<T>) -> (ErrorKind, Option<&'static str>) {
    let error: Error = answer.unwrap_err();
    (error.kind(), error.code())
}

const TAKEN: (ErrorKind, Option<&str>) = (ErrorKind::InvalidInput, None);

#[test]
fn each_opens_what_the_other_encrypted() {
    let (hands, eu, us) = two();
    let key = eu.primary();
    block_on(eu.kms.enable_key_rotation(&key, RotationPeriod::default())).unwrap();
    let before = eu.encrypt(&key);
    hands.set(NOW + DAY);
    eu.replicate(&key, &us);
    let after = us.encrypt(&key);
    for store in [&eu, &us] {
        store.opens(&before);
        store.opens(&after);
    }
    let replica = block_on(us.kms.describe_key(&key)).unwrap();
    assert_eq!((replica.key_state, replica.multi_region), (KeyState::Enabled, Some(MultiRegionKeyType::Replica)));
    assert_eq!((replica.description.as_str(), replica.primary_region.as_deref()), ("orders", Some("eu-1")));
    assert_eq!(replica.rotation_period_in_days, Some(365), "shared");
    assert_eq!(replica.next_rotation_date, None, "only the primary key is rotated");
    assert!(block_on(us.kms.get_key_rotation_status(&key)).unwrap().key_rotation_enabled);
    assert!(block_on(us.kms.list_aliases()).unwrap().is_empty(), "its own, and so none");
    assert_eq!(eu.family(&key), ("eu-1".to_owned(), vec!["us-1".to_owned()]));
    assert_eq!(us.family(&key), ("eu-1".to_owned(), vec!["us-1".to_owned()]));
    block_on(us.kms.disable_key(&key)).unwrap();
    block_on(us.kms.update_key_description(&key, "there")).unwrap();
    assert_eq!(eu.state(&key), KeyState::Enabled, "states are each one's own");
    eu.opens(&after);
    // The date of the rotation comes at the primary key, and at the replica nothing happens.
    hands.set(NOW + 366 * DAY);
    block_on(us.kms.enable_key(&key)).unwrap();
    assert_eq!(block_on(eu.kms.describe_key(&key)).unwrap().current_version, 2);
    assert_eq!(block_on(us.kms.describe_key(&key)).unwrap().current_version, 1);
    assert_eq!((eu.recorded("ReplicateKey", ""), us.recorded("ImportReplica", "")), (1, 1));
}

#[test]
fn a_bundle_is_taken_once_by_its_target_alone_with_its_hash_and_replaces_nothing() {
    let (hands, eu, us) = two();
    let ap = Store::new("ap-1", &hands);
    let key = eu.primary();
    let bundle = eu.bundle(&key, &us);
    let import =
        |store: &Store, file: &[u8], hash: &Sha256Fingerprint| kind_of(block_on(store.kms.import_replica(file, hash)));
    let wrong = Sha256Fingerprint::of(b"something else");
    assert_eq!(import(&us, &bundle.file, &wrong).0, ErrorKind::AuthenticationFailed);
    assert_eq!(import(&ap, &bundle.file, &bundle.sha256), (ErrorKind::InvalidInput, None), "not its target");
    let mut changed = bundle.file.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(import(&us, &changed, &bundle.sha256).0, ErrorKind::AuthenticationFailed);
    assert_eq!(import(&us, &changed, &Sha256Fingerprint::of(&changed)).1, Some("InvalidCiphertextException"));
    assert_eq!(kind_of(block_on(us.kms.describe_key(&key))).1, Some("NotFoundException"));
    let again = eu.bundle(&key, &us);
    block_on(us.kms.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    for bundle in [&bundle, &again] {
        assert_eq!(import(&us, &bundle.file, &bundle.sha256).1, Some("AlreadyExistsException"));
    }
    // Not when the replica is gone either; one that was made later is.
    block_on(us.kms.schedule_key_deletion(&key, DeletionWindow::from_days(7).unwrap())).unwrap();
    hands.set(NOW + 7 * DAY);
    block_on(us.kms.list_keys()).unwrap();
    assert_eq!(import(&us, &bundle.file, &bundle.sha256), TAKEN);
    eu.replicate(&key, &us);
    assert_eq!(us.recorded("ImportReplica", "AlreadyExistsException"), 2);
    assert!(block_on(us.kms.verify_audit(None)).is_ok());
}

#[test]
fn a_key_is_sealed_only_to_the_public_key_whose_fingerprint_was_said() {
    let (hands, eu, us) = two();
    let key = eu.primary();
    let replicate =
        |file: &[u8], fingerprint: &Sha256Fingerprint| kind_of(block_on(eu.kms.replicate_key(&key, file, fingerprint)));
    assert_eq!(replicate(&us.key.file, &eu.key.fingerprint).0, ErrorKind::AuthenticationFailed);
    assert_eq!(replicate(b"no file", &us.key.fingerprint).0, ErrorKind::Malformed);
    assert_eq!(replicate(&eu.key.file, &eu.key.fingerprint).1, Some("AlreadyExistsException"), "to itself");
    let twin = Store::new("us-1", &hands);
    eu.replicate(&key, &us);
    assert_eq!(replicate(&twin.key.file, &twin.key.fingerprint).1, Some("AlreadyExistsException"), "one in a Region");
    let plain = block_on(eu.kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
    let answer = block_on(eu.kms.replicate_key(&plain, &us.key.file, &us.key.fingerprint));
    assert_eq!(kind_of(answer).1, Some("UnsupportedOperationException"));
    let answer = block_on(us.kms.replicate_key(&key, &twin.key.file, &twin.key.fingerprint));
    assert_eq!(kind_of(answer).1, Some("UnsupportedOperationException"), "a replica is not replicated");
    let guest = eu.kms.as_principal("guest").unwrap();
    let answer = block_on(guest.replicate_key(&key, &us.key.file, &us.key.fingerprint));
    assert_eq!(kind_of(answer).1, Some("AccessDeniedException"));
    assert_eq!(kind_of(block_on(guest.replication_parameters())).1, Some("AccessDeniedException"));
    let same = block_on(us.kms.replication_parameters()).unwrap();
    assert_eq!(same, us.key, "the key stays the same");
}

#[test]
fn a_replica_takes_a_rotation_once_and_says_what_it_lacks_before() {
    let (hands, eu, us) = two();
    let key = eu.primary();
    eu.replicate(&key, &us);
    let first = eu.encrypt(&key);
    hands.set(NOW + DAY);
    block_on(eu.kms.rotate(&key)).unwrap();
    block_on(eu.kms.rotate(&key)).unwrap();
    let third = eu.encrypt(&key);
    let error = block_on(us.kms.decrypt(&third, &context())).unwrap_err();
    assert!(error.to_string().contains(&format!("import the rotation of the key {key}")), "{error}");
    assert_eq!(kind_of(block_on(us.kms.rotate(&key))).1, Some("UnsupportedOperationException"));
    let old = us.encrypt(&key);
    eu.opens(&old);
    let file = eu.rotation(&key, &us).unwrap();
    let mut changed = file.file.clone();
    changed[700] ^= 1;
    assert_eq!(kind_of(block_on(us.kms.import_rotation(&changed))).0, ErrorKind::AuthenticationFailed);
    assert_eq!(kind_of(block_on(eu.kms.import_rotation(&file.file))), TAKEN, "it is for another keystore");
    let replica = block_on(us.kms.import_rotation(&file.file)).unwrap();
    assert_eq!(replica.current_version, 3);
    for blob in [&first, &third, &old, &us.encrypt(&key)] {
        us.opens(blob);
        eu.opens(blob);
    }
    let rotations = block_on(us.kms.list_key_rotations(&key)).unwrap();
    assert!(rotations.len() == 2 && rotations.iter().all(|it| it.rotation_type == RotationType::OfPrimary));
    assert_eq!(kind_of(block_on(us.kms.import_rotation(&file.file))), TAKEN);
    let nothing_new = eu.rotation(&key, &us).unwrap();
    assert_eq!(kind_of(block_on(us.kms.import_rotation(&nothing_new.file))), TAKEN);
    let bundle = eu.bundle(&key, &us);
    assert_eq!(kind_of(block_on(us.kms.import_rotation(&bundle.file))), TAKEN, "another kind");
    assert_eq!((us.recorded("ImportRotation", ""), eu.recorded("ExportRotation", "")), (1, 2));
    assert_eq!(us.recorded("ImportRotation", "ValidationException"), 3);
}

#[test]
fn the_primary_steps_down_first_and_the_replica_rotates_once_it_was_told() {
    let (hands, eu, us) = two();
    let ap = Store::new("ap-1", &hands);
    let key = eu.primary();
    block_on(eu.kms.enable_key_rotation(&key, RotationPeriod::default())).unwrap();
    eu.replicate(&key, &us);
    eu.replicate(&key, &ap);
    let blob = eu.encrypt(&key);
    assert_eq!(kind_of(block_on(eu.kms.update_primary_region(&key, "mars-1"))).1, Some("NotFoundException"));
    assert_eq!(kind_of(block_on(us.kms.update_primary_region(&key, "eu-1"))).1, Some("UnsupportedOperationException"));
    assert_eq!(kind_of(block_on(us.kms.export_primary_change(&key, "eu-1"))).1, Some("UnsupportedOperationException"));
    hands.set(NOW + DAY);
    let change = block_on(eu.kms.update_primary_region(&key, "us-1")).unwrap();
    assert_eq!(eu.kind(&key), Some(MultiRegionKeyType::Replica));
    assert_eq!(block_on(eu.kms.describe_key(&key)).unwrap().next_rotation_date, None);
    assert_eq!(kind_of(block_on(eu.kms.rotate(&key))).1, Some("UnsupportedOperationException"));
    assert_eq!(kind_of(block_on(us.kms.rotate(&key))).1, Some("UnsupportedOperationException"), "not told yet");
    assert_eq!(block_on(eu.kms.export_primary_change(&key, "us-1")).unwrap(), change, "always the same");
    // A primary key that is about to go would leave none.
    block_on(us.kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
    let refused = block_on(us.kms.import_primary_change(&change.file));
    assert_eq!(kind_of(refused).1, Some("KMSInvalidStateException"));
    block_on(us.kms.cancel_key_deletion(&key)).unwrap();
    block_on(us.kms.enable_key(&key)).unwrap();
    let told = block_on(us.kms.import_primary_change(&change.file)).unwrap();
    assert_eq!(told.multi_region, Some(MultiRegionKeyType::Primary));
    assert!(told.next_rotation_date.is_some(), "it is rotated here from now on");
    assert_eq!(kind_of(block_on(us.kms.import_primary_change(&change.file))), TAKEN);
    // The third one does not take a rotation of a primary key that it has not been told of.
    block_on(us.kms.rotate(&key)).unwrap();
    let rotation = us.rotation(&key, &ap).unwrap();
    assert_eq!(kind_of(block_on(ap.kms.import_rotation(&rotation.file))), TAKEN);
    let for_ap = block_on(eu.kms.export_primary_change(&key, "ap-1")).unwrap();
    assert_eq!(block_on(eu.kms.export_primary_change(&key, "ap-1")).unwrap(), for_ap);
    block_on(ap.kms.import_primary_change(&for_ap.file)).unwrap();
    assert_eq!(ap.family(&key), ("us-1".to_owned(), vec!["ap-1".to_owned(), "eu-1".to_owned()]));
    block_on(ap.kms.import_rotation(&rotation.file)).unwrap();
    let for_eu = us.rotation(&key, &eu).unwrap();
    block_on(eu.kms.import_rotation(&for_eu.file)).unwrap();
    let new = us.encrypt(&key);
    for store in [&eu, &us, &ap] {
        store.opens(&blob);
        store.opens(&new);
    }
    assert_eq!(us.family(&key), ("us-1".to_owned(), vec!["ap-1".to_owned(), "eu-1".to_owned()]));
    // And back again: the old file is not given out any more.
    let back = block_on(us.kms.update_primary_region(&key, "eu-1")).unwrap();
    block_on(eu.kms.import_primary_change(&back.file)).unwrap();
    assert_eq!(kind_of(block_on(eu.kms.export_primary_change(&key, "us-1"))).1, Some("UnsupportedOperationException"));
    block_on(eu.kms.rotate(&key)).unwrap();
    assert_eq!(kind_of(block_on(us.kms.import_primary_change(&change.file))), TAKEN, "an old file undoes nothing");
}

#[test]
fn a_primary_is_deleted_after_its_replicas_have_sent_their_receipts() {
    let (hands, eu, us) = two();
    let key = eu.primary();
    eu.replicate(&key, &us);
    let blob = eu.encrypt(&key);
    let week = DeletionWindow::from_days(7).unwrap();
    let waits = block_on(eu.kms.schedule_key_deletion(&key, week)).unwrap();
    assert_eq!((waits.key_state, waits.deletion_date), (KeyState::PendingReplicaDeletion, None));
    hands.set(NOW + 100 * DAY);
    assert_eq!(eu.state(&key), KeyState::PendingReplicaDeletion);
    assert_eq!(kind_of(block_on(us.kms.export_deletion_receipt(&key))).1, Some("NotFoundException"));
    block_on(us.kms.schedule_key_deletion(&key, week)).unwrap();
    hands.set(NOW + 107 * DAY);
    assert_eq!(kind_of(block_on(us.kms.decrypt(&blob, &context()))).1, Some("NotFoundException"));
    let receipt = block_on(us.kms.export_deletion_receipt(&key)).unwrap();
    assert_eq!(block_on(us.kms.export_deletion_receipt(&key)).unwrap(), receipt);
    assert_eq!(us.recorded("DeleteKey", ""), 1);
    let mut changed = receipt.file.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(kind_of(block_on(eu.kms.import_deletion_receipt(&changed))).0, ErrorKind::AuthenticationFailed);
    let now = block_on(eu.kms.import_deletion_receipt(&receipt.file)).unwrap();
    assert_eq!(now.key_state, KeyState::PendingDeletion, "its own waiting period begins");
    assert_eq!(kind_of(block_on(eu.kms.import_deletion_receipt(&receipt.file))), TAKEN);
    hands.set(NOW + 114 * DAY - 1);
    assert_eq!(eu.state(&key), KeyState::PendingDeletion);
    hands.set(NOW + 114 * DAY);
    assert_eq!(kind_of(block_on(eu.kms.describe_key(&key))).1, Some("NotFoundException"));
    assert!(block_on(eu.kms.verify_audit(None)).is_ok() && block_on(us.kms.verify_audit(None)).is_ok());
}

#[test]
fn a_primary_with_two_replicas_waits_for_the_last_of_them_and_only_then_for_its_own_date() {
    let (hands, eu, us) = two();
    let ap = Store::new("ap-1", &hands);
    let key = eu.primary();
    let week = DeletionWindow::from_days(7).unwrap();
    for replica in [&us, &ap] {
        eu.replicate(&key, replica);
        block_on(replica.kms.schedule_key_deletion(&key, week)).unwrap();
    }
    block_on(eu.kms.schedule_key_deletion(&key, week)).unwrap();
    hands.set(NOW + 7 * DAY);
    // Nobody told the primary key yet, and no clock does.
    assert_eq!(eu.state(&key), KeyState::PendingReplicaDeletion);
    let told = |replica: &Store| {
        let receipt = block_on(replica.kms.export_deletion_receipt(&key)).unwrap();
        block_on(eu.kms.import_deletion_receipt(&receipt.file)).unwrap().key_state
    };
    assert_eq!(told(&us), KeyState::PendingReplicaDeletion);
    hands.set(NOW + 50 * DAY);
    assert_eq!(eu.state(&key), KeyState::PendingReplicaDeletion);
    assert_eq!(told(&ap), KeyState::PendingDeletion);
    hands.set(NOW + 57 * DAY - 1);
    assert_eq!(eu.state(&key), KeyState::PendingDeletion);
    hands.set(NOW + 57 * DAY);
    assert_eq!(kind_of(block_on(eu.kms.describe_key(&key))).1, Some("NotFoundException"));
}

#[test]
fn a_replica_that_sends_no_receipt_has_to_be_forgotten() {
    let (_, eu, us) = two();
    let key = eu.primary();
    eu.bundle(&key, &us);
    block_on(eu.kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
    assert_eq!(kind_of(block_on(eu.kms.forget_replica(&key, "ap-1"))).1, Some("NotFoundException"));
    assert_eq!(block_on(eu.kms.forget_replica(&key, "us-1")).unwrap().key_state, KeyState::PendingDeletion);
    assert_eq!(block_on(eu.kms.cancel_key_deletion(&key)).unwrap().key_state, KeyState::Disabled);
    assert_eq!(eu.family(&key).1, Vec::<String>::new());
    let guest = eu.kms.as_principal("guest").unwrap();
    assert_eq!(kind_of(block_on(guest.forget_replica(&key, "us-1"))).1, Some("AccessDeniedException"));
}

#[test]
fn imported_material_is_shared_and_each_keystore_loses_and_takes_back_its_own() {
    let (_, eu, us) = two();
    let sealed = |byte: u8| {
        let text = seal_key_material(&Secret::init(|out| out.fill(byte)), b"a long passphrase", CHEAP).unwrap();
        ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"a long passphrase")
    };
    let key = block_on(eu.kms.create_key(CreateKeyRequest::default().multi_region().external())).unwrap().key_id;
    let answer = block_on(eu.kms.replicate_key(&key, &us.key.file, &us.key.fingerprint));
    assert_eq!(kind_of(answer).1, Some("KMSInvalidStateException"));
    block_on(eu.kms.import_key_material(&key, sealed(7))).unwrap();
    eu.replicate(&key, &us);
    let first = us.encrypt(&key);
    block_on(eu.kms.import_key_material(&key, sealed(8).new_key_material())).unwrap();
    let stepping = block_on(eu.kms.update_primary_region(&key, "us-1"));
    assert_eq!(kind_of(stepping).1, Some("KMSInvalidStateException"), "new material waits");
    block_on(eu.kms.rotate(&key)).unwrap();
    let second = eu.encrypt(&key);
    let rotation = eu.rotation(&key, &us).unwrap();
    block_on(us.kms.import_rotation(&rotation.file)).unwrap();
    let new = block_on(us.kms.import_key_material(&key, sealed(9).new_key_material()));
    assert_eq!(kind_of(new).1, Some("UnsupportedOperationException"));
    block_on(us.kms.delete_imported_key_material(&key)).unwrap();
    assert_eq!((us.state(&key), eu.state(&key)), (KeyState::PendingImport, KeyState::Enabled));
    block_on(us.kms.import_key_material(&key, sealed(8))).unwrap();
    for store in [&eu, &us] {
        store.opens(&first);
        store.opens(&second);
    }
}

#[test]
fn what_is_sealed_is_not_in_the_files_in_the_clear_and_serials_rise_under_a_clock_that_stands() {
    let (hands, eu, us) = two();
    let key = eu.primary();
    let serial = |file: &[u8]| crate::kms::describe_file(file).unwrap().serial.unwrap();
    let files: Vec<_> = (0..3).map(|_| eu.bundle(&key, &us).file).collect();
    hands.set(NOW - DAY);
    let later = eu.bundle(&key, &us).file;
    let serials: Vec<_> = files.iter().chain([&later]).map(|file| serial(file)).collect();
    assert!(serials.is_sorted_by(|one, next| one < next), "{serials:?}");
    assert_eq!(serials[0], NOW, "a keystore that was put back from a backup uses none again");
}
