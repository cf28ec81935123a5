//! Aliases as rows, and the managed keys that the use of some makes.

use super::answers::AliasEntry;
use super::fields::{Fields, text, time};
use super::key::{KeyManager, KeyName, KeyOrigin, MANAGED_PREFIX, Realm, not_found};
use super::records::{KeyRecord, MultiRegion, NewKey};
use super::rows::Columns;
use super::schema::{ALIAS_HISTORY, ALIASES};
use super::tx::Tx;
use crate::error::{Error, Result};
use rusqlite::types::Value;

/// A row of `aliases`.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    pub(super) alias: String,
    pub(super) key_id: String,
    created_at: i64,
    updated_at: i64,
}

impl Alias {
    pub(super) fn find(tx: &Tx<'_>, alias: &str) -> Result<Option<Self>> {
        tx.row(&ALIASES, &[text(alias)])?.map(Self::from_row).transpose()
    }

    /// Every alias, by name.
    pub(super) fn all(tx: &Tx<'_>) -> Result<Vec<Self>> {
        tx.rows(&ALIASES)?.into_iter().map(Self::from_row).collect()
    }

    /// Makes an alias that does not exist.
    pub(super) fn create(tx: &mut Tx<'_>, alias: &str, key_id: &str) -> Result<()> {
        let alias = Self { alias: alias.to_owned(), key_id: key_id.to_owned(), created_at: tx.now, updated_at: tx.now };
        tx.insert(&ALIASES, alias.to_row())?;
        alias.remember(tx)
    }

    /// Points the alias at another key.
    pub(super) fn point_to(mut self, tx: &mut Tx<'_>, key_id: &str) -> Result<()> {
        key_id.clone_into(&mut self.key_id);
        self.updated_at = tx.now;
        tx.update(&ALIASES, self.to_row())?;
        self.remember(tx)
    }

    /// Removes the alias. What it pointed to stays known, should it be made again.
    pub(super) fn delete(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.delete(&ALIASES, &[text(&self.alias)])
    }

    /// Every key that an alias ever pointed to, oldest first.
    pub(super) fn history(tx: &Tx<'_>, alias: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for position in 1.. {
            let Some(row) = tx.row(&ALIAS_HISTORY, &[text(alias), Value::Integer(position)])? else { break };
            keys.push(Fields(row.into_iter().skip(ALIAS_HISTORY.identity)).text()?);
        }
        Ok(keys)
    }

    fn remember(&self, tx: &mut Tx<'_>) -> Result<()> {
        let history = Self::history(tx, &self.alias)?;
        if history.contains(&self.key_id) {
            return Ok(());
        }
        let position = i64::try_from(history.len() + 1).map_err(|_| Error::limit("the alias was moved too often"))?;
        let row = vec![text(&self.alias), Value::Integer(position), text(&self.key_id), Value::Integer(tx.now)];
        tx.insert(&ALIAS_HISTORY, row)
    }

    pub(super) fn entry(self) -> AliasEntry {
        AliasEntry {
            alias_name: self.alias,
            target_key_id: self.key_id,
            creation_date: time(self.created_at),
            last_updated_date: time(self.updated_at),
        }
    }

    fn from_row(row: Columns) -> Result<Self> {
        let mut row = Fields(row.into_iter());
        Ok(Self { alias: row.text()?, key_id: row.text()?, created_at: row.integer()?, updated_at: row.integer()? })
    }

    fn to_row(&self) -> Columns {
        vec![text(&self.alias), text(&self.key_id), Value::Integer(self.created_at), Value::Integer(self.updated_at)]
    }
}

/// The key that `name` stands for. The first use of an alias below `alias/envelock/` makes its managed key,
/// which only the owner's may.
pub(super) fn key_for(tx: &mut Tx<'_>, name: &str) -> Result<KeyRecord> {
    match KeyRecord::resolve(tx, name)? {
        Some(key) => Ok(key),
        None => make_managed(tx, name),
    }
}

/// Makes the managed key of an alias below `alias/envelock/`.
fn make_managed(tx: &mut Tx<'_>, name: &str) -> Result<KeyRecord> {
    let alias = managed_alias(tx.realm, name)?.ok_or_else(|| not_found(format!("the alias {name} does not exist")))?;
    tx.permit_owner("the first use of a managed key")?;
    let new = NewKey {
        manager: KeyManager::Managed,
        origin: KeyOrigin::Local,
        multi_region: MultiRegion::No,
        description: "made by the first use of its alias",
    };
    let key = KeyRecord::create(tx, new)?;
    Alias::create(tx, alias, &key.key_id)?;
    Ok(key)
}

/// The alias in `name`, if it is a managed key's: `alias/envelock/` and one word.
fn managed_alias<'a>(realm: &Realm, name: &'a str) -> Result<Option<&'a str>> {
    Ok(match realm.resolve(name)? {
        KeyName::Alias(alias) => {
            alias.strip_prefix(MANAGED_PREFIX).filter(|word| !word.is_empty() && !word.contains('/')).map(|_| alias)
        }
        KeyName::Id(_) => None,
    })
}
