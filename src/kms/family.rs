//! What this keystore knows of a multi-Region key's other keystores, and which files passed between them: as rows.

use super::fields::{Fields, text};
use super::imported::{self, Imported, invalid_state};
use super::key::{Realm, not_found};
use super::parcel::{Address, Content, Family, FileKind, Issue, SharedVersion, check_serial, make_deletion_receipt};
use super::records::{KeyRecord, MultiRegion, Source};
use super::rows::Columns;
use super::schedule::{DeletionWindow, Rotation, RotationPeriod};
use super::schema::{PARCELS, REPLICAS};
use super::state::KeyState;
use super::tx::Tx;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::types::Value;
use uuid::Uuid;

/// The keystores that have a multi-Region key.
///
/// # Errors
/// UnsupportedOperationException for another key.
pub(super) fn load(tx: &Tx<'_>, key: &KeyRecord) -> Result<Family> {
    let mut others = Vec::new();
    for row in tx.rows_of(&REPLICAS, &text(&key.key_id))? {
        let mut row = Fields(row.into_iter().skip(1));
        let keystore_id = Uuid::try_parse(&row.text()?).map_err(|_| unreadable())?.into_bytes();
        others.push(Realm { keystore_id, region: row.text()? });
    }
    others.sort_by(|one, other| one.region.cmp(&other.region));
    let mut family = Family::alone(&key.key_id, tx.realm.clone());
    match key.multi_region {
        MultiRegion::No => Err(Error::invalid_input(format!("the key {} is no multi-Region key", key.key_id))
            .with_code("UnsupportedOperationException")
            .with_advice("make a multi-Region key: a key cannot become one later")),
        MultiRegion::Primary => Ok(Family { replicas: others, ..family }),
        MultiRegion::Replica => {
            let at = others.iter().position(|realm| Some(&realm.region) == key.primary_region.as_ref());
            let primary = others.remove(at.ok_or_else(unreadable)?);
            others.push(std::mem::replace(&mut family.primary, primary));
            others.sort_by(|one, other| one.region.cmp(&other.region));
            Ok(Family { replicas: others, ..family })
        }
    }
}

/// Keeps what is known now, and what the key here is by it. The primary key alone is rotated by schedule.
pub(super) fn keep(tx: &mut Tx<'_>, key: &mut KeyRecord, family: &Family) -> Result<()> {
    let all = std::iter::once(&family.primary).chain(&family.replicas);
    let wanted: Vec<_> = all.filter(|realm| realm.keystore_id != tx.realm.keystore_id).collect();
    let known: Vec<Value> =
        tx.rows_of(&REPLICAS, &text(&key.key_id))?.into_iter().filter_map(|row| row.into_iter().nth(1)).collect();
    for id in &known {
        if !wanted.iter().any(|realm| keystore(realm) == *id) {
            tx.delete(&REPLICAS, &[text(&key.key_id), id.clone()])?;
        }
    }
    for realm in wanted {
        if !known.contains(&keystore(realm)) {
            let row = vec![text(&key.key_id), keystore(realm), text(&realm.region), Value::Integer(tx.now)];
            tx.insert(&REPLICAS, row)?;
        }
    }
    let before = key.multi_region;
    key.primary_region = Some(family.primary.region.clone());
    key.multi_region = match family.primary.keystore_id == tx.realm.keystore_id {
        true => MultiRegion::Primary,
        false => MultiRegion::Replica,
    };
    if before != key.multi_region {
        key.next_rotation_at = match key.multi_region {
            MultiRegion::Primary => next_rotation(key, tx.now),
            _ => None,
        };
    }
    Ok(())
}

/// When a key that becomes the primary one now is rotated next.
fn next_rotation(key: &KeyRecord, now: i64) -> Option<i64> {
    let days = u16::try_from(key.rotation_period_days?).ok()?;
    let period = RotationPeriod::from_days(days).ok()?;
    Some(Rotation { since: now, period, last: None }.next_date())
}

