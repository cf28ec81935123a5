//! Imported key material: which version it becomes, and whether it is what was there before.

use super::answers::ImportType;
use super::cipher;
use super::key::KeyOrigin;
use super::parcel::SameMaterial;
use super::records::{KeyRecord, MultiRegion, Source, VersionRecord};
use super::schema::KEY_VERSIONS;
use super::state::KeyState;
use super::tx::Tx;
use super::wrapped;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// Takes material into a key of origin EXTERNAL, and gives the version that it is of: one that it was of before, the
/// first one, or the next one, which encrypts nothing until the key is rotated.
///
/// # Errors
/// IncorrectKeyMaterialException for other material than before, and for what was imported before where new is meant;
/// KMSInvalidStateException while other new material waits; UnsupportedOperationException for new material at a replica.
pub(super) fn take(
    tx: &mut Tx<'_>,
    key: &mut KeyRecord,
    material: &Secret<32>,
    import_type: Option<ImportType>,
    expires_at: Option<i64>,
) -> Result<u32> {
    let pending = waiting(tx, key)?;
    let waits = pending.is_some();
    let mut known = None;
    for version in key.versions(tx)?.into_iter().chain(pending) {
        if is_same(tx, key, &version, material)? {
            known = Some(version);
        }
    }
    let number = match known {
        Some(version) if import_type == Some(ImportType::NewKeyMaterial) && version.version <= key.current_version => {
            return Err(not_new(version.version));
        }
        Some(mut version) => {
            version.wrapped = Some(key.wrap(tx, version.version, material)?);
            version.expires_at = expires_at;
            version.save(tx, &key.key_id)?;
            version.version
        }
        None => {
            let first = key.current_version == 0;
            if !first {
                check_new(key, import_type, waits)?;
            }
            let number = key.next_version()?;
            insert(
                tx,
                key,
                Imported { version: number, created_at: tx.now, source: Source::Imported, expires_at },
                material,
            )?;
            if first {
                key.current_version = number;
            }
            number
        }
    };
    if key.state == KeyState::PendingImport && key.versions(tx)?.iter().all(|version| version.wrapped.is_some()) {
        key.state = KeyState::Enabled;
    }
    key.save(tx)?;
    Ok(number)
}

/// Of a version whose material came from outside.
pub(super) struct Imported {
    pub(super) version: u32,
    pub(super) created_at: i64,
    pub(super) source: Source,
    pub(super) expires_at: Option<i64>,
}

/// Adds a version with given material; where the key's material is imported, with the mark that knows it again.
pub(super) fn insert(tx: &mut Tx<'_>, key: &KeyRecord, new: Imported, material: &Secret<32>) -> Result<()> {
    let Imported { version, created_at, source, expires_at } = new;
    let sameness = match key.origin {
        KeyOrigin::Local => None,
        KeyOrigin::External => {
            let place = key.place_for(tx.realm, wrapped::SAMENESS, version);
            Some(cipher::wrap_bytes(&tx.keys.root, place, SameMaterial::of(material)?.expose())?)
        }
    };
    let wrapped = Some(key.wrap(tx, version, material)?);
    let record = VersionRecord { version, wrapped, created_at, source, expires_at, sameness };
    tx.insert(&KEY_VERSIONS, record.to_row(&key.key_id))
}

/// Lets the new material that waits encrypt from now on.
///
/// # Errors
/// KMSInvalidStateException if none waits.
pub(super) fn rotate_to_imported(tx: &mut Tx<'_>, key: &mut KeyRecord) -> Result<()> {
    let Some(mut version) = waiting(tx, key)? else {
        let message = format!("the key {} has no new key material to rotate to", key.key_id);
        return Err(invalid_state(message).with_advice("import new key material first"));
    };
    version.created_at = tx.now;
    version.save(tx, &key.key_id)?;
    key.current_version = version.version;
    key.save(tx)
}

/// New material that waits for the rotation of its key.
pub(super) fn waiting(tx: &Tx<'_>, key: &KeyRecord) -> Result<Option<VersionRecord>> {
    VersionRecord::find(tx, &key.key_id, key.next_version()?)
}

/// Whether a version has, or had, this material.
fn is_same(tx: &Tx<'_>, key: &KeyRecord, version: &VersionRecord, material: &Secret<32>) -> Result<bool> {
    let Some(mark) = &version.sameness else { return Ok(false) };
    let not_authentic = || Error::tampered(format!("what is known of the material of the key {} is not", key.key_id));
    let place = key.place_for(tx.realm, wrapped::SAMENESS, version.version);
    let mark = cipher::unwrap_bytes(&tx.keys.root, place, mark).map_err(|e| not_authentic().with_source(e))?;
    let mark = SameMaterial::from_slice(&mark).ok_or_else(not_authentic)?;
    Ok(mark.check(material).is_ok())
}

/// Whether material that was never here may be imported.
fn check_new(key: &KeyRecord, import_type: Option<ImportType>, waits: bool) -> Result<()> {
    if import_type != Some(ImportType::NewKeyMaterial) {
        return Err(SameMaterial::other());
    }
    if key.multi_region == MultiRegion::Replica {
        return Err(Error::invalid_input(format!(
            "the key {} is a replica: new material comes from its primary",
            key.key_id
        ))
        .with_code("UnsupportedOperationException")
        .with_advice("import it at the primary key, rotate that, and import the rotation here"));
    }
    match waits {
        true => Err(invalid_state(format!("new material of the key {} waits for its rotation already", key.key_id))
            .with_advice("rotate the key, or delete the material that waits")),
        false => Ok(()),
    }
}

fn not_new(version: u32) -> Error {
    Error::invalid_input(format!("this key material is not new: it is that of version {version}"))
        .with_code("IncorrectKeyMaterialException")
        .with_advice("a rotation needs other material; to import the same again, do not call it new")
}

pub(super) fn invalid_state(message: String) -> Error {
    Error::new(ErrorKind::KeyState, message).with_code("KMSInvalidStateException")
}
