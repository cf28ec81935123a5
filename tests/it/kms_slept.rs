//! What a keystore does by itself on a date, however the time passes until then: while its process runs, while nobody has
//! it open, and when the clock goes back. Also for data keys in a cache.

use crate::kms_helper::{Hands, PATIENCE};
use envelock::clock::Clock;
use envelock::kms::{
    AuditQuery, DeletionWindow, ImportKeyMaterialRequest, KeyState, ReplicationParameters, seal_key_material,
};
use envelock::{
    CacheLimits, CreateKeyRequest, DataKeyCache, EncryptionContext, Envelope, Error, KmsOptions, LocalKms,
    PassphraseCost, RootKey, Secret,
};
use pollster::block_on;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;

/// In seconds.
const DAY: u64 = 86_400;
const NOW: u64 = 20_000 * DAY;
/// The day on which one key is deleted, and the material of the other expires.
const DATE: u64 = NOW + 7 * DAY;

/// A key that is to be deleted, and one whose material expires, with what they encrypted.
struct Scene {
    folder: TempDir,
    hands: Arc<Hands>,
    kms: LocalKms,
    expiring: String,
    deleted: String,
    blobs: [Vec<u8>; 2],
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn open_at(folder: &Path, hands: &Arc<Hands>) -> LocalKms {
    let options = KmsOptions::default().clock(Arc::clone(hands) as Arc<dyn Clock>).busy_timeout(PATIENCE);
    LocalKms::open_with(folder.join("keys.db"), RootKey::file(folder.join("root.key")).unwrap(), options).unwrap()
}

/// The same material each time, which expires then.
fn material(valid_to: u64) -> ImportKeyMaterialRequest {
    let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
    let text = seal_key_material(&Secret::init(|out| out.fill(7)), b"a passphrase", cost).unwrap();
    let request = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"a passphrase");
    request.valid_to(UNIX_EPOCH + Duration::from_secs(valid_to))
}

fn encrypt(kms: &LocalKms, key: &str) -> Vec<u8> {
    block_on(kms.encrypt(key, b"x", &context())).unwrap().ciphertext_blob
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T, Error>) -> &'static str {
    answer.unwrap_err().code().unwrap()
}

fn state(kms: &LocalKms, key: &str) -> KeyState {
    block_on(kms.describe_key(key)).unwrap().key_state
}

/// How often the keystore did this by itself.
fn done(kms: &LocalKms, name: &str, key: &str) -> usize {
    let query = AuditQuery::default().event_name(name).key(key);
    block_on(kms.query_audit(&query)).unwrap().len()
}

impl Scene {
    fn new() -> Self {
        let (folder, hands) = (tempfile::tempdir().unwrap(), Hands::at(NOW));
        let kms = open_at(folder.path(), &hands);
        let expiring = block_on(kms.create_key(CreateKeyRequest::default().external())).unwrap().key_id;
        block_on(kms.import_key_material(&expiring, material(DATE))).unwrap();
        let deleted = block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
        let blobs = [encrypt(&kms, &expiring), encrypt(&kms, &deleted)];
        block_on(kms.schedule_key_deletion(&deleted, DeletionWindow::from_days(7).unwrap())).unwrap();
        Self { folder, hands, kms, expiring, deleted, blobs }
    }

    /// As a process that ends, and another that begins at `time`.
    fn reopen_at(&mut self, time: u64) {
        block_on(self.kms.close()).unwrap();
        self.hands.set(time);
        self.kms = open_at(self.folder.path(), &self.hands);
    }

    #[track_caller]
    fn nothing_happened(&self) {
        assert_eq!(state(&self.kms, &self.expiring), KeyState::Enabled);
        assert_eq!(state(&self.kms, &self.deleted), KeyState::PendingDeletion);
        assert_eq!(block_on(self.kms.decrypt(&self.blobs[0], &context())).unwrap().plaintext(), b"x");
        assert_eq!(done(&self.kms, "DeleteKey", &self.deleted), 0);
        assert_eq!(done(&self.kms, "DeleteExpiredKeyMaterial", &self.expiring), 0);
    }

