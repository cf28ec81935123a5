//! The provider before a Vault in memory: what it sends, what it refuses, and what its errors say.

use super::auth::VaultAuth;
use super::fake::FakeVault;
use super::*;
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind};
use crate::provider::http::policy::HttpPolicy;
use pollster::block_on;

const TOKEN: &str = "root-token";

pub(super) fn context(value: &str) -> KmsContext {
    KmsContext::new(&EncryptionContext::from([("tenant", value)])).unwrap()
}

pub(super) fn builder(vault: &FakeVault) -> VaultBuilder {
    VaultProvider::builder("orders")
        .address("https://vault.example.com:8200/")
        .auth(VaultAuth::token(TOKEN))
        .transport(vault.clone())
        .clock(vault.clock.clone())
        .policy(HttpPolicy::default().attempts(1))
}

pub(super) fn provider(vault: &FakeVault) -> VaultProvider {
    builder(vault).build().unwrap()
}

/// A provider whose proof is done, and a slot that it made.
pub(super) fn at_work(vault: &FakeVault) -> (VaultProvider, EncryptedDataKey, DataKey) {
    let provider = provider(vault);
    let generated = block_on(provider.generate_data_key(DataKeyLength::Bytes32, &context("acme"))).unwrap();
    (provider, generated.encrypted.into_iter().next().unwrap(), generated.key)
}

pub(super) fn opened(provider: &VaultProvider, slot: &EncryptedDataKey, context: &KmsContext) -> Result<DataKey> {
    match block_on(provider.decrypt_data_key(slot, context)) {
        DataKeyAnswer::Key(key) => Ok(key),
        DataKeyAnswer::Failed(error) => Err(error),
        DataKeyAnswer::NotMine => Err(Error::invalid_input("not mine")),
    }
}

pub(super) fn encrypted(provider: &VaultProvider) -> Result<Vec<EncryptedDataKey>> {
    let key = DataKey::from_slice(&[0x5A; 32]).unwrap();
    block_on(provider.encrypt_data_key(&key, &context("acme")))
}

/// The error of an encryption that is answered so.
pub(super) fn refused(status: u16, body: &str) -> Error {
    let vault = FakeVault::new();
    let (provider, ..) = at_work(&vault);
    vault.say(status, body);
    encrypted(&provider).unwrap_err()
}

/// The same of a decryption.
pub(super) fn not_decrypted(status: u16, body: &str) -> Error {
    let vault = FakeVault::new();
    let (provider, slot, _) = at_work(&vault);
    vault.say(status, body);
    opened(&provider, &slot, &context("acme")).unwrap_err()
}

#[track_caller]
pub(super) fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part:?}");
    }
}

#[test]
fn a_data_key_comes_back_under_its_own_context_alone() {
    let vault = FakeVault::new();
    let (provider, slot, key) = at_work(&vault);
    assert_eq!((slot.provider(), slot.key_id()), ("vault", &b"transit/orders"[..]));
    assert_eq!(VaultProvider::key_version(&slot), Some(1));
    assert_eq!(opened(&provider, &slot, &context("acme")).unwrap().expose(), key.expose());
    let error = opened(&provider, &slot, &context("other")).unwrap_err();
    says(&error, ErrorKind::AuthenticationFailed, &["transit/orders", "another encryption context"]);
}

#[test]
fn the_context_goes_out_as_associated_data_and_the_token_in_a_header() {
    let vault = FakeVault::new();
    let (_, slot, _) = at_work(&vault);
    let seen = vault.state().seen.clone();
    let paths: Vec<_> = seen.iter().map(|seen| seen.path.as_str()).collect();
    let (encrypt, decrypt) = ("/v1/transit/encrypt/orders", "/v1/transit/decrypt/orders");
    assert_eq!(paths, [encrypt, decrypt, decrypt, encrypt], "the proof costs three calls, once");
    let last = seen.last().unwrap();
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(context("acme").encoded());
    assert_eq!(last.body["associated_data"], encoded.as_str());
    assert!(last.body["context"].is_null());
    assert_ne!(last.body["plaintext"], seen[0].body["plaintext"], "the probe is no data key");
    assert_eq!(last.headers["X-Vault-Token"], TOKEN);
    assert!(last.headers["X-Vault-Token"].is_sensitive());
    assert_eq!(last.headers["X-Vault-Request"], "true");
    assert!(!last.headers.contains_key("X-Vault-Namespace"));
    assert!(slot.wrapped().starts_with(b"vault:v1:"));
}

