//! The program's care for the keystore: it is not lost by copying its file, not made in the place of a
//! lost one, and backed up while it is in use.

use crate::cli::{Desk, Ran, noise};
use crate::support::child::{leftovers, long};
use crate::support::random::Random;
use crate::support::say;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

const KEYSTORE: &str = "home/.local/share/envelock/keys.db";
const ROOT_KEY: &str = "home/.config/envelock/root.key";

/// Whether `a.elk` opens with these bytes of a keystore and today's root key alone.
#[track_caller]
fn opens_with_copy(desk: &Desk, copy: &[u8], line: &str) {
    let folder = tempfile::tempdir_in(desk.path(".")).unwrap();
    let at = folder.path().join("keys.db");
    fs::write(&at, copy).unwrap();
    let ran = desk.run(&format!("decrypt a.elk -o - -p local:alias/orders --keystore {}", at.display()));
    assert_eq!(ran.exits(0).out, b"plaintext", "after {line}");
}

#[test]
fn after_each_command_a_copy_of_the_keystore_file_alone_has_every_key() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("encrypt a -o first.elk").exits(0);
    let other = desk.run("keys create").exits(0).text().trim().to_owned();
    let commands = [
        "keys create --alias alias/orders",
        "encrypt a -p local:alias/orders",
        "keys rotate alias/orders",
        "rewrap a.elk -p local:alias/orders",
        &format!("keys alias create alias/second {other}"),
        &format!("keys alias move alias/orders {other}"),
        "encrypt a -f -p local:alias/orders",
        "keys alias delete alias/second",
        "keys list",
        "verify a.elk -p local:alias/orders",
    ];
    for line in commands {
        desk.run(line).exits(0);
        if desk.path("a.elk").exists() {
            opens_with_copy(&desk, &desk.read(KEYSTORE), line);
        }
    }
    // Failed ones too.
    for (line, code) in [
        ("keys rotate alias/nowhere", 4),
        ("keys create --alias alias/orders", 7),
        ("decrypt a.elk -o b -p local:alias/orders -c tenant=acme", 3),
        ("encrypt a -p local:alias/orders", 7),
    ] {
        desk.run(line).exits(code);
        opens_with_copy(&desk, &desk.read(KEYSTORE), line);
        assert!(!desk.path(&format!("{KEYSTORE}-wal")).exists(), "{line}");
    }
}

#[test]
fn a_backup_opens_what_was_encrypted_before_it_and_replaces_nothing() {
    let desk = Desk::new();
    desk.run("keys backup b.db").exits(4).says("there is no keystore");
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0).says("back up both").says("keystore backup");
    desk.run("encrypt a -p local:alias/orders").exits(0);
    desk.run("keys backup b.db").exits(0).says("root key");
    assert_eq!(fs::metadata(desk.path("b.db")).unwrap().permissions().mode() & 0o777, 0o600);
    let backup = desk.read("b.db");
    desk.run("keys rotate alias/orders").exits(0).says("keystore backup");
    desk.run("keys backup b.db").exits(7).says("b.db");
    assert_eq!(desk.read("b.db"), backup);
    desk.run("keys backup nowhere/b.db").exits(6).says("nowhere/b.db");
    opens_with_copy(&desk, &backup, "a backup");
    // Restored in its place, it is a keystore like any other.
    fs::remove_file(desk.path(KEYSTORE)).unwrap();
    fs::copy(desk.path("b.db"), desk.path(KEYSTORE)).unwrap();
    assert_eq!(desk.run("decrypt a.elk -o - -p local:alias/orders").exits(0).out, b"plaintext");
    desk.run("keys rotate alias/orders").exits(0).says("version 2");
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_half() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(0);
    let kills = if long() { 300 } else { 40 };
    let (mut random, mut whole, mut temporary) = (Random::new(7), 0, 0);
    let started = Instant::now();
    desk.run("keys backup b.db").exits(0);
    fs::remove_file(desk.path("b.db")).unwrap();
    // About half of them while it runs.
    let latest = 2 * u64::try_from(started.elapsed().as_micros()).unwrap();
    for _ in 0..kills {
        let mut child = desk.command(["keys", "backup", "b.db"]).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.next() % latest));
        child.kill().unwrap();
        child.wait().unwrap();
        temporary += leftovers(desk.path(".").as_path()).len();
        if desk.path("b.db").exists() {
            whole += 1;
            opens_with_copy(&desk, &desk.read("b.db"), "a killed backup");
            fs::remove_file(desk.path("b.db")).unwrap();
        }
    }
    desk.run("keys backup b.db").exits(0);
    assert_eq!(leftovers(desk.path(".").as_path()), []);
    desk.run("decrypt a.elk -o b -p local:alias/orders").exits(0);
    assert!(whole + temporary > 0, "no kill found a backup under way or done");
    say(format!(
        "backup: {kills} kills, {whole} left a whole backup, {temporary} a temporary file, none half a backup"
    ));
}

