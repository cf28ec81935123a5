//! Transit on a real OpenBao: versions, refusals, namespaces, TLS, batches, derived keys. Logins are in [`crate::vault_auth`].

use crate::conformance::{Shared, vault};
use crate::support::openbao::Bao;
use crate::support::peers::{Peer, openbao};
use crate::support::transport::Counting;
use crate::support::{run, say, transport};
use envelock::conformance;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind, HttpPolicy,
    KeyProvider, KmsContext, ReqwestTransport, RewrapMode, RewrapOptions, VaultAuth, VaultBuilder, VaultProvider,
};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn context(tenant: &str) -> KmsContext {
    KmsContext::new(&EncryptionContext::from([("tenant", tenant)])).unwrap()
}

/// As root, and each failure at once.
pub(crate) fn builder(bao: &Bao, key: &str) -> VaultBuilder {
    VaultProvider::builder(key)
        .address(bao.url.as_str())
        .auth(VaultAuth::token(bao.token.as_str()))
        .policy(HttpPolicy::default().attempts(1))
}

pub(crate) async fn sealed(provider: &dyn KeyProvider) -> Result<EncryptedDataKey, Error> {
    let mut generated = provider.generate_data_key(DataKeyLength::Bytes32, &context("acme")).await?;
    Ok(generated.encrypted.remove(0))
}

pub(crate) async fn opened(provider: &dyn KeyProvider, slot: &EncryptedDataKey) -> Result<DataKey, Error> {
    match provider.decrypt_data_key(slot, &context("acme")).await {
        DataKeyAnswer::Key(key) => Ok(key),
        DataKeyAnswer::Failed(error) => Err(error),
        DataKeyAnswer::NotMine => panic!("not mine: {slot:?}"),
    }
}

#[track_caller]
pub(crate) fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
    say(format!("  {:?}: {error}", error.kind()));
}

fn config(bao: &Bao, key: &str, what: Value) {
    bao.must("POST", &format!("transit/keys/{key}/config"), what);
}

#[test]
fn rotation_moves_on_and_the_least_version_shuts_the_old_ones_out() {
    let bao = Bao::shared();
    let key = bao.key();
    let provider = builder(&bao, &key).build().unwrap();
    run(async {
        let old = sealed(&provider).await.unwrap();
        bao.must("POST", &format!("transit/keys/{key}/rotate"), Value::Null);
        let new = sealed(&provider).await.unwrap();
        assert_eq!([&old, &new].map(VaultProvider::key_version), [Some(1), Some(2)]);
        opened(&provider, &old).await.unwrap();
        config(&bao, &key, json!({"min_decryption_version": 2}));
        let error = opened(&provider, &old).await.unwrap_err();
        says(&error, ErrorKind::KeyState, &["version 1 of transit/", "min_decryption_version", "rewrap"]);
        opened(&provider, &new).await.unwrap();
        let found = provider.check().await.unwrap().key.unwrap();
        assert_eq!((found.latest_version, found.min_decryption_version), (2, 2));
        config(&bao, &key, json!({"min_decryption_version": 1}));
        opened(&provider, &old).await.unwrap();
        // A version that this key never had.
        let forged = String::from_utf8(new.wrapped().to_vec()).unwrap().replace("vault:v2:", "vault:v7:");
        let forged = EncryptedDataKey::new("vault", new.key_id(), forged);
        says(&opened(&provider, &forged).await.unwrap_err(), ErrorKind::KeyState, &["has no version 7 of transit/"]);
    });
}

