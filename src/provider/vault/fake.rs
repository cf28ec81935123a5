//! A Vault in memory, for tests: Transit with one key, AppRole, tokens that end, and whatever answers a test wants.

use crate::clock::Clock;
use crate::crypto;
use crate::provider::http::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A request that came.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// What was encrypted, and what it was bound to.
struct Wrapped {
    plaintext: String,
    bound: (Value, Value),
    version: u32,
}

pub(super) struct State {
    /// Answers that are given before any other.
    pub(super) script: VecDeque<(u16, HeaderMap, String)>,
    pub(super) seen: Vec<Seen>,
    pub(super) version: u32,
    pub(super) min_decryption_version: u32,
    pub(super) binds: bool,
    pub(super) derived: bool,
    pub(super) key_type: &'static str,
    /// Whether the key is there. Encrypting makes it.
    pub(super) exists: bool,
    /// Paths that the policy of every token forbids.
    pub(super) forbidden: Vec<&'static str>,
    /// Tokens and when they end.
    pub(super) tokens: BTreeMap<String, Duration>,
    pub(super) lease: u64,
    pub(super) renewals: bool,
    pub(super) secret_id: String,
    /// Whether the wrapping token was used.
    pub(super) unwrapped: bool,
    /// Paths that are served and get no answer, until [`FakeVault::go_on`].
    pub(super) hung: Vec<&'static str>,
    /// Who waits for that.
    hanging: Vec<Waker>,
    /// Paths that are served and whose answer is lost, and how.
    pub(super) lost: Vec<(&'static str, TransportFailure)>,
    /// Why no request comes here.
    pub(super) away: Option<TransportFailure>,
    /// How long each answer takes, by the timer of the runtime that it is waited for in.
    pub(super) takes: Duration,
    /// Waits of up to that are over at once, longer ones never.
    pub(super) sleeps: Duration,
    /// What each decryption is refused with.
    pub(super) opens_nothing: Option<&'static str>,
    /// Whether what is encrypted is bound to nothing, though decrypting looks at it.
    pub(super) forgets: bool,
    /// Whether each token is refused.
    pub(super) deaf: bool,
    wrapped: BTreeMap<String, Wrapped>,
}

/// Cheap to clone; clones are the same server.
#[derive(Clone)]
pub(super) struct FakeVault {
    state: Arc<Mutex<State>>,
    pub(super) clock: TestClock,
}

/// A clock that a test moves.
#[derive(Clone, Debug, Default)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Duration {
        self.now()
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl FakeVault {
    /// A server that knows the token `root` for ever.
    pub(super) fn new() -> Self {
        let state = State {
            script: VecDeque::new(),
            seen: Vec::new(),
            version: 1,
            min_decryption_version: 1,
            binds: true,
            derived: false,
            key_type: "aes256-gcm96",
            exists: true,
            forbidden: Vec::new(),
            tokens: BTreeMap::from([("root-token".to_owned(), Duration::MAX)]),
            lease: 60,
            renewals: true,
            secret_id: "the-secret-id".to_owned(),
            unwrapped: false,
            hung: Vec::new(),
            hanging: Vec::new(),
            lost: Vec::new(),
            away: None,
            takes: Duration::ZERO,
            sleeps: Duration::from_millis(100),
            opens_nothing: None,
            forgets: false,
            deaf: false,
            wrapped: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), clock: TestClock::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next answer.
    pub(super) fn say(&self, status: u16, body: &str) {
        self.state().script.push_back((status, HeaderMap::new(), body.to_owned()));
    }

    /// How many requests came for paths that hold `part`.
    pub(super) fn count(&self, part: &str) -> usize {
        self.state().seen.iter().filter(|seen| seen.path.contains(part)).count()
    }

    /// What hung is answered.
    pub(super) fn go_on(&self) {
        let hanging = {
            let mut state = self.state();
            state.hung.clear();
            std::mem::take(&mut state.hanging)
        };
        hanging.into_iter().for_each(Waker::wake);
    }

    /// Waits for what a thread of the library does by itself: until `count` requests came for paths that hold `part`.
    #[track_caller]
    pub(super) fn wait_for(&self, part: &str, count: usize) {
        for _ in 0..2_000 {
            if self.count(part) >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} of {count} requests for {part}", self.count(part));
    }

    fn answer(&self, request: &Request<Bytes>) -> (u16, HeaderMap, String) {
        let now = self.clock.now();
        let mut state = self.state();
        let path = request.uri().path().to_owned();
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        state.seen.push(Seen { path: path.clone(), headers: request.headers().clone(), body: body.clone() });
        if let Some(scripted) = state.script.pop_front() {
            return scripted;
        }
        let token = request.headers().get("X-Vault-Token").map(|it| it.to_str().unwrap().to_owned());
        let (status, body) = state.route(&path, &body, token.as_deref(), now);
        (status, HeaderMap::new(), body.to_string())
    }
}

impl std::fmt::Debug for FakeVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeVault")
    }
}

