//! Keys, versions and aliases as rows, and the questions that operations ask of them.

use super::answers::{AliasEntry, KeyMetadata, KeyVersion};
use super::cipher::{self, Material, Place};
use super::key::{KeyManager, KeyName, KeyOrigin, KeyState, MANAGED_PREFIX, Realm, Spelled, not_found, validation};
use super::rows::Columns;
use super::schema::{ALIAS_HISTORY, ALIASES, KEY_VERSIONS, KEYS};
use super::store::{Store, Tx};
use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::types::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A row of `keys`.
#[derive(Clone, Debug)]
pub(super) struct KeyRecord {
    pub(super) key_id: String,
    pub(super) manager: KeyManager,
    pub(super) state: KeyState,
    origin: KeyOrigin,
    description: String,
    created_at: i64,
    pub(super) current_version: u32,
}

impl KeyRecord {
    /// The key with this id, if there is one.
    pub(super) fn find(tx: &Tx<'_>, key_id: &str) -> Result<Option<Self>> {
        tx.row(&KEYS, &[text(key_id)])?.map(Self::from_row).transpose()
    }

    /// Every key, oldest first.
    pub(super) fn all(tx: &Tx<'_>) -> Result<Vec<Self>> {
        let mut all = tx.rows(&KEYS)?.into_iter().map(Self::from_row).collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| (a.created_at, &a.key_id).cmp(&(b.created_at, &b.key_id)));
        Ok(all)
    }

    /// The key that a caller's name stands for; `None` for an alias that does not exist.
    pub(super) fn resolve(tx: &Tx<'_>, name: &str) -> Result<Option<Self>> {
        let key_id = match tx.realm.resolve(name)? {
            KeyName::Id(key_id) => key_id.to_owned(),
            KeyName::Alias(alias) => match Alias::find(tx, alias)? {
                Some(alias) => alias.key_id,
                None => return Ok(None),
            },
        };
        match Self::find(tx, &key_id)? {
            Some(key) => Ok(Some(key)),
            None => Err(not_found(format!("the key {key_id} is not in this keystore, {}", tx.realm))),
        }
    }

    /// As [`resolve`](Self::resolve), where the key must exist.
    pub(super) fn existing(tx: &Tx<'_>, name: &str) -> Result<Self> {
        Self::resolve(tx, name)?.ok_or_else(|| not_found(format!("the alias {name} does not exist")))
    }

    /// Makes a key with its first version.
    pub(super) fn create(tx: &mut Tx<'_>, manager: KeyManager, description: &str) -> Result<Self> {
        if description.chars().count() > DESCRIPTION_MAX {
            return Err(validation(format!("the description is longer than {DESCRIPTION_MAX} characters")));
        }
        let mut random = [0; 16];
        crypto::random::fill(&mut random)?;
        let mut key = Self {
            key_id: uuid::Builder::from_random_bytes(random).into_uuid().to_string(),
            manager,
            state: KeyState::Enabled,
            origin: KeyOrigin::Local,
            description: description.to_owned(),
            created_at: tx.now,
            current_version: 0,
        };
        key.add_version(tx)?;
        tx.insert(&KEYS, key.to_row())?;
        Ok(key)
    }

    /// Adds a version with fresh material, which encrypts from now on.
    pub(super) fn rotate(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.add_version(tx)?;
        tx.update(&KEYS, self.to_row())
    }

    fn add_version(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let version = self.current_version.checked_add(1);
        let version = version.ok_or_else(|| Error::limit("the key has as many versions as a key can have"))?;
        let material = Secret::try_init(|out| crypto::random::fill(out))?;
        let wrapped = cipher::wrap(&tx.keys.root, self.place(tx.realm, version), &material)?;
        let row =
            vec![text(&self.key_id), Value::Integer(version.into()), Value::Blob(wrapped), Value::Integer(tx.now)];
        tx.insert(&KEY_VERSIONS, row)?;
        self.current_version = version;
        Ok(())
    }

    /// The material that encrypts.
    pub(super) fn current_material(&self, tx: &Tx<'_>) -> Result<Material> {
        self.material(tx, self.current_version)?
            .ok_or_else(|| Error::tampered(format!("the key {} has no current version", self.key_id)))
    }

    /// The material of a version; `None` if the key never had it.
    pub(super) fn material(&self, tx: &Tx<'_>, version: u32) -> Result<Option<Material>> {
        let Some(row) = tx.row(&KEY_VERSIONS, &[text(&self.key_id), Value::Integer(version.into())])? else {
            return Ok(None);
        };
        let mut row = Fields(row.into_iter().skip(KEY_VERSIONS.identity));
        let wrapped = row.blob()?;
        let secret = cipher::unwrap(&tx.keys.root, self.place(tx.realm, version), &wrapped).map_err(|e| {
            Error::tampered(format!("the material of the key {} is not authentic", self.key_id)).with_source(e)
        })?;
        Ok(Some(Material { key_id: self.key_id.clone(), version, secret }))
    }

    /// Every version, oldest first.
    pub(super) fn versions(&self, tx: &Tx<'_>) -> Result<Vec<KeyVersion>> {
        (1..=self.current_version)
            .filter_map(|version| {
                let row = tx.row(&KEY_VERSIONS, &[text(&self.key_id), Value::Integer(version.into())]).transpose()?;
                Some(row.and_then(|row| {
                    let created_at = Fields(row.into_iter().skip(KEY_VERSIONS.identity + 1)).integer()?;
                    Ok(KeyVersion { version, creation_date: time(created_at) })
                }))
            })
            .collect()
    }

    pub(super) fn metadata(self, realm: &Realm) -> KeyMetadata {
        KeyMetadata {
            arn: realm.full_name(&self.key_id),
            key_id: self.key_id,
            key_state: self.state,
            key_manager: self.manager,
            origin: self.origin,
            description: self.description,
            creation_date: time(self.created_at),
            current_version: self.current_version,
        }
    }

    fn place<'a>(&'a self, realm: &'a Realm, version: u32) -> Place<'a> {
        Place { keystore_id: &realm.keystore_id, key_id: &self.key_id, purpose: "material", version }
    }

    fn from_row(row: Columns) -> Result<Self> {
        let mut row = Fields(row.into_iter());
        Ok(Self {
            key_id: row.text()?,
            manager: row.spelled()?,
            state: row.spelled()?,
            origin: row.spelled()?,
            description: row.text()?,
            created_at: row.integer()?,
            current_version: row.u32()?,
        })
    }

    fn to_row(&self) -> Columns {
        vec![
            text(&self.key_id),
            text(self.manager.spelling()),
            text(self.state.spelling()),
            text(self.origin.spelling()),
            text(&self.description),
            Value::Integer(self.created_at),
            Value::Integer(self.current_version.into()),
        ]
    }
}

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

