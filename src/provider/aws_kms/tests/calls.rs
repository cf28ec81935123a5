//! What is sent, and what becomes of an answer.

use super::fake::Fake;
use super::{AwsCredentials, KEY, OTHER, context, on, wait};
use crate::error::ErrorKind;
use crate::material::{DataKey, DataKeyLength};
use crate::provider::{DataKeyAnswer, KeyProvider};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use reqsign_core::hash::hex_sha256;
use serde_json::{Value, json};

fn body(request: &http::Request<bytes::Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap()
}

#[test]
fn a_request_has_the_form_that_aws_asks_for_and_a_signature_over_its_body() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).grant_tokens(["token-1"]).build().unwrap();
    wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    let sent = fake.sent();
    let [request] = sent.as_slice() else { panic!("one request, not {}", sent.len()) };
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().to_string(), "https://kms.eu-central-1.amazonaws.com/");
    let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("x-amz-target"), "TrentService.GenerateDataKey");
    assert_eq!(header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(header("x-amz-content-sha256"), hex_sha256(request.body()));
    let authorization = header("authorization");
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(authorization.contains("/eu-central-1/kms/aws4_request"), "{authorization}");
    let signed = "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-target,";
    assert!(authorization.contains(signed), "{authorization}");
    assert!(request.headers().get("authorization").unwrap().is_sensitive());
    assert_eq!(
        body(request),
        json!({
            "KeyId": KEY,
            "NumberOfBytes": 32,
            "EncryptionContext": {"object": "a \"quoted\" ключ", "tenant": "acme"},
            "GrantTokens": ["token-1"],
        })
    );
}

#[test]
fn each_operation_says_what_it_is_about() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).also_opens([OTHER]).build().unwrap();
    let old = on(&fake, [OTHER]).build().unwrap();
    let key = DataKey::from_slice(&[7; 32]).unwrap();
    let pairs = json!({"object": "a \"quoted\" ключ", "tenant": "acme"});

    let slot = wait(old.encrypt_data_key(&key, &context())).unwrap().remove(0);
    assert_eq!((slot.provider(), slot.key_id()), ("aws-kms", OTHER.as_bytes()));
    let blob = STANDARD.encode(slot.wrapped());
    let request = fake.sent().remove(0);
    assert_eq!(
        body(&request),
        json!({"KeyId": OTHER, "EncryptionContext": pairs, "Plaintext": STANDARD.encode([7; 32])})
    );

    let opened = wait(provider.decrypt_data_key(&slot, &context()));
    assert!(matches!(opened, DataKeyAnswer::Key(opened) if opened.expose() == key.expose()));
    let request = fake.sent().remove(0);
    assert_eq!(body(&request), json!({"KeyId": OTHER, "CiphertextBlob": blob, "EncryptionContext": pairs}));

    let moved = wait(provider.re_encrypt_data_key(&slot, &context())).unwrap().unwrap().remove(0);
    assert_eq!(moved.key_id(), KEY.as_bytes());
    let request = fake.sent().remove(0);
    assert_eq!(
        body(&request),
        json!({
            "SourceKeyId": OTHER,
            "DestinationKeyId": KEY,
            "CiphertextBlob": blob,
            "SourceEncryptionContext": pairs,
            "DestinationEncryptionContext": pairs,
        })
    );
    assert!(matches!(wait(provider.decrypt_data_key(&moved, &context())), DataKeyAnswer::Key(_)));
}

#[test]
fn a_temporary_access_key_sends_its_token_and_signs_it() {
    let fake = Fake::new();
    let credentials = AwsCredentials::new("ASIAEXAMPLE", "secret").session_token("the-token");
    let provider = on(&fake, [KEY]).credentials(credentials).build().unwrap();
    wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    let request = fake.sent().remove(0);
    let token = request.headers().get("x-amz-security-token").unwrap();
    assert!(token == "the-token" && token.is_sensitive());
    let authorization = request.headers().get("authorization").unwrap().to_str().unwrap();
    assert!(authorization.contains("x-amz-date;x-amz-security-token;x-amz-target"), "{authorization}");
    assert!(!format!("{request:?}").contains("the-token"), "no header of it is printed");
}

#[test]
fn a_data_key_has_the_length_that_was_asked_for() {
    for length in [DataKeyLength::Bytes16, DataKeyLength::Bytes24, DataKeyLength::Bytes32] {
        let provider = on(&Fake::new(), [KEY]).build().unwrap();
        let made = wait(provider.generate_data_key(length, &context())).unwrap();
        assert_eq!(made.key.expose().len(), length.bytes());
        let opened = wait(provider.decrypt_data_key(&made.encrypted[0], &context()));
        assert!(matches!(opened, DataKeyAnswer::Key(key) if key.expose() == made.key.expose()));
    }
}

fn encoded(length: usize) -> String {
    STANDARD.encode(vec![0x41; length])
}

