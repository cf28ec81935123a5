//! The program itself against real peers: AWS KMS by moto, Transit by OpenBao, and both together.

use crate::support::aws::Account;
use crate::support::openbao::Bao;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A folder of its own, and the credentials of both.
struct Desk {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Desk {
    fn new(account: &Account, bao: &Bao) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "attack at dawn").unwrap();
        let variables = vec![
            ("AWS_ACCESS_KEY_ID", account.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", account.secret.clone()),
            ("AWS_ENDPOINT_URL_KMS", account.endpoint.clone()),
            ("AWS_REGION", account.region.clone()),
            ("VAULT_ADDR", bao.url.clone()),
            ("VAULT_TOKEN", bao.token.clone()),
        ];
        Self { folder, variables }
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(there, _)| *there != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Runs the program, its arguments separated by spaces.
    #[track_caller]
    fn run(&self, line: &str, code: i32) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_envelock"));
        command.args(line.split(' ')).current_dir(self.folder.path()).env_clear().env("HOME", self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap());
        assert_eq!(ran.code, Some(code), "envelock {line}\n{}\n{}", ran.err, String::from_utf8_lossy(&ran.out));
        for (name, secret) in &self.variables {
            let shown = ["SECRET", "TOKEN"].iter().any(|word| name.contains(word))
                && secret.len() > 8
                && (ran.err.contains(secret) || String::from_utf8_lossy(&ran.out).contains(secret));
            assert!(!shown, "{name} was shown by: envelock {line}");
        }
        ran
    }

    #[track_caller]
    fn json(&self, line: &str, code: i32) -> Value {
        serde_json::from_slice(&self.run(line, code).out).unwrap()
    }

    fn opens(&self, provider: &str, file: &str) {
        assert_eq!(self.run(&format!("decrypt {file} -o - -p {provider}"), 0).out, b"attack at dawn", "{provider}");
    }
}

struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn steps(provider: &Value) -> Vec<(String, String)> {
    let word = |step: &Value, name: &str| step[name].as_str().unwrap().to_owned();
    provider["steps"].as_array().unwrap().iter().map(|step| (word(step, "step"), word(step, "outcome"))).collect()
}

#[test]
fn a_file_is_encrypted_decrypted_rewrapped_and_checked_by_aws_kms() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let (key, next) = (account.key(), account.key());
    account.kms("CreateAlias", json!({"AliasName": "alias/envelock-cli", "TargetKeyId": key}));
    let desk = Desk::new(&account, &bao);
    desk.run("encrypt a -p aws-kms:alias/envelock-cli -c tenant=acme", 0);
    let shown = desk.json("inspect --json a.elk", 0);
    assert_eq!(
        (&shown["slots"][0]["provider"], &shown["slots"][0]["key_id"]),
        (&"aws-kms".into(), &key.as_str().into())
    );
    let by_arn = format!("aws-kms:{key}");
    assert_eq!(desk.run(&format!("decrypt a.elk -o - -p {by_arn} -c tenant=acme"), 0).out, b"attack at dawn");
    desk.run(&format!("decrypt a.elk -o - -p {by_arn} -c tenant=other"), 3);
    let other = desk.run(&format!("decrypt a.elk -o - -p aws-kms:{next} -c tenant=acme"), 4);
    assert!(other.err.contains(&format!("which is for aws-kms:{key}")), "{}", other.err);
    // Inside the KMS, without seeing the data key.
    desk.run(&format!("rewrap a.elk -p {by_arn} --to aws-kms:{next} -c tenant=acme --blind"), 0);
    desk.run(&format!("verify a.elk -p aws-kms:{next} -c tenant=acme"), 0);
    desk.run(&format!("decrypt a.elk -o - -p {by_arn} -c tenant=acme"), 4);
    let checked = desk.json(&format!("check --json -p aws-kms:{next} -p aws-kms:alias/envelock-cli"), 0);
    for provider in checked["providers"].as_array().unwrap() {
        assert!(steps(provider).iter().all(|(_, outcome)| outcome == "ok"), "{provider}");
        assert!(provider["identity"].as_str().unwrap().contains(&account.endpoint), "{provider}");
    }
    let missing = desk.run("check -p aws-kms:alias/nobody", 4);
    assert!(!missing.err.contains("envelock keys list"), "that is for the keystore: {}", missing.err);
    let half = Desk::new(&account, &bao).set("AWS_ACCESS_KEY_ID", "").set("AWS_EC2_METADATA_DISABLED", "true");
    let said = half.run(&format!("encrypt a -p {by_arn}"), 2).err;
    assert!(said.contains("AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not"), "{said}");
    let stopped = half.set("AWS_SECRET_ACCESS_KEY", "");
    let stopped = stopped.run(&format!("encrypt a -p {by_arn}"), 4);
    assert!(stopped.err.contains("AWS_PROFILE"), "{}", stopped.err);
}

