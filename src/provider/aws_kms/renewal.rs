//! What is kept of the credentials that a source gave, and their renewal.
//!
//! A source is asked on a thread of its own, in the runtime of calls that have none: so that a call which is dropped, or not
//! polled any more, or at the end of its time neither holds others up nor undoes what was under way; and so that a renewal
//! ahead of the end costs no call any time. That runtime stays, and with it the transport's client and connections.

use super::credentials::AwsCredentials;
use super::source::Source;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::worker::{self, network};
use futures_channel::oneshot;
use reqsign_aws_v4::Credential;
use reqsign_core::Context;
use reqsign_core::time::Timestamp;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Credentials as they are used for signing. Wiped on drop.
pub(super) struct Held {
    credential: Credential,
    /// When they were got, in seconds since the Unix epoch.
    got: i64,
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

    /// Until which second requests can be signed with them, and from which on new ones are looked for: five minutes before,
    /// or for short-lived ones the last quarter. Whole numbers, since a source may name any date there is.
    fn ends(&self) -> Option<(i64, i64)> {
        let usable = self.credential.expires_in?.as_second().saturating_sub(HEADROOM);
        let lifetime = usable.saturating_sub(self.got).max(0);
        Some((usable, usable.saturating_sub(RENEW_AHEAD.min(lifetime / 4))))
    }

    fn is_same_as(&self, other: &Self) -> bool {
        let (one, other) = (&self.credential, &other.credential);
        let same = |one: &str, other: &str| bool::from(one.as_bytes().ct_eq(other.as_bytes()));
        let tokens = match (&one.session_token, &other.session_token) {
            (None, None) => true,
            (Some(one), Some(other)) => same(one, other),
            _ => false,
        };
        one.access_key_id == other.access_key_id && same(&one.secret_access_key, &other.secret_access_key) && tokens
    }

