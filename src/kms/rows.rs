//! Authenticated rows.
//!
//! Each deciding row carries an HMAC-SHA-256 (RFC 2104) under the row key, bound to keystore, table
//! and row identity, so that a changed or moved row is named. That alone would let a writer of the
//! file replay an older row or delete one; so the head authenticates one digest over all of them:
//!
//! ```text
//! row      = keystore id (16) || byte strings of table and identity || u16(columns) || columns
//! column   = 00 for NULL | 01 || integer (8) | 02 || u32(length) || text | 03 || u32(length) || blob
//! row_mac  = HMAC-SHA-256(row key, row)
//! row hash = SHA-256(row || byte string of row_mac)
//! bucket i = SHA-256(byte string of name || row hash, for each row whose SHA-256(name) begins with i, by name)
//! digest   = SHA-256(bucket 0 || .. || bucket 255)
//! ```
//! A row's name is its table and identity as text. The process keeps all row hashes; a change costs
//! one bucket and 8 KiB of hashing, whatever the number of rows.

use super::schema::Table;
use crate::codec::put_byte_string;
use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::types::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::iter;
use subtle::ConstantTimeEq;

/// The columns of a row, without its MAC.
pub(super) type Columns = Vec<Value>;

/// A row's table and identity, as text: `keys 1b4e…`, `key_versions 1b4e…/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowName(String);

impl RowName {
    pub(super) fn new(table: &Table, identity: &[Value]) -> Self {
        let mut name = String::with_capacity(NAME_LEN);
        name.push_str(table.name);
        for (part, between) in identity.iter().zip(iter::once(' ').chain(iter::repeat('/'))) {
            name.push(between);
            push_text(&mut name, part);
        }
        Self(name)
    }

    /// The row `columns` of `table`.
    pub(super) fn of(table: &Table, columns: &[Value]) -> Self {
        Self::new(table, columns.get(..table.identity).unwrap_or(columns))
    }

