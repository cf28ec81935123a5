//! The authenticated head, which covers all rows and the whole trail.
//!
//! ```text
//! head = schema version (4) || sequence (8) || digest (32) || byte string of audit || mac (32)
//! mac  = HMAC-SHA-256(head key, keystore id (16) || all of head before it)
//! ```
//! The last record of the audit trail carries it, and no other: so a commit mostly writes one page of the file for both.
//! Whoever removes that record removes the head with it, and one that is put on another record says which it was on: both are found. The
//! head of the record before is erased from the file; until SQLite's write-ahead log is emptied, that has the pages of before,
//! as any older copy has.

use super::root::RootKeys;
use super::schema::SCHEMA_VERSION;
use crate::codec::{Reader, Short, put_byte_string};
use crate::crypto;
use crate::error::{Error, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};
use subtle::ConstantTimeEq;

/// What is authenticated under the root key and changes with every transaction.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) schema_version: u32,
    pub(super) sequence: u64,
    /// Over all deciding rows.
    pub(super) digest: [u8; 32],
    /// An encoded [`AuditEnds`]; empty in schema 1.
    pub(super) audit: Vec<u8>,
}

impl Head {
    /// Reads the head of a keystore of this schema, and the sequence of the record that carries it.
    pub(super) fn read(sql: &Connection, keys: &RootKeys) -> Result<(Self, i64)> {
        let mut statement = sql
            .prepare_cached("SELECT sequence, head FROM audit ORDER BY sequence DESC LIMIT 1")
            .map_err(Error::sqlite)?;
        let mut found = statement.query([]).map_err(Error::sqlite)?;
        let row = found.next().map_err(Error::sqlite)?;
        let row = row.ok_or_else(|| Error::tampered("all its audit records were removed, and the head with them"))?;
        let ValueRef::Integer(last) = row.get_ref(0).map_err(Error::sqlite)? else {
            return Err(Error::tampered("an audit record has no sequence"));
        };
        let missing = last.saturating_add(1);
        let head = match row.get_ref(1).map_err(Error::sqlite)? {
            ValueRef::Blob(bytes) => Self::decode(bytes, keys)?,
            ValueRef::Null => {
                return Err(Error::tampered(format!(
                    "the audit record {missing} was removed, and the head with it, or the record {last} was added, or \
                     its head erased"
                )));
            }
            _ => return Err(not_as_written()),
        };
        match head.schema_version {
            SCHEMA_VERSION => Ok((head, last)),
            other if other > SCHEMA_VERSION => Err(Error::newer_schema(other.into())),
            other => Err(Error::tampered(format!("its head has schema version {other}, and its tables another"))),
        }
    }

    /// Whether somebody with these keys made this head.
    pub(super) fn is_authentic(bytes: &[u8], keys: &RootKeys) -> bool {
        Self::decode(bytes, keys).is_ok()
    }

    fn decode(bytes: &[u8], keys: &RootKeys) -> Result<Self> {
        let bad = |_: Short| not_as_written();
        let mut reader = Reader::new(bytes);
        let head = Self {
            schema_version: reader.u32().map_err(bad)?,
            sequence: reader.array().map(u64::from_be_bytes).map_err(bad)?,
            digest: reader.array().map_err(bad)?,
            audit: reader.byte_string().map_err(bad)?.to_vec(),
        };
        let mac: [u8; 32] = reader.array().map_err(bad)?;
        match reader.remaining() {
            0 => head.authentic(keys, &mac),
            _ => Err(not_as_written()),
        }
    }

    /// Reads the head of schema 1 or 2, which was a table.
    pub(super) fn read_older(sql: &Connection, keys: &RootKeys) -> Result<Self> {
        let query = "SELECT schema_version, sequence, digest, audit, mac, (SELECT count(*) FROM head) FROM head";
        let mut statement = sql.prepare(query).map_err(Error::sqlite)?;
        let found = statement
            .query_row([], |row| {
                let head = Self {
                    schema_version: row.get(0)?,
                    sequence: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
                    digest: row.get(2)?,
                    audit: row.get(3)?,
                };
                Ok((head, row.get::<_, Vec<u8>>(4)?, row.get::<_, i64>(5)?))
            })
            .optional();
        // A column of another type or length than was written.
        let found = found.map_err(|e| match e.sqlite_error_code() {
            None => not_as_written().with_source(e),
            Some(_) => Error::sqlite(e),
        })?;
        let Some((head, mac, 1)) = found else { return Err(Error::tampered("its head is not one row")) };
        head.authentic(keys, &mac)
    }