#[test]
fn a_keystore_that_is_gone_is_missed_by_readers_and_made_anew_only_when_told() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("encrypt a").exits(0);
    let (keystore, saved) = (desk.path(KEYSTORE), desk.path("saved.db"));
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
        "keys backup b.db",
    ];
    for line in readers {
        desk.run(line).exits(4).says("keys.db").says("restore it from its backup");
        assert!(!keystore.exists(), "{line}");
    }
    // As a creation that was cut off leaves it, or a copy of old without its log.
    for stub in [Vec::new(), stub()] {
        fs::write(&keystore, &stub).unwrap();
        for line in readers {
            let ran = desk.run(line).exits(4).says("keys.db: this file holds no keystore").says("nothing was changed");
            assert!(!ran.err.contains("made the keystore"), "{line}: {}", ran.err);
            assert_eq!(fs::read(&keystore).unwrap(), stub, "{line}");
        }
    }
    fs::remove_file(&keystore).unwrap();
    for line in ["encrypt a -o b.elk", "keys create", "rewrap a.elk --to local:"] {
        let ran = desk.run(line).exits(4);
        if !line.starts_with("rewrap") {
            ran.says("restore the keystore from its backup").says("--new-keystore");
        }
        assert!(!keystore.exists() && !desk.path("b.elk").exists(), "{line}");
    }
    desk.run("encrypt a -o b.elk --new-keystore").exits(0).says("root.key was there").says("restore it in its place");
    desk.run("decrypt b.elk -o b").exits(0);
    desk.run("decrypt a.elk -o c").exits(4);
    // The backup put back opens what it encrypted.
    fs::rename(&saved, &keystore).unwrap();
    desk.run("decrypt a.elk -o c").exits(0);
    assert_eq!(desk.read("c"), b"plaintext");
}

/// A database with the write-ahead log switched on and nothing in it.
fn stub() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let sql = rusqlite::Connection::open(folder.path().join("x")).unwrap();
    sql.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    drop(sql);
    let stub = fs::read(folder.path().join("x")).unwrap();
    assert_eq!(stub.len(), 4096);
    stub
}

#[test]
fn a_first_use_that_was_cut_off_is_taken_up_by_the_next_without_a_flag() {
    let desk = Desk::new();
    desk.write("a", noise(10));
    desk.run("encrypt a -o once.elk").exits(0);
    // The root key was durable, and the keystore's tables were not yet.
    for stub in [Vec::new(), stub()] {
        fs::write(desk.path(KEYSTORE), stub).unwrap();
        desk.run("encrypt a -f").exits(0).says("made a new and empty one");
        desk.run("decrypt a.elk -o b -f").exits(0);
    }
}

#[test]
fn the_keystores_place_may_stand_after_the_command() {
    let desk = Desk::new();
    desk.run("keys create --keystore k.db --root-key k.key").exits(0);
    let list = |line: &str| desk.run(line).exits(0).text().lines().count();
    assert_eq!(list("keys list --keystore k.db --root-key k.key"), 1);
    assert_eq!(list("keys --keystore k.db list --root-key k.key"), 1);
    assert_eq!(list("keys --keystore k.db --root-key k.key list"), 1);
    desk.run("keys root export -o out.key --keystore k.db --root-key k.key").exits(0);
    assert_eq!(desk.read("out.key"), desk.read("k.key"));
    assert!(!desk.path(ROOT_KEY).exists());
    let mut by_variable = desk.command(["keys", "list"]);
    by_variable.env("ENVELOCK_KEYSTORE", "k.db").env("ENVELOCK_ROOT_KEY", "k.key");
    assert_eq!(Ran::of("list", by_variable.output().unwrap()).exits(0).text().lines().count(), 1);
}