    /// A name as [`as_str`](Self::as_str) gave it.
    pub(super) fn read(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn bucket(&self) -> usize {
        usize::from(crypto::sha256(&[self.0.as_bytes()])[0])
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of a row and its MAC.
pub(super) type RowHash = [u8; 32];

/// The key that authenticates rows, and the keystore that they are of.
#[derive(Debug)]
pub(super) struct RowKey {
    pub(super) key: Secret<32>,
    pub(super) keystore_id: [u8; 16],
}

impl RowKey {
    /// The MAC of a row that is about to be written, and the hash of the two.
    pub(super) fn authenticate(&self, table: &Table, columns: &[Value]) -> Result<([u8; 32], RowHash)> {
        let encoded = self.encode(table, columns)?;
        let mac = crypto::hmac_sha256(self.key.expose(), &[&encoded]);
        Ok((mac, hash(&encoded, &mac)?))
    }

    /// The hash of a row as read. Its MAC is checked by [`verify`](Self::verify).
    pub(super) fn hash(&self, table: &Table, columns: &[Value], mac: &[u8]) -> Result<RowHash> {
        hash(&self.encode(table, columns)?, mac)
    }

    /// Checks the MAC of a row as read.
    ///
    /// # Errors
    /// Kind Storage, naming the row.
    pub(super) fn verify(&self, table: &Table, columns: &[Value], mac: &[u8]) -> Result<RowHash> {
        let (expected, row_hash) = self.authenticate(table, columns)?;
        match bool::from(expected.ct_eq(mac)) {
            true => Ok(row_hash),
            false => Err(changed(&RowName::of(table, columns))),
        }
    }

    fn encode(&self, table: &Table, columns: &[Value]) -> Result<Vec<u8>> {
        let count = u16::try_from(columns.len()).map_err(|_| Error::internal("a row has too many columns"))?;
        let mut out = Vec::with_capacity(ROW_LEN);
        out.extend_from_slice(&self.keystore_id);
        put_byte_string(&mut out, table.name.as_bytes())?;
        put_byte_string(&mut out, RowName::of(table, columns).as_str().as_bytes())?;
        out.extend_from_slice(&count.to_be_bytes());
        for column in columns {
            match column {
                Value::Null => out.push(0),
                Value::Integer(number) => {
                    out.push(1);
                    out.extend_from_slice(&number.to_be_bytes());
                }
                Value::Text(text) => put_long(&mut out, 2, text.as_bytes())?,
                Value::Blob(bytes) => put_long(&mut out, 3, bytes)?,
                Value::Real(_) => return Err(changed(&RowName::of(table, columns))),
            }
        }
        Ok(out)
    }
}

/// The hashes of all deciding rows, and their digest.
#[derive(Debug)]
pub(super) struct Rows {
    buckets: Vec<Bucket>,
    /// All names, so that the rows that belong to one key are known without reading them.
    names: BTreeSet<RowName>,
}

#[derive(Clone, Debug)]
struct Bucket {
    rows: BTreeMap<RowName, RowHash>,
    digest: [u8; 32],
}

impl Rows {
    pub(super) fn new() -> Self {
        let empty = Bucket { rows: BTreeMap::new(), digest: crypto::sha256(&[]) };
        Self { buckets: vec![empty; 256], names: BTreeSet::new() }
    }

    pub(super) fn hash_of(&self, name: &RowName) -> Option<&RowHash> {
        self.buckets.get(name.bucket()).and_then(|bucket| bucket.rows.get(name))
    }

    /// All rows, by bucket and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RowName, &RowHash)> {
        self.buckets.iter().flat_map(|bucket| bucket.rows.iter())
    }

    /// How many rows `table` must have.
    pub(super) fn count(&self, table: &Table) -> usize {
        self.names_of(table, None).count()
    }

    /// How many rows `table` must have whose identity begins with `first` and has more.
    pub(super) fn count_of(&self, table: &Table, first: &Value) -> usize {
        self.names_of(table, Some(first)).count()
    }

    /// The rows that `table` must have, or those of them whose identity begins with `first` and has more.
    pub(super) fn names_of(&self, table: &Table, first: Option<&Value>) -> impl Iterator<Item = &RowName> {
        self.below(match first {
            None => format!("{} ", table.name),
            Some(first) => RowName::new(table, std::slice::from_ref(first)).0 + "/",
        })
    }

    fn below(&self, prefix: String) -> impl Iterator<Item = &RowName> {
        let from = RowName(prefix.clone());
        self.names.range(from..).take_while(move |name| name.0.starts_with(&prefix))
    }

    /// Sets a row's hash, or removes the row, and gives what was there before.
    pub(super) fn set(&mut self, name: RowName, hash: Option<RowHash>) -> Result<Option<RowHash>> {
        let before = self.set_unhashed(name.clone(), hash);
        self.rehash(name.bucket())?;
        Ok(before)
    }

    /// As [`set`](Self::set), for many: [`rehash_all`](Self::rehash_all) must follow.
    pub(super) fn set_unhashed(&mut self, name: RowName, hash: Option<RowHash>) -> Option<RowHash> {
        match hash {
            Some(_) => self.names.insert(name.clone()),
            None => self.names.remove(&name),
        };
        let bucket = self.buckets.get_mut(name.bucket())?;
        match hash {
            Some(hash) => bucket.rows.insert(name, hash),
            None => bucket.rows.remove(&name),
        }
    }

    pub(super) fn rehash_all(&mut self) -> Result<()> {
        (0..self.buckets.len()).try_for_each(|index| self.rehash(index))
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let digests: Vec<&[u8]> = self.buckets.iter().map(|bucket| bucket.digest.as_slice()).collect();
        crypto::sha256(&digests)
    }

    fn rehash(&mut self, index: usize) -> Result<()> {
        let Some(bucket) = self.buckets.get_mut(index) else { return Ok(()) };
        let mut encoded = Vec::with_capacity(bucket.rows.len() * 96);
        for (name, hash) in &bucket.rows {
            put_byte_string(&mut encoded, name.as_str().as_bytes())?;
            encoded.extend_from_slice(hash);
        }
        bucket.digest = crypto::sha256(&[&encoded]);
        Ok(())
    }
}

pub(super) fn changed(name: &RowName) -> Error {
    Error::tampered(format!("the row {name:?} was changed", name = name.as_str()))
}

fn hash(encoded: &[u8], mac: &[u8]) -> Result<RowHash> {
    let mut tail = Vec::with_capacity(2 + mac.len());
    put_byte_string(&mut tail, mac)?;
    Ok(crypto::sha256(&[encoded, &tail]))
}

fn put_long(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) -> Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| Error::limit("a keystore column is longer than 4 GiB"))?;
    out.push(tag);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// For names only: two rows that share a name by a forged type are found as duplicates or as changed.
fn push_text(name: &mut String, value: &Value) {
    let written = match value {
        Value::Null => name.write_str("NULL"),
        Value::Integer(number) => write!(name, "{number}"),
        Value::Real(number) => write!(name, "{number}"),
        Value::Text(text) => name.write_str(text),
        Value::Blob(bytes) => write!(name, "{} bytes", bytes.len()),
    };
    debug_assert!(written.is_ok(), "a string takes everything");
}

/// What most names and encoded rows have room in.
const NAME_LEN: usize = 64;
const ROW_LEN: usize = 512;