#[test]
fn a_file_is_encrypted_decrypted_rewrapped_and_checked_by_transit() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let (key, next) = (bao.key(), bao.key());
    let desk = Desk::new(&account, &bao);
    desk.run(&format!("encrypt a -p vault:transit/{key}"), 0);
    desk.opens(&format!("vault:{}/transit/{key}", bao.url), "a.elk");
    let ca = crate::support::peers::openbao().text("ca");
    let wrong_ca = crate::support::peers::openbao().text("wrong_ca");
    let tls = format!("vault:{}/transit/{key},cacert={ca}", bao.tls_url);
    desk.opens(&tls, "a.elk");
    desk.run(&format!("rewrap a.elk -p vault:transit/{key} --to vault:transit/{next}"), 0);
    desk.opens(&format!("vault:transit/{next}"), "a.elk");
    let blind = desk.run(&format!("rewrap a.elk -p vault:transit/{next} --to vault:transit/{key} --blind"), 1);
    assert!(blind.err.contains("rewrap openly"), "{}", blind.err);
    let checked = desk.json(&format!("check --json -p vault:transit/{key} -p {tls}"), 0);
    for provider in checked["providers"].as_array().unwrap() {
        let names: Vec<_> = steps(provider).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["set up", "look", "generate", "decrypt", "context", "re-encrypt"]);
        let look = provider["steps"][1]["detail"].as_str().unwrap();
        assert!(look.contains("policies root") && look.contains("aes256-gcm96, version 1"), "{look}");
    }
    let distrusted = desk.run(&format!("check -p vault:{}/transit/{key},cacert={wrong_ca}", bao.tls_url), 5);
    let distrusted = String::from_utf8(distrusted.out).unwrap();
    assert!(distrusted.contains("TLS: ") && distrusted.contains(",cacert=FILE"), "{distrusted}");
    let refused = Desk::new(&account, &bao).set("VAULT_TOKEN", "no-token-at-all");
    let refused = refused.run(&format!("check -p vault:transit/{key}"), 4);
    assert!(String::from_utf8(refused.out).unwrap().contains("does not accept the token"));
}

#[test]
fn a_token_that_may_only_encrypt_and_decrypt_is_enough() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let key = bao.key();
    let rules = format!(
        "path \"transit/encrypt/{key}\" {{ capabilities = [\"update\"] }}\n\
         path \"transit/decrypt/{key}\" {{ capabilities = [\"update\"] }}"
    );
    let token = bao.token_for(&rules, json!({"no_default_policy": true}));
    let desk = Desk::new(&account, &bao).set("VAULT_TOKEN", &token);
    let checked = desk.json(&format!("check --json -p vault:transit/{key}"), 0);
    let look = checked["providers"][0]["steps"][1]["detail"].as_str().unwrap();
    assert!(look.contains("may not look at itself"), "{look}");
    let writer = bao.token_for(&rules.replace("decrypt", "nothing"), json!({"no_default_policy": true}));
    let desk = desk.set("VAULT_TOKEN", &writer);
    let refused = String::from_utf8(desk.run(&format!("check -p vault:transit/{key}"), 4).out).unwrap();
    assert!(refused.contains(&format!("`update` on transit/decrypt/{key}")), "{refused}");
    // One who may make keys, and not look whether they are there.
    let maker = "path \"transit/encrypt/*\" { capabilities = [\"create\", \"update\"] }\n\
                 path \"transit/decrypt/*\" { capabilities = [\"update\"] }";
    let desk = desk.set("VAULT_TOKEN", &bao.token_for(maker, json!({})));
    let refused = String::from_utf8(desk.run("check -p vault:transit/brandnew", 4).out).unwrap();
    assert!(refused.contains("has no key transit/brandnew"), "{refused}");
    assert_eq!(bao.call("GET", "transit/keys/brandnew", &Value::Null).0, 404, "a check makes no key");
    desk.run(&format!("check -p vault:transit/{key}"), 0);
}

