//! Transit of Vault and OpenBao under every fault.

use super::places::{Fault, Place, Script, script};
use super::{Expected, GOOD, LOST, Row, Subject, fails, policy};
use crate::support::faults::Reply;
use crate::support::http::Message;
use crate::support::leaks::Planted;
use crate::support::proxy::Way;
use crate::support::transport::Counting;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelock::{
    DataKey, DataKeyAnswer, EncryptedDataKey, EncryptionContext, Error, ErrorKind, KeyProvider, KmsContext, VaultAuth,
    VaultProvider,
};
use serde_json::{Value, json};
use std::time::Duration;

const CIPHERTEXT: &str = "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";
const DATA_KEY: [u8; 32] = *b"THIS-DATA-KEY-MUST-NOT-BE-SHOWN!";
const TOKEN: &str = "s.PLANTED-TOKEN-of-some-length";

pub(super) struct Transit {
    planted: Planted,
}

impl Transit {
    pub(super) fn new() -> Self {
        Self { planted: Planted::default().bytes("data key", &DATA_KEY).text("token", TOKEN) }
    }
}

const ENCRYPT: usize = 0;
const DECRYPT: usize = 1;

#[async_trait]
impl Subject for Transit {
    fn operations(&self) -> &'static [&'static str] {
        &["encrypt", "decrypt", "decrypt, a batch"]
    }

    async fn call(&self, operation: usize, place: &Place, transport: Counting) -> Result<bool, Error> {
        // The proof would be the first call, and have the fault.
        let provider = VaultProvider::builder("orders")
            .address(place.url.as_str())
            .auth(VaultAuth::token(TOKEN))
            .policy(policy())
            .transport(transport)
            .dangerous_without_binding_proof()
            .build()?;
        self.planted.assert_not_in(format!("{provider:?} {provider:#?}"), "the provider");
        let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")]))?;
        let slot = EncryptedDataKey::new("vault", "transit/orders", CIPHERTEXT);
        let right = |answer: DataKeyAnswer| match answer {
            DataKeyAnswer::Key(key) => Ok(key.expose() == DATA_KEY),
            DataKeyAnswer::Failed(error) => Err(error),
            DataKeyAnswer::NotMine => Ok(false),
        };
        match operation {
            ENCRYPT => {
                let slots = provider.encrypt_data_key(&DataKey::from_slice(&DATA_KEY)?, &context).await?;
                Ok(slots.len() == 1 && slots[0].wrapped() == CIPHERTEXT.as_bytes())
            }
            DECRYPT => right(provider.decrypt_data_key(&slot, &context).await),
            _ => {
                let mut answers = provider.decrypt_data_keys(&[(&slot, &context), (&slot, &context)]).await;
                assert_eq!(answers.len(), 2);
                let second = right(answers.pop().unwrap());
                let first = right(answers.pop().unwrap());
                assert_eq!(first.as_ref().map_err(Error::kind), second.as_ref().map_err(Error::kind));
                second.and(first)
            }
        }
    }

    fn planted(&self) -> &Planted {
        &self.planted
    }
}

/// A good answer to `request`, with data keys of `len` bytes.
fn answer(request: &Message, len: usize) -> Value {
    let plain = STANDARD.encode(&DATA_KEY.repeat(2)[..len]);
    match request.path() {
        "/v1/transit/encrypt/orders" => json!({"data": {"ciphertext": CIPHERTEXT, "key_version": 2}}),
        "/v1/transit/decrypt/orders" => {
            let asked: Value = serde_json::from_slice(&request.body).unwrap();
            match asked["batch_input"].as_array() {
                Some(batch) => {
                    let results: Vec<_> = batch.iter().map(|_| json!({"plaintext": plain})).collect();
                    json!({"data": {"batch_results": results}})
                }
                None => json!({"data": {"plaintext": plain}}),
            }
        }
        other => panic!("no provider asks for {other}"),
    }
}

fn good() -> Script {
    script(|_, request| Reply::json(200, answer(request, 32)))
}

/// A status with the server's sentence, behind which something repeats what it was sent.
fn says(status: u16, sentence: &'static str) -> Fault {
    Fault::Says(script(move |operation, _| {
        let mut errors = vec![sentence.to_owned(), format!("got X-Vault-Token: {TOKEN}")];
        if operation == ENCRYPT {
            errors.push(format!("got plaintext {}", STANDARD.encode(DATA_KEY)));
        }
        // Most faults come without an echo; the operations share them.
        if operation == DECRYPT {
            errors.truncate(1);
        }
        Reply::json(status, json!({"errors": errors}))
    }))
}

/// A status with the server's sentence alone.
fn plainly(status: u16, sentence: &'static str) -> Fault {
    Fault::Says(script(move |_, _| Reply::json(status, json!({"errors": [sentence]}))))
}

fn status(status: u16) -> Fault {
    Fault::Says(script(move |_, _| Reply::json(status, "")))
}

