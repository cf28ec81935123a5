//! `envelock inventory` and `envelock fleet rewrap`.

use crate::cli::{Desk, KEY, Ran, kill};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;

const OTHER: &str = "1111111111111111111111111111111111111111111111111111111111111111\n";

/// Keys `old` and `new`, and `count` messages below `data` under the old one, each of a context of its own.
fn desk(count: usize) -> Desk {
    let desk = Desk::new();
    desk.write("old.key", KEY);
    desk.write("new.key", OTHER);
    fs::create_dir_all(desk.path("data/deep")).unwrap();
    for at in 0..count {
        let name = if at % 2 == 0 { format!("data/{at}") } else { format!("data/deep/{at}") };
        desk.write(&name, format!("content {at}"));
        desk.run(&format!("-q encrypt {name} -p raw:file=old.key -c object={at}")).exits(0);
        fs::remove_file(desk.path(&name)).unwrap();
    }
    desk
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_fleet_is_counted_moved_and_counted_again() {
    let desk = desk(6);
    desk.write("data/plain", "no message");
    let before: Value = serde_json::from_str(desk.run("inventory --json data").exits(0).text()).unwrap();
    assert_eq!((&before["messages"], &before["not_envelock"]), (&6.into(), &1.into()));
    assert_eq!((&before["groups"][0]["key_id"], &before["groups"][0]["files"]), (&"old".into(), &6.into()));
    assert!(desk.run("inventory data").exits(0).text().contains("raw:old"));

    let moving = "fleet rewrap --from raw:file=old.key --provider raw:file=new.key data";
    let dry = desk.run(&format!("{moving} --dry-run")).exits(0);
    assert_eq!(dry.text().matches(": due +raw:new -raw:old (opened here)\n").count(), 6, "{}", dry.text());
    assert!(dry.text().contains("calls                    0\n") && !dry.text().contains("inside"), "{}", dry.text());
    desk.run("verify data/0.elk -p raw:file=old.key -c object=0").exits(0);

    let moved = desk.run(&format!("{moving} --json --files")).exits(0).says("not a revocation");
    let told = lines(&moved);
    assert_eq!(told.len(), 7);
    assert_eq!((&told[0]["outcome"], &told[0]["added"][0]["key_id"]), (&"rewrapped".into(), &"new".into()));
    assert_eq!((&told[6]["rewrapped"], &told[6]["calls"]["encrypt"]), (&6.into(), &6.into()));
    for at in 0..6 {
        let name = if at % 2 == 0 { format!("data/{at}.elk") } else { format!("data/deep/{at}.elk") };
        desk.run(&format!("verify {name} -p raw:file=new.key -c object={at}")).exits(0);
        desk.run(&format!("verify {name} -p raw:file=old.key -c object={at}")).exits(4);
    }
    let again: Value = serde_json::from_str(desk.run(&format!("{moving} --json")).exits(0).text()).unwrap();
    assert_eq!((&again["current"], &again["calls"]["decrypt"]), (&6.into(), &0.into()));
}

#[test]
fn paths_come_from_a_list_and_names_that_are_no_text_are_told_as_bytes() {
    let desk = desk(3);
    let odd = desk.path("data").join(std::ffi::OsStr::from_bytes(b"\xff\x1b[2J.elk"));
    fs::rename(desk.path("data/2.elk"), odd).unwrap();
    let ran = desk.pipe("inventory --list - --null --files --json", b"data/0.elk\0data/deep\0").exits(0);
    assert_eq!(lines(&ran).last().unwrap()["messages"], 2);
    let ran = desk.run("inventory --files --json data").exits(0);
    let told = lines(&ran);
    assert!(told.iter().any(|it| it["path_hex"] == "646174612fff1b5b324a2e656c6b"), "{told:?}");
    let text = desk.run("inventory --files data").exits(0);
    assert!(!text.text().contains('\x1b'), "a name drives the terminal");
    desk.run("inventory").exits(2);
    desk.run("fleet rewrap --again data").exits(2);
}

#[test]
fn what_cannot_be_moved_is_told_by_file_and_code_and_the_rest_is_done() {
    let desk = desk(4);
    let whole = desk.read("data/0.elk");
    desk.write("data/cut.elk", &whole[..40]);
    let ran = desk.run("inventory data").exits(3).says("data/cut.elk: ");
    assert!(ran.text().contains("damaged heads            1\n"));
    let moved =
        desk.run("fleet rewrap --from raw:file=old.key -p raw:file=new.key data").exits(3).says("data/cut.elk: ");
    assert!(moved.text().contains("rewrapped                4\n"), "{}", moved.text());
    // Somebody else's recipient: refused, kept, dropped.
    fs::remove_file(desk.path("data/cut.elk")).unwrap();
    desk.write("escrow.key", KEY);
    desk.run("rewrap data/0.elk -c object=0 -p raw:file=new.key --to raw:file=new.key --to raw:file=escrow.key")
        .exits(0);
    desk.run("fleet rewrap --from raw:file=new.key -p raw:file=old.key data").exits(2).says("raw:escrow");
    desk.run("fleet rewrap --from raw:file=new.key -p raw:file=old.key --keep-others data").exits(0);
    desk.run("verify data/0.elk -p raw:file=escrow.key -c object=0").exits(0);
    desk.run("fleet rewrap -p raw:file=old.key --drop-others data").exits(0);
    desk.run("verify data/0.elk -p raw:file=escrow.key -c object=0").exits(4);
    // No key at all, and no message.
    desk.run("fleet rewrap --from raw:file=new.key -p raw:file=new.key --drop-others data")
        .exits(4)
        .says("none of the");
    desk.run("inventory nowhere").exits(6).says("nowhere");
}

#[test]
fn a_key_that_is_a_source_and_the_target_is_known_for_one() {
    let desk = Desk::new();
    fs::create_dir(desk.path("data")).unwrap();
    for name in ["a", "b"] {
        desk.run(&format!("keys create --alias alias/{name}")).exits(0);
        desk.write(&format!("data/{name}"), "content");
        desk.run(&format!("-q encrypt data/{name} -p local:alias/{name}")).exits(0);
        fs::remove_file(desk.path(&format!("data/{name}"))).unwrap();
    }
    let moving = "fleet rewrap --json --from local:alias/a --from local:alias/b -p local:alias/b data";
    let counts = |ran: &Ran| serde_json::from_str::<Value>(ran.text()).unwrap();
    let moved = counts(&desk.run(moving).exits(0));
    assert_eq!((&moved["rewrapped"], &moved["current"], &moved["blind"]), (&1.into(), &1.into(), &1.into()));
    let again = counts(&desk.run(moving).exits(0));
    assert_eq!(
        (&again["rewrapped"], &again["current"], &again["calls"]["re_encrypt"]),
        (&0.into(), &2.into(), &0.into())
    );
}

#[test]
fn a_recipient_is_added_and_an_older_version_of_a_key_renewed() {
    let desk = Desk::new();
    desk.write("old.key", KEY);
    desk.write("a", "x");
    desk.run("-q encrypt a -p raw:file=old.key").exits(0);
    desk.run("keys create --alias alias/orders").exits(0);
    let filling = "fleet rewrap -p raw:file=old.key -p local:alias/orders a.elk";
    let filled = desk.run(&format!("{filling} --json")).exits(0);
    let filled: Value = serde_json::from_str(filled.text()).unwrap();
    assert_eq!((&filled["rewrapped"], &filled["blind"]), (&1.into(), &0.into()));
    desk.run("verify a.elk -p local:alias/orders").exits(0);
    desk.run("verify a.elk -p raw:file=old.key").exits(0);
    // An older version of the key shows, and is renewed inside the keystore.
    desk.run("keys rotate alias/orders").exits(0);
    let versions: Value =
        serde_json::from_str(desk.run("inventory --by version --json a.elk").exits(0).text()).unwrap();
    assert_eq!(versions["groups"][0]["key_version"], 1);
    let renewed = desk.run(&format!("{filling} --below-version 2 --json")).exits(0).says("were not seen here");
    let renewed: Value = serde_json::from_str(renewed.text()).unwrap();
    assert_eq!(
        (&renewed["rewrapped"], &renewed["blind"], &renewed["calls"]["re_encrypt"]),
        (&1.into(), &1.into(), &1.into())
    );
    desk.run("verify a.elk -p local:alias/orders").exits(0);
    let versions: Value =
        serde_json::from_str(desk.run("inventory --by version --json a.elk").exits(0).text()).unwrap();
    assert_eq!(versions["groups"][0]["key_version"], 2);
}

#[test]
fn an_interrupted_run_says_so_and_the_same_command_does_the_rest() {
    let desk = desk(40);
    let line =
        "fleet rewrap --from raw:file=old.key -p raw:file=new.key --rate 40 --files --concurrency 1 --journal j data";
    let mut child = desk.command(line.split(' ')).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    for _ in 0..5 {
        out.read_line(&mut told).unwrap();
    }
    kill(libc::SIGINT, child.id());
    out.read_to_string(&mut told).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(130), None));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("the same command does the rest"), "{err}");
    assert!(desk.path("j").exists());
    let begun = told.matches(": rewrapped").count();
    assert!((5..20).contains(&begun), "{told}");
    assert_eq!(desk.temporary_files(), [] as [String; 0]);
    let rest = desk.run(&line.replace("--rate 40 ", "")).exits(0);
    assert!(rest.text().contains(&format!("rewrapped                {}\n", 40 - begun)), "{}", rest.text());
    assert!(!desk.path("j").exists());
}

