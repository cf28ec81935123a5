//! Operations that rest on deciding rows, and every way to change one of these under a process that has the keystore open.
//!
//! Each operation is tried alone, since the first that finds a forged row would keep others from being tried.

use super::furnished::{
    assert_tampered, dump, furnished, named_keys, other, put, remove, special_keys, without_constraints,
};
use super::{Place, block_on};
use crate::error::Result;
use crate::kms::rows::RowName;
use crate::kms::schema::{TABLES, Table};
use crate::kms::{LocalKms, MultiRegionKeyType};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::BTreeMap;

/// A furnished keystore, and what its keys are called.
pub(super) struct Scene {
    pub(super) place: Place,
    pub(super) kms: LocalKms,
    pub(super) orders: String,
    pub(super) invoices: String,
    pub(super) external: String,
    pub(super) shared: String,
    /// A replica of another keystore's key.
    pub(super) theirs: String,
    /// The id of the grant of `orders`.
    pub(super) grant: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (place, kms) = furnished();
        Self::of(place, kms)
    }

    pub(super) fn of(place: Place, kms: LocalKms) -> Self {
        let ([orders, invoices], [external, shared]) = (named_keys(&kms), special_keys(&kms));
        let grant = block_on(kms.list_grants(&orders)).unwrap().remove(0).grant_id;
        let all = block_on(kms.list_keys()).unwrap();
        let theirs = all.into_iter().find(|key| key.multi_region == Some(MultiRegionKeyType::Replica)).unwrap().key_id;
        Self { place, kms, orders, invoices, external, shared, theirs, grant }
    }

    /// The table and the first row that `text` stands for: a table, the beginning of an identity, and after `*` what a
    /// column has.
    pub(super) fn row(&self, sql: &Connection, text: &str) -> (&'static Table, Vec<Value>) {
        let names = [("{orders}", &self.orders), ("{invoices}", &self.invoices)];
        let more = [("{external}", &self.external), ("{shared}", &self.shared), ("{theirs}", &self.theirs)];
        let text = names.iter().chain(&more).fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let (name, has) = text.split_once('*').map_or((text.as_str(), None), |(name, has)| (name, Some(has)));
        let table = *TABLES.iter().find(|table| name.starts_with(&format!("{} ", table.name))).unwrap();
        let is_meant = |row: &Vec<Value>| match has {
            None => RowName::of(table, row).as_str() == name,
            Some(has) => {
                RowName::of(table, row).as_str().starts_with(name) && row.contains(&Value::Text(has.to_owned()))
            }
        };
        (table, dump(sql, table).into_iter().find(is_meant).unwrap_or_else(|| panic!("no row {text}")))
    }

    /// The same row with another content and a MAC that envelock made: for a moment it was there, so that it is an older
    /// one now.
    fn older(&self, sql: &Connection, table: &'static Table, row: &[Value]) -> Vec<Value> {
        let older = with_another_content(table, row);
        let set = |row: &[Value]| {
            let columns = row[..table.columns.len()].to_vec();
            block_on(self.kms.call(self.kms.asks("Test"), move |tx| tx.update(table, columns.clone()))).unwrap();
        };
        set(&older);
        let name = RowName::of(table, row);
        let older = dump(sql, table).into_iter().find(|it| RowName::of(table, it) == name).unwrap();
        set(row);
        older
    }
}

/// As something that the table's own constraints take.
pub(super) fn with_another_content(table: &Table, row: &[Value]) -> Vec<Value> {
    let inside = ["description", "tag_value", "at", "since", "updated_at", "created_at"];
    let at = inside.iter().find_map(|name| table.columns.iter().position(|column| column == name)).unwrap();
    let mut changed = row.to_vec();
    changed[at] = other(&row[at]);
    changed
}

/// An operation, and the rows that it rests on.
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) run: fn(&Scene) -> Result<()>,
    pub(super) rows: &'static [&'static str],
}

/// Rows that are removed and rows that are put, and whose names may be told.
struct Tampering {
    how: String,
    without: Vec<Vec<Value>>,
    with: Vec<Vec<Value>>,
}

