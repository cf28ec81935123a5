//! The authenticated head: one row that covers all others.

use super::root::RootKeys;
use super::schema::SCHEMA_VERSION;
use crate::codec::{Reader, Short, put_byte_string};
use crate::crypto;
use crate::error::{Error, Result};
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
    /// Reads the head of a keystore of this schema.
    pub(super) fn read(sql: &Connection, keys: &RootKeys) -> Result<Self> {
        let head = Self::read_any(sql, keys)?;
        match head.schema_version {
            SCHEMA_VERSION => Ok(head),
            other if other > SCHEMA_VERSION => Err(Error::newer_schema(other.into())),
            other => Err(Error::tampered(format!("its head has schema version {other}, and its tables another"))),
        }
    }

    /// Reads a head of any schema whose head has these columns: all that there were.
    pub(super) fn read_any(sql: &Connection, keys: &RootKeys) -> Result<Self> {
        let query = "SELECT schema_version, sequence, digest, audit, mac, (SELECT count(*) FROM head) FROM head";
        let mut statement = sql.prepare_cached(query).map_err(Error::sqlite)?;
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
            None => Error::tampered("its head is not as it was written").with_source(e),
            Some(_) => Error::sqlite(e),
        })?;
        let Some((head, mac, 1)) = found else { return Err(Error::tampered("its head is not one row")) };
        match bool::from(head.mac(keys)?.ct_eq(&mac)) {
            true => Ok(head),
            false => Err(Error::tampered("its head is not authentic")),
        }
    }

    /// Puts this head in the place of the one that is there.
    pub(super) fn write(&self, sql: &Connection, keys: &RootKeys) -> Result<()> {
        let mac = self.mac(keys)?;
        let stored =
            i64::try_from(self.sequence).map_err(|_| Error::internal("the keystore's sequence is exhausted"))?;
        let statement = "UPDATE head SET schema_version = ?1, sequence = ?2, digest = ?3, audit = ?4, mac = ?5";
        let changed = sql
            .prepare_cached(statement)
            .and_then(|mut it| it.execute(params![self.schema_version, stored, self.digest, self.audit, mac]))
            .map_err(Error::sqlite)?;
        match changed {
            1 => Ok(()),
            _ => Err(Error::tampered("the head is not one row")),
        }
    }

    /// Makes the row that every later [`write`](Self::write) replaces.
    pub(super) fn make(sql: &Connection) -> Result<()> {
        sql.execute("INSERT INTO head VALUES (1, 0, 0, x'', x'', x'')", []).map(drop).map_err(Error::sqlite)
    }

    pub(super) fn audit_ends(&self) -> Result<AuditEnds> {
        AuditEnds::decode(&self.audit)
    }

    /// HMAC-SHA-256 over `keystore id || schema version (4) || sequence (8) || digest || byte string of audit`.
    fn mac(&self, keys: &RootKeys) -> Result<[u8; 32]> {
        let mut encoded = keys.rows.keystore_id.to_vec();
        encoded.extend_from_slice(&self.schema_version.to_be_bytes());
        encoded.extend_from_slice(&self.sequence.to_be_bytes());
        encoded.extend_from_slice(&self.digest);
        put_byte_string(&mut encoded, &self.audit)?;
        Ok(crypto::hmac_sha256(keys.head.expose(), &[&encoded]))
    }
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