#[test]
fn a_server_that_ignores_associated_data_is_refused_in_both_directions() {
    let vault = FakeVault::new();
    let (_, slot, _) = at_work(&vault);
    vault.state().binds = false;
    let error = encrypted(&provider(&vault)).unwrap_err();
    says(&error, ErrorKind::Unsupported, &["does not bind associated data", "Vault 1.13"]);
    let error = opened(&provider(&vault), &slot, &context("acme")).unwrap_err();
    says(&error, ErrorKind::Unsupported, &["does not bind associated data"]);
    let batch = block_on(provider(&vault).decrypt_data_keys(&[(&slot, &context("acme"))]));
    assert!(matches!(&batch[0], DataKeyAnswer::Failed(error) if error.kind() == ErrorKind::Unsupported));
    let trusting = builder(&vault).dangerous_without_binding_proof().build().unwrap();
    encrypted(&trusting).unwrap();
}

#[test]
fn a_server_that_says_it_ignored_a_parameter_is_refused() {
    let warning = r#"{"data":{"ciphertext":"vault:v1:AAAA"},"warnings":
        ["Endpoint ignored these unrecognized parameters: [associated_data]"]}"#;
    says(&refused(200, warning), ErrorKind::Unsupported, &["does not bind associated data"]);
}

#[test]
fn the_proof_is_given_once_and_costs_a_reader_one_call() {
    let vault = FakeVault::new();
    let (writer, slot, _) = at_work(&vault);
    encrypted(&writer).unwrap();
    assert_eq!((vault.count("encrypt"), vault.count("decrypt")), (3, 2));
    let reader = provider(&vault);
    for _ in 0..3 {
        opened(&reader, &slot, &context("acme")).unwrap();
    }
    assert_eq!((vault.count("encrypt"), vault.count("decrypt")), (3, 2 + 4));
}

#[test]
fn what_a_reader_saw_of_decrypting_proves_nothing_of_encrypting() {
    let vault = FakeVault::new();
    let (_, slot, key) = at_work(&vault);
    let ours = context("acme");
    let batch = |provider: &VaultProvider| block_on(provider.encrypt_data_keys(&[(&key, &ours)])).pop().unwrap();
    for encrypts in [&encrypted as &dyn Fn(&VaultProvider) -> Result<Vec<EncryptedDataKey>>, &batch] {
        let provider = provider(&vault);
        opened(&provider, &slot, &ours).unwrap();
        let calls = vault.count("encrypt");
        vault.state().forgets = true;
        says(&encrypts(&provider).unwrap_err(), ErrorKind::Unsupported, &["what it has just encrypted"]);
        assert_eq!(vault.count("encrypt"), calls + 1, "the probe");
        vault.state().forgets = false;
        encrypts(&provider).unwrap();
        encrypts(&provider).unwrap();
        assert_eq!(vault.count("encrypt"), calls + 4, "one more probe");
    }
}

