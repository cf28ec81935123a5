//! `inventory`.

use crate::counter::{Counter, Trouble};
use crate::failure::Failure;
use crate::fleet_args::{Inventory, Where};
use crate::inspect::json_text;
use crate::streams::{self, Source};
use crate::text::{Notes, answer, date, plain};
use envelock::fleet::{
    Files, GroupKey, HeadFacts, Inventory as Count, InventoryReport, Seen, SeenFile, Selection, SlotFacts,
};
use envelock::{EncryptedDataKey, blocking};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

pub(crate) fn inventory(arguments: &Inventory, notes: Notes) -> Result<(), Failure> {
    let files = files(&arguments.place)?;
    let stop = Arc::new(AtomicBool::new(false));
    let first = Arc::new(Mutex::new(None));
    let (selection, lines) = (arguments.which.selection(), arguments.files.then_some(arguments.json));
    let counter = Counter::new("looking", notes);
    let count = Count::new().by(arguments.by.into()).only(selection.clone()).stop_when(Arc::clone(&stop));
    let taken = blocking::wait(count.take(files, {
        let (stop, first, counter) = (Arc::clone(&stop), Arc::clone(&first), counter.clone());
        move |file| {
            counter.advance();
            if let Err(trouble) = counter.beside(|| told(file, lines, &selection)) {
                stop.fetch_or(trouble.ends(), Ordering::Relaxed);
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble.into_failure());
            }
        }
    }));
    counter.clear();
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (taken, first) {
        // What stopped it is what failed.
        (Err(_), Some(failure)) => Err(failure),
        (Err(error), None) => Err(error.into()),
        (Ok(report), first) => {
            answer(&match (arguments.json, arguments.files) {
                (true, false) => json_text(&json(&report)),
                (true, true) => line_of(&json(&report)),
                (false, _) => text(&report),
            })?;
            if report.not_selected > 0 && report.messages + report.record_sets == 0 {
                notes.say(NOTHING_SELECTED);
            }
            first.map_or(Ok(()), Err)
        }
    }
}

/// What to look at where no message is meant.
pub(crate) const NOTHING_SELECTED: &str = "no message was selected: `envelock inventory` without --under, --missing, \
                                           --older-than and --below-version shows which keys, and as they are spelt, there are";

/// The files of the command line.
pub(crate) fn files(place: &Where) -> Result<Files, Failure> {
    let mut files = Files::below(&place.paths);
    if let Some(list) = &place.list {
        files = files.and_list(Source::of(list).map_err(|it| it.of(&streams::name(list)))?.open()?, place.separator());
    }
    Ok(if place.follow_links { files.following_links() } else { files })
}

/// Says what a file is, as JSON or as text, where lines are wanted; and what is wrong with it.
fn told(file: &SeenFile, lines: Option<bool>, selection: &Selection) -> Result<(), Trouble> {
    match (&file.what, lines) {
        (Seen::Message(facts) | Seen::RecordSet(facts), Some(as_json)) if selection.means(facts, file.modified) => {
            let set = matches!(file.what, Seen::RecordSet(_));
            answer(&if as_json { line_of(&file_json(file, facts, set)) } else { file_text(file, facts, set) })
                .map_err(Trouble::Output)
        }
        (Seen::Damaged(error) | Seen::Unreadable(error), _) => Err(Trouble::File(Failure::from(error).reported())),
        _ => Ok(()),
    }
}

fn file_text(file: &SeenFile, facts: &HeadFacts, set: bool) -> String {
    let slots: Vec<_> = facts.slots.iter().map(slot_text).collect();
    let modified = file.modified.map_or_else(|| "unknown".into(), date);
    let (what, interrupted) = match (set, facts.interrupted) {
        (true, _) => (" (record set)", ""),
        (false, true) => ("", " (a rewrap of it is under way or was interrupted)"),
        (false, false) => ("", ""),
    };
    format!("{}  {modified}  {}{what}{interrupted}\n", plain(&file.path.to_string_lossy()), slots.join(", "))
}

fn slot_text(slot: &SlotFacts) -> String {
    let version = slot.version.map(|version| format!(" version {version}")).unwrap_or_default();
    format!("{}{version}{}", slot.recipient, if slot.missing { " MISSING" } else { "" })
}

fn file_json(file: &SeenFile, facts: &HeadFacts, set: bool) -> Value {
    let slots = facts.slots.iter().map(|slot| {
        json!({
            "provider": slot.recipient.provider,
            "key_id": key_text(&slot.recipient.key_id),
            "key_version": slot.version,
            "missing": slot.missing,
        })
    });
    let mut value = json!({
        "kind": if set { "record-set" } else { "message" },
        "modified": file.modified.map(date),
        "interrupted": facts.interrupted,
        "slots": slots.collect::<Vec<_>>(),
    });
    put_path(&mut value, &file.path);
    value
}

