//! What tests do in OpenBao by its API: keys, policies, tokens.

use super::http;
use super::peers::{Peer, openbao};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An OpenBao, as its root.
#[derive(Clone, Debug)]
pub(crate) struct Bao {
    /// Its plain address, and the one with TLS.
    pub(crate) url: String,
    pub(crate) tls_url: String,
    pub(crate) token: String,
    pub(crate) namespace: Option<String>,
}

impl Bao {
    /// The one that all tests share. Nobody seals it or limits its rate.
    #[track_caller]
    pub(crate) fn shared() -> Self {
        static TRANSIT: std::sync::Once = std::sync::Once::new();
        let bao = Self::of(openbao());
        TRANSIT.call_once(|| bao.mount_transit());
        bao
    }

    /// One of the caller's own, with transit.
    #[track_caller]
    pub(crate) fn own(peer: &Peer) -> Self {
        let bao = Self::of(peer);
        bao.mount_transit();
        bao
    }

    fn of(peer: &Peer) -> Self {
        let text = |name| peer.text(name).to_owned();
        Self { url: text("url"), tls_url: text("tls_url"), token: text("token"), namespace: None }
    }

    fn mount_transit(&self) {
        self.must("POST", "sys/mounts/transit", json!({"type": "transit"}));
    }

    /// Calls the API; the status and what it answered.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut headers = vec![("X-Vault-Token", self.token.as_str()), ("Content-Type", "application/json")];
        headers.extend(self.namespace.as_deref().map(|namespace| ("X-Vault-Namespace", namespace)));
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = http::send(method, &format!("{}/v1/{path}", self.url), &headers, &body).unwrap();
        let value = if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() };
        (answer.status(), value)
    }

    /// A call that must succeed.
    #[track_caller]
    pub(crate) fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, &body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// A new key of AES-256-GCM; its name.
    #[track_caller]
    pub(crate) fn key(&self) -> String {
        self.key_with(json!({"type": "aes256-gcm96"}))
    }

    /// A new key; its name.
    #[track_caller]
    pub(crate) fn key_with(&self, parameters: Value) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("key-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.must("POST", &format!("transit/keys/{name}"), parameters);
        name
    }

    /// A token under a policy of its own, which is `rules`.
    #[track_caller]
    pub(crate) fn token_for(&self, rules: &str, parameters: Value) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let policy = format!("policy-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        self.must("PUT", &format!("sys/policies/acl/{policy}"), json!({"policy": rules}));
        let mut wanted = parameters;
        wanted["policies"] = json!([policy]);
        let answer = self.must("POST", "auth/token/create", wanted);
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }
}
