//! What the keystore does by itself when a date has come: rotation, deletion, expiry.
//!
//! It is done in the first transaction that writes after the date, before any call that is made after it, whoever runs that;
//! and by the keystore's thread while nobody calls. Each is recorded under CloudTrail's name for it, as done by
//! the keystore itself.

use super::call::Call;
use super::dates::{Date, Dated, What};
use super::family;
use super::fields::text;
use super::group::Group;
use super::migrate::DAY;
use super::records::{KeyRecord, MultiRegion, Source, VersionRecord};
use super::rows::Columns;
use super::schedule::{Rotation, reached};
use super::schema::{ALIASES, GRANTS, KEY_VERSIONS, KEYS, POLICIES, REPLICAS, TAGS, Table, WRAPPING_KEYS};
use super::state::KeyState;
use super::tx::Tx;
use super::wrapping::WrappingKey;
use crate::error::{Error, Result};
use rusqlite::types::Value;
use std::sync::Arc;

/// The principal of what the keystore does by itself. No handle can be its.
pub(super) const KEYSTORE: &str = "envelock";

/// Does all that is due. What fails is recorded, and tried again in a minute.
pub(super) fn run(group: &mut Group<'_>) {
    let now = group.tx.now;
    for dated in group.tx.trust.dates.until(now) {
        // A key that was deleted just now took its versions with it.
        let Some(date) = group.tx.trust.dates.date_of(&dated).filter(|date| reached(date.at, now)) else { continue };
        if group.is_over() {
            return;
        }
        let name = match date.what {
            What::Rotate => "RotateKey",
            What::Delete => "DeleteKey",
            What::Expire => "DeleteExpiredKeyMaterial",
            What::ThrowAway => "DeleteExpiredWrappingKey",
        };
        let done = group.run(&Call::new(name, &Arc::from(KEYSTORE)), |tx| match &dated {
            Dated::Key(key_id) if date.what == What::Rotate => rotate(tx, key_id),
            Dated::Key(key_id) => delete(tx, key_id),
            Dated::Version(key_id, version) => expire(tx, key_id, *version),
            Dated::WrappingKey(id) => throw_away(tx, id),
        });
        if done.is_err() {
            group.tx.trust.dates.set(dated, Some(Date { at: now.saturating_add(AGAIN), ..date }));
        }
    }
}

/// Moves dates on that passed while a backup lay aside, for whoever restores it: a rotation by one period, since a version
/// that was made meanwhile, and is in a later backup perhaps, would have the same number; a deletion so that the shortest
/// window is left to cancel it in.
pub(super) fn postpone(tx: &mut Tx<'_>) -> Result<()> {
    let soonest = tx.now.saturating_add(SHORTEST_WINDOW_DAYS * DAY);
    for mut key in KeyRecord::all(tx)? {
        let overdue = key.next_rotation_at.filter(|at| reached(*at, tx.now)).and(key.rotation_period_days);
        if let Some(days) = overdue {
            key.next_rotation_at = Some(tx.now.saturating_add(days.saturating_mul(DAY)));
        }
        let hasty = key.deletion_at.is_some_and(|at| at < soonest);
        if hasty {
            key.deletion_at = Some(soonest);
        }
        if overdue.is_some() || hasty {
            key.save(tx)?;
        }
    }
    Ok(())
}

fn rotate(tx: &mut Tx<'_>, key_id: &str) -> Result<()> {
    let mut key = existing(tx, key_id)?;
    let Some(rotation) = key.rotation().filter(|rotation| rotation.is_due(key.state, tx.now)) else {
        return Err(not_due(key_id));
    };
    key.next_rotation_at = Some(Rotation { last: Some(tx.now), ..rotation }.next_date());
    key.rotate(tx, Source::Automatic)?;
    tx.event.set("keyVersion", key.current_version);
    Ok(())
}

