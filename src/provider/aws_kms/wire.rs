//! Requests and answers of AWS KMS as JSON (`application/x-amz-json-1.1`), and what is checked of an answer before anything
//! is believed.

use super::arn::KeyArn;
use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength};
use crate::provider::http::body::wiped;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// The operations of AWS KMS that a provider calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    GenerateDataKey,
    Encrypt,
    Decrypt,
    ReEncrypt,
    DescribeKey,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "GenerateDataKey",
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
            Self::ReEncrypt => "ReEncrypt",
            Self::DescribeKey => "DescribeKey",
        }
    }

    /// The header `X-Amz-Target`.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::GenerateDataKey => "TrentService.GenerateDataKey",
            Self::Encrypt => "TrentService.Encrypt",
            Self::Decrypt => "TrentService.Decrypt",
            Self::ReEncrypt => "TrentService.ReEncrypt",
            Self::DescribeKey => "TrentService.DescribeKey",
        }
    }
}

/// A request's JSON. Wiped on drop, since one of them holds a data key.
pub(super) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    pub(super) fn generate(key: &KeyArn, length: DataKeyLength, context: &KmsContext, grants: &Grants) -> Result<Self> {
        let number_of_bytes = Some(length.bytes());
        Self::of(&Request { number_of_bytes, ..Request::on(key, context, grants) })
    }

    /// The data key goes in last and in place, so that no copy of it is left behind.
    pub(super) fn encrypt(key: &KeyArn, data_key: &DataKey, context: &KmsContext, grants: &Grants) -> Result<Self> {
        let mut open = serde_json::to_vec(&Request::on(key, context, grants)).map_err(unwritable)?;
        open.pop();
        let text = Zeroizing::new(STANDARD.encode(data_key.expose()));
        let mut body = Zeroizing::new(Vec::with_capacity(open.len() + text.len() + 32));
        body.extend_from_slice(&open);
        body.extend_from_slice(b",\"Plaintext\":\"");
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(b"\"}");
        Ok(Self(body))
    }

    pub(super) fn decrypt(key: &KeyArn, blob: &[u8], context: &KmsContext, grants: &Grants) -> Result<Self> {
        let ciphertext_blob = Some(STANDARD.encode(blob));
        Self::of(&Request { ciphertext_blob, ..Request::on(key, context, grants) })
    }

    pub(super) fn re_encrypt(
        source: &KeyArn,
        blob: &[u8],
        destination: &KeyArn,
        context: &KmsContext,
        grants: &Grants,
    ) -> Result<Self> {
        Self::of(&Request {
            source_key_id: Some(source.as_str()),
            destination_key_id: Some(destination.as_str()),
            source_encryption_context: Pairs::of(context),
            destination_encryption_context: Pairs::of(context),
            ciphertext_blob: Some(STANDARD.encode(blob)),
            grant_tokens: grants.for_request(),
            ..Request::default()
        })
    }

    pub(super) fn describe(key: &str, grants: &Grants) -> Result<Self> {
        Self::of(&Request { key_id: Some(key), grant_tokens: grants.for_request(), ..Request::default() })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes for one attempt, wiped when the transport is done with them.
    pub(super) fn for_sending(&self) -> bytes::Bytes {
        wiped(self.0.clone())
    }

    fn of(request: &Request<'_>) -> Result<Self> {
        Ok(Self(Zeroizing::new(serde_json::to_vec(request).map_err(unwritable)?)))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes, ..)", self.0.len())
    }
}

/// Tokens of grants that AWS may not have heard of everywhere yet.
#[derive(Clone, Default)]
pub(super) struct Grants(Vec<Zeroizing<String>>);

impl Grants {
    /// # Errors
    /// Kind InvalidInput for more than ten, or one that is no token.
    pub(super) fn new(tokens: Vec<String>) -> Result<Self> {
        let tokens: Vec<_> = tokens.into_iter().map(Zeroizing::new).collect();
        if tokens.len() > GRANTS_MAX || tokens.iter().any(|token| token.is_empty() || token.len() > GRANT_MAX) {
            return Err(Error::invalid_input(format!(
                "a call takes at most {GRANTS_MAX} grant tokens, of 1 to {GRANT_MAX} characters each"
            ))
            .with_code("InvalidGrantTokenException")
            .with_advice("leave the tokens of older grants out: they are needed for five minutes only"));
        }
        Ok(Self(tokens))
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|token| token.as_bytes())
    }

    fn for_request(&self) -> Vec<&str> {
        self.0.iter().map(|token| token.as_str()).collect()
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grants({})", self.0.len())
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_of_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_context: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_encryption_context: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_encryption_context: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grant_tokens: Vec<&'a str>,
}

impl<'a> Request<'a> {
    fn on(key: &'a KeyArn, context: &'a KmsContext, grants: &'a Grants) -> Self {
        Self {
            key_id: Some(key.as_str()),
            encryption_context: Pairs::of(context),
            grant_tokens: grants.for_request(),
            ..Self::default()
        }
    }
}

/// The KMS context as AWS takes it: an object of strings.
#[derive(Clone, Copy)]
struct Pairs<'a>(&'a KmsContext);