#[test]
fn a_message_is_rewrapped_to_the_newest_version_in_the_open_and_not_blind() {
    let bao = Bao::shared();
    let key = bao.key();
    run(async {
        let envelope = Envelope::builder(vault(&bao, &key)).build().unwrap();
        let tenant = EncryptionContext::from([("tenant", "acme")]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        std::fs::write(&path, envelope.encrypt(b"attack at dawn", &tenant).await.unwrap()).unwrap();
        bao.must("POST", &format!("transit/keys/{key}/rotate"), Value::Null);
        let blind = RewrapOptions::default().mode(RewrapMode::Blind);
        let error = envelope.rewrap_file(&path, &envelope, &tenant, blind).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        envelope.rewrap_file(&path, &envelope, &tenant, RewrapOptions::default()).await.unwrap();
        let message = std::fs::read(&path).unwrap();
        assert!(message.windows(9).any(|window| window == b"vault:v2:"));
        assert!(!message.windows(9).any(|window| window == b"vault:v1:"));
        config(&bao, &key, json!({"min_decryption_version": 2}));
        assert_eq!(envelope.decrypt(&message, &tenant).await.unwrap(), b"attack at dawn");
    });
}

#[test]
fn damage_another_context_and_another_key_are_failed_tries() {
    let bao = Bao::shared();
    let (key, other) = (bao.key(), bao.key());
    let provider = builder(&bao, &key).build().unwrap();
    run(async {
        let slot = sealed(&provider).await.unwrap();
        let answer = provider.decrypt_data_key(&slot, &context("other")).await;
        let DataKeyAnswer::Failed(error) = answer else { panic!("{answer:?}") };
        says(&error, ErrorKind::AuthenticationFailed, &["does not open", "another encryption context"]);
        let moved = EncryptedDataKey::new("vault", format!("transit/{other}"), slot.wrapped());
        let error = opened(&builder(&bao, &other).build().unwrap(), &moved).await.unwrap_err();
        says(&error, ErrorKind::AuthenticationFailed, &["does not open"]);
    });
}

#[test]
fn a_policy_that_denies_is_told_from_a_token_that_ended() {
    let bao = Bao::shared();
    let key = bao.key();
    let rules = format!("path \"transit/encrypt/{key}\" {{ capabilities = [\"update\"] }}");
    let auth = |token: &str| VaultAuth::token(token);
    run(async {
        let slot = sealed(&builder(&bao, &key).build().unwrap()).await.unwrap();
        let writer = bao.token_for(&rules, json!({}));
        let provider = builder(&bao, &key).auth(auth(&writer)).build().unwrap();
        let error = opened(&provider, &slot).await.unwrap_err();
        says(
            &error,
            ErrorKind::KeyDenied,
            &["decrypt with transit/", "no policy of it", &format!("transit/decrypt/{key}")],
        );
        let error = sealed(&provider).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &[&format!("transit/decrypt/{key}"), "dangerous_without_binding_proof"]);
        let trusting = builder(&bao, &key).auth(auth(&writer)).dangerous_without_binding_proof().build().unwrap();
        opened(&builder(&bao, &key).build().unwrap(), &sealed(&trusting).await.unwrap()).await.unwrap();
        // A key that does not exist, for one who may not make it.
        let error = sealed(&builder(&bao, "nowhere").auth(auth(&writer)).build().unwrap()).await.unwrap_err();
        says(
            &error,
            ErrorKind::KeyDenied,
            &["encrypt with transit/nowhere", "a key that does not exist looks the same"],
        );
        let short = bao.token_for(&rules, json!({"ttl": "1s"}));
        let provider = builder(&bao, &key).auth(auth(&short)).dangerous_without_binding_proof().build().unwrap();
        sealed(&provider).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        let error = sealed(&provider).await.unwrap_err();
        says(&error, ErrorKind::KeyDenied, &["expired, was revoked", "VAULT_TOKEN", "AppRole"]);
        assert!(!format!("{error:?}").contains(&short));
    });
}

#[test]
fn what_is_not_there_is_named() {
    let bao = Bao::shared();
    run(async {
        let slot = EncryptedDataKey::new(
            "vault",
            "transit/nowhere",
            "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1",
        );
        let error = opened(&builder(&bao, "nowhere").build().unwrap(), &slot).await.unwrap_err();
        says(&error, ErrorKind::NoMatchingKey, &["has no key transit/nowhere", "another cluster", "backup"]);
        assert!(!error.to_string().contains("bao write"), "{error}");
        let error = sealed(&builder(&bao, "k").mount("no/where").build().unwrap()).await.unwrap_err();
        says(&error, ErrorKind::InvalidInput, &["nothing mounted at no/where/k", "bao secrets list"]);
        let error = sealed(&builder(&bao, "k").namespace("no/where").build().unwrap()).await.unwrap_err();
        says(&error, ErrorKind::InvalidInput, &["has no namespace no/where", "VAULT_NAMESPACE"]);
    });
}

#[test]
fn a_store_of_secrets_at_the_mount_is_found_out_before_a_data_key_is_sent() {
    let bao = Bao::shared();
    bao.must("POST", "sys/mounts/mistaken", json!({"type": "kv"}));
    let key = DataKey::from_slice(&[0x5A; 32]).unwrap();
    run(async {
        let provider = builder(&bao, "orders").mount("mistaken").build().unwrap();
        let error = provider.encrypt_data_key(&key, &context("acme")).await.unwrap_err();
        says(&error, ErrorKind::InvalidInput, &["not a Transit engine"]);
    });
    let stored = bao.must("GET", "mistaken/encrypt/orders", Value::Null)["data"]["plaintext"].clone();
    assert!(stored.is_string());
    assert_ne!(stored, "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=", "it was a probe");
}