/// A primary key whose last replica is gone begins to wait for its own deletion, if it was told to.
pub(super) fn let_go(tx: &Tx<'_>, key: &mut KeyRecord, family: &Family) {
    if key.state != KeyState::PendingReplicaDeletion || !family.may_be_deleted() {
        return;
    }
    let days = key.pending_window_days.and_then(|days| u8::try_from(days).ok());
    let window = days.and_then(|days| DeletionWindow::from_days(days).ok()).unwrap_or_default();
    key.state = KeyState::PendingDeletion;
    key.deletion_at = Some(window.ends_at(tx.now));
}

/// What all of them share.
pub(super) fn content(tx: &Tx<'_>, key: &KeyRecord) -> Result<Content> {
    let mut versions = Vec::new();
    for record in key.versions(tx)? {
        let material = key.material(tx, record.version)?.ok_or_else(|| gone(key, record.version))?.secret;
        versions.push(SharedVersion { version: record.version, created_at: record.created_at, material });
    }
    let rotation_days = key.rotation_period_days.and_then(|days| u16::try_from(days).ok());
    Ok(Content { origin: key.origin, rotation_days, description: key.description.clone(), versions })
}

/// Takes versions over from the primary key, and what else is shared. The last of them encrypts from now on.
pub(super) fn take_versions<'a>(
    tx: &mut Tx<'_>,
    key: &mut KeyRecord,
    content: &Content,
    versions: impl IntoIterator<Item = &'a SharedVersion>,
) -> Result<()> {
    for SharedVersion { version, created_at, material } in versions {
        let new = Imported { version: *version, created_at: *created_at, source: Source::Replicated, expires_at: None };
        imported::insert(tx, key, new, material)?;
        key.current_version = *version;
    }
    key.rotation_period_days = content.rotation_days.map(i64::from);
    Ok(())
}

/// The material by which its keystores know one another's files.
pub(super) fn first_material(tx: &Tx<'_>, key: &KeyRecord) -> Result<Secret<32>> {
    key.material(tx, 1)?.map(|material| material.secret).ok_or_else(|| gone(key, 1))
}

fn gone(key: &KeyRecord, version: u32) -> Error {
    invalid_state(format!("the material of version {version} of the key {} is gone", key.key_id))
        .with_advice("import the same material again first")
}

/// What the next file says of itself. Serials follow the clock, so that a keystore that was put back from a backup
/// does not use one again; where that has gone back, they count on.
pub(super) fn next_issue(tx: &Tx<'_>, key_id: &str) -> Result<Issue> {
    let parcels = parcels(tx)?;
    let last = parcels.iter().filter(|parcel| parcel.issued).map(|parcel| parcel.serial).max();
    let serial = last.unwrap_or(0).saturating_add(1).max(u64::try_from(tx.now).unwrap_or(0));
    Ok(Issue { issuer: tx.realm.clone(), key_id: key_id.to_owned(), serial, issued_at: tx.now.max(0) })
}

/// Notes a file that is given out; keeps it, where it may be asked for again.
pub(super) fn issued(tx: &mut Tx<'_>, address: &Address, kind: FileKind, file: Option<&[u8]>) -> Result<()> {
    note(tx, ISSUED, &address.target, address, kind, file)
}

/// Notes a file that is taken in: each once, and none after a later one of the same issuer about the same key.
///
/// # Errors
/// Kind InvalidInput if it was, or a later one.
pub(super) fn taken(tx: &mut Tx<'_>, address: &Address, kind: FileKind) -> Result<()> {
    let peer = peer(&address.issuer);
    let parcels = parcels(tx)?;
    let before = parcels.iter().filter(|it| !it.issued && it.peer == peer && it.key_id == address.key_id);
    check_serial(before.map(|it| it.serial).max(), address)?;
    note(tx, TAKEN, &address.issuer, address, kind, None)
}