#[async_trait]
impl HttpTransport for FakeVault {
    async fn send(&self, request: Request<Bytes>, _limits: &ExchangeLimits) -> Result<Response<Bytes>, TransportError> {
        let away = self.state().away;
        if let Some(failure) = away {
            return Err(TransportError::new(failure, "nobody is there"));
        }
        let (status, headers, body) = self.answer(&request);
        let path = request.uri().path().to_owned();
        poll_fn(|context| {
            let mut state = self.state();
            if !state.hung.iter().any(|part| path.contains(part)) {
                return Poll::Ready(());
            }
            state.hanging.push(context.waker().clone());
            Poll::Pending
        })
        .await;
        let takes = self.state().takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let lost = self.state().lost.iter().find(|(part, _)| path.contains(part)).map(|(_, failure)| *failure);
        if let Some(failure) = lost {
            return Err(TransportError::new(failure, "the answer was lost"));
        }
        let mut response = Response::builder().status(status).body(Bytes::from(body)).unwrap();
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// No time passes but what a test lets pass.
    async fn sleep(&self, time: Duration) {
        if time > self.state().sleeps {
            std::future::pending::<()>().await;
        }
    }
}

fn errors(sentence: &str) -> Value {
    json!({ "errors": [sentence] })
}

impl State {
    fn route(&mut self, path: &str, body: &Value, token: Option<&str>, now: Duration) -> (u16, Value) {
        match path.strip_prefix("/v1/").unwrap() {
            "auth/approle/login" => self.login(body, now),
            "sys/wrapping/unwrap" if self.unwrapped => (400, errors("wrapping token is not valid or does not exist")),
            "sys/wrapping/unwrap" if token == Some("wrapping-token") => {
                self.unwrapped = true;
                (200, json!({ "data": { "secret_id": self.secret_id.clone() }, "warnings": null }))
            }
            _ if self.deaf => (403, errors("permission denied")),
            _ if token.and_then(|token| self.tokens.get(token)).is_none_or(|end| now >= *end) => {
                (403, errors("permission denied"))
            }
            path if self.forbidden.iter().any(|part| path.contains(part)) => {
                (403, errors("1 error occurred:\n\t* permission denied\n\n"))
            }
            "auth/token/renew-self" if !self.renewals => (400, errors("lease is not renewable")),
            "auth/token/renew-self" => self.grant(token.unwrap().to_owned(), now),
            "auth/token/lookup-self" => {
                (200, json!({ "data": { "display_name": "approle", "policies": ["app", "default"], "ttl": 42 } }))
            }
            "transit/keys/orders" if !self.exists => (404, json!({ "errors": [] })),
            "transit/keys/orders" => {
                let (latest, least) = (self.version, self.min_decryption_version);
                let data = json!({ "type": self.key_type, "latest_version": latest, "min_decryption_version": least,
                    "derived": self.derived, "keys": { "1": 1 } });
                (200, json!({ "data": data }))
            }
            "transit/encrypt/orders" => self.each(body, Self::encrypt),
            "transit/decrypt/orders" => self.each(body, Self::decrypt),
            path => (404, errors(&format!("no handler for route \"{path}\". route entry not found."))),
        }
    }

    fn login(&mut self, body: &Value, now: Duration) -> (u16, Value) {
        if body["role_id"] != "the-role-id" || body["secret_id"] != self.secret_id.as_str() {
            return (400, errors("invalid role or secret ID"));
        }
        let mut random = [0; 8];
        crypto::random::fill(&mut random).unwrap();
        self.grant(format!("s.{}", STANDARD.encode(random)), now)
    }

    fn grant(&mut self, token: String, now: Duration) -> (u16, Value) {
        self.tokens.insert(token.clone(), now + Duration::from_secs(self.lease));
        let auth = json!({ "client_token": token, "accessor": "a", "lease_duration": self.lease, "renewable": true });
        (200, json!({ "data": null, "warnings": null, "auth": auth }))
    }

    /// One, or a batch.
    fn each(&mut self, body: &Value, one: fn(&mut Self, &Value) -> Result<Value, String>) -> (u16, Value) {
        let Some(items) = body["batch_input"].as_array() else {
            return match one(self, body) {
                Ok(data) => (200, json!({ "data": data, "warnings": null })),
                Err(sentence) => (400, errors(&sentence)),
            };
        };
        let mut status = 200;
        let mut results = Vec::new();
        for item in items {
            results.push(one(self, item).unwrap_or_else(|sentence| {
                status = 400;
                json!({ "plaintext": "", "error": sentence, "reference": "" })
            }));
        }
        (status, json!({ "data": { "batch_results": results } }))
    }

    fn encrypt(&mut self, body: &Value) -> Result<Value, String> {
        if self.derived && body["context"].is_null() {
            return Err("missing 'context' for key derivation; the key was created using a derived key".to_owned());
        }
        self.exists = true;
        let mut sealed = [0; 60];
        crypto::random::fill(&mut sealed).unwrap();
        let text = format!("vault:v{}:{}", self.version, STANDARD.encode(sealed));
        let plaintext = body["plaintext"].as_str().unwrap().to_owned();
        let associated = if self.forgets { Value::Null } else { body["associated_data"].clone() };
        let bound = (associated, body["context"].clone());
        self.wrapped.insert(text.clone(), Wrapped { plaintext, bound, version: self.version });
        Ok(json!({ "ciphertext": text, "key_version": self.version }))
    }

    fn decrypt(&mut self, body: &Value) -> Result<Value, String> {
        let failed = || "cipher: message authentication failed".to_owned();
        if let Some(sentence) = self.opens_nothing {
            return Err(sentence.to_owned());
        }
        if !self.exists {
            return Err("encryption key not found".to_owned());
        }
        let wrapped = self.wrapped.get(body["ciphertext"].as_str().unwrap()).ok_or_else(failed)?;
        if wrapped.version < self.min_decryption_version {
            return Err("ciphertext or signature version is disallowed by policy (too old)".to_owned());
        }
        let bound = (body["associated_data"].clone(), body["context"].clone());
        if self.binds && wrapped.bound != bound {
            return Err(failed());
        }
        Ok(json!({ "plaintext": wrapped.plaintext }))
    }
}
