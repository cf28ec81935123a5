//! An AWS KMS in this process, fast enough for thousands of calls: what it says is right, and when it fails is the test's word.

use super::faults::{FaultServer, Reply, operation};
use super::http::Message;
use super::random::Random;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelock::{AwsCredentials, AwsKmsBuilder, AwsKmsProvider};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// How calls are answered that the KMS does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// By a reset.
    Resets,
    /// Not at all.
    Hangs,
}

#[derive(Debug)]
struct Wrapped {
    plaintext: Vec<u8>,
    context: Value,
}

/// Its keys, and how it is.
#[derive(Debug)]
pub(crate) struct FakeKms {
    wrapped: Mutex<HashMap<String, Wrapped>>,
    random: Mutex<Random>,
    /// Of a hundred calls, so many fail.
    failing: AtomicUsize,
    dead: AtomicBool,
    outage: Outage,
    answered: AtomicUsize,
}

impl FakeKms {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Outage::Resets)
    }

    pub(crate) fn with(outage: Outage) -> Arc<Self> {
        Arc::new(Self {
            wrapped: Mutex::default(),
            random: Mutex::new(Random::new(7)),
            failing: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            outage,
            answered: AtomicUsize::new(0),
        })
    }

    /// From now on, `percent` of the calls fail, each in one of several ways.
    pub(crate) fn fail(&self, percent: usize) {
        self.failing.store(percent, Ordering::SeqCst);
    }

    /// From now on, no call is answered; or each is again.
    pub(crate) fn be_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }

    /// Calls that were answered well.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// All data keys that it has seen or made.
    pub(crate) fn data_keys(&self) -> Vec<Vec<u8>> {
        self.wrapped.lock().unwrap().values().map(|wrapped| wrapped.plaintext.clone()).collect()
    }

    /// A server in front of it.
    pub(crate) fn serve(self: &Arc<Self>) -> FaultServer {
        let kms = Arc::clone(self);
        FaultServer::new(move |request| kms.reply(request))
    }

    fn reply(&self, request: &Message) -> Reply {
        if self.dead.load(Ordering::SeqCst) {
            return match self.outage {
                Outage::Resets => Reply::Reset,
                Outage::Hangs => Reply::Hang,
            };
        }
        let (fails, way) = {
            let mut random = self.random.lock().unwrap();
            (random.below(100) < self.failing.load(Ordering::SeqCst), random.below(6))
        };
        if !fails {
            self.answered.fetch_add(1, Ordering::SeqCst);
            return self.answer(request);
        }
        match way {
            0 => Reply::Reset,
            1 => Reply::Garbage,
            2 => Reply::json(400, json!({"__type": "ThrottlingException"})),
            3 => Reply::json(500, json!({"__type": "KMSInternalException"})),
            4 => Reply::json(503, ""),
            _ => Reply::CutShort(vec![b'{'; 100]),
        }
    }

    /// What AWS KMS would answer.
    pub(crate) fn answer(&self, request: &Message) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let context = &asked["EncryptionContext"];
        let key = asked["KeyId"].as_str().unwrap_or(KEY);
        match operation(request).as_str() {
            "TrentService.GenerateDataKey" => {
                let len = usize::try_from(asked["NumberOfBytes"].as_u64().unwrap()).unwrap();
                let plaintext = self.random.lock().unwrap().bytes(len);
                let plain = STANDARD.encode(&plaintext);
                Reply::json(
                    200,
                    json!({"CiphertextBlob": self.wrap(plaintext, context), "KeyId": key, "Plaintext": plain}),
                )
            }
            "TrentService.Encrypt" => {
                let plaintext = STANDARD.decode(asked["Plaintext"].as_str().unwrap()).unwrap();
                Reply::json(200, json!({"CiphertextBlob": self.wrap(plaintext, context), "KeyId": key}))
            }
            "TrentService.Decrypt" => match self.unwrap(&asked["CiphertextBlob"], context) {
                Some(plaintext) => Reply::json(200, json!({"KeyId": key, "Plaintext": STANDARD.encode(plaintext)})),
                None => Reply::json(400, json!({"__type": "InvalidCiphertextException"})),
            },
            "TrentService.ReEncrypt" => {
                match self.unwrap(&asked["CiphertextBlob"], &asked["SourceEncryptionContext"]) {
                    Some(plaintext) => {
                        let blob = self.wrap(plaintext, &asked["DestinationEncryptionContext"]);
                        let (source, key) = (&asked["SourceKeyId"], &asked["DestinationKeyId"]);
                        Reply::json(200, json!({"CiphertextBlob": blob, "SourceKeyId": source, "KeyId": key}))
                    }
                    None => Reply::json(400, json!({"__type": "InvalidCiphertextException"})),
                }
            }
            other => Reply::json(400, json!({"__type": "UnknownOperationException", "message": other})),
        }
    }

    fn wrap(&self, plaintext: Vec<u8>, context: &Value) -> String {
        let blob = STANDARD.encode(self.random.lock().unwrap().bytes(48));
        self.wrapped.lock().unwrap().insert(blob.clone(), Wrapped { plaintext, context: context.clone() });
        blob
    }

    fn unwrap(&self, blob: &Value, context: &Value) -> Option<Vec<u8>> {
        let wrapped = self.wrapped.lock().unwrap();
        let found = wrapped.get(blob.as_str()?)?;
        (found.context == *context).then(|| found.plaintext.clone())
    }
}

/// A provider on [`KEY`] of what answers at `url`, still to be given its policy.
pub(crate) fn provider(url: &str) -> AwsKmsBuilder {
    AwsKmsProvider::strict([KEY])
        .environment([("PATH", "")])
        .endpoint(url)
        .credentials(AwsCredentials::new("AKIATESTING000000000", "testing"))
        .transport(super::transport::shared())
}
