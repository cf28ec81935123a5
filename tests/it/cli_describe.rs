//! `keys describe` and `keys list`: all that a keystore knows of a key, for people and for programs.

use crate::cli::Desk;
use serde_json::Value;

fn json(desk: &Desk, line: &str) -> Value {
    serde_json::from_str(desk.run(line).exits(0).text()).unwrap()
}

/// A desk with a key of imported material, which expires in 90 days.
fn with_imported_material() -> Desk {
    let desk = Desk::new();
    desk.write("bytes", [7; 32]);
    desk.write("phrase", "correct horse battery staple\n");
    desk.run("keys create --external --alias alias/own").exits(0);
    desk.run("keys seal-material bytes -o sealed --passphrase-file phrase").exits(0);
    let import = "keys import alias/own --sealed sealed --passphrase-file phrase --valid-to";
    let arguments = import.split(' ').chain(["90 days"]);
    assert!(desk.command(arguments).status().unwrap().success());
    desk
}

#[test]
fn imported_material_is_told_with_its_expiry_and_its_absence() {
    let desk = with_imported_material();
    let described = desk.run("keys describe alias/own").exits(0).text().to_owned();
    let version = described.lines().find(|line| line.starts_with("version ")).unwrap();
    assert!(
        described.contains("\norigin       imported\n") && version.contains(", current, expires at "),
        "{described}"
    );
    let key = json(&desk, "keys describe alias/own --json");
    assert_eq!((&key["origin"], &key["enabled"]), (&"EXTERNAL".into(), &true.into()));
    let valid_to = key["valid_to"].as_str().unwrap();
    assert!(valid_to.ends_with('Z') && key["versions"][0]["valid_to"] == valid_to, "{key}");
    assert_eq!(key["versions"][0]["has_material"], true);
    assert_eq!(json(&desk, "keys list --json")["keys"][0]["valid_to"], valid_to);

    desk.run("keys delete-material alias/own --yes").exits(0);
    let described = desk.run("keys describe alias/own").exits(0).text().to_owned();
    assert!(described.contains("PendingImport") && described.contains("its material is not here"), "{described}");
    assert!(!described.contains("expires"), "{described}");
    let key = json(&desk, "keys describe alias/own --json");
    assert_eq!((&key["enabled"], &key["valid_to"]), (&false.into(), &Value::Null));
    assert_eq!(key["versions"][0]["has_material"], false);

    desk.run("keys create --external --alias alias/empty").exits(0);
    let described = desk.run("keys describe alias/empty").exits(0).text().to_owned();
    assert!(described.contains("none: no key material was imported yet"), "{described}");
}

#[test]
fn a_key_of_the_keystores_own_says_so_and_a_deletion_its_waiting_time() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let key = json(&desk, "keys describe alias/orders --json");
    assert_eq!((&key["origin"], &key["valid_to"]), (&"AWS_KMS".into(), &Value::Null));
    for nothing in ["multi_region_key_type", "primary_region", "pending_window_in_days", "deletion_date"] {
        assert_eq!(key.get(nothing), Some(&Value::Null), "{nothing}");
    }
    assert!(desk.run("keys describe alias/orders").exits(0).text().contains("\norigin       made here\n"));
    desk.run("keys schedule-deletion alias/orders --days 9 --yes").exits(0);
    let described = desk.run("keys describe alias/orders").exits(0).text().to_owned();
    assert!(described.contains("having waited 9 days\n"), "{described}");
    for key in [json(&desk, "keys describe alias/orders --json"), json(&desk, "keys list --json")["keys"][0].clone()] {
        assert_eq!((&key["pending_window_in_days"], &key["enabled"]), (&9.into(), &false.into()));
    }
}

#[test]
fn a_primary_key_and_its_replica_say_which_they_are() {
    let (eu, us) = (Desk::new(), Desk::new());
    eu.run("keys create --region eu-1 --multi-region --alias alias/orders").exits(0);
    let of_us = us.run("keystore replication-key --region us-1 -o us.key").exits(0).text().trim().to_owned();
    let to_us = us.path("us.key").display().to_string();
    let replicate = format!("keys replicate alias/orders --to {to_us} --fingerprint {of_us} -o bundle");
    let hash = eu.run(&replicate).exits(0).text().trim().to_owned();
    let bundle = eu.path("bundle").display().to_string();
    let key = json(&us, &format!("keys import-replica {bundle} --sha256 {hash} --json"));
    let id = key["key_id"].as_str().unwrap();
    for (desk, name, kind, line) in [
        (&eu, "alias/orders", "PRIMARY", "\nmulti-Region primary key\n"),
        (&us, id, "REPLICA", "\nmulti-Region replica of the primary key in eu-1\n"),
    ] {
        let described = desk.run(&format!("keys describe {name}")).exits(0).text().to_owned();
        assert!(described.contains(line), "{described}");
        for key in
            [json(desk, &format!("keys describe {name} --json")), json(desk, "keys list --json")["keys"][0].clone()]
        {
            assert_eq!(key["multi_region_key_type"], kind);
            assert_eq!(key["primary_region"], "eu-1");
        }
    }
    eu.run("keys schedule-deletion alias/orders --days 8 --yes").exits(0);
    let described = eu.run("keys describe alias/orders").exits(0).text().to_owned();
    assert!(described.contains("deletion     once its replicas are deleted, and then 8 days\n"), "{described}");
}
