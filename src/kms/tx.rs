//! A transaction with its head checked: rows in and out.
//!
//! Each deciding row that is used, or should have been found, is compared with the row hashes kept from
//! the last check of the file. What one operation changes is noted, for its audit record, and can be
//! undone without the operations that share the transaction.

use super::audit::changes;
use super::call::Event;
use super::cipher::Material;
use super::dates::{Date, Dated};
use super::key::Realm;
use super::records::KeyRecord;
use super::root::RootKeys;
use super::rows::{Columns, RowHash, RowName, changed};
use super::schema::Table;
use super::trust::{Trust, columns_of, select};
use crate::error::{Error, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::rc::Rc;
use std::sync::Arc;

/// What operations work on.
#[derive(Debug)]
pub(super) struct Tx<'a> {
    pub(super) sql: &'a Connection,
    pub(super) keys: &'a RootKeys,
    pub(super) realm: &'a Realm,
    pub(super) trust: &'a mut Trust,
    /// Milliseconds since the Unix epoch.
    pub(super) now: i64,
    /// Who calls.
    pub(super) principal: Arc<str>,
    /// What the audit trail will say of the call.
    pub(super) event: Event,
    /// Whether a data key that was handed out before may no longer be used.
    pub(super) revoked: bool,
    /// The keys that may take the place of `keys`.
    pub(super) successor: Option<&'a RootKeys>,
    access: Access,
    changes: Vec<Changed>,
    savepoint: bool,
    /// Where several calls may ask for the same.
    remembered: Option<RefCell<Remembered>>,
}

/// What was read and checked, while no row has changed since.
#[derive(Debug, Default)]
struct Remembered {
    rows: HashMap<RowName, Option<Columns>>,
    /// Of the last two each call adds a few at most, so that they can be looked through.
    keys: Vec<KeyRecord>,
    materials: Vec<Rc<Material>>,
}

/// Whether a transaction may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It holds no write lock.
    Reading,
    /// As `Reading`, and an operation found that it has to change something.
    Wanted,
    Writing,
}

