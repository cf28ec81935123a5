//! `envelock audit` and `envelock cost`, as people and scripts use them.

use crate::cli::{Desk, Ran, kill};
use rusqlite::Connection;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

const KEYSTORE: &str = "home/.local/share/envelock/keys.db";

/// Two files encrypted and one call that failed.
fn furnished() -> Desk {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders").exits(0);
    desk.run("decrypt a.elk -o b -p local:alias/orders").exits(0);
    desk.run("keys describe alias/nothing").exits(4);
    desk
}

#[test]
fn a_trail_is_verified_against_a_head_that_was_kept_and_what_was_changed_is_named() {
    let desk = furnished();
    let head = desk.run("audit head").exits(0).text().trim().to_owned();
    assert!(head.starts_with("envelock-audit1."), "{head}");
    desk.run(&format!("audit verify --head {head}")).exits(0);
    let report: Value = serde_json::from_str(desk.run("audit verify --json").exits(0).text()).unwrap();
    assert_eq!(report["head"]["head"], *head);
    let sql = Connection::open(desk.path(KEYSTORE)).unwrap();
    sql.execute("UPDATE audit SET principal = 'other' WHERE sequence = 2", []).unwrap();
    desk.run("audit verify").exits(3).says("the audit record 2 was changed");
    sql.execute("UPDATE audit SET principal = 'owner' WHERE sequence = 2", []).unwrap();
    sql.execute("DELETE FROM aliases", []).unwrap();
    desk.run("audit verify").exits(3).says("aliases alias/orders").says("was removed");
    desk.run("audit verify --head envelock-audit1.x").exits(2);
}

#[test]
fn records_are_listed_exported_followed_and_cut_off() {
    let desk = furnished();
    let failed = desk.run("audit query --outcome failed").exits(0).text().to_owned();
    assert!(failed.lines().count() == 1 && failed.contains("NotFoundException"), "{failed}");
    let of_key = desk.run("audit query --key alias/orders --since 1d");
    assert!(of_key.exits(0).text().contains("GenerateDataKey"));
    let all = desk.run("audit export").exits(0).text().to_owned();
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|it| it["eventName"] == "Decrypt") && lines[0]["sequence"] == 1);
    desk.run("audit export -o trail.jsonl").exits(0);
    assert_eq!(desk.read("trail.jsonl"), all.into_bytes());
    desk.run("audit export -o trail.jsonl").exits(7);
    let tail = desk.run("audit tail -n 2 --json").exits(0).text().to_owned();
    assert_eq!(tail.lines().count(), 2);

    desk.run("audit trim --keep 1").exits(2);
    desk.run("audit trim --yes").exits(2);
    let head = desk.run("audit trim --keep 1 --yes").exits(0).text().trim().to_owned();
    desk.run(&format!("audit verify --head {head}")).exits(0);
    assert_eq!(desk.run("audit export").exits(0).text().lines().count(), 2);
}

#[test]
fn the_cost_is_told_at_awss_prices_or_others() {
    let desk = furnished();
    let table = desk.run("cost").exits(0).text().to_owned();
    assert!(table.contains("GenerateDataKey") && table.contains("free tier"), "{table}");
    let dear: Value =
        serde_json::from_str(desk.run("cost --json --per-10000 10000 --per-key-month 0").exits(0).text()).unwrap();
    assert_eq!(dear["cost"], dear["requests_total"].as_f64().unwrap());
    desk.run("cost --per-10000 x").exits(2);
}

#[test]
fn records_are_found_by_who_called_and_a_list_says_what_it_leaves_out() {
    let desk = furnished();
    desk.run("keys describe alias/orders --as billing").exits(4);
    for line in ["audit query", "audit tail", "audit export"] {
        let of_billing = desk.run(&format!("{line} --principal billing")).exits(0).text().to_owned();
        assert!(of_billing.lines().count() == 1 && of_billing.contains("billing"), "{line}: {of_billing}");
        let as_billing = desk.run(&format!("{line} --principal owner --as billing")).exits(4);
        as_billing.says("billing may not do").says("leave --as off");
        let help = desk.run(&format!("{line} --help")).exits(0).text().to_owned();
        assert!(help.contains("--as <PRINCIPAL>") && help.contains("--principal <NAME>"), "{help}");
    }
    let two = desk.run("audit query --limit 2").exits(0).says("the newest 2 of more").says("--limit N");
    assert_eq!(two.text().lines().count(), 2);
    let all = desk.run("audit query").exits(0);
    assert!(!all.err.contains("of more"), "{}", all.err);
    let count = all.text().lines().count();
    let exactly = desk.run(&format!("audit query --limit {count}")).exits(0);
    assert!(exactly.text().lines().count() == count && !exactly.err.contains("of more"), "{}", exactly.err);
    assert_eq!(desk.run("audit query --event decrypt").exits(0).text().lines().count(), 1);
    desk.run("audit query --event Decryptt").exits(2).says("no record has that name").says("DescribeKey");
    let none = desk.run("audit query --event RetireGrant").exits(0).says("no record");
    assert!(none.out.is_empty());
    desk.run("audit trim --before 30d --yes").exits(0).says("no records to cut off");
}

#[test]
fn a_trail_is_followed_while_another_process_writes_until_ctrl_c() {
    let desk = furnished();
    let mut tail = desk.command(["audit", "tail", "-f", "-n", "1", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut next = || -> Value {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    };
    let mut sequence = next()["sequence"].as_u64().unwrap();
    // What is written from now on comes by itself, in order and once.
    for alias in ["alias/one", "alias/two", "alias/three"] {
        desk.run(&format!("keys create --alias {alias}")).exits(0);
        loop {
            let record = next();
            assert_eq!(record["sequence"], sequence + 1, "{record}");
            sequence += 1;
            if record["requestParameters"]["aliasName"] == alias || record.to_string().contains(alias) {
                break;
            }
        }
    }
    kill(libc::SIGINT, tail.id());
    let output = tail.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None, "the program ends by itself");
    Ran::of("audit tail -f", output).exits(130);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "no record was cut in two");
    desk.run("audit verify").exits(0);
}
