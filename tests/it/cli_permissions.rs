//! `policy`, `grants` and `--as`: who may do what, on the command line.

use crate::cli::Desk;

#[test]
fn a_policy_is_put_asked_and_obeyed() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders -c tenant=acme").exits(0);
    let read = "decrypt a.elk -o - -p local:alias/orders -c tenant=acme --as billing";
    desk.run(read).exits(4).says("billing may not do kms:Decrypt").says("policy or a grant must allow it");
    let default = desk.run("policy get alias/orders").exits(0).text().to_owned();
    assert!(default.contains("\"kms:*\""), "{default}");
    let allow = r#"{"Sid": "reads acme", "Effect": "Allow", "Principal": {"AWS": "billing"}, "Resource": "*",
        "Action": "kms:Decrypt"}"#;
    let mine = default.replacen("\"Statement\": [", &format!("\"Statement\": [{allow},"), 1);
    desk.write("mine.json", &mine);
    desk.run("policy check mine.json").exits(0);
    desk.run("policy put alias/orders mine.json").exits(0);
    assert_eq!(desk.run("policy get alias/orders").exits(0).text(), mine);
    assert_eq!(desk.run(read).exits(0).out, b"plaintext");
    let decrypt =
        desk.run("policy simulate alias/orders decrypt --by billing -c tenant=acme").exits(0).text().to_owned();
    assert_eq!(decrypt, "allowed by statement 1 of the key's policy (\"reads acme\")\n");
    let encrypt = desk.run("policy simulate alias/orders kms:Encrypt --by billing --json").exits(0).text().to_owned();
    let encrypt: serde_json::Value = serde_json::from_str(&encrypt).unwrap();
    assert_eq!((&encrypt["allowed"], &encrypt["decided_by"]), (&false.into(), &serde_json::Value::Null));
    // What cannot be put, and what locks the owner out.
    desk.write("bad.json", mine.replace("\"Resource\"", "\"Resourcer\""));
    desk.run("policy check bad.json").exits(2).says("Resourcer");
    desk.run("policy put alias/orders bad.json").exits(2).says("nothing was changed");
    desk.write("none.json", format!(r#"{{"Version": "2012-10-17", "Statement": [{allow}]}}"#));
    desk.run("policy put alias/orders none.json").exits(2).says("could not put another one");
    desk.run("policy put alias/orders none.json --lock-out").exits(0);
    desk.run("keys rotate alias/orders").exits(4).says("owner may not do kms:RotateKeyOnDemand");
    desk.run("policy simulate alias/orders Nonsense --by billing").exits(2).says("no operation on a key");
}

#[test]
fn a_grant_is_made_listed_used_and_ended() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders -c tenant=acme").exits(0);
    let make = "grants create alias/orders --to billing --operation Decrypt --operation RetireGrant \
                --subset tenant=acme --name orders";
    let grant = desk.run(make).exits(0).text().trim().to_owned();
    assert_eq!(desk.run(make).exits(0).text().trim(), grant, "by its name");
    let read = "decrypt a.elk -o - -p local:alias/orders -c tenant=acme --as billing";
    assert_eq!(desk.run(read).exits(0).out, b"plaintext");
    let listed = desk.run("grants list alias/orders").exits(0).text().to_owned();
    assert!(listed.contains(&grant) && listed.contains("billing") && listed.contains("Decrypt"), "{listed}");
    let listed = desk.run("grants list alias/orders --json").exits(0).text().to_owned();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["grants"][0]["constraints"]["EncryptionContextSubset"]["tenant"], "acme");
    desk.run(&format!("grants retire alias/orders {grant} --as billing")).exits(0);
    desk.run(read).exits(4);
    let grant = desk.run(make).exits(0).text().trim().to_owned();
    desk.run(&format!("grants revoke alias/orders {grant}")).exits(0);
    desk.run(&format!("grants revoke alias/orders {grant}")).exits(4).says("has no grant");
    desk.run(read).exits(4);
    desk.run("grants create alias/orders --to billing --operation ScheduleKeyDeletion")
        .exits(2)
        .says("cannot be granted");
}
