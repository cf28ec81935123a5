//! The token that requests carry, and how it is got, prolonged and replaced.
//!
//! No timer renews a token: a call does so that comes when two thirds of its life are over. One call begins it and waits for it a
//! little, the others go on with the token that is still good, and so does that one where the renewal fails or takes long; it goes on
//! without them. Where one token after the other is refused, logins become rarer: each makes a token that lives on at the server.

use super::answer;
use super::auth::{How, VaultAuth, read};
use super::call::{Call, Server};
use super::refusal::Purpose;
use super::wire::Body;
use crate::clock::Clock;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::http::body::wiped;
use crate::provider::http::errand::Errand;
use futures_util::future::{Either, select};
use http::{HeaderValue, Method};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How long a call waits for a renewal while the old token is still good, or a quarter of what calls may take if that is less.
const RENEWAL_WAIT: Duration = Duration::from_secs(2);
/// How long nobody tries again after a renewal that failed.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);
/// A token that is refused so soon after its login will not be helped by another.
const JUST_MADE: Duration = Duration::from_secs(1);
/// The longest time in which no other login is tried, where one token after the other is refused.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// A token that was refused at this age, or at twice the time that was waited for it, has served.
const SERVED: Duration = Duration::from_secs(60);

/// A token, and until when it is good.
pub(super) struct Token {
    /// Wiped with its last clone.
    header: HeaderValue,
    made: Duration,
    life: Option<Life>,
}

struct Life {
    /// How long it was granted for at its login.
    full: Duration,
    renew_from: Duration,
    ends: Duration,
    renewable: bool,
}

