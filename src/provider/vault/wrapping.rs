//! A secret id that a wrapping token gives, once.

use super::answer;
use super::call::{Call, Server};
use super::refusal::Purpose;
use super::token::header;
use super::wire::Body;
use crate::error::{Error, ErrorKind, Result};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::Method;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

const PATH: &str = "sys/wrapping/unwrap";

type Work = Shared<BoxFuture<'static, Result<Zeroizing<String>, Arc<Error>>>>;

/// A wrapping token, and what it gave.
pub(super) struct Wrapping {
    token: Zeroizing<String>,
    /// Held here, and not by those alone who wait for it: what a dropped call began, the next one ends.
    work: Mutex<Option<Work>>,
    /// Whether a request may have used the token up without its answer being seen.
    may_be_used: Arc<AtomicBool>,
}

impl Wrapping {
    pub(super) fn new(token: Zeroizing<String>) -> Self {
        Self { token, work: Mutex::new(None), may_be_used: Arc::default() }
    }

    /// The secret id. `once` sends each request once: a second one finds the token used.
    pub(super) async fn unwrap(&self, once: &Server) -> Result<Zeroizing<String>> {
        let work = {
            let mut held = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            match held.as_ref().filter(|work| !matches!(work.peek(), Some(Err(_)))) {
                Some(work) => work.clone(),
                None => {
                    let (once, token) = (once.clone(), self.token.clone());
                    let may_be_used = Arc::clone(&self.may_be_used);
                    let work = async move { ask(&once, &token, &may_be_used).await.map_err(Arc::new) };
                    held.insert(work.boxed().shared()).clone()
                }
            }
        };
        work.await.map_err(|error| error.again())
    }
}

async fn ask(once: &Server, token: &str, may_be_used: &AtomicBool) -> Result<Zeroizing<String>> {
    let (token, body) = (header(token)?, Body::object(&[])?);
    // Until an answer says otherwise.
    let was_lost = may_be_used.swap(true, Ordering::SeqCst);
    let answered = AtomicBool::new(false);
    let read = |body: &[u8]| {
        answered.store(true, Ordering::SeqCst);
        answer::unwrapped(body)
    };
    let call = Call::new(once, PATH, Method::POST, PATH.to_owned())
        .about(Purpose::Login, PATH.to_owned())
        .sending(body)
        .with_token(token);
    let outcome = once.call(&call.reading(&read)).await;
    match outcome {
        Err(error) if error.kind() == ErrorKind::KeyDenied && !answered.load(Ordering::SeqCst) => {
            may_be_used.store(was_lost, Ordering::SeqCst);
            Err(if was_lost { once.asked(Purpose::Login, PATH).unwrapping_lost() } else { error })
        }
        outcome => outcome,
    }
}
