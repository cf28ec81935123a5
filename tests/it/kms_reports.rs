//! What processes say that they did to a keystore, and whether it is there once they were killed or the power failed.
//!
//! A line for each thing. `OPENED id`; `KEY key version`; `BLOB plaintext ciphertext`; and what has one value at a time,
//! the last word: `ALIAS name key`, `STATE key state`, `POLICY key number`, `TAG key value`, `GRANT key name live|gone`.
//! `DOING` and such a line comes before the call, so that one that was cut off may have been done. `CALLED event key`
//! comes once a call was answered: then its record is in the trail. `GONE key` was deleted, and the records up to that of
//! `TRIMMED sequence` cut off.

use envelock::kms::AuditQuery;
use envelock::{EncryptionContext, LocalKms};
use pollster::block_on;
use std::collections::BTreeMap;

const VALUES: [&str; 5] = ["ALIAS", "STATE", "POLICY", "TAG", "GRANT"];

pub(crate) fn is_report(line: &str) -> bool {
    let word = line.split(' ').next().unwrap_or_default();
    ["OPENED", "KEY", "BLOB", "DOING", "CALLED"].contains(&word) || VALUES.contains(&word)
}

/// Whether a line says that something was acknowledged.
pub(crate) fn is_call(line: &str) -> bool {
    line.starts_with("CALLED ")
}

/// Verifies the trail, and looks in what comes after the record `after` for the records of all calls that were
/// answered. How many records of such calls there are besides: of those that were cut off.
pub(crate) fn find_recorded(kms: &LocalKms, after: u64, reports: &[String]) -> Result<usize, String> {
    block_on(kms.verify_audit(None)).unwrap();
    let mut missing = BTreeMap::<String, isize>::new();
    for report in reports.iter().filter(|line| is_call(line)) {
        *missing.entry(report["CALLED ".len()..].to_owned()).or_default() += 1;
    }
    let events: Vec<_> = missing.keys().map(|it| it.split(' ').next().unwrap().to_owned()).collect();
    let mut last = after;
    loop {
        let records = block_on(kms.query_audit(&AuditQuery::default().after(last))).unwrap();
        let Some(newest) = records.last() else { break };
        last = newest.sequence;
        for record in records.iter().filter(|it| events.contains(&it.event_name) && it.error_code.is_none()) {
            let key = record.resources.last().map_or("", |name| name.rsplit('/').next().unwrap());
            *missing.entry(format!("{} {key}", record.event_name)).or_default() -= 1;
        }
    }
    match missing.iter().find(|(_, count)| **count > 0) {
        Some((call, count)) => Err(format!("answered, and {count} records less than that in the trail: {call}")),
        None => Ok(missing.values().map(|count| count.unsigned_abs()).sum()),
    }
}

/// Looks for everything that these reports say was acknowledged, and that every key is whole. Keys that were left
/// disabled, or about to be deleted, are enabled to open what is under them: the reports of that.
pub(crate) fn find_reported(kms: &LocalKms, reports: &[String]) -> Result<Vec<String>, String> {
    values_are_there(kms, reports)?;
    let more = enable_all(kms);
    let context = EncryptionContext::from([("tenant", "acme")]);
    let keys = block_on(kms.list_keys()).unwrap();
    for report in reports {
        let found = match *report.split(' ').collect::<Vec<_>>() {
            ["OPENED", id] => kms.keystore_id() == id,
            ["KEY", key, version] => {
                keys.iter().any(|it| it.key_id == key && it.current_version >= version.parse().unwrap())
            }
            ["GONE", key] => keys.iter().all(|it| it.key_id != key),
            ["TRIMMED", checkpoint] => {
                let oldest = block_on(kms.query_audit(&AuditQuery::default().limit(1))).unwrap();
                oldest[0].sequence > checkpoint.parse().unwrap()
            }
            ["BLOB", plaintext, blob] => block_on(kms.decrypt(&crate::support::unhex(blob), &context))
                .is_ok_and(|it| it.plaintext() == plaintext.as_bytes()),
            ["DOING" | "CALLED", ..] => true,
            [word, ..] if VALUES.contains(&word) => true,
            _ => panic!("{report}"),
        };
        if !found {
            return Err(format!("lost: {report}"));
        }
    }
    block_on(kms.check()).unwrap();
    for key in &keys {
        let versions = block_on(kms.list_key_versions(&key.key_id)).unwrap();
        assert_eq!(versions.len(), key.current_version as usize);
    }
    Ok(more)
}

/// Each value is the last one that was acknowledged, or one that was about to take its place.
fn values_are_there(kms: &LocalKms, reports: &[String]) -> Result<(), String> {
    let mut allowed = BTreeMap::<&str, (bool, Vec<&str>)>::new();
    for report in reports {
        let (line, done) = report.strip_prefix("DOING ").map_or((report.as_str(), true), |line| (line, false));
        let Some((subject, value)) = line.rsplit_once(' ') else { continue };
        if !VALUES.contains(&subject.split(' ').next().unwrap()) {
            continue;
        }
        let (acknowledged, values) = allowed.entry(subject).or_default();
        if done {
            *acknowledged = true;
            values.clear();
        }
        values.push(value);
    }
    for (subject, (_, values)) in allowed.iter().filter(|(_, (acknowledged, _))| *acknowledged) {
        let found = value(kms, subject);
        if !values.contains(&found.as_str()) {
            return Err(format!("lost: {subject} is {found}, not {values:?}"));
        }
    }
    Ok(())
}

fn value(kms: &LocalKms, subject: &str) -> String {
    match *subject.split(' ').collect::<Vec<_>>() {
        ["ALIAS", alias] => {
            let aliases = block_on(kms.list_aliases()).unwrap();
            aliases.into_iter().find(|it| it.alias_name == alias).map_or("none".to_owned(), |it| it.target_key_id)
        }
        ["STATE", key] => block_on(kms.describe_key(key)).unwrap().key_state.name().to_owned(),
        ["POLICY", key] => {
            let policy = block_on(kms.get_key_policy(key)).unwrap();
            let number = policy.text().split(r#""Sid":""#).nth(1).and_then(|rest| rest.split('"').next());
            number.unwrap_or("none").to_owned()
        }
        ["TAG", key] => {
            let tags = block_on(kms.list_resource_tags(key)).unwrap();
            tags.first().map_or("none".to_owned(), |tag| tag.tag_value.clone())
        }
        ["GRANT", key, name] => {
            let live = block_on(kms.list_grants(key)).unwrap().iter().any(|it| it.name.as_deref() == Some(name));
            if live { "live" } else { "gone" }.to_owned()
        }
        _ => panic!("{subject}"),
    }
}

fn enable_all(kms: &LocalKms) -> Vec<String> {
    let mut reports = Vec::new();
    for key in block_on(kms.list_keys()).unwrap() {
        match key.key_state.name() {
            // Material is missing for the second, and what is disabled is never that.
            "Enabled" | "PendingImport" => continue,
            "PendingDeletion" => drop(block_on(kms.cancel_key_deletion(&key.key_id)).unwrap()),
            _ => {}
        }
        block_on(kms.enable_key(&key.key_id)).unwrap();
        reports.push(format!("STATE {} Enabled", key.key_id));
    }
    reports
}
