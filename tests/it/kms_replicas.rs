//! Multi-Region keys between two keystores whose process is killed at any instant.

use crate::kms_helper::kill_writing;
use crate::kms_reports::find_recorded;
use crate::support::child::{Running, long, tell, words};
use crate::support::random::Random;
use crate::support::say;
use envelock::kms::{KeyState, MultiRegionKeyType, ReplicationParameters};
use envelock::{CreateKeyRequest, EncryptionContext, KmsOptions, LocalKms, RootKey};
use pollster::block_on;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const REGIONS: [&str; 2] = ["eu-1", "us-1"];

fn open(folder: &Path, region: &str) -> LocalKms {
    let root = RootKey::file(folder.join(format!("{region}.key"))).unwrap();
    let options = KmsOptions::default().region(region).busy_timeout(Duration::from_secs(60));
    LocalKms::open_with(folder.join(format!("{region}.db")), root, options).unwrap()
}

/// Makes keys, replicates, rotates and promotes them, and tells each step that both keystores have acknowledged.
fn share_for_ever(folder: &Path) {
    let [eu, us] = REGIONS.map(|region| open(folder, region));
    let [of_eu, of_us] = [&eu, &us].map(|kms| block_on(kms.replication_parameters()).unwrap());
    tell("OPENED");
    loop {
        let key = block_on(eu.create_key(CreateKeyRequest::default().multi_region())).unwrap().key_id;
        tell(format!("BEGIN {key}"));
        let bundle = block_on(eu.replicate_key(&key, &of_us.file, &of_us.fingerprint)).unwrap();
        block_on(us.import_replica(&bundle.file, &bundle.sha256)).unwrap();
        tell(format!("SHARED {key} 1 eu-1"));
        rotate(&eu, &us, &key, &of_us);
        tell(format!("SHARED {key} 2 eu-1"));
        let change = block_on(eu.update_primary_region(&key, "us-1")).unwrap();
        block_on(us.import_primary_change(&change.file)).unwrap();
        tell(format!("SHARED {key} 2 us-1"));
        rotate(&us, &eu, &key, &of_eu);
        tell(format!("SHARED {key} 3 us-1"));
    }
}

fn rotate(from: &LocalKms, to: &LocalKms, key: &str, of: &ReplicationParameters) {
    block_on(from.rotate(key)).unwrap();
    let rotation = block_on(from.export_rotation(key, &of.file, &of.fingerprint)).unwrap();
    block_on(to.import_rotation(&rotation.file)).unwrap();
}

/// Every key in each keystore is whole; what was acknowledged is in both; there are never two primary keys.
fn is_whole(folder: &Path, acknowledged: &BTreeMap<String, (u32, String)>) {
    let both = REGIONS.map(|region| open(folder, region));
    let context = EncryptionContext::from([("tenant", "acme")]);
    for (number, kms) in both.iter().enumerate() {
        let calls: Vec<_> = acknowledged.iter().flat_map(|(key, (version, _))| calls(number, key, *version)).collect();
        find_recorded(kms, 0, &calls).unwrap();
        block_on(kms.check()).unwrap();
        for key in block_on(kms.list_keys()).unwrap() {
            assert_eq!(key.key_state, KeyState::Enabled);
            let blob = block_on(kms.encrypt(&key.key_id, b"secret", &context)).unwrap().ciphertext_blob;
            assert_eq!(block_on(kms.decrypt(&blob, &context)).unwrap().plaintext(), b"secret");
            let versions = block_on(kms.list_key_versions(&key.key_id)).unwrap();
            assert!(versions.iter().map(|it| it.version).eq(1..=key.current_version));
        }
    }
    for (key, (version, primary)) in acknowledged {
        let found = both.each_ref().map(|kms| block_on(kms.describe_key(key)).unwrap());
        assert!(found.iter().all(|it| it.current_version >= *version), "{found:?}");
        let primaries: Vec<_> =
            found.iter().filter(|it| it.multi_region == Some(MultiRegionKeyType::Primary)).collect();
        assert!(primaries.len() <= 1, "two primary keys: {found:?}");
        if primary == "us-1" {
            assert_eq!(found[1].multi_region, Some(MultiRegionKeyType::Primary), "{found:?}");
        }
        // The older of the two encrypts for both.
        let [older, newer] = match found[0].current_version <= found[1].current_version {
            true => [&both[0], &both[1]],
            false => [&both[1], &both[0]],
        };
        let blob = block_on(older.encrypt(key, b"secret", &context)).unwrap().ciphertext_blob;
        assert_eq!(block_on(newer.decrypt(&blob, &context)).unwrap().plaintext(), b"secret");
    }
}

