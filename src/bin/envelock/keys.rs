//! `keys`: the embedded keystore.

use crate::describe::{self, aliases_of, key_json, with_aliases};
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keys_args::{AliasCommand, Keys, KeysCommand, RootCommand};
use crate::keystore::{self, Missing};
use crate::life;
use crate::material;
use crate::regions;
use crate::signals::Signals;
use crate::states::{self, Form};
use crate::text::{Notes, answer, done, plain};
use crate::upkeep;
use envelock::{CreateKeyRequest, LocalKms, blocking::wait};
use serde_json::json;

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
        KeysCommand::Create { alias, description, external, multi_region, json, .. } => {
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
            match json {
                true => answer(&json_text(&with_aliases(key_json(&key), alias.as_slice()))),
                false => answer(&format!("{}\n", key.arn)),
            }
        }
        KeysCommand::List { json } => list(&kms, *json),
        KeysCommand::Describe { key, json } => {
            describe::describe(&kms, key, arguments.keystore.principal.is_none(), *json)
        }
        KeysCommand::Alias(command) => alias(&kms, command, notes),
        KeysCommand::Rotate { key: name, json } => {
            let key = wait(kms.rotate(name))?;
            let line = format!("{} encrypts under version {} from now on", key.arn, key.current_version);
            done(*json, &key_json(&key), &line, notes)?;
            notes.say(&format!(
                "files stay under the old version until they are rewrapped: `envelock rewrap --provider local:{name} \
                 FILE...`; where others open them too, repeat --provider for each"
            ));
            notes.say(BACK_UP);
            Ok(())
        }
        KeysCommand::Backup { output, json } => upkeep::backup(&kms, output, *json, signals, notes),
        KeysCommand::Root(RootCommand::Export { output, json }) => {
            upkeep::export(&kms, output.as_deref(), *json, signals, notes)
        }
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
        let keys: Vec<_> = keys.iter().map(|key| with_aliases(key_json(key), &aliases_of(key, &aliases))).collect();
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

fn alias(kms: &LocalKms, command: &AliasCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        AliasCommand::Create { alias, key, json } => {
            wait(kms.create_alias(alias, key))?;
            let value = json!({ "alias_name": alias, "target_key": key });
            done(*json, &value, &format!("{alias} points to {key}"), notes)
        }
        AliasCommand::Move { alias, key, json } => {
            wait(kms.update_alias(alias, key))?;
            let value = json!({ "alias_name": alias, "target_key": key });
            let line = format!("{alias} points to {key} from now on, and still opens what its keys before encrypted");
            done(*json, &value, &line, notes)
        }
        AliasCommand::Delete { alias, json } => {
            wait(kms.delete_alias(alias))?;
            let value = json!({ "alias_name": alias, "deleted": true });
            done(*json, &value, &format!("{alias} is deleted; its key stays"), notes)
        }
    }
}

const BACK_UP: &str =
    "a backup that was made before does not have this: `envelock keystore backup OUT` makes a new one";
