//! A transport that plays AWS KMS: a scripted answer where there is one, else a small KMS in memory.

use crate::provider::http::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{self, Handle};

type Outcome = Result<Response<Bytes>, TransportError>;

/// Clones share everything.
#[derive(Clone, Default)]
pub(in crate::provider::aws_kms) struct Fake(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    script: VecDeque<Outcome>,
    sent: Vec<Request<Bytes>>,
    /// The runtime that each was sent in, of all that were ever sent.
    runtimes: Vec<Option<runtime::Id>>,
    wrapped: HashMap<Vec<u8>, (String, Value, Vec<u8>)>,
    aliases: HashMap<String, String>,
    /// What becomes of requests for this path, and who waits there.
    trouble: Option<(String, Trouble)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Hangs,
    Fails,
}

impl Fake {
    pub(in crate::provider::aws_kms) fn new() -> Self {
        Self::default()
    }

    pub(in crate::provider::aws_kms) fn shared(&self) -> Arc<dyn HttpTransport> {
        Arc::new(self.clone())
    }

    /// The next request gets this answer.
    pub(super) fn answers(&self, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> &Self {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.0.lock().unwrap().script.push_back(Ok(response.body(body.into()).unwrap()));
        self
    }

    /// The next request gets none.
    pub(super) fn fails(&self, failure: TransportFailure) -> &Self {
        self.0.lock().unwrap().script.push_back(Err(TransportError::new(failure, "scripted")));
        self
    }

    /// Requests for `path` are not answered until [`goes_on`](Self::goes_on).
    pub(super) fn hangs(&self, path: &str) {
        self.0.lock().unwrap().trouble = Some((path.to_owned(), Trouble::Hangs));
    }

    /// Requests for `path` get no answer until [`goes_on`](Self::goes_on).
    pub(super) fn fails_at(&self, path: &str) {
        self.0.lock().unwrap().trouble = Some((path.to_owned(), Trouble::Fails));
    }

    pub(super) fn goes_on(&self) {
        self.0.lock().unwrap().trouble = None;
    }

    /// How many were sent since the last look.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().sent.len()
    }

    /// The runtimes of all that was ever sent, in order.
    pub(super) fn runtimes(&self) -> Vec<Option<runtime::Id>> {
        self.0.lock().unwrap().runtimes.clone()
    }

    fn note(&self, request: &Request<Bytes>) {
        let mut inside = self.0.lock().unwrap();
        inside.sent.push(request.clone());
        inside.runtimes.push(Handle::try_current().ok().map(|runtime| runtime.id()));
    }

    fn trouble(&self, path: &str) -> Option<Trouble> {
        self.0.lock().unwrap().trouble.as_ref().filter(|(at, _)| at == path).map(|(_, trouble)| *trouble)
    }

    pub(super) fn knows_alias(&self, alias: &str, arn: &str) {
        self.0.lock().unwrap().aliases.insert(alias.to_owned(), arn.to_owned());
    }

    /// Everything that was sent since the last look.
    pub(super) fn sent(&self) -> Vec<Request<Bytes>> {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    /// The operations that were called since the last look, each with its Region's host.
    pub(super) fn calls(&self) -> Vec<String> {
        let name = |request: &Request<Bytes>| {
            let target = request.headers().get("x-amz-target").map_or("", |value| value.to_str().unwrap());
            format!("{} {}", target.trim_start_matches("TrentService."), request.uri().host().unwrap())
        };
        self.sent().iter().map(name).collect()
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl HttpTransport for Fake {
    async fn send(&self, request: Request<Bytes>, _limits: &ExchangeLimits) -> Outcome {
        self.note(&request);
        loop {
            match self.trouble(request.uri().path()) {
                Some(Trouble::Hangs) => tokio::time::sleep(Duration::from_millis(10)).await,
                Some(Trouble::Fails) => return Err(TransportError::new(TransportFailure::Broken, "scripted")),
                None => break,
            }
        }
        let mut inside = self.0.lock().unwrap();
        match inside.script.pop_front() {
            Some(outcome) => outcome,
            None => Ok(inside.kms(&request)),
        }
    }

    /// A pause passes at once, and the end of a call's time never comes.
    async fn sleep(&self, time: Duration) {
        if time >= Duration::from_secs(9) {
            std::future::pending::<()>().await;
        }
    }
}

impl Inside {
    fn kms(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let asked: Value = serde_json::from_slice(request.body()).unwrap();
        let bytes = |name: &str| STANDARD.decode(asked[name].as_str().unwrap_or_default()).unwrap();
        let key = asked["KeyId"].as_str().unwrap_or_default().to_owned();
        let answer = match target.trim_start_matches("TrentService.") {
            "GenerateDataKey" => {
                let mut plain = vec![0; usize::try_from(asked["NumberOfBytes"].as_u64().unwrap()).unwrap()];
                crate::crypto::random::fill(&mut plain).unwrap();
                let blob = self.wrap(&key, &asked["EncryptionContext"], plain.clone());
                json!({"KeyId": key, "CiphertextBlob": blob, "Plaintext": STANDARD.encode(plain)})
            }
            "Encrypt" => {
                let blob = self.wrap(&key, &asked["EncryptionContext"], bytes("Plaintext"));
                json!({"KeyId": key, "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
            }
            "Decrypt" => match self.open(&bytes("CiphertextBlob"), &key, &asked["EncryptionContext"]) {
                Ok(plain) => json!({"KeyId": key, "Plaintext": STANDARD.encode(plain)}),
                Err(code) => return error(code),
            },
            "ReEncrypt" => {
                let source = asked["SourceKeyId"].as_str().unwrap().to_owned();
                let destination = asked["DestinationKeyId"].as_str().unwrap().to_owned();
                match self.open(&bytes("CiphertextBlob"), &source, &asked["SourceEncryptionContext"]) {
                    Ok(plain) => {
                        let blob = self.wrap(&destination, &asked["DestinationEncryptionContext"], plain);
                        json!({"KeyId": destination, "SourceKeyId": source, "CiphertextBlob": blob})
                    }
                    Err(code) => return error(code),
                }
            }
            "DescribeKey" => match self.aliases.get(&key) {
                Some(arn) => json!({"KeyMetadata": {"Arn": arn, "KeySpec": "SYMMETRIC_DEFAULT", "Enabled": true}}),
                None => return error("NotFoundException"),
            },
            _ => return error("UnknownOperationException"),
        };
        Response::new(Bytes::from(answer.to_string()))
    }

    fn wrap(&mut self, key: &str, context: &Value, plain: Vec<u8>) -> String {
        let mut blob = vec![0; 48];
        crate::crypto::random::fill(&mut blob).unwrap();
        self.wrapped.insert(blob.clone(), (key.to_owned(), context.clone(), plain));
        STANDARD.encode(blob)
    }

    /// A multi-Region key's id is the same in every Region.
    fn open(&self, blob: &[u8], key: &str, context: &Value) -> Result<Vec<u8>, &'static str> {
        let id = |arn: &str| arn.rsplit(':').next().unwrap_or_default().to_owned();
        match self.wrapped.get(blob) {
            Some((under, _, _)) if id(under) != id(key) => Err("IncorrectKeyException"),
            Some((_, bound, plain)) if bound == context => Ok(plain.clone()),
            _ => Err("InvalidCiphertextException"),
        }
    }
}

fn error(code: &str) -> Response<Bytes> {
    let body = json!({"__type": code, "message": "scripted"}).to_string();
    Response::builder().status(400).header("x-amzn-errortype", code).body(body.into()).unwrap()
}