impl<'a> Pairs<'a> {
    /// `None` for no entries, as AWS's own programs leave it out then.
    fn of(context: &'a KmsContext) -> Option<Self> {
        context.iter().next().is_some().then_some(Self(context))
    }
}

impl Serialize for Pairs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::internal(format!("a request cannot be written as JSON: {error}"))
}

/// Every field of an answer that is read, of whatever operation. What else an answer has is skipped; a field that is
/// there twice, or of another type, makes it garbage.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", expecting = "an answer of AWS KMS")]
pub(super) struct Answer {
    key_id: Option<String>,
    source_key_id: Option<String>,
    ciphertext_blob: Option<Blob>,
    plaintext: Option<Plain>,
    key_metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", expecting = "what AWS KMS says of a key")]
struct Metadata {
    arn: Option<String>,
    key_spec: Option<String>,
}

/// Why an answer of status 200 is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is no answer at all: cut off, not JSON, of other types.
    Garbage,
    /// It is one, and not to what was asked.
    Lie(&'static str),
    /// It describes a key of another kind.
    Unfit,
}

impl Answer {
    pub(super) fn parse(body: &[u8]) -> std::result::Result<Self, Flaw> {
        serde_json::from_slice(body).map_err(|_| Flaw::Garbage)
    }

    /// The wrapped data key that was made under `key`.
    pub(super) fn blob(self, key: &KeyArn) -> std::result::Result<Vec<u8>, Flaw> {
        self.is_about(key)?;
        match self.ciphertext_blob {
            // An empty one would mark a recipient that is missing.
            Some(Blob(blob)) if (1..=BLOB_MAX).contains(&blob.len()) => Ok(blob),
            Some(_) => Err(Flaw::Lie("its encrypted data key has no or too many bytes")),
            None => Err(Flaw::Lie("it has no encrypted data key")),
        }
    }

    /// The data key that was asked of `key`, of `length` where the caller knows that.
    pub(super) fn data_key(
        &mut self,
        key: &KeyArn,
        length: Option<DataKeyLength>,
    ) -> std::result::Result<DataKey, Flaw> {
        self.is_about(key)?;
        match self.plaintext.take() {
            Some(Plain::Key(key)) if length.is_none_or(|length| key.expose().len() == length.bytes()) => Ok(key),
            Some(_) => Err(Flaw::Lie("its data key has another length")),
            None => Err(Flaw::Lie("it has no data key")),
        }
    }

    /// What was re-encrypted from `source` to `destination`.
    pub(super) fn re_encrypted(self, source: &KeyArn, destination: &KeyArn) -> std::result::Result<Vec<u8>, Flaw> {
        match self.source_key_id.as_deref() {
            Some(text) if text == source.as_str() => self.blob(destination),
            Some(_) => Err(Flaw::Lie("it is from another key")),
            None => Err(Flaw::Lie("it does not say from which key")),
        }
    }

    /// The key that a name stands for: symmetric, as only those wrap data keys under a context.
    pub(super) fn key(self) -> std::result::Result<KeyArn, Flaw> {
        let metadata = self.key_metadata.ok_or(Flaw::Lie("it describes no key"))?;
        if metadata.key_spec.is_some_and(|spec| spec != "SYMMETRIC_DEFAULT") {
            return Err(Flaw::Unfit);
        }
        metadata.arn.as_deref().and_then(KeyArn::parse).ok_or(Flaw::Lie("it names no key by its ARN"))
    }

    fn is_about(&self, key: &KeyArn) -> std::result::Result<(), Flaw> {
        match self.key_id.as_deref() {
            Some(text) if text == key.as_str() => Ok(()),
            Some(_) => Err(Flaw::Lie("it is of another key")),
            None => Err(Flaw::Lie("it names no key")),
        }
    }
}

/// An encrypted data key, out of base64.
#[derive(Debug)]
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_str(BlobVisitor)
    }
}

struct BlobVisitor;

impl Visitor<'_> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Blob, E> {
        STANDARD.decode(text).map(Blob).map_err(|_| E::custom("no base64"))
    }
}

/// A data key, decoded straight into its place. No error and no `Debug` of it holds a byte.
#[derive(Debug)]
enum Plain {
    Key(DataKey),
    /// 0, or a length that no data key has.
    Other,
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_str(PlainVisitor)
    }
}

struct PlainVisitor;

impl Visitor<'_> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Plain, E> {
        if text.len() > PLAIN_TEXT_MAX {
            return Ok(Plain::Other);
        }
        let mut bytes = Zeroizing::new([0_u8; PLAIN_TEXT_MAX]);
        let length = STANDARD.decode_slice(text, bytes.as_mut_slice()).map_err(|_| E::custom("no base64"))?;
        let key = bytes.get(..length).map(DataKey::from_slice);
        Ok(key.and_then(Result::ok).map_or(Plain::Other, Plain::Key))
    }
}

/// A call takes so many grant tokens (AWS's limit), of so many characters (also AWS's).
const GRANTS_MAX: usize = 10;
const GRANT_MAX: usize = 8_192;
/// Longest ciphertext blob, in bytes (AWS's limit).
pub(super) const BLOB_MAX: usize = 6_144;
/// More base64 than any data key has, in characters.
const PLAIN_TEXT_MAX: usize = 64;