/// Every way to change one row.
fn tamperings(table: &Table, rows: &[Vec<Value>], row: &[Value], older: &[Value]) -> Vec<Tampering> {
    let row = row.to_vec();
    let long = std::env::var("ENVELOCK_LONG").is_ok_and(|it| it == "1");
    let mut all = Vec::new();
    // By default the first part of its identity, one of what it says, and its MAC.
    for at in (0..row.len()).filter(|at| long || *at == 0 || *at >= row.len() - 2) {
        let mut changed = row.clone();
        changed[at] = other(&row[at]);
        let how = format!("with another {}", table.columns.get(at).unwrap_or(&"row_mac"));
        all.push(Tampering { how, without: vec![row.clone()], with: vec![changed] });
    }
    all.push(Tampering { how: "older".to_owned(), without: vec![row.clone()], with: vec![older.to_vec()] });
    all.push(Tampering { how: "deleted".to_owned(), without: vec![row.clone()], with: vec![] });
    all.push(Tampering { how: "twice".to_owned(), without: vec![], with: vec![row.clone()] });
    let elsewhere = rows.iter().find(|it| it[0] != row[0]).or_else(|| rows.iter().find(|it| **it != row));
    if let Some(that) = elsewhere {
        let (mut this_now, mut that_now) = (row.clone(), that.clone());
        this_now[table.identity..].clone_from_slice(&that[table.identity..]);
        that_now[table.identity..].clone_from_slice(&row[table.identity..]);
        let how = "swapped with another".to_owned();
        all.push(Tampering { how, without: vec![row, that.clone()], with: vec![this_now, that_now] });
    }
    all
}

/// Each operation fails, in a running process, for each change of each row that it rests on, and names the row; and does
/// not fail without.
pub(super) fn assert_each_finds_what_it_rests_on(operations: &[Operation]) {
    let scene = Scene::new();
    let sql = scene.place.sql();
    let mut older = BTreeMap::new();
    for text in operations.iter().flat_map(|it| it.rows) {
        let (table, row) = scene.row(&sql, text);
        let name = RowName::of(table, &row);
        older.entry(name).or_insert_with(|| scene.older(&sql, table, &row));
    }
    TABLES.iter().for_each(|table| without_constraints(&sql, table));
    let mut tried = 0;
    for Operation { name, run, rows } in operations {
        run(&Scene::new()).unwrap_or_else(|error| panic!("{name}, nothing changed: {error:?}"));
        for text in *rows {
            let (table, row) = scene.row(&sql, text);
            for Tampering { how, without, with } in
                tamperings(table, &dump(&sql, table), &row, &older[&RowName::of(table, &row)])
            {
                without.iter().for_each(|row| remove(&sql, table, row));
                with.iter().for_each(|row| put(&sql, table, row));
                let what = format!("{name}: {text} {how}");
                let names: Vec<_> = without
                    .iter()
                    .chain(&with)
                    .map(|row| format!("the row {:?} ", RowName::of(table, row).as_str()))
                    .collect();
                assert_tampered(&run(&scene).expect_err(&what), &names, &what);
                with.iter().for_each(|row| remove_one(&sql, table, row));
                without.iter().for_each(|row| put(&sql, table, row));
                tried += 1;
            }
        }
    }
    block_on(scene.kms.verify_audit(None)).unwrap();
    println!("{tried} tries");
}

/// One of two that are the same, if there are two.
fn remove_one(sql: &Connection, table: &Table, row: &[Value]) {
    let all: Vec<_> = table.columns.iter().chain([&"row_mac"]).map(|it| format!("{it} IS ?")).collect();
    let rowid = format!("SELECT rowid FROM {} WHERE {} LIMIT 1", table.name, all.join(" AND "));
    let statement = format!("DELETE FROM {} WHERE rowid = ({rowid})", table.name);
    assert_eq!(sql.execute(&statement, rusqlite::params_from_iter(row)).unwrap(), 1);
}