impl Token {
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.header.as_bytes()
    }

    fn is_good(&self, now: Duration) -> bool {
        self.life.as_ref().is_none_or(|life| now < life.ends)
    }

    fn is_to_be_renewed(&self, now: Duration) -> bool {
        self.life.as_ref().is_some_and(|life| now >= life.renew_from)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// `token` as a header's value, if it can be one.
pub(super) fn header(token: &str) -> Result<HeaderValue> {
    let bytes = wiped(Zeroizing::new(token.as_bytes().to_vec()));
    let bad = || {
        Error::invalid_input("the token for the Vault is not a token: it is empty or has characters that none has")
            .with_advice("give the token alone, as `bao login -method=… -field=token` prints it")
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    let mut header = HeaderValue::from_maybe_shared(bytes).map_err(|_| bad())?;
    header.set_sensitive(true);
    Ok(header)
}

/// The provider's token. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    auth: VaultAuth,
    logins: Logins,
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
    errand: Errand<Arc<Token>>,
}

/// Where logins go, by clients of their own: a login never waits for the calls that wait for it.
pub(super) struct Logins {
    pub(super) server: Server,
    /// Sends each request once.
    pub(super) once: Server,
}

struct Held {
    token: Option<Arc<Token>>,
    /// Until then nobody tries again, after a renewal that failed.
    not_before: Duration,
    /// How old a token must be to be replaced when it is refused.
    patience: Duration,
    /// Whether the token was refused, and was too young to be replaced.
    refused: bool,
}

impl Tokens {
    /// The tokens that `auth` gives. A token that was given is looked at here.
    pub(super) fn new(auth: VaultAuth, logins: Logins, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut held = Held { token: None, not_before: Duration::ZERO, patience: JUST_MADE, refused: false };
        if let How::Token(token) = auth.how() {
            held.token = Some(Arc::new(Token { header: header(token)?, made: clock.now(), life: None }));
        }
        Ok(Self(Arc::new(Inner { auth, logins, clock, held: Mutex::new(held), errand: Errand::new() })))
    }

    pub(super) fn auth(&self) -> &VaultAuth {
        &self.0.auth
    }

    /// A token that is good now.
    pub(super) async fn current(&self) -> Result<Arc<Token>> {
        let now = self.0.clock.now();
        let (token, renews) = {
            let held = self.0.held();
            let renews = held.token.as_ref().is_some_and(|token| token.is_good(now) && token.is_to_be_renewed(now))
                && now >= held.not_before
                // Whoever began it waits for it, or did.
                && !self.0.errand.is_under_way();
            (held.token.clone(), renews)
        };
        match token {
            Some(token) if !token.is_good(now) => self.obtain().await,
            Some(token) if !renews => Ok(token),
            Some(token) => {
                let client = self.0.logins.server.client();
                let wait = RENEWAL_WAIT.min(client.total() / 4);
                match select(Box::pin(self.obtain()), client.transport().sleep(wait)).await {
                    Either::Left((Ok(renewed), _)) => Ok(renewed),
                    // It is good for a while yet: the call goes on with it.
                    Either::Left((Err(_), _)) | Either::Right(_) => Ok(token),
                }
            }
            None => self.obtain().await,
        }
    }

    /// After the server has refused `used`: a token that is another, or else an error, which is `refused` where there is
    /// nothing to be done.
    pub(super) async fn replace(&self, used: &Arc<Token>, refused: Error) -> Result<()> {
        {
            let mut held = self.0.held();
            match &held.token {
                // Somebody else was here before.
                Some(token) if !Arc::ptr_eq(token, used) => return Ok(()),
                _ if matches!(self.0.auth.how(), How::Token(_)) => return Err(refused),
                _ if !self.0.auth.logs_in() => held.token = None,
                _ => {
                    let age = self.0.clock.now().saturating_sub(used.made);
                    if age < held.patience {
                        held.refused = true;
                        return Err(refused);
                    }
                    let served = age >= SERVED.max(held.patience * 2);
                    held.patience = if served { JUST_MADE } else { PATIENCE_MAX.min(held.patience * 2) };
                    held.token = None;
                }
            }
        }
        let token = self.obtain().await?;
        if !self.0.auth.logs_in() && bool::from(token.secret().ct_eq(used.secret())) {
            return Err(refused);
        }
        Ok(())
    }

    async fn obtain(&self) -> Result<Arc<Token>> {
        let inner = Arc::clone(&self.0);
        self.0.errand.join(|| async move { inner.obtain().await }).await
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On an errand.
    async fn obtain(&self) -> Result<Arc<Token>> {
        let outcome = self.obtained().await;
        if outcome.is_err() {
            self.held().not_before = self.clock.now().saturating_add(RENEWAL_PAUSE);
        }
        outcome
    }

    async fn obtained(&self) -> Result<Arc<Token>> {
        let asked_at = self.clock.now();
        let (old, not_before) = {
            let held = self.held();
            (held.token.clone().filter(|token| token.is_good(asked_at)), held.not_before)
        };
        let mut renewed = None;
        if let Some(old) = &old {
            // Another errand may have ended since this one was wanted.
            if !old.is_to_be_renewed(asked_at) || asked_at < not_before {
                return Ok(Arc::clone(old));
            }
            renewed = match self.renew(old, asked_at).await {
                // It took so long that the token has ended, or was refused, meanwhile.
                Err(_) if !self.held().token.as_ref().is_some_and(|token| token.is_good(self.clock.now())) => None,
                renewed => renewed?,
            };
        }
        let token = match renewed {
            Some(token) => token,
            None => self.log_in().await?,
        };
        let token = Arc::new(token);
        let mut held = self.held();
        held.not_before = Duration::ZERO;
        if held.token.is_some() && !held.refused {
            // The one before came to its end in peace: nobody took it away.
            held.patience = JUST_MADE;
        }
        held.refused = false;
        held.token = Some(Arc::clone(&token));
        Ok(token)
    }

    async fn log_in(&self) -> Result<Token> {
        let asked_at = self.clock.now();
        if let How::TokenFile(path) = self.auth.how() {
            let token = read(path, "the token for the Vault").await?;
            return Ok(Token { header: header(&token)?, made: asked_at, life: None });
        }
        let granted = self.auth.log_in(&self.logins.server, &self.logins.once).await?;
        let life = life(asked_at, &granted, Duration::from_secs(granted.lease))?;
        Ok(Token { header: header(&granted.token)?, made: asked_at, life })
    }

    /// `None` where only a login helps: the token cannot be renewed, or is near the end of all renewals.
    async fn renew(&self, old: &Token, asked_at: Duration) -> Result<Option<Token>> {
        let Some(before) = old.life.as_ref().filter(|life| life.renewable) else { return Ok(None) };
        let call =
            Call::new(&self.logins.server, "auth/token/renew-self", Method::POST, "auth/token/renew-self".to_owned())
                .about(Purpose::Login, "auth/token".to_owned())
                .sending(Body::object(&[])?)
                .with_token(old.header());
        match self.logins.server.call(&call.reading(&answer::granted)).await {
            // "The maximum TTL" shortens the last renewals.
            Ok(granted) if granted.lease != 0 && Duration::from_secs(granted.lease) < before.full / 2 => Ok(None),
            Ok(granted) => {
                let life = life(asked_at, &granted, before.full)?;
                Ok(Some(Token { header: header(&granted.token)?, made: asked_at, life }))
            }
            Err(error) if error.kind() == ErrorKind::KeyDenied => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The life of a token that was asked for at `asked_at`: what the way there took is not part of it.
fn life(asked_at: Duration, granted: &answer::Granted, full: Duration) -> Result<Option<Life>> {
    if granted.lease == 0 {
        return Ok(None);
    }
    let lease = Duration::from_secs(granted.lease);
    // Between 60 and 73 %: a fleet that started together does not renew together.
    let mut jitter = [0];
    crypto::random::fill(&mut jitter)?;
    let share = 0.6 + f64::from(jitter[0]) / 1_920.0;
    Ok(Some(Life {
        full,
        renew_from: asked_at.saturating_add(lease.min(FOREVER).mul_f64(share)),
        ends: asked_at.saturating_add(lease),
        renewable: granted.renewable,
    }))
}

/// Longer than any lease: a server may say any number.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
