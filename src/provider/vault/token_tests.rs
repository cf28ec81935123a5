//! Logins, renewals and tokens that end, before a Vault in memory whose clock the test moves.

use super::auth::VaultAuth;
use super::fake::FakeVault;
use super::wrapping::Wrapping;
use super::*;
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use futures_util::FutureExt;
use pollster::block_on;
use std::time::Duration;

fn provider(vault: &FakeVault, auth: VaultAuth) -> VaultProvider {
    under(HttpPolicy::default().attempts(1), vault, auth)
}

fn under(policy: HttpPolicy, vault: &FakeVault, auth: VaultAuth) -> VaultProvider {
    VaultProvider::builder("orders")
        .address("https://vault.example.com:8200")
        .auth(auth)
        .transport(vault.clone())
        .clock(vault.clock.clone())
        .policy(policy)
        .build()
        .unwrap()
}

fn app_role(vault: &FakeVault) -> VaultProvider {
    provider(vault, VaultAuth::app_role("the-role-id", "the-secret-id"))
}

fn encrypt(provider: &VaultProvider) -> Result<()> {
    let key = DataKey::from_slice(&[1; 32])?;
    let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")]))?;
    block_on(provider.encrypt_data_key(&key, &context)).map(drop)
}

#[test]
fn a_role_logs_in_once_and_its_token_is_used_until_it_is_to_be_renewed() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    assert_eq!(vault.count("login"), 0, "building makes no call");
    for _ in 0..5 {
        encrypt(&provider).unwrap();
    }
    assert_eq!((vault.count("login"), vault.count("renew-self")), (1, 0));
    vault.clock.advance(46);
    encrypt(&provider).unwrap();
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("login"), vault.count("renew-self")), (1, 1));
    vault.clock.advance(46);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("login"), vault.count("renew-self")), (1, 2));
}

#[test]
fn a_token_that_is_not_renewed_any_more_is_replaced_before_its_end() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.state().renewals = false;
    vault.clock.advance(46);
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), 2);
    // Near its greatest age a token is renewed for a short while only.
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.state().lease = 10;
    vault.clock.advance(46);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("login"), vault.count("renew-self")), (2, 1));
}

#[test]
fn a_token_that_ended_while_nobody_called_is_got_anew() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.clock.advance(3_600);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("login"), vault.count("renew-self")), (2, 0));
}

#[test]
fn a_renewal_that_fails_is_no_failed_call_while_the_token_is_good() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.clock.advance(46);
    vault.say(503, r#"{"errors":["Vault is sealed"]}"#);
    encrypt(&provider).unwrap();
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("renew-self"), 1, "nobody tries again at once");
    vault.clock.advance(6);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("renew-self"), vault.count("login")), (2, 1));
}

#[test]
fn many_calls_at_once_share_one_login() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    let calls: Vec<_> = (0..50).map(|_| provider.0.tokens.current()).collect();
    let tokens = block_on(futures_util::future::join_all(calls));
    let first = tokens[0].as_ref().unwrap();
    assert!(tokens.iter().all(|token| Arc::ptr_eq(token.as_ref().unwrap(), first)));
    assert_eq!(vault.count("login"), 1);
}

#[test]
fn a_revoked_token_is_replaced_within_the_call() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.clock.advance(5);
    vault.state().tokens.retain(|token, _| !token.starts_with("s."));
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), 2);
}

#[test]
fn a_role_that_was_revoked_says_so() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.state().secret_id = "another".to_owned();
    encrypt(&provider).unwrap();
    vault.clock.advance(3_600);
    let error = encrypt(&provider).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    let text = error.to_string();
    assert!(text.contains("auth/approle") && text.contains("issue another secret id"), "{text}");
    assert!(!text.contains("the-secret-id") && !text.contains("the-role-id"));
}

#[test]
fn a_static_token_that_ended_says_what_to_do() {
    let vault = FakeVault::new();
    let provider = provider(&vault, VaultAuth::token("s.static"));
    vault.state().tokens.insert("s.static".to_owned(), Duration::from_secs(10));
    encrypt(&provider).unwrap();
    vault.clock.advance(10);
    let error = encrypt(&provider).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    let text = error.to_string();
    assert!(text.contains("expired, was revoked") && text.contains("VAULT_TOKEN"), "{text}");
    assert!(!text.contains("s.static"));
}

