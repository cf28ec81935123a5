//! Transactions on the keystore file.
//!
//! Every operation is one transaction: [`Store::read`] or [`Store::write`]. Each begins with the
//! head: its MAC, that its sequence has not gone back, and, where its digest is not the one that was
//! last checked, all rows against it. Within a transaction each deciding row that is used, or should
//! have been found, is compared with the row hashes kept from that check. A write ends with a new
//! head, in the same transaction, and counts only once it is durable.

use super::key::Realm;
use super::root::RootKeys;
use super::rows::{Columns, RowName, Rows, changed};
use super::schema::{META, META_REGION, SCHEMA_VERSION, TABLES, Table};
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::codec::put_byte_string;
use crate::crypto;
use crate::error::{Error, Result};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{
    Connection, MAIN_DB, OptionalExtension as _, Transaction, TransactionBehavior, params, params_from_iter,
};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// An open keystore: the connection, the keys, and what this process knows of the file.
#[derive(Debug)]
pub(super) struct Store {
    sql: Connection,
    keys: RootKeys,
    trust: Trust,
    realm: Realm,
    waiting: Waiting,
    clock: Arc<dyn Clock>,
}

/// What the last check of the file found.
#[derive(Debug)]
struct Trust {
    sequence: u64,
    /// The digest over `rows`; `None` if they must be read again.
    digest: Option<[u8; 32]>,
    rows: Rows,
}

/// A transaction, with its head checked.
#[derive(Debug)]
pub(super) struct Tx<'a> {
    sql: &'a Connection,
    pub(super) keys: &'a RootKeys,
    pub(super) realm: &'a Realm,
    trust: &'a mut Trust,
    change: Change,
    /// Milliseconds since the Unix epoch.
    pub(super) now: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Forbidden,
    NoneYet,
    Made,
}

impl Store {
    /// A keystore whose schema exists, after a check of all its rows.
    pub(super) fn open(mut sql: Connection, keys: RootKeys, waiting: Waiting, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut trust = Trust { sequence: 0, digest: None, rows: Rows::new() };
        let mut realm = Realm { keystore_id: keys.rows.keystore_id, region: String::new() };
        let tx = begin_reading(&mut sql)?;
        trust.check(&tx, &keys)?;
        let first = Tx { sql: &tx, keys: &keys, realm: &realm, trust: &mut trust, change: Change::Forbidden, now: 0 };
        let meta = first.row(&META, &[Value::Integer(1)])?;
        let region = meta.as_ref().and_then(|row| row.get(META_REGION));
        let Some(Value::Text(region)) = region else { return Err(Error::tampered("it has no Region")) };
        realm.region.clone_from(region);
        drop(tx);
        Ok(Self { sql, keys, trust, realm, waiting, clock })
    }

    /// Writes the first rows and the first head, inside the transaction that makes the schema.
    pub(super) fn initialise(tx: &Connection, keys: &RootKeys, meta: Columns) -> Result<()> {
        let mut trust = Trust { sequence: 0, digest: None, rows: Rows::new() };
        let realm = Realm { keystore_id: keys.rows.keystore_id, region: String::new() };
        tx.execute("INSERT INTO head VALUES (1, ?1, 0, x'', x'', x'')", params![SCHEMA_VERSION])
            .map_err(Error::sqlite)?;
        let mut first = Tx { sql: tx, keys, realm: &realm, trust: &mut trust, change: Change::NoneYet, now: 0 };
        first.insert(&META, meta)?;
        first.finish()?;
        Ok(())
    }

    pub(super) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Runs `operation` on one snapshot of the file. It cannot change anything.
    pub(super) fn read<T>(&mut self, operation: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let sql = begin_reading(&mut self.sql)?;
        self.trust.check(&sql, &self.keys)?;
        operation(&mut Tx {
            sql: &sql,
            keys: &self.keys,
            realm: &self.realm,
            trust: &mut self.trust,
            change: Change::Forbidden,
            now: millis(self.clock.wall()),
        })
    }