fn delete(tx: &mut Tx<'_>, key_id: &str) -> Result<()> {
    let key = existing(tx, key_id)?;
    let due = key.state == KeyState::PendingDeletion && key.deletion_at.is_some_and(|at| reached(at, tx.now));
    match due {
        true => {
            if key.multi_region == MultiRegion::Replica {
                family::issue_receipt(tx, &key)?;
            }
            wipe(tx, &key)
        }
        false => Err(not_due(key_id)),
    }
}

fn expire(tx: &mut Tx<'_>, key_id: &str, version: u32) -> Result<()> {
    let mut key = existing(tx, key_id)?;
    let found = VersionRecord::find(tx, key_id, version)?;
    let due = |record: &VersionRecord| record.expires_at.is_some_and(|at| reached(at, tx.now));
    let Some(record) = found.filter(due) else { return Err(not_due(key_id)) };
    tx.event.set("keyVersion", version);
    lose_material(tx, &mut key, record)
}

fn throw_away(tx: &mut Tx<'_>, id: &str) -> Result<()> {
    let now = tx.now;
    let found = WrappingKey::find(tx, id)?.filter(|key| reached(key.valid_until, now));
    let Some(key) = found else { return Err(Error::internal("no key pair is to be thrown away")) };
    tx.event.key_id.clone_from(&key.key_id);
    key.delete(tx)
}

/// Removes the material of a version, and leaves what it was: a key of which any is missing waits for its import. New
/// material that waits for its rotation has encrypted nothing, and leaves nothing.
pub(super) fn lose_material(tx: &mut Tx<'_>, key: &mut KeyRecord, mut version: VersionRecord) -> Result<()> {
    if version.version > key.current_version {
        return tx.delete(&KEY_VERSIONS, &[text(&key.key_id), Value::Integer(version.version.into())]);
    }
    version.wrapped = None;
    version.save(tx, &key.key_id)?;
    // A key that is to be deleted stays that.
    if matches!(key.state, KeyState::Enabled | KeyState::Disabled) {
        key.state = KeyState::PendingImport;
        key.save(tx)?;
    }
    tx.revoked = true;
    Ok(())
}

/// Removes a key with its material, aliases, tags, grants and policy. What its aliases pointed to before stays
/// known, and so do the serials of files that passed between keystores: each is taken once for ever.
pub(super) fn wipe(tx: &mut Tx<'_>, key: &KeyRecord) -> Result<()> {
    let key_id = text(&key.key_id);
    for table in [&KEY_VERSIONS, &TAGS, &GRANTS, &REPLICAS] {
        for row in tx.rows_of(table, &key_id)? {
            remove(tx, table, &row)?;
        }
    }
    for (table, column) in [(&ALIASES, "key_id"), (&WRAPPING_KEYS, "key_id")] {
        let at = table.columns.iter().position(|name| *name == column).unwrap_or_default();
        for row in tx.rows(table)?.iter().filter(|row| row.get(at) == Some(&key_id)) {
            remove(tx, table, row)?;
        }
    }
    for table in [&POLICIES, &KEYS] {
        if let Some(row) = tx.row(table, std::slice::from_ref(&key_id))? {
            remove(tx, table, &row)?;
        }
    }
    tx.revoked = true;
    Ok(())
}

fn remove(tx: &mut Tx<'_>, table: &Table, row: &Columns) -> Result<()> {
    let identity: Vec<Value> = row.iter().take(table.identity).cloned().collect();
    tx.delete(table, &identity)
}

fn existing(tx: &mut Tx<'_>, key_id: &str) -> Result<KeyRecord> {
    key_id.clone_into(&mut tx.event.key_id);
    KeyRecord::find(tx, key_id)?.ok_or_else(|| not_due(key_id))
}

fn not_due(key_id: &str) -> Error {
    Error::internal(format!("nothing of the key {key_id} is due"))
}

/// After this time what failed is tried again, in milliseconds.
const AGAIN: i64 = 60_000;
/// AWS's shortest wait before a deletion.
const SHORTEST_WINDOW_DAYS: i64 = 7;
