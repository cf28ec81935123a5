//! What errors ask for, by the names that they are about.

use super::auth::VaultAuth;
use super::fake::FakeVault;
use super::tests::{at_work, builder, encrypted, not_decrypted, opened, provider, refused, says};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use pollster::block_on;

const KV_2: &str = r#"{"request_id":"0c8a6dba","data":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."],"auth":null}"#;
const UNSUPPORTED: &str = "{\"errors\":[\"1 error occurred:\\n\\t* unsupported path\\n\\n\"]}";

#[test]
fn a_mount_of_another_engine_is_named_and_asked_once() {
    for (body, part) in [
        (KV_2, "has a KV engine of version 2 at transit, and no Transit engine"),
        (UNSUPPORTED, "something else than a Transit engine at transit"),
        (r#"{"errors":[]}"#, "something else than a Transit engine at transit"),
        (r#"{"request_id":"0c8a6dba","data":null,"warnings":null}"#, "something else than a Transit engine at transit"),
    ] {
        says(&not_decrypted(404, body), ErrorKind::InvalidInput, &[part, "bao secrets list"]);
        let vault = FakeVault::new();
        vault.say(404, body);
        let patient = builder(&vault).policy(HttpPolicy::default()).build().unwrap();
        says(&encrypted(&patient).unwrap_err(), ErrorKind::InvalidInput, &[part, "bao secrets list"]);
        assert_eq!(vault.state().seen.len(), 1, "{body}");
    }
    // Of a stranger on the way.
    for body in ["<html>not found</html>", "{}", r#"{"warnings":["x"]}"#] {
        says(&refused(404, body), ErrorKind::Unavailable, &["status 404", "proxy"]);
    }
}

#[test]
fn a_check_finds_another_engine_by_what_it_says_of_the_key() {
    let check = |body: &str| {
        let vault = FakeVault::new();
        vault.state().forbidden = vec!["lookup-self"];
        vault.say(403, "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}");
        vault.say(404, body);
        let error = block_on(provider(&vault).check()).unwrap_err();
        assert_eq!(vault.count("encrypt"), 0);
        error
    };
    says(&check(KV_2), ErrorKind::InvalidInput, &["KV engine of version 2 at transit"]);
    says(&check(UNSUPPORTED), ErrorKind::InvalidInput, &["something else than a Transit engine"]);
    let parts = ["has no key transit/orders", "if transit is a Transit engine", "`bao write -f transit/keys/orders`"];
    says(&check(r#"{"errors":[]}"#), ErrorKind::NoMatchingKey, &parts);
}

#[test]
fn a_check_makes_no_key_where_the_token_may_make_one_and_not_read_it() {
    let vault = FakeVault::new();
    vault.state().exists = false;
    for forbidden in [vec!["keys"], vec!["keys", "lookup-self"], vec![]] {
        vault.state().forbidden = forbidden;
        let error = block_on(provider(&vault).check()).unwrap_err();
        says(&error, ErrorKind::NoMatchingKey, &["has no key transit/orders", "`bao write -f transit/keys/orders`"]);
        let trusting = builder(&vault).dangerous_without_binding_proof().build().unwrap();
        assert_eq!(block_on(trusting.check()).unwrap_err().kind(), ErrorKind::NoMatchingKey);
    }
    // Nor where nothing tells whether it is there.
    vault.state().forbidden = vec!["keys", "decrypt"];
    says(
        &block_on(provider(&vault).check()).unwrap_err(),
        ErrorKind::KeyDenied,
        &["`update` on transit/decrypt/orders"],
    );
    assert_eq!(vault.count("encrypt"), 0);
    assert!(!vault.state().exists);
    vault.state().exists = true;
    vault.state().forbidden = vec!["keys"];
    assert_eq!(block_on(provider(&vault).check()).unwrap().key, None);
    vault.state().version = 3;
    vault.state().min_decryption_version = 3;
    block_on(provider(&vault).check()).unwrap();
}

#[test]
fn a_reader_whose_key_is_gone_is_not_told_to_make_another() {
    let vault = FakeVault::new();
    let (provider, slot, _) = at_work(&vault);
    vault.state().exists = false;
    let error = opened(&provider, &slot, &super::tests::context("acme")).unwrap_err();
    says(&error, ErrorKind::NoMatchingKey, &["has no key transit/orders", "another cluster", "that server's backup"]);
    assert!(!error.to_string().contains("bao write"), "{error}");
    let error = refused(400, r#"{"errors":["encryption key not found"]}"#);
    says(&error, ErrorKind::NoMatchingKey, &["`bao write -f transit/keys/orders`"]);
}

#[test]
fn refusals_name_the_path_that_they_are_about() {
    const DENIED: &str = "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}";
    says(&refused(403, DENIED), ErrorKind::KeyDenied, &["allow `update` on transit/encrypt/orders"]);
    says(&not_decrypted(403, DENIED), ErrorKind::KeyDenied, &["allow `update` on transit/decrypt/orders"]);
    let old = not_decrypted(400, r#"{"errors":["ciphertext version is disallowed by policy (too old)"]}"#);
    says(&old, ErrorKind::KeyState, &["bao write transit/keys/orders/config min_decryption_version=N"]);
    for error in [refused(403, DENIED), not_decrypted(403, DENIED), old] {
        assert!(!error.to_string().contains("MOUNT") && !error.to_string().contains("NAME"), "{error}");
    }
}

#[test]
fn a_login_at_a_mount_that_is_none_is_told_of_auth_methods() {
    let login = |body: &str| {
        let vault = FakeVault::new();
        vault.say(404, body);
        encrypted(&builder(&vault).auth(VaultAuth::app_role("r", "secret-id")).build().unwrap()).unwrap_err()
    };
    let nothing = login(r#"{"errors":["no handler for route \"auth/approle/login\". route entry not found."]}"#);
    says(&nothing, ErrorKind::InvalidInput, &["nothing mounted at auth/approle", "bao auth list"]);
    says(&login(UNSUPPORTED), ErrorKind::KeyDenied, &["refused the login at auth/approle", "auth method"]);
}

#[test]
fn roots_that_do_not_fit_are_named_by_their_variable_and_no_retry_is_advised() {
    let vault = FakeVault::new();
    vault.state().away = Some(TransportFailure::Tls);
    let error = encrypted(&provider(&vault)).unwrap_err();
    says(&error, ErrorKind::Unavailable, &["VAULT_CACERT or BAO_CACERT", "ReqwestTransport::builder", "no other try"]);
    says(&refused(307, ""), ErrorKind::Unavailable, &["address of the active node", "no other try mends that"]);
}

#[test]
fn what_is_missing_is_named_as_a_library_and_as_a_program_take_it() {
    let built = |builder: VaultBuilder| -> Error { builder.build().unwrap_err() };
    let error = built(VaultProvider::builder("transit/orders").address("https://a").auth(VaultAuth::token("t")));
    says(&error, ErrorKind::InvalidInput, &["is no name of a Transit key", ".mount(\"transit\")", "vault:MOUNT/NAME"]);
    let error = built(VaultProvider::builder("orders").address("https://a"));
    says(&error, ErrorKind::InvalidInput, &["`auth`", ",login=approle", "VAULT_TOKEN"]);
    let error = built(VaultProvider::builder("orders"));
    says(&error, ErrorKind::InvalidInput, &["`address`", "vault:https://HOST", "VAULT_ADDR"]);
    let vault = FakeVault::new();
    let error = built(builder(&vault).mount("127.0.0.1:8200/transit"));
    says(&error, ErrorKind::InvalidInput, &["is no mount", "https://HOST[:PORT]"]);
    for (auth, what) in [
        (VaultAuth::token(" "), "the token is empty"),
        (VaultAuth::app_role("r", ""), "the secret id of the AppRole is empty"),
        (VaultAuth::app_role("", "secret-id"), "the role id of the AppRole is empty"),
        (VaultAuth::app_role_wrapped("r", "\n"), "the wrapping token"),
        (VaultAuth::kubernetes(""), "the role to log in as is empty"),
    ] {
        says(&built(builder(&vault).auth(auth)), ErrorKind::InvalidInput, &[what, "is set"]);
    }
    builder(&vault).auth(VaultAuth::certificate(None)).build().unwrap();
}

#[test]
fn where_no_runtime_is_the_advice_is_given_once() {
    let here = VaultProvider::builder("orders").address("http://127.0.0.1:1").auth(VaultAuth::token("t"));
    let error = encrypted(&here.dangerous_without_binding_proof().build().unwrap()).unwrap_err();
    says(&error, ErrorKind::Unsupported, &["there is no tokio runtime here; run it under tokio"]);
    assert_eq!(error.to_string().matches("envelock::blocking").count(), 1, "{error}");
}