#[test]
fn a_server_that_would_not_open_what_it_encrypts_gets_no_data_key() {
    let vault = FakeVault::new();
    vault.state().forgets = true;
    says(&encrypted(&provider(&vault)).unwrap_err(), ErrorKind::Unsupported, &["what it has just encrypted"]);
    assert_eq!(vault.count("encrypt"), 1, "the probe");
    for sentence in ["cipher: message authentication failed", "invalid ciphertext: could not decode"] {
        let vault = FakeVault::new();
        vault.state().opens_nothing = Some(sentence);
        says(&encrypted(&provider(&vault)).unwrap_err(), ErrorKind::Unsupported, &["what it has just encrypted"]);
        assert_eq!(vault.count("encrypt"), 1, "the probe");
    }
    // It must be another key that the probe decrypts to, too.
    let vault = FakeVault::new();
    vault.say(200, r#"{"data":{"ciphertext":"vault:v1:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1"}}"#);
    vault.say(200, r#"{"data":{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}"#);
    says(&encrypted(&provider(&vault)).unwrap_err(), ErrorKind::Unsupported, &["what it has just encrypted"]);
}

#[test]
fn only_a_failed_authentication_proves_that_the_server_binds() {
    let vault = FakeVault::new();
    let (_, slot, _) = at_work(&vault);
    let open_with_proof = |sentence: &str| {
        let reader = provider(&vault);
        let plaintext = r#"{"data":{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}"#;
        vault.say(200, plaintext);
        vault.say(400, &serde_json::json!({ "errors": [sentence] }).to_string());
        opened(&reader, &slot, &context("acme")).map(drop)
    };
    open_with_proof("cipher: message authentication failed").unwrap();
    for sentence in ["invalid ciphertext: no prefix", "could not decode ciphertext"] {
        says(&open_with_proof(sentence).unwrap_err(), ErrorKind::Unsupported, &["for the sake of the associated data"]);
    }
}

#[test]
fn caches_are_told_of_a_revoked_key_and_at_most_once_in_ten_seconds() {
    let vault = FakeVault::new();
    let (provider, slot, _) = at_work(&vault);
    let revocations = provider.revocations().unwrap();
    let told = |wanted: u64, what: &str| assert_eq!(revocations.epoch(), wanted, "{what}");
    told(0, "all is well");
    for sentence in ["something new", "invalid ciphertext: version is too new", "cipher: message authentication failed"]
    {
        vault.say(400, &serde_json::json!({ "errors": [sentence] }).to_string());
        opened(&provider, &slot, &context("acme")).unwrap_err();
        told(0, sentence);
    }
    vault.say(503, r#"{"errors":["Vault is sealed"]}"#);
    encrypted(&provider).unwrap_err();
    told(0, "an outage");
    for _ in 0..50 {
        vault.say(400, r#"{"errors":["encryption key not found"]}"#);
        encrypted(&provider).unwrap_err();
    }
    told(1, "a key that is gone");
    vault.clock.advance(10);
    vault.state().min_decryption_version = 2;
    opened(&provider, &slot, &context("acme")).unwrap_err();
    told(2, "a version that was shut out");
    vault.clock.advance(10);
    block_on(provider.decrypt_data_keys(&[(&slot, &context("acme"))]));
    told(3, "the same in a batch");
    vault.clock.advance(10);
    vault.state().forbidden = vec!["encrypt"];
    encrypted(&provider).unwrap_err();
    told(4, "a policy that was taken away");
    vault.clock.advance(10);
    vault.state().tokens.clear();
    encrypted(&provider).unwrap_err();
    told(5, "a token that was revoked");
}

#[test]
fn a_redirect_is_asked_for_once() {
    let vault = FakeVault::new();
    let provider = builder(&vault).policy(HttpPolicy::default().attempts(4)).build().unwrap();
    vault.say(307, "");
    says(&encrypted(&provider).unwrap_err(), ErrorKind::Unavailable, &["not followed"]);
    assert_eq!(vault.state().seen.len(), 1);
}

#[test]
fn a_failure_to_decrypt_shows_no_word_of_the_server() {
    for status in [400, 429, 500, 503] {
        let error = not_decrypted(status, r#"{"errors":["plaintext was cGxhbnRlZA=="]}"#);
        assert!(!format!("{error:?}").contains("cGxhbnRlZA"), "{error:?}");
    }
    let vault = FakeVault::new();
    let provider =
        builder(&vault).policy(HttpPolicy::default().attempts(1).breaker(1, std::time::Duration::from_secs(60)));
    let provider = provider.build().unwrap();
    vault.say(500, r#"{"errors":["the request of tenant acme"]}"#);
    encrypted(&provider).unwrap_err();
    let held_back = encrypted(&provider).unwrap_err();
    assert_eq!(vault.state().seen.len(), 1, "the breaker is open");
    assert!(!format!("{held_back:?}").contains("acme"), "{held_back:?}");
}

#[test]
fn a_writer_that_may_not_decrypt_is_told_what_the_proof_needs() {
    let vault = FakeVault::new();
    vault.state().forbidden = vec!["decrypt"];
    let error = encrypted(&provider(&vault)).unwrap_err();
    says(&error, ErrorKind::KeyDenied, &["`update` on transit/decrypt/orders", "dangerous_without_binding_proof"]);
    encrypted(&builder(&vault).dangerous_without_binding_proof().build().unwrap()).unwrap();
}

#[test]
fn a_mount_of_another_engine_gets_a_probe_and_no_data_key() {
    let vault = FakeVault::new();
    vault.say(204, "");
    let error = encrypted(&provider(&vault)).unwrap_err();
    says(&error, ErrorKind::InvalidInput, &["not a Transit engine", "bao secrets list"]);
    assert_eq!(vault.state().seen.len(), 1);
}

#[test]
fn slots_of_others_are_not_mine_and_make_no_call() {
    let vault = FakeVault::new();
    let provider = provider(&vault);
    let wrapped = "vault:v1:AAAA";
    for slot in [
        EncryptedDataKey::new("aws-kms", "transit/orders", wrapped),
        EncryptedDataKey::new("vault", "transit/other", wrapped),
        EncryptedDataKey::new("vault", "orders", wrapped),
    ] {
        let answer = block_on(provider.decrypt_data_key(&slot, &context("acme")));
        assert!(matches!(answer, DataKeyAnswer::NotMine));
        let answer = block_on(provider.decrypt_data_keys(&[(&slot, &context("acme"))]));
        assert!(matches!(answer[0], DataKeyAnswer::NotMine));
    }
    let mine = EncryptedDataKey::new("vault", "transit/orders", wrapped);
    let error = opened(&provider, &mine, &context("acme")).unwrap_err();
    says(&error, ErrorKind::AuthenticationFailed, &["does not open"]);
    assert_eq!(vault.state().seen.len(), 0, "a text that Transit does not write is not sent");
}

#[test]
fn a_wrapped_key_of_a_version_below_the_least_says_so() {
    let vault = FakeVault::new();
    let (provider, slot, _) = at_work(&vault);
    vault.state().version = 3;
    vault.state().min_decryption_version = 3;
    let error = opened(&provider, &slot, &context("acme")).unwrap_err();
    says(&error, ErrorKind::KeyState, &["version 1", "transit/orders", "min_decryption_version"]);
    let batch = block_on(provider.decrypt_data_keys(&[(&slot, &context("acme"))]));
    assert!(matches!(&batch[0], DataKeyAnswer::Failed(error) if error.to_string().contains("version 1")));
}

#[test]
fn each_refusal_of_the_server_has_its_own_kind_and_sentence() {
    use ErrorKind::{AuthenticationFailed, InvalidInput, KeyDenied, KeyState, NoMatchingKey, Unavailable, Unsupported};
    let cases: &[(u16, &str, ErrorKind, &str)] = &[
        (503, r#"{"errors":["Vault is sealed"]}"#, Unavailable, "is sealed"),
        (
            429,
            r#"{"errors":["request path \"transit\": rate limit quota exceeded"]}"#,
            Unavailable,
            "too many requests",
        ),
        (403, "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}", KeyDenied, "no policy"),
        (400, r#"{"errors":["encryption key not found"]}"#, NoMatchingKey, "has no key transit/orders"),
        (404, r#"{"errors":["no handler for route \"transit/x\". route entry not found."]}"#, InvalidInput, "mounted"),
        (404, r#"{"errors":["namespace not found"]}"#, InvalidInput, "has no namespace"),
        (
            405,
            "{\"errors\":[\"1 error occurred:\\n\\t* unsupported operation\\n\\n\"]}",
            InvalidInput,
            "Transit engine",
        ),
        (400, r#"{"errors":["missing 'context' for key derivation; …"]}"#, InvalidInput, "derived_key()"),
        (
            400,
            r#"{"errors":["'[0].associated_data' provided for non-AEAD cipher suite rsa-2048"]}"#,
            Unsupported,
            "type",
        ),
        (
            400,
            r#"{"errors":["refused JSON input due to high complexity"]}"#,
            ErrorKind::LimitExceeded,
            "max_request_json",
        ),
        (400, r#"{"errors":["something new"]}"#, InvalidInput, "refused the request for transit/orders"),
        (400, r#"{"errors":["path disabled in replication DR secondary mode"]}"#, Unavailable, "standby"),
        (307, "", Unavailable, "not followed"),
        (473, "", Unavailable, "standby"),
        (412, r#"{"errors":["required index state not present"]}"#, Unavailable, "caught up"),
        (413, "too large", ErrorKind::LimitExceeded, "max_request_size"),
        (501, r#"{"errors":["Vault is not initialized"]}"#, Unavailable, "not initialised"),
        (500, r#"{"errors":["internal error"]}"#, Unavailable, "status 500"),
        (502, "<html>bad gateway</html>", Unavailable, "status 502"),
        (418, "{}", Unavailable, "status 418"),
        (400, "<html>", Unavailable, "something else answers"),
        (200, "<html>", Unavailable, "something else answers"),
        (200, r#"{"data":{"ciphertext":"vault:v1:AA"#, Unavailable, "something else answers"),
        (200, r#"{"data":null}"#, InvalidInput, "not a Transit engine"),
        (200, r#"{"data":{"ciphertext":"vault:v1:AAAA"}}"#, ErrorKind::Malformed, "Transit does not write"),
        (200, r#"{"data":{"ciphertext":"a","ciphertext":"b"}}"#, Unavailable, "no answer of Vault"),
    ];
    for (status, body, kind, sentence) in cases {
        says(&refused(*status, body), *kind, &[sentence, "https://vault.example.com:8200"]);
    }
    let cases: &[(u16, &str, ErrorKind, &str)] = &[
        (400, r#"{"errors":["cipher: message authentication failed"]}"#, AuthenticationFailed, "does not open"),
        (400, r#"{"errors":["invalid ciphertext length"]}"#, AuthenticationFailed, "does not open"),
        (
            400,
            r#"{"errors":["invalid ciphertext: version is too new"]}"#,
            KeyState,
            "has no version 1 of transit/orders",
        ),
        (200, r#"{"data":{"plaintext":"AAAA"}}"#, AuthenticationFailed, "no data key"),
        (200, r#"{"data":{"plaintext":"not base64"}}"#, AuthenticationFailed, "no data key"),
        (200, r#"{"data":{"plaintext":"\u0041AAA"}}"#, Unavailable, "no answer of Vault"),
        (200, r#"{"data":{"plaintext":7}}"#, Unavailable, "no answer of Vault"),
    ];
    for (status, body, kind, sentence) in cases {
        says(&not_decrypted(*status, body), *kind, &[sentence, "https://vault.example.com:8200"]);
    }
}

#[test]
fn what_a_server_says_is_bounded_and_escaped_and_repeats_no_secret() {
    let long = "x".repeat(10_000);
    let error = refused(400, &serde_json::json!({ "errors": [long, "\u{1b}[31m\u{202e}red"] }).to_string());
    assert!(error.to_string().len() < 600, "{error}");
    let error = refused(400, &serde_json::json!({ "errors": ["\u{1b}[31m\u{202e}red"] }).to_string());
    assert!(!error.to_string().contains(['\u{1b}', '\u{202e}']), "{error}");
    use base64::Engine;
    let plaintext = base64::engine::general_purpose::STANDARD.encode([0x5A; 32]);
    for secret in [TOKEN, plaintext.as_str()] {
        for status in [400, 429, 500] {
            let error = refused(status, &serde_json::json!({ "errors": [format!("bad: {secret}!")] }).to_string());
            assert!(!format!("{error:?}").contains(secret));
        }
        let (one, two) = secret.split_at(6);
        for sentences in [vec![format!("bad: {secret}!")], vec![one.into(), two.into()], vec![format!("{one} {two}")]] {
            let error = refused(400, &serde_json::json!({ "errors": sentences }).to_string());
            says(&error, ErrorKind::InvalidInput, &["refused the request"]);
            assert!(!format!("{error:?}").contains(two));
        }
    }
}

#[test]
fn a_batch_answers_each_member_by_itself() {
    let vault = FakeVault::new();
    let (provider, slot, key) = at_work(&vault);
    let (ours, theirs) = (context("acme"), context("other"));
    let foreign = EncryptedDataKey::new("raw", "k", "x");
    let torn = EncryptedDataKey::new("vault", "transit/orders", "vault:v1:AAAA");
    let calls = vault.count("decrypt");
    let slots = [(&slot, &ours), (&foreign, &ours), (&slot, &theirs), (&torn, &ours), (&slot, &ours)];
    let answers = block_on(provider.decrypt_data_keys(&slots));
    assert_eq!(vault.count("decrypt"), calls + 1);
    let [one, two, three, four, five] = &answers[..] else { panic!("{answers:?}") };
    for same in [one, five] {
        assert!(matches!(same, DataKeyAnswer::Key(opened) if opened.expose() == key.expose()));
    }
    assert!(matches!(two, DataKeyAnswer::NotMine));
    for failed in [three, four] {
        assert!(matches!(failed, DataKeyAnswer::Failed(e) if e.kind() == ErrorKind::AuthenticationFailed));
    }
    let calls = vault.count("encrypt");
    let keys: Vec<_> = (0..1_200).map(|_| (&key, &ours)).collect();
    let answers = block_on(provider.encrypt_data_keys(&keys));
    assert_eq!((answers.len(), vault.count("encrypt")), (1_200, calls + 5));
    for answer in answers {
        let slot = answer.unwrap().pop().unwrap();
        assert_eq!(opened(&provider, &slot, &ours).unwrap().expose(), key.expose());
    }
    assert!(block_on(provider.encrypt_data_keys(&[])).is_empty());
    assert!(block_on(provider.decrypt_data_keys(&[])).is_empty());
}

#[test]
fn a_batch_that_fails_whole_or_has_another_length_fails_each_member() {
    let vault = FakeVault::new();
    let (provider, slot, key) = at_work(&vault);
    let ours = context("acme");
    vault.say(503, r#"{"errors":["Vault is sealed"]}"#);
    for answer in block_on(provider.decrypt_data_keys(&[(&slot, &ours), (&slot, &ours)])) {
        assert!(matches!(answer, DataKeyAnswer::Failed(e) if e.kind() == ErrorKind::Unavailable));
    }
    vault.say(200, r#"{"data":{"batch_results":[]}}"#);
    for answer in block_on(provider.encrypt_data_keys(&[(&key, &ours)])) {
        says(&answer.unwrap_err(), ErrorKind::InvalidInput, &["batch_results of the batch's length"]);
    }
}

#[test]
fn a_derived_key_gets_the_context_for_its_derivation_too() {
    let vault = FakeVault::new();
    vault.state().derived = true;
    says(&encrypted(&provider(&vault)).unwrap_err(), ErrorKind::InvalidInput, &["derived_key()"]);
    let provider = builder(&vault).derived_key().build().unwrap();
    let slot = encrypted(&provider).unwrap().pop().unwrap();
    opened(&provider, &slot, &context("acme")).unwrap();
    assert!(opened(&provider, &slot, &context("other")).is_err());
    let seen = vault.state().seen.clone();
    assert!(seen.iter().skip(1).all(|seen| seen.body["context"].is_string()));
}

#[test]
fn the_check_tells_who_what_and_whether_the_key_serves() {
    let vault = FakeVault::new();
    let found = block_on(provider(&vault).check()).unwrap();
    assert_eq!(found.identity.as_deref(), Some("approle"));
    assert_eq!(found.token_left, Some(std::time::Duration::from_secs(42)));
    assert_eq!(found.key.unwrap().key_type, "aes256-gcm96");
    vault.say(200, r#"{"data":{"display_name":"a","policies":["\u001b[31mred"]}}"#);
    let found = block_on(provider(&vault).check()).unwrap();
    assert_eq!(found.policies.unwrap(), ["\\u{1b}[31mred"]);
    vault.state().forbidden = vec!["keys", "lookup-self"];
    let found = block_on(provider(&vault).check()).unwrap();
    assert_eq!((found.identity, found.key), (None, None));
    vault.state().forbidden = Vec::new();
    for key_type in ["rsa-4096", "aes128-gcm96", "hmac"] {
        vault.state().key_type = key_type;
        let error = block_on(provider(&vault).check()).unwrap_err();
        says(&error, ErrorKind::Unsupported, &[key_type, "aes256-gcm96"]);
    }
    vault.state().key_type = "xchacha20-poly1305";
    vault.state().derived = true;
    says(&block_on(provider(&vault).check()).unwrap_err(), ErrorKind::InvalidInput, &["derived_key()"]);
}

#[test]
fn names_that_would_change_a_url_are_refused() {
    let vault = FakeVault::new();
    let build =
        |change: fn(VaultBuilder) -> VaultBuilder| change(builder(&vault)).build().map(|it| it.0.key_id.clone());
    for key in ["", "a/b", "a b", "../x", ".a", "a-", "a?b", "ä", "a%2e"] {
        let error = VaultProvider::builder(key).address("https://a").auth(VaultAuth::token("t")).build().unwrap_err();
        says(&error, ErrorKind::InvalidInput, &["is no name of a Transit key"]);
    }
    assert_eq!(build(|it| it.mount("/kms/eu.1/")).unwrap(), "kms/eu.1/orders");
    assert!(build(|it| it.mount("a/../b")).is_err());
    assert!(build(|it| it.namespace("a\nb")).is_err());
    assert!(build(|it| it.auth(VaultAuth::kubernetes("r").mount("a?b"))).is_err());
    assert!(build(|it| it.auth(VaultAuth::token("two words"))).is_err());
    assert!(build(|it| it.auth(VaultAuth::token(""))).is_err());
    assert!(build(|it| it.address("http://vault.example.com")).is_err());
    assert!(build(|it| it.address("http://vault.example.com").dangerous_plain_http()).is_ok());
    assert!(build(|it| it.address("https://user:secret@vault")).is_err());
}

#[test]
fn providers_share_cached_keys_only_under_a_public_name() {
    let vault = FakeVault::new();
    let identity = |auth, namespace: &str| builder(&vault).namespace(namespace).auth(auth).build().unwrap().identity();
    assert_eq!(identity(VaultAuth::token("a"), "x"), None);
    let role = |id: &str| VaultAuth::app_role(id, "planted");
    let one = identity(role("r"), "x").unwrap();
    assert_eq!(identity(role("r"), "/x/").unwrap(), one);
    assert_ne!(identity(role("s"), "x").unwrap(), one);
    assert_ne!(identity(role("r"), "y").unwrap(), one);
    assert!(!one.as_str().contains("planted"));
    assert_ne!(identity(VaultAuth::app_role("r", "another"), "x").unwrap(), one, "it may be a wrong one");
    let trusting = builder(&vault).namespace("x").auth(role("r")).dangerous_without_binding_proof().build().unwrap();
    assert_ne!(trusting.identity().unwrap(), one);
    let provider = builder(&vault).auth(VaultAuth::token("planted")).build().unwrap();
    assert!(!format!("{provider:?}").contains("planted"));
}

#[test]
fn hostile_bodies_are_errors_and_no_panics() {
    let deep = "[".repeat(100_000);
    let bodies = [
        "",
        "null",
        "[]",
        "{}",
        "\"x\"",
        "{\"data\":[]}",
        "{\"data\":{\"batch_results\":[null]}}",
        "{\"errors\":7}",
        &deep,
    ];
    for body in bodies {
        answer::read_every_way(body.as_bytes());
        refused(200, body);
        refused(400, body);
    }
    refused(200, &" ".repeat(2 << 20));
}

#[test]
fn the_suite_of_all_providers_holds() {
    let suite = |derived: bool| {
        let (vault, other) = (FakeVault::new(), FakeVault::new());
        vault.state().derived = derived;
        let build = |vault: &FakeVault| if derived { builder(vault).derived_key() } else { builder(vault) };
        let (ours, theirs) = (build(&vault).build().unwrap(), build(&other).mount("other").build());
        // The stranger is another key; the fake knows one mount.
        let report = block_on(crate::provider::conformance::check(&ours, &theirs.unwrap())).unwrap();
        assert!(!report.re_encrypts);
        assert!(report.checks >= 10);
    };
    suite(false);
    suite(true);
}