#[derive(Debug)]
struct Changed {
    name: RowName,
    before: Option<RowHash>,
    after: Option<RowHash>,
    /// What the row said before of when something is due, if it can say that.
    dated: Option<(Dated, Option<Date>)>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        sql: &'a Connection,
        keys: &'a RootKeys,
        realm: &'a Realm,
        trust: &'a mut Trust,
        access: Access,
        now: i64,
    ) -> Self {
        Self {
            sql,
            keys,
            realm,
            trust,
            now,
            principal: Arc::from(""),
            event: Event::default(),
            revoked: false,
            successor: None,
            access,
            changes: Vec::new(),
            savepoint: false,
            remembered: None,
        }
    }

    /// Reads no row twice from now on, and unwraps no material that [calls share](KeyRecord::shared_material) twice: nobody else can change what this transaction
    /// sees.
    pub(super) fn remember(&mut self) {
        self.remembered.get_or_insert_default();
    }

    /// The key with this id, if it was read before.
    pub(super) fn remembered_key(&self, key_id: &str) -> Option<KeyRecord> {
        self.remembered.as_ref()?.borrow().keys.iter().find(|it| it.key_id == key_id).cloned()
    }

    pub(super) fn remember_key(&self, key: &KeyRecord) {
        if let Some(remembered) = &self.remembered {
            remembered.borrow_mut().keys.push(key.clone());
        }
    }

    /// The material of this version of a key, if it was unwrapped before.
    pub(super) fn remembered_material(&self, key_id: &str, version: u32) -> Option<Rc<Material>> {
        let remembered = self.remembered.as_ref()?.borrow();
        remembered.materials.iter().find(|it| it.version == version && it.key_id == key_id).cloned()
    }

    pub(super) fn remember_material(&self, material: &Rc<Material>) {
        if let Some(remembered) = &self.remembered {
            remembered.borrow_mut().materials.push(Rc::clone(material));
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The row of `table` with this identity; `None` only if there is none and should be none.
    pub(super) fn row(&self, table: &Table, identity: &[Value]) -> Result<Option<Columns>> {
        let name = RowName::new(table, identity);
        if let Some(known) = self.remembered.as_ref().and_then(|it| it.borrow().rows.get(&name).cloned()) {
            return Ok(known);
        }
        let found = self.read_row(table, identity, &name)?;
        if let Some(remembered) = &self.remembered {
            remembered.borrow_mut().rows.insert(name, found.clone());
        }
        Ok(found)
    }

    fn read_row(&self, table: &Table, identity: &[Value], name: &RowName) -> Result<Option<Columns>> {
        let mut query = select(table);
        query.push_str(" WHERE ");
        push_condition(&mut query, table);
        let mut statement = self.sql.prepare_cached(&query).map_err(Error::sqlite)?;
        let mut found = statement.query(params_from_iter(identity)).map_err(Error::sqlite)?;
        let Some(row) = found.next().map_err(Error::sqlite)? else {
            return match self.trust.rows.hash_of(name) {
                Some(_) => Err(Error::tampered(format!("the row {:?} was removed", name.as_str()))),
                None => Ok(None),
            };
        };
        let (is, columns) = self.known(table, row)?;
        if is != *name || found.next().map_err(Error::sqlite)?.is_some() {
            return Err(changed(name));
        }
        Ok(Some(columns))
    }

    /// All rows of `table`, by identity.
    pub(super) fn rows(&self, table: &Table) -> Result<Vec<Columns>> {
        self.matching(table, &select(table), &[], self.trust.rows.count(table))
    }

    /// The rows of `table` whose identity begins with `first` and has more: what belongs to a key.
    pub(super) fn rows_of(&self, table: &Table, first: &Value) -> Result<Vec<Columns>> {
        let column = table.columns.first().copied().unwrap_or_default();
        let query = format!("{} WHERE {column} = ?", select(table));
        self.matching(table, &query, std::slice::from_ref(first), self.trust.rows.count_of(table, first))
    }

    /// The rows that a query finds, which must be so many.
    fn matching(&self, table: &Table, query: &str, values: &[Value], expected: usize) -> Result<Vec<Columns>> {
        let mut statement = self.sql.prepare_cached(query).map_err(Error::sqlite)?;
        let mut found = statement.query(params_from_iter(values)).map_err(Error::sqlite)?;
        let mut all = BTreeMap::new();
        while let Some(row) = found.next().map_err(Error::sqlite)? {
            let (name, columns) = self.known(table, row)?;
            if all.insert(name.clone(), columns).is_some() {
                return Err(Error::tampered(format!("the row {:?} is there twice", name.as_str())));
            }
        }
        match all.len() == expected {
            true => Ok(all.into_values().collect()),
            false => Err(self.removed(table, values.first(), &all)),
        }
    }

    /// Names a row that should have been found.
    fn removed(&self, table: &Table, first: Option<&Value>, found: &BTreeMap<RowName, Columns>) -> Error {
        let missing = self.trust.rows.names_of(table, first).find(|name| !found.contains_key(*name));
        let name = missing.map_or_else(|| table.name.to_owned(), |name| format!("{:?}", name.as_str()));
        Error::tampered(format!("the row {name} was removed"))
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

    /// Puts `rows` in the place of all rows of `table`, which must be of the same identities: pages that held the
    /// old ones are emptied as a whole.
    pub(super) fn replace_all(&mut self, table: &Table, rows: Vec<Columns>) -> Result<()> {
        self.changing()?;
        self.sql.execute(&format!("DELETE FROM {}", table.name), []).map_err(Error::sqlite)?;
        rows.into_iter().try_for_each(|columns| self.put("INSERT", table, columns))
    }

    /// Removes a row that must exist.
    pub(super) fn delete(&mut self, table: &Table, identity: &[Value]) -> Result<()> {
        self.changing()?;
        let statement = format!("DELETE FROM {} WHERE {}", table.name, condition(table));
        let removed = self.sql.execute(&statement, params_from_iter(identity)).map_err(Error::sqlite)?;
        let name = RowName::new(table, identity);
        let before = self.trust.rows.set(name.clone(), None)?;
        let dated = self.trust.dates.forget(table, identity);
        self.changes.push(Changed { name: name.clone(), before, after: None, dated });
        match (removed, before) {
            (1, Some(_)) => Ok(()),
            _ => Err(changed(&name)),
        }
    }

    fn put(&mut self, verb: &str, table: &Table, mut columns: Columns) -> Result<()> {
        self.changing()?;
        let (mac, hash) = self.keys.rows.authenticate(table, &columns)?;
        let name = RowName::of(table, &columns);
        columns.push(Value::Blob(mac.to_vec()));
        let places = vec!["?"; columns.len()].join(", ");
        let statement = format!("{verb} INTO {} ({}, row_mac) VALUES ({places})", table.name, table.columns.join(", "));
        self.sql.execute(&statement, params_from_iter(&columns)).map_err(Error::sqlite)?;
        let dated = self.trust.dates.note(table, &columns);
        let before = self.trust.rows.set(name.clone(), Some(hash))?;
        self.changes.push(Changed { name, before, after: Some(hash), dated });
        Ok(())
    }

    /// A row as read, if it is the one that was there at the last check.
    fn known(&self, table: &Table, row: &rusqlite::Row<'_>) -> Result<(RowName, Columns)> {
        let (columns, mac) = columns_of(table, row)?;
        let name = RowName::of(table, &columns);
        let hash = self.keys.rows.hash(table, &columns, &mac)?;
        match self.trust.rows.hash_of(&name) {
            Some(known) if *known == hash => Ok((name, columns)),
            Some(_) => Err(changed(&name)),
            None => Err(Error::tampered(format!("the row {:?} was added", name.as_str()))),
        }
    }

    /// The connection, for what an operation changes of the audit trail.
    pub(super) fn changing_trail(&mut self) -> Result<&'a Connection> {
        self.changing()?;
        Ok(self.sql)
    }

    /// For an operation that changes nothing, and is not answered before its record is durable, whatever the mode.
    pub(super) fn recorded_first(&mut self) -> Result<()> {
        match self.access {
            Access::Writing => Ok(()),
            _ => {
                self.access = Access::Wanted;
                Err(Error::internal("a record was to be written in a transaction that reads"))
            }
        }
    }

    /// The first change of an operation sets the point to which it can be undone.
    fn changing(&mut self) -> Result<()> {
        if self.access != Access::Writing {
            self.access = Access::Wanted;
            return Err(Error::internal("a reading transaction was asked to change the keystore"));
        }
        self.forget();
        if !self.savepoint {
            self.sql.execute_batch("SAVEPOINT operation").map_err(Error::sqlite)?;
            self.savepoint = true;
        }
        Ok(())
    }

    /// Keeps what the operation changed, and says what it was: for each row its name, and its hash if it
    /// is still there. Empty if nothing was changed.
    /// Encoded as [`changes`] has it.
    pub(super) fn keep(&mut self) -> Result<Vec<u8>> {
        if !std::mem::take(&mut self.savepoint) {
            return Ok(Vec::new());
        }
        self.sql.execute_batch("RELEASE operation").map_err(Error::sqlite)?;
        let last: BTreeMap<_, _> = self.changes.drain(..).map(|change| (change.name, change.after)).collect();
        let mut encoded = Vec::with_capacity(last.len() * 96);
        for (name, after) in last {
            changes::put(&mut encoded, &name, after.as_ref())?;
        }
        Ok(encoded)
    }

    /// What was read may be read otherwise from now on.
    fn forget(&mut self) {
        if let Some(remembered) = &mut self.remembered {
            remembered.take();
        }
    }

    /// Undoes what the operation changed.
    pub(super) fn undo(&mut self) -> Result<()> {
        self.forget();
        if std::mem::take(&mut self.savepoint) {
            self.sql.execute_batch("ROLLBACK TO operation; RELEASE operation").map_err(Error::sqlite)?;
        }
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            self.trust.rows.set(change.name, change.before)?;
            if let Some((dated, before)) = change.dated {
                self.trust.dates.set(dated, before);
            }
        }
        self.revoked = false;
        Ok(())
    }
}

pub(super) fn condition(table: &Table) -> String {
    let mut condition = String::new();
    push_condition(&mut condition, table);
    condition
}

/// That it is the row of an identity.
fn push_condition(query: &mut String, table: &Table) {
    for (column, between) in table.columns.iter().take(table.identity).zip(iter::once("").chain(iter::repeat(" AND ")))
    {
        query.extend([between, column, " = ?"]);
    }
}
