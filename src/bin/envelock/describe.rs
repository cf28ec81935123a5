//! `keys describe`: all that there is to know about a key, and a key as JSON.

use crate::failure::Failure;
use crate::inspect::json_text;
use crate::text::{answer, date, plain};
use crate::time::local;
use envelock::kms::{AliasEntry, KeyManager, KeyMetadata, KeyOrigin, KeyPolicy, KeyVersion, MultiRegionKeyType, Tag};
use envelock::{Error, ErrorKind, LocalKms, blocking::wait};
use serde_json::{Value, json};

pub(crate) fn aliases_of<'a>(key: &KeyMetadata, aliases: &'a [AliasEntry]) -> Vec<&'a str> {
    aliases.iter().filter(|it| it.target_key_id == key.key_id).map(|it| it.alias_name.as_str()).collect()
}

/// What there is to a key beside itself; nothing of what the caller may not see.
#[derive(Default)]
struct Beside {
    tags: Vec<Tag>,
    /// Whether it was given a policy.
    own_policy: Option<bool>,
    grants: Option<usize>,
}

impl Beside {
    fn of(kms: &LocalKms, key: &str) -> Result<Self, Failure> {
        Ok(Self {
            tags: allowed(wait(kms.list_resource_tags(key)))?.unwrap_or_default(),
            own_policy: allowed(wait(kms.get_key_policy(key)))?
                .map(|policy| policy.text() != KeyPolicy::default().text()),
            grants: allowed(wait(kms.list_grants(key)))?.map(|grants| grants.len()),
        })
    }
}

fn allowed<T>(answer: Result<T, Error>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::KeyDenied => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn describe(kms: &LocalKms, name: &str, is_owner: bool, as_json: bool) -> Result<(), Failure> {
    let key = wait(kms.describe_key(name))?;
    let versions = wait(kms.list_key_versions(&key.key_id))?;
    let aliases = wait(kms.list_aliases())?;
    let aliases = aliases_of(&key, &aliases);
    // Others would leave records of what they were denied and did not ask for.
    let beside = match is_owner {
        true => Beside::of(kms, &key.key_id)?,
        false => Beside::default(),
    };
    if as_json {
        let mut value = with_aliases(key_json(&key), &aliases);
        if let Value::Object(fields) = &mut value {
            fields.insert("versions".into(), versions.iter().map(version_json).collect());
            let tags = beside.tags.iter().map(|tag| (tag.tag_key.clone(), Value::from(tag.tag_value.as_str())));
            fields.insert("tags".into(), Value::Object(tags.collect()));
            fields.insert("own_policy".into(), beside.own_policy.into());
            fields.insert("grants".into(), beside.grants.into());
        }
        return answer(&json_text(&value));
    }
    let mut out = format!(
        "key          {}\nstate        {}\nmanager      {}\norigin       {}\ncreated      {}\n",
        key.arn,
        key.key_state.name(),
        manager(&key),
        match key.origin {
            KeyOrigin::External => "imported",
            _ => "made here",
        },
        local(key.creation_date)
    );
    if let Some(kind) = key.multi_region {
        let kind = match kind {
            MultiRegionKeyType::Primary => "primary key".to_owned(),
            _ => format!("replica of the primary key in {}", key.primary_region.as_deref().unwrap_or("another Region")),
        };
        out.push_str(&format!("multi-Region {kind}\n"));
    }
    if !key.description.is_empty() {
        out.push_str(&format!("description  {}\n", plain(&key.description)));
    }
    if let Some(days) = key.pending_deletion_window_in_days {
        let when = key.deletion_date.map_or("once its replicas are deleted, and then".to_owned(), |at| {
            format!("at {}, having waited", local(at))
        });
        out.push_str(&format!("deletion     {when} {days} days\n"));
    }
    if let (Some(days), Some(next)) = (key.rotation_period_in_days, key.next_rotation_date) {
        out.push_str(&format!("rotated      every {days} days, next at {}\n", local(next)));
    }
    for alias in aliases {
        out.push_str(&format!("alias        {alias}\n"));
    }
    for tag in &beside.tags {
        out.push_str(&format!("tag          {}={}\n", plain(&tag.tag_key), plain(&tag.tag_value)));
    }
    if let Some(own) = beside.own_policy {
        out.push_str(&format!("policy       {}\n", if own { "its own" } else { "none of its own" }));
    }
    if let Some(grants) = beside.grants {
        out.push_str(&format!("grants       {grants}\n"));
    }
    for version in &versions {
        let current = if version.version == key.current_version { ", current" } else { "" };
        let material = match (version.has_material, version.valid_to) {
            (false, _) => ", its material is not here".to_owned(),
            (true, Some(at)) => format!(", expires at {}", local(at)),
            (true, None) => String::new(),
        };
        let made = local(version.creation_date);
        out.push_str(&format!("version      {} ({made}{current}{material})\n", version.version));
    }
    if versions.is_empty() {
        out.push_str("version      none: no key material was imported yet\n");
    }
    answer(&out)
}

fn manager(key: &KeyMetadata) -> &'static str {
    match key.key_manager {
        KeyManager::Managed => "managed",
        _ => "customer",
    }
}

/// What is told of a key wherever JSON has one.
pub(crate) fn key_json(key: &KeyMetadata) -> Value {
    json!({
        "key_id": key.key_id,
        "arn": key.arn,
        "state": key.key_state.name(),
        "enabled": key.enabled,
        "manager": manager(key),
        "origin": key.origin.name(),
        "description": key.description,
        "created": date(key.creation_date),
        "current_version": key.current_version,
        "valid_to": key.valid_to.map(date),
        "deletion_date": key.deletion_date.map(date),
        "pending_window_in_days": key.pending_deletion_window_in_days,
        "rotation_period_in_days": key.rotation_period_in_days,
        "next_rotation_date": key.next_rotation_date.map(date),
        "multi_region_key_type": key.multi_region.map(MultiRegionKeyType::name),
        "primary_region": key.primary_region,
    })
}

pub(crate) fn with_aliases(mut key: Value, aliases: &[impl AsRef<str>]) -> Value {
    if let Value::Object(fields) = &mut key {
        fields.insert("aliases".into(), aliases.iter().map(AsRef::as_ref).collect());
    }
    key
}

fn version_json(version: &KeyVersion) -> Value {
    json!({
        "version": version.version,
        "created": date(version.creation_date),
        "has_material": version.has_material,
        "valid_to": version.valid_to.map(date),
    })
}
