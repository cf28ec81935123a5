//! What changes much of a keystore at once, or the whole file, cut off after any file operation.

use super::disk::Folder;
use super::{Acknowledged, Recording, fill, make, memory_folder, play, read, use_key};
use crate::kms_helper::{PATIENCE, open};
use crate::support::hex;
use envelock::clock::Clock;
use envelock::kms::{AuditRetention, DeletionWindow, RestoreOptions, Sha256Fingerprint};
use envelock::{CreateKeyRequest, EncryptionContext, KmsOptions, LocalKms, RootKey};
use pollster::block_on;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Records and replays `test` on what `prepare` leaves, whose reports are known to hold from the start.
fn run(test: &'static str, prepare: fn(&Path) -> Vec<String>) {
    let folder = memory_folder();
    let known = prepare(folder.path());
    let Some(recording) = Recording::of(test, read(folder.path()), known) else { return };
    let counts = recording.replay();
    assert_eq!((counts.without_root_key, counts.begun_again), (0, 0), "{counts:?}");
    assert!(recording.lost_without_syncs());
}

/// Makes a keystore with a key, and something encrypted under it.
fn keystore(folder: &Path) -> Vec<String> {
    let kms = open(folder).unwrap();
    let mut known = Vec::new();
    let mut acknowledged = |lines: String| known.extend(lines.lines().map(str::to_owned));
    make(&kms, "alias/first", &mut acknowledged);
    use_key(&kms, "alias/first", &mut acknowledged);
    block_on(kms.close()).unwrap();
    known
}

#[test]
fn a_trim_of_the_trail_cut_off_after_any_file_operation_leaves_a_whole_trail() {
    const TEST: &str = "kms_record::others::a_trim_of_the_trail_cut_off_after_any_file_operation_leaves_a_whole_trail";
    if play(trim) {
        return;
    }
    // What is cut off is not to be looked for.
    run(TEST, |folder| keystore(folder).into_iter().filter(|line| !line.starts_with("CALLED")).collect());
}

fn trim(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    let trimmed = block_on(kms.trim_audit(AuditRetention::Newest(2))).unwrap();
    assert!(trimmed.removed > 0);
    acknowledged(format!("TRIMMED {}\nCALLED TrimAudit ", trimmed.checkpoint));
    use_key(&kms, "alias/first", acknowledged);
    block_on(kms.close()).unwrap();
}

/// After the end of each waiting time that began today.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(40 * 86_400)
    }
}

#[test]
fn a_deletion_that_is_due_cut_off_after_any_file_operation_is_done_or_is_not() {
    const TEST: &str = "kms_record::others::a_deletion_that_is_due_cut_off_after_any_file_operation_is_done_or_is_not";
    if play(delete) {
        return;
    }
    run(TEST, |folder| {
        let known = keystore(folder);
        let kms = open(folder).unwrap();
        let request = CreateKeyRequest::default().alias("alias/doomed");
        let key = block_on(kms.create_key(request)).unwrap().key_id;
        block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
        block_on(kms.close()).unwrap();
        fs::write(folder.join("doomed"), key).unwrap();
        known
    });
}

fn delete(folder: &Path, acknowledged: Acknowledged<'_>) {
    let options = KmsOptions::default().busy_timeout(PATIENCE).clock(Arc::new(Later));
    let root = RootKey::file(folder.join("root.key")).unwrap();
    let kms = LocalKms::open_with(folder.join("keys.db"), root, options).unwrap();
    // The first transaction does what is due, unless it was done already.
    use_key(&kms, "alias/first", acknowledged);
    let key = fs::read_to_string(folder.join("doomed")).unwrap();
    acknowledged(format!("GONE {key}\nCALLED DeleteKey {key}"));
    block_on(kms.close()).unwrap();
}