    #[track_caller]
    fn both_are_gone(&self) {
        // By their first use, before anybody asks how they are.
        assert_eq!(code(block_on(self.kms.decrypt(&self.blobs[0], &context()))), "KMSInvalidStateException");
        assert_eq!(code(block_on(self.kms.decrypt(&self.blobs[1], &context()))), "NotFoundException");
        assert_eq!(state(&self.kms, &self.expiring), KeyState::PendingImport);
        assert!(!block_on(self.kms.list_key_versions(&self.expiring)).unwrap()[0].has_material);
        assert_eq!(code(block_on(self.kms.describe_key(&self.deleted))), "NotFoundException");
        assert_eq!(code(block_on(self.kms.cancel_key_deletion(&self.deleted))), "NotFoundException");
        assert_eq!(done(&self.kms, "DeleteKey", &self.deleted), 1, "once");
        assert_eq!(done(&self.kms, "DeleteExpiredKeyMaterial", &self.expiring), 1, "once");
    }
}

#[test]
fn what_came_due_while_nobody_had_the_keystore_open_is_done_before_the_first_answer() {
    for slept in [0, 200 * DAY] {
        let mut scene = Scene::new();
        scene.reopen_at(DATE - 1);
        scene.nothing_happened();
        scene.reopen_at(DATE + slept);
        scene.both_are_gone();
        scene.reopen_at(DATE + slept + DAY);
        scene.both_are_gone();
        block_on(scene.kms.verify_audit(None)).unwrap();
    }
}

#[test]
fn a_clock_that_goes_back_brings_nothing_forward_and_nothing_back() {
    let mut scene = Scene::new();
    // Back, and forth again to the second before.
    for time in [NOW - 100 * DAY, DATE - 1] {
        scene.hands.set(time);
        scene.nothing_happened();
        scene.reopen_at(time);
        scene.nothing_happened();
    }
    scene.hands.set(DATE);
    scene.both_are_gone();
    for time in [NOW, DATE - 1, NOW - 100 * DAY] {
        scene.hands.set(time);
        scene.both_are_gone();
        scene.reopen_at(time);
        scene.both_are_gone();
    }
    // The same material again, with a date of its own under the clock that went back.
    let before = NOW - 90 * DAY;
    block_on(scene.kms.import_key_material(&scene.expiring, material(before))).unwrap();
    scene.hands.set(before - 1);
    assert_eq!(block_on(scene.kms.decrypt(&scene.blobs[0], &context())).unwrap().plaintext(), b"x");
    scene.hands.set(before);
    assert_eq!(code(block_on(scene.kms.decrypt(&scene.blobs[0], &context()))), "KMSInvalidStateException");
    assert_eq!(done(&scene.kms, "DeleteExpiredKeyMaterial", &scene.expiring), 2);
}

/// An envelope with a cache, and a message that it made and opened.
struct Cached {
    envelope: Envelope,
    message: Vec<u8>,
}

impl Cached {
    fn new(kms: &LocalKms, key: &str) -> Self {
        let cache = DataKeyCache::new(CacheLimits::default()).unwrap();
        let envelope = Envelope::builder(kms.provider(key).unwrap()).shared_cache(&cache).build().unwrap();
        let message = block_on(envelope.encrypt(b"x", &context())).unwrap();
        let cached = Self { envelope, message };
        assert!(cached.seals().is_ok() && cached.opens().is_ok());
        assert_eq!(cache.len(), 2, "one data key for each direction");
        cached
    }

    fn seals(&self) -> Result<(), Error> {
        block_on(self.envelope.encrypt(b"x", &context())).map(drop)
    }

    fn opens(&self) -> Result<(), Error> {
        block_on(self.envelope.decrypt(&self.message, &context())).map(drop)
    }

