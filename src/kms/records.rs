//! Keys and their versions as rows, and the questions that operations ask of them.

use super::alias::Alias;
use super::answers::{KeyMetadata, KeyRotation, KeyVersion, RotationType};
use super::cipher::{self, Material, Place};
use super::dates::{Date, What};
use super::fields::{Fields, blob, integer, text, time};
use super::key::{KeyManager, KeyName, KeyOrigin, MultiRegionKeyType, Realm, Spelled, not_found, validation};
use super::migrate::{DAY, MANAGED_PERIOD_DAYS};
use super::rows::Columns;
use super::schedule::{Rotation, RotationPeriod};
use super::schema::{KEY_VERSIONS, KEYS};
use super::state::{KeyKind, KeyState};
use super::tx::Tx;
use super::wrapped;
use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::types::Value;
use std::rc::Rc;

/// A row of `keys`.
#[derive(Clone, Debug)]
pub(super) struct KeyRecord {
    pub(super) key_id: String,
    pub(super) manager: KeyManager,
    pub(super) state: KeyState,
    pub(super) origin: KeyOrigin,
    pub(super) description: String,
    pub(super) created_at: i64,
    /// 0 for an imported key that never had material.
    pub(super) current_version: u32,
    /// The period of automatic rotation, where it is enabled.
    pub(super) rotation_period_days: Option<i64>,
    /// When it is rotated next.
    pub(super) next_rotation_at: Option<i64>,
    /// When it is deleted, or was to be until its last replica is.
    pub(super) deletion_at: Option<i64>,
    /// How long its deletion was told to wait.
    pub(super) pending_window_days: Option<i64>,
    pub(super) multi_region: MultiRegion,
    /// Where the primary of a multi-Region key is.
    pub(super) primary_region: Option<String>,
}

/// What a key is among the keystores that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MultiRegion {
    /// It is in this keystore only.
    No,
    Primary,
    Replica,
}

impl MultiRegion {
    pub(super) fn key_type(self) -> Option<MultiRegionKeyType> {
        match self {
            Self::No => None,
            Self::Primary => Some(MultiRegionKeyType::Primary),
            Self::Replica => Some(MultiRegionKeyType::Replica),
        }
    }
}

impl Spelled for MultiRegion {
    const SPELLINGS: &'static [(Self, &'static str)] =
        &[(Self::No, ""), (Self::Primary, "primary"), (Self::Replica, "replica")];
}

/// What kind of key is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewKey<'a> {
    pub(super) manager: KeyManager,
    pub(super) origin: KeyOrigin,
    pub(super) multi_region: MultiRegion,
    pub(super) description: &'a str,
}

/// What a version of a key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Made with the key.
    Created,
    /// A rotation that its period asked for.
    Automatic,
    /// A rotation that somebody asked for.
    OnDemand,
    /// Imported.
    Imported,
    /// From the primary of a multi-Region key.
    Replicated,
}

impl Spelled for Source {
    const SPELLINGS: &'static [(Self, &'static str)] = &[
        (Self::Created, "created"),
        (Self::Automatic, "automatic"),
        (Self::OnDemand, "on demand"),
        (Self::Imported, "imported"),
        (Self::Replicated, "replicated"),
    ];
}

/// A row of `key_versions`, without its key.
#[derive(Clone, Debug)]
pub(super) struct VersionRecord {
    pub(super) version: u32,
    /// `None` once the material was deleted.
    pub(super) wrapped: Option<Vec<u8>>,
    pub(super) created_at: i64,
    pub(super) source: Source,
    /// From when the material may not be used any more.
    pub(super) expires_at: Option<i64>,
    /// What tells, wrapped, whether material that is imported again is the same.
    pub(super) sameness: Option<Vec<u8>>,
}