#[test]
fn a_token_file_is_read_again_when_its_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let vault = FakeVault::new();
    let provider = provider(&vault, VaultAuth::token_file(&path));
    let error = encrypt(&provider).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(path.as_path())));
    std::fs::write(&path, "s.first\n").unwrap();
    let error: Error = encrypt(&provider).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied, "{error}");
    std::fs::write(&path, "root-token\n").unwrap();
    encrypt(&provider).unwrap();
}

#[test]
fn a_wrapped_secret_id_is_unwrapped_once() {
    let vault = FakeVault::new();
    let auth = VaultAuth::app_role_wrapped("the-role-id", "wrapping-token");
    let provider = provider(&vault, auth);
    encrypt(&provider).unwrap();
    vault.clock.advance(3_600);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("unwrap"), vault.count("login")), (1, 2));
}

#[test]
fn a_wrapping_token_that_was_used_before_is_a_warning() {
    let vault = FakeVault::new();
    let provider = provider(&vault, VaultAuth::app_role_wrapped("the-role-id", "wrapping-token"));
    vault.say(400, r#"{"errors":["wrapping token is not valid or does not exist"]}"#);
    vault.say(400, r#"{"errors":["wrapping token is not valid or does not exist"]}"#);
    for _ in 0..2 {
        let error = encrypt(&provider).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyDenied);
        assert!(error.to_string().contains("somebody else has the secret id"), "{error}");
    }
}

#[test]
fn a_login_without_a_token_in_its_answer_is_refused() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    vault.say(200, r#"{"auth":{"client_token":"","mfa_requirement":{}}}"#);
    let error = encrypt(&provider).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    assert!(error.to_string().contains("second factor"), "{error}");
    vault.say(200, r#"{"auth":{"client_token":"two words","lease_duration":60}}"#);
    assert_eq!(encrypt(&provider).unwrap_err().kind(), ErrorKind::InvalidInput);
    vault.say(200, r#"{"auth":{"client_token":"s.x","lease_duration":18446744073709551615}}"#);
    block_on(provider.0.tokens.current()).unwrap();
}

#[test]
fn kubernetes_and_certificates_log_in_by_role_at_their_mounts() {
    let folder = tempfile::tempdir().unwrap();
    let jwt = folder.path().join("jwt");
    let granted = r#"{"auth":{"client_token":"root-token","lease_duration":0,"renewable":false}}"#;
    let login = |auth: VaultAuth| {
        let vault = FakeVault::new();
        vault.say(200, granted);
        encrypt(&provider(&vault, auth)).unwrap();
        let seen = vault.state().seen[0].clone();
        assert!(!seen.headers.contains_key("X-Vault-Token"), "a login carries no token");
        (seen.path, seen.body)
    };
    for text in ["first", "second"] {
        std::fs::write(&jwt, format!("{text}\n")).unwrap();
        let (path, body) = login(VaultAuth::kubernetes_file("orders", &jwt));
        assert_eq!(path, "/v1/auth/kubernetes/login");
        assert_eq!(body, serde_json::json!({ "role": "orders", "jwt": text }));
    }
    let (path, body) = login(VaultAuth::certificate(Some("orders")).mount("/tls/"));
    assert_eq!((path.as_str(), body), ("/v1/auth/tls/login", serde_json::json!({ "name": "orders" })));
    assert_eq!(login(VaultAuth::certificate(None)).1, serde_json::json!({}));
}

#[test]
fn a_login_that_is_refused_shows_no_credential() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    vault.say(400, r#"{"errors":["no role the-role-id with the-secret-id"]}"#);
    let error = encrypt(&provider).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    assert!(!format!("{error:?}").contains("the-secret-id"), "{error:?}");
}

#[test]
fn a_call_that_is_dropped_in_its_login_holds_nobody_up() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    vault.state().hung = vec!["login"];
    assert!(provider.0.tokens.current().now_or_never().is_none());
    vault.wait_for("login", 1);
    vault.go_on();
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), 1);
}

#[test]
fn a_call_does_not_depend_on_the_runtime_of_the_one_that_began_what_it_waits_for() {
    // A login, and a proof.
    for auth in [VaultAuth::app_role("the-role-id", "the-secret-id"), VaultAuth::token("root-token")] {
        let vault = FakeVault::new();
        vault.state().takes = Duration::from_millis(20);
        let provider = provider(&vault, auth);
        let key = DataKey::from_slice(&[1; 32]).unwrap();
        let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).unwrap();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (one, two) = (runtime(), runtime());
        let mut first = provider.encrypt_data_key(&key, &context);
        assert!(one.block_on(async { (&mut first).now_or_never() }).is_none());
        drop(one);
        two.block_on(provider.encrypt_data_key(&key, &context)).unwrap();
        assert!(vault.count("login") <= 1 && vault.count("encrypt") == 2, "each was done once");
        two.block_on(first).unwrap();
    }
}

