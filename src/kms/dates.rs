//! The dates of this keystore: what is due next is known without asking the file.
//!
//! They follow the rows: each row that is read in full, written or removed says its date, and a change that is
//! undone takes its date back.

use super::records::{KeyRecord, VersionRecord};
use super::root::RootKeys;
use super::rows::{Columns, RowName, Rows, changed};
use super::schedule::reached;
use super::schema::{KEY_VERSIONS, KEYS, Table};
use super::trust::{columns_of, select};
use super::tx::condition;
use crate::error::{Error, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::collections::{BTreeMap, BTreeSet};

/// A row that can have a date.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dated {
    Key(String),
    /// A version of a key.
    Version(String, u32),
}

/// What is done when a date has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Rotate,
    Delete,
    /// Imported material may not be used any more.
    Expire,
}

/// A date, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) at: i64,
    pub(super) what: What,
}

/// The dates of all rows that have one.
#[derive(Debug, Default)]
pub(super) struct Dates {
    of: BTreeMap<Dated, Date>,
    order: BTreeSet<(i64, Dated)>,
}

impl Dates {
    /// Notes what a row says now, and gives what it said before. `None` for a row that has no dates.
    pub(super) fn note(&mut self, table: &Table, columns: &Columns) -> Option<(Dated, Option<Date>)> {
        let dated = Dated::of(table, columns)?;
        let date = match dated {
            Dated::Key(_) => KeyRecord::from_row(columns.clone()).ok().and_then(|key| key.date()),
            Dated::Version(..) => VersionRecord::from_row(columns.clone()).ok().and_then(|version| version.date()),
        };
        let before = self.set(dated.clone(), date);
        Some((dated, before))
    }

    /// Forgets a row that is removed, and gives what it said.
    pub(super) fn forget(&mut self, table: &Table, identity: &[Value]) -> Option<(Dated, Option<Date>)> {
        let dated = Dated::of(table, identity)?;
        let before = self.set(dated.clone(), None);
        Some((dated, before))
    }

    /// Gives a row a date, or none, and gives what it had. The end of time is no date.
    pub(super) fn set(&mut self, dated: Dated, date: Option<Date>) -> Option<Date> {
        let date = date.filter(|date| date.at != i64::MAX);
        let before = match date {
            Some(date) => self.of.insert(dated.clone(), date),
            None => self.of.remove(&dated),
        };
        if let Some(before) = before {
            self.order.remove(&(before.at, dated.clone()));
        }
        if let Some(date) = date {
            self.order.insert((date.at, dated));
        }
        before
    }

    /// The earliest of all.
    pub(super) fn next(&self) -> Option<i64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Whether anything is due.
    pub(super) fn is_due(&self, now: i64) -> bool {
        self.next().is_some_and(|at| reached(at, now))
    }

    /// Everything that is due, the earliest first.
    pub(super) fn until(&self, now: i64) -> Vec<Dated> {
        self.order.iter().take_while(|(at, _)| reached(*at, now)).map(|(_, dated)| dated.clone()).collect()
    }

    pub(super) fn date_of(&self, dated: &Dated) -> Option<Date> {
        self.of.get(dated).copied()
    }

    /// Takes over what `names` say, rows that another process changed: read, and compared with `rows`.
    pub(super) fn follow(
        &mut self,
        sql: &Connection,
        keys: &RootKeys,
        rows: &Rows,
        names: impl IntoIterator<Item = RowName>,
    ) -> Result<()> {
        for name in names {
            let Some((table, identity)) = place(&name) else { continue };
            let Some(expected) = rows.hash_of(&name) else {
                self.forget(table, &identity);
                continue;
            };
            let query = format!("{} WHERE {}", select(table), condition(table));
            let mut statement = sql.prepare_cached(&query).map_err(Error::sqlite)?;
            let mut found = statement.query(params_from_iter(&identity)).map_err(Error::sqlite)?;
            let Some(row) = found.next().map_err(Error::sqlite)? else { return Err(changed(&name)) };
            let (columns, mac) = columns_of(table, row)?;
            match keys.rows.verify(table, &columns, &mac)? == *expected {
                true => self.note(table, &columns),
                false => return Err(changed(&name)),
            };
        }
        Ok(())
    }
}

impl Dated {
    fn of(table: &Table, identity: &[Value]) -> Option<Self> {
        match identity {
            [Value::Text(key_id), ..] if table.name == KEYS.name => Some(Self::Key(key_id.clone())),
            [Value::Text(key_id), Value::Integer(version), ..] if table.name == KEY_VERSIONS.name => {
                Some(Self::Version(key_id.clone(), u32::try_from(*version).ok()?))
            }
            _ => None,
        }
    }
}

/// The table and identity in the name of a row that can have a date.
fn place(name: &RowName) -> Option<(&'static Table, Vec<Value>)> {
    let (table, identity) = name.as_str().split_once(' ')?;
    match identity.split_once('/') {
        None if table == KEYS.name => Some((&KEYS, vec![Value::Text(identity.to_owned())])),
        Some((key_id, version)) if table == KEY_VERSIONS.name => {
            Some((&KEY_VERSIONS, vec![Value::Text(key_id.to_owned()), Value::Integer(version.parse().ok()?)]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_in_order_and_are_taken_back() {
        let mut dates = Dates::default();
        let key = |name: &str| Dated::Key(name.to_owned());
        let at = |at| Some(Date { at, what: What::Rotate });
        assert!(dates.next().is_none() && !dates.is_due(i64::MAX));
        assert_eq!(dates.set(key("a"), at(30)), None);
        assert_eq!(dates.set(key("b"), at(20)), None);
        assert_eq!(dates.set(Dated::Version("a".to_owned(), 1), at(30)), None);
        assert_eq!(dates.set(key("never"), at(i64::MAX)), None);
        assert!(dates.next() == Some(20) && !dates.is_due(19) && dates.is_due(20));
        assert_eq!(dates.until(30), [key("b"), key("a"), Dated::Version("a".to_owned(), 1)]);
        let before = dates.set(key("b"), at(40));
        assert_eq!((before, dates.next()), (at(20), Some(30)));
        dates.set(key("b"), before);
        assert_eq!((dates.until(29), dates.until(i64::MAX).len()), (vec![key("b")], 3));
        assert_eq!(dates.set(key("b"), None), at(20));
        assert_eq!(dates.next(), Some(30));
    }

    #[test]
    fn the_name_of_a_row_leads_back_to_it() {
        let identity = vec![Value::Text("mrk-0".to_owned()), Value::Integer(7)];
        let name = RowName::new(&KEY_VERSIONS, &identity);
        assert_eq!(place(&name).map(|(table, identity)| (table.name, identity)), Some(("key_versions", identity)));
        assert_eq!(place(&RowName::read("keys mrk-0")).map(|(table, _)| table.name), Some("keys"));
        assert!(place(&RowName::read("tags mrk-0/a")).is_none() && place(&RowName::read("keys a/b")).is_none());
    }
}
