//! The README's sections on services across a network, run as they are written.
//!
//! Each block stands in a file of readme/, which is compiled here and compared with the README.

use crate::support::aws::Account;
use crate::support::child::{Running, tell, words};
use crate::support::openbao::Bao;
use crate::support::peers::{ministack, root};
use crate::support::run;
use envelock::EncryptionContext;
use serde_json::json;
use std::process::Command;

mod aws {
    include!("readme/aws.rs");

    pub(super) async fn run() -> Result<Vec<u8>, envelock::Error> {
        seal(b"attack at dawn").await
    }
}

mod vault {
    include!("readme/vault.rs");

    pub(super) async fn run() -> Result<Vec<u8>, envelock::Error> {
        seal(b"attack at dawn").await
    }
}

mod outage {
    include!("readme/outage.rs");

    pub(super) fn run() -> Result<envelock::Envelope, envelock::Error> {
        orders()
    }
}

/// The first block of code below `heading`.
fn block(heading: &str) -> String {
    let page = std::fs::read_to_string(root().join("README.md")).unwrap();
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let section = section.unwrap_or_else(|| panic!("README.md has no section \"{heading}\""));
    let block = section.split_once("\n```rust,no_run\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    block.to_owned()
}

#[test]
fn the_blocks_are_those_of_the_readme() {
    for (heading, file) in
        [("Use it with AWS", "aws"), ("Use it with Vault or OpenBao", "vault"), ("Survive an outage", "outage")]
    {
        let path = root().join(format!("tests/remote/readme/{file}.rs"));
        let ours = std::fs::read_to_string(&path).unwrap();
        assert_eq!(ours, block(heading), "put the block of \"{heading}\" into {}", path.display());
    }
}

/// Runs `test` again in an environment that has these variables and no other that a provider reads.
fn with(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let read = ["AWS_", "VAULT_", "BAO_", "HOME"].iter().any(|it| name.to_string_lossy().starts_with(it));
        if read {
            command.env_remove(&name);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    command.env("HOME", folder.path()).env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
    let told = Running::start_by(command, test, &["run"]).succeed();
    assert_eq!(told, ["done"]);
}

#[test]
fn the_section_on_aws_does_what_it_says() {
    if words().is_some() {
        let sealed = run(aws::run()).unwrap();
        assert!(envelock::Header::parse(&sealed).unwrap().slots().iter().any(|slot| slot.provider() == "aws-kms"));
        return tell("done");
    }
    // The account of the README: twelve digits are its root in ministack.
    let root = Account { id: "111122223333".to_owned(), ..Account::ministack_root("eu-central-1") };
    let key = root.key();
    root.kms("CreateAlias", json!({"AliasName": "alias/app", "TargetKeyId": key}));
    with(
        "readme::the_section_on_aws_does_what_it_says",
        &[
            ("AWS_ACCESS_KEY_ID", "111122223333"),
            ("AWS_SECRET_ACCESS_KEY", ministack().text("secret")),
            ("AWS_ENDPOINT_URL", root.endpoint.as_str()),
        ],
    );
}

/// An AppRole that may use the key `orders`, and its ids.
fn app_role(bao: &Bao) -> (String, String) {
    let rules = "path \"transit/encrypt/orders\" { capabilities = [\"update\"] }\n\
                 path \"transit/decrypt/orders\" { capabilities = [\"update\"] }";
    bao.must("PUT", "sys/policies/acl/orders", json!({"policy": rules}));
    bao.must("POST", "sys/auth/approle", json!({"type": "approle"}));
    // The role's id is one's own choice, and the README's is that.
    bao.must("POST", "auth/approle/role/orders", json!({"token_policies": "orders", "role_id": "ROLE-ID"}));
    let answer = bao.must("POST", "auth/approle/role/orders/secret-id", json!({}));
    ("ROLE-ID".to_owned(), answer["data"]["secret_id"].as_str().unwrap().to_owned())
}

#[test]
fn the_sections_on_vault_and_on_outages_do_what_they_say() {
    let context = EncryptionContext::from([("tenant", "acme")]);
    if words().is_some() {
        run(async {
            let sealed = vault::run().await.unwrap();
            // By the other section's envelope, which has the token of the environment.
            assert_eq!(outage::run().unwrap().decrypt(&sealed, &context).await.unwrap(), b"attack at dawn");
        });
        return tell("done");
    }
    let peer = crate::support::peers::Peer::start("openbao", &[]);
    let bao = Bao::own(&peer);
    bao.must("POST", "transit/keys/orders", json!({"type": "aes256-gcm96"}));
    let (_, secret_id) = app_role(&bao);
    let token = bao.token_for("path \"transit/*\" { capabilities = [\"update\"] }", json!({"ttl": "10m"}));
    with(
        "readme::the_sections_on_vault_and_on_outages_do_what_they_say",
        &[
            ("VAULT_ADDR", bao.tls_url.as_str()),
            ("VAULT_CACERT", peer.text("ca")),
            ("VAULT_TOKEN", token.as_str()),
            ("SECRET_ID", secret_id.as_str()),
        ],
    );
}