#[test]
fn a_root_key_is_replaced_and_a_backup_restored_from_the_command_line() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0).says("keystore root export");
    desk.run("encrypt a -p local:alias/orders").exits(0);
    desk.run("keystore backup b.db").exits(0).says("keystore root export");
    desk.run("keystore root export -o old.key").exits(0);
    desk.run("keystore rekey").exits(2).says("--yes");
    assert_eq!(desk.read("old.key"), desk.read(ROOT_KEY));
    desk.run("keystore rekey --yes").exits(0).says("root.key").says("make a new backup").says("older copies");
    assert_ne!(desk.read("old.key"), desk.read(ROOT_KEY));
    let opens = |line: &str| assert_eq!(desk.run(line).exits(0).out, b"plaintext", "{line}");
    opens("decrypt a.elk -o - -p local:alias/orders");
    let wrong = desk.run("decrypt a.elk -o - -p local:alias/orders --root-key old.key").exits(4);
    wrong.says("old.key").says("no longer");
    // The backup is of the old root key's day.
    desk.run("keystore restore b.db").exits(4).says("root.key").says("of its day");
    desk.run("keystore restore b.db --root-key old.key").exits(7).says("--replace");
    let head = desk.run("audit head").exits(0).text().trim().to_owned();
    let ran = desk.run("keystore restore b.db --root-key old.key --replace").exits(0).says("keys.db.replaced-1");
    let ran = ran.says("it opens with old.key, and not with").says("rekey --root-key old.key --to-file");
    let new = ran.says("compare no more").text().trim().to_owned();
    desk.run(&format!("audit verify --head {new} --root-key old.key")).exits(0);
    let verified = desk.run(&format!("audit verify --head {head} --root-key old.key")).exits(3);
    let verified = verified.says("says that a backup was restored").says("keep a new head");
    assert!(!verified.err.contains("something else than envelock"), "{}", verified.err);
    opens("decrypt a.elk -o - -p local:alias/orders --root-key old.key");
    opens(&format!("decrypt a.elk -o - -p local:alias/orders --keystore {KEYSTORE}.replaced-1"));
    // A new machine.
    fs::remove_dir_all(desk.path("home")).unwrap();
    desk.run("keystore restore b.db").exits(4).says("put the root key's export back").says("install -m 600 COPY");
    fs::create_dir_all(desk.path("home/.config/envelock")).unwrap();
    fs::copy(desk.path("old.key"), desk.path(ROOT_KEY)).unwrap();
    desk.run("encrypt a -o c.elk").exits(4).says("keystore restore");
    desk.run("keystore restore b.db").exits(0);
    opens("decrypt a.elk -o - -p local:alias/orders");
    // Older spellings go on working.
    desk.run("keys backup c.db").exits(0);
    assert_eq!(desk.run("keys root export").exits(0).out, desk.read(ROOT_KEY));
}

#[test]
fn a_key_provider_unlocks_a_keystore_from_the_command_line() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.write("unlock.key", crate::cli::KEY);
    desk.run("encrypt a").exits(0);
    desk.run("keystore rekey --to local: --yes").exits(2).says("inside it");
    desk.run("keystore rekey --to raw:file=unlock.key --yes").exits(0).says("--unseal");
    desk.run("decrypt a.elk -o b").exits(4).says("unseal it").says("--unseal PROVIDER");
    desk.run("decrypt a.elk -o b --unseal raw:file=unlock.key").exits(0);
    assert_eq!(desk.read("b"), b"plaintext");
    desk.run("keystore backup b.db --unseal raw:file=unlock.key").exits(0);
    desk.run("keystore restore b.db --unseal raw:file=unlock.key --replace").exits(0);
    desk.run("keystore rekey --unseal raw:file=unlock.key --yes").exits(2).says("--to-file");
    desk.run("keystore rekey --unseal raw:file=unlock.key --to-file new/root.key --yes").exits(0).says("new/root.key");
    desk.run("decrypt a.elk -o b -f --root-key new/root.key").exits(0);
    desk.run("keys list --unseal raw:file=unlock.key").exits(4).says("root key file").says("leave --unseal off");
}

