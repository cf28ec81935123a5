//! Answers that are none.

use super::fake::Fake;
use super::{KEY, context, on, wait};
use crate::error::ErrorKind;
use crate::material::DataKeyLength;
use crate::provider::KeyProvider;
use crate::provider::aws_kms::wire::{Answer, Flaw};

/// A whole answer, to be spoilt.
fn whole() -> String {
    format!(
        "{{\"KeyId\":\"{KEY}\",\"Plaintext\":\"{}\",\"CiphertextBlob\":\"AQID\",\"More\":{{\"a\":[1,null]}}}}",
        "A".repeat(43) + "="
    )
}

#[test]
fn every_truncation_of_an_answer_is_garbage() {
    let whole = whole();
    assert!(Answer::parse(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert_eq!(Answer::parse(&whole.as_bytes()[..end]).map(drop), Err(Flaw::Garbage), "{end}");
    }
}

#[test]
fn hostile_json_is_an_error_without_a_panic() {
    let deep = "[".repeat(100_000);
    let long = format!("{{\"KeyId\":\"{}\"}}", "x".repeat(200_000));
    let spoilt = [
        "",
        " ",
        "null",
        "[]",
        "7",
        "\"x\"",
        "{",
        "}",
        "{}x",
        "{\"KeyId\":7}",
        "{\"KeyId\":[\"x\"]}",
        "{\"Plaintext\":{}}",
        "{\"Plaintext\":\"A\"}",
        "{\"Plaintext\":\"!!!!\"}",
        "{\"Plaintext\":\"AQI\"}",
        "{\"Plaintext\":true}",
        "{\"CiphertextBlob\":\"AQI=A\"}",
        "{\"CiphertextBlob\":1e400}",
        "{\"KeyId\":\"a\",\"KeyId\":\"b\"}",
        "{\"Plaintext\":\"AQID\",\"Plaintext\":\"AQID\"}",
        "{\"KeyMetadata\":\"x\"}",
        "{\"KeyMetadata\":{\"Arn\":1}}",
        "{\"X\":-}",
        "{\"KeyId\":\"\\ud800\"}",
        "\u{feff}{}",
        "<html></html>",
        "{'KeyId':'x'}",
        deep.as_str(),
    ];
    for text in spoilt {
        let shown: String = text.chars().take(40).collect();
        assert_eq!(Answer::parse(text.as_bytes()).map(drop), Err(Flaw::Garbage), "{shown}");
    }
    assert_eq!(Answer::parse(&[0xFF; 64]).map(drop), Err(Flaw::Garbage));
    // What is whole and says nothing, or too much, is judged when it is read.
    for text in
        ["{}", long.as_str(), "{\"X\":1e999999}", "{\"N\":123456789012345678901234567890}", "{\"Plaintext\":null}"]
    {
        assert!(Answer::parse(text.as_bytes()).is_ok());
    }
}

#[test]
fn garbage_is_the_endpoints_fault_and_worth_another_try() {
    let whole = whole();
    for text in ["<html>captive portal</html>", &whole[..whole.len() / 2], ""] {
        let fake = Fake::new();
        let provider = on(&fake, [KEY]).build().unwrap();
        fake.answers(200, &[("content-type", "text/html")], text.to_owned());
        let error = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!error.to_string().contains("portal"), "{error}");
    }
}

#[test]
fn an_answer_is_taken_whatever_its_content_type_and_its_escapes() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).build().unwrap();
    let escaped = whole().replace("=\"", "\\u003d\"").replace("key/", "key\\/");
    fake.answers(200, &[("content-type", "text/html")], escaped);
    let made = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    assert_eq!(made.key.expose(), [0; 32]);
    assert_eq!(made.encrypted[0].wrapped(), [1, 2, 3]);
}
