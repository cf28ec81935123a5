//! `envelock check`: what works of each provider, and what to do where something does not.

use crate::cli::{Desk, KEY, Ran};
use serde_json::Value;

fn json(ran: &Ran) -> Value {
    serde_json::from_slice(&ran.out).unwrap()
}

/// The outcome of each step.
fn steps(provider: &Value) -> Vec<(&str, &str)> {
    let steps = provider["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["step"].as_str().unwrap(), step["outcome"].as_str().unwrap())).collect()
}

#[test]
fn every_kind_of_local_provider_is_tried_and_nothing_is_left() {
    let desk = Desk::new();
    desk.write("a.key", KEY);
    desk.write("words", "correct horse\n");
    desk.run("keys create --alias alias/orders").exits(0);
    let ran = desk.run("check --json -p raw:file=a.key -p passphrase:file=words -p local:alias/orders").exits(0);
    let shown = json(&ran);
    assert_eq!((&shown["working"], &shown["needed_to_write"], &shown["profile"]), (&3.into(), &3.into(), &Value::Null));
    let [raw, passphrase, local] = [0, 1, 2].map(|at| &shown["providers"][at]);
    for (provider, re_encrypts) in [(raw, "no"), (passphrase, "no"), (local, "ok")] {
        let expected =
            [("set up", "ok"), ("generate", "ok"), ("decrypt", "ok"), ("context", "ok"), ("re-encrypt", re_encrypts)];
        assert_eq!(steps(provider), expected, "{provider}");
        assert_eq!((&provider["works"], &provider["exit_code"]), (&true.into(), &0.into()));
        assert!(provider["steps"].as_array().unwrap().iter().all(|step| step["milliseconds"].is_number()));
    }
    assert_eq!(raw["keys"][0], "raw:a");
    assert!(local["keys"][0].as_str().unwrap().starts_with("local:envelock:local:"), "{local}");
    assert!(local["identity"].as_str().unwrap().ends_with("keys.db, as owner"), "{local}");
    let left: Vec<_> = std::fs::read_dir(desk.path(".")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let text = desk.run("check -p raw:file=a.key").exits(0);
    for words in ["raw:file=a.key,id=a\n", "context      ok", "another encryption context is refused", "it works\n"] {
        assert!(text.text().contains(words), "{words}: {}", text.text());
    }
    assert!(text.err.is_empty(), "{}", text.err);
}

#[test]
fn what_does_not_work_is_told_with_the_exit_code_of_the_first_and_the_others_are_tried() {
    let desk = Desk::new();
    desk.write("a.key", KEY);
    let ran = desk.run("check -p raw:file=none.key -p raw:file=a.key -p local:").exits(6);
    let ran = ran.says("raw:file=none.key,id=none, local:alias/envelock/default do not work");
    for words in ["set up       FAILED", "none.key: the key file cannot be opened", "generate     not tried"] {
        assert!(ran.text().contains(words), "{words}: {}", ran.text());
    }
    assert!(ran.text().contains("1 of 3 work; to write, 3 must: writing stops"), "{}", ran.text());
    assert!(!desk.path("home/.local").exists(), "a check makes no keystore");
    let shown = json(&desk.run("check --json -p local:").exits(4));
    assert_eq!(shown["providers"][0]["exit_code"], 4);
    assert_eq!(steps(&shown["providers"][0])[0], ("set up", "failed"));
}

#[test]
fn who_may_not_use_a_key_is_told_at_the_step_that_is_denied() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": "writer"}, "Action": "kms:GenerateDataKey", "Resource": "*"}]}"#;
    desk.write("policy.json", policy);
    desk.run("policy put alias/orders policy.json").exits(0);
    let ran = desk.run("check --json -p local:alias/orders --as writer").exits(4);
    let provider = json(&ran)["providers"][0].clone();
    let expected = [
        ("set up", "ok"),
        ("generate", "ok"),
        ("decrypt", "failed"),
        ("context", "not-tried"),
        ("re-encrypt", "not-tried"),
    ];
    assert_eq!(steps(&provider), expected);
    assert!(provider["identity"].as_str().unwrap().ends_with("as writer"), "{provider}");
}

#[test]
fn each_part_of_the_way_to_a_server_is_told_apart() {
    let desk = Desk::new();
    let look = |provider: &str| {
        let mut command = desk.command(["check", "--json", "-p", provider]);
        let ran = Ran::of(provider, command.env("VAULT_TOKEN", "hunter2").output().unwrap()).exits(5);
        assert!(!ran.text().contains("hunter2") && !ran.err.contains("hunter2"));
        let shown = json(&ran)["providers"][0].clone();
        assert_eq!(steps(&shown)[1], ("look", "failed"), "{shown}");
        shown["steps"][1]["detail"].as_str().unwrap().to_owned()
    };
    let refused = look("vault:http://127.0.0.1:9/transit/k");
    assert!(refused.starts_with("connection: ") && refused.contains("refused"), "{refused}");
    let unknown = look("vault:https://nowhere.invalid/transit/k");
    assert!(unknown.starts_with("name of the host (DNS): "), "{unknown}");
    // A server that does not speak TLS.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = plain.accept().map(|(mut stream, _)| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let tls = look(&format!("vault:https://127.0.0.1:{port}/transit/k"));
    assert!(tls.starts_with("TLS: ") || tls.starts_with("connection: "), "{tls}");
    server.join().unwrap();
    let nothing = desk.run("check -p vault:transit/k").exits(2);
    assert!(nothing.text().contains("VAULT_ADDR"), "{}", nothing.text());
}

#[test]
fn a_profile_is_checked_with_what_it_takes_to_write() {
    let desk = Desk::new();
    desk.write("a.key", KEY);
    let profile = |write: &str| {
        format!(
            "[profiles.p]\nproviders = [\"raw:file=a.key\", \"raw:file=none.key\"]\nwrite = \"{write}\"\n[profiles.q]\n\
             providers = [\"raw:file=a.key\"]\n"
        )
    };
    for (write, goes_on, needed) in [("all", "stops", 2), ("1 of 2", "goes on", 1), ("failover", "goes on", 1)] {
        desk.write("c.toml", profile(write));
        let ran = desk.run("check --config c.toml --profile p").exits(6);
        let words = format!("1 of 2 work; to write, {needed} must: writing {goes_on}");
        assert!(ran.text().contains(&words), "{}", ran.text());
    }
    let shown = json(&desk.run("check --config c.toml --profile q --json").exits(0));
    assert_eq!((&shown["profile"], &shown["working"]), (&"q".into(), &1.into()));
}

#[test]
fn a_check_makes_no_key_in_a_keystore_that_is_there() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let keys = || desk.run("keys list --json").exits(0).text().to_owned();
    let before = keys();
    let ran = desk.run("check -p local:").exits(4);
    assert!(ran.text().contains("has no alias/envelock/default yet"), "{}", ran.text());
    assert_eq!(keys(), before);
    // Used once, it is there, and works.
    desk.write("a", "x");
    desk.run("-q encrypt a").exits(0);
    desk.run("check -p local:").exits(0);
}