#[test]
fn one_of_three_dead_is_named_and_filled_in_when_it_is_back() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let (aws, transit) = (account.key(), bao.key());
    let desk = Desk::new(&account, &bao);
    desk.write("raw.key", &"0f".repeat(32));
    let profile = |vault: &str| {
        desk.write(
            "c.toml",
            &format!(
                "[profiles.three]\nproviders = [\"aws-kms:{aws}\", \"vault:{vault}/transit/{transit}\", \
                 \"raw:file=raw.key\"]\nwrite = \"2 of 3\"\ntimeout = \"5 s\"\nattempts = 1\n"
            ),
        );
    };
    let refusing = crate::support::sockets::Refusing::new();
    profile(&format!("http://{}", refusing.address()));
    let with = "--config c.toml --profile three";
    let ran = desk.run(&format!("encrypt a {with}"), 0);
    assert!(ran.err.contains(&format!("MISSING vault:transit/{transit}")), "{}", ran.err);
    assert_eq!(desk.run(&format!("decrypt a.elk -o - {with}"), 0).out, b"attack at dawn");
    let checked = desk.run(&format!("check {with}"), 5);
    let text = String::from_utf8(checked.out).unwrap();
    assert!(text.contains("2 of 3 work; to write, 2 must: writing goes on"), "{text}");
    let stopped = desk.run(&format!("encrypt a -f {with} --at-least 3"), 5);
    assert!(stopped.err.contains("2 of 3 key providers encrypted the data key, and 3 must"), "{}", stopped.err);
    profile(&bao.url);
    let ran = desk.run(&format!("rewrap a.elk {with}"), 0);
    assert!(!ran.err.contains("MISSING"), "{}", ran.err);
    for provider in [format!("aws-kms:{aws}"), format!("vault:transit/{transit}"), "raw:file=raw.key".into()] {
        desk.opens(&provider, "a.elk");
    }
}

#[test]
fn failover_goes_to_the_standby_and_reads_what_either_wrote() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let (aws, transit) = (account.key(), bao.key());
    let desk = Desk::new(&account, &bao);
    let profile = |endpoint: &str, more: &str| {
        desk.write(
            "c.toml",
            &format!(
                "[profiles.standby]\nproviders = [\"aws-kms:{aws},endpoint={endpoint}\", \"vault:transit/{transit}\"]\n\
                 write = \"failover\"\nattempts = 1\ntimeout = \"5 s\"\n{more}\n"
            ),
        );
    };
    let with = "--config c.toml --profile standby";
    let writer = |file: &str| desk.json(&format!("inspect --json {file}"), 0)["slots"][0]["provider"].clone();
    profile(&account.endpoint, "");
    desk.run(&format!("encrypt a -o one.elk {with}"), 0);
    let refusing = crate::support::sockets::Refusing::new();
    profile(&format!("http://{}", refusing.address()), "");
    desk.run(&format!("encrypt a -o two.elk {with}"), 0);
    assert_eq!((writer("one.elk"), writer("two.elk")), ("aws-kms".into(), "vault".into()));
    // A primary that does not answer at all: the standby is asked after a while.
    let silent = crate::support::sockets::Unreachable::new();
    profile(&format!("http://{}", silent.address()), "hedge_after = \"200 ms\"");
    let begun = std::time::Instant::now();
    desk.run(&format!("encrypt a -o three.elk {with}"), 0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(writer("three.elk"), "vault");
    profile(&account.endpoint, "order = \"nearest\"");
    for file in ["one.elk", "two.elk", "three.elk"] {
        assert_eq!(desk.run(&format!("decrypt {file} -o - {with}"), 0).out, b"attack at dawn");
    }
}

#[test]
fn a_kms_unlocks_the_keystore() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let desk = Desk::new(&account, &bao);
    desk.run("encrypt a -p local:", 0);
    let (aws, transit) = (format!("aws-kms:{}", account.key()), format!("vault:transit/{}", bao.key()));
    desk.run(&format!("keystore rekey --to {aws} --to {transit} --yes"), 0);
    for unseal in [aws, transit] {
        assert_eq!(desk.run(&format!("decrypt a.elk -o - -p local: --unseal {unseal}"), 0).out, b"attack at dawn");
    }
}
