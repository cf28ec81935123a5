//! Imported key material, and multi-Region keys between two keystores, on the command line.

use crate::cli::Desk;
use envelock::clock::Clock;
use envelock::{KmsOptions, LocalKms, RootKey};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn line(text: &str) -> String {
    text.trim_end().to_owned()
}

#[test]
fn material_is_imported_wrapped_and_under_a_passphrase_and_new_material_rotates() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.write("one.bin", [7; 32]);
    desk.write("two.bin", [8; 32]);
    desk.write("short.bin", [9; 31]);
    desk.write("phrase", "correct horse battery staple\n");
    desk.run("keys create --external --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(4).says("import its key material");
    let told = line(desk.run("keys import-parameters alias/orders -o params --public-key der").exits(0).text());
    assert_eq!(std::fs::metadata(desk.path("params")).unwrap().permissions().mode() & 0o777, 0o600);
    let wrong = "0".repeat(64);
    desk.run(&format!("keys wrap-material --parameters params --fingerprint {wrong} one.bin -o wrapped")).exits(3);
    desk.run(&format!("keys wrap-material --parameters params --fingerprint {told} short.bin -o wrapped"))
        .exits(2)
        .says("has not 32 bytes");
    // By another tool, as the documentation has it.
    let sealed = Command::new("openssl")
        .args("pkeyutl -encrypt -in one.bin -out wrapped -pubin -inkey der -keyform DER".split(' '))
        .args("-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256".split(' '))
        .current_dir(desk.path("."))
        .status();
    if !sealed.is_ok_and(|status| status.success()) {
        desk.run(&format!("keys wrap-material --parameters params --fingerprint {told} one.bin -o wrapped")).exits(0);
    }
    let import = "keys import alias/orders --parameters params --wrapped wrapped --json";
    let first = json(desk.run(import).exits(0).text());
    assert_eq!((&first["version"], &first["state"]), (&1.into(), &"Enabled".into()));
    desk.run(import).exits(2).says("was used");
    desk.run("encrypt a -p local:alias/orders").exits(0);
    desk.run("keys seal-material two.bin -o two.sealed --passphrase-file phrase").exits(0);
    let import = "keys import alias/orders --sealed two.sealed --passphrase-file phrase";
    desk.run(import).exits(2).says("not the key material that was imported before");
    desk.run(&format!("{import} --new --valid-to 300d")).exits(0).says("keys rotate alias/orders");
    desk.run("keys rotate alias/orders").exits(0).says("version 2");
    assert_eq!(desk.run("decrypt a.elk -o - -p local:alias/orders").exits(0).out, b"plaintext");
    desk.run("keys delete-material alias/orders").exits(2).says("--yes");
    desk.run("keys delete-material alias/orders --yes").exits(0);
    desk.run("decrypt a.elk -o - -p local:alias/orders").exits(4);
    desk.run(import).exits(0).says("Enabled");
    assert_eq!(desk.run("decrypt a.elk -o - -p local:alias/orders").exits(0).out, b"plaintext");
}

#[test]
fn a_key_goes_to_another_keystore_is_rotated_promoted_and_deleted() {
    let (eu, us) = (Desk::new(), Desk::new());
    let at = |desk: &Desk, name: &str| desk.path(name).display().to_string();
    eu.write("a", "plaintext");
    let key = line(eu.run("keys create --region eu-1 --multi-region --alias alias/orders").exits(0).text());
    let key_id = key.rsplit('/').next().unwrap().to_owned();
    let of_us = line(us.run("keystore replication-key --region us-1 -o us.key").exits(0).text());
    let of_eu = line(eu.run("keystore replication-key -o eu.key").exits(0).text());
    us.run("keys list --region eu-1").exits(2);
    let to_us = format!("--to {} --fingerprint {of_us}", at(&us, "us.key"));
    eu.run(&format!("keys replicate alias/orders --to {} --fingerprint {of_eu} -o x", at(&us, "us.key"))).exits(3);
    let hash = line(eu.run(&format!("keys replicate alias/orders {to_us} -o bundle")).exits(0).text());
    assert_eq!(std::fs::metadata(eu.path("bundle")).unwrap().permissions().mode() & 0o777, 0o600);
    eu.run(&format!("keys replicate alias/orders {to_us} -o bundle")).exits(7).says("exists");
    let bundle = at(&eu, "bundle");
    us.run(&format!("keys import-replica {bundle}")).exits(2).says("--sha256");
    us.run(&format!("keys import-replica {bundle} --sha256 {of_us}")).exits(3).says("SHA-256");
    let made = json(us.run(&format!("keys import-replica {bundle} --sha256 {hash} --json")).exits(0).text());
    assert_eq!(made["key_id"], key_id.as_str());
    eu.run("encrypt a -p local:alias/orders").exits(0);
    let a = at(&eu, "a.elk");
    let opens = |desk: &Desk, file: &str| {
        let opened = desk.run(&format!("decrypt {file} -o - -p local:{key_id}")).exits(0).out;
        assert_eq!(opened, b"plaintext");
    };
    opens(&us, &a);
    us.write("b", "plaintext");
    us.run(&format!("encrypt b -p local:{key_id}")).exits(0);
    opens(&eu, &at(&us, "b.elk"));

    eu.run("keys rotate alias/orders").exits(0);
    eu.write("c", "plaintext");
    eu.run("encrypt c -p local:alias/orders").exits(0);
    let c = at(&eu, "c.elk");
    us.run(&format!("decrypt {c} -o - -p local:{key_id}")).exits(4).says("import the rotation of the key");
    eu.run(&format!("keys rotation export alias/orders {to_us} -o rotation")).exits(0);
    us.run(&format!("keys rotation import {}", at(&eu, "rotation"))).exits(0).says("version 2");
    opens(&us, &c);

    eu.run("keys primary update alias/orders us-1 -o change").exits(0);
    eu.run("keys primary export alias/orders us-1 -o again").exits(0);
    assert_eq!(eu.read("change"), eu.read("again"));
    us.run(&format!("keys primary import {}", at(&eu, "change"))).exits(0).says("us-1");
    us.run(&format!("keys primary import {}", at(&eu, "again"))).exits(2);
    us.run(&format!("keys rotate {key_id}")).exits(0);
    let all = us.run(&format!("keys replicas {key_id}")).exits(0).text().to_owned();
    assert!(all.starts_with("primary  envelock:us-1:") && all.contains("replica  envelock:eu-1:"), "{all}");

    let waits = json(us.run(&format!("keys schedule-deletion {key_id} --days 7 --yes --json")).exits(0).text());
    assert_eq!(waits["state"], "PendingReplicaDeletion");
    eu.run(&format!("keys receipt export {key_id} -o receipt")).exits(4).says("was deleted here");
    us.run(&format!("keys receipt forget-replica {key_id} eu-1")).exits(2).says("--yes");
    us.run(&format!("keys receipt forget-replica {key_id} eu-1 --yes")).exits(0).says("PendingDeletion");
    let events = us.run("audit query --json").exits(0).text().to_owned();
    for name in ["GetReplicationParameters", "ImportReplica", "ImportRotation", "ImportPrimaryChange", "ForgetReplica"]
    {
        assert!(events.contains(name), "{name}: {events}");
    }
    assert!(Path::new(&bundle).exists());
}

