//! `fleet rewrap`.

use crate::counter::{Counter, Trouble};
use crate::failure::Failure;
use crate::fleet_args::{Fleet, FleetCommand, FleetRewrap};
use crate::inspect::json_text;
use crate::inventory::{NOTHING_SELECTED, counts_text, files, key_text, line_of, put_path, some};
use crate::provider::{Member, Providers, Purpose, context};
use crate::rewrap::opening_keys_of;
use crate::signals::Signals;
use crate::text::{Notes, answer, plain};
use envelock::fleet::{Change, Mode, Others, Outcome, Rewrap, RewrapReport};
use envelock::{Error, Recipient};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::Ordering;

pub(crate) fn fleet(arguments: &Fleet, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    match &arguments.command {
        FleetCommand::Rewrap(it) => rewrap(it, signals, notes),
    }
}

fn rewrap(arguments: &FleetRewrap, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let rewrap = asked(arguments, signals, notes)?;
    let files = files(&arguments.place)?;
    let counter = Counter::new(if arguments.dry_run { "looking" } else { "rewrapping" }, notes);
    let lines = (arguments.files || arguments.dry_run).then_some(arguments.json);
    let (mut first, mut last, stop) = (None::<Failure>, String::new(), signals.flag());
    let mut outages = Outages::default();
    let ran = signals.drive(rewrap.run(files, |path, outcome| {
        counter.advance();
        if let Outcome::Failed(error) = outcome {
            last = error.to_string();
        }
        if let Err(trouble) = counter.beside(|| told(path, outcome, lines, &mut outages, notes)) {
            stop.fetch_or(trouble.ends(), Ordering::SeqCst);
            first.get_or_insert(trouble.into_failure());
        }
    }));
    counter.clear();
    let report = match (ran, first.take()) {
        // What ended it was told of its file already.
        (Err(end), Some(failure)) if end.line().starts_with(&last) => return Err(failure),
        (ran, before) => {
            first = before;
            ran?
        }
    };
    answer(&match (arguments.json, lines) {
        (true, None) => json_text(&json(&report)),
        (true, Some(_)) => line_of(&json(&report)),
        (false, _) => text(&report, arguments.dry_run),
    })?;
    if report.rewrapped > 0 && !arguments.dry_run {
        notes.say("a rewrap is not a revocation: whoever had a data key or an old copy of a file still has it");
    }
    if report.blind > 0 && !arguments.dry_run {
        notes.say("data keys were not seen here: run `envelock verify` with the new keys before an old key is retired");
    }
    if report.perhaps > 0 {
        notes.say(
            "perhaps: neither --provider nor --from names a key of these messages; whether one of them opens them all the \
             same, by an older key of its alias for one, only a call tells",
        );
    }
    if report.not_selected > 0 && report.not_selected == report.messages {
        notes.say(NOTHING_SELECTED);
    }
    if report.journal_damaged > 0 {
        notes.say("the journal was damaged, and some messages were looked at again");
    }
    if let Some(failure) = first {
        return Err(failure);
    }
    if report.stopped {
        notes.say("stopped: every file is whole, and the same command does the rest");
        signals.check()?;
    }
    Ok(())
}

/// The run that the command line asks for.
fn asked(arguments: &FleetRewrap, signals: &Signals, notes: Notes) -> Result<Rewrap, Failure> {
    let opening = &arguments.opening;
    let mut providers = Providers::new(&opening.keystore, signals, notes).making(arguments.making);
    let mut from = match arguments.from.is_empty() {
        true => Vec::new(),
        false => {
            let purpose = if arguments.dry_run { Purpose::Plan } else { Purpose::Decrypt };
            providers.members(&arguments.from, purpose)?
        }
    };
    let purpose = if arguments.dry_run { Purpose::Plan } else { Purpose::Encrypt };
    let mut to = providers.chosen(opening, purpose)?;
    // The sources as well, so that a key that is a source and a target is known for one.
    if !arguments.open {
        to.members = opening_keys_of(&from, to.members, signals)?;
        from = opening_keys_of(&from, from.clone(), signals)?;
    }
    let at_least = arguments.at_least.or(to.needed());
    let mut rewrap = Rewrap::to(to.each()?)
        .from(from.into_iter().map(Member::into_provider))
        .context(context(opening))
        .only(arguments.which.selection())
        .others(match (arguments.keep_others, arguments.drop_others) {
            (true, _) => Others::Keep,
            (_, true) => Others::Remove,
            _ => Others::Refuse,
        })
        .mode(match (arguments.open, arguments.blind) {
            (true, _) => Mode::Open,
            (_, true) => Mode::Blind,
            _ => Mode::BlindWhereSafe,
        })
        .concurrency(arguments.concurrency.into())
        .stop_when(signals.flag());
    if let Some(needed) = at_least {
        rewrap = rewrap.at_least(needed);
    }
    if let Some(rate) = arguments.rate {
        rewrap = rewrap.calls_per_second(rate);
    }
    if let Some(journal) = &arguments.journal {
        rewrap = rewrap.journal(journal);
    }
    if arguments.again {
        rewrap = rewrap.again();
    }
    Ok(if arguments.dry_run { rewrap.dry_run() } else { rewrap })
}

/// Reasons that were told in full: an outage is the same for each file, and a long sentence for each would hide the others.
#[derive(Default)]
struct Outages(Vec<Outage>);

struct Outage {
    /// Without its figures, times and counts for the most part.
    reason: String,
    /// Which was told with it.
    file: String,
}