/// Runs `operation` on the key that `name` stands for. The first use of an alias below
/// `alias/envelock/` makes its managed key, in the same transaction; every other use only reads.
pub(super) fn with_key<T>(
    store: &mut Store,
    name: &str,
    operation: impl Fn(&Tx<'_>, &KeyRecord) -> Result<T>,
) -> Result<T> {
    let done = store.read(|tx| match KeyRecord::resolve(tx, name)? {
        Some(key) => operation(tx, &key).map(Some),
        None if managed_alias(tx.realm, name)?.is_some() => Ok(None),
        None => Err(not_found(format!("the alias {name} does not exist"))),
    })?;
    match done {
        Some(answer) => Ok(answer),
        None => store.write(|tx| {
            let key = ensure_managed(tx, name)?;
            operation(tx, &key)
        }),
    }
}

/// The managed key of an alias below `alias/envelock/`, made if it does not exist.
fn ensure_managed(tx: &mut Tx<'_>, name: &str) -> Result<KeyRecord> {
    if let Some(key) = KeyRecord::resolve(tx, name)? {
        return Ok(key);
    }
    let alias = managed_alias(tx.realm, name)?.ok_or_else(|| not_found(format!("the alias {name} does not exist")))?;
    let key = KeyRecord::create(tx, KeyManager::Managed, "made by the first use of its alias")?;
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

/// The columns of an authenticated row, one after another: of the types that they were written with.
struct Fields<I>(I);

impl<I: Iterator<Item = Value>> Fields<I> {
    fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(unreadable()),
        }
    }

    fn integer(&mut self) -> Result<i64> {
        match self.0.next() {
            Some(Value::Integer(number)) => Ok(number),
            _ => Err(unreadable()),
        }
    }

    fn u32(&mut self) -> Result<u32> {
        self.integer()?.try_into().map_err(|_| unreadable())
    }

    fn blob(&mut self) -> Result<Vec<u8>> {
        match self.0.next() {
            Some(Value::Blob(bytes)) => Ok(bytes),
            _ => Err(unreadable()),
        }
    }

    fn spelled<T: Spelled>(&mut self) -> Result<T> {
        T::of_spelling(&self.text()?).ok_or_else(unreadable)
    }
}

fn unreadable() -> Error {
    Error::internal("an authentic row of the keystore is not of the form that this version writes")
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// AWS's.
const DESCRIPTION_MAX: usize = 8_192;
