//! Several calls in one transaction.
//!
//! Whoever has called before the keystore's thread commits shares that commit: each call is an
//! operation that can be undone without the others, each leaves its record, and none is answered before
//! all of it is durable (group commit).

use super::audit::{Entry, Trail};
use super::call::{Call, Event, short_text};
use super::tx::{Access, Tx};
use crate::error::{Error, Result};
use serde_json::Value;
use std::sync::Arc;

/// A transaction that is under way.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) tx: Tx<'a>,
    pub(super) trail: Trail<'a>,
    /// Records that are to be written later, in a transaction that only reads.
    pub(super) later: Vec<Entry>,
    /// Whether any deciding row was changed.
    pub(super) changed: bool,
    /// Whether a data key that was handed out before may no longer be used.
    pub(super) revoked: bool,
    /// What went wrong with the transaction itself, so that nothing in it will stand.
    pub(super) broken: Option<Error>,
}

impl<'a> Group<'a> {
    pub(super) fn new(tx: Tx<'a>, trail: Trail<'a>) -> Self {
        Self { tx, trail, later: Vec::new(), changed: false, revoked: false, broken: None }
    }

    /// Whether what follows in this transaction would be for nothing.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || self.tx.access() == Access::Wanted
    }

    /// Runs one operation, and writes its record.
    pub(super) fn run<T>(&mut self, call: &Call, operation: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if self.is_over() {
            return Err(Error::internal("a call was begun in a transaction that is over"));
        }
        self.tx.principal = Arc::clone(&call.principal);
        self.tx.event = Event { parameters: call.parameters.clone(), ..Event::default() };
        self.tx.revoked = false;
        let answer = operation(&mut self.tx);
        match self.tx.access() {
            Access::Wanted => answer,
            _ => {
                let recorded = self.record(call, answer.as_ref().err());
                if let Err(error) = recorded {
                    self.broken.get_or_insert(error);
                }
                answer
            }
        }
    }

    /// Keeps or undoes what an operation did, and writes what became of it.
    fn record(&mut self, call: &Call, error: Option<&Error>) -> Result<()> {
        if self.tx.access() == Access::Writing && self.tx.sql.is_autocommit() {
            // SQLite has rolled the whole transaction back by itself: a full disk, a failed read.
            return Err(error.map_or_else(|| Error::internal("the keystore's transaction ended early"), Error::again));
        }
        let changes = match error {
            None => self.tx.keep()?,
            Some(_) => {
                self.tx.undo()?;
                Vec::new()
            }
        };
        self.changed |= !changes.is_empty();
        self.revoked |= self.tx.revoked;
        let Event { key_id, parameters, refused } = std::mem::take(&mut self.tx.event);
        let mut details = parameters;
        if let Some(error) = error {
            details.insert("errorMessage".to_owned(), Value::from(short_text(error.to_string())));
        }
        let entry = Entry {
            at: self.tx.now,
            name: call.name.to_owned(),
            principal: call.principal.as_ref().to_owned(),
            key_id,
            code: error.map_or(refused, |error| Some(code_of(error))).unwrap_or_default().to_owned(),
            details: Value::Object(details).to_string(),
            changes,
        };
        match self.tx.access() {
            Access::Writing => self.trail.append(self.tx.sql, self.tx.keys, entry),
            _ => {
                self.later.push(entry);
                Ok(())
            }
        }
    }
}

/// AWS's name for a failure, or our own where it has none.
fn code_of(error: &Error) -> &'static str {
    use crate::error::ErrorKind as Kind;
    error.code().unwrap_or(match error.kind() {
        Kind::InvalidInput => "ValidationException",
        Kind::LimitExceeded => "LimitExceededException",
        Kind::KeyDenied => "AccessDeniedException",
        Kind::Storage => "KeystoreTampered",
        _ => "KMSInternalException",
    })
}
