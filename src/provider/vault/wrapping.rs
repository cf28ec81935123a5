//! A secret id that a wrapping token gives, once.

use super::answer;
use super::call::{Call, Server};
use super::refusal::Purpose;
use super::token::header;
use super::wire::Body;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::http::errand::Errand;
use crate::provider::http::transport::{TransportError, TransportFailure};
use http::Method;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

const PATH: &str = "sys/wrapping/unwrap";

/// A wrapping token, and what it gave.
pub(super) struct Wrapping {
    token: Zeroizing<String>,
    state: Arc<Mutex<State>>,
    /// It belongs to nobody who waits for it: what the server gives once is kept, whoever goes away.
    errand: Errand<Zeroizing<String>>,
}

#[derive(Default)]
struct State {
    given: Option<Zeroizing<String>>,
    /// Whether a request may have used the token up without its answer being seen.
    may_be_used: bool,
}

impl Wrapping {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        Self { token, state: Arc::default(), errand: Errand::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.token.is_empty()
    }

    /// The secret id. `once` sends each request once: a second one finds the token used.
    pub(super) async fn unwrap(&self, once: &Server) -> Result<Zeroizing<String>> {
        let (once, token, state) = (once.clone(), self.token.clone(), Arc::clone(&self.state));
        let work = || async move {
            if let Some(given) = &lock(&state).given {
                return Ok(given.clone());
            }
            let given = ask(&once, &token, &state).await?;
            Ok(lock(&state).given.insert(given).clone())
        };
        self.errand.join(work).await
    }
}

async fn ask(once: &Server, token: &str, state: &Mutex<State>) -> Result<Zeroizing<String>> {
    let call = Call::new(once, PATH, Method::POST, PATH.to_owned())
        .about(Purpose::Login, PATH.to_owned())
        .sending(Body::object(&[])?)
        .with_token(header(token)?);
    let call = call.reading(&answer::unwrapped);
    // Until it is known better.
    let was_lost = std::mem::replace(&mut lock(state).may_be_used, true);
    let error = match once.call(&call).await {
        Ok(given) => return Ok(given),
        Err(error) => error,
    };
    if call.may_be_done() || may_have_arrived(&error) {
        return Err(error);
    }
    lock(state).may_be_used = was_lost;
    let is_lost = was_lost && error.kind() == ErrorKind::KeyDenied;
    Err(if is_lost { once.asked(Purpose::Login, PATH).unwrapping_lost() } else { error })
}

/// Whether a request that got no answer may have come to the server.
fn may_have_arrived(error: &Error) -> bool {
    use TransportFailure::{Broken, Connect, Dns, NotHttp, Timeout, Tls, TooLarge, Unusable};
    match error.source().and_then(|source| source.downcast_ref::<TransportError>()).map(TransportError::failure) {
        Some(Timeout | Broken | NotHttp | TooLarge) => true,
        // It was held back, or waited for its turn.
        Some(Dns | Connect | Tls | Unusable) | None => false,
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
