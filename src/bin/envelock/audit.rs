//! `audit`: the embedded keystore's record of every call.

use crate::audit_args::{Audit, AuditCommand, Which};
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keystore::{self, Missing};
use crate::signals::Signals;
use crate::text::{Notes, answer, date, done, plain};
use crate::time::local;
use envelock::kms::{AuditHead, AuditRecord, AuditRetention};
use envelock::{LocalKms, blocking::wait};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(crate) fn audit(arguments: &Audit, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    if let AuditCommand::Trim { yes: false, .. } = arguments.command {
        return Err(Failure::usage(
            "records that are cut off are gone: export them first (`envelock audit export`), then repeat this with --yes",
        ));
    }
    let kms = keystore::open(&arguments.keystore, Missing::Refuse, signals, notes)?;
    match &arguments.command {
        AuditCommand::Head { json } => {
            let head = wait(kms.audit_head())?;
            match json {
                true => answer(&json_text(&head_json(&head))),
                false => answer(&format!("{head}\n")),
            }
        }
        AuditCommand::Verify { head, json } => verify(&kms, head.as_ref(), *json, signals, notes),
        AuditCommand::Query { which, limit, json } => {
            // One more tells whether there are more.
            let mut records = newest(&kms, which, limit.saturating_add(1))?;
            let more = u64::try_from(records.len()).is_ok_and(|found| found > *limit);
            if more {
                records.remove(0);
            }
            if records.is_empty() && *limit > 0 {
                notes.say("no record of these is in the trail");
            }
            records.iter().try_for_each(|record| show(record, *json))?;
            if more {
                notes.say(&format!("these are the newest {limit} of more: --limit N shows N of them"));
            }
            Ok(())
        }
        AuditCommand::Export { which, output, json } => export(&kms, which, output.as_deref(), *json, signals, notes),
        AuditCommand::Tail { follow, lines, which, json } => {
            let last = wait(kms.audit_head())?.sequence();
            newest(&kms, which, *lines)?.iter().try_for_each(|record| show(record, *json))?;
            match follow {
                true => follow_from(&kms, last, which, *json),
                false => Ok(()),
            }
        }
        AuditCommand::Trim { before, keep, json, .. } => trim(&kms, *before, *keep, *json, signals, notes),
    }
}

fn verify(
    kms: &LocalKms,
    head: Option<&AuditHead>,
    as_json: bool,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    let report = signals.drive(kms.verify_audit(head))?;
    if head.is_none() {
        notes.say(NOT_ANCHORED);
    }
    if as_json {
        return answer(&json_text(&json!({
            "verified": true,
            "records": report.records,
            "first": report.first,
            "last": report.last,
            "checkpoint": report.checkpoint,
            "rows": report.rows,
            "head": head_json(&report.head),
            "compared_with_head": head.is_some(),
        })));
    }
    let mut out = format!(
        "records     {} ({} to {})\nrows        {}, each as the records tell\n",
        report.records, report.first, report.last, report.rows
    );
    if report.checkpoint > 0 {
        out.push_str(&format!("cut off     up to {}\n", report.checkpoint));
    }
    if let Some(head) = head {
        out.push_str(&format!("anchored    record {} is the one that was anchored\n", head.sequence()));
    }
    out.push_str(&format!("head        {}\n", report.head));
    answer(&out)
}

pub(crate) fn head_json(head: &AuditHead) -> serde_json::Value {
    json!({
        "head": head.to_string(),
        "keystore_id": head.keystore_id(),
        "sequence": head.sequence(),
        "hash": head.hash(),
    })
}

/// The newest records, so many at most, oldest first.
fn newest(kms: &LocalKms, which: &Which, limit: u64) -> Result<Vec<AuditRecord>, Failure> {
    let mut found = Vec::new();
    let mut query = which.query().newest_first();
    loop {
        let left = limit.saturating_sub(u64::try_from(found.len()).unwrap_or(u64::MAX));
        let page = wait(kms.query_audit(&query.clone().limit(left)))?;
        let Some(last) = page.last() else { break };
        query = query.after(last.sequence);
        found.extend(page);
    }
    found.reverse();
    Ok(found)
}