impl Outages {
    /// The file that was told with the reason why this one failed too, if it is an outage.
    fn first(&mut self, file: &str, error: &Error) -> Option<String> {
        if !error.is_retryable() {
            return None;
        }
        let reason: String = error.to_string().replace(file, "").chars().filter(|it| !it.is_ascii_digit()).collect();
        if let Some(known) = self.0.iter().find(|known| known.reason == reason) {
            return Some(known.file.clone());
        }
        if self.0.len() < OUTAGES_MAX {
            self.0.push(Outage { reason, file: file.to_owned() });
        }
        None
    }
}

/// Reasons that are kept.
const OUTAGES_MAX: usize = 16;

/// Says what became of a file, as JSON or as text, where lines are wanted; and its failure.
fn told(
    path: &Path,
    outcome: &Outcome,
    lines: Option<bool>,
    outages: &mut Outages,
    notes: Notes,
) -> Result<(), Trouble> {
    let name = plain(&path.to_string_lossy()).into_owned();
    if let Outcome::Rewrapped(Change { notice: Some(notice), .. }) | Outcome::Recovered(notice) = outcome {
        notes.say(&format!("{name}: {notice}"));
    }
    if let Outcome::Failed(error) = outcome {
        let file = path.display().to_string();
        let failure = Failure::of_fleet(error).of(&file);
        let failure = match outages.first(&file, error) {
            Some(first) => failure.with_line(format!("{file}: for the same reason as {first}")),
            None => failure,
        };
        let failure = failure.reported();
        return said(path, &name, outcome, lines).and(Err(Trouble::File(failure)));
    }
    said(path, &name, outcome, lines)
}

fn said(path: &Path, name: &str, outcome: &Outcome, lines: Option<bool>) -> Result<(), Trouble> {
    let Some(as_json) = lines else { return Ok(()) };
    let (word, change) = match outcome {
        Outcome::Rewrapped(change) => ("rewrapped", Some(change)),
        Outcome::Due(change) => ("due", Some(change)),
        Outcome::Current | Outcome::Recovered(_) => ("current", None),
        Outcome::Vanished => ("vanished", None),
        Outcome::Failed(_) => ("failed", None),
        _ => return Ok(()),
    };
    let line = match as_json {
        true => line_of(&file_json(path, word, change)),
        false => {
            let perhaps = if change.is_some_and(|change| change.perhaps) { "perhaps " } else { "" };
            let change = change.map(|change| change_text(change, outcome)).unwrap_or_default();
            format!("{name}: {perhaps}{word}{change}\n")
        }
    };
    answer(&line).map_err(Trouble::Output)
}

fn change_text(change: &Change, outcome: &Outcome) -> String {
    let all = |sign: &str, recipients: &[Recipient]| -> String {
        recipients.iter().map(|it| format!(" {sign}{}", plain(&it.to_string()))).collect()
    };
    let mut text = [all("+", &change.added), all("-", &change.removed), all("missing ", &change.missing)].concat();
    if let (true, Outcome::Due(_), Some(notice)) = (text.is_empty(), outcome, change.notice) {
        return format!(" ({notice})");
    }
    if text.is_empty() {
        text.push_str(" anew");
    }
    text.push_str(match (change.blind, outcome) {
        (true, Outcome::Due(_)) => " (inside the key service, where it can)",
        (false, Outcome::Due(_)) => " (opened here)",
        (true, _) => " (inside the key service)",
        (false, _) => "",
    });
    text.push_str(if change.copied { " (as a new file, since the new keys did not fit)" } else { "" });
    text
}

fn file_json(path: &Path, word: &str, change: Option<&Change>) -> Value {
    let names = |recipients: &[Recipient]| -> Value {
        let all = recipients.iter().map(|it| json!({ "provider": it.provider, "key_id": key_text(&it.key_id) }));
        all.collect()
    };
    let mut value = match change {
        Some(change) => json!({
            "outcome": word,
            "added": names(&change.added),
            "removed": names(&change.removed),
            "missing": names(&change.missing),
            "blind": change.blind,
            "perhaps": change.perhaps,
            "copied": change.copied,
        }),
        None => json!({ "outcome": word }),
    };
    put_path(&mut value, path);
    value
}

fn text(report: &RewrapReport, dry: bool) -> String {
    counts_text(&[
        ("messages", Some(report.messages)),
        (if dry { "would be rewrapped" } else { "rewrapped" }, Some(report.rewrapped)),
        ("perhaps", some(report.perhaps)),
        ("inside the key service", some(report.blind).filter(|_| !dry)),
        ("as new files", some(report.copied)),
        ("with missing recipients", some(report.with_missing)),
        ("up to date", Some(report.current)),
        ("not selected", some(report.not_selected)),
        ("vanished", some(report.vanished)),
        ("failed", Some(report.failed)),
        ("unfinished", some(report.unfinished)),
        ("other files", some(report.ignored)),
        ("done by an earlier run", some(report.resumed)),
        ("calls", Some(report.calls.all())),
    ])
}

fn json(report: &RewrapReport) -> Value {
    json!({
        "messages": report.messages,
        "rewrapped": report.rewrapped,
        "blind": report.blind,
        "perhaps": report.perhaps,
        "copied": report.copied,
        "with_missing": report.with_missing,
        "current": report.current,
        "not_selected": report.not_selected,
        "vanished": report.vanished,
        "failed": report.failed,
        "unfinished": report.unfinished,
        "ignored": report.ignored,
        "resumed": report.resumed,
        "journal_damaged": report.journal_damaged,
        "stopped": report.stopped,
        "calls": {
            "decrypt": report.calls.decrypt,
            "encrypt": report.calls.encrypt,
            "re_encrypt": report.calls.re_encrypt,
        },
    })
}