/// `None` where the call waits for something.
fn encrypt_at_once(provider: &VaultProvider) -> Option<Result<()>> {
    let key = DataKey::from_slice(&[1; 32]).unwrap();
    let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).unwrap();
    provider.encrypt_data_key(&key, &context).now_or_never().map(|outcome| outcome.map(drop))
}

#[test]
fn a_wrapping_token_is_sent_once_and_nobody_is_accused_of_an_answer_that_was_lost() {
    let vault = FakeVault::new();
    let auth = VaultAuth::app_role_wrapped("the-role-id", "wrapping-token");
    let provider = under(HttpPolicy::default().attempts(4), &vault, auth);
    vault.state().lost = vec![("unwrap", TransportFailure::Broken)];
    let error = encrypt(&provider).unwrap_err();
    assert_eq!((error.kind(), vault.count("unwrap")), (ErrorKind::Unavailable, 1), "{error}");
    assert!(!error.to_string().contains("somebody else"), "{error}");
    vault.state().lost.clear();
    for _ in 0..2 {
        let error = encrypt(&provider).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyDenied, "{error}");
        let text = error.to_string();
        assert!(text.contains("may have used it up") && !text.contains("somebody else"), "{text}");
    }
}

#[test]
fn a_wrapping_token_that_reached_nobody_is_sent_again_by_the_next_call() {
    let vault = FakeVault::new();
    let provider = provider(&vault, VaultAuth::app_role_wrapped("the-role-id", "wrapping-token"));
    vault.say(503, r#"{"errors":["Vault is sealed"]}"#);
    assert_eq!(encrypt(&provider).unwrap_err().kind(), ErrorKind::Unavailable);
    encrypt(&provider).unwrap();
}

#[test]
fn a_call_that_is_dropped_while_a_secret_id_is_unwrapped_loses_nothing() {
    let vault = FakeVault::new();
    let provider = provider(&vault, VaultAuth::app_role_wrapped("the-role-id", "wrapping-token"));
    vault.state().hung = vec!["unwrap"];
    assert!(encrypt_at_once(&provider).is_none());
    vault.wait_for("unwrap", 1);
    vault.go_on();
    // Nobody waits for it.
    vault.wait_for("login", 1);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("unwrap"), vault.count("login")), (1, 1));
}