/// What the trail of one of the two has at least, once they share a key of this version.
fn calls(number: usize, key: &str, version: u32) -> Vec<String> {
    let events: &[&str] = match (number, version) {
        (0, 1) => &["CreateKey", "ReplicateKey"],
        (0, _) => &["CreateKey", "ReplicateKey", "RotateKeyOnDemand", "ExportRotation"],
        (_, 1) => &["ImportReplica"],
        (_, _) => &["ImportReplica", "ImportRotation"],
    };
    events.iter().map(|event| format!("CALLED {event} {key}")).collect()
}

/// What was cut off between the two goes on: lost bundles and files are made again.
fn go_on(folder: &Path, key: &str) {
    let [eu, us] = REGIONS.map(|region| open(folder, region));
    let of_us = block_on(us.replication_parameters()).unwrap();
    if block_on(us.describe_key(key)).is_err() {
        let bundle = block_on(eu.replicate_key(key, &of_us.file, &of_us.fingerprint)).unwrap();
        block_on(us.import_replica(&bundle.file, &bundle.sha256)).unwrap();
    }
    let kind = |kms: &LocalKms| block_on(kms.describe_key(key)).unwrap().multi_region;
    let primary = Some(MultiRegionKeyType::Primary);
    if kind(&eu) != primary && kind(&us) != primary {
        // It stepped down, and the file was lost: the same is given out again.
        let change = block_on(eu.export_primary_change(key, "us-1")).unwrap();
        assert_eq!(block_on(us.import_primary_change(&change.file)).unwrap().multi_region, primary);
    }
    let (from, to) = match kind(&us) == primary {
        true => (&us, &eu),
        false => (&eu, &us),
    };
    let of = block_on(to.replication_parameters()).unwrap();
    rotate(from, to, key, &of);
    let versions = [&eu, &us].map(|kms| block_on(kms.describe_key(key)).unwrap().current_version);
    assert_eq!(versions[0], versions[1]);
}

#[test]
fn keystores_killed_while_they_share_keys_lose_nothing_and_never_have_two_primaries() {
    const TEST: &str = "kms_replicas::keystores_killed_while_they_share_keys_lose_nothing_and_never_have_two_primaries";
    if let Some(words) = words() {
        return share_for_ever(Path::new(&words[0]));
    }
    let kills = if long() { 200 } else { 10 };
    let mut folder = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut inside, mut random) = (BTreeMap::new(), 0, Random::new(0x3E91));
    let (mut shared, mut on_its_way) = (0, 0);
    for kill in 0..kills {
        // Now and then anew, since all keys are looked at after each kill.
        if kill % 10 == 0 {
            folder = tempfile::tempdir().unwrap();
            shared += std::mem::take(&mut acknowledged).len();
        }
        let mut child = Running::start(TEST, &[folder.path().to_str().unwrap()]);
        assert_eq!(child.line().as_deref(), Some("OPENED"));
        // Not before the first key of this round, and each second time not before it was shared, and so on.
        for _ in 0..=kill % 4 {
            child.line();
        }
        std::thread::sleep(Duration::from_micros(random.next() % 80_000));
        // Every second one while one of them writes what the key that is on its way needs, the others at any instant.
        let moving: &dyn Fn(&str) -> bool =
            &|told| told.starts_with("BEGIN ") || told.starts_with("SHARED ") && !told.contains(" 3 ");
        let keystores = REGIONS.map(|region| folder.path().join(format!("{region}.db")));
        let (writing, lines) = kill_writing(child, &keystores, &mut random, (kill % 2 == 0).then_some(moving));
        let was_moving = lines.last().is_some_and(|told| moving(told));
        on_its_way += u32::from(was_moving);
        inside += u32::from(was_moving && writing);
        let mut last = String::new();
        for line in &lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["BEGIN", key] => key.clone_into(&mut last),
                ["SHARED", key, version, primary] => {
                    acknowledged.insert(key.to_owned(), (version.parse().unwrap(), primary.to_owned()));
                }
                _ => {}
            }
        }
        is_whole(folder.path(), &acknowledged);
        go_on(folder.path(), &last);
    }
    shared += acknowledged.len();
    say(format!(
        "replicas: {kills} kills, {on_its_way} while a key was on its way, {inside} while that held SQLite's write lock; \
         {shared} keys shared, none lost"
    ));
    assert!(inside * 2 >= kills, "only {inside} of {kills} kills fell inside a transaction");
    assert!(shared > 0);
}