impl KeyRecord {
    /// The key with this id, if there is one.
    pub(super) fn find(tx: &Tx<'_>, key_id: &str) -> Result<Option<Self>> {
        if let Some(known) = tx.remembered_key(key_id) {
            return Ok(Some(known));
        }
        let found = tx.row(&KEYS, &[text(key_id)])?.map(Self::from_row).transpose()?;
        found.iter().for_each(|key| tx.remember_key(key));
        Ok(found)
    }

    /// What the state table calls it.
    pub(super) fn kind(&self) -> KeyKind {
        KeyKind::of(self.manager, self.origin, self.multi_region.key_type())
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

    /// Makes a key, with its first version unless that is to be imported.
    pub(super) fn create(tx: &mut Tx<'_>, new: NewKey<'_>) -> Result<Self> {
        let NewKey { manager, origin, multi_region, description } = new;
        check_description(description)?;
        let mut random = [0; 16];
        crypto::random::fill(&mut random)?;
        let mut key = Self {
            key_id: match multi_region {
                MultiRegion::No => uuid::Builder::from_random_bytes(random).into_uuid().to_string(),
                _ => format!("mrk-{}", uuid::Builder::from_random_bytes(random).into_uuid().simple()),
            },
            manager,
            state: KeyState::Enabled,
            origin,
            description: description.to_owned(),
            created_at: tx.now,
            current_version: 0,
            rotation_period_days: None,
            next_rotation_at: None,
            deletion_at: None,
            pending_window_days: None,
            multi_region,
            primary_region: (multi_region == MultiRegion::Primary).then(|| tx.realm.region.clone()),
        };
        if manager == KeyManager::Managed {
            key.rotation_period_days = Some(MANAGED_PERIOD_DAYS);
            key.next_rotation_at = Some(tx.now.saturating_add(MANAGED_PERIOD_DAYS * DAY));
        }
        match origin {
            KeyOrigin::Local => key.add_version(tx, Source::Created)?,
            KeyOrigin::External => key.state = KeyState::PendingImport,
        }
        tx.insert(&KEYS, key.to_row())?;
        tx.event.key_id.clone_from(&key.key_id);
        Ok(key)
    }

    /// Writes the key as it is now.
    pub(super) fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.update(&KEYS, self.to_row())
    }

    /// Adds a version with fresh material, which encrypts from now on.
    pub(super) fn rotate(&mut self, tx: &mut Tx<'_>, source: Source) -> Result<()> {
        self.add_version(tx, source)?;
        self.save(tx)
    }

    fn add_version(&mut self, tx: &mut Tx<'_>, source: Source) -> Result<()> {
        let version = self.next_version()?;
        let material = Secret::try_init(|out| crypto::random::fill(out))?;
        let wrapped = Some(self.wrap(tx, version, &material)?);
        let record = VersionRecord { version, wrapped, created_at: tx.now, source, expires_at: None, sameness: None };
        tx.insert(&KEY_VERSIONS, record.to_row(&self.key_id))?;
        self.current_version = version;
        Ok(())
    }

    /// The number that the next version gets.
    pub(super) fn next_version(&self) -> Result<u32> {
        self.current_version
            .checked_add(1)
            .ok_or_else(|| Error::limit("the key has as many versions as a key can have"))
    }

    /// Encrypts the material of a version under the root key.
    pub(super) fn wrap(&self, tx: &Tx<'_>, version: u32, material: &Secret<32>) -> Result<Vec<u8>> {
        cipher::wrap(&tx.keys.root, self.place(tx.realm, version), material)
    }

    /// The material that encrypts.
    pub(super) fn current_material(&self, tx: &Tx<'_>) -> Result<Rc<Material>> {
        self.shared_material(tx, self.current_version)?
            .ok_or_else(|| Error::tampered(format!("the key {} has no current version", self.key_id)))
    }

    /// As [`material`](Self::material), which calls that share a transaction unwrap once.
    pub(super) fn shared_material(&self, tx: &Tx<'_>, version: u32) -> Result<Option<Rc<Material>>> {
        if let Some(known) = tx.remembered_material(&self.key_id, version) {
            return Ok(Some(known));
        }
        let material = self.material(tx, version)?.map(Rc::new);
        material.iter().for_each(|material| tx.remember_material(material));
        Ok(material)
    }

