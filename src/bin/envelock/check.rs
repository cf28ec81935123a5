//! `check`: what works of each key provider, as whom, how fast, and what to do where something does not.

use crate::args::Opening;
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::profile::{self, Patience, Write};
use crate::provider::{Member, Providers, Purpose, context};
use crate::provider_name::ProviderName;
use crate::signals::Signals;
use crate::text::{Notes, answer, plain};
use crate::trial::{Outcome, Step, Trial};
use clap::Args;
use envelock::{EncryptionContext, KmsContext};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Say of each key provider what works, as whom, how fast, and what to do where something does not
///
/// A data key is made, decrypted, tried under another context, and re-encrypted inside the key service where that is
/// possible. Nothing is written, but for what the key services log of such calls, and no keystore is made.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock check
  envelock check --provider vault:https://bao.example.com:8200/transit/orders
  envelock check --profile prod --json

With --context, the calls have that context, for keys whose policy asks for one.
The exit code is that of the first provider that does not work.")]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What was found of one provider.
struct Found {
    name: String,
    /// The recipients that it writes.
    keys: Vec<String>,
    /// Where, and as whom it calls, as it tells itself from others.
    identity: Option<String>,
    /// The same for people, once it has called.
    caller: Option<String>,
    steps: Vec<Step>,
    failure: Option<Failure>,
}

/// Who waits for an answer does not wait for ever: a check tries once.
const PATIENCE: Patience = Patience { timeout: Some(Duration::from_secs(10)), attempts: Some(1) };

pub(crate) fn check(arguments: &Check, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let opening = &arguments.opening;
    let profile = profile::chosen(&opening.choosing)?;
    let (names, write) = match &profile {
        Some(profile) => (profile.providers.clone(), profile.write),
        None if opening.choosing.provider.is_empty() => (vec![ProviderName::default()], Write::All),
        None => (opening.choosing.provider.clone(), Write::All),
    };
    if let Some(secret) = names.iter().find_map(ProviderName::exposed) {
        return Err(Failure::usage(secret.advice()));
    }
    let patience = profile.as_ref().map_or(PATIENCE, |profile| profile.patience.or(PATIENCE));
    let mut providers = Providers::new(&opening.keystore, signals, notes).patient(patience);
    let contexts = contexts(opening)?;
    let mut all = Vec::new();
    for name in &names {
        signals.check()?;
        all.push(one(name, &mut providers, &contexts));
    }
    let works = all.iter().filter(|found| found.failure.is_none()).count();
    let summary = Summary { works, of: all.len(), write };
    let text = match arguments.json {
        true => json_text(&summary.json(profile.as_ref().map(|profile| profile.name.as_str()), &all)),
        false => summary.text(&all),
    };
    answer(&text)?;
    let failed: Vec<_> = all.iter().filter(|found| found.failure.is_some()).map(|found| found.name.as_str()).collect();
    let line = match failed.as_slice() {
        [one] => format!("{one} does not work"),
        several => format!("{} do not work", several.join(", ")),
    };
    match all.iter().find_map(|found| found.failure.as_ref()) {
        // The table ends with it.
        Some(only) if all.len() == 1 && !arguments.json => Err(only.silent()),
        Some(first) => Err(first.with_line(line)),
        None => Ok(()),
    }
}

/// That of the calls, and another that must not open what they made.
fn contexts(opening: &Opening) -> Result<[KmsContext; 2], Failure> {
    let given = context(opening);
    let context = match given.is_empty() {
        true => EncryptionContext::from([("purpose", "check")]),
        false => given,
    };
    let other = context.clone().with("another", "context");
    Ok([KmsContext::new(&context)?, KmsContext::new(&other)?])
}