#[test]
fn each_other_engine_at_the_mount_is_told_as_such() {
    let bao = Bao::shared();
    bao.must("POST", "sys/mounts/kv-two", json!({"type": "kv", "options": {"version": "2"}}));
    // It is set up behind its own back.
    for _ in 0..100 {
        if bao.call("GET", "kv-two/keys/orders", &Value::Null).1["warnings"].is_array() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let slot = |mount: &str| {
        let text = "vault:v1:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";
        EncryptedDataKey::new("vault", format!("{mount}/orders"), text)
    };
    run(async {
        let provider = |mount: &str| {
            let builder = builder(&bao, "orders").mount(mount).policy(HttpPolicy::default());
            let counting = Counting::new(transport::shared());
            (builder.transport(counting.clone()).build().unwrap(), counting)
        };
        for (mount, part) in
            [("kv-two", "KV engine of version 2 at kv-two"), ("identity", "Transit engine at identity")]
        {
            let (provider, counting) = provider(mount);
            says(&sealed(&provider).await.unwrap_err(), ErrorKind::InvalidInput, &[part, "bao secrets list"]);
            says(&opened(&provider, &slot(mount)).await.unwrap_err(), ErrorKind::InvalidInput, &[part]);
            assert_eq!(counting.sent(), 2, "no retry mends it");
            says(&provider.check().await.unwrap_err(), ErrorKind::InvalidInput, &[part]);
        }
        let (provider, _) = provider("cubbyhole");
        says(&sealed(&provider).await.unwrap_err(), ErrorKind::InvalidInput, &["not a Transit engine"]);
        let parts = ["has no key cubbyhole/orders", "if cubbyhole is a Transit engine"];
        says(&provider.check().await.unwrap_err(), ErrorKind::NoMatchingKey, &parts);
    });
}

#[test]
fn a_namespace_has_mounts_and_keys_of_its_own() {
    let bao = Bao::shared();
    bao.must("POST", "sys/namespaces/team", json!({}));
    let team = Bao { namespace: Some("team".to_owned()), ..bao.clone() };
    team.must("POST", "sys/mounts/transit", json!({"type": "transit"}));
    let key = team.key();
    run(async {
        let provider = builder(&bao, &key).namespace("team/").build().unwrap();
        let slot = sealed(&provider).await.unwrap();
        assert_eq!(slot.key_id(), format!("transit/{key}").as_bytes(), "the namespace is no part of the key id");
        opened(&provider, &slot).await.unwrap();
        let error = opened(&builder(&bao, &key).build().unwrap(), &slot).await.unwrap_err();
        says(&error, ErrorKind::NoMatchingKey, &["has no key"]);
    });
}

#[test]
fn tls_needs_the_root_that_signed_the_server() {
    let (bao, peer) = (Bao::shared(), openbao());
    let pem = |name: &str| std::fs::read(peer.text(name)).unwrap();
    let (key, other) = (bao.key(), bao.key());
    let over = |key: &str, root: &str| {
        let transport = ReqwestTransport::builder().only_roots(pem(root)).build().unwrap();
        builder(&bao, key).address(bao.tls_url.as_str()).transport(transport).build().unwrap()
    };
    run(async {
        let error = sealed(&over(&key, "wrong_ca")).await.unwrap_err();
        says(&error, ErrorKind::Unavailable, &["127.0.0.1"]);
        let shown = crate::support::leaks::texts(&error).to_lowercase();
        assert!(shown.contains("certificate"), "{shown}");
        let system = builder(&bao, &key).address(bao.tls_url.as_str()).transport(transport::shared()).build().unwrap();
        assert_eq!(sealed(&system).await.unwrap_err().kind(), ErrorKind::Unavailable);
        // A server that speaks TLS, asked without.
        let plain = bao.tls_url.replace("https://", "http://");
        let error = sealed(&builder(&bao, &key).address(plain).build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let (ours, stranger): (Shared, Shared) = (Arc::new(over(&key, "ca")), Arc::new(over(&other, "ca")));
        let report = conformance::check(&ours, &stranger).await.unwrap();
        say(format!("conformance of vault on OpenBao with TLS: {} checks", report.checks));
    });
}

#[test]
fn derived_keys_and_each_type_of_key_conform() {
    let bao = Bao::shared();
    run(async {
        for parameters in [
            json!({"type": "aes256-gcm96", "derived": true}),
            json!({"type": "chacha20-poly1305"}),
            json!({"type": "chacha20-poly1305", "derived": true}),
            json!({"type": "xchacha20-poly1305"}),
        ] {
            let provider = || -> Shared {
                let builder = builder(&bao, &bao.key_with(parameters.clone()));
                let derived = parameters["derived"] == true;
                Arc::new(if derived { builder.derived_key() } else { builder }.build().unwrap())
            };
            let (ours, stranger) = (provider(), provider());
            let report = conformance::check(&ours, &stranger).await.unwrap_or_else(|e| panic!("{parameters}: {e}"));
            say(format!("conformance of vault on {parameters}: {} checks", report.checks));
        }
    });
}

#[test]
fn keys_that_do_not_serve_are_refused() {
    let bao = Bao::shared();
    run(async {
        let derived = bao.key_with(json!({"derived": true}));
        let provider = builder(&bao, &derived).build().unwrap();
        says(&sealed(&provider).await.unwrap_err(), ErrorKind::InvalidInput, &["derived_key()"]);
        says(&provider.check().await.unwrap_err(), ErrorKind::InvalidInput, &["derived_key()"]);
        let rsa = builder(&bao, &bao.key_with(json!({"type": "rsa-2048"}))).build().unwrap();
        says(&sealed(&rsa).await.unwrap_err(), ErrorKind::Unsupported, &["binds no associated data", "aes256-gcm96"]);
        says(&rsa.check().await.unwrap_err(), ErrorKind::Unsupported, &["rsa-2048"]);
        let short = builder(&bao, &bao.key_with(json!({"type": "aes128-gcm96"}))).build().unwrap();
        says(&short.check().await.unwrap_err(), ErrorKind::Unsupported, &["aes128-gcm96"]);
    });
}

#[test]
fn a_batch_is_one_call_and_one_bad_member_spoils_none() {
    let bao = Bao::shared();
    let counting = Counting::new(transport::shared());
    let provider = builder(&bao, &bao.key()).transport(counting.clone()).build().unwrap();
    run(async {
        let (ours, theirs) = (context("acme"), context("other"));
        let len = u16::try_from(provider.batch_len()).unwrap();
        let keys: Vec<_> = (0..len).map(|n| DataKey::from_slice(&[n.to_be_bytes(); 16].concat()).unwrap()).collect();
        sealed(&provider).await.unwrap();
        let before = counting.sent();
        let asked: Vec<_> = keys.iter().map(|key| (key, &ours)).collect();
        let slots: Vec<_> =
            provider.encrypt_data_keys(&asked).await.into_iter().map(|it| it.unwrap().remove(0)).collect();
        assert_eq!(counting.sent(), before + 1);
        let asked: Vec<_> =
            slots.iter().enumerate().map(|(at, slot)| (slot, if at % 7 == 3 { &theirs } else { &ours })).collect();
        let answers = provider.decrypt_data_keys(&asked).await;
        assert_eq!(counting.sent(), before + 2);
        for (at, (answer, key)) in answers.iter().zip(&keys).enumerate() {
            match answer {
                DataKeyAnswer::Key(opened) => assert!(at % 7 != 3 && opened.expose() == key.expose()),
                DataKeyAnswer::Failed(error) if at % 7 == 3 => {
                    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed)
                }
                other => panic!("{at}: {other:?}"),
            }
        }
        let none: Vec<_> = slots.iter().take(3).map(|slot| (slot, &theirs)).collect();
        for answer in provider.decrypt_data_keys(&none).await {
            assert!(matches!(answer, DataKeyAnswer::Failed(e) if e.kind() == ErrorKind::AuthenticationFailed));
        }
        // The most that a derived key takes, under contexts of the greatest length.
        let derived = bao.key_with(json!({"derived": true}));
        let provider = builder(&bao, &derived).transport(counting.clone()).derived_key().build().unwrap();
        sealed(&provider).await.unwrap();
        let long = context(&"x".repeat(8_000));
        let asked: Vec<_> = keys.iter().take(provider.batch_len()).map(|key| (key, &long)).collect();
        let before = counting.sent();
        assert!(provider.encrypt_data_keys(&asked).await.iter().all(Result::is_ok));
        assert_eq!(counting.sent(), before + 1);
    });
}

#[test]
fn a_server_that_is_sealed_or_has_had_too_much_says_so_and_works_again() {
    let peer = Peer::start("openbao", &[]);
    let bao = Bao::own(&peer);
    let provider = builder(&bao, &bao.key()).build().unwrap();
    run(async {
        let slot = sealed(&provider).await.unwrap();
        bao.must("POST", "sys/quotas/rate-limit/r", json!({"path": "transit", "rate": 1, "interval": "3600s"}));
        let mut limited = None;
        for _ in 0..3 {
            limited = opened(&provider, &slot).await.err().or(limited);
        }
        says(&limited.unwrap(), ErrorKind::Unavailable, &["too many requests", "rate limit quota"]);
        bao.must("DELETE", "sys/quotas/rate-limit/r", Value::Null);
        opened(&provider, &slot).await.unwrap();
        bao.must("PUT", "sys/seal", Value::Null);
        says(
            &opened(&provider, &slot).await.unwrap_err(),
            ErrorKind::Unavailable,
            &["is sealed", "bao operator unseal"],
        );
        bao.must("PUT", "sys/unseal", json!({"key": peer.text("unseal_key")}));
        opened(&provider, &slot).await.unwrap();
    });
}
