//! The arguments of `envelock inventory` and `envelock fleet`.

use crate::args::{Making, Opening};
use crate::provider_name::{KINDS, ProviderName, meant};
use crate::time::moment_past;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use envelock::fleet::{By, Selection, Separator};
use std::path::PathBuf;
use std::time::SystemTime;

/// Which files.
#[derive(Args, Clone, Debug)]
pub(crate) struct Where {
    /// Files, and folders with all that is below them; symbolic links in them are not followed
    #[arg(required_unless_present = "list", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// A file with more paths, one a line; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) list: Option<PathBuf>,
    /// The paths of the list end with zero bytes, as find -print0 writes them
    #[arg(long, short = '0', requires = "list")]
    pub(crate) null: bool,
    /// Follow symbolic links in folders too
    #[arg(long)]
    pub(crate) follow_links: bool,
}

impl Where {
    pub(crate) fn separator(&self) -> Separator {
        if self.null { Separator::Nul } else { Separator::Line }
    }
}

/// Which of the messages in them: those that all of these options mean.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// Only those under this key, as `envelock inventory` writes it; repeat it for any of several
    #[arg(long, value_name = "PROVIDER:KEY", value_parser = recipient)]
    pub(crate) under: Vec<(String, String)>,
    /// Only those that record a recipient as missing
    #[arg(long)]
    pub(crate) missing: bool,
    /// Only those in files that were modified before: 2026-11-24T09:15:00Z, or "30 days" ago
    #[arg(long, value_name = "TIME", value_parser = before)]
    pub(crate) older_than: Option<SystemTime>,
    /// Only those under a version of their key below N, where the wrapped key shows it (local:, vault:)
    #[arg(long, value_name = "N")]
    pub(crate) below_version: Option<u32>,
}

impl Which {
    pub(crate) fn selection(&self) -> Selection {
        let mut selection = Selection::all();
        for (provider, key) in &self.under {
            selection = selection.under(provider, key.as_bytes());
        }
        if self.missing {
            selection = selection.with_missing();
        }
        selection = self.older_than.into_iter().fold(selection, Selection::modified_before);
        self.below_version.into_iter().fold(selection, Selection::below_version)
    }
}

/// Tell which keys the messages below folders are under; needs no key, and checks nothing
///
/// Only the heads of files are read. What cannot be read, or begins as a message and is none, is told, and the exit
/// code is that of the first such file.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock inventory /srv/data
  envelock inventory --by version --under vault:transit/orders /srv/data
  envelock inventory --missing --files /srv/data
  find /srv -name '*.elk' -print0 | envelock inventory --list - --null --json")]
pub(crate) struct Inventory {
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) which: Which,
    /// What messages are counted by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: Grouping,
    /// A line for each message too
    #[arg(long)]
    pub(crate) files: bool,
    /// As JSON; with --files as JSON lines, the last of which has the counts
    #[arg(long)]
    pub(crate) json: bool,
}

/// Work on many files at once
#[derive(Args, Debug)]
pub(crate) struct Fleet {
    #[command(subcommand)]
    pub(crate) command: FleetCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    Rewrap(Box<FleetRewrap>),
}

/// Encrypt the data keys of all messages below folders for other keys, in place; their content is not touched
///
/// Every message is to be under each --provider afterwards. Those that it lacks are added, the keys of --from go, and
/// what is as it should be is left alone without a call. Whatever interrupts it, run it again: it does the rest. A
/// rewrap is not a revocation: whoever had a data key, or an old copy of a file, still has it.
#[derive(Args, Debug)]
#[command(mut_arg("provider", |it| it.alias("to")))]
#[command(after_long_help = "\
Examples:
  envelock fleet rewrap --from raw:file=old.key --provider vault:transit/orders --dry-run /srv/data
  envelock fleet rewrap --from raw:file=old.key --provider vault:transit/orders --rate 50 /srv/data
  envelock fleet rewrap --provider local:alias/orders --below-version 3 /srv/data
  envelock fleet rewrap --provider local: --provider raw:file=escrow.key --missing /srv/data")]