/// Puts a path into an object: one that is no text is there as its bytes too.
pub(crate) fn put_path(value: &mut Value, path: &Path) {
    let Value::Object(map) = value else { return };
    map.insert("path".into(), path.to_string_lossy().into());
    if path.to_str().is_none() {
        let bytes = path.as_os_str().as_bytes().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        map.insert("path_hex".into(), bytes.into());
    }
}

pub(crate) fn key_text(key_id: &[u8]) -> String {
    EncryptedDataKey::missing("", key_id).key_id_text()
}

/// JSON on one line that drives no terminal.
pub(crate) fn line_of(value: &Value) -> String {
    let text = json_text(value);
    let mut line = String::with_capacity(text.len());
    // Line ends and what indents stand outside of strings only: inside, they are escaped.
    for part in text.lines() {
        line.push_str(part.trim_start());
    }
    line.push('\n');
    line
}

fn text(report: &InventoryReport) -> String {
    let mut out = counts_text(&[
        ("messages", Some(report.messages)),
        ("record sets", some(report.record_sets)),
        ("with missing recipients", some(report.with_missing)),
        ("rewrap interrupted", some(report.interrupted)),
        ("not selected", some(report.not_selected)),
        ("damaged heads", some(report.damaged)),
        ("unreadable", some(report.unreadable)),
        ("vanished", some(report.vanished)),
        ("unfinished", some(report.unfinished)),
        ("not envelock", some(report.not_envelock)),
        ("other names", some(report.other_names)),
        ("links", some(report.links)),
        ("special files", some(report.special)),
    ]);
    if report.groups.is_empty() {
        return out;
    }
    let _ = writeln!(out, "\n{:>9} {:>9}  {:<20}  {:<20}  BY", "FILES", "MISSING", "OLDEST", "NEWEST");
    for group in &report.groups {
        let at = |time: Option<SystemTime>| time.map_or_else(|| "unknown".into(), date);
        let (oldest, newest) = (at(group.oldest), at(group.newest));
        let key = group.key.to_string();
        let _ = writeln!(out, "{:>9} {:>9}  {oldest:<20}  {newest:<20}  {}", group.files, group.missing, plain(&key));
    }
    if report.beyond_groups > 0 {
        let _ = writeln!(out, "and {} slots of further groups", report.beyond_groups);
    }
    out
}

pub(crate) fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Counts that there are, a line each.
pub(crate) fn counts_text(counts: &[(&str, Option<u64>)]) -> String {
    let shown = counts.iter().filter_map(|(name, count)| Some((name, (*count)?)));
    shown.fold(String::new(), |mut out, (name, count)| {
        let _ = writeln!(out, "{name:<24} {count}");
        out
    })
}

fn json(report: &InventoryReport) -> Value {
    let groups = report.groups.iter().map(|group| {
        let mut value = json!({
            "files": group.files,
            "missing": group.missing,
            "oldest": group.oldest.map(date),
            "newest": group.newest.map(date),
        });
        if let Value::Object(map) = &mut value {
            match &group.key {
                GroupKey::Provider(name) => drop(map.insert("provider".into(), name.as_str().into())),
                GroupKey::Key(name, key) => {
                    map.insert("provider".into(), name.as_str().into());
                    map.insert("key_id".into(), key_text(key).into());
                }
                GroupKey::Version(name, key, version) => {
                    map.insert("provider".into(), name.as_str().into());
                    map.insert("key_id".into(), key_text(key).into());
                    map.insert("key_version".into(), (*version).into());
                }
                other => drop(map.insert("age".into(), other.to_string().into())),
            }
        }
        value
    });
    json!({
        "messages": report.messages,
        "record_sets": report.record_sets,
        "with_missing": report.with_missing,
        "interrupted": report.interrupted,
        "not_selected": report.not_selected,
        "damaged": report.damaged,
        "unreadable": report.unreadable,
        "vanished": report.vanished,
        "unfinished": report.unfinished,
        "not_envelock": report.not_envelock,
        "other_names": report.other_names,
        "links": report.links,
        "special": report.special,
        "groups": groups.collect::<Vec<_>>(),
        "beyond_groups": report.beyond_groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_one_line_and_keeps_its_strings() {
        let value = json!({ "path": "a\n  b \u{1b}[2J", "list": [1, { "x": "  y" }] });
        let line = line_of(&value);
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains('\u{1b}'));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