fn note(
    tx: &mut Tx<'_>,
    direction: &str,
    with: &Realm,
    address: &Address,
    kind: FileKind,
    file: Option<&[u8]>,
) -> Result<()> {
    let serial = i64::try_from(address.serial).map_err(|_| {
        Error::invalid_input("the serial of this file is higher than any that a keystore gives")
            .with_advice("have it made anew, under a clock that is right")
    })?;
    tx.event.set("file", kind.name());
    tx.event.set("serial", serial);
    tx.event.set("with", with.to_string());
    let row = vec![
        text(direction),
        text(&peer(with)),
        text(&address.key_id),
        Value::Integer(serial),
        text(kind.name()),
        Value::Integer(tx.now),
        file.map_or(Value::Null, |file| Value::Blob(file.to_vec())),
    ];
    tx.insert(&PARCELS, row)
}

/// The last file of this kind that was issued about a key, to `target` if that matters, and is still kept.
pub(super) fn kept(tx: &Tx<'_>, key_id: &str, kind: FileKind, target: Option<&Realm>) -> Result<Option<Vec<u8>>> {
    let target = target.map(peer);
    let good = |it: &Parcel| {
        it.issued && it.key_id == key_id && it.kind == kind.name() && target.as_ref().is_none_or(|to| it.peer == *to)
    };
    let found = parcels(tx)?.into_iter().filter(|it| good(it) && it.file.is_some()).max_by_key(|it| it.serial);
    Ok(found.and_then(|it| it.file))
}

/// Keeps no older file of this kind about a key: what it says is no longer so.
pub(super) fn forget_kept(tx: &mut Tx<'_>, key_id: &str, kind: FileKind) -> Result<()> {
    for parcel in parcels(tx)? {
        if parcel.issued && parcel.key_id == key_id && parcel.kind == kind.name() && parcel.file.is_some() {
            let mut row = parcel.row;
            if let Some(file) = row.last_mut() {
                *file = Value::Null;
            }
            tx.update(&PARCELS, row)?;
        }
    }
    Ok(())
}

/// Makes the receipt that the primary key waits for, in the transaction that wipes a replica.
pub(super) fn issue_receipt(tx: &mut Tx<'_>, key: &KeyRecord) -> Result<()> {
    let Some(first) = key.material(tx, 1)? else {
        // Nothing could vouch for it: the primary key has to forget this replica.
        tx.event.set("deletionReceipt", "none: the first material was gone");
        return Ok(());
    };
    let primary = load(tx, key)?.primary;
    let address = next_issue(tx, &key.key_id)?.to(&primary);
    let file = make_deletion_receipt(&address, &first.secret)?;
    issued(tx, &address, FileKind::DeletionReceipt, Some(&file))
}

/// The replica in a Region.
///
/// # Errors
/// NotFoundException.
pub(super) fn replica_in(family: &Family, region: &str) -> Result<Realm> {
    let found = family.replicas.iter().find(|realm| realm.region == region);
    found.cloned().ok_or_else(|| {
        not_found(format!("no replica of the key {} is known in the Region {region}", family.key_id))
            .with_advice("name the Region of a replica, which was replicated from here")
    })
}

/// A row of `parcels`.
struct Parcel {
    issued: bool,
    peer: String,
    key_id: String,
    serial: u64,
    kind: String,
    file: Option<Vec<u8>>,
    row: Columns,
}

fn parcels(tx: &Tx<'_>) -> Result<Vec<Parcel>> {
    let read = |row: Columns| {
        let mut fields = Fields(row.iter().cloned());
        Ok(Parcel {
            issued: fields.text()? == ISSUED,
            peer: fields.text()?,
            key_id: fields.text()?,
            serial: u64::try_from(fields.integer()?).map_err(|_| unreadable())?,
            kind: fields.text()?,
            file: {
                fields.integer()?;
                fields.optional_blob()?
            },
            row,
        })
    };
    tx.rows(&PARCELS)?.into_iter().map(read).collect()
}

fn peer(realm: &Realm) -> String {
    Uuid::from_bytes(realm.keystore_id).to_string()
}

fn keystore(realm: &Realm) -> Value {
    Value::Text(peer(realm))
}

fn unreadable() -> Error {
    Error::internal("what is known of a key's other keystores is not of the form that this version writes")
}

const ISSUED: &str = "issued";
const TAKEN: &str = "taken";
