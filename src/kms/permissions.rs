//! Policies and grants as rows.

use super::fields::{Fields, text, time};
use super::policy::{Grant, GrantConstraints, GrantOperations, KeyPolicy};
use super::records::KeyRecord;
use super::rows::{Columns, RowName};
use super::schema::{GRANTS, POLICIES};
use super::store::millis;
use super::tx::Tx;
use crate::error::{Error, Result};
use rusqlite::types::Value;
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

/// The policy of a key: its own, or the one that every key begins with.
pub(super) fn policy_of(tx: &mut Tx<'_>, key: &KeyRecord) -> Result<Arc<KeyPolicy>> {
    static DEFAULT: OnceLock<Arc<KeyPolicy>> = OnceLock::new();
    let Some(row) = tx.row(&POLICIES, &[text(&key.key_id)])? else {
        return Ok(Arc::clone(DEFAULT.get_or_init(Arc::default)));
    };
    // Which text it is, its row's hash says: reading one takes longer than everything else in a call.
    let name = RowName::new(&POLICIES, &[text(&key.key_id)]);
    let hash = tx.trust.rows.hash_of(&name).copied();
    if let Some((known, policy)) = tx.trust.policies.get(&key.key_id)
        && Some(*known) == hash
    {
        return Ok(Arc::clone(policy));
    }
    let policy = Fields(row.into_iter().skip(POLICIES.identity)).text()?;
    let policy = Arc::new(KeyPolicy::parse(&policy).map_err(|e| {
        Error::internal(format!("the policy of the key {} was put, and cannot be read", key.key_id)).with_source(e)
    })?);
    if tx.trust.policies.len() >= POLICIES_KEPT {
        tx.trust.policies.clear();
    }
    if let Some(hash) = hash {
        tx.trust.policies.insert(key.key_id.clone(), (hash, Arc::clone(&policy)));
    }
    Ok(policy)
}

/// Gives a key a policy of its own, or another one.
pub(super) fn put_policy(tx: &mut Tx<'_>, key_id: &str, policy: &KeyPolicy) -> Result<()> {
    let row = vec![text(key_id), text(policy.text()), Value::Integer(tx.now)];
    match tx.row(&POLICIES, &[text(key_id)])? {
        None => tx.insert(&POLICIES, row),
        Some(_) => tx.update(&POLICIES, row),
    }
}

/// Every grant of a key, by id.
pub(super) fn grants_of(tx: &Tx<'_>, key_id: &str) -> Result<Vec<Grant>> {
    tx.rows_of(&GRANTS, &text(key_id))?.into_iter().map(grant).collect()
}

/// Every grant of every key.
pub(super) fn all_grants(tx: &Tx<'_>) -> Result<Vec<Grant>> {
    tx.rows(&GRANTS)?.into_iter().map(grant).collect()
}

pub(super) fn add_grant(tx: &mut Tx<'_>, grant: &Grant) -> Result<()> {
    let made = grant.creation_date.duration_since(UNIX_EPOCH).map_or(0, millis);
    let optional = |it: &Option<String>| it.as_deref().map_or(Value::Null, text);
    let row = vec![
        text(&grant.key_id),
        text(&grant.grant_id),
        text(&grant.grantee_principal),
        optional(&grant.retiring_principal),
        text(&grant.operations.to_json()),
        text(&grant.constraints.to_json()),
        optional(&grant.name),
        text(&grant.grant_token),
        Value::Integer(made),
    ];
    tx.insert(&GRANTS, row)
}

pub(super) fn remove_grant(tx: &mut Tx<'_>, grant: &Grant) -> Result<()> {
    tx.delete(&GRANTS, &[text(&grant.key_id), text(&grant.grant_id)])
}

fn grant(row: Columns) -> Result<Grant> {
    let mut row = Fields(row.into_iter());
    Ok(Grant {
        key_id: row.text()?,
        grant_id: row.text()?,
        grantee_principal: row.text()?,
        retiring_principal: row.optional_text()?,
        operations: GrantOperations::from_json(&row.text()?)?,
        constraints: GrantConstraints::from_json(&row.text()?)?,
        name: row.optional_text()?,
        grant_token: row.text()?,
        creation_date: time(row.integer()?),
    })
}

/// Policies that are kept as read at a time.
const POLICIES_KEPT: usize = 1_024;