    /// Runs `operation` alone among all writers. What it changed is durable when this returns;
    /// if it fails, nothing was changed.
    pub(super) fn write<T>(&mut self, operation: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        forget_pages(&self.sql)?;
        let sql = self.waiting.begin(&self.sql)?;
        self.trust.check(&sql, &self.keys)?;
        let known = self.trust.digest;
        // Until the commit is known to stand, the rows in memory are not those of the file.
        self.trust.digest = None;
        let mut tx = Tx {
            sql: &sql,
            keys: &self.keys,
            realm: &self.realm,
            trust: &mut self.trust,
            change: Change::NoneYet,
            now: millis(self.clock.wall()),
        };
        let answer = operation(&mut tx);
        if tx.change != Change::Made {
            self.trust.digest = known;
            return answer;
        }
        let answer = answer?;
        let (sequence, digest) = tx.finish()?;
        sql.commit().map_err(Error::sqlite)?;
        self.trust.sequence = sequence;
        self.trust.digest = Some(digest);
        self.waiting.fold(&self.sql);
        Ok(answer)
    }

    /// The whole keystore as one file's bytes, of one moment, while others may use it; every row of the
    /// copy was checked.
    pub(super) fn image(&mut self) -> Result<Vec<u8>> {
        forget_pages(&self.sql)?;
        let mut image = self.sql.serialize(MAIN_DB).map_err(Error::sqlite)?.to_vec();
        // "File format write version" and "read version" (SQLite's file format, 1.3.3): 1, a file that has
        // no write-ahead log beside it. Whoever opens it as a keystore gives it one again.
        image.get_mut(18..20).ok_or_else(Error::not_a_keystore)?.fill(1);
        let mut copy = Connection::open_in_memory().map_err(Error::sqlite)?;
        copy.deserialize_read_exact(MAIN_DB, image.as_slice(), image.len(), true).map_err(Error::sqlite)?;
        let mut trust = Trust { sequence: self.trust.sequence, digest: None, rows: Rows::new() };
        trust.check(&copy, &self.keys)?;
        Ok(image)
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> &RootKeys {
        &self.keys
    }
}

impl Tx<'_> {
    /// The row of `table` with this identity; `None` only if there is none and should be none.
    pub(super) fn row(&self, table: &Table, identity: &[Value]) -> Result<Option<Columns>> {
        let conditions: Vec<_> =
            table.columns.iter().take(table.identity).map(|column| format!("{column} = ?")).collect();
        let query = format!("{} WHERE {}", select(table), conditions.join(" AND "));
        let mut statement = self.sql.prepare_cached(&query).map_err(Error::sqlite)?;
        let mut found = statement.query(params_from_iter(identity)).map_err(Error::sqlite)?;
        let name = RowName::new(table, identity);
        let Some(row) = found.next().map_err(Error::sqlite)? else {
            return match self.trust.rows.hash_of(&name) {
                Some(_) => Err(Error::tampered(format!("the row {:?} was removed", name.as_str()))),
                None => Ok(None),
            };
        };
        let columns = self.known(table, row)?;
        if RowName::of(table, &columns) != name || found.next().map_err(Error::sqlite)?.is_some() {
            return Err(changed(&name));
        }
        Ok(Some(columns))
    }

    /// All rows of `table`, by identity.
    pub(super) fn rows(&self, table: &Table) -> Result<Vec<Columns>> {
        let mut statement = self.sql.prepare_cached(&select(table)).map_err(Error::sqlite)?;
        let mut found = statement.query([]).map_err(Error::sqlite)?;
        let mut all = std::collections::BTreeMap::new();
        while let Some(row) = found.next().map_err(Error::sqlite)? {
            let columns = self.known(table, row)?;
            let name = RowName::of(table, &columns);
            if all.insert(name.clone(), columns).is_some() {
                return Err(Error::tampered(format!("the row {:?} is there twice", name.as_str())));
            }
        }
        if all.len() != self.trust.rows.count(table) {
            return Err(Error::tampered(format!("rows of the table {} were removed", table.name)));
        }
        Ok(all.into_values().collect())
    }