    /// Refuses what no request can be signed with.
    fn check(&self) -> Result<()> {
        let credential = &self.credential;
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text(&credential.access_key_id)
            || !is_text(&credential.secret_access_key)
            || !credential.session_token.as_deref().is_none_or(is_text)
        {
            return Err(Error::new(
                ErrorKind::KeyDenied,
                "the AWS credentials are not of the form that AWS gives them",
            )
            .with_advice("look for a space or a line's end in the access key, its secret or the session token"));
        }
        if self.ends().is_some_and(|(usable, _)| usable <= self.got) {
            return Err(Error::new(ErrorKind::KeyDenied, "the AWS credentials have expired, or are about to")
                .with_advice("renew them where they come from, and set this machine's clock if it is off"));
        }
        Ok(())
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

/// A source of credentials and what it gave last, for any number of callers.
#[derive(Debug)]
pub(super) struct Credentials {
    source: Source,
    context: Context,
    state: Mutex<State>,
}

/// Where those who wait are told what the source gave.
type Waiting = Vec<oneshot::Sender<Result<Arc<Held>>>>;

#[derive(Debug, Default)]
struct State {
    held: Option<Arc<Held>>,
    count: u64,
    /// Those who wait for the source, if it is being asked: by this process, as a fork has no such thread.
    under_way: Option<(u32, Waiting)>,
    /// The source is not asked again before then, unless there is nothing left: it has just failed, or had nothing new.
    pause: Option<Instant>,
    /// No refusal by the KMS has it asked before then, whatever it gave the last time: where every one is refused, as behind a
    /// proxy that changes requests, each call would ask it otherwise.
    refused: Option<Instant>,
}

enum Look {
    Fresh(Arc<Held>),
    Ageing(Arc<Held>),
    Nothing,
}

impl Credentials {
    pub(super) fn new(source: Source, context: Context) -> Self {
        Self { source, context, state: Mutex::default() }
    }

    /// Whose are used, for people: the id is no secret. `None` where the source has given none yet.
    pub(super) fn told(&self) -> Option<String> {
        let id = match &self.source {
            Source::Given(given) => given.access_key_id().to_owned(),
            Source::Found(_) | Source::Role { .. } => self.lock().held.as_ref()?.credential.access_key_id.clone(),
        };
        Some(format!("the access key {} {}", id.escape_debug(), self.source.told()))
    }

    /// Whether asking the source again may bring others.
    pub(super) fn can_be_renewed(&self) -> bool {
        self.source.can_be_renewed()
    }

    /// Credentials that are valid now. Ahead of their end new ones are got meanwhile, and whatever becomes of that, this call
    /// goes on with what there is.
    ///
    /// # Errors
    /// What the source fails with, where nothing else is left.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<Held>> {
        // No thread for what is at hand.
        if let Source::Given(given) = &self.source {
            return self.given(given);
        }
        let answer = {
            let mut state = self.lock();
            match look(&state) {
                Look::Fresh(held) => return Ok(held),
                Look::Ageing(held) => {
                    // Nobody waits for it.
                    if !is_under_way(&state) {
                        drop(self.ask(&mut state));
                    }
                    return Ok(held);
                }
                Look::Nothing => self.ask(&mut state),
            }
        };
        answered(answer.await)
    }

    /// Asks the source again, unless somebody else has since those of number `refused` were signed with, or a refusal has had it
    /// asked within ten seconds. Whether there are others now.
    ///
    /// # Errors
    /// As [`current`](Self::current).
    pub(super) async fn renew(self: &Arc<Self>, refused: u64) -> Result<bool> {
        let answer = {
            let mut state = self.lock();
            if state.held.as_ref().is_some_and(|held| held.number > refused) {
                return Ok(true);
            }
            if is_paused(&state) {
                return Ok(false);
            }
            // What is on its way costs nothing to wait for.
            if !is_under_way(&state) {
                let now = Instant::now();
                if state.refused.is_some_and(|until| now < until) {
                    return Ok(false);
                }
                state.refused = Some(now + PAUSE);
            }
            self.ask(&mut state)
        };
        Ok(answered(answer.await)?.number > refused)
    }

    fn given(&self, given: &AwsCredentials) -> Result<Arc<Held>> {
        let mut state = self.lock();
        if let Some(held) = &state.held {
            return Ok(held.clone());
        }
        let held = Held { credential: given.credential(), got: Timestamp::now().as_second(), number: 1 };
        held.check()?;
        Ok(state.held.insert(Arc::new(held)).clone())
    }

    /// Waits for the source's answer, which is on its way or is sent for.
    fn ask(self: &Arc<Self>, state: &mut State) -> oneshot::Receiver<Result<Arc<Held>>> {
        let (sender, receiver) = oneshot::channel();
        let process = std::process::id();
        match &mut state.under_way {
            Some((asking, waiting)) if *asking == process => waiting.push(sender),
            under_way => {
                *under_way = Some((process, vec![sender]));
                let credentials = self.clone();
                let thread = std::thread::Builder::new().name("envelock-aws-credentials".into());
                if thread.spawn(move || credentials.run()).is_err() {
                    // Those who wait are told by their senders' end.
                    state.under_way = None;
                }
            }
        }
        receiver
    }

    /// On the thread.
    fn run(&self) {
        // Nothing in here panics; if something below does, nobody shall wait for it.
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.asked()));
        self.finished(asked.unwrap_or_else(|_| Err(Error::internal("a source of AWS credentials panicked"))));
    }

    fn asked(&self) -> Result<Credential> {
        let runtime = worker::waiting(network::runtime);
        let runtime = runtime.map_err(|error| Error::io("AWS credentials cannot be asked for", error))?;
        let runtime = runtime.ok_or_else(|| Error::internal("a thread that waits has no runtime"))?;
        runtime.block_on(async {
            let asking = tokio::time::timeout(ASK_MAX, self.asked_several_times());
            asking.await.unwrap_or_else(|_| {
                let message = format!("AWS credentials cannot be got: no answer within {} s", ASK_MAX.as_secs());
                Err(Error::new(ErrorKind::Unavailable, message).with_advice("try again; look at where they come from"))
            })
        })
    }

    /// A failure that passes is no reason for a call to fail.
    async fn asked_several_times(&self) -> Result<Credential> {
        for pause in BETWEEN {
            match self.source.provide(&self.context).await {
                Err(error) if error.is_retryable() => {
                    let mut chance = [0];
                    crypto::random::fill(&mut chance)?;
                    tokio::time::sleep(pause.mul_f32(f32::from(chance[0]) / 255.0)).await;
                }
                outcome => return outcome,
            }
        }
        self.source.provide(&self.context).await
    }

    /// Keeps what was answered, and tells those who wait.
    fn finished(&self, outcome: Result<Credential>) {
        let outcome = outcome.and_then(|credential| {
            let new = Held { credential, got: Timestamp::now().as_second(), number: 0 };
            new.check().map(|()| new)
        });
        let mut state = self.lock();
        state.pause = Some(Instant::now() + PAUSE);
        let answer = outcome.map(|mut new| {
            new.number = match state.held.as_ref().filter(|held| held.is_same_as(&new)) {
                // Nothing new, though perhaps with a later end.
                Some(held) => held.number,
                None => {
                    state.pause = None;
                    state.count += 1;
                    state.count
                }
            };
            state.held.insert(Arc::new(new)).clone()
        });
        let waiting = state.under_way.take().map(|(_, waiting)| waiting).unwrap_or_default();
        drop(state);
        for waiter in waiting {
            // One that is gone needs no answer.
            let _ = waiter.send(answer.as_ref().map_err(Error::again).cloned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(state: &State) -> Look {
    let Some(held) = &state.held else { return Look::Nothing };
    let Some((usable, fresh)) = held.ends() else { return Look::Fresh(held.clone()) };
    let now = Timestamp::now().as_second();
    if now >= usable {
        Look::Nothing
    } else if now < fresh || is_paused(state) {
        Look::Fresh(held.clone())
    } else {
        Look::Ageing(held.clone())
    }
}

fn is_under_way(state: &State) -> bool {
    state.under_way.as_ref().is_some_and(|(process, _)| *process == std::process::id())
}

fn is_paused(state: &State) -> bool {
    state.pause.is_some_and(|until| Instant::now() < until)
}

fn answered(answer: Result<Result<Arc<Held>>, oneshot::Canceled>) -> Result<Arc<Held>> {
    answer.unwrap_or_else(|oneshot::Canceled| {
        Err(Error::new(ErrorKind::Unavailable, "no thread could be started to ask for AWS credentials")
            .with_advice("try again, and look at the limit of threads if it persists"))
    })
}

/// `reqsign` signs with nothing that ends within ten seconds. In seconds.
const HEADROOM: i64 = 11;
/// In seconds.
const RENEW_AHEAD: i64 = 300;
const PAUSE: Duration = Duration::from_secs(10);
/// The most that all attempts may take: a role of a role, each with an STS that is slow.
const ASK_MAX: Duration = Duration::from_secs(60);
/// The longest pauses before a second and a third attempt.
const BETWEEN: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_500)];
