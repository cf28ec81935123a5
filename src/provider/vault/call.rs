//! One request to the server, and what becomes of its answer.

use super::answer::{BODY_MAX, Said, Unfit};
use super::refusal::{Asked, Purpose, may_be_done};
use super::token::{Token, Tokens};
use super::wire::{Body, Received};
use crate::error::{Error, Result};
use crate::provider::http::client::Client;
use crate::provider::http::exchange::{Exchange, Verdict};
use crate::provider::http::transport::TransportFailure;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The server, and the way there.
#[derive(Clone, Debug)]
pub(super) struct Server {
    client: Client,
    namespace: Option<String>,
}

impl Server {
    /// `namespace` was checked before.
    pub(super) fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace }
    }

    pub(super) fn address(&self) -> &str {
        self.client.endpoint().as_str()
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// What errors say about a call.
    pub(super) fn asked(&self, purpose: Purpose, subject: impl Into<String>) -> Asked {
        Asked {
            purpose,
            subject: subject.into(),
            address: self.address().to_owned(),
            namespace: self.namespace.clone(),
        }
    }

    pub(super) async fn call<E: Exchange>(&self, exchange: &E) -> Result<E::Answer> {
        self.client.call(exchange).await
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// Whose token a request carries.
enum Credential<'a> {
    None,
    This(HeaderValue),
    Tokens(&'a Tokens),
}

/// A request before it is known how its answer is read.
pub(super) struct Call<'a> {
    server: &'a Server,
    operation: &'static str,
    method: Method,
    path: String,
    asked: Asked,
    body: Body,
    credential: Credential<'a>,
    hedge: bool,
    partial: bool,
}

impl<'a> Call<'a> {
    /// A request for `path`, below `/v1/`, without body and token.
    pub(super) fn new(server: &'a Server, operation: &'static str, method: Method, path: String) -> Self {
        Self {
            server,
            operation,
            method,
            asked: server.asked(Purpose::Look, path.clone()),
            path,
            body: Body::default(),
            credential: Credential::None,
            hedge: false,
            partial: false,
        }
    }

    pub(super) fn about(mut self, purpose: Purpose, subject: String) -> Self {
        self.asked = self.server.asked(purpose, subject);
        self
    }

    pub(super) fn sending(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// With the provider's own token, which is got anew where the server refuses it.
    pub(super) fn with_tokens(mut self, tokens: &'a Tokens) -> Self {
        self.credential = Credential::Tokens(tokens);
        self
    }

    pub(super) fn with_token(mut self, token: HeaderValue) -> Self {
        self.credential = Credential::This(token);
        self
    }

    /// It only reads, so that it may be sent twice at once.
    pub(super) fn hedged(mut self) -> Self {
        self.hedge = true;
        self
    }

    /// Its answer may be good where the status is 400: a batch of which a member failed.
    pub(super) fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    pub(super) fn reading<T>(self, read: &'a (dyn Fn(&[u8]) -> Result<T, Unfit> + Send + Sync)) -> Reading<'a, T> {
        Reading { call: self, read, used: Mutex::new(None), may_be_done: AtomicBool::new(false) }
    }

    /// What no error of a login may repeat.
    fn secrets(&self) -> Vec<&[u8]> {
        let mut secrets: Vec<&[u8]> = self.body.secrets.iter().map(|secret| &secret[..]).collect();
        if let Credential::This(token) = &self.credential {
            secrets.push(token.as_bytes());
        }
        secrets
    }
}

/// A request, and how its answer is read.
pub(super) struct Reading<'a, T> {
    call: Call<'a>,
    read: &'a (dyn Fn(&[u8]) -> Result<T, Unfit> + Send + Sync),
    /// The token of the last attempt.
    used: Mutex<Option<Arc<Token>>>,
    may_be_done: AtomicBool,
}

impl<T> Reading<'_, T> {
    /// Whether the last answer leaves open that the server did what it was asked.
    pub(super) fn may_be_done(&self) -> bool {
        self.may_be_done.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl<T: Send> Exchange for Reading<'_, T> {
    type Answer = T;

    fn operation(&self) -> &'static str {
        self.call.operation
    }

    fn subject(&self) -> String {
        self.call.asked.subject.clone()
    }

    fn may_hedge(&self) -> bool {
        self.call.hedge
    }

    async fn request(&self) -> Result<Request<Bytes>> {
        let call = &self.call;
        let token = match &call.credential {
            Credential::None => None,
            Credential::This(token) => Some(token.clone()),
            Credential::Tokens(tokens) => {
                let token = tokens.current().await?;
                let header = token.header();
                *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                Some(header)
            }
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}/v1/{}", call.server.address(), call.path))
            // Agents and proxies of Vault let nothing else through: a web page cannot send it.
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &call.server.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        if !call.body.bytes.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        request.body(call.body.bytes.clone()).map_err(|_| Error::internal("a path of checked names is a URI"))
    }

    fn judge(&self, response: Response<Bytes>) -> Verdict<T> {
        let (status, asked) = (response.status(), &self.call.asked);
        let body = Received::new(response.into_body());
        self.may_be_done.store(may_be_done(status, None), Ordering::SeqCst);
        if body.as_slice().len() > BODY_MAX {
            return asked.unfit(&Unfit::Garbage);
        }
        if status == StatusCode::OK || status == StatusCode::NO_CONTENT {
            return match (self.read)(body.as_slice()) {
                Ok(answer) => Verdict::Done(answer),
                Err(unfit) => asked.unfit(&unfit),
            };
        }
        if self.call.partial
            && status == StatusCode::BAD_REQUEST
            && let Ok(answer) = (self.read)(body.as_slice())
        {
            return Verdict::Done(answer);
        }
        let said = Said::read(body.as_slice(), &self.call.secrets());
        self.may_be_done.store(may_be_done(status, said.as_ref()), Ordering::SeqCst);
        asked.refused(status, said.as_ref())
    }

    fn advice(&self, failure: TransportFailure) -> Option<String> {
        (failure == TransportFailure::Tls).then(|| {
            "check which certificate the server shows, and name the authority that signed it (VAULT_CACERT or BAO_CACERT; in \
             code, `ReqwestTransport::builder`); no other try mends that, and do not turn the check off"
                .to_owned()
        })
    }

    async fn renew(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = self.call.asked.token_refused();
        match (&self.call.credential, used) {
            (Credential::Tokens(tokens), Some(used)) => tokens.replace(&used, refused).await,
            _ => Err(refused),
        }
    }
}
