//! What this process knows of the file: the head that was last checked, and the hash of every deciding row.

use super::audit::{blame, changes};
use super::dates::Dates;
use super::head::{AuditEnds, Head};
use super::policy::KeyPolicy;
use super::root::RootKeys;
use super::rows::{Columns, RowHash, RowName, Rows};
use super::schema::{TABLES, Table};
use crate::error::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What the last check of the file found.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) sequence: u64,
    /// The digest over `rows`; `None` if they must be read again.
    pub(super) digest: Option<[u8; 32]>,
    pub(super) rows: Rows,
    /// The last audit record whose changes are in `rows`.
    pub(super) audited: u64,
    /// Policies as read, by key, with the hash of the row that each is in.
    pub(super) policies: HashMap<String, (RowHash, Arc<KeyPolicy>)>,
    /// When what these rows say is due.
    pub(super) dates: Dates,
}

/// What a check found besides that all is in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) audit: AuditEnds,
    /// The record that carries the head.
    carried_by: i64,
    /// Whether another process changed a deciding row since the last check.
    pub(super) changed: bool,
}

impl Checked {
    /// Refuses what nobody could go on from: a head on another record than the one that it says is the last. (Which record
    /// was dropped or added before, a verification finds.)
    pub(super) fn to_go_on_from(self) -> Result<Self> {
        let (last, says) = (self.carried_by, i64::try_from(self.audit.last).unwrap_or(i64::MAX));
        match last.cmp(&says) {
            Ordering::Equal => Ok(self),
            Ordering::Less => Err(Error::tampered(format!("the audit record {} was removed", last.saturating_add(1)))),
            Ordering::Greater => {
                Err(Error::tampered(format!("the audit record {last} was added: the trail ends with {says}")))
            }
        }
    }
}

impl Trust {
    /// Nothing is known, save that the sequence cannot be lower.
    pub(super) fn nothing(sequence: u64) -> Self {
        Self {
            sequence,
            digest: None,
            rows: Rows::new(),
            audited: 0,
            policies: HashMap::new(),
            dates: Dates::default(),
        }
    }

    /// Checks what a transaction sees, before anything in it is used.
    pub(super) fn check(&mut self, sql: &Connection, keys: &RootKeys) -> Result<Checked> {
        let (head, carried_by) = match Head::read(sql, keys) {
            Ok(read) => read,
            // Under another root key, none is authentic.
            Err(error) => {
                let other = check_root_key(sql, keys).err().filter(|other| other.kind() == ErrorKind::NoMatchingKey);
                return Err(other.unwrap_or(error));
            }
        };
        let audit = head.audit_ends()?;
        if head.sequence < self.sequence {
            return Err(Error::tampered("its head is older than one that this process has seen"));
        }
        if self.digest == Some(head.digest) {
            self.sequence = head.sequence;
            self.audited = audit.last;
            return Ok(Checked { audit, carried_by, changed: false });
        }
        if self.digest.is_some() && head.sequence == self.sequence {
            return Err(Error::tampered("two heads have the same sequence"));
        }
        let followed = match self.digest.take() {
            Some(_) => self.follow(sql, audit.last)?.filter(|_| self.rows.digest() == head.digest),
            None => None,
        };
        if let Some(names) = followed {
            self.dates.follow(sql, keys, &self.rows, names)?;
        } else {
            let (rows, dates) = read_all(sql, keys, &TABLES)?;
            if rows.digest() != head.digest {
                return Err(blame(sql, &rows, &head.digest));
            }
            (self.rows, self.dates) = (rows, dates);
        }
        self.sequence = head.sequence;
        self.digest = Some(head.digest);
        self.audited = audit.last;
        Ok(Checked { audit, carried_by, changed: true })
    }

