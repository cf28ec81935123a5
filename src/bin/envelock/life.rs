//! `keys enable`, `disable`, `schedule-deletion` and others: the life of a key.

use crate::describe::key_json;
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::regions::{RotationFileCommand, rotation_file};
use crate::text::{Notes, answer, date, done, plain};
use crate::time::{days, local};
use clap::Subcommand;
use envelock::kms::{DeletionWindow, RotationPeriod, RotationType, Tag};
use envelock::{LocalKms, blocking::wait};
use serde_json::{Value, json};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

#[derive(Debug, Subcommand)]
pub(crate) enum LifeCommand {
    /// Make a key usable again
    Enable {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key unusable until it is enabled again
    Disable {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a key be deleted after a waiting time, with all that it encrypted
    #[command(after_long_help = "\
The key is unusable at once, and `envelock keys cancel-deletion` takes it back until the time is over.
After that nothing opens what it encrypted, but an older backup of the keystore.

Examples:
  envelock keys schedule-deletion alias/orders --days 7")]
    ScheduleDeletion {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// How long it waits: 7 to 30 days
        #[arg(long, value_name = "DAYS", value_parser = days, default_value = "30")]
        days: u16,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back the deletion of a key, which is disabled then
    CancelDeletion {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change what people read about a key
    UpdateDescription {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The new text
        description: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a key tags
    Tag {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// A tag; one with the same key takes its place
        #[arg(value_name = "KEY=VALUE", value_parser = crate::args::entry, required = true)]
        tags: Vec<(String, String)>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take tags from a key
    Untag {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// The keys of the tags
        #[arg(value_name = "TAG-KEY", required = true)]
        tag_keys: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tags of a key
    Tags {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a key be rotated by itself
    #[command(subcommand)]
    Rotation(RotationCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RotationCommand {
    /// Rotate the key by itself
    Enable {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// How often: every 90 to 2560 days
        #[arg(long, value_name = "DAYS", value_parser = days, default_value = "365")]
        days: u16,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Rotate the key on demand only
    Disable {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether and when the key is rotated
    Status {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the rotations that the key went through
    List {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    File(RotationFileCommand),
}

pub(crate) fn life(kms: &LocalKms, command: &LifeCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        LifeCommand::Enable { key, json } => {
            wait(kms.enable_key(key))?;
            done(*json, &json!({ "key": key, "state": "Enabled" }), &format!("{key} is enabled"), notes)
        }
        LifeCommand::Disable { key, json } => {
            wait(kms.disable_key(key))?;
            let line = format!("{key} is disabled: nothing uses it until `envelock keys enable {key}`");
            done(*json, &json!({ "key": key, "state": "Disabled" }), &line, notes)
        }
        LifeCommand::ScheduleDeletion { key, days, yes, json } => schedule(kms, key, (*days, *yes, *json), notes),
        LifeCommand::CancelDeletion { key, json } => {
            let found = wait(kms.cancel_key_deletion(key))?;
            let line = format!("{key} is not deleted; it is {} now", found.key_state.name());
            done(*json, &key_json(&found), &line, notes)
        }
        LifeCommand::UpdateDescription { key, description, json } => {
            wait(kms.update_key_description(key, description))?;
            let value = json!({ "key": key, "description": description });
            done(*json, &value, &format!("{key} has the new description"), notes)
        }
        LifeCommand::Tag { key, tags, json } => {
            let tags: Vec<_> = tags.iter().map(|(key, value)| Tag::new(key, value)).collect();
            wait(kms.tag_resource(key, tags.clone()))?;
            let value = json!({ "key": key, "tags": tags_json(&tags) });
            done(*json, &value, &format!("{key} has these tags from now on"), notes)
        }
        LifeCommand::Untag { key, tag_keys, json } => {
            wait(kms.untag_resource(key, tag_keys))?;
            let value = json!({ "key": key, "removed_tag_keys": tag_keys });
            done(*json, &value, &format!("{key} has these tags no more"), notes)
        }
        LifeCommand::Tags { key, json } => tags(kms, key, *json),
        LifeCommand::Rotation(command) => rotation(kms, command, notes),
    }
}

fn schedule(kms: &LocalKms, key: &str, (days, yes, as_json): (u16, bool, bool), notes: Notes) -> Result<(), Failure> {
    let window = DeletionWindow::from_days(u8::try_from(days).unwrap_or(u8::MAX))?;
    if !yes {
        confirm(&format!(
            "After {days} days {} is deleted, and nothing opens what it encrypted. Type yes to go on: ",
            plain(key)
        ))?;
    }
    let scheduled = wait(kms.schedule_key_deletion(key, window))?;
    if as_json {
        return answer(&json_text(&json!({
            "key_id": scheduled.key_id,
            "state": scheduled.key_state.name(),
            "deletion_date": scheduled.deletion_date.map(date),
            "pending_window_in_days": scheduled.pending_window_in_days,
        })));
    }
    let when = scheduled.deletion_date.map_or("once its replicas are".to_owned(), |at| format!("at {}", local(at)));
    notes.say(&format!("{key} is deleted {when}; until then, `envelock keys cancel-deletion {key}` takes that back"));
    Ok(())
}

/// Asks on the terminal, where there is one.
fn confirm(question: &str) -> Result<(), Failure> {
    let input = io::stdin();
    if !input.is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("this cannot be undone later: say --yes"));
    }
    let failed = |e: io::Error| Failure::io("the terminal", &e);
    io::stderr().write_all(question.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    input.lock().read_line(&mut line).map_err(failed)?;
    match line.trim() == "yes" {
        true => Ok(()),
        false => Err(Failure::usage("nothing was done: the answer was not yes")),
    }
}

fn tags(kms: &LocalKms, key: &str, as_json: bool) -> Result<(), Failure> {
    let tags = wait(kms.list_resource_tags(key))?;
    if as_json {
        return answer(&json_text(&json!({ "tags": tags_json(&tags) })));
    }
    let line = |tag: &Tag| format!("{}={}\n", plain(&tag.tag_key), plain(&tag.tag_value));
    answer(&tags.iter().map(line).collect::<String>())
}

fn tags_json(tags: &[Tag]) -> Value {
    tags.iter().map(|tag| json!({ "tag_key": tag.tag_key, "tag_value": tag.tag_value })).collect()
}

fn rotation(kms: &LocalKms, command: &RotationCommand, notes: Notes) -> Result<(), Failure> {
    match command {
        RotationCommand::File(command) => rotation_file(kms, command, notes),
        RotationCommand::Enable { key, days, json } => {
            wait(kms.enable_key_rotation(key, RotationPeriod::from_days(*days)?))?;
            let value = json!({ "key": key, "rotation_enabled": true, "rotation_period_in_days": days });
            done(*json, &value, &format!("{key} is rotated every {days} days"), notes)
        }
        RotationCommand::Disable { key, json } => {
            wait(kms.disable_key_rotation(key))?;
            let value = json!({ "key": key, "rotation_enabled": false });
            done(*json, &value, &format!("{key} is rotated on demand only"), notes)
        }
        RotationCommand::Status { key, json } => status(kms, key, *json),
        RotationCommand::List { key, json } => rotations(kms, key, *json),
    }
}

fn status(kms: &LocalKms, key: &str, as_json: bool) -> Result<(), Failure> {
    let status = wait(kms.get_key_rotation_status(key))?;
    if as_json {
        return answer(&json_text(&json!({
            "key_id": status.key_id,
            "rotation_enabled": status.key_rotation_enabled,
            "rotation_period_in_days": status.rotation_period_in_days,
            "next_rotation_date": status.next_rotation_date.map(date),
        })));
    }
    match (status.rotation_period_in_days, status.next_rotation_date) {
        (Some(days), Some(next)) => answer(&format!("every {days} days, next at {}\n", local(next))),
        _ => answer("on demand only\n"),
    }
}

fn rotations(kms: &LocalKms, key: &str, as_json: bool) -> Result<(), Failure> {
    let rotations = wait(kms.list_key_rotations(key))?;
    let kind = |kind: RotationType| match kind {
        RotationType::Automatic => "automatic",
        RotationType::OnDemand => "on demand",
        _ => "of the primary key",
    };
    if as_json {
        let rotations: Vec<Value> = rotations
            .iter()
            .map(|it| json!({ "version": it.version, "date": date(it.rotation_date), "type": kind(it.rotation_type) }))
            .collect();
        return answer(&json_text(&json!({ "rotations": rotations })));
    }
    let mut out = String::new();
    for it in &rotations {
        out.push_str(&format!("v{:<4}  {}  {}\n", it.version, local(it.rotation_date), kind(it.rotation_type)));
    }
    answer(&out)
}