/// Shows the records that come after this one, until the user has seen enough.
fn follow_from(kms: &LocalKms, mut last: u64, which: &Which, as_json: bool) -> Result<(), Failure> {
    loop {
        // What is there by now; those of it that are not asked for are passed over for good.
        let end = wait(kms.audit_head())?.sequence();
        while last < end {
            let page = wait(kms.query_audit(&which.query().after(last)))?;
            page.iter().try_for_each(|record| show(record, as_json))?;
            last = page.last().map_or(end, |record| record.sequence);
        }
        std::thread::sleep(POLL);
    }
}

fn show(record: &AuditRecord, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return answer(&format!("{}\n", record.to_json()));
    }
    let key = record.resources.last().and_then(|name| name.rsplit('/').next()).unwrap_or("-");
    let outcome = record.error_code.as_deref().unwrap_or("allowed");
    answer(&format!(
        "{:<8}  {}  {:<24}  {:<12}  {:<36}  {}\n",
        record.sequence,
        local(record.event_time),
        plain(&record.event_name),
        plain(&record.principal),
        plain(key),
        plain(outcome)
    ))
}

fn export(
    kms: &LocalKms,
    which: &Which,
    output: Option<&Path>,
    as_json: bool,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    let query = which.query();
    let Some(path) = output else {
        let out = BufWriter::new(io::stdout().lock());
        return wait(kms.export_audit(&query, out)).map(drop).map_err(Failure::from);
    };
    let failed = |e: &io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::kept(path),
        _ => Failure::io(&path.display().to_string(), e),
    };
    let written = signals.undoing(|| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| failed(&e))?;
        let mut out = BufWriter::new(file);
        let written = wait(kms.export_audit(&query, &mut out)).map_err(Failure::from);
        let durable = |written| {
            let kept = out.flush().and_then(|()| out.get_ref().sync_all());
            kept.map(|()| written).map_err(|e| failed(&e))
        };
        written.and_then(durable).inspect_err(|_| {
            // Half an export may pass for a whole one.
            let _ = std::fs::remove_file(path);
        })
    })?;
    let file = path.display().to_string();
    let value = json!({ "file": file, "records": written });
    done(as_json, &value, &format!("wrote {written} records to {file}"), notes)
}

fn trim(
    kms: &LocalKms,
    before: Option<SystemTime>,
    keep: Option<u64>,
    as_json: bool,
    signals: &Signals,
    notes: Notes,
) -> Result<(), Failure> {
    let keep = match (before, keep) {
        (Some(before), _) => AuditRetention::Since(before),
        (None, Some(count)) => AuditRetention::Newest(count),
        (None, None) => return Err(Failure::usage("say what is cut off with --before or --keep")),
    };
    let trimmed = signals.drive(kms.trim_audit(keep))?;
    let head = wait(kms.audit_head())?;
    if as_json {
        let (removed, checkpoint) = (trimmed.removed, trimmed.checkpoint);
        return answer(&json_text(&json!({ "removed": removed, "checkpoint": checkpoint, "head": head_json(&head) })));
    }
    let until = before.map_or(String::new(), |before| format!(" from before {}", date(before)));
    match trimmed.removed {
        0 => notes.say(&format!("there are no records to cut off{until}; heads that were kept still compare")),
        removed => notes.say(&format!("cut off {removed} records{until}; keep this head instead of earlier ones")),
    }
    answer(&format!("{head}\n"))
}

/// What no look at the file alone finds.
pub(crate) const NOT_ANCHORED: &str = "an older whole file put back is found only by `envelock audit verify --head` with a \
                                       head that was kept elsewhere (`envelock audit head`)";

/// Between two looks for records that have come.
const POLL: Duration = Duration::from_millis(500);