    /// Checks a keystore of an older schema that had all these tables, whose head is authentic.
    pub(super) fn of_older(sql: &Connection, keys: &RootKeys, head: &Head) -> Result<(Self, AuditEnds)> {
        let ends = head.audit_ends()?;
        let (rows, dates) = read_all(sql, keys, &TABLES)?;
        if rows.digest() != head.digest {
            return Err(blame(sql, &rows, &head.digest));
        }
        let trust = Self { rows, dates, digest: Some(head.digest), audited: ends.last, ..Self::nothing(head.sequence) };
        Ok((trust, ends))
    }

    /// Takes over what the audit trail says that others have changed since: a few rows, where reading all would
    /// take long. Whether it is all, and true, the digest says, which is authentic. Gives their names; `None` if it
    /// cannot be known from the trail.
    fn follow(&mut self, sql: &Connection, last: u64) -> Result<Option<BTreeSet<RowName>>> {
        let (Ok(from), Ok(to)) = (i64::try_from(self.audited), i64::try_from(last)) else { return Ok(None) };
        if to - from > FOLLOWED_MAX {
            return Ok(None);
        }
        let mut names = BTreeSet::new();
        let mut statement = sql
            .prepare_cached("SELECT changes FROM audit WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence")
            .map_err(Error::sqlite)?;
        let mut found = statement.query([from, to]).map_err(Error::sqlite)?;
        while let Some(row) = found.next().map_err(Error::sqlite)? {
            let Ok(ValueRef::Blob(changes)) = row.get_ref(0) else { return Ok(None) };
            for change in changes::read(changes) {
                let Ok((name, hash)) = change else { return Ok(None) };
                if names.len() >= CHANGED_MAX {
                    return Ok(None);
                }
                self.rows.set(name.clone(), hash)?;
                names.insert(name);
            }
        }
        Ok(Some(names))
    }
}

/// Records that are followed one by one; beyond them all rows are read.
const FOLLOWED_MAX: i64 = 4_096;
/// Rows that are followed one by one, likewise.
const CHANGED_MAX: usize = 4_096;

/// The value in the clear that tells another root key from tampering.
pub(super) fn check_root_key(sql: &Connection, keys: &RootKeys) -> Result<()> {
    let check: Vec<u8> = sql
        .prepare_cached("SELECT check_value FROM meta")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(Error::sqlite)?;
    match bool::from(check.ct_eq(&keys.check)) {
        true => Ok(()),
        false => Err(Error::root_key_replaced()),
    }
}

/// Reads every deciding row of `tables` and checks its MAC.
pub(super) fn read_all(sql: &Connection, keys: &RootKeys, tables: &[&Table]) -> Result<(Rows, Dates)> {
    let mut rows = Rows::new();
    let mut dates = Dates::default();
    for table in tables {
        for_each(sql, table, |columns, mac| {
            let name = RowName::of(table, &columns);
            let hash = keys.rows.verify(table, &columns, &mac)?;
            dates.note(table, &columns);
            match rows.set_unhashed(name.clone(), Some(hash)) {
                None => Ok(()),
                Some(_) => Err(Error::tampered(format!("the row {:?} is there twice", name.as_str()))),
            }
        })?;
    }
    rows.rehash_all()?;
    Ok((rows, dates))
}

/// Every row of a table, with its MAC, in no order.
pub(super) fn for_each(
    sql: &Connection,
    table: &Table,
    mut what: impl FnMut(Columns, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut statement = sql.prepare_cached(&select(table)).map_err(Error::sqlite)?;
    let mut found = statement.query([]).map_err(Error::sqlite)?;
    while let Some(row) = found.next().map_err(Error::sqlite)? {
        let (columns, mac) = columns_of(table, row)?;
        what(columns, mac)?;
    }
    Ok(())
}

pub(super) fn columns_of(table: &Table, row: &rusqlite::Row<'_>) -> Result<(Columns, Vec<u8>)> {
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

pub(super) fn select(table: &Table) -> String {
    let mut query = String::with_capacity(512);
    query.push_str("SELECT ");
    table.columns.iter().for_each(|column| query.extend([column, ", "]));
    query.extend(["row_mac FROM ", table.name]);
    query
}