#[test]
fn a_dry_run_makes_nothing_and_calls_nobody() {
    let desk = desk(2);
    let dry = "fleet rewrap --from raw:file=old.key --dry-run data --provider";
    let ran = desk.run(&format!("{dry} local:")).exits(4);
    assert!(ran.err.contains("there is no keystore at"), "{}", ran.err);
    assert!(!desk.path("home/.local").exists() && !desk.path("home/.config").exists(), "a dry run made something");
    // A key that its first use would make is not made either.
    desk.run("keys create --alias alias/orders").exits(0);
    let keys = || desk.run("keys list --json").exits(0).text().to_owned();
    let before = keys();
    desk.run(&format!("{dry} local:")).exits(4).says("has no alias/envelock/default yet");
    assert_eq!(keys(), before);
    desk.run(&format!("{dry} local:alias/orders")).exits(0);
    // Nobody listens there: whoever calls, fails otherwise.
    let aws = "aws-kms:alias/orders,region=eu-west-1,endpoint=http://127.0.0.1:9";
    desk.run(&format!("{dry} {aws}")).exits(2).says("name the key by its own ARN");
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    desk.run(&format!("{dry} aws-kms:{arn},endpoint=http://127.0.0.1:9")).exits(0);
}

#[test]
fn a_source_that_is_mistyped_or_forgotten_is_told_by_the_dry_run_as_by_the_run() {
    let desk = desk(3);
    for from in ["--from raw:file=old.key,id=odl ", ""] {
        for dry in ["--dry-run ", ""] {
            let ran = desk.run(&format!("fleet rewrap {from}{dry}-p raw:file=new.key data")).exits(4);
            let ran = ran.says("data/0.elk: none of the configured keys opens this message, which is for raw:old");
            let ran = ran.says("name it with --from if its key is to go");
            let counts: Vec<_> = ran.text().lines().filter(|line| !line.ends_with(": failed")).collect();
            let count = |name: &str| counts.iter().find_map(|line| Some(line.strip_prefix(name)?.trim()));
            assert!(
                count("failed") == Some("3") && count("would be rewrapped").unwrap_or("0") == "0",
                "{}",
                ran.text()
            );
        }
    }
    // Somebody else in it: refused by both, with the options that there are.
    desk.write("escrow.key", KEY);
    desk.run("rewrap data/0.elk -c object=0 -p raw:file=old.key --to raw:file=old.key --to raw:file=escrow.key")
        .exits(0);
    for dry in ["--dry-run ", ""] {
        let ran =
            desk.run(&format!("fleet rewrap {dry}--from raw:file=old.key --to raw:file=new.key data/0.elk")).exits(2);
        let ran = ran.says("raw:escrow").says("--keep-others leaves them").says("--drop-others removes them");
        assert!(!ran.err.contains("--to"), "{}", ran.err);
    }
    desk.run("fleet rewrap --keep-others --from raw:file=old.key --to raw:file=new.key data").exits(0);
    desk.run("verify data/0.elk -p raw:file=new.key -c object=0").exits(0);
}

