//! `--json`: every command of the embedded keystore that answers or does something tells a program about it.

use crate::cli::Desk;
use serde_json::{Value, json};

/// Runs a command with `--json`, and reads what it says.
#[track_caller]
fn told(desk: &Desk, line: &str) -> Value {
    let ran = desk.run(&format!("{line} --json")).exits(0);
    match serde_json::from_slice(&ran.out) {
        Ok(value @ Value::Object(_)) => value,
        other => panic!("envelock {line} --json: {other:?} of {:?}", ran.text()),
    }
}

/// Commands, and what each tells besides what is made anew every time.
type Commands = &'static [(&'static str, &'static str)];

/// In an order in which each works.
const OF_KEYS: Commands = &[
    ("keys create --alias alias/orders --description x", r#"{"aliases": ["alias/orders"], "enabled": true}"#),
    ("keys create --external --alias alias/own", r#"{"origin": "EXTERNAL", "state": "PendingImport"}"#),
    ("keys update-description alias/orders new", r#"{"key": "alias/orders", "description": "new"}"#),
    ("keys tag alias/orders team=a", r#"{"tags": [{"tag_key": "team", "tag_value": "a"}]}"#),
    ("keys tags alias/orders", r#"{"tags": [{"tag_key": "team", "tag_value": "a"}]}"#),
    ("keys untag alias/orders team", r#"{"key": "alias/orders", "removed_tag_keys": ["team"]}"#),
    ("keys rotate alias/orders", r#"{"current_version": 2}"#),
    ("keys rotation enable alias/orders --days 90", r#"{"rotation_enabled": true, "rotation_period_in_days": 90}"#),
    ("keys rotation status alias/orders", r#"{"rotation_enabled": true, "rotation_period_in_days": 90}"#),
    ("keys rotation disable alias/orders", r#"{"key": "alias/orders", "rotation_enabled": false}"#),
    ("keys rotation list alias/orders", "{}"),
    ("keys disable alias/orders", r#"{"key": "alias/orders", "state": "Disabled"}"#),
    ("keys enable alias/orders", r#"{"key": "alias/orders", "state": "Enabled"}"#),
    ("keys schedule-deletion alias/orders --days 7 --yes", r#"{"pending_window_in_days": 7}"#),
    ("keys cancel-deletion alias/orders", r#"{"state": "Disabled", "enabled": false, "deletion_date": null}"#),
    ("keys enable alias/orders", r#"{"state": "Enabled"}"#),
    ("keys alias create alias/b KEY", r#"{"alias_name": "alias/b", "target_key": "KEY"}"#),
    ("keys alias move alias/b KEY", r#"{"alias_name": "alias/b", "target_key": "KEY"}"#),
    ("keys alias delete alias/b", r#"{"alias_name": "alias/b", "deleted": true}"#),
    ("keys import-parameters alias/own -o params", r#"{"file": "params"}"#),
    ("keys seal-material bytes -o sealed --passphrase-file phrase", r#"{"file": "sealed"}"#),
    ("keys import alias/own --sealed sealed --passphrase-file phrase", r#"{"version": 1, "state": "Enabled"}"#),
    ("keys delete-material alias/own --yes", r#"{"key": "alias/own", "version": null, "material_deleted": true}"#),
    ("keys list", r#"{"region": "local"}"#),
    ("keys describe alias/orders", r#"{"current_version": 2, "description": "new"}"#),
];

/// Likewise.
const OF_THE_KEYSTORE: Commands = &[
    ("keys create --alias alias/orders", r#"{"description": ""}"#),
    ("policy get alias/orders", r#"{"key": "alias/orders", "policy_name": "default"}"#),
    ("policy check policy", r#"{"well_formed": true, "principal": "owner", "locks_out": false}"#),
    ("policy check policy --as billing", r#"{"well_formed": true, "principal": "billing", "locks_out": true}"#),
    ("policy put alias/orders policy", r#"{"policy_name": "default", "bypass_policy_lockout_safety_check": false}"#),
    ("policy simulate alias/orders Decrypt --by billing", r#"{"allowed": false}"#),
    ("grants create alias/orders --to billing --operation Decrypt", r#"{"grantee_principal": "billing"}"#),
    ("grants list alias/orders", "{}"),
    ("grants retire alias/orders GRANT", r#"{"key": "alias/orders", "grant_id": "GRANT", "ended": "retired"}"#),
    ("grants create alias/orders --to billing --operation Decrypt", r#"{"operations": ["Decrypt"]}"#),
    ("grants revoke alias/orders GRANT", r#"{"key": "alias/orders", "grant_id": "GRANT", "ended": "revoked"}"#),
    ("audit head", "{}"),
    ("audit verify", r#"{"verified": true}"#),
    ("audit export -o trail", r#"{"file": "trail"}"#),
    ("cost", "{}"),
    ("keystore replication-key -o public", r#"{"file": "public", "region": "local"}"#),
    ("keystore check", r#"{"keys": 1}"#),
    ("keystore backup copy", r#"{"file": "copy", "region": "local"}"#),
    ("keys backup second", r#"{"file": "second"}"#),
    ("keystore restore copy --replace", r#"{"backup": "copy"}"#),
    ("keystore root export -o exported", r#"{"file": "exported"}"#),
    ("keystore rekey --yes", r#"{"sealed": false}"#),
    ("keystore rekey --to raw:file=raw.key --yes", r#"{"sealed": true, "root_key_file": null}"#),
    ("audit trim --keep 1 --yes --unseal raw:file=raw.key", "{}"),
];

#[test]
fn every_command_of_keys_tells_a_program_what_it_did() {
    run(OF_KEYS);
}

#[test]
fn every_other_command_tells_a_program_what_it_did() {
    let desk = run(OF_THE_KEYSTORE);
    let lines = String::from_utf8(desk.read("trail")).unwrap();
    assert!(lines.lines().any(|line| line.contains("\"CreateGrant\"")), "{lines}");
    desk.run("keystore root export --json").exits(2).says("--output");
}

fn run(commands: Commands) -> Desk {
    let desk = Desk::new();
    desk.write("bytes", [7; 32]);
    desk.write("phrase", "correct horse battery staple\n");
    desk.write("raw.key", "0f".repeat(32));
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"}]}"#;
    desk.write("policy", policy);
    let (mut key, mut grant) = (String::new(), String::new());
    for (line, expected) in commands {
        let filled = |text: &str| text.replace("KEY", &key).replace("GRANT", &grant);
        let answer = told(&desk, &filled(line));
        let expected: Value = serde_json::from_str(&filled(expected)).unwrap();
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&answer[name], value, "{line}: {answer}");
        }
        match *line {
            line if line.starts_with("keys create --alias") => key = answer["key_id"].as_str().unwrap().to_owned(),
            line if line.starts_with("grants create") => grant = answer["grant_id"].as_str().unwrap().to_owned(),
            "policy get alias/orders" => assert!(answer["policy"].as_str().unwrap().contains("kms:*")),
            "grants list alias/orders" => assert_eq!(answer["grants"][0]["grant_id"], grant.as_str()),
            "keystore restore copy --replace" => {
                assert!(answer["moved_aside"].as_str().unwrap().ends_with("keys.db.replaced-1"), "{answer}");
                assert!(answer["audit_head"]["head"].as_str().unwrap().starts_with("envelock-audit1."), "{answer}");
            }
            _ => {}
        }
    }
    desk
}

#[test]
fn every_command_of_the_keystore_has_json_but_those_that_have_a_form_of_their_own() {
    // Each command that has no others below it: whether its help offers --json.
    fn look(desk: &Desk, command: &str, without: &mut Vec<String>) {
        let help = desk.run(&format!("{command} --help")).exits(0).text().to_owned();
        let Some((_, rest)) = help.split_once("\nCommands:\n") else {
            if !help.contains("--json") {
                without.push(command.to_owned());
            }
            return;
        };
        let below = rest.lines().take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
        for name in below.filter_map(|line| line[2..].split(' ').next()).filter(|name| !name.is_empty()) {
            if name != "help" {
                look(desk, &format!("{command} {name}"), without);
            }
        }
    }
    let (desk, mut without) = (Desk::new(), Vec::new());
    for command in ["keys", "policy", "grants", "audit", "keystore", "cost"] {
        look(&desk, command, &mut without);
    }
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn what_has_lines_tells_programs_lines() {
    let desk = Desk::new();
    desk.run("keys create").exits(0);
    for command in ["audit query", "audit tail"] {
        let out = desk.run(&format!("{command} --json")).exits(0).text().to_owned();
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["eventName"] == "CreateKey"), "{out}");
    }
    let cells: Value = serde_json::from_str(desk.run("keys states --json").exits(0).text()).unwrap();
    assert!(cells.as_array().unwrap().len() > 100);
    assert_eq!(cells[0]["allowed"], json!(false));
}

#[test]
fn two_keystores_tell_what_goes_between_them() {
    let (eu, us) = (Desk::new(), Desk::new());
    let at = |desk: &Desk, name: &str| desk.path(name).display().to_string();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let made = told(&eu, "keys create --region eu-1 --multi-region");
    let key = text(&made["key_id"]);
    assert_eq!((&made["multi_region_key_type"], &made["aliases"]), (&"PRIMARY".into(), &json!([])));
    let of_us = text(&told(&us, "keystore replication-key --region us-1 -o us.key")["public_key_sha256"]);
    let to_us = format!("--to {} --fingerprint {of_us}", at(&us, "us.key"));
    let bundle = told(&eu, &format!("keys replicate {key} {to_us} -o bundle"));
    assert_eq!(bundle["kind"], "replica-bundle");
    let import = format!("keys import-replica {} --sha256 {}", at(&eu, "bundle"), text(&bundle["sha256"]));
    assert_eq!(told(&us, &import)["multi_region_key_type"], "REPLICA");
    assert_eq!(told(&eu, &format!("keys replicas {key}"))["replica_keys"][0]["region"], "us-1");
    assert_eq!(told(&eu, &format!("keys rotate {key}"))["current_version"], 2);
    let issued = told(&eu, &format!("keys rotation export {key} {to_us} -o rotation"));
    assert_eq!((&issued["kind"], &issued["file"]), (&"rotation".into(), &"rotation".into()));
    let taken = told(&us, &format!("keys rotation import {}", at(&eu, "rotation")));
    assert_eq!(taken["current_version"], 2);
    assert_eq!(taken.get("aliases"), None, "nobody has looked for any");
    for command in ["update", "export"] {
        let issued = told(&eu, &format!("keys primary {command} {key} us-1 -o {command}"));
        assert_eq!(issued["kind"], "primary-change");
    }
    let taken = told(&us, &format!("keys primary import {}", at(&eu, "update")));
    assert_eq!((&taken["multi_region_key_type"], &taken["primary_region"]), (&"PRIMARY".into(), &"us-1".into()));
    let waits = told(&us, &format!("keys schedule-deletion {key} --yes"));
    assert_eq!((&waits["state"], &waits["deletion_date"]), (&"PendingReplicaDeletion".into(), &Value::Null));
    let left = told(&us, &format!("keys receipt forget-replica {key} eu-1 --yes"));
    assert_eq!((&left["state"], &left["pending_window_in_days"]), (&"PendingDeletion".into(), &30.into()));
}

#[test]
fn material_that_is_wrapped_tells_where_it_went() {
    let desk = Desk::new();
    desk.write("bytes", [7; 32]);
    told(&desk, "keys create --external --alias alias/own");
    let parameters = told(&desk, "keys import-parameters alias/own -o params");
    let fingerprint = parameters["public_key_sha256"].as_str().unwrap();
    let wrap = format!("keys wrap-material --parameters params --fingerprint {fingerprint} bytes -o wrapped");
    let wrapped = told(&desk, &wrap);
    assert_eq!((&wrapped["file"], &wrapped["key_id"]), (&"wrapped".into(), &parameters["key_id"]));
    let imported = told(&desk, "keys import alias/own --parameters params --wrapped wrapped");
    assert_eq!((&imported["version"], &imported["waits_for_rotation"]), (&1.into(), &false.into()));
}
