//! Calls on the keystore: who asks for what, what becomes of it, and who waits for the answer.

use super::group::Group;
use super::tx::Tx;
use crate::context::KmsContext;
use crate::error::{Error, Result};
use futures_channel::oneshot;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::{Arc, mpsc};

/// What the audit trail says of a call besides who made it, when, and what became of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    /// The key that it is about; empty if it is about none, or none was found.
    pub(super) key_id: String,
    /// What was asked for, in CloudTrail's words; never a secret.
    pub(super) parameters: Map<String, Value>,
    /// AWS's name for an answer that is a refusal and no error of ours.
    pub(super) refused: Option<&'static str>,
}

impl Event {
    /// Notes what was asked for, or what came of it.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.parameters.insert(name.to_owned(), short(value.into()));
    }
}

/// An operation by its AWS name, and who asks for it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) principal: Arc<str>,
    pub(super) parameters: Map<String, Value>,
}

impl Call {
    pub(super) fn new(name: &'static str, principal: &Arc<str>) -> Self {
        Self { name, principal: Arc::clone(principal), parameters: Map::new() }
    }

    /// With a request parameter, which must be no secret.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.to_owned(), short(value.into()));
        self
    }

    /// With a policy as it is, which is bounded by itself.
    pub(super) fn policy(mut self, text: &str) -> Self {
        self.parameters.insert("policy".to_owned(), Value::from(text));
        self
    }

    /// With the name that the caller gave the key.
    pub(super) fn key(self, name: &str) -> Self {
        self.with("keyId", name)
    }

    /// With the encryption context, which CloudTrail shows too.
    pub(super) fn context(self, context: &KmsContext) -> Self {
        self.context_as("encryptionContext", context)
    }

    /// As [`context`](Self::context), where there are two.
    pub(super) fn context_as(self, name: &str, context: &KmsContext) -> Self {
        let entries: Map<_, _> = context.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        match entries.is_empty() {
            true => self,
            false => self.with(name, entries),
        }
    }
}

/// What a caller sent as a record keeps it: nobody fills the trail with what he may not even do.
pub(super) fn short(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(short_text(text)),
        Value::Array(values) if values.len() > LISTED_MAX => {
            let more = Value::from(format!("… and {} more", values.len() - LISTED_MAX));
            values.into_iter().take(LISTED_MAX).map(short).chain([more]).collect()
        }
        Value::Array(values) => values.into_iter().map(short).collect(),
        other => other,
    }
}

/// A text that is cut where it is long, and says so.
pub(super) fn short_text(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let whole = text.len();
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str(&format!("… ({whole} bytes)"));
    }
    text
}

/// Bytes of a parameter that the trail keeps.
const TEXT_MAX: usize = 1_024;
/// Members of a list that the trail keeps.
const LISTED_MAX: usize = 100;

/// A call that waits for its turn on the keystore's thread.
pub(super) trait Job: Send {
    /// Does what is asked, and keeps the answer.
    fn run(&mut self, group: &mut Group<'_>);

    /// Gives the answer away, once it is known what became of the transaction.
    fn deliver(self: Box<Self>, failed: Option<&Error>);
}

/// A [`Job`] whose operation may run again, if the first time turns out to have been for nothing.
pub(super) struct Asked<T, F> {
    call: Call,
    operation: F,
    answer: Option<Result<T>>,
    reply: Reply<T>,
}

/// Who waits, and how.
pub(super) enum Reply<T> {
    Async(oneshot::Sender<Result<T>>),
    Blocking(mpsc::SyncSender<Result<T>>),
}

impl<T> Reply<T> {
    /// Gives an answer away, or why the transaction came to nothing.
    pub(super) fn give(self, answer: Option<Result<T>>, failed: Option<&Error>) {
        let answer = match failed {
            Some(error) => Err(error.again()),
            None => answer.unwrap_or_else(|| Err(Error::internal("a call on the keystore was left out"))),
        };
        // Who does not wait any more has not lost anything: what was done is done.
        match self {
            Self::Async(reply) => drop(reply.send(answer)),
            Self::Blocking(reply) => drop(reply.send(answer)),
        }
    }
}

impl<T, F> Asked<T, F> {
    pub(super) fn new(call: Call, operation: F, reply: Reply<T>) -> Self {
        Self { call, operation, answer: None, reply }
    }
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T> + Send> Job for Asked<T, F> {
    fn run(&mut self, group: &mut Group<'_>) {
        self.answer = Some(group.run(&self.call, &mut self.operation));
    }

    fn deliver(self: Box<Self>, failed: Option<&Error>) {
        self.reply.give(self.answer, failed);
    }
}

impl<T, F> fmt::Debug for Asked<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.call).finish()
    }
}
