//! One call on the KMS of a Region: signed anew for each attempt, its answer judged.

use super::arn::KeyArn;
use super::errors::{judge, refused};
use super::region::region_of_address;
use super::renewal::Credentials;
use super::surroundings::wipe;
use super::wire::{Answer, Body, Flaw, Grants, Operation};
use crate::context::KmsContext;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength};
use crate::provider::http::client::Client;
use crate::provider::http::exchange::{Exchange, Verdict};
use crate::provider::http::transport::TransportFailure;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::hash::hex_sha256;
use reqsign_core::{Context, SignRequest};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The KMS of one Region, as one identity calls it.
pub(super) struct Regional {
    client: Client,
    signer: RequestSigner,
    credentials: Arc<Credentials>,
    grants: Arc<Grants>,
}

impl Regional {
    pub(super) fn new(client: Client, region: &str, credentials: Arc<Credentials>, grants: Arc<Grants>) -> Self {
        Self { client, signer: RequestSigner::new("kms", region), credentials, grants }
    }

    /// Whose credentials sign its calls, for people, once there are some.
    pub(super) fn caller(&self) -> Option<String> {
        self.credentials.told()
    }

    pub(super) fn endpoint(&self) -> &str {
        self.client.endpoint().as_str()
    }

    /// A fresh data key, and the same under `key`.
    pub(super) async fn generate(
        &self,
        key: &KeyArn,
        length: DataKeyLength,
        context: &KmsContext,
    ) -> Result<(DataKey, Vec<u8>)> {
        let body = Body::generate(key, length, context, &self.grants)?;
        let read = |mut answer: Answer| Ok((answer.data_key(key, Some(length))?, answer.blob(key)?));
        self.call(Operation::GenerateDataKey, key.as_str(), body, read).await
    }

    pub(super) async fn encrypt(&self, key: &KeyArn, data_key: &DataKey, context: &KmsContext) -> Result<Vec<u8>> {
        let body = Body::encrypt(key, data_key, context, &self.grants)?;
        self.call(Operation::Encrypt, key.as_str(), body, |answer| answer.blob(key)).await
    }

    pub(super) async fn decrypt(&self, key: &KeyArn, blob: &[u8], context: &KmsContext) -> Result<DataKey> {
        let body = Body::decrypt(key, blob, context, &self.grants)?;
        self.call(Operation::Decrypt, key.as_str(), body, |mut answer| answer.data_key(key, None)).await
    }

    pub(super) async fn re_encrypt(
        &self,
        source: &KeyArn,
        blob: &[u8],
        destination: &KeyArn,
        context: &KmsContext,
    ) -> Result<Vec<u8>> {
        let body = Body::re_encrypt(source, blob, destination, context, &self.grants)?;
        let read = |answer: Answer| answer.re_encrypted(source, destination);
        self.call(Operation::ReEncrypt, destination.as_str(), body, read).await
    }

    /// The symmetric key that `name` stands for.
    pub(super) async fn describe(&self, name: &str) -> Result<KeyArn> {
        let body = Body::describe(name, &self.grants)?;
        self.call(Operation::DescribeKey, name, body, Answer::key).await
    }

    async fn call<A: Send>(
        &self,
        operation: Operation,
        subject: &str,
        body: Body,
        read: impl Fn(Answer) -> Result<A, Flaw> + Send + Sync,
    ) -> Result<A> {
        let call = Call {
            regional: self,
            operation,
            subject,
            body,
            read,
            signed_with: AtomicU64::new(0),
            refusal: Mutex::default(),
        };
        self.client.call(&call).await
    }

    async fn signed(&self, operation: Operation, body: &Body, signed_with: &AtomicU64) -> Result<Request<Bytes>> {
        let unsignable = |error: http::Error| {
            Error::invalid_input("no request can be made for the address of the KMS").with_source(error)
        };
        // With this header the signature covers the body: without it, `reqsign` signs "UNSIGNED-PAYLOAD".
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/", self.endpoint()))
            .header(CONTENT_TYPE, CONTENT)
            .header("x-amz-target", operation.target())
            .header("x-amz-content-sha256", hex_sha256(body.as_bytes()))
            .body(())
            .map_err(unsignable)?;
        let (mut parts, ()) = request.into_parts();
        let held = self.credentials.current().await?;
        let signed = self.signer.sign_request(&Context::new(), &mut parts, Some(held.credential()), None).await;
        signed.map_err(|error| {
            // Only its kind: what it says may repeat a header.
            Error::new(ErrorKind::KeyDenied, format!("the request cannot be signed ({:?})", error.kind()))
                .with_advice("check the AWS credentials for characters that do not belong there")
        })?;
        signed_with.store(held.number(), Ordering::Relaxed);
        // Proxies change it, so it is not among what is signed.
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        Ok(Request::from_parts(parts, body.for_sending()))
    }
}

impl fmt::Debug for Regional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regional").field(&self.endpoint()).finish()
    }
}

/// A call under way.
struct Call<'a, F> {
    regional: &'a Regional,
    operation: Operation,
    subject: &'a str,
    body: Body,
    read: F,
    /// The number of the credentials that the last attempt was signed with.
    signed_with: AtomicU64,
    /// What was said against them.
    refusal: Mutex<Option<Error>>,
}

#[async_trait]
impl<A: Send, F: Fn(Answer) -> Result<A, Flaw> + Send + Sync> Exchange for Call<'_, F> {
    type Answer = A;

    fn operation(&self) -> &'static str {
        self.operation.name()
    }

    fn system(&self) -> Option<&'static str> {
        Some("aws-api")
    }

    fn subject(&self) -> String {
        self.subject.to_owned()
    }

    fn may_hedge(&self) -> bool {
        matches!(self.operation, Operation::Decrypt | Operation::DescribeKey)
    }

    async fn request(&self) -> Result<Request<Bytes>> {
        self.regional.signed(self.operation, &self.body, &self.signed_with).await
    }

    fn judge(&self, response: Response<Bytes>) -> Verdict<A> {
        let (parts, body) = response.into_parts();
        let verdict = if parts.status == StatusCode::OK {
            match Answer::parse(&body).and_then(&self.read) {
                Ok(answer) => Verdict::Done(answer),
                Err(flaw) => refused(self.operation, self.subject, &flaw),
            }
        } else {
            judge(self.operation, self.subject, parts.status, &parts.headers, &body)
        };
        // It may hold a data key.
        wipe(body);
        match verdict {
            Verdict::Renew(error) if !self.regional.credentials.can_be_renewed() => Verdict::Fail(error),
            Verdict::Renew(error) => {
                *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.again());
                Verdict::Renew(error)
            }
            verdict => verdict,
        }
    }

    fn advice(&self, failure: TransportFailure) -> Option<String> {
        let region = region_of_address(self.regional.endpoint())?;
        (failure == TransportFailure::Dns).then(|| {
            format!(
                "is {region} a Region? See AWS_REGION, the profile and the key's ARN; if it is one, check this machine's resolver"
            )
        })
    }

    async fn renew(&self) -> Result<()> {
        let has_others = self.regional.credentials.renew(self.signed_with.load(Ordering::Relaxed)).await?;
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The same ones would be refused again.
        refusal.filter(|_| !has_others).map_or(Ok(()), Err)
    }
}

const CONTENT: &str = "application/x-amz-json-1.1";
const AGENT: &str = concat!("envelock/", env!("CARGO_PKG_VERSION"));
