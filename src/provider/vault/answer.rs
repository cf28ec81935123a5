//! Answers of the server: JSON from whoever answers at that address, to types.
//!
//! What may be secret is read in place and never through a value that JSON's parser owns: a plaintext with an escape in it,
//! which no base64 needs, is refused.

use super::slot::Ciphertext;
use crate::error::{Error, Result};
use crate::material::DataKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// Most bytes of an answer that are looked at, whatever the transport brings.
pub(super) const BODY_MAX: usize = 1 << 20;
/// Characters of a server's sentence that are shown.
const SHOWN_MAX: usize = 160;
/// The longest base64 of a data key.
const KEY_TEXT_MAX: usize = 44;

/// Why a body is not the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not the JSON of a Vault: something else answers, or the body was cut.
    Garbage,
    /// It is, and lacks what Transit answers.
    Missing(&'static str),
    /// The server took no notice of what it was told to bind.
    Ignored,
    /// It holds a ciphertext that Transit does not write.
    BadCiphertext,
    /// It holds a plaintext that is no data key.
    BadKey,
}

#[derive(Deserialize)]
struct Answer<D> {
    data: Option<D>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Encrypted<'a> {
    #[serde(borrow)]
    ciphertext: Option<&'a str>,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    #[serde(borrow)]
    plaintext: Option<&'a str>,
}

#[derive(Deserialize)]
struct Batch<T> {
    batch_results: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    plaintext: Option<&'a str>,
    #[serde(borrow)]
    ciphertext: Option<&'a str>,
    error: Option<String>,
}

/// One member of a batch: what came, or the server's sentence.
pub(super) type Member<T> = Result<T, Said>;

/// The ciphertext of `transit/encrypt`.
pub(super) fn encrypted(body: &[u8]) -> Result<String, Unfit> {
    let text = data::<Encrypted<'_>>(body)?.ciphertext.ok_or(Unfit::Missing("ciphertext"))?;
    ciphertext(text)
}

/// The data key of `transit/decrypt`.
pub(super) fn decrypted(body: &[u8]) -> Result<DataKey, Unfit> {
    let text = data::<Decrypted<'_>>(body)?.plaintext.ok_or(Unfit::Missing("plaintext"))?;
    data_key(text)
}

/// Any success of `transit/decrypt`, whatever came.
pub(super) fn opened(body: &[u8]) -> Result<(), Unfit> {
    json::<IgnoredAny>(body).map(drop)
}

/// The ciphertexts of a batch of `len`, in their order.
pub(super) fn encrypted_batch(body: &[u8], len: usize) -> Result<Vec<Member<String>>, Unfit> {
    batch(body, len, |item| ciphertext(item.ciphertext.ok_or(Unfit::Missing("ciphertext"))?))
}

/// The data keys of a batch of `len`, in their order.
pub(super) fn decrypted_batch(body: &[u8], len: usize) -> Result<Vec<Member<DataKey>>, Unfit> {
    batch(body, len, |item| data_key(item.plaintext.ok_or(Unfit::Missing("plaintext"))?))
}