#[test]
fn only_what_may_have_come_to_the_server_may_have_used_the_wrapping_token_up() {
    use TransportFailure::{Broken, Connect, Dns, NotHttp, Timeout, Tls, TooLarge, Unusable};
    type Before = fn(&FakeVault);
    let cases: [(Before, bool); 15] = [
        (|vault| vault.state().away = Some(Connect), false),
        (|vault| vault.state().away = Some(Dns), false),
        (|vault| vault.state().away = Some(Tls), false),
        (|vault| vault.state().away = Some(Unusable), false),
        (|vault| vault.say(503, r#"{"errors":["Vault is sealed"]}"#), false),
        (|vault| vault.say(501, r#"{"errors":["Vault is not initialized"]}"#), false),
        (|vault| vault.say(307, ""), false),
        (|vault| vault.state().lost = vec![("unwrap", Timeout)], true),
        (|vault| vault.state().lost = vec![("unwrap", Broken)], true),
        (|vault| vault.state().lost = vec![("unwrap", NotHttp)], true),
        (|vault| vault.state().lost = vec![("unwrap", TooLarge)], true),
        (|vault| vault.say(500, r#"{"errors":["internal error"]}"#), true),
        (|vault| vault.say(504, "<html>gateway time-out</html>"), true),
        (|vault| vault.say(200, "<html>"), true),
        (|vault| vault.say(200, r#"{"data":{}}"#), true),
    ];
    for (number, (before, may_be_used)) in cases.into_iter().enumerate() {
        let vault = FakeVault::new();
        let provider = provider(&vault, VaultAuth::app_role_wrapped("the-role-id", "wrapping-token"));
        before(&vault);
        encrypt(&provider).unwrap_err();
        {
            let mut state = vault.state();
            state.away = None;
            state.lost.clear();
            state.unwrapped = true;
        }
        let text = encrypt(&provider).unwrap_err().to_string();
        assert_eq!(text.contains("may have used it up"), may_be_used, "{number}: {text}");
        assert_eq!(text.contains("somebody else has the secret id"), !may_be_used, "{number}: {text}");
    }
}

#[test]
fn a_wrapping_token_whose_request_hung_to_the_end_of_its_time_may_be_used_up() {
    let vault = FakeVault::new();
    let server = provider(&vault, VaultAuth::token("root-token")).0.server.clone();
    let wrapping = Wrapping::new("wrapping-token".to_owned().into());
    {
        let mut state = vault.state();
        state.hung = vec!["unwrap"];
        state.sleeps = Duration::MAX;
    }
    assert_eq!(block_on(wrapping.unwrap(&server)).unwrap_err().kind(), ErrorKind::Unavailable);
    vault.state().sleeps = Duration::ZERO;
    vault.go_on();
    let error = block_on(wrapping.unwrap(&server)).unwrap_err();
    assert!(error.to_string().contains("may have used it up"), "{error}");
    assert_eq!(vault.count("unwrap"), 2);
}

#[test]
fn a_renewal_without_an_answer_fails_no_call_and_one_call_waits_for_it_a_little() {
    let vault = FakeVault::new();
    let auth = VaultAuth::app_role("the-role-id", "the-secret-id");
    let provider = under(HttpPolicy::default().total(Duration::from_secs(1)), &vault, auth);
    encrypt(&provider).unwrap();
    vault.clock.advance(46);
    {
        let mut state = vault.state();
        state.hung = vec!["renew-self"];
        // A quarter of a call's time passes, the whole of it does not.
        state.sleeps = Duration::from_millis(250);
    }
    for _ in 0..20 {
        encrypt_at_once(&provider).expect("no call waits for long").unwrap();
    }
    vault.wait_for("renew-self", 1);
    assert_eq!(vault.count("renew-self"), 1);
}

#[test]
fn a_renewal_that_takes_longer_than_a_call_waits_goes_on_and_is_not_begun_again() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.clock.advance(46);
    {
        let mut state = vault.state();
        state.hung = vec!["renew-self"];
        // The two seconds of a call pass, and the pause after a failure; the whole time of a renewal does not.
        state.sleeps = Duration::from_secs(2);
    }
    for _ in 0..3 {
        encrypt_at_once(&provider).expect("no call waits for long").unwrap();
        vault.wait_for("renew-self", 1);
        vault.clock.advance(4);
    }
    assert_eq!(vault.count("renew-self"), 1);
    vault.go_on();
    // The token of the login is over then. What the renewal gave is kept, though nobody waited for it any more.
    vault.clock.advance(15);
    encrypt(&provider).unwrap();
    assert_eq!((vault.count("renew-self"), vault.count("login")), (1, 1));
}

#[test]
fn a_call_that_is_dropped_in_a_renewal_is_the_only_one_that_waited() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    encrypt(&provider).unwrap();
    vault.clock.advance(46);
    vault.state().hung = vec!["renew-self"];
    assert!(encrypt_at_once(&provider).is_none());
    for _ in 0..19 {
        encrypt_at_once(&provider).expect("nobody else waits").unwrap();
    }
    vault.wait_for("renew-self", 1);
    vault.go_on();
    vault.clock.advance(6);
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("renew-self"), 1, "what it began goes on");
}

#[test]
fn a_token_that_came_to_its_end_in_peace_makes_up_for_one_that_was_refused() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    let revoke = || vault.state().tokens.retain(|token, _| !token.starts_with("s."));
    encrypt(&provider).unwrap();
    vault.clock.advance(1);
    revoke();
    encrypt(&provider).unwrap();
    // The next one would have to be two seconds old.
    vault.clock.advance(3_600);
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), 3);
    vault.clock.advance(1);
    revoke();
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), 4);
}

#[test]
fn tokens_that_are_refused_one_after_the_other_make_logins_rare() {
    let vault = FakeVault::new();
    let provider = app_role(&vault);
    {
        let mut state = vault.state();
        state.deaf = true;
        state.lease = 3_600;
    }
    for _ in 0..600 {
        assert_eq!(encrypt(&provider).unwrap_err().kind(), ErrorKind::KeyDenied);
        vault.clock.advance(1);
    }
    let logins = vault.count("login");
    assert!((5..15).contains(&logins), "{logins} logins in ten minutes");
    // Once a token has served, the next one is got as soon as ever.
    vault.state().deaf = false;
    vault.clock.advance(700);
    encrypt(&provider).unwrap();
    assert_eq!(vault.count("login"), logins);
    for more in 1..=2 {
        vault.state().tokens.retain(|token, _| !token.starts_with("s."));
        encrypt(&provider).unwrap();
        assert_eq!(vault.count("login"), logins + more);
        vault.clock.advance(5);
    }
}