    pub(super) fn insert(&mut self, table: &Table, columns: Columns) -> Result<()> {
        let name = RowName::of(table, &columns);
        if self.trust.rows.hash_of(&name).is_some() {
            return Err(Error::internal(format!("the row {:?} exists already", name.as_str())));
        }
        self.put("INSERT", table, columns)
    }

    /// Puts `columns` in the place of the row of the same identity, which must exist.
    pub(super) fn update(&mut self, table: &Table, columns: Columns) -> Result<()> {
        let name = RowName::of(table, &columns);
        if self.trust.rows.hash_of(&name).is_none() {
            return Err(Error::internal(format!("the row {:?} does not exist", name.as_str())));
        }
        self.put("INSERT OR REPLACE", table, columns)
    }

    /// Removes a row that must exist.
    pub(super) fn delete(&mut self, table: &Table, identity: &[Value]) -> Result<()> {
        self.changing()?;
        let conditions: Vec<_> =
            table.columns.iter().take(table.identity).map(|column| format!("{column} = ?")).collect();
        let statement = format!("DELETE FROM {} WHERE {}", table.name, conditions.join(" AND "));
        let removed = self.sql.execute(&statement, params_from_iter(identity)).map_err(Error::sqlite)?;
        let name = RowName::new(table, identity);
        if removed != 1 || self.trust.rows.set(name.clone(), None)?.is_none() {
            return Err(changed(&name));
        }
        Ok(())
    }

    fn put(&mut self, verb: &str, table: &Table, mut columns: Columns) -> Result<()> {
        self.changing()?;
        let (mac, hash) = self.keys.rows.authenticate(table, &columns)?;
        let name = RowName::of(table, &columns);
        columns.push(Value::Blob(mac.to_vec()));
        let places = vec!["?"; columns.len()].join(", ");
        let statement = format!("{verb} INTO {} ({}, row_mac) VALUES ({places})", table.name, table.columns.join(", "));
        self.sql.execute(&statement, params_from_iter(columns)).map_err(Error::sqlite)?;
        self.trust.rows.set(name, Some(hash))?;
        Ok(())
    }

    /// A row as read, if it is the one that was there at the last check.
    fn known(&self, table: &Table, row: &rusqlite::Row<'_>) -> Result<Columns> {
        let (columns, mac) = columns_of(table, row)?;
        let name = RowName::of(table, &columns);
        let hash = self.keys.rows.hash(table, &columns, &mac)?;
        match self.trust.rows.hash_of(&name) {
            Some(known) if *known == hash => Ok(columns),
            Some(_) => Err(changed(&name)),
            None => Err(Error::tampered(format!("the row {:?} was added", name.as_str()))),
        }
    }

    fn changing(&mut self) -> Result<()> {
        if self.change == Change::Forbidden {
            return Err(Error::internal("a reading operation tried to change the keystore"));
        }
        self.change = Change::Made;
        Ok(())
    }

    /// Writes the head that follows from the changes.
    fn finish(self) -> Result<(u64, [u8; 32])> {
        let sequence = self.trust.sequence + 1;
        let digest = self.trust.rows.digest();
        let head = Head { schema_version: SCHEMA_VERSION, sequence, digest, audit: Vec::new() };
        let mac = head.mac(self.keys)?;
        let stored = i64::try_from(sequence).map_err(|_| Error::internal("the keystore's sequence is exhausted"))?;
        let changed = self
            .sql
            .execute(
                "UPDATE head SET schema_version = ?1, sequence = ?2, digest = ?3, audit = ?4, mac = ?5",
                params![SCHEMA_VERSION, stored, digest, head.audit, mac],
            )
            .map_err(Error::sqlite)?;
        match changed {
            1 => Ok((sequence, digest)),
            _ => Err(Error::tampered("the head is not one row")),
        }
    }
}

