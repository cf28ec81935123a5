//! Profiles: providers and how they are used, in a file.

use crate::cli::{Desk, KEY, Ran};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// Two keys, and a file of profiles where it is looked for.
fn desk(profiles: &str) -> Desk {
    let desk = Desk::new();
    desk.write("a.key", KEY);
    desk.write("b.key", KEY.replace('0', "1"));
    desk.write("a", "attack at dawn");
    fs::create_dir_all(desk.path("home/.config/envelock")).unwrap();
    desk.write("home/.config/envelock/config.toml", profiles);
    desk
}

fn with(desk: &Desk, line: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = desk.command(line.split(' '));
    command.envs(variables.iter().copied());
    Ran::of(line, command.output().unwrap())
}

fn recipients(desk: &Desk, file: &str) -> Vec<(String, bool)> {
    let shown: serde_json::Value =
        serde_json::from_slice(&desk.run(&format!("inspect --json {file}")).exits(0).out).unwrap();
    let slot = |slot: &serde_json::Value| {
        (slot["key_id"].as_str().unwrap().to_owned(), slot["missing"].as_bool().unwrap_or_default())
    };
    shown["slots"].as_array().unwrap().iter().map(slot).collect()
}

fn present(names: &[&str]) -> Vec<(String, bool)> {
    names.iter().map(|name| ((*name).to_owned(), false)).collect()
}

const TWO: &str = r#"
[profiles.both]
providers = ["raw:file=a.key", "raw:file=b.key"]

[profiles.one]
providers = ["raw:file=b.key"]
"#;

#[test]
fn a_profile_is_chosen_by_name_by_a_variable_or_as_the_default() {
    let desk = desk(TWO);
    desk.run("encrypt a --profile both").exits(0);
    assert_eq!(recipients(&desk, "a.elk"), present(&["a", "b"]));
    assert_eq!(desk.run("decrypt a.elk -o - --profile one").exits(0).out, b"attack at dawn");
    with(&desk, "encrypt a -f", &[("ENVELOCK_PROFILE", "one")]).exits(0);
    assert_eq!(recipients(&desk, "a.elk"), present(&["b"]));
    // The word on the command line is the last.
    with(&desk, "encrypt a -f --profile both", &[("ENVELOCK_PROFILE", "one")]).exits(0);
    assert_eq!(recipients(&desk, "a.elk"), present(&["a", "b"]));
    with(&desk, "encrypt a -f -p raw:file=a.key", &[("ENVELOCK_PROFILE", "one")]).exits(0);
    assert_eq!(recipients(&desk, "a.elk"), present(&["a"]));
    desk.run("encrypt a -f -p raw:file=a.key --profile one").exits(2);
    // Without a word and without a default, it is the keystore's key.
    desk.run("encrypt a -f").exits(0).says("made the keystore");
    desk.write("home/.config/envelock/config.toml", TWO.replace("profiles.one", "profiles.default"));
    desk.run("encrypt a -f").exits(0);
    assert_eq!(recipients(&desk, "a.elk"), present(&["b"]));
    for command in ["verify a.elk", "decrypt a.elk -o b", "rewrap a.elk"] {
        desk.run(command).exits(0);
    }
    let sealed = desk.pipe("seal", b"word").exits(0);
    assert_eq!(desk.pipe("open -p raw:file=b.key", &sealed.out).exits(0).out, b"word");
}