    /// The material of a version; `None` if the key never had it, or it is gone.
    pub(super) fn material(&self, tx: &Tx<'_>, version: u32) -> Result<Option<Material>> {
        let Some(VersionRecord { wrapped: Some(wrapped), .. }) = VersionRecord::find(tx, &self.key_id, version)? else {
            return Ok(None);
        };
        let secret = cipher::unwrap(&tx.keys.root, self.place(tx.realm, version), &wrapped).map_err(|e| {
            Error::tampered(format!("the material of the key {} is not authentic", self.key_id)).with_source(e)
        })?;
        Ok(Some(Material { key_id: self.key_id.clone(), version, secret }))
    }

    /// Every version, oldest first.
    pub(super) fn versions(&self, tx: &Tx<'_>) -> Result<Vec<VersionRecord>> {
        (1..=self.current_version)
            .filter_map(|version| VersionRecord::find(tx, &self.key_id, version).transpose())
            .collect()
    }

    /// When something is due, and what.
    pub(super) fn date(&self) -> Option<Date> {
        match self.state {
            KeyState::PendingDeletion => self.deletion_at.map(|at| Date { at, what: What::Delete }),
            KeyState::Enabled => self.next_rotation_at.map(|at| Date { at, what: What::Rotate }),
            _ => None,
        }
    }

    /// Its automatic rotation, if that is switched on.
    pub(super) fn rotation(&self) -> Option<Rotation> {
        let days = u16::try_from(self.rotation_period_days?).ok()?;
        let period = RotationPeriod::from_days(days).ok()?;
        // One period before the next date is as good as the day on which it was switched on.
        let since = self.next_rotation_at?.saturating_sub(i64::from(days) * DAY);
        Some(Rotation { since, period, last: None })
    }

    /// Whether it waits for its own deletion or for its replicas'.
    pub(super) fn is_pending_deletion(&self) -> bool {
        matches!(self.state, KeyState::PendingDeletion | KeyState::PendingReplicaDeletion)
    }

    pub(super) fn metadata(self, tx: &Tx<'_>) -> Result<KeyMetadata> {
        // Only imported material expires: of other keys no version is read.
        let expires_at = match self.origin {
            KeyOrigin::External => self.versions(tx)?.iter().filter_map(VersionRecord::expiry).min(),
            KeyOrigin::Local => None,
        };
        let pending = self.is_pending_deletion();
        let days = |days: Option<i64>| days.and_then(|days| u16::try_from(days).ok());
        Ok(KeyMetadata {
            arn: tx.realm.full_name(&self.key_id),
            key_id: self.key_id,
            key_state: self.state,
            key_manager: self.manager,
            origin: self.origin,
            description: self.description,
            creation_date: time(self.created_at),
            current_version: self.current_version,
            enabled: self.state == KeyState::Enabled,
            deletion_date: self.deletion_at.filter(|_| self.state == KeyState::PendingDeletion).map(time),
            pending_deletion_window_in_days: days(self.pending_window_days.filter(|_| pending)),
            rotation_period_in_days: days(self.rotation_period_days),
            next_rotation_date: self.next_rotation_at.map(time),
            valid_to: expires_at.map(time),
            multi_region: self.multi_region.key_type(),
            primary_region: self.primary_region,
        })
    }

    fn place<'a>(&'a self, realm: &'a Realm, version: u32) -> Place<'a> {
        self.place_for(realm, wrapped::MATERIAL, version)
    }