    /// Waits until neither direction is served, which then stays so.
    #[track_caller]
    fn ends(&self) {
        let start = Instant::now();
        for direction in [Self::seals, Self::opens] {
            while direction(self).is_ok() {
                assert!(start.elapsed() < PATIENCE, "the cache goes on");
                thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(self.seals().is_err() && self.opens().is_err());
    }
}

#[test]
fn what_comes_due_while_the_process_sleeps_reaches_its_caches_and_not_a_second_early() {
    let scene = Scene::new();
    let kms = &scene.kms;
    block_on(kms.cancel_key_deletion(&scene.deleted)).unwrap();
    block_on(kms.enable_key(&scene.deleted)).unwrap();
    let expiring = Cached::new(kms, &scene.expiring);
    let deleted = Cached::new(kms, &scene.deleted);
    block_on(kms.schedule_key_deletion(&scene.deleted, DeletionWindow::from_days(7).unwrap())).unwrap();
    deleted.ends();
    let expiring_again = Cached::new(kms, &scene.expiring);
    scene.hands.set(DATE - 1);
    // The thread that looks at the clock does so twice a second.
    thread::sleep(Duration::from_millis(1_200));
    for cached in [&expiring, &expiring_again] {
        cached.seals().unwrap();
        cached.opens().unwrap();
    }
    scene.nothing_happened();
    scene.hands.set(DATE + 100 * DAY);
    expiring.ends();
    expiring_again.ends();
    deleted.ends();
    scene.both_are_gone();
    // Nor does a cache that went back in time serve anything.
    scene.hands.set(NOW);
    expiring.ends();
    deleted.ends();
}

#[test]
fn a_primary_that_waits_for_its_replicas_has_no_date_until_they_are_gone_however_long_it_sleeps() {
    let hands = Hands::at(NOW);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |at: usize| {
        let folder = folders[at].path();
        let options = KmsOptions::default().region(["eu-1", "us-1"][at]).clock(Arc::clone(&hands) as Arc<dyn Clock>);
        LocalKms::open_with(folder.join("keys.db"), RootKey::file(folder.join("root.key")).unwrap(), options).unwrap()
    };
    let (eu, us) = (open(0), open(1));
    let key = block_on(eu.create_key(CreateKeyRequest::default().multi_region())).unwrap().key_id;
    let ReplicationParameters { file, fingerprint, .. } = block_on(us.replication_parameters()).unwrap();
    let bundle = block_on(eu.replicate_key(&key, &file, &fingerprint)).unwrap();
    block_on(us.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    let week = DeletionWindow::from_days(7).unwrap();
    block_on(eu.schedule_key_deletion(&key, week)).unwrap();
    block_on(us.schedule_key_deletion(&key, week)).unwrap();
    let (eu, us) = {
        block_on(eu.close()).unwrap();
        block_on(us.close()).unwrap();
        hands.set(NOW + 300 * DAY);
        (open(0), open(1))
    };
    assert_eq!(state(&eu, &key), KeyState::PendingReplicaDeletion);
    assert_eq!(code(block_on(us.describe_key(&key))), "NotFoundException");
    let receipt = block_on(us.export_deletion_receipt(&key)).unwrap();
    // The window begins with the receipt, also by a clock that went back, and ends not a second early.
    for (time, expected) in [(NOW, KeyState::PendingDeletion), (DATE - 1, KeyState::PendingDeletion)] {
        hands.set(time);
        if time == NOW {
            block_on(eu.import_deletion_receipt(&receipt.file)).unwrap();
        }
        assert_eq!(state(&eu, &key), expected);
    }
    block_on(eu.close()).unwrap();
    let eu = open(0);
    assert_eq!(state(&eu, &key), KeyState::PendingDeletion);
    block_on(eu.close()).unwrap();
    hands.set(DATE);
    let eu = open(0);
    assert_eq!(code(block_on(eu.describe_key(&key))), "NotFoundException");
    hands.set(NOW);
    assert_eq!(code(block_on(eu.describe_key(&key))), "NotFoundException");
    assert_eq!(done(&eu, "DeleteKey", &key), 1);
}
