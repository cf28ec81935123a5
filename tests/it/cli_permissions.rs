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
    let checked = desk.run("policy check mine.json").exits(0).says("well-formed");
    assert!(!checked.err.contains("could not put"), "{}", checked.err);
    desk.run("policy check mine.json --as billing").exits(0).says("billing could not put another one");
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
    desk.run("policy check none.json")
        .exits(0)
        .says("well-formed")
        .says("owner could not put another one")
        .says("--lock-out");
    let refused = desk.run("policy put alias/orders none.json").exits(2).says("could not put another one");
    refused.says("--lock-out puts it all the same").says("the principal \"owner\", which is no ARN");
    desk.run("policy put alias/orders none.json --lock-out")
        .exits(2)
        .says("say --yes")
        .says("cannot be deleted either");
    assert_eq!(desk.run("policy get alias/orders").exits(0).text(), mine);
    desk.run("policy put alias/orders none.json --lock-out --yes").exits(0);
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
    let retire = format!("grants retire alias/orders {grant} --as billing");
    desk.run(&retire).exits(0);
    desk.run(&retire).exits(4).says("or the grant is gone already");
    desk.run(read).exits(4);
    let grant = desk.run(make).exits(0).text().trim().to_owned();
    desk.run(&format!("grants revoke alias/orders {grant}")).exits(0);
    desk.run(&format!("grants revoke alias/orders {grant}"))
        .exits(4)
        .says("has no grant")
        .says("envelock grants list KEY");
    desk.run(read).exits(4);
    desk.run("grants create alias/orders --to billing --operation ScheduleKeyDeletion")
        .exits(2)
        .says("cannot be granted");
}

#[test]
fn a_grant_for_a_whole_context_opens_a_file_and_a_simulation_of_it_says_so() {
    let desk = Desk::new();
    desk.write("a", "plaintext");
    desk.run("keys create --alias alias/orders").exits(0);
    desk.run("encrypt a -p local:alias/orders -c tenant=acme").exits(0);
    let grant = "grants create alias/orders --to billing --operation Decrypt --operation DescribeKey --equals tenant=acme \
                 --equals envelock-use=message/1";
    desk.run(grant).exits(0);
    let read = "decrypt a.elk -o - -p local:alias/orders -c tenant=acme";
    assert_eq!(desk.run(&format!("{read} --as billing")).exits(0).out, b"plaintext");
    let simulate = "policy simulate alias/orders Decrypt --by billing -c tenant=acme";
    let without = desk.run(simulate).exits(0).says("has no entry envelock-use");
    assert!(without.text().starts_with("denied"), "{}", without.text());
    let with = desk.run(&format!("{simulate} -c envelock-use=message/1")).exits(0);
    assert!(with.text().starts_with("allowed by the grant") && with.err.is_empty(), "{} {}", with.text(), with.err);
    desk.run("grants list").exits(2).says("--retirable-by");
}

#[test]
fn a_denial_says_what_would_change_it() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let ran = desk.run("keys list --as billing").exits(4).says("only the keystore's owner may").says("leave --as off");
    assert!(!ran.err.contains("or a grant must allow it"), "{}", ran.err);
    let deny = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Deny", "Principal": "*", "Action": "kms:DescribeKey", "Resource": "*"}]}"#;
    desk.write("deny.json", deny);
    desk.run("policy put alias/orders deny.json").exits(0);
    let ran = desk.run("keys describe alias/orders").exits(4).says("denied by statement 2").says("change that one");
    assert!(!ran.err.contains("must allow it"), "{}", ran.err);
}

#[test]
fn grants_are_listed_by_grantee_by_id_and_by_who_may_retire_them() {
    let desk = Desk::new();
    let mut all = Vec::new();
    for (alias, to, retiring) in
        [("alias/one", "billing", "steward"), ("alias/two", "audit", "steward"), ("alias/two", "billing", "other")]
    {
        if all.len() < 2 {
            desk.run(&format!("keys create --alias {alias}")).exits(0);
        }
        let make = format!("grants create {alias} --to {to} --operation Decrypt --retiring {retiring}");
        all.push(desk.run(&make).exits(0).text().trim().to_owned());
    }
    let listed = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(desk.run(line).exits(0).text()).unwrap();
        let ids = value["grants"].as_array().unwrap().iter().map(|it| it["grant_id"].as_str().unwrap().to_owned());
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let these = |numbers: &[usize]| numbers.iter().map(|number| all[*number].clone()).collect();
    assert_eq!(listed("grants list alias/two --json"), these(&[1, 2]));
    assert_eq!(listed("grants list alias/two --to billing --json"), these(&[2]));
    assert_eq!(listed(&format!("grants list alias/two --grant {} --json", all[1])), these(&[1]));
    assert_eq!(listed(&format!("grants list alias/two --to billing --grant {} --json", all[1])), these(&[]));
    assert_eq!(listed("grants list --retirable-by steward --json"), these(&[0, 1]), "of both keys");
    assert_eq!(listed("grants list --retirable-by steward --as steward --json"), these(&[0, 1]), "by himself");
    assert_eq!(listed("grants list --retirable-by nobody --json"), these(&[]));
    desk.run("grants list --retirable-by steward --as other").exits(4);
    let table = desk.run("grants list --retirable-by other").exits(0).text().to_owned();
    assert!(table.contains(&all[2]) && table.contains("retired by   other") && !table.contains(&all[0]), "{table}");
    desk.run("grants list alias/two --retirable-by steward").exits(2);
    desk.run("grants list --retirable-by steward --to billing").exits(2);
}
