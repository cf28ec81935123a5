//! What of a keystore is wrapped under its root key: each such column, and what it is bound to.

use super::cipher::{self, Place};
use super::root::RootKeys;
use super::rows::{Columns, RowName};
use super::schema::{KEY_VERSIONS, META, META_AUDIT_KEY, Table, WRAPPING_KEYS};
use crate::error::{Error, Result};
use rusqlite::types::Value;
use zeroize::Zeroizing;

/// A column whose bytes are wrapped.
#[derive(Debug)]
struct Wrapped {
    table: &'static str,
    column: usize,
    purpose: &'static str,
}

/// All of them.
static WRAPPED: [Wrapped; 4] = [
    Wrapped { table: META.name, column: META_AUDIT_KEY, purpose: AUDIT },
    Wrapped { table: KEY_VERSIONS.name, column: 2, purpose: MATERIAL },
    Wrapped { table: KEY_VERSIONS.name, column: 6, purpose: SAMENESS },
    Wrapped { table: WRAPPING_KEYS.name, column: 4, purpose: WRAPPING_KEY },
];

/// The audit trail's key.
pub(super) const AUDIT: &str = "audit";
/// A version of a key.
pub(super) const MATERIAL: &str = "material";
/// What tells whether material that is imported again is the same.
pub(super) const SAMENESS: &str = "sameness";
/// The private part of a key that others wrap for.
pub(super) const WRAPPING_KEY: &str = "wrapping key";

/// Opens everything wrapped in a row, under `keys`, and counts it.
pub(super) fn open_all(keys: &RootKeys, table: &Table, columns: &Columns) -> Result<u64> {
    let mut opened = 0;
    for wrapped in in_table(table) {
        opened += u64::from(secret(keys, table, columns, wrapped)?.is_some());
    }
    Ok(opened)
}

/// Puts what is wrapped in a row under `new`, in place of `old`.
pub(super) fn rewrap(old: &RootKeys, new: &RootKeys, table: &Table, columns: &mut Columns) -> Result<()> {
    for wrapped in in_table(table) {
        let Some(secret) = secret(old, table, columns, wrapped)? else { continue };
        let bytes = cipher::wrap_bytes(&new.root, place(new, table, columns, wrapped)?, &secret)?;
        if let Some(column) = columns.get_mut(wrapped.column) {
            *column = Value::Blob(bytes);
        }
    }
    Ok(())
}

fn in_table(table: &Table) -> impl Iterator<Item = &'static Wrapped> {
    WRAPPED.iter().filter(|wrapped| wrapped.table == table.name)
}

/// `None` if the column is null.
fn secret(keys: &RootKeys, table: &Table, columns: &Columns, wrapped: &Wrapped) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(Value::Blob(bytes)) = columns.get(wrapped.column) else { return Ok(None) };
    let place = place(keys, table, columns, wrapped)?;
    cipher::unwrap_bytes(&keys.root, place, bytes).map(Some).map_err(|e| {
        let row = RowName::of(table, columns);
        Error::tampered(format!("the {} of the row {:?} is not authentic", wrapped.purpose, row.as_str()))
            .with_source(e)
    })
}

/// A row of keys or versions begins with the key's id, and of versions goes on with the version.
fn place<'a>(keys: &'a RootKeys, table: &Table, columns: &'a Columns, wrapped: &Wrapped) -> Result<Place<'a>> {
    let (key_id, version) = match columns.as_slice() {
        [Value::Text(key_id), Value::Integer(version), ..] if table.identity == 2 => (key_id.as_str(), *version),
        [Value::Text(key_id), ..] => (key_id.as_str(), 0),
        _ => ("", 0),
    };
    let version = u32::try_from(version).map_err(|_| Error::tampered("a version is no version"))?;
    Ok(Place { keystore_id: &keys.rows.keystore_id, key_id, purpose: wrapped.purpose, version })
}
