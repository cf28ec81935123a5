//! Logins on a real OpenBao: AppRole, certificates, a JWT; renewals before the end, and what is revoked.

use crate::support::openbao::Bao;
use crate::support::peers::openbao;
use crate::support::transport::Counting;
use crate::support::{run, say, transport};
use crate::vault::{builder, opened, says, sealed};
use envelock::{ErrorKind, HttpTransport, KeyProvider, ReqwestTransport, VaultAuth, VaultProvider};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A role of its own auth method, which may use one key.
struct Role {
    bao: Bao,
    mount: String,
    key: String,
    role_id: String,
}

impl Role {
    fn new(parameters: Value) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let bao = Bao::shared();
        let (mount, key) = (format!("roles-{}", NEXT.fetch_add(1, Ordering::SeqCst)), bao.key());
        bao.must("PUT", &format!("sys/policies/acl/{mount}"), json!({"policy": policy(&key)}));
        bao.must("POST", &format!("sys/auth/{mount}"), json!({"type": "approle"}));
        let mut role = parameters;
        role["token_policies"] = json!([mount]);
        bao.must("POST", &format!("auth/{mount}/role/app"), role);
        let answer = bao.must("GET", &format!("auth/{mount}/role/app/role-id"), Value::Null);
        Self { role_id: text(&answer["data"]["role_id"]), bao, mount, key }
    }

    fn secret_id(&self) -> String {
        let path = format!("auth/{}/role/app/secret-id", self.mount);
        text(&self.bao.must("POST", &path, json!({}))["data"]["secret_id"])
    }

    fn provider(&self, auth: VaultAuth, transport: impl HttpTransport + 'static) -> VaultProvider {
        builder(&self.bao, &self.key).auth(auth.mount(self.mount.as_str())).transport(transport).build().unwrap()
    }

    fn app_role(&self) -> VaultProvider {
        self.provider(VaultAuth::app_role(self.role_id.as_str(), self.secret_id()), transport::shared())
    }
}