#[test]
fn the_file_is_where_it_is_said_to_be_or_a_failure() {
    let desk = desk("");
    desk.write("elsewhere.toml", TWO);
    desk.run("encrypt a --config elsewhere.toml --profile one").exits(0);
    with(&desk, "decrypt a.elk -o -", &[("ENVELOCK_CONFIG", "elsewhere.toml"), ("ENVELOCK_PROFILE", "one")]).exits(0);
    let home = desk.path("other/envelock");
    fs::create_dir_all(&home).unwrap();
    fs::copy(desk.path("elsewhere.toml"), home.join("config.toml")).unwrap();
    let other = desk.path("other");
    let other = other.to_str().unwrap();
    with(&desk, "verify a.elk --profile one", &[("XDG_CONFIG_HOME", other)]).exits(0);
    desk.run("encrypt a -f --config nowhere.toml").exits(6).says("nowhere.toml");
    with(&desk, "encrypt a -f", &[("ENVELOCK_CONFIG", "nowhere.toml")]).exits(6);
    desk.run("encrypt a -f --profile one").exits(2).says("has no profile \"one\": it has none");
    let near = desk.run("encrypt a -f --config elsewhere.toml --profile bot").exits(2);
    near.says("has no profile \"bot\": is it \"both\"?");
    desk.run("encrypt a -f --config elsewhere.toml --profile x").exits(2).says("it has both, one");
}

#[test]
fn a_file_that_others_may_write_chooses_no_keys() {
    let desk = desk(TWO);
    let path = desk.path("home/.config/envelock/config.toml");
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        desk.run("encrypt a --profile one").exits(2).says("others may write it").says("chmod go-w");
        assert!(!desk.path("a.elk").exists());
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    desk.run("encrypt a --profile one").exits(0);
}

#[test]
fn what_is_wrong_in_the_file_is_told_by_its_line_and_secrets_are_not_repeated() {
    for (text, line, words) in [
        ("[profiles.x]\nproviders = [\"raw:file=a.key\"]\nwrit = \"all\"\n", 3, "is it \"write\"?"),
        ("[profiles.x]\nproviders = [\"raw:file=a.key\",\n  \"vault:t/k,token=hunter2\"]\n", 3, "VAULT_TOKEN"),
        ("[profiles.x]\nproviders = [\"passphrase:hunter2\"]\n", 2, "never from an argument"),
        ("[profiles.x]\npassword = \"hunter2\"\n", 2, "looks like a secret"),
        ("[profiles.x]\nproviders = [\"hunter2\"\n", 2, "no TOML"),
        ("[profiles.x]\nproviders = [\"local:\"]\nwrite = \"1 of 2\"\n", 3, "there is 1 provider"),
    ] {
        let desk = desk(text);
        let ran = desk.run("encrypt a --profile x").exits(2);
        let ran = ran.says(&format!("config.toml: line {line}: ")).says(words);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        assert!(!desk.path("a.elk").exists());
    }
}

#[test]
fn a_secret_in_an_address_is_refused_with_advice_and_not_repeated() {
    let desk = desk("");
    for (provider, advice) in [
        ("vault:https://me:hunter2@host/transit/k", "VAULT_TOKEN"),
        ("vault:https://host/transit/k?token=hunter2", "VAULT_TOKEN"),
        ("aws-kms:alias/a,secret_access_key=hunter2", "AWS_SECRET_ACCESS_KEY"),
    ] {
        for command in ["encrypt a -p", "check -p", "rewrap x.elk -p raw:file=a.key --to"] {
            let ran = desk.run(&format!("{command} {provider}")).exits(2).says(advice);
            assert!(!ran.err.contains("hunter2") && !ran.text().contains("hunter2"), "{}", ran.err);
        }
    }
}