#[test]
fn an_older_key_of_an_alias_is_due_perhaps_and_two_versions_of_one_key_inside() {
    let desk = Desk::new();
    desk.write("a", "x");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("-q encrypt a -p local:alias/orders").exits(0);
    let renewing = "fleet rewrap -p local:alias/orders a.elk";
    desk.run("keys rotate alias/orders").exits(0);
    let dry = desk.run(&format!("{renewing} --below-version 2 --dry-run")).exits(0);
    assert!(dry.text().contains("a.elk: due anew (inside the key service, where it can)\n"), "{}", dry.text());
    let next = desk.run("keys create").exits(0).text().trim().to_owned();
    desk.run(&format!("keys alias move alias/orders {next}")).exits(0);
    let dry = desk.run(&format!("{renewing} --dry-run")).exits(0).says("only a call tells");
    assert!(dry.text().contains("a.elk: perhaps due +local:"), "{}", dry.text());
    assert!(dry.text().contains("perhaps                  1\n"), "{}", dry.text());
    desk.run(renewing).exits(0);
    let after = desk.run(&format!("{renewing} --dry-run")).exits(0);
    assert!(after.text().contains("up to date               1\n") && !after.err.contains("perhaps"));
}

#[test]
fn a_recipient_who_alone_is_due_and_out_of_reach_is_recorded_and_listed() {
    let desk = desk(2);
    let line = "fleet rewrap -p raw:file=old.key -p vault:http://127.0.0.1:9/transit/k --at-least 1 data";
    let run = || {
        let mut command = desk.command(line.split(' '));
        Ran::of(line, command.env("VAULT_TOKEN", "token").output().unwrap())
    };
    let ran = run().exits(0);
    assert!(ran.text().contains("with missing recipients  2\n"), "{}", ran.text());
    let listed = desk.run("inventory --missing --files data").exits(0);
    assert_eq!(listed.text().matches("vault:transit/k MISSING").count(), 2, "{}", listed.text());
    // It is down still, and recorded: a failure, for which a profile is no way out.
    let again = run().exits(5).says("the connection was refused");
    assert!(!again.err.contains("a profile with write"), "{}", again.err);
}