fn policy(key: &str) -> String {
    format!(
        "path \"transit/encrypt/{key}\" {{ capabilities = [\"update\"] }}\n\
         path \"transit/decrypt/{key}\" {{ capabilities = [\"update\"] }}"
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn a_role_logs_in_and_may_what_its_policy_says() {
    let role = Role::new(json!({"token_ttl": "60s"}));
    run(async {
        let provider = role.app_role();
        let slot = sealed(&provider).await.unwrap();
        opened(&provider, &slot).await.unwrap();
        let found = provider.check().await.unwrap();
        assert_eq!(found.identity.as_deref(), Some(role.mount.as_str()));
        assert_eq!(found.key, None, "it may not read the key");
        assert!(found.token_left.unwrap() <= Duration::from_secs(60));
        assert!(found.policies.unwrap().contains(&role.mount));
        assert!(provider.identity().is_some());
        assert_ne!(provider.identity(), role.app_role().identity(), "another secret id is another principal");
    });
}

#[test]
fn tokens_of_two_seconds_carry_ten_seconds_of_calls_at_once_without_a_failure() {
    let role = Role::new(json!({"token_ttl": "2s", "token_max_ttl": "5s"}));
    let counting = Counting::new(transport::shared());
    let provider = role.provider(VaultAuth::app_role(role.role_id.as_str(), role.secret_id()), counting.clone());
    let calls = AtomicUsize::new(0);
    run(async {
        let slot = sealed(&provider).await.unwrap();
        let begun = Instant::now();
        let worker = || async {
            while begun.elapsed() < Duration::from_secs(10) {
                opened(&provider, &slot).await.unwrap();
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::join!(worker(), worker(), worker(), worker());
    });
    let calls = calls.into_inner();
    let others = counting.sent() - calls;
    say(format!("{calls} calls under tokens of 2 s: {others} others for logins, renewals and the proof"));
    // Three of the first seal, and a renewal or a login at 1.2 s at the earliest.
    assert!((3 + 5..=3 + 16).contains(&others), "{others}");
}

#[test]
fn a_token_that_is_revoked_is_replaced_within_the_call() {
    let role = Role::new(json!({"token_ttl": "60s"}));
    run(async {
        let provider = role.app_role();
        let slot = sealed(&provider).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let prefix = format!("auth/{}/login", role.mount);
        role.bao.must("POST", &format!("sys/leases/revoke-prefix/{prefix}"), json!({"sync": true}));
        opened(&provider, &slot).await.unwrap();
    });
}

#[test]
fn a_role_that_is_revoked_is_named_with_what_to_do() {
    let role = Role::new(json!({"token_ttl": "60s"}));
    run(async {
        let provider = role.app_role();
        let slot = sealed(&provider).await.unwrap();
        role.bao.must("DELETE", &format!("auth/{}/role/app", role.mount), Value::Null);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        role.bao.must("POST", &format!("sys/leases/revoke-prefix/auth/{}/login", role.mount), json!({"sync": true}));
        let error = opened(&provider, &slot).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &["refused the login at auth/roles-", "issue another secret id"]);
        assert!(!format!("{error:?}").contains(&role.role_id));
        let elsewhere = builder(&role.bao, &role.key).auth(VaultAuth::app_role("a", "b").mount("nowhere"));
        let error = sealed(&elsewhere.build().unwrap()).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &["refused the login at auth/nowhere", "mounted there"]);
    });
}

#[test]
fn a_wrapped_secret_id_serves_once() {
    let role = Role::new(json!({"token_ttl": "60s"}));
    let url = format!("{}/v1/auth/{}/role/app/secret-id", role.bao.url, role.mount);
    let headers = [("X-Vault-Token", role.bao.token.as_str()), ("X-Vault-Wrap-TTL", "60s")];
    let answer = crate::support::http::send("POST", &url, &headers, b"{}").unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let wrapping = text(&answer["wrap_info"]["token"]);
    let auth = || VaultAuth::app_role_wrapped(role.role_id.as_str(), wrapping.as_str());
    run(async {
        let slot = sealed(&role.provider(auth(), transport::shared())).await.unwrap();
        let error = opened(&role.provider(auth(), transport::shared()), &slot).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &["sys/wrapping/unwrap", "somebody else has the secret id"]);
        assert!(!format!("{error:?}").contains(&wrapping));
    });
}

#[test]
fn a_client_certificate_logs_in_over_tls() {
    let (bao, peer) = (Bao::shared(), openbao());
    let pem = |name: &str| std::fs::read_to_string(peer.text(name)).unwrap();
    let key = bao.key();
    bao.must("PUT", "sys/policies/acl/by-certificate", json!({"policy": policy(&key)}));
    bao.must("POST", "sys/auth/cert", json!({"type": "cert"}));
    let role = json!({"certificate": pem("ca"), "token_policies": ["by-certificate"], "token_ttl": "60s"});
    bao.must("POST", "auth/cert/certs/app", role);
    let provider = |transport: ReqwestTransport, role| {
        let auth = VaultAuth::certificate(role);
        builder(&bao, &key).address(bao.tls_url.as_str()).auth(auth).transport(transport).build().unwrap()
    };
    let trusting = || ReqwestTransport::builder().only_roots(pem("ca"));
    run(async {
        let identity = pem("client") + &pem("client_key");
        for role in [None, Some("app")] {
            let known = provider(trusting().identity(&identity).build().unwrap(), role);
            opened(&known, &sealed(&known).await.unwrap()).await.unwrap();
            assert_eq!(known.identity(), None);
        }
        let nobody = provider(trusting().build().unwrap(), None);
        says(&sealed(&nobody).await.unwrap_err(), ErrorKind::KeyDenied, &["auth/cert", "client certificate"]);
    });
}

#[test]
fn the_token_file_of_the_programs_is_read_again_when_it_changes() {
    let bao = Bao::shared();
    let key = bao.key();
    let path = tempfile::tempdir().unwrap().keep().join("token");
    let first = bao.token_for(&policy(&key), json!({}));
    std::fs::write(&path, format!("{first}\n")).unwrap();
    run(async {
        let provider = builder(&bao, &key).auth(VaultAuth::token_file(&path)).build().unwrap();
        let slot = sealed(&provider).await.unwrap();
        bao.must("POST", "auth/token/revoke", json!({"token": first}));
        let error = opened(&provider, &slot).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &["expired, was revoked"]);
        std::fs::write(&path, bao.token_for(&policy(&key), json!({}))).unwrap();
        opened(&provider, &slot).await.unwrap();
    });
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn a_hundred_calls_at_once_share_the_login_and_the_proof() {
    let role = Role::new(json!({"token_ttl": "60s"}));
    let counting = Counting::new(transport::shared());
    let provider = role.provider(VaultAuth::app_role(role.role_id.as_str(), role.secret_id()), counting.clone());
    let provider: Arc<dyn KeyProvider> = Arc::new(provider);
    run(async {
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move { sealed(&provider).await.map(drop) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    assert_eq!(counting.sent(), 1 + 3 + 100, "a login, the three calls of the proof, and the calls");
}
