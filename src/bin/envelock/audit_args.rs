//! The arguments of `envelock audit` and `envelock cost`.

use crate::args::KeystorePlace;
use crate::time::moment_past;
use clap::{ArgGroup, Args, Subcommand, ValueEnum, ValueHint};
use envelock::kms::{AUDIT_EVENTS, AuditHead, AuditOutcome, AuditQuery};
use std::path::PathBuf;
use std::time::SystemTime;

/// Look into the embedded keystore's record of every call
///
/// Every call on the keystore leaves one record, allowed, denied or failed. Looking at them leaves none.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print where the trail ends, as one line to be kept where no writer of the keystore can reach
    #[command(after_long_help = "\
Examples:
  envelock audit head | logger -t envelock-audit
  envelock audit verify --head envelock-audit1.…")]
    Head {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify that no record was removed, moved, changed or added, and that the keys are what the records tell
    ///
    /// The first bad record is named, and the exit code is 3. Without --head, an older whole keystore file that was
    /// put back is not found.
    Verify {
        /// A head that was kept elsewhere: the trail must have that record too
        #[arg(long, value_name = "HEAD")]
        head: Option<AuditHead>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List records, the newest last
    #[command(after_long_help = "\
Examples:
  envelock audit query --key alias/orders --since '7 days'
  envelock audit query --outcome denied --limit 20")]
    Query {
        #[command(flatten)]
        which: Which,
        /// So many at most, the newest of them [default: 100]
        #[arg(long, value_name = "N", default_value_t = 100, hide_default_value = true)]
        limit: u64,
        /// As JSON lines, as `audit export` writes them
        #[arg(long)]
        json: bool,
    },
    /// Write records as JSON lines in CloudTrail's vocabulary, the oldest first
    #[command(after_long_help = "\
Examples:
  envelock audit export --output /media/archive/audit-2026.jsonl --until 2027-01-01T00:00:00Z
  envelock audit export | jq 'select(.errorCode)'")]
    Export {
        #[command(flatten)]
        which: Which,
        /// The file to write, with mode 0600; it must not exist [default: standard output]
        #[arg(long, short, value_name = "OUT", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
        /// What was done as JSON; the records are JSON lines anyway
        #[arg(long, requires = "output")]
        json: bool,
    },
    /// List the newest records, and with -f those that come
    Tail {
        /// Go on until interrupted
        #[arg(long, short)]
        follow: bool,
        /// So many of those that are there
        #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
        lines: u64,
        #[command(flatten)]
        which: Which,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Cut off the old end of the trail, after verifying it. It cannot be undone: export it first
    ///
    /// What stays is verified as before. A head that was kept from before the cut cannot be compared any more: keep
    /// the one that is printed.
    #[command(
        group = ArgGroup::new("what").required(true),
        after_long_help = "\
Examples:
  envelock audit export --output old.jsonl && envelock audit trim --before '365 days' --yes"
    )]
    Trim {
        /// Cut off what was recorded before: a time, or a span of time before now
        #[arg(long, value_name = "TIME", group = "what", value_parser = past)]
        before: Option<SystemTime>,
        /// Cut off all but the newest N
        #[arg(long, value_name = "N", group = "what")]
        keep: Option<u64>,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which records.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Of this key: an id, a full name, or what an alias points to now
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// By this principal
    #[arg(long = "principal", value_name = "NAME")]
    by: Option<String>,
    /// Of this operation, such as Decrypt; case does not matter
    #[arg(long, value_name = "NAME", value_parser = event)]
    event: Option<&'static str>,
    /// That ended so
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    /// From then on: 2026-11-24T09:15:00+01:00, the same with Z, or a span of time before now, such as '7 days'
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<SystemTime>,
    /// Before then: as --since
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<SystemTime>,
}

impl Which {
    pub(crate) fn query(&self) -> AuditQuery {
        let mut query = AuditQuery::default();
        if let Some(key) = &self.key {
            query = query.key(key);
        }
        if let Some(principal) = &self.by {
            query = query.principal(principal);
        }
        if let Some(event) = self.event {
            query = query.event_name(event);
        }
        if let Some(outcome) = self.outcome {
            query = query.outcome(outcome.into());
        }
        if let Some(since) = self.since {
            query = query.from(since);
        }
        match self.until {
            Some(until) => query.until(until),
            None => query,
        }
    }
}

/// What became of a call, by its names on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    /// It did what was asked
    Allowed,
    /// The caller may not
    Denied,
    /// Another error
    Failed,
}

impl From<Outcome> for AuditOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Allowed => Self::Allowed,
            Outcome::Denied => Self::Denied,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// Estimate what a cloud KMS would have charged for what the keystore did, and what caches saved
///
/// Calls are counted in the audit trail, of which the counts stay when its old end is cut off. Prices are AWS KMS's
/// for symmetric keys in US dollars, unless others are given; AWS's free tier of 20,000 requests a month is not
/// taken off.
#[derive(Args, Debug)]
pub(crate) struct Cost {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    /// The price of 10,000 requests [default: 0.03]
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub(crate) per_10000: Option<f64>,
    /// The price of a key for a month of 30 days [default: 1]
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub(crate) per_key_month: Option<f64>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn past(text: &str) -> Result<SystemTime, String> {
    moment_past(text, SystemTime::now())
}

fn event(text: &str) -> Result<&'static str, String> {
    AUDIT_EVENTS.iter().copied().find(|name| name.eq_ignore_ascii_case(text)).ok_or_else(|| {
        format!("no record has that name: AWS's names of operations are meant; there are {}", AUDIT_EVENTS.join(", "))
    })
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err("a price is a number such as 0.03".into()),
    }
}