#[test]
fn the_migration_of_an_old_schema_cut_off_after_any_file_operation_keeps_every_key() {
    const TEST: &str =
        "kms_record::others::the_migration_of_an_old_schema_cut_off_after_any_file_operation_keeps_every_key";
    if play(migrate) {
        return;
    }
    run(TEST, |folder| {
        let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keystore-1");
        let mut start = Folder::new();
        start.insert("keys.db".to_owned(), fs::read(frozen.join("keys.db")).unwrap());
        start.insert("root.key".to_owned(), fs::read(frozen.join("root-key.txt")).unwrap());
        fill(folder, &start);
        // What there is to be found: migrated once beside it.
        let kms = open(folder).unwrap();
        let keys = block_on(kms.list_keys()).unwrap();
        let mut known: Vec<_> = keys.iter().map(|it| format!("KEY {} {}", it.key_id, it.current_version)).collect();
        let aliases = block_on(kms.list_aliases()).unwrap();
        known.extend(aliases.iter().map(|it| format!("ALIAS {} {}", it.alias_name, it.target_key_id)));
        let context = EncryptionContext::from([("tenant", "acme")]);
        for key in &keys {
            let blob = block_on(kms.encrypt(&key.key_id, b"secret", &context)).unwrap().ciphertext_blob;
            known.push(format!("BLOB secret {}", hex(&blob)));
        }
        assert!(keys.len() >= 3);
        block_on(kms.close()).unwrap();
        drop(kms);
        fill(folder, &start);
        known
    });
}

fn migrate(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    acknowledged("CALLED MigrateKeystore ".to_owned());
    use_key(&kms, "alias/orders", acknowledged);
    block_on(kms.close()).unwrap();
}

#[test]
fn the_import_of_a_replica_cut_off_after_any_file_operation_is_whole_or_absent() {
    const TEST: &str =
        "kms_record::others::the_import_of_a_replica_cut_off_after_any_file_operation_is_whole_or_absent";
    if play(import_replica) {
        return;
    }
    run(TEST, |folder| {
        let at = |folder: &Path, region: &str| {
            let root = RootKey::file(folder.join("root.key")).unwrap();
            LocalKms::open_with(folder.join("keys.db"), root, KmsOptions::default().region(region)).unwrap()
        };
        let other = memory_folder();
        let (eu, us) = (at(other.path(), "eu-1"), at(folder, "us-1"));
        let mut known = Vec::new();
        make(&us, "alias/first", &mut |lines| known.extend(lines.lines().map(str::to_owned)));
        let key = block_on(eu.create_key(CreateKeyRequest::default().multi_region())).unwrap().key_id;
        let of_us = block_on(us.replication_parameters()).unwrap();
        let bundle = block_on(eu.replicate_key(&key, &of_us.file, &of_us.fingerprint)).unwrap();
        let context = EncryptionContext::from([("tenant", "acme")]);
        let blob = block_on(eu.encrypt(&key, b"secret", &context)).unwrap().ciphertext_blob;
        block_on(us.close()).unwrap();
        fs::write(folder.join("bundle"), bundle.file).unwrap();
        fs::write(folder.join("blob"), blob).unwrap();
        known
    });
}

fn import_replica(folder: &Path, acknowledged: Acknowledged<'_>) {
    let kms = open(folder).unwrap();
    let bundle = fs::read(folder.join("bundle")).unwrap();
    let key = block_on(kms.import_replica(&bundle, &Sha256Fingerprint::of(&bundle))).unwrap().key_id;
    let blob = hex(&fs::read(folder.join("blob")).unwrap());
    acknowledged(format!("KEY {key} 1\nBLOB secret {blob}\nCALLED ImportReplica {key}"));
    block_on(kms.close()).unwrap();
}

#[test]
fn a_restore_cut_off_after_any_file_operation_leaves_the_old_keystore_or_the_backup() {
    const TEST: &str =
        "kms_record::others::a_restore_cut_off_after_any_file_operation_leaves_the_old_keystore_or_the_backup";
    if play(restore) {
        return;
    }
    run(TEST, |folder| {
        let known = keystore(folder);
        let kms = open(folder).unwrap();
        block_on(kms.backup(folder.join("backup.db"))).unwrap();
        let second = make(&kms, "alias/second", &mut |_| ());
        block_on(kms.close()).unwrap();
        fs::write(folder.join("second"), second).unwrap();
        known
    });
}

fn restore(folder: &Path, acknowledged: Acknowledged<'_>) {
    let root = RootKey::file(folder.join("root.key")).unwrap();
    let options = RestoreOptions::default().move_existing_aside();
    LocalKms::restore(folder.join("backup.db"), folder.join("keys.db"), root, options).unwrap();
    let second = fs::read_to_string(folder.join("second")).unwrap();
    acknowledged(format!("GONE {second}\nCALLED RestoreKeystore "));
    let kms = open(folder).unwrap();
    use_key(&kms, "alias/first", acknowledged);
    block_on(kms.close()).unwrap();
}