#[test]
fn a_selection_that_can_mean_nothing_is_refused_and_one_that_means_nothing_is_told() {
    let desk = desk(2);
    for (under, words) in [
        ("aws-kms:alias/app", "by its ARN"),
        ("aws-kms:arn:aws:kms:eu-west-1:1:alias/app", "by its ARN"),
        ("local:alias/app", "by its full name"),
        ("vaultt:transit/orders", "is it vault:?"),
        ("nothing", "PROVIDER:KEY"),
    ] {
        desk.run(&format!("inventory --under {under} data")).exits(2).says(words);
        desk.run(&format!("fleet rewrap -p raw:file=new.key --under {under} data")).exits(2).says(words);
    }
    for under in ["raw:odl", "com.example.hsm:k", "vault:transit/order"] {
        desk.run(&format!("inventory --under {under} data")).exits(0).says("no message was selected");
        let ran = desk.run(&format!("fleet rewrap -p raw:file=new.key --under {under} data")).exits(0);
        ran.says("no message was selected").says("--missing");
    }
    let some = desk.run("inventory --under raw:old data").exits(0);
    assert!(!some.err.contains("selected"), "{}", some.err);
}

#[test]
fn one_outage_is_told_in_full_once_and_every_file_that_it_stops_is_named() {
    let desk = desk(12);
    let line = "fleet rewrap --from raw:file=old.key -p vault:http://127.0.0.1:9/transit/k data";
    let mut command = desk.command(line.split(' '));
    let ran = Ran::of(line, command.env("VAULT_TOKEN", "token").output().unwrap()).exits(5);
    let failed: Vec<_> = ran.err.lines().filter(|line| line.starts_with("envelock: data/")).collect();
    let again = failed.iter().filter(|line| line.contains(": for the same reason as data/")).count();
    assert_eq!(failed.len(), 12, "{}", ran.err);
    assert!((1..=3).contains(&(12 - again)) && ran.err.contains("was refused"), "{}", ran.err);
}