pub(crate) struct FleetRewrap {
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// A provider that the messages come from: it opens them, and its key is removed; repeat it for several. Default:
    /// none, and those of --provider open them
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) from: Vec<ProviderName>,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Leave the keys that neither --provider nor --from names in the messages. Default: a message that has one is
    /// refused, where it would have to be written
    #[arg(long)]
    pub(crate) keep_others: bool,
    /// Remove them
    #[arg(long, conflicts_with = "keep_others")]
    pub(crate) drop_others: bool,
    /// Go on when at least K of the providers hold a message's data key afterwards; the others are recorded as missing,
    /// for a later run. Default: all must, or as many as the profile says
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// Say what would be done, for each message; no call is made for it and nothing written. A key of AWS KMS must be
    /// named by its ARN
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// At most so many calls to key services a second [default: as many as there are]
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<f64>,
    /// Files, or batches of files, at once, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) concurrency: u8,
    /// Note in this file what is done, and go on from what it notes; it is removed once all is done. Needed where a
    /// message does not show that it was rewrapped: with --again, a passphrase:, or a raw: key of the same name
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) journal: Option<PathBuf>,
    /// Encrypt anew what is under the keys already: for a key service that does not show the versions of its keys
    #[arg(long, requires = "journal")]
    pub(crate) again: bool,
    /// See each data key and check it against its message. Default: where a key service can re-encrypt inside, and
    /// nothing else goes, it does
    #[arg(long)]
    pub(crate) open: bool,
    /// See no data key: what no key service re-encrypts inside fails
    #[arg(long, conflicts_with = "open")]
    pub(crate) blind: bool,
    #[command(flatten)]
    pub(crate) making: Making,
    /// A line for each message
    #[arg(long)]
    pub(crate) files: bool,
    /// As JSON; with --files or --dry-run as JSON lines, the last of which has the counts
    #[arg(long)]
    pub(crate) json: bool,
}

/// What messages are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    /// The names of providers
    Provider,
    /// The keys
    #[default]
    Key,
    /// The keys and their versions
    Version,
    /// How long ago the files were modified
    Age,
}

impl From<Grouping> for By {
    fn from(grouping: Grouping) -> Self {
        match grouping {
            Grouping::Provider => Self::Provider,
            Grouping::Key => Self::Key,
            Grouping::Version => Self::Version,
            Grouping::Age => Self::Age,
        }
    }
}

/// A selection that can mean no message is a mistake, and no way to do nothing.
fn recipient(text: &str) -> Result<(String, String), String> {
    const FORM: &str = "a key is PROVIDER:KEY, as `envelock inventory` writes it";
    let Some((provider, key)) = text.split_once(':') else { return Err(FORM.into()) };
    match provider {
        "aws-kms" if !key.starts_with("arn:") || key.contains(":alias/") => {
            Err("messages name a key of AWS KMS by its ARN (aws-kms:arn:aws:kms:…:key/…), and no alias; `envelock \
                 inventory` writes it, and `aws kms describe-key --key-id alias/NAME` shows it"
                .into())
        }
        "local" if !key.starts_with("envelock:") => {
            Err("messages name a key of a keystore by its full name (local:envelock:local:…), as `envelock inventory` \
                 writes it"
                .into())
        }
        // Providers from outside have names with a dot.
        _ if KINDS.contains(&provider) || provider.contains('.') => Ok((provider.into(), key.into())),
        _ => match meant(provider) {
            Some(near) => Err(format!("no key provider is named so: is it {near}:? {FORM}")),
            None => Err(FORM.into()),
        },
    }
}

fn before(text: &str) -> Result<SystemTime, String> {
    moment_past(text, SystemTime::now())
}
