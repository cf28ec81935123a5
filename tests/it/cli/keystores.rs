//! Keystores that are gone, and key files that lie open.

use super::{Desk, KEY};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_keystore_that_is_gone_is_missed_by_readers_and_made_anew_by_writers_with_a_word() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("encrypt a").exits(0);
    let keystore = desk.path("home/.local/share/envelock/keys.db");
    let saved = desk.path("saved.db");
    let beside = || ["keys.db-wal", "keys.db-shm"].map(|name| keystore.with_file_name(name).exists());
    assert_eq!(beside(), [false, false], "all of it is in the one file");
    fs::rename(&keystore, &saved).unwrap();
    let readers = [
        "decrypt a.elk -o b",
        "verify a.elk",
        "rewrap a.elk",
        "keys list",
        "keys describe alias/envelock/default",
        "keys rotate alias/envelock/default",
        "keys alias delete alias/x",
        "keys root export",
    ];
    for line in readers {
        desk.run(line).exits(4).says("keys.db").says("restore it from its backup");
        assert!(!keystore.exists(), "{line}");
    }
    // A file in which no keystore was made yet, as a creation that was cut off leaves it.
    fs::write(&keystore, "").unwrap();
    for line in readers {
        desk.run(line).exits(4).says("keys.db").says("restore the keystore file");
        assert_eq!(fs::metadata(&keystore).unwrap().len(), 0, "{line}");
    }
    fs::remove_file(&keystore).unwrap();
    desk.run("encrypt a -o b.elk").exits(0).says("root.key was there").says("restore it in its place");
    desk.run("decrypt b.elk -o b").exits(0);
    desk.run("decrypt a.elk -o c").exits(4);
    // The backup put back opens what it encrypted.
    assert_eq!(beside(), [false, false]);
    fs::rename(&saved, &keystore).unwrap();
    desk.run("decrypt a.elk -o c").exits(0);
    assert_eq!(desk.read("c"), b"plaintext");
}

#[test]
fn a_raw_key_file_that_others_may_read_is_refused() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    let key = desk.write("k.key", KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    desk.run("encrypt a -p raw:file=k.key").exits(6).says("k.key").says("chmod 600");
    assert!(!desk.path("a.elk").exists());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    desk.run("encrypt a -p raw:file=k.key").exits(0);
}