impl Trust {
    /// Checks what a transaction sees, before anything in it is used.
    fn check(&mut self, sql: &Connection, keys: &RootKeys) -> Result<()> {
        let check: Vec<u8> = sql
            .prepare_cached("SELECT check_value FROM meta")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(Error::sqlite)?;
        if !bool::from(check.ct_eq(&keys.check)) {
            return Err(Error::root_key_replaced());
        }
        let head = Head::read(sql, keys)?;
        if head.sequence < self.sequence {
            return Err(Error::tampered("its head is older than one that this process has seen"));
        }
        if self.digest == Some(head.digest) {
            self.sequence = head.sequence;
            return Ok(());
        }
        if self.digest.is_some() && head.sequence == self.sequence {
            return Err(Error::tampered("two heads have the same sequence"));
        }
        let rows = read_all(sql, keys)?;
        if rows.digest() != head.digest {
            return Err(Error::tampered("a row was removed, or replaced by an older one"));
        }
        self.rows = rows;
        self.sequence = head.sequence;
        self.digest = Some(head.digest);
        Ok(())
    }
}

/// The authenticated head.
struct Head {
    schema_version: u32,
    sequence: u64,
    digest: [u8; 32],
    /// The audit trail's part: empty in schema 1.
    audit: Vec<u8>,
}

impl Head {
    fn read(sql: &Connection, keys: &RootKeys) -> Result<Self> {
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
        if !bool::from(head.mac(keys)?.ct_eq(&mac)) {
            return Err(Error::tampered("its head is not authentic"));
        }
        match head.schema_version {
            SCHEMA_VERSION => Ok(head),
            other if other > SCHEMA_VERSION => Err(Error::newer_schema(other.into())),
            other => Err(Error::tampered(format!("schema version {other} was never written"))),
        }
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

/// Reads every deciding row and checks its MAC.
fn read_all(sql: &Connection, keys: &RootKeys) -> Result<Rows> {
    let mut rows = Rows::new();
    for table in TABLES {
        let mut statement = sql.prepare_cached(&select(table)).map_err(Error::sqlite)?;
        let mut found = statement.query([]).map_err(Error::sqlite)?;
        while let Some(row) = found.next().map_err(Error::sqlite)? {
            let (columns, mac) = columns_of(table, row)?;
            let name = RowName::of(table, &columns);
            let hash = keys.rows.verify(table, &columns, &mac)?;
            if rows.set_unhashed(name.clone(), Some(hash)).is_some() {
                return Err(Error::tampered(format!("the row {:?} is there twice", name.as_str())));
            }
        }
    }
    rows.rehash_all()?;
    Ok(rows)
}

fn columns_of(table: &Table, row: &rusqlite::Row<'_>) -> Result<(Columns, Vec<u8>)> {
    let value = |index| row.get_ref(index).map_err(Error::sqlite);
    let damaged = |_| Error::tampered(format!("a row of the table {} holds what is no text", table.name));
    let columns = (0..table.columns.len())
        .map(|index| {
            Ok(match value(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Integer(number),
                ValueRef::Real(number) => Value::Real(number),
                ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(damaged)?.to_owned()),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            })
        })
        .collect::<Result<_>>()?;
    let mac = match value(table.columns.len())? {
        ValueRef::Blob(mac) => mac.to_vec(),
        _ => Vec::new(),
    };
    Ok((columns, mac))
}

fn select(table: &Table) -> String {
    format!("SELECT {}, row_mac FROM {}", table.columns.join(", "), table.name)
}

fn begin_reading(sql: &mut Connection) -> Result<Transaction<'_>> {
    forget_pages(sql)?;
    sql.transaction_with_behavior(TransactionBehavior::Deferred).map_err(Error::sqlite)
}

/// Keeps no pages from before, so that bytes changed past SQLite are seen.
fn forget_pages(sql: &Connection) -> Result<()> {
    sql.release_memory().map_err(Error::sqlite)
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