    /// Where something that is wrapped and belongs to a version has its place.
    pub(super) fn place_for<'a>(&'a self, realm: &'a Realm, purpose: &'a str, version: u32) -> Place<'a> {
        Place { keystore_id: &realm.keystore_id, key_id: &self.key_id, purpose, version }
    }

    pub(super) fn from_row(row: Columns) -> Result<Self> {
        let mut row = Fields(row.into_iter());
        Ok(Self {
            key_id: row.text()?,
            manager: row.spelled()?,
            state: row.spelled()?,
            origin: row.spelled()?,
            description: row.text()?,
            created_at: row.integer()?,
            current_version: row.u32()?,
            rotation_period_days: row.optional_integer()?,
            next_rotation_at: row.optional_integer()?,
            deletion_at: row.optional_integer()?,
            pending_window_days: row.optional_integer()?,
            multi_region: row.spelled()?,
            primary_region: row.optional_text()?,
        })
    }

    pub(super) fn to_row(&self) -> Columns {
        vec![
            text(&self.key_id),
            text(self.manager.spelling()),
            text(self.state.spelling()),
            text(self.origin.spelling()),
            text(&self.description),
            Value::Integer(self.created_at),
            Value::Integer(self.current_version.into()),
            integer(self.rotation_period_days),
            integer(self.next_rotation_at),
            integer(self.deletion_at),
            integer(self.pending_window_days),
            text(self.multi_region.spelling()),
            self.primary_region.as_deref().map_or(Value::Null, text),
        ]
    }
}

impl VersionRecord {
    pub(super) fn find(tx: &Tx<'_>, key_id: &str, version: u32) -> Result<Option<Self>> {
        tx.row(&KEY_VERSIONS, &[text(key_id), Value::Integer(version.into())])?.map(Self::from_row).transpose()
    }

    /// Writes this version of a key, which must exist, as it is now.
    pub(super) fn save(&self, tx: &mut Tx<'_>, key_id: &str) -> Result<()> {
        tx.update(&KEY_VERSIONS, self.to_row(key_id))
    }

    /// When its material expires.
    pub(super) fn date(&self) -> Option<Date> {
        self.expires_at.filter(|_| self.wrapped.is_some()).map(|at| Date { at, what: What::Expire })
    }

    /// The rotation that added it, if one did.
    pub(super) fn rotation(&self) -> Option<KeyRotation> {
        let rotation_type = match self.source {
            Source::Automatic => RotationType::Automatic,
            Source::OnDemand | Source::Imported => RotationType::OnDemand,
            Source::Replicated => RotationType::OfPrimary,
            Source::Created => return None,
        };
        let rotation_date = time(self.created_at);
        (self.version > 1).then_some(KeyRotation { version: self.version, rotation_date, rotation_type })
    }

    pub(super) fn answer(&self) -> KeyVersion {
        KeyVersion {
            version: self.version,
            creation_date: time(self.created_at),
            has_material: self.wrapped.is_some(),
            valid_to: self.expiry().map(time),
        }
    }

    /// When its material expires, if it is here.
    fn expiry(&self) -> Option<i64> {
        self.expires_at.filter(|_| self.wrapped.is_some())
    }

    pub(super) fn from_row(row: Columns) -> Result<Self> {
        let mut row = Fields(row.into_iter().skip(1));
        Ok(Self {
            version: row.u32()?,
            wrapped: row.optional_blob()?,
            created_at: row.integer()?,
            source: row.spelled()?,
            expires_at: row.optional_integer()?,
            sameness: row.optional_blob()?,
        })
    }

    pub(super) fn to_row(&self, key_id: &str) -> Columns {
        vec![
            text(key_id),
            Value::Integer(self.version.into()),
            blob(self.wrapped.as_deref()),
            Value::Integer(self.created_at),
            text(self.source.spelling()),
            integer(self.expires_at),
            blob(self.sameness.as_deref()),
        ]
    }
}

pub(super) fn check_description(description: &str) -> Result<()> {
    match description.chars().count() {
        0..=DESCRIPTION_MAX => Ok(()),
        _ => Err(validation(format!("the description is longer than {DESCRIPTION_MAX} characters"))),
    }
}

/// AWS's.
const DESCRIPTION_MAX: usize = 8_192;