fn one(name: &ProviderName, providers: &mut Providers<'_>, contexts: &[KmsContext; 2]) -> Found {
    let mut found = Found {
        name: name.to_string(),
        keys: Vec::new(),
        identity: None,
        caller: None,
        steps: Vec::new(),
        failure: None,
    };
    let begun = Instant::now();
    let made = providers.member(name, Purpose::Look);
    let took = begun.elapsed();
    let member = match made {
        Ok(member) => member,
        Err(failure) => {
            found.steps = Trial::not_begun(took, failure.line());
            found.failure = Some(failure);
            return found;
        }
    };
    // What the keystore calls itself is of no use to people.
    let (keystore, network) = match &member {
        Member::Local(_) => (Some(providers.keystore_told()), false),
        Member::Aws(_) | Member::Vault(_) => (None, true),
        Member::Other(_) => (None, false),
    };
    let mut trial = Trial::begin(took);
    trial.look(&member);
    let provider = member.clone().into_provider();
    found.keys = provider.recipients().iter().map(ToString::to_string).collect();
    let identity = provider.identity().filter(|_| network).map(|identity| identity.to_string());
    trial.use_it(&*provider, contexts, network);
    found.caller = match &member {
        Member::Local(_) => keystore.clone(),
        Member::Aws(aws) => aws.caller(),
        // The server says who it takes the caller for, at the step `look`.
        Member::Vault(_) | Member::Other(_) => None,
    };
    found.identity = keystore.or(identity);
    (found.steps, found.failure) = trial.end();
    found
}

struct Summary {
    works: usize,
    of: usize,
    write: Write,
}

impl Summary {
    /// How many must work so that messages are written.
    fn needed(&self) -> usize {
        match self.write {
            Write::All => self.of,
            Write::AtLeast(needed) => needed,
            Write::Failover { .. } => 1,
        }
    }

    fn text(&self, all: &[Found]) -> String {
        let mut out = String::new();
        for found in all {
            // A String takes everything.
            let _ = writeln!(out, "{}", plain(&found.name));
            for key in found.keys.iter().filter(|key| **key != found.name) {
                let _ = writeln!(out, "  {:<12} {}", "key", plain(key));
            }
            if let Some(caller) = &found.caller {
                let _ = writeln!(out, "  {:<12} {}", "identity", plain(caller));
            }
            for step in &found.steps {
                let time = step.took.map_or_else(String::new, |took| format!("{:.1} ms", took.as_secs_f64() * 1e3));
                let line = format!("  {:<12} {:<9} {time:>10}  {}", step.name, step.outcome.word(), plain(&step.said));
                let _ = writeln!(out, "{}", line.trim_end());
            }
            out.push('\n');
        }
        let (works, of, needed) = (self.works, self.of, self.needed());
        let goes_on = if works >= needed { "goes on" } else { "stops" };
        let _ = match of {
            1 => writeln!(out, "{}", if works == 1 { "it works" } else { "it does not work" }),
            _ => writeln!(out, "{works} of {of} work; to write, {needed} must: writing {goes_on}"),
        };
        out
    }

    fn json(&self, profile: Option<&str>, all: &[Found]) -> Value {
        let step = |step: &Step| {
            json!({
                "step": step.name,
                "outcome": step.outcome.name(),
                "milliseconds": step.took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3),
                "detail": Some(&step.said).filter(|said| !said.is_empty()),
            })
        };
        let provider = |found: &Found| {
            json!({
                "provider": found.name,
                "works": found.failure.is_none(),
                "exit_code": found.failure.as_ref().map_or(0, Failure::code),
                "keys": found.keys,
                "identity": found.identity,
                "caller": found.caller,
                "steps": found.steps.iter().map(step).collect::<Vec<_>>(),
            })
        };
        json!({
            "format_version": 1,
            "profile": profile,
            "working": self.works,
            "needed_to_write": self.needed(),
            "providers": all.iter().map(provider).collect::<Vec<_>>(),
        })
    }
}

impl Outcome {
    /// For people: a failure is seen at once.
    fn word(self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::No => "no",
            Self::Fails => "FAILED",
            Self::NotTried => "not tried",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::No => "no",
            Self::Fails => "failed",
            Self::NotTried => "not-tried",
        }
    }
}
