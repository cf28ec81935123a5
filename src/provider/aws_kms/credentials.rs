//! Credentials that the caller gives, and how any are told apart without showing a secret.

use crate::crypto;
use crate::error::Result;
use crate::secret::Secret;
use reqsign_aws_v4::Credential;
use reqsign_core::hash::hmac_sha256;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// An access key of AWS that the caller gives, with a session token where it is a temporary one.
///
/// Wiped on drop; `Debug` shows the access key id, which is no secret. It is never renewed: for credentials that end,
/// let envelock find them itself (the default), or give new ones to a new provider.
///
/// ```
/// use envelock::AwsCredentials;
/// let credentials = AwsCredentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
/// assert!(!format!("{credentials:?}").contains("wJal"));
/// ```
#[derive(Clone)]
pub struct AwsCredentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl AwsCredentials {
    /// An access key and its secret.
    #[must_use]
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        let secret_access_key = Zeroizing::new(secret_access_key.into());
        Self { access_key_id: access_key_id.into(), secret_access_key, session_token: None }
    }

    /// The same with the token of a temporary access key.
    #[must_use]
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Zeroizing::new(token.into()));
        self
    }

    pub(super) fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Every secret of them, for [`fingerprint`].
    pub(super) fn secrets(&self) -> Vec<&[u8]> {
        let token = self.session_token.as_ref().map_or(&[][..], |token| token.as_bytes());
        vec![self.secret_access_key.as_bytes(), token]
    }

    pub(super) fn credential(&self) -> Credential {
        Credential {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.to_string(),
            session_token: self.session_token.as_ref().map(|token| token.to_string()),
            expires_in: None,
        }
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsCredentials({}, ..)", self.access_key_id.escape_debug())
    }
}

/// A number for credentials that go by `name`: the same for the same secrets, another for others. No secret follows from it.
///
/// It is kept for the last few thousand; one that has been forgotten gets another number, which shares less and never more.
///
/// # Errors
/// Kind RandomFailed.
pub(super) fn fingerprint(name: &str, secrets: &[&[u8]]) -> Result<u64> {
    let all = || [name.as_bytes()].into_iter().chain(secrets.iter().copied());
    let mut text = Zeroizing::new(Vec::with_capacity(all().map(|part| part.len() + 8).sum()));
    for part in all() {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = match seen.key.take() {
        Some(key) => key,
        None => Secret::<32>::try_init(|bytes| crypto::random::fill(bytes))?,
    };
    let code = hmac_sha256(key.expose(), &text);
    seen.key = Some(key);
    if let Some((_, number)) = seen.codes.iter().find(|(known, _)| known.ct_eq(&code).into()) {
        return Ok(*number);
    }
    seen.count += 1;
    let number = seen.count;
    seen.codes.push_front((code, number));
    seen.codes.truncate(SEEN_MAX);
    Ok(number)
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { key: None, count: 0, codes: VecDeque::new() });

/// Credentials as HMACs under a key that this process drew, each with its number.
struct Seen {
    key: Option<Secret<32>>,
    count: u64,
    codes: VecDeque<(Vec<u8>, u64)>,
}

const SEEN_MAX: usize = 4_096;
