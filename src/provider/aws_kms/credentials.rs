//! Credentials of AWS: the caller's own, and what is kept of those that a source gave.

use super::source::Source;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use reqsign_aws_v4::Credential;
use reqsign_core::Context;
use reqsign_core::hash::hmac_sha256;
use reqsign_core::time::Timestamp;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

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

/// Credentials as they are used for signing. Wiped on drop.
pub(super) struct Held {
    credential: Credential,
    fetched: Timestamp,
    /// Which ones they are: later ones have a greater number.
    number: u64,
}

impl Held {
    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Until when requests can be signed with them, and from when new ones are looked for: five minutes before, or for
    /// short-lived ones the last quarter.
    fn ends(&self) -> Option<(Timestamp, Timestamp)> {
        let usable = self.credential.expires_in? - HEADROOM;
        let lifetime = usable.as_second().saturating_sub(self.fetched.as_second()).max(0).unsigned_abs();
        Some((usable, usable - RENEW_AHEAD.min(Duration::from_secs(lifetime) / 4)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.credential.secret_access_key.zeroize();
        self.credential.session_token.zeroize();
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, until {:?}, ..)", self.credential.access_key_id.escape_debug(), self.credential.expires_in)
    }
}

/// A source of credentials and what it gave last, for any number of callers: one asks the source, ahead of the end, while
/// the others go on with what there is; only where nothing can be used any more do all wait.
#[derive(Debug)]
pub(super) struct Credentials {
    source: Source,
    context: Context,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    count: u64,
    /// The source is not asked ahead of the end before then: it failed a moment ago.
    pause: Option<Instant>,
    /// When the source failed last, and how.
    failed: Option<(Instant, Error)>,
}

enum Look {
    Fresh(Arc<Held>),
    Ageing(Arc<Held>),
    Nothing,
}

impl Credentials {
    pub(super) fn new(source: Source, context: Context) -> Self {
        Self { source, context, state: Mutex::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// Whether asking the source again may bring others.
    pub(super) fn can_be_renewed(&self) -> bool {
        self.source.can_be_renewed()
    }

    /// Credentials that are valid now. A source that fails while the last ones are still valid fails nobody.
    ///
    /// # Errors
    /// What the source fails with, where nothing else is left.
    pub(super) async fn current(&self) -> Result<Arc<Held>> {
        match self.look() {
            Look::Fresh(held) => Ok(held),
            Look::Ageing(held) => match self.turn.try_lock() {
                Err(_) => Ok(held),
                Ok(_turn) => match self.look() {
                    Look::Fresh(newer) => Ok(newer),
                    Look::Ageing(_) | Look::Nothing => Ok(self.fetch().await.unwrap_or(held)),
                },
            },
            Look::Nothing => self.replace(None).await,
        }
    }

    /// Asks the source again, unless somebody else has since `refused` was signed with.
    ///
    /// # Errors
    /// As [`current`](Self::current).
    pub(super) async fn renew(&self, refused: u64) -> Result<()> {
        self.replace(Some(refused)).await.map(drop)
    }

    /// Waits for its turn, and for what became of another's.
    async fn replace(&self, refused: Option<u64>) -> Result<Arc<Held>> {
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        match self.look() {
            Look::Fresh(held) | Look::Ageing(held) if refused.is_none_or(|refused| held.number > refused) => Ok(held),
            _ => {
                let known = self.lock().failed.as_ref().filter(|(at, _)| *at >= began).map(|(_, error)| error.again());
                match known {
                    Some(error) => Err(error),
                    None => self.fetch().await,
                }
            }
        }
    }

    fn look(&self) -> Look {
        let state = self.lock();
        let Some(held) = &state.held else { return Look::Nothing };
        let Some((usable, fresh)) = held.ends() else { return Look::Fresh(held.clone()) };
        let now = Timestamp::now();
        if now >= usable {
            return Look::Nothing;
        }
        let failed_lately = state.pause.is_some_and(|until| Instant::now() < until);
        if now < fresh || failed_lately { Look::Fresh(held.clone()) } else { Look::Ageing(held.clone()) }
    }

    /// Asks the source. The caller has the turn.
    async fn fetch(&self) -> Result<Arc<Held>> {
        let outcome = self.source.provide(&self.context).await.and_then(|credential| {
            let fetched = Timestamp::now();
            let held = Held { credential, fetched, number: 0 };
            is_usable(&held, fetched).map(|()| held)
        });
        let mut state = self.lock();
        match outcome {
            Ok(mut held) => {
                state.count += 1;
                held.number = state.count;
                let held = Arc::new(held);
                state.held = Some(held.clone());
                (state.pause, state.failed) = (None, None);
                Ok(held)
            }
            Err(error) => {
                let now = Instant::now();
                state.pause = Some(now + PAUSE);
                state.failed = Some((now, error.again()));
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what no request can be signed with.
fn is_usable(held: &Held, now: Timestamp) -> Result<()> {
    let credential = &held.credential;
    let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_text(&credential.access_key_id)
        || !is_text(&credential.secret_access_key)
        || !credential.session_token.as_deref().is_none_or(is_text)
    {
        return Err(Error::new(ErrorKind::KeyDenied, "the AWS credentials are not of the form that AWS gives them")
            .with_advice("look for a space or a line's end in the access key, its secret or the session token"));
    }
    if held.ends().is_some_and(|(usable, _)| usable <= now) {
        return Err(Error::new(ErrorKind::KeyDenied, "the AWS credentials have expired, or are about to")
            .with_advice("renew them where they come from, and set this machine's clock if it is off"));
    }
    Ok(())
}

/// Tells apart credentials that go by one name, without a secret in what it answers: 0 for the first that this process
/// saw under `name`, 1 for others, and so on.
pub(super) fn fingerprint(name: &str, secrets: &[&[u8]]) -> Result<usize> {
    let mut text = Zeroizing::new(Vec::with_capacity(secrets.iter().map(|secret| secret.len() + 8).sum()));
    for secret in secrets {
        text.extend_from_slice(&(secret.len() as u64).to_be_bytes());
        text.extend_from_slice(secret);
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = match seen.key.take() {
        Some(key) => key,
        None => Secret::<32>::try_init(|bytes| crypto::random::fill(bytes))?,
    };
    let code = hmac_sha256(key.expose(), &text);
    seen.key = Some(key);
    let same_name = seen.codes.iter().filter(|(known, _)| known == name);
    if let Some(at) = same_name.clone().position(|(_, known)| known.ct_eq(&code).into()) {
        return Ok(at);
    }
    let at = same_name.count();
    seen.codes.push((name.to_owned(), code));
    Ok(at)
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { key: None, codes: Vec::new() });

/// Credentials that went by a name, as HMACs under a key that this process drew.
struct Seen {
    key: Option<Secret<32>>,
    codes: Vec<(String, Vec<u8>)>,
}

/// `reqsign` signs with nothing that ends within ten seconds.
const HEADROOM: Duration = Duration::from_secs(11);
const RENEW_AHEAD: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(10);