/// Eight days from now.
#[derive(Debug)]
struct NextWeek;

impl Clock for NextWeek {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(8 * 24 * 60 * 60)
    }
}

#[test]
fn the_receipt_of_a_deleted_replica_lets_its_primary_key_go() {
    let (eu, us) = (Desk::new(), Desk::new());
    let at = |desk: &Desk, name: &str| desk.path(name).display().to_string();
    let key = line(eu.run("keys create --region eu-1 --multi-region --alias alias/orders").exits(0).text());
    let key_id = key.rsplit('/').next().unwrap().to_owned();
    let of_us = line(us.run("keystore replication-key --region us-1 -o us.key").exits(0).text());
    let replicate = format!("keys replicate alias/orders --to {} --fingerprint {of_us} -o bundle", at(&us, "us.key"));
    let hash = line(eu.run(&replicate).exits(0).text());
    us.run(&format!("keys import-replica {} --sha256 {hash}", at(&eu, "bundle"))).exits(0);
    eu.run("keys schedule-deletion alias/orders --days 7 --yes").exits(0);
    us.run(&format!("keys schedule-deletion {key_id} --days 7 --yes")).exits(0);
    us.run(&format!("keys receipt export {key_id} -o receipt")).exits(4).says("was deleted here");
    // A week goes by: the next call finds the replica's waiting time over.
    let options = KmsOptions::default().must_exist().clock(Arc::new(NextWeek));
    let root = RootKey::file(us.path("home/.config/envelock/root.key")).unwrap();
    let kms = LocalKms::open_with(us.path("home/.local/share/envelock/keys.db"), root, options).unwrap();
    let gone = pollster::block_on(kms.describe_key(&key_id)).unwrap_err();
    assert_eq!(gone.code(), Some("NotFoundException"));
    pollster::block_on(kms.close()).unwrap();

    let told = json(us.run(&format!("keys receipt export {key_id} -o receipt --json")).exits(0).text());
    assert_eq!((&told["kind"], &told["file"]), (&"deletion-receipt".into(), &"receipt".into()));
    assert_eq!(std::fs::metadata(us.path("receipt")).unwrap().permissions().mode() & 0o777, 0o600);
    let receipt = at(&us, "receipt");
    us.run(&format!("keys receipt export {key_id} -o receipt")).exits(7);
    let import = format!("keys receipt import {receipt}");
    us.run(&import).exits(4).says("not in this keystore");
    eu.run(&import).exits(0).says("a replica less").says("PendingDeletion");
    eu.run(&import).exits(2);
    let primary = json(eu.run("keys describe alias/orders --json").exits(0).text());
    assert_eq!((&primary["state"], &primary["pending_window_in_days"]), (&"PendingDeletion".into(), &7.into()));
    assert!(primary["deletion_date"].is_string(), "{primary}");
    // The export whose file was there already was one too.
    for (desk, name, count) in [(&us, "ExportDeletionReceipt", 2), (&eu, "ImportDeletionReceipt", 1)] {
        let events =
            desk.run(&format!("audit query --event {name} --outcome allowed --json")).exits(0).text().to_owned();
        assert_eq!(events.lines().count(), count, "{events}");
    }
}
