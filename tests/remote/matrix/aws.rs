//! AWS KMS under every fault.

use super::places::{Fault, Place, Script, script};
use super::{Expected, GOOD, LOST, Row, Subject, arc, fails, policy};
use crate::support::faults::{Reply, operation};
use crate::support::http::Message;
use crate::support::leaks::Planted;
use crate::support::proxy::Way;
use crate::support::transport::Counting;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelock::{
    AwsCredentials, AwsKmsProvider, DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Error,
    ErrorKind, KeyProvider, KmsContext,
};
use serde_json::{Value, json};
use std::time::Duration;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: &str = "arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321";
const FOREIGN: &str = "arn:aws:kms:us-east-1:444455556666:key/9999abcd-12ab-34cd-56ef-1234567890ab";
const BLOB: &[u8] = b"a wrapped data key, which only the KMS can open";
const DATA_KEY: [u8; 32] = *b"THIS-DATA-KEY-MUST-NOT-BE-SHOWN!";
const SECRET: &str = "wJalrXUtnFEMI/PLANTED/SECRETACCESSKEY";
const TOKEN: &str = "IQoJb3JpZ2luX2PLANTED-SESSION-TOKEN-of-some-length//////////";

pub(super) struct Kms {
    planted: Planted,
}

impl Kms {
    pub(super) fn new() -> Self {
        let planted =
            Planted::default().bytes("data key", &DATA_KEY).text("secret key", SECRET).text("session token", TOKEN);
        Self { planted }
    }
}

const GENERATE: usize = 0;
const DECRYPT: usize = 2;

#[async_trait]
impl Subject for Kms {
    fn operations(&self) -> &'static [&'static str] {
        &["GenerateDataKey", "Encrypt", "Decrypt", "ReEncrypt"]
    }

    async fn call(&self, operation: usize, place: &Place, transport: Counting) -> Result<bool, Error> {
        let provider = AwsKmsProvider::strict([KEY])
            .endpoint(place.url.as_str())
            .credentials(AwsCredentials::new("AKIAPLANTED000000000", SECRET).session_token(TOKEN))
            .environment([("PATH", "")])
            .policy(policy())
            .transport(arc(transport))
            .build()?;
        self.planted.assert_not_in(format!("{provider:?} {provider:#?}"), "the provider");
        let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")]))?;
        let slot = EncryptedDataKey::new("aws-kms", KEY, BLOB);
        let is_slot = |slots: &[EncryptedDataKey]| {
            slots.len() == 1 && slots[0].wrapped() == BLOB && slots[0].key_id() == KEY.as_bytes()
        };
        match operation {
            GENERATE => {
                let made = provider.generate_data_key(DataKeyLength::Bytes32, &context).await?;
                Ok(made.key.expose() == DATA_KEY && is_slot(&made.encrypted))
            }
            1 => Ok(is_slot(&provider.encrypt_data_key(&DataKey::from_slice(&DATA_KEY)?, &context).await?)),
            DECRYPT => match provider.decrypt_data_key(&slot, &context).await {
                DataKeyAnswer::Key(key) => Ok(DATA_KEY.starts_with(key.expose())),
                DataKeyAnswer::Failed(error) => Err(error),
                DataKeyAnswer::NotMine => Ok(false),
            },
            _ => Ok(provider.re_encrypt_data_key(&slot, &context).await?.is_some_and(|slots| is_slot(&slots))),
        }
    }

    fn planted(&self) -> &Planted {
        &self.planted
    }
}