#[test]
fn a_check_says_what_it_found_and_what_is_wrong() {
    let desk = Desk::new();
    desk.run("keystore check").exits(4).says("there is no keystore");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("keys rotate alias/orders").exits(0);
    let report: serde_json::Value = serde_json::from_slice(&desk.run("keystore check --json").exits(0).out).unwrap();
    assert_eq!(
        (report["keys"].as_u64(), report["versions"].as_u64(), report["secrets"].as_u64()),
        (Some(1), Some(2), Some(3))
    );
    let ran = desk.run("keystore check").exits(0).says("only by `envelock audit verify --head`").says("not checked");
    assert!(ran.text().contains("in order") && ran.text().contains("versions       2"), "{}", ran.text());
    let sql = rusqlite::Connection::open(desk.path(KEYSTORE)).unwrap();
    sql.execute("UPDATE keys SET description = 'x'", []).unwrap();
    drop(sql);
    for line in ["keystore check", "keys list", "audit query", "audit verify", "keystore backup b.db"] {
        desk.run(line).exits(3).says("keys.db").says("was changed");
    }
    fs::copy(desk.path(KEYSTORE), desk.path("bad.db")).unwrap();
    desk.run("keystore restore bad.db --replace").exits(3).says("was changed");
    desk.write("none.db", "no keystore");
    for line in ["audit verify", "keys list"] {
        desk.run(&format!("{line} --keystore none.db")).exits(1).says("is not an envelock keystore");
    }
    desk.write(ROOT_KEY, "no root key");
    desk.run("keystore check").exits(4).says("root.key").says("holds no root key");
}

#[test]
fn the_states_of_keys_are_told_without_a_keystore() {
    let desk = Desk::new();
    desk.run("keys states").exits(0);
    assert_eq!(desk.run("keys states --table").exits(0).text(), envelock::kms::state_table());
    let ran = desk.run("keys states --json").exits(0);
    let cells: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    let cell = |kind: &str, state: &str, operation: &str| {
        let is = |cell: &&serde_json::Value| {
            cell["kind"] == kind && cell["state"] == state && cell["operation"] == operation
        };
        cells.as_array().unwrap().iter().find(is).unwrap()["code"].clone()
    };
    assert_eq!(cell("customer key", "Disabled", "Encrypt"), "DisabledException");
    assert_eq!(cell("imported key", "PendingImport", "ImportKeyMaterial"), serde_json::Value::Null);
    desk.run("keys states --json --table").exits(2);
    assert!(!desk.path(KEYSTORE).exists() && !desk.path(ROOT_KEY).exists());
}

#[test]
fn a_key_is_described_in_local_time_and_for_programs_in_utc() {
    let desk = Desk::new();
    let key = desk.run("keys create").exits(0).text().trim().to_owned();
    let describe = |more: &[&str]| {
        let mut command = desk.command([["keys", "describe", &key].as_slice(), more].concat());
        command.env("TZ", "<+0530>-5:30");
        Ran::of("describe", command.output().unwrap()).exits(0).text().to_owned()
    };
    let created = describe(&[]).lines().find_map(|line| line.strip_prefix("created      ").map(str::to_owned)).unwrap();
    assert!(created.ends_with("+05:30"), "{created}");
    let value: serde_json::Value = serde_json::from_str(&describe(&["--json"])).unwrap();
    let utc = value["created"].as_str().unwrap();
    assert!(utc.ends_with('Z'), "{utc}");
    // The same minute of the hour, half an hour apart.
    let minute = |text: &str| text[14..16].parse::<u32>().unwrap();
    assert_eq!(minute(&created), (minute(utc) + 30) % 60);
}

#[test]
fn a_command_that_meets_a_rekey_is_worth_running_again() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let mut tail = desk.command(["audit", "tail", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What it found first shows that it has the keystore open.
    let mut line = String::new();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.contains("CreateKeystore"), "{line}");
    desk.run("keystore rekey --yes").exits(0);
    let ran = Ran::of("audit tail -f", tail.wait_with_output().unwrap()).exits(5);
    ran.says("another root key than when it was opened").says("run it again");
    desk.run("audit tail").exits(0);
}

#[test]
fn advice_on_a_keystore_names_the_command_that_helps() {
    let desk = Desk::new();
    for line in ["keys list", "audit query", "cost", "keystore check"] {
        let ran = desk.run(line).exits(4).says("`envelock keys create --alias alias/NAME`");
        assert!(!ran.err.contains("--provider"), "{}", ran.err);
    }
    let mut named = desk.command(["keys", "create"]);
    let ran = Ran::of("keys create", named.env("ENVELOCK_ROOT_KEY_VALUE", "foo").output().unwrap()).exits(2);
    ran.says("what ENVELOCK_ROOT_KEY_VALUE holds is not a root key");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("keys describe orders").exits(2).says("did you mean alias/orders?");
    desk.write("a", "plaintext");
    desk.run("encrypt a -p alias/orders").exits(2).says("local:alias/orders");
    desk.run("keystore root export -o out.key").exits(0).says("keep it safe");
    let twice = desk.run("keystore root export -o out.key").exits(7);
    assert!(!twice.err.contains("keep it safe"), "{}", twice.err);
}