#[test]
fn k_of_n_goes_on_without_one_that_is_down_and_names_it() {
    let profiles = |write: &str| {
        format!(
            "[profiles.three]\nproviders = [\"raw:file=a.key\", \"vault:http://127.0.0.1:9/transit/k\", \
             \"raw:file=b.key\"]\nwrite = \"{write}\"\nattempts = 1\ntimeout = \"5 s\"\n"
        )
    };
    let desk = desk(&profiles("2 of 3"));
    let vault = [("VAULT_TOKEN", "token")];
    let ran = with(&desk, "encrypt a --profile three", &vault).exits(0);
    let ran = ran
        .says("a.elk: MISSING vault:transit/k: it could not encrypt the data key (")
        .says("the connection was refused");
    ran.says("`envelock rewrap --profile three a.elk`")
        .says("`envelock fleet rewrap --profile three --missing FOLDER`");
    let shown = recipients(&desk, "a.elk");
    assert_eq!(shown, [("a".into(), false), ("transit/k".into(), true), ("b".into(), false)]);
    assert_eq!(with(&desk, "decrypt a.elk -o - --profile three", &vault).exits(0).out, b"attack at dawn");
    let mut seal = desk.command(["seal", "--profile", "three"]);
    let sealed = seal.envs(vault).output().unwrap();
    let said = String::from_utf8_lossy(&sealed.stderr).into_owned();
    assert!(said.contains("what was sealed: MISSING vault:transit/k") && said.contains("was refused"), "{said}");
    // One word more, and it stops, with everyone's reason.
    let ran = with(&desk, "encrypt a -f --profile three --at-least 3", &vault).exits(5);
    let ran = ran.says("2 of 3 key providers encrypted the data key, and 3 must: vault:transit/k: ");
    ran.says("the connection was refused");
    desk.write("home/.config/envelock/config.toml", profiles("all"));
    let ran = with(&desk, "encrypt a -f --profile three", &vault).exits(5);
    assert!(!ran.err.contains("MISSING"), "{}", ran.err);
    assert_eq!(recipients(&desk, "a.elk"), shown, "the target stayed as it was");
}

#[test]
fn failover_writes_by_the_first_that_works_and_reads_by_whose_it_is() {
    for order in ["listed", "nearest"] {
        let desk = desk(&format!(
            "[profiles.standby]\nproviders = [\"vault:http://127.0.0.1:9/transit/k\", \"raw:file=a.key\"]\n\
             write = \"failover\"\norder = \"{order}\"\nhedge_after = \"2 s\"\nattempts = 1\n"
        ));
        let vault = [("VAULT_TOKEN", "token")];
        let ran = with(&desk, "encrypt a --profile standby", &vault).exits(0);
        assert!(!ran.err.contains("MISSING"), "{}", ran.err);
        // Where nobody is the first, nobody stands by.
        let by_standby =
            "a.elk: by the standby raw:a: it opens with it alone, until `envelock rewrap --profile standby a.elk`";
        assert_eq!(ran.err.contains(by_standby), order == "listed", "{}", ran.err);
        assert_eq!(recipients(&desk, "a.elk"), present(&["a"]));
        assert_eq!(with(&desk, "decrypt a.elk -o - --profile standby", &vault).exits(0).out, b"attack at dawn");
        desk.run("encrypt a -f -p raw:file=b.key").exits(0);
        with(&desk, "decrypt a.elk -o - --profile standby", &vault).exits(4);
    }
}

#[test]
fn a_cache_of_a_profile_lets_many_files_share_a_data_key() {
    let desk = desk(
        "[profiles.many]\nproviders = [\"passphrase:file=words\"]\ncache = { max_messages = 100, max_age = \"1 minute\" }\n",
    );
    desk.write("words", "correct horse");
    let names: Vec<_> = (0..8).map(|n| format!("f{n}")).collect();
    names.iter().for_each(|name| drop(desk.write(name, name)));
    // Each call would stretch the passphrase.
    desk.run(&format!("encrypt --profile many {}", names.join(" "))).exits(0);
    let wrapped = |name: &String| {
        let shown: serde_json::Value =
            serde_json::from_slice(&desk.run(&format!("inspect --json {name}.elk")).exits(0).out).unwrap();
        shown["slots"][0].clone()
    };
    let all: Vec<_> = names.iter().map(wrapped).collect();
    assert!(all.iter().all(|slot| *slot == all[0]), "{all:?}");
    let whole: Vec<_> = names.iter().map(|name| desk.read(&format!("{name}.elk"))).collect();
    let slot_of = |message: &Vec<u8>| message[..200].to_vec();
    assert!(whole.iter().all(|message| slot_of(message)[9..80] == slot_of(&whole[0])[9..80]), "one slot for all");
    let elk = names.iter().map(|name| format!("{name}.elk")).collect::<Vec<_>>().join(" ");
    desk.run(&format!("verify --profile many {elk}")).exits(0);
}