#[test]
fn a_file_of_certificates_without_an_end_is_not_read_without_an_end() {
    let desk = Desk::new();
    let ran = desk.run("check -p vault:https://vault.invalid:8200/transit/k,cacert=/dev/zero").exits(2);
    assert!(ran.text().contains("more than 1 MiB"), "{}", ran.text());
}

#[test]
fn an_authority_in_a_name_leaves_the_proxy_of_the_environment() {
    use std::io::{BufRead as _, BufReader};
    let desk = Desk::new();
    desk.write("ca.pem", include_bytes!("../tls/root.pem"));
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(proxy.accept().unwrap().0).read_line(&mut line).unwrap();
        line
    });
    let line = "check --json -p vault:https://vault.invalid:8200/transit/k,cacert=ca.pem";
    let mut command = desk.command(line.split(' '));
    command.env("VAULT_TOKEN", "hush").env("VAULT_PROXY_ADDR", &address);
    Ran::of(line, command.output().unwrap()).exits(5);
    // One more, so that a proxy that nobody asked does not hold the test.
    let _ = std::net::TcpStream::connect(address.trim_start_matches("http://"))
        .map(|mut stream| std::io::Write::write_all(&mut stream, b"nobody\r\n"));
    assert_eq!(asked.join().unwrap(), "CONNECT vault.invalid:8200 HTTP/1.1\r\n");
}

#[test]
fn who_may_not_re_encrypt_has_a_provider_that_works() {
    let desk = Desk::new();
    desk.run("keys create --alias alias/orders").exits(0);
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": "writer"}, "Resource": "*",
         "Action": ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"]}]}"#;
    desk.write("policy.json", policy);
    desk.run("policy put alias/orders policy.json").exits(0);
    let shown = json(&desk.run("check --json -p local:alias/orders --as writer").exits(0));
    let provider = &shown["providers"][0];
    assert_eq!(steps(provider)[4], ("re-encrypt", "no"), "{provider}");
    assert_eq!((&provider["works"], &shown["working"]), (&true.into(), &1.into()));
    let text = desk.run("check -p local:alias/orders --as writer").exits(0);
    assert!(text.text().contains("not allowed here: a rewrap decrypts and encrypts"), "{}", text.text());
    assert!(text.text().contains("kms:ReEncrypt") && text.text().ends_with("it works\n"), "{}", text.text());
}

#[test]
fn a_single_provider_that_fails_is_told_once() {
    let desk = Desk::new();
    let ran = desk.run("check -p raw:file=none.key").exits(6);
    assert_eq!((ran.text().matches("not work").count(), ran.err.as_str()), (1, ""), "{}", ran.text());
    desk.run("check -p raw:file=none.key --json").exits(6).says("raw:file=none.key,id=none does not work");
}

#[test]
fn whose_credentials_were_used_is_told_in_plain_words() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.path("home/.aws")).unwrap();
    desk.write(
        "home/.aws/credentials",
        "[default]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = hunter2\n",
    );
    let provider = "aws-kms:arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab,endpoint=http://127.0.0.1:9";
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDVARIABLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    for (variables, words) in [
        (&keys[..], "the access key AKIDVARIABLE of the environment, at http://127.0.0.1:9"),
        (&[], "the access key AKIDPROFILE of the profile \"default\", at http://127.0.0.1:9"),
    ] {
        let ran = |json: &[&str]| {
            let mut command = desk.command([&["check", "-p", provider], json].concat());
            Ran::of(words, command.envs(variables.iter().copied()).output().unwrap()).exits(5)
        };
        let text = ran(&[]);
        let line = text.text().lines().find(|line| line.trim_start().starts_with("identity")).unwrap().to_owned();
        assert_eq!(line.trim_start().trim_start_matches("identity").trim(), words);
        assert!(!text.text().contains("hunter2") && !text.text().contains("also ["), "{}", text.text());
        assert_eq!(json(&ran(&["--json"]))["providers"][0]["caller"], words);
    }
}
