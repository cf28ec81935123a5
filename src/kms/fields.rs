//! Columns of authenticated rows, and what they stand for.

use super::key::Spelled;
use crate::error::{Error, Result};
use rusqlite::types::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The columns of an authenticated row, one after another: of the types that they were written with.
pub(super) struct Fields<I>(pub(super) I);

impl<I: Iterator<Item = Value>> Fields<I> {
    pub(super) fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn integer(&mut self) -> Result<i64> {
        match self.0.next() {
            Some(Value::Integer(number)) => Ok(number),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.integer()?.try_into().map_err(|_| unreadable())
    }

    pub(super) fn optional_integer(&mut self) -> Result<Option<i64>> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.optional_blob()?.ok_or_else(unreadable)
    }

    pub(super) fn optional_blob(&mut self) -> Result<Option<Vec<u8>>> {
        match self.0.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Blob(bytes)) => Ok(Some(bytes)),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn spelled<T: Spelled>(&mut self) -> Result<T> {
        T::of_spelling(&self.text()?).ok_or_else(unreadable)
    }
}

fn unreadable() -> Error {
    Error::internal("an authentic row of the keystore is not of the form that this version writes")
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(super) fn integer(number: Option<i64>) -> Value {
    number.map_or(Value::Null, Value::Integer)
}

pub(super) fn blob(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| Value::Blob(bytes.to_vec()))
}

pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