#[test]
fn an_answer_to_something_else_is_refused_and_not_asked_for_again() {
    let lies = [
        ("it is of another key", json!({"KeyId": OTHER, "Plaintext": encoded(32), "CiphertextBlob": encoded(60)})),
        (
            "it is of another key",
            json!({"KeyId": "alias/app", "Plaintext": encoded(32), "CiphertextBlob": encoded(60)}),
        ),
        ("it names no key", json!({"Plaintext": encoded(32), "CiphertextBlob": encoded(60)})),
        ("another length", json!({"KeyId": KEY, "Plaintext": encoded(16), "CiphertextBlob": encoded(60)})),
        ("another length", json!({"KeyId": KEY, "Plaintext": encoded(33), "CiphertextBlob": encoded(60)})),
        ("another length", json!({"KeyId": KEY, "Plaintext": "", "CiphertextBlob": encoded(60)})),
        ("another length", json!({"KeyId": KEY, "Plaintext": encoded(9_000), "CiphertextBlob": encoded(60)})),
        ("no data key", json!({"KeyId": KEY, "CiphertextBlob": encoded(60)})),
        ("no encrypted data key", json!({"KeyId": KEY, "Plaintext": encoded(32)})),
        ("no or too many bytes", json!({"KeyId": KEY, "Plaintext": encoded(32), "CiphertextBlob": ""})),
        ("no or too many bytes", json!({"KeyId": KEY, "Plaintext": encoded(32), "CiphertextBlob": encoded(6_145)})),
    ];
    for (what, answer) in lies {
        let fake = Fake::new();
        let provider = on(&fake, [KEY]).policy(crate::provider::http::policy::HttpPolicy::default()).build().unwrap();
        fake.answers(200, &[], answer.to_string());
        let error = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(fake.sent().len(), 1, "{what}");
    }
}

#[test]
fn a_lie_about_decryption_or_re_encryption_is_refused() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).also_opens([OTHER]).build().unwrap();
    let slot = wait(provider.encrypt_data_key(&DataKey::from_slice(&[1; 32]).unwrap(), &context())).unwrap().remove(0);
    for answer in [
        json!({"KeyId": OTHER, "Plaintext": encoded(32)}),
        json!({"KeyId": KEY, "Plaintext": encoded(31)}),
        json!({"KeyId": KEY}),
    ] {
        fake.answers(200, &[], answer.to_string());
        let answer = wait(provider.decrypt_data_key(&slot, &context()));
        assert!(matches!(answer, DataKeyAnswer::Failed(e) if e.kind() == ErrorKind::AuthenticationFailed));
    }
    for answer in [
        json!({"KeyId": OTHER, "SourceKeyId": KEY, "CiphertextBlob": encoded(60)}),
        json!({"KeyId": KEY, "SourceKeyId": OTHER, "CiphertextBlob": encoded(60)}),
        json!({"KeyId": KEY, "SourceKeyId": KEY, "CiphertextBlob": ""}),
        json!({"KeyId": KEY, "CiphertextBlob": encoded(60)}),
    ] {
        fake.answers(200, &[], answer.to_string());
        let error = wait(provider.re_encrypt_data_key(&slot, &context())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
    }
}

#[test]
fn a_key_that_nobody_may_use_moves_the_epoch_of_caches_and_one_callers_refusal_does_not() {
    for (code, message, status, moves) in [
        ("DisabledException", "", 409, true),
        ("KMSInvalidStateException", "it is pending deletion", 409, true),
        ("NotFoundException", "", 404, true),
        ("KMSInvalidStateException", "it is Creating", 409, false),
        ("AccessDeniedException", "", 400, false),
        ("KMSInternalException", "", 500, false),
        ("ThrottlingException", "", 400, false),
        ("InvalidCiphertextException", "", 400, false),
    ] {
        let fake = Fake::new();
        let provider = on(&fake, [KEY]).also_opens([OTHER]).build().unwrap();
        let revocations = provider.revocations().unwrap();
        let before = revocations.epoch();
        // Fewer than open the breaker.
        for _ in 0..8 {
            fake.answers(status, &[("x-amzn-errortype", code)], format!("{{\"message\":\"{message}\"}}"));
            wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap_err();
        }
        assert_eq!(revocations.epoch() - before, u64::from(moves), "{code} {message}: once, however often it comes");
        // Another key is other news.
        fake.answers(409, &[("x-amzn-errortype", "DisabledException")], "{}");
        let slot = crate::material::EncryptedDataKey::new("aws-kms", OTHER, vec![1; 60]);
        assert!(matches!(wait(provider.decrypt_data_key(&slot, &context())), DataKeyAnswer::Failed(_)));
        assert_eq!(revocations.epoch() - before, u64::from(moves) + 1, "{code}");
    }
}

#[test]
fn a_wrapped_key_longer_than_any_of_awss_is_not_sent() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).build().unwrap();
    let slot = crate::material::EncryptedDataKey::new("aws-kms", KEY, vec![1; 7_000]);
    let answer = wait(provider.decrypt_data_key(&slot, &context()));
    assert!(matches!(answer, DataKeyAnswer::Failed(e) if e.kind() == ErrorKind::AuthenticationFailed));
    let error = wait(provider.re_encrypt_data_key(&slot, &context())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    assert_eq!(fake.sent().len(), 0);
}