fn batch<T>(body: &[u8], len: usize, read: impl Fn(&Item<'_>) -> Result<T, Unfit>) -> Result<Vec<Member<T>>, Unfit> {
    let items = data::<Batch<Item<'_>>>(body)?.batch_results.ok_or(Unfit::Missing("batch_results"))?;
    if items.len() != len {
        return Err(Unfit::Missing("batch_results of the batch's length"));
    }
    items
        .iter()
        .map(|item| match &item.error {
            Some(error) if !error.is_empty() => Ok(Err(Said::new([error.as_str()], &[]))),
            _ => read(item).map(Ok),
        })
        .collect()
}

/// What a login, or a renewal, gives.
pub(super) struct Granted {
    pub(super) token: Zeroizing<String>,
    /// Seconds; 0 for a token that has no end.
    pub(super) lease: u64,
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct LoginAnswer<'a> {
    #[serde(borrow)]
    auth: Option<Auth<'a>>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    client_token: Option<&'a str>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// The token of a login.
pub(super) fn granted(body: &[u8]) -> Result<Granted, Unfit> {
    let auth = json::<LoginAnswer<'_>>(body)?.auth.ok_or(Unfit::Missing("auth"))?;
    let token = auth.client_token.filter(|token| !token.is_empty()).ok_or(Unfit::Missing("auth.client_token"))?;
    Ok(Granted { token: Zeroizing::new(token.to_owned()), lease: auth.lease_duration, renewable: auth.renewable })
}

#[derive(Deserialize)]
struct Unwrapped<'a> {
    #[serde(borrow)]
    secret_id: Option<&'a str>,
}

/// The secret id out of its wrapping.
pub(super) fn unwrapped(body: &[u8]) -> Result<Zeroizing<String>, Unfit> {
    let text = data::<Unwrapped<'_>>(body)?.secret_id.ok_or(Unfit::Missing("secret_id"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// What `transit/keys/NAME` tells.
#[derive(Deserialize)]
pub(super) struct KeyAnswer {
    #[serde(rename = "type")]
    pub(super) key_type: String,
    #[serde(default)]
    pub(super) latest_version: u32,
    #[serde(default)]
    pub(super) min_decryption_version: u32,
    #[serde(default)]
    pub(super) derived: bool,
}

/// What `auth/token/lookup-self` tells.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    pub(super) display_name: String,
    #[serde(default)]
    pub(super) policies: Vec<String>,
    /// Seconds; 0 for a token that has no end.
    #[serde(default)]
    pub(super) ttl: u64,
}

/// The key of `transit/keys/NAME`.
pub(super) fn key(body: &[u8]) -> Result<KeyAnswer, Unfit> {
    data(body)
}

/// The token of `auth/token/lookup-self`.
pub(super) fn token(body: &[u8]) -> Result<TokenAnswer, Unfit> {
    data(body)
}

/// The `data` of an answer that took notice of all that it was told.
fn data<'a, D: Deserialize<'a>>(body: &'a [u8]) -> Result<D, Unfit> {
    // What is no Transit engine may answer without a word.
    if body.is_empty() {
        return Err(Unfit::Missing("data"));
    }
    let answer = json::<Answer<D>>(body)?;
    let ignored = |warning: &String| {
        let warning = warning.to_ascii_lowercase();
        ["ignored", "unrecognized", "associated_data"].iter().any(|word| warning.contains(word))
    };
    if answer.warnings.is_some_and(|warnings| warnings.iter().any(ignored)) {
        return Err(Unfit::Ignored);
    }
    answer.data.ok_or(Unfit::Missing("data"))
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unfit> {
    // Its parser's error may repeat bytes of the body: nothing of it is kept.
    serde_json::from_slice(body).map_err(|_| Unfit::Garbage)
}

fn ciphertext(text: &str) -> Result<String, Unfit> {
    Ciphertext::parse(text.as_bytes()).map(|it| it.text.to_owned()).ok_or(Unfit::BadCiphertext)
}

fn data_key(text: &str) -> Result<DataKey, Unfit> {
    if text.len() > KEY_TEXT_MAX {
        return Err(Unfit::BadKey);
    }
    let mut key = Zeroizing::new([0; KEY_TEXT_MAX]);
    let len = STANDARD.decode_slice(text, &mut *key).map_err(|_| Unfit::BadKey)?;
    DataKey::from_slice(&key[..len]).map_err(|_: Error| Unfit::BadKey)
}

/// What the server says of a failure: bounded, and without the secrets that it was read with. Only the refusal of a login shows it,
/// and only logins name what they sent: what is said of a data key is looked at and shown to nobody.
#[derive(Default)]
pub(super) struct Said(String);

#[derive(Deserialize)]
struct Failure {
    errors: Option<Vec<String>>,
    request_id: Option<IgnoredAny>,
    warnings: Option<Vec<String>>,
}

impl Said {
    /// `None` if `body` is not the JSON of a Vault.
    pub(super) fn read(body: &[u8], secrets: &[&[u8]]) -> Option<Self> {
        let failure = json::<Failure>(body).ok()?;
        // KV of version 2 answers a path that is none in the form of a success, with a warning and no error.
        let warned = || failure.request_id.map(|_| failure.warnings.unwrap_or_default());
        let sentences = failure.errors.or_else(warned)?;
        Some(Self::new(sentences.iter().map(String::as_str), secrets))
    }

    fn new<'a>(sentences: impl IntoIterator<Item = &'a str>, secrets: &[&[u8]]) -> Self {
        let mut text = String::new();
        let sentences: Vec<&str> = sentences.into_iter().take(4).collect();
        // Nor with white space in it, nor over two sentences.
        let joined = Zeroizing::new(sentences.iter().flat_map(|it| it.split_whitespace()).collect::<String>());
        if secrets.iter().any(|secret| holds(joined.as_bytes(), secret)) {
            return Self("it repeated a secret, which is not shown".to_owned());
        }
        for sentence in sentences {
            if secrets.iter().any(|secret| holds(sentence.as_bytes(), secret)) {
                return Self("it repeated a secret, which is not shown".to_owned());
            }
            let words: Vec<_> = sentence.split_whitespace().take(64).collect();
            text.push_str(if text.is_empty() { "" } else { "; " });
            text.push_str(&words.join(" "));
        }
        let mut shown: String = text.chars().take(SHOWN_MAX).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        Self(shown)
    }

    /// Whether the sentence holds `words`.
    pub(super) fn has(&self, words: &str) -> bool {
        self.0.contains(words)
    }

    /// Whether the sentence is `words`.
    pub(super) fn is(&self, words: &str) -> bool {
        self.0 == words
    }

    /// ` (it says: …)`, escaped, or nothing where nothing was said.
    pub(super) fn shown(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!(" (it says: {})", self.0.escape_debug()) }
    }
}

/// Whether `text` holds `secret`, if that is long enough to be one.
fn holds(text: &[u8], secret: &[u8]) -> bool {
    secret.len() >= 4 && text.windows(secret.len()).any(|window| window == secret)
}

/// For a fuzzer: every reader of answers.
#[cfg(test)]
pub(super) fn read_every_way(body: &[u8]) {
    let _ = encrypted(body);
    let _ = decrypted(body);
    let _ = encrypted_batch(body, 1);
    let _ = decrypted_batch(body, 2);
    let _ = granted(body);
    let _ = unwrapped(body);
    let _ = key(body);
    let _ = token(body);
    let _ = Said::read(body, &[b"secret"]);
}