    fn authentic(self, keys: &RootKeys, mac: &[u8]) -> Result<Self> {
        match bool::from(
            crypto::hmac_sha256(keys.head.expose(), &[&keys.rows.keystore_id, &self.covered()?]).ct_eq(mac),
        ) {
            true => Ok(self),
            false => Err(Error::tampered("its head is not authentic")),
        }
    }

    /// Lets the last record of the trail, which is that of `ends`, carry this head, and the record before no more that
    /// was the last one.
    pub(super) fn write(&self, sql: &Connection, keys: &RootKeys, before: u64, last: u64) -> Result<()> {
        let mut head = self.covered()?;
        let mac = crypto::hmac_sha256(keys.head.expose(), &[&keys.rows.keystore_id, &head]);
        head.extend_from_slice(&mac);
        let mut set = sql.prepare_cached("UPDATE audit SET head = ?1 WHERE sequence = ?2").map_err(Error::sqlite)?;
        let mut set = |head: Option<&[u8]>, sequence: u64| {
            let sequence = i64::try_from(sequence).map_err(|_| Error::internal("the audit trail is full"))?;
            set.execute(params![head, sequence]).map_err(Error::sqlite)
        };
        // It may have been cut off.
        set(None, before)?;
        match set(Some(&head), last)? {
            1 => Ok(()),
            _ => Err(Error::tampered("the audit record that was written last is not there")),
        }
    }

    pub(super) fn audit_ends(&self) -> Result<AuditEnds> {
        AuditEnds::decode(&self.audit)
    }

    /// What the MAC covers, after the keystore's id.
    fn covered(&self) -> Result<Vec<u8>> {
        let mut encoded = Vec::with_capacity(160 + self.audit.len());
        encoded.extend_from_slice(&self.schema_version.to_be_bytes());
        encoded.extend_from_slice(&self.sequence.to_be_bytes());
        encoded.extend_from_slice(&self.digest);
        put_byte_string(&mut encoded, &self.audit)?;
        Ok(encoded)
    }
}

fn not_as_written() -> Error {
    Error::tampered("its head is not as it was written")
}

/// Where the audit trail begins and ends.
///
/// ```text
/// sequence (8) || hash (32) || checkpoint sequence (8) || checkpoint hash (32) || checkpoint digest (32)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuditEnds {
    /// Of the last record, from 1; 0 if there was none yet.
    pub(super) last: u64,
    /// The hash of that record.
    pub(super) hash: [u8; 32],
    /// Of the last record that was cut off; 0 if none was.
    pub(super) cut: u64,
    /// The hash of that record: what the first one that is there follows.
    pub(super) cut_hash: [u8; 32],
    /// The digest over all deciding rows as they were then.
    pub(super) cut_digest: [u8; 32],
}

impl AuditEnds {
    /// Of a trail that begins now, with the rows whose digest this is.
    pub(super) fn beginning(digest: [u8; 32]) -> Self {
        Self { last: 0, hash: [0; 32], cut: 0, cut_hash: [0; 32], cut_digest: digest }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [self.last.to_be_bytes().as_slice(), &self.hash, &self.cut.to_be_bytes(), &self.cut_hash, &self.cut_digest]
            .concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |_: Short| Error::tampered("its head does not say where the audit trail ends");
        let mut reader = Reader::new(bytes);
        let ends = Self {
            last: reader.array().map(u64::from_be_bytes).map_err(bad)?,
            hash: reader.array().map_err(bad)?,
            cut: reader.array().map(u64::from_be_bytes).map_err(bad)?,
            cut_hash: reader.array().map_err(bad)?,
            cut_digest: reader.array().map_err(bad)?,
        };
        match reader.remaining() {
            0 => Ok(ends),
            _ => Err(Error::tampered("its head says more of the audit trail than it should")),
        }
    }
}