#[test]
fn where_data_keys_go_is_told_to_those_who_did_not_say() {
    let desk =
        desk("[profiles.default]\nproviders = [\"raw:file=b.key\"]\n[profiles.x]\nproviders = [\"raw:file=a.key\"]\n");
    let told = |ran: Ran| ran.exits(0).err.lines().filter(|line| line.contains("by the profile")).collect::<String>();
    assert_eq!(told(desk.run("encrypt a -f")), "envelock: by the profile default: raw:file=b.key,id=b");
    assert_eq!(told(desk.run("-q encrypt a -f")), "");
    let by_variable = with(&desk, "encrypt a -f", &[("ENVELOCK_PROFILE", "x")]);
    assert_eq!(told(by_variable), "envelock: by the profile x: raw:file=a.key,id=a");
    // Who said it knows, and who reads sends no key anywhere.
    for line in ["encrypt a -f --profile x", "encrypt a -f -p raw:file=b.key", "decrypt a.elk -o -"] {
        assert_eq!(told(desk.run(line)), "", "{line}");
    }
    // A name that is no text is not passed over for the default.
    use std::os::unix::ffi::OsStrExt as _;
    let mut command = desk.command(["encrypt", "a", "-f"]);
    command.env("ENVELOCK_PROFILE", std::ffi::OsStr::from_bytes(b"\xff"));
    Ran::of("a name that is no text", command.output().unwrap()).exits(2).says("ENVELOCK_PROFILE is not UTF-8");
    desk.run("encrypt a -f --config c.toml -p raw:file=a.key").exits(2);
}

#[test]
fn what_was_pasted_into_a_provider_is_not_repeated() {
    let desk = desk("");
    for pasted in [
        "vault:transit/orders,hvs.CAESIhunter2",
        "vault:transit/k,tok=hvs.CAESIhunter2",
        "vault:transit/k,hunter2",
        "aws-kms:alias/a,AKIAhunter2hunter2",
        "aws-kms:alias/a,wJalrXUtnFEMI/hunter2",
        "aws-kms:alias/a,endpoint=me:hunter2@host",
        "hvs.CAESIhunter2",
    ] {
        let ran = desk.run(&format!("encrypt a -p {pasted}")).exits(2);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        let text = format!("[profiles.default]\nproviders = [\"{pasted}\"]\n");
        desk.write("home/.config/envelock/config.toml", text);
        let ran = desk.run("encrypt a").exits(2).says("line 2");
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        desk.write("home/.config/envelock/config.toml", "");
    }
}

#[test]
fn what_goes_on_without_one_is_told_to_whoever_writes_with_all() {
    let vault = [("VAULT_TOKEN", "token")];
    let hint = "a profile with write = \"2 of 3\" or \"failover\" goes on without one of several";
    let provider = "vault:http://127.0.0.1:9/transit/k";
    let desk = desk(&format!(
        "[profiles.one]\nproviders = [\"{provider}\"]\nattempts = 1\n\
         [profiles.k]\nproviders = [\"{provider}\", \"vault:http://127.0.0.1:9/transit/l\"]\nwrite = \"1 of 2\"\nattempts = 1\n"
    ));
    with(&desk, "encrypt a --profile one", &vault).exits(5).says(hint);
    for line in
        ["encrypt a --profile k", "encrypt a --profile one --at-least 1", "check --profile one", "check --profile k"]
    {
        let ran = with(&desk, line, &vault).exits(5);
        assert!(!ran.err.contains(hint) && !ran.text().contains(hint), "{line}: {} {}", ran.text(), ran.err);
    }
}

#[test]
fn a_file_of_profiles_that_is_not_there_is_told_with_where_one_is_shown() {
    let desk = Desk::new();
    desk.write("a", "x");
    for line in ["check --config none.toml", "encrypt a --profile prod"] {
        desk.run(line).exits(6).says("No such file").says("docs/providers.md shows");
    }
}
