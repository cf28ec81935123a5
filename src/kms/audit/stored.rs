//! Records as they lie in the file, before and after they are believed.

use super::record::Record;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use subtle::ConstantTimeEq;

/// The columns of `audit`, in the order in which [`Stored`] reads them.
pub(in crate::kms) const COLUMNS: &str =
    "sequence, at, name, principal, key_id, code, details, changes, previous, mac, head IS NOT NULL";

/// What a row of `audit` says. Nothing of it is to be believed before [`authenticate`](Self::authenticate).
#[derive(Clone, Copy, Debug)]
pub(in crate::kms) struct Stored<'a> {
    pub(in crate::kms) sequence: u64,
    pub(in crate::kms) at: i64,
    pub(in crate::kms) name: &'a str,
    pub(in crate::kms) principal: &'a str,
    pub(in crate::kms) key_id: &'a str,
    pub(in crate::kms) code: &'a str,
    pub(in crate::kms) details: &'a str,
    pub(in crate::kms) changes: &'a [u8],
    pub(in crate::kms) previous: &'a [u8],
    mac: &'a [u8],
    /// Whether it carries a head.
    pub(super) has_head: bool,
}

impl<'a> Stored<'a> {
    /// # Errors
    /// Kind Storage for a column of another type than was written: a search would not find it.
    pub(in crate::kms) fn read(row: &'a Row<'_>) -> Result<Self> {
        let value = |at| row.get_ref(at).map_err(Error::sqlite);
        let sequence = match value(0)? {
            ValueRef::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let sequence = sequence.ok_or_else(|| Error::tampered("an audit record has no sequence"))?;
        let ValueRef::Integer(at) = value(1)? else { return Err(changed(sequence)) };
        let text = |at| match value(at)? {
            ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| changed(sequence)),
            _ => Err(changed(sequence)),
        };
        let blob = |at| match value(at)? {
            ValueRef::Blob(bytes) => Ok(bytes),
            _ => Err(changed(sequence)),
        };
        Ok(Self {
            sequence,
            at,
            name: text(2)?,
            principal: text(3)?,
            key_id: text(4)?,
            code: text(5)?,
            details: text(6)?,
            changes: blob(7)?,
            previous: blob(8)?,
            mac: blob(9)?,
            has_head: value(10)? == ValueRef::Integer(1),
        })
    }

    /// A number among what the call said.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        // Most have none, and reading JSON a million times takes long.
        if !self.details.contains(name) {
            return None;
        }
        let details: serde_json::Value = serde_json::from_str(self.details).ok()?;
        details.get(name)?.as_u64()
    }

    /// The record's hash, if the record is as it was written. `space` is only kept from record to record.
    ///
    /// # Errors
    /// Kind Storage, naming the record.
    pub(in crate::kms) fn authenticate(
        &self,
        key: &Secret<32>,
        keystore_id: &[u8; 16],
        space: &mut Vec<u8>,
    ) -> Result<[u8; 32]> {
        let previous = self.previous.try_into().map_err(|_| changed(self.sequence))?;
        let texts = [self.name, self.principal, self.key_id, self.code];
        space.clear();
        Record::put(space, keystore_id, (previous, self.sequence, self.at), texts, self.details, self.changes)
            .map_err(|_| changed(self.sequence))?;
        match bool::from(Record::mac(key, space).ct_eq(self.mac)) {
            true => Ok(Record::hash(space)),
            false => Err(changed(self.sequence)),
        }
    }
}

pub(in crate::kms) fn changed(sequence: u64) -> Error {
    Error::tampered(format!("the audit record {sequence} was changed, or another was put in its place"))
}