/// A good answer to `request`, about `key`, with a data key of `len` bytes.
fn answer(request: &Message, key: &str, len: usize) -> Value {
    let (blob, plain) = (STANDARD.encode(BLOB), STANDARD.encode(&DATA_KEY.repeat(3)[..len]));
    match operation(request).as_str() {
        "TrentService.GenerateDataKey" => json!({"CiphertextBlob": blob, "KeyId": key, "Plaintext": plain}),
        "TrentService.Encrypt" => {
            json!({"CiphertextBlob": blob, "KeyId": key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
        }
        "TrentService.Decrypt" => {
            json!({"Plaintext": plain, "KeyId": key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
        }
        "TrentService.ReEncrypt" => json!({"CiphertextBlob": blob, "KeyId": key, "SourceKeyId": key}),
        other => panic!("no provider asks for {other}"),
    }
}

/// A good answer, and a server that gives it.
fn good() -> Script {
    script(|_, request| Reply::json(200, answer(request, KEY, 32)))
}

/// An error with `code`, which says more than it should. Each operation gets it in another of AWS's and the emulators' forms.
fn error(status: u16, code: &'static str) -> Fault {
    error_saying(status, code, "of the test")
}

fn error_saying(status: u16, code: &'static str, sentence: &'static str) -> Fault {
    let key = STANDARD.encode(DATA_KEY);
    Fault::Says(script(move |operation, _| {
        let message = format!("{sentence}; {SECRET} {TOKEN} {key}");
        match operation {
            0 => Reply::json(status, json!({"__type": code, "message": message})),
            1 => Reply::json(status, json!({"__type": format!("com.amazonaws.kms#{code}"), "Message": message})),
            2 => Reply::json(status, json!({"message": message})).with(
                "X-Amzn-ErrorType",
                &format!("{code}:http://internal.amazon.com/coral/com.amazon.coral.service/"),
            ),
            _ => Reply::Answer(
                status,
                vec![("Content-Type".into(), "text/html".into())],
                json!({"__type": format!("com.amazon.coral.service#{code}"), "message": message}).to_string().into(),
            ),
        }
    }))
}

/// A status with a body that names no code.
fn status(status: u16) -> Fault {
    Fault::Says(script(move |_, _| Reply::json(status, "")))
}

/// A good answer's bytes with something done to them.
fn body(change: impl Fn(Vec<u8>) -> Reply + Send + Sync + 'static) -> Script {
    script(move |_, request| change(answer(request, KEY, 32).to_string().into_bytes()))
}

/// Only operations whose answer holds a data key can be given a wrong one.
fn with_plaintext(operation: usize, expected: Expected) -> Expected {
    if matches!(operation, GENERATE | DECRYPT) { expected } else { GOOD }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = way_rows();
    rows.extend(status_rows());
    rows.extend(lie_rows());
    rows.extend(code_rows());
    rows
}

fn way_rows() -> Vec<Row> {
    let row = |name: &str, fault, expected| Row::new(name, fault, expected);
    vec![
        row("none", Fault::Says(good()), GOOD),
        row("refused", Fault::Refused, LOST),
        row("timeout before the request was sent", Fault::Unreachable, LOST),
        row("timeout after the request was sent", Fault::Stalls(script(|_, _| Reply::Hang)), LOST),
        row("black hole", Fault::Way(Way::BlackHole, good()), LOST),
        row("reset before the request was sent", Fault::Way(Way::ResetAtOnce, good()), LOST),
        row("reset after the request was sent", Fault::Way(Way::ResetAfterRequest, good()), LOST),
        row("reset after the answer was made", Fault::Way(Way::Half, good()), LOST),
        row("end after a part of the head", Fault::Way(Way::Truncate(9), good()), LOST),
        row("slow body", Fault::Stalls(body(|it| Reply::Slow(it, 1, Duration::from_millis(50)))), LOST),
        row("body that ends early", Fault::Says(body(Reply::CutShort)), LOST),
        row("garbage", Fault::Says(script(|_, _| Reply::Garbage)), LOST),
        row("garbage from the first byte", Fault::Way(Way::Garbage, good()), LOST),
        row("TLS failure: no TLS", Fault::NoTls, fails(ErrorKind::Unavailable, 1)),
        row("TLS failure: an end in the handshake", Fault::HangsUp, LOST),
        row("TLS failure: an authority that is not trusted", Fault::WrongRoot, fails(ErrorKind::Unavailable, 1)),
        row("DNS failure", Fault::NoSuchHost, LOST),
    ]
}

fn status_rows() -> Vec<Row> {
    let row = |name: &str, fault, expected| Row::new(name, fault, expected);
    let says = |reply: fn(Vec<u8>) -> Reply| Fault::Says(body(reply));
    let second = Duration::from_secs(1);
    let busy = script(|_, _| Reply::json(429, "{}").with("Retry-After", "1"));
    let hour = script(|_, _| Reply::json(429, "{}").with("Retry-After", "3600"));
    vec![
        row("truncated JSON", says(|it| Reply::json(200, String::from_utf8_lossy(&it[..it.len() - 9]))), LOST),
        row("empty body", says(|_| Reply::json(200, "")), LOST),
        row("a page instead of an answer", says(|_| Reply::json(200, "<html>Please sign in</html>")), LOST),
        row("huge body", says(|_| Reply::json(200, "\"x".repeat(1 << 20))), LOST),
        row(
            "wrong content type",
            says(|it| Reply::Answer(200, vec![("Content-Type".into(), "text/html".into())], it)),
            GOOD,
        ),
        row("400 without a code", status(400), LOST),
        row("401 without a code", status(401), fails(ErrorKind::KeyDenied, 1)),
        row("403 without a code", status(403), fails(ErrorKind::KeyDenied, 1)),
        row("409 without a code", status(409), LOST),
        row("429 with Retry-After: 1", Fault::AsksToWait(second, busy), LOST),
        row("429 with Retry-After: 3600", Fault::Says(hour), fails(ErrorKind::Unavailable, 1)),
        row("429", status(429), LOST),
        row("500", status(500), LOST),
        row("503", status(503), LOST),
        row("redirect (307)", Fault::Redirects(307), fails(ErrorKind::Unavailable, 1)),
        row("redirect (302)", Fault::Redirects(302), fails(ErrorKind::Unavailable, 1)),
    ]
}

fn lie_rows() -> Vec<Row> {
    let lied = fails(ErrorKind::AuthenticationFailed, 1);
    let about = |key: &'static str| Fault::Says(script(move |_, request| Reply::json(200, answer(request, key, 32))));
    let long = |len| Fault::Says(script(move |_, request| Reply::json(200, answer(request, KEY, len))));
    let without = |field: &'static str| {
        Fault::Says(script(move |_, request| {
            let mut answer = answer(request, KEY, 32);
            answer.as_object_mut().unwrap().remove(field);
            Reply::json(200, answer)
        }))
    };
    let for_plain = move |operation| with_plaintext(operation, lied);
    vec![
        Row::new("wrong KeyId: another key of the account", about(OTHER), lied),
        Row::new("an answer for another key, account and Region", about(FOREIGN), lied),
        Row::new("KeyId that is none", about("alias/app"), lied),
        Row::by_operation("wrong length of data key: 16 bytes", long(16), move |operation| match operation {
            // What was wrapped may be 16 bytes: a message's head, which commits to its key, decides.
            GENERATE => lied,
            _ => GOOD,
        }),
        Row::by_operation("wrong length of data key: 31 bytes", long(31), for_plain),
        Row::by_operation("wrong length of data key: 33 bytes", long(33), for_plain),
        Row::by_operation("wrong length of data key: none", long(0), for_plain),
        Row::new("answer without KeyId", without("KeyId"), lied),
        Row::by_operation("answer without Plaintext", without("Plaintext"), for_plain),
        Row::by_operation("answer without CiphertextBlob", without("CiphertextBlob"), move |operation| {
            if operation == DECRYPT { GOOD } else { lied }
        }),
    ]
}

/// Code, status, kind, requests: as section F11 of AWS's own lists has them, and what envelock says to each.
#[rustfmt::skip]
const CODES: &[(&str, u16, ErrorKind, usize)] = &[
    ("ThrottlingException", 400, ErrorKind::Unavailable, 3),
    ("LimitExceededException", 400, ErrorKind::LimitExceeded, 1),
    ("DependencyTimeoutException", 503, ErrorKind::Unavailable, 3),
    ("KMSInternalException", 500, ErrorKind::Unavailable, 3),
    ("KeyUnavailableException", 500, ErrorKind::Unavailable, 3),
    ("KMSInvalidStateException", 409, ErrorKind::KeyState, 1),
    ("DisabledException", 409, ErrorKind::KeyState, 1),
    ("NotFoundException", 404, ErrorKind::NoMatchingKey, 1),
    ("AccessDeniedException", 400, ErrorKind::KeyDenied, 1),
    ("InvalidCiphertextException", 400, ErrorKind::AuthenticationFailed, 1),
    ("IncorrectKeyException", 400, ErrorKind::AuthenticationFailed, 1),
    ("InvalidKeyUsageException", 400, ErrorKind::InvalidInput, 1),
    ("InvalidGrantTokenException", 400, ErrorKind::InvalidInput, 1),
    ("InvalidArnException", 400, ErrorKind::InvalidInput, 1),
    ("UnsupportedOperationException", 400, ErrorKind::InvalidInput, 1),
    ("DryRunOperationException", 412, ErrorKind::InvalidInput, 1),
    ("ExpiredTokenException", 400, ErrorKind::KeyDenied, 1),
    ("UnrecognizedClientException", 400, ErrorKind::KeyDenied, 1),
    ("InvalidSignatureException", 400, ErrorKind::KeyDenied, 1),
    ("RequestExpired", 400, ErrorKind::KeyDenied, 1),
    ("IncompleteSignature", 400, ErrorKind::KeyDenied, 1),
    ("OptInRequired", 403, ErrorKind::KeyDenied, 1),
    ("ServiceUnavailable", 503, ErrorKind::Unavailable, 3),
    ("InternalFailure", 500, ErrorKind::Unavailable, 3),
    ("ValidationException", 400, ErrorKind::InvalidInput, 1),
];

fn code_rows() -> Vec<Row> {
    let code = |&(code, status, kind, requests): &(&'static str, u16, ErrorKind, usize)| {
        Row::new(format!("{status} `{code}`"), error(status, code), fails(kind, requests).code(code))
    };
    let mut rows: Vec<_> = CODES.iter().map(code).collect();
    // Codes that are spelled otherwise, or mean another thing by what their sentence says.
    let state = "arn is Creating";
    rows.push(Row::new(
        "409 `KMSInvalidStateException`, of a key that is being made",
        error_saying(409, "KMSInvalidStateException", state),
        LOST.code("KMSInvalidStateException"),
    ));
    rows.push(Row::new(
        "400 `ValidationError`",
        error(400, "ValidationError"),
        fails(ErrorKind::InvalidInput, 1).code("ValidationException"),
    ));
    rows.push(Row::new(
        "400 `NotAuthorized`",
        error(400, "NotAuthorized"),
        fails(ErrorKind::KeyDenied, 1).code("AccessDeniedException"),
    ));
    rows.push(Row::new(
        "400 with a code that nobody knows",
        error(400, "SomethingNew"),
        fails(ErrorKind::InvalidInput, 1),
    ));
    rows.push(Row::new("500 with a code that nobody knows", error(500, "SomethingNew"), LOST));
    rows
}