fn body(change: impl Fn(Vec<u8>) -> Reply + Send + Sync + 'static) -> Script {
    script(move |_, request| change(answer(request, 32).to_string().into_bytes()))
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = way_rows();
    rows.extend(answer_rows());
    rows.extend(refusal_rows());
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
        row("reset after the request was sent", Fault::Way(Way::ResetAfterRequest, good()), LOST),
        row("reset after the answer was made", Fault::Way(Way::Half, good()), LOST),
        row("slow body", Fault::Stalls(body(|it| Reply::Slow(it, 1, Duration::from_millis(50)))), LOST),
        row("body that ends early", Fault::Says(body(Reply::CutShort)), LOST),
        row("garbage", Fault::Says(script(|_, _| Reply::Garbage)), LOST),
        row("TLS failure: no TLS", Fault::NoTls, fails(ErrorKind::Unavailable, 1)),
        row("TLS failure: an end in the handshake", Fault::HangsUp, LOST),
        row("TLS failure: an authority that is not trusted", Fault::WrongRoot, fails(ErrorKind::Unavailable, 1)),
        row("DNS failure", Fault::NoSuchHost, LOST),
    ]
}

fn answer_rows() -> Vec<Row> {
    let row = |name: &str, fault, expected| Row::new(name, fault, expected);
    let changed = |reply: fn(Vec<u8>) -> Reply| Fault::Says(body(reply));
    let long = |len| Fault::Says(script(move |_, request| Reply::json(200, answer(request, len))));
    let lied = fails(ErrorKind::AuthenticationFailed, 1);
    let for_plain = move |operation: usize| -> Expected { if operation == ENCRYPT { GOOD } else { lied } };
    let ignoring = script(|_, request| {
        let mut answer = answer(request, 32);
        answer["warnings"] = json!(["Endpoint ignored these unrecognized parameters: [associated_data]"]);
        Reply::json(200, answer)
    });
    let foreign = script(|_, _| Reply::json(200, json!({"data": {"ciphertext": "kept", "plaintext": "kept"}})));
    vec![
        row("truncated JSON", changed(|it| Reply::json(200, String::from_utf8_lossy(&it[..it.len() - 9]))), LOST),
        row("a page instead of an answer", changed(|_| Reply::json(200, "<html>Please sign in</html>")), LOST),
        row("huge body", changed(|_| Reply::json(200, "\"x".repeat(1 << 20))), LOST),
        row(
            "wrong content type",
            changed(|it| Reply::Answer(200, vec![("Content-Type".into(), "text/html".into())], it)),
            GOOD,
        ),
        row("answer without data", changed(|_| Reply::json(200, "{}")), fails(ErrorKind::InvalidInput, 1)),
        Row::by_operation("wrong length of data key: 31 bytes", long(31), for_plain),
        Row::by_operation("wrong length of data key: 33 bytes", long(33), for_plain),
        Row::by_operation("what is no answer of Transit", Fault::Says(foreign), |operation| match operation {
            ENCRYPT => fails(ErrorKind::Malformed, 1),
            DECRYPT => fails(ErrorKind::AuthenticationFailed, 1),
            _ => fails(ErrorKind::InvalidInput, 1),
        }),
        row("associated data ignored, and said so", Fault::Says(ignoring), fails(ErrorKind::Unsupported, 1)),
        row("redirect (307)", Fault::Redirects(307), fails(ErrorKind::Unavailable, 1)),
        row("redirect (302)", Fault::Redirects(302), fails(ErrorKind::Unavailable, 1)),
    ]
}

fn refusal_rows() -> Vec<Row> {
    let row = |name: &str, fault, expected| Row::new(name, fault, expected);
    let busy = script(|_, _| Reply::json(429, json!({"errors": ["rate limit"]})).with("Retry-After", "1"));
    let one = |kind| fails(kind, 1);
    let too_old = "ciphertext or signature version is disallowed by policy (too old)";
    vec![
        row("400 without a sentence", status(400), LOST),
        row("400, the request is refused", says(400, "no"), one(ErrorKind::InvalidInput)),
        row(
            "400, the tag does not match",
            plainly(400, "cipher: message authentication failed"),
            one(ErrorKind::AuthenticationFailed),
        ),
        row("400, min_decryption_version", plainly(400, too_old), one(ErrorKind::KeyState)),
        row("400, no such key", plainly(400, "encryption key not found"), one(ErrorKind::NoMatchingKey)),
        row("403, the token", plainly(403, "permission denied"), one(ErrorKind::KeyDenied)),
        row("403, the policy", plainly(403, "1 error occurred:\n\t* permission denied\n\n"), one(ErrorKind::KeyDenied)),
        row("404, no mount", plainly(404, "no handler for route \"transit/\""), one(ErrorKind::InvalidInput)),
        row("409", status(409), LOST),
        row("412, a replica behind", says(412, "required index state not present"), LOST),
        row("429 with Retry-After: 1", Fault::AsksToWait(Duration::from_secs(1), busy), LOST),
        row("429", says(429, "request path \"transit\": rate limit quota exceeded"), LOST),
        row("472, a standby", status(472), LOST),
        row("500", says(500, "internal error"), LOST),
        row("503", status(503), LOST),
        row("503, sealed", says(503, "Vault is sealed"), LOST),
    ]
}
