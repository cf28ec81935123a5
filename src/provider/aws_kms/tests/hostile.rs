//! Answers that are none.

use super::fake::Fake;
use super::{KEY, context, on, wait};
use crate::error::ErrorKind;
use crate::material::DataKeyLength;
use crate::provider::KeyProvider;
use crate::provider::aws_kms::arn::KeyArn;
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

/// A small generator of numbers, the same in every run.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn an_answer_with_random_damage_is_read_or_refused_and_never_trusted() {
    let key = KeyArn::parse(KEY).unwrap();
    let whole = whole().into_bytes();
    let pieces: [&[u8]; 8] = [b"\"", b"{", b"}", b"\\u0041", b"null", b"1e9", b"[[", b"\xF0\x9F"];
    let (mut state, mut read) = (7, 0);
    for _ in 0..50_000 {
        let mut text = whole.clone();
        for _ in 0..=next(&mut state) % 3 {
            let at = next(&mut state) % text.len();
            match next(&mut state) % 4 {
                0 => text[at] = u8::try_from(next(&mut state) % 256).unwrap(),
                1 => drop(text.splice(at..at, pieces[next(&mut state) % pieces.len()].iter().copied())),
                2 => drop(text.drain(at..(at + next(&mut state) % 9).min(text.len()))),
                _ => text.truncate(at + 1),
            }
            if text.is_empty() {
                text.push(b'{');
            }
        }
        let Ok(mut answer) = Answer::parse(&text) else { continue };
        let (data_key, blob) = (answer.data_key(&key, Some(DataKeyLength::Bytes32)), answer.blob(&key));
        if data_key.is_ok() || blob.is_ok() {
            read += 1;
            assert!(data_key.map_or(true, |key| key.expose().len() == 32));
            assert!(blob.map_or(true, |blob| !blob.is_empty()));
            // Spelt out, or with an escape that was put in and stands for a letter of it.
            let names = text.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            let names = names || text.windows(6).any(|part| part == b"\\u0041");
            assert!(names, "{}", String::from_utf8_lossy(&text));
        }
    }
    assert!(read > 1_000, "{read} of the damaged answers still said what was asked");
}
