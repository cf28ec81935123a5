//! What the program says to do: after a wrong passphrase, a rotation, a rewrap that would lock somebody out.

use crate::cli::{Desk, KEY, noise};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn key(desk: &Desk, name: &str, text: &str) {
    let path = desk.write(name, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_rewrap_without_new_recipients_locks_nobody_out_unless_told_and_names_whom_it_removes() {
    let desk = Desk::new();
    key(&desk, "escrow.key", KEY);
    desk.write("a", "for two");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders -p raw:file=escrow.key").exits(0);
    desk.run("keys rotate alias/orders").exits(0).says("envelock rewrap --provider local:alias/orders FILE");
    let before = desk.read("a.elk");

    let refused = desk.run("rewrap a.elk -p local:alias/orders").exits(2);
    let refused = refused.says("would remove recipients of the message: raw:escrow").says("--drop-others");
    assert!(!refused.err.contains("not a revocation"), "said after a failure: {}", refused.err);
    assert_eq!(desk.read("a.elk"), before, "nothing was changed");
    desk.run("rewrap a.elk -p local:alias/orders -o b.elk").exits(2);
    assert!(!desk.path("b.elk").exists());

    // As the rotation's note says: every provider is named again.
    let both = desk.run("rewrap a.elk -p local:alias/orders -p raw:file=escrow.key").exits(0).says("not a revocation");
    assert!(!both.err.contains("REMOVED"), "{}", both.err);
    for provider in ["local:alias/orders", "raw:file=escrow.key"] {
        assert_eq!(desk.run(&format!("decrypt a.elk -o - -p {provider}")).exits(0).out, b"for two");
    }

    let dropped = desk.run("rewrap a.elk -p local:alias/orders --drop-others -o c.elk").exits(0);
    dropped.says("a.elk: raw:escrow REMOVED: it opens this file no more");
    desk.run("decrypt c.elk -o x -p raw:file=escrow.key").exits(4);
    let to = desk.run("rewrap a.elk -p local:alias/orders --to raw:file=escrow.key -o d.elk").exits(0);
    to.says("a.elk: local:envelock:local:").says("REMOVED: it opens this file no more");
    desk.run("rewrap a.elk -p local:alias/orders --to local: --drop-others").exits(2);
}

#[test]
fn an_alias_that_has_moved_is_no_recipient_that_a_rewrap_would_lose() {
    let desk = Desk::new();
    desk.write("a", "moves");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(0);
    let next = desk.run("keys create").exits(0).text().trim().to_owned();
    desk.run(&format!("keys alias move alias/orders {next}")).exits(0);
    desk.run("rewrap a.elk -p local:alias/orders").exits(0).says("REMOVED");
    assert_eq!(desk.run(&format!("decrypt a.elk -o - -p local:{next}")).exits(0).out, b"moves");
}

#[test]
fn a_wrong_passphrase_or_key_is_not_called_damage_and_a_changed_segment_is() {
    let desk = Desk::new();
    key(&desk, "k.key", KEY);
    key(&desk, "other.key", &KEY.replace('0', "1"));
    desk.write("right", "correct horse\n");
    desk.write("wrong", "correct hose\n");
    desk.write("a", noise(1_000));
    desk.run("encrypt a -p passphrase:file=right -o p.elk").exits(0);
    desk.run("encrypt a -p raw:file=k.key --unstored tenant=acme -o r.elk").exits(0);
    desk.run("encrypt a -o l.elk -c tenant=acme --unstored u=v").exits(0);
    let (passphrase, key) = ("the passphrase is not the one", "the key is not the one");
    for (line, slot, what, unstored) in [
        ("decrypt p.elk -o x -p passphrase:file=wrong", "passphrase:", passphrase, false),
        ("decrypt r.elk -o x -p raw:file=other.key,id=k --unstored tenant=acme", "raw:k", key, true),
        ("decrypt r.elk -o x -p raw:file=k.key --unstored tenant=evil", "raw:k", key, true),
        ("decrypt l.elk -o x -c tenant=acme --unstored u=w", "local:", key, true),
        ("verify p.elk -p passphrase:file=wrong", "passphrase:", passphrase, false),
    ] {
        let ran =
            desk.run(line).exits(3).says(&format!("none of the keys that were tried opened this message: {slot}"));
        let ran = ran.says(what).says("try again with the right one");
        assert!(!ran.err.contains("backup"), "{line}: {}", ran.err);
        assert_eq!(ran.err.contains("unstored context"), unstored, "{line}: {}", ran.err);
    }
    let mut changed = desk.read("p.elk");
    *changed.last_mut().unwrap() ^= 1;
    desk.write("changed.elk", &changed);
    let ran = desk.run("decrypt changed.elk -o x -p passphrase:file=right").exits(3).says("restore it from a backup");
    assert!(!ran.err.contains("is not the one"), "{}", ran.err);
    assert!(!desk.path("x").exists());
}

#[test]
fn a_damaged_head_is_said_to_be_perhaps_that() {
    let desk = Desk::new();
    key(&desk, "k.key", KEY);
    desk.write("a", "x");
    desk.run("encrypt a -p raw:file=k.key").exits(0);
    let whole = desk.read("a.elk");
    let slots = 9;
    let floe = whole.len() - 1 - 32 - 74;
    // Version, flags, AEAD, KDF; then a letter of the slot's provider name, and of its key id.
    for (at, code) in [(3, 1), (4, 1), (floe, 1), (floe + 1, 1), (slots + 2, 4), (slots + 7, 4)] {
        let mut damaged = whole.clone();
        damaged[at] = if at == 4 { 0x10 } else { 0x07 };
        desk.write("d.elk", damaged);
        desk.run("decrypt d.elk -o x -p raw:file=k.key").exits(code).says("header").says("damaged");
    }
}

#[test]
fn advice_names_the_option_that_helps() {
    let desk = Desk::new();
    key(&desk, "orders.key", KEY);
    desk.write("a", "x");
    desk.run("encrypt a -p raw:file=orders.key,id=orders-2026 -c tenant=acme").exits(0);
    let raw = desk.run("decrypt a.elk -o x -p raw:file=orders.key -c tenant=acme").exits(4);
    raw.says("raw:orders-2026").says("known by their name: give raw:file=PATH,id=NAME");
    let open = "-p raw:file=orders.key,id=orders-2026";
    let missing = desk.run(&format!("decrypt a.elk -o x {open}")).exits(3).says("--context tenant=");
    missing.says("that your application expects").says("copied from the message proves nothing");
    desk.run(&format!("encrypt a {open} --unstored tenant=acme -o u.elk")).exits(0);
    desk.run(&format!("decrypt u.elk -o x {open}")).exits(3).says("unstored entries").says("--unstored tenant=");
    desk.run("encrypt a -o l.elk").exits(0);
    let managed = desk.run("keys rotate alias/envelock/default").exits(2).says("managed key");
    managed.says("envelock keys create --alias alias/orders");
    desk.run("keys describe alias/nowhere").exits(4).says("envelock keys list");
}

#[test]
fn inspect_tells_which_files_a_rotation_left_behind() {
    let desk = Desk::new();
    desk.write("a", "x");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(0);
    let version = || {
        let json: serde_json::Value = serde_json::from_slice(&desk.run("inspect a.elk --json").exits(0).out).unwrap();
        json["slots"][0]["key_version"].as_u64()
    };
    assert_eq!(version(), Some(1));
    desk.run("keys rotate alias/orders").exits(0);
    assert_eq!(version(), Some(1));
    assert!(desk.run("inspect a.elk").exits(0).text().contains("key version 1, "));
    desk.run("rewrap a.elk -p local:alias/orders").exits(0);
    assert_eq!(version(), Some(2));
}

#[test]
fn a_forgotten_provider_is_told_by_whom_the_file_is_for_and_not_as_a_lost_keystore() {
    let desk = Desk::new();
    key(&desk, "k.key", KEY);
    desk.write("words", "correct horse");
    desk.write("a", "for one");
    desk.run("encrypt a -p raw:file=k.key").exits(0);
    desk.run("encrypt a -o p.elk -p passphrase:file=words -p raw:file=k.key").exits(0);
    let value = desk.pipe("seal -p raw:file=k.key", b"a value").exits(0).out;
    desk.write("value", &value);
    let name = "for raw:k: name it with --provider raw:file=PATH,id=k";
    for line in ["decrypt a.elk -o x", "verify a.elk", "rewrap a.elk", "recover a.elk -o x --map m", "verify a a.elk"] {
        let ran = desk.run(line).exits(4).says(&format!("a.elk is {name}")).says("no keystore is at");
        assert!(!ran.err.contains("backup"), "{line}: {}", ran.err);
    }
    desk.run("verify p.elk").exits(4).says("name it with --provider passphrase: or --provider raw:file=PATH,id=k");
    desk.pipe("open", &value).exits(4).says(&format!("standard input is {name}"));
    assert!(!desk.path("home/.local").exists());
    // What tells nobody, and what a keystore's key encrypted, may be a lost keystore's.
    desk.run("decrypt a -o x").exits(4).says("restore it from its backup");
    desk.run("encrypt a -o l.elk").exits(0);
    fs::rename(desk.path("home/.local"), desk.path("home/.lost")).unwrap();
    desk.run("decrypt l.elk -o x").exits(4).says("restore it from its backup");
}

#[test]
fn a_key_that_cannot_do_what_is_asked_is_no_reason_to_make_another_one_unless_it_is_a_managed_key() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --external --alias alias/own").exits(0);
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a").exits(0);
    let makes = "`envelock keys create --alias alias/orders` makes a key";
    for (line, advice) in [
        ("keys rotation status alias/own", "import new material, and rotate on demand"),
        ("keys rotation enable alias/own", "import new material, and rotate on demand"),
        ("keys delete-material alias/orders --yes", "make a key of origin EXTERNAL to import material"),
    ] {
        let ran = desk.run(line).exits(2).says(advice);
        assert!(!ran.err.contains(makes), "{}", ran.err);
    }
    desk.run("keys rotate alias/envelock/default").exits(2).says("is a managed key").says(makes);
}
