//! `keys`: the embedded keystore.

use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keys_args::{AliasCommand, Keys, KeysCommand, RootCommand};
use crate::keystore::{self, Missing};
use crate::life;
use crate::material;
use crate::regions;
use crate::signals::Signals;
use crate::states::{self, Form};
use crate::text::{Notes, answer, date, plain};
use crate::time::local;
use crate::upkeep;
use envelock::kms::{AliasEntry, KeyManager, KeyMetadata, KeyPolicy, KeyVersion, Tag};
use envelock::{CreateKeyRequest, Error, ErrorKind, LocalKms, blocking::wait};
use serde_json::{Value, json};

pub(crate) fn keys(arguments: &Keys, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    if let KeysCommand::States { table, json } = arguments.command {
        return states::states(match (table, json) {
            (true, _) => Form::Table,
            (_, true) => Form::Json,
            _ => Form::Meanings,
        });
    }
    if let KeysCommand::Material(command) = &arguments.command
        && let Some(done) = material::without_keystore(command, signals, notes)
    {
        return done;
    }
    let missing = match &arguments.command {
        KeysCommand::Create { making, .. } => Missing::make(*making),
        _ => Missing::Refuse,
    };
    let kms = keystore::open(&arguments.keystore, missing, signals, notes)?;
    match &arguments.command {
        KeysCommand::Create { alias, description, external, multi_region, .. } => {
            let mut request = CreateKeyRequest::default().description(description);
            if *external {
                request = request.external();
            }
            if *multi_region {
                request = request.multi_region();
            }
            if let Some(alias) = alias {
                request = request.alias(alias);
            }
            let key = wait(kms.create_key(request))?;
            notes.say(BACK_UP);
            answer(&format!("{}\n", key.arn))
        }
        KeysCommand::List { json } => list(&kms, *json),
        KeysCommand::Describe { key, json } => describe(&kms, key, arguments.keystore.principal.is_none(), *json),
        KeysCommand::Alias(command) => alias(&kms, command, notes),
        KeysCommand::Rotate { key: name } => {
            let key = wait(kms.rotate(name))?;
            notes.say(&format!("{} encrypts under version {} from now on", key.arn, key.current_version));
            notes.say(&format!(
                "files stay under the old version until they are rewrapped: `envelock rewrap --provider local:{name} \
                 FILE...`; where others open them too, repeat --provider for each"
            ));
            notes.say(BACK_UP);
            Ok(())
        }
        KeysCommand::Backup { output } => upkeep::backup(&kms, output, signals, notes),
        KeysCommand::Root(RootCommand::Export { output }) => upkeep::export(&kms, output.as_deref(), signals, notes),
        KeysCommand::Life(command) => life::life(&kms, command, notes),
        KeysCommand::Material(command) => material::material(&kms, command, signals, notes),
        KeysCommand::Regions(command) => regions::regions(&kms, command, notes),
        // Answered above: it looks into no keystore.
        KeysCommand::States { .. } => Ok(()),
    }
}

fn list(kms: &LocalKms, as_json: bool) -> Result<(), Failure> {
    let keys = wait(kms.list_keys())?;
    let aliases = wait(kms.list_aliases())?;
    if as_json {
        let keys: Vec<_> = keys.iter().map(|key| key_json(key, &aliases_of(key, &aliases))).collect();
        return answer(&json_text(&json!({ "keystore_id": kms.keystore_id(), "region": kms.region(), "keys": keys })));
    }
    let mut out = String::new();
    for key in &keys {
        let names = aliases_of(key, &aliases).join(" ");
        let names = if names.is_empty() { "-" } else { &names };
        out.push_str(&format!("{}  {:<16}  v{:<3}  {names}", key.key_id, key.key_state.name(), key.current_version));
        if !key.description.is_empty() {
            out.push_str(&format!("  {}", plain(&key.description)));
        }
        out.push('\n');
    }
    answer(&out)
}

fn aliases_of<'a>(key: &KeyMetadata, aliases: &'a [AliasEntry]) -> Vec<&'a str> {
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

fn describe(kms: &LocalKms, name: &str, is_owner: bool, as_json: bool) -> Result<(), Failure> {
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
        let mut value = key_json(&key, &aliases);
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
        "key          {}\nstate        {}\nmanager      {}\ncreated      {}\n",
        key.arn,
        key.key_state.name(),
        manager(&key),
        local(key.creation_date)
    );
    if !key.description.is_empty() {
        out.push_str(&format!("description  {}\n", plain(&key.description)));
    }
    if let Some(at) = key.deletion_date {
        out.push_str(&format!("deletion     at {}\n", local(at)));
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
        out.push_str(&format!("version      {} ({}{current})\n", version.version, local(version.creation_date)));
    }
    answer(&out)
}

fn manager(key: &KeyMetadata) -> &'static str {
    match key.key_manager {
        KeyManager::Managed => "managed",
        _ => "customer",
    }
}

pub(crate) fn key_json(key: &KeyMetadata, aliases: &[&str]) -> Value {
    json!({
        "key_id": key.key_id,
        "arn": key.arn,
        "state": key.key_state.name(),
        "manager": manager(key),
        "description": key.description,
        "created": date(key.creation_date),
        "current_version": key.current_version,
        "deletion_date": key.deletion_date.map(date),
        "rotation_period_in_days": key.rotation_period_in_days,
        "next_rotation_date": key.next_rotation_date.map(date),
        "primary_region": key.primary_region,
        "aliases": aliases,
    })
}

fn version_json(version: &KeyVersion) -> Value {
    json!({ "version": version.version, "created": date(version.creation_date) })
}

fn alias(kms: &LocalKms, command: &AliasCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        AliasCommand::Create { alias, key } => {
            wait(kms.create_alias(alias, key))?;
            notes.say(&format!("{alias} points to {key}"));
        }
        AliasCommand::Move { alias, key } => {
            wait(kms.update_alias(alias, key))?;
            notes.say(&format!("{alias} points to {key} from now on, and still opens what its keys before encrypted"));
        }
        AliasCommand::Delete { alias } => {
            wait(kms.delete_alias(alias))?;
            notes.say(&format!("{alias} is deleted; its key stays"));
        }
    }
    Ok(())
}

const BACK_UP: &str =
    "a backup that was made before does not have this: `envelock keystore backup OUT` makes a new one";
