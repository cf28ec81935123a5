//! The command line's face.

use crate::audit_args::{Audit, Cost};
use crate::failure::EXIT_CODES;
use crate::life::LifeCommand;
use crate::material::MaterialCommand;
use crate::permissions::{Grants, Policy};
use crate::provider::ProviderName;
use crate::regions::RegionsCommand;
use crate::upkeep::Keystore;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use envelock::{AeadAlgorithm, ByteRange, Holes, Threads};
use std::path::PathBuf;

/// Encrypts files and pipes, and moves them from key to key without touching their content.
///
/// A data key encrypts the data, and key providers encrypt the data key: an embedded keystore (made at
/// first use), a passphrase, or a key file of your own.
#[derive(Debug, Parser)]
#[command(name = "envelock", version, after_long_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Arguments {
    /// No notes and no progress bar, only failures
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Encrypt(Encrypt),
    Decrypt(Decrypt),
    Seal(SealValue),
    Open(OpenValue),
    Rewrap(Rewrap),
    Verify(Verify),
    Recover(Recover),
    Inspect(Inspect),
    Keys(Keys),
    Keystore(Keystore),
    Policy(Policy),
    Grants(Grants),
    Audit(Audit),
    Cost(Cost),
    /// Print a script that completes the command line
    #[command(
        after_long_help = "For bash: envelock completions bash > ~/.local/share/bash-completion/completions/envelock"
    )]
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    Man {
        /// The folder for `envelock.1`, `envelock-encrypt.1` and so on; without it, `envelock.1` is printed
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: Option<PathBuf>,
    },
}

/// Where the embedded keystore is.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeystorePlace {
    /// The keystore of `local:` keys [env: ENVELOCK_KEYSTORE] [default:
    /// $XDG_DATA_HOME/envelock/keys.db, else ~/.local/share/envelock/keys.db]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) keystore: Option<PathBuf>,
    /// The file of the keystore's root key [env: ENVELOCK_ROOT_KEY (a path), or ENVELOCK_ROOT_KEY_VALUE
    /// (the key itself)] [default: $XDG_CONFIG_HOME/envelock/root.key, else ~/.config/envelock/root.key]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) root_key: Option<PathBuf>,
    /// The key provider, raw: or passphrase:, that unwraps the keystore's root key, where `keystore rekey --to`
    /// put it under one
    #[arg(long, global = true, value_name = "PROVIDER", conflicts_with = "root_key")]
    pub(crate) unseal: Option<ProviderName>,
    /// The Region of a keystore that is made [default: local]; that of one that is there must be this
    #[arg(long = "region", global = true, value_name = "NAME")]
    pub(crate) keystore_region: Option<String>,
    /// Call the keystore as this principal, whom its key policies and grants must let [default: owner, who
    /// may do everything that no policy forbids]
    #[arg(long = "as", global = true, value_name = "PRINCIPAL")]
    pub(crate) principal: Option<String>,
}

/// For commands that may make a keystore.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Making {
    /// Begin anew with an empty keystore where the root key exists and its keystore does not. What the lost
    /// keystore's keys encrypted stays closed, unless its backup is put back
    #[arg(long)]
    pub(crate) new_keystore: bool,
}

/// Key providers and the encryption context.
#[derive(Args, Clone, Debug)]
pub(crate) struct Opening {
    /// A key provider; repeat it for several. Default: local:alias/envelock/default
    ///
    /// local:[KEY]              a key of the embedded keystore: alias/NAME, a key id or a full key name
    /// raw:file=PATH[,id=NAME]  a file of 64 hex digits; NAME goes into the message, and must be the
    ///                          same later; default: the file's name without its last extension.
    ///                          To make one: (umask 077; openssl rand -hex 32 > escrow.key)
    /// passphrase:              asked for on the terminal
    /// passphrase:file=PATH     read from a file, less one line end
    /// passphrase:fd=N          read from an open file descriptor, less one line end
    #[arg(long, short, value_name = "PROVIDER", verbatim_doc_comment)]
    pub(crate) provider: Vec<ProviderName>,
    /// An entry of the encryption context, stored in the message in the clear; repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = entry)]
    pub(crate) context: Vec<(String, String)>,
    /// An entry of the encryption context that is not stored: whoever decrypts must know it; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    pub(crate) unstored: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
}

/// As in [`Opening`], for commands that read.
#[derive(Args, Clone, Debug)]
pub(crate) struct Matching {
    /// Accept messages whose stored context has more entries than those given with --context
    #[arg(long)]
    pub(crate) accept_more_context: bool,
}

/// Where results go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// The target: a file, an existing folder, or - for standard output
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    /// Replace an existing target
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// How the work is done.
#[derive(Args, Clone, Debug)]
pub(crate) struct Working {
    /// Work on N threads, 1 to 64; --resume and --range work on one [default: one for each processor, at
    /// most 8; one for small input]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<Threads>,
}

impl Working {
    pub(crate) fn threads(&self) -> Threads {
        self.threads.unwrap_or_default()
    }
}

/// Many values at once.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// Take each line of standard input for a value of its own, and write a line for each. Those that share a
    /// data key make one call to the key provider; all have the same context, so that one can be put in
    /// another's place
    #[arg(long)]
    pub(crate) lines: bool,
    /// Say on standard error, at the end, how often a data key was at hand (hits) or not (misses), and how many
    /// calls to the key provider were made and saved
    #[arg(long, requires = "lines")]
    pub(crate) cache_stats: bool,
    /// The statistics as JSON
    #[arg(long, requires = "cache_stats")]
    pub(crate) json: bool,
}

/// Encrypt files, each to FILE.elk, or a pipe
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock encrypt report.pdf
  envelock encrypt --provider passphrase: --output report.elk report.pdf
  tar c FOLDER | envelock encrypt - --output FOLDER.tar.elk
  envelock encrypt --provider local: --provider raw:file=escrow.key --context tenant=acme report.pdf")]
pub(crate) struct Encrypt {
    /// The files to encrypt; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) working: Working,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Go on when at least K of the providers can encrypt; the others are recorded as missing, for a
    /// later rewrap. Default: all must
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// The cipher
    #[arg(long, value_enum, default_value_t)]
    pub(crate) aead: Aead,
    /// Bytes in a segment, 64 to 16777216: what a reader holds in memory, and the least that it reads
    /// [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub(crate) segment_len: Option<u32>,
    /// Go on where an earlier run with this option ended early, and keep what is done if this one does.
    ///
    /// It stays in .NAME.envelock-partial beside the target NAME, until the target is whole or a run
    /// without this option writes it. What is there is verified and compared with the file first; if the
    /// file was changed since, a new message is begun, with a line that says so
    #[arg(long)]
    pub(crate) resume: bool,
}

/// Decrypt files, each to its name without .elk, or a pipe
///
/// A file appears only once all of it was found authentic; with --range, all segments that the range
/// touches, and the last. On standard output, what was found authentic streams; if the exit code is then
/// not 0, what came before is a part, not the whole.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  envelock decrypt report.pdf.elk
  envelock decrypt report.pdf.elk --output copy.pdf --context tenant=acme
  envelock decrypt --provider local:alias/orders orders.db.elk
  envelock decrypt archive.tar.elk --output - | tar t
  envelock decrypt log.elk --range 1000000-1004095 --output part.log")]
pub(crate) struct Decrypt {
    /// The files to decrypt; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Decrypt only these bytes of the content, and read only the segments that hold them and the last
    /// one: 0-99 are the first 100, 100- are all from byte 100 on, -100 are the last 100. Needs --output
    #[arg(long, value_name = "START-END", requires = "output", allow_hyphen_values = true)]
    pub(crate) range: Option<ByteRange>,
    #[command(flatten)]
    pub(crate) working: Working,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Encrypt standard input to one line of text, for environment variables and configuration files
///
/// The value is all of standard input, up to 16 MiB, a line end at its end too: use printf rather than echo.
/// What keeps a line from being put in another's place is the context: name in it what the value is.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  echo \"DB_PASSWORD=$(printf %s \"$PASSWORD\" | envelock seal --context variable=DB_PASSWORD)\" >> .env.sealed
  envelock seal --lines --cache-stats --context list=tokens < tokens.txt > tokens.sealed
  envelock seal --provider passphrase: < token.txt")]
pub(crate) struct SealValue {
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Go on when at least K of the providers can encrypt; the others are recorded as missing. Default: all
    /// must
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    #[command(flatten)]
    pub(crate) lines: Lines,
}

/// Decrypt a line that `envelock seal` made, from standard input to standard output
///
/// The line begins with elk1. and nothing follows it but a line end. The value comes out as it went in. With
/// --lines, values come out as they are found authentic, each with a line end: if the exit code is then not 0,
/// what came before is a part, not the whole.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  DB_PASSWORD=$(printf %s \"$SEALED\" | envelock open --context variable=DB_PASSWORD) || exit
  export DB_PASSWORD; exec my-service
  envelock open --provider passphrase: < token.sealed
  envelock open --lines --context list=tokens < tokens.sealed")]
pub(crate) struct OpenValue {
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
    #[command(flatten)]
    pub(crate) lines: Lines,
}

/// Encrypt the data keys of files anew, under current or other keys; their content is not touched
///
/// Who can open the files afterwards is said here, by --to or else by --provider; nothing that stands in a
/// file adds anybody. A rewrap is not a revocation: whoever had the data key, or an old copy of the file,
/// still has it. Record sets and values (as bytes, or as the lines of `envelock seal`) go to a new file: they
/// need --output.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  After `envelock keys rotate alias/orders`, under the key's new version:
    envelock rewrap --provider local:alias/orders *.elk
  The same, for files that an escrow key opens as well:
    envelock rewrap --provider local:alias/orders --provider raw:file=escrow.key *.elk
  To another key, and no other:
    envelock rewrap --provider passphrase: --to local:alias/orders report.pdf.elk")]
pub(crate) struct Rewrap {
    /// The files to rewrap, in place unless --output is given
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the message to this file, or under its name into this folder; it must not exist. The old one
    /// stays as it is
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
    /// A provider that can open the files afterwards; repeat it for several. All others that a file is for
    /// are removed. Default: those of --provider, under their current keys; a file that is for others as
    /// well is then refused
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) to: Vec<ProviderName>,
    /// Without --to: remove those that a file is for and that no --provider names
    #[arg(long, conflicts_with = "to")]
    pub(crate) drop_others: bool,
    #[command(flatten)]
    pub(crate) making: Making,
    /// Go on when at least K of the new providers can encrypt. Default: all must
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// Let the key service re-encrypt inside, without seeing the data key here. Keep the old key until
    /// `envelock verify` has opened the files
    #[arg(long)]
    pub(crate) blind: bool,
}

/// Check that every byte of files is authentic; nothing is written
///
/// The files are messages, record sets, or values as bytes or as the lines of `envelock seal`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The files to check; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Write what is left of a damaged message, with a map of what is not
///
/// The output is NOT what was encrypted unless the exit code is 0. Every byte in it is authentic and was
/// at this place, but for the zeros of holes; others may be missing, at the choice of whoever damaged the
/// file, and so may the end. For what cannot be restored from a copy. All other commands refuse such a
/// message.
#[derive(Args, Debug)]
#[command(after_long_help = "\
The map is JSON: `damage` lists runs of segments with their places in the damaged file, in the whole
plaintext and in the output (first byte, and one past the last), and the cause: not-authentic,
wrong-prefix (recovered all the same), truncated, trailing-data, unreadable. Without `end_verified`
nobody knows how much is missing at the end.

The exit code is 0 if the message was whole, and 3 if anything was wrong with it.")]
pub(crate) struct Recover {
    /// The damaged file; its head must be whole
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The file for what is left
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// The file for the map of the damage; - is standard output
    #[arg(long, value_name = "MAP", value_hint = ValueHint::FilePath)]
    pub(crate) map: PathBuf,
    /// What becomes of lost places
    #[arg(long, value_enum, default_value_t)]
    pub(crate) holes: LostPlaces,
    /// Replace existing targets
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Show what a message or value says of itself; needs no key, and checks nothing
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The file to look at; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Manage the keys of the embedded keystore
#[derive(Args, Debug)]
pub(crate) struct Keys {
    #[command(flatten)]
    pub(crate) keystore: KeystorePlace,
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, and print its full name
    #[command(after_long_help = "\
Examples:
  envelock keys create --alias alias/orders
  envelock encrypt --provider local:alias/orders orders.db")]
    Create {
        /// A name for it, which begins with alias/
        #[arg(long, value_name = "alias/NAME")]
        alias: Option<String>,
        #[command(flatten)]
        making: Making,
        /// A text for people
        #[arg(long, default_value = "")]
        description: String,
        /// Its key material is imported later (`envelock keys import`)
        #[arg(long)]
        external: bool,
        /// It can be replicated to other keystores (`envelock keys replicate`); this cannot be changed later
        #[arg(long)]
        multi_region: bool,
    },
    /// List the keys and their aliases
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Describe a key and its versions
    Describe {
        /// A key id, a full key name, or alias/NAME
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Manage aliases
    #[command(subcommand)]
    Alias(AliasCommand),
    /// Give a key a new version, which encrypts from now on; older ones still decrypt
    #[command(after_long_help = "\
Examples:
  envelock keys rotate alias/orders
  envelock rewrap --provider local:alias/orders *.elk
  envelock inspect orders.db.elk")]
    Rotate {
        /// A key id, a full key name, or alias/NAME
        key: String,
    },
    #[command(flatten)]
    Life(LifeCommand),
    #[command(flatten)]
    Material(MaterialCommand),
    #[command(flatten)]
    Regions(RegionsCommand),
    /// Tell the states of keys, and what each allows; needs no keystore
    States {
        /// Each operation in each state, for each kind of key, as Markdown
        #[arg(long)]
        table: bool,
        /// The same as JSON
        #[arg(long, conflicts_with = "table")]
        json: bool,
    },
    /// As `keystore backup`
    #[command(hide = true)]
    Backup {
        /// The file to write, with mode 0600; it must not exist
        #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
        output: PathBuf,
    },
    /// As `keystore root`
    #[command(subcommand, hide = true)]
    Root(RootCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Make an alias for a key
    Create {
        /// Its name, which begins with alias/
        #[arg(value_name = "alias/NAME")]
        alias: String,
        /// The key, by its id or its full name
        key: String,
    },
    /// Point an alias to another key; it still opens what was encrypted under the keys before
    Move {
        /// Its name, which begins with alias/
        #[arg(value_name = "alias/NAME")]
        alias: String,
        /// The key, by its id or its full name
        key: String,
    },
    /// Delete an alias; its key stays
    Delete {
        /// Its name, which begins with alias/
        #[arg(value_name = "alias/NAME")]
        alias: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RootCommand {
    /// Print the root key, or write it to a file: whoever has it and the keystore has every key
    ///
    /// To restore, put the line back into the root key's file (mode 0600), or give it as
    /// ENVELOCK_ROOT_KEY_VALUE.
    Export {
        /// The file to write, with mode 0600; it must not exist
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
}

/// The ciphers by their names on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Aead {
    /// AES-256-GCM
    #[default]
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305, for machines without AES instructions
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<Aead> for AeadAlgorithm {
    fn from(aead: Aead) -> Self {
        match aead {
            Aead::Aes256Gcm => Self::Aes256Gcm,
            Aead::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// What becomes of lost places, by its names on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LostPlaces {
    /// Zero bytes fill them, so that what is left lies where it was
    #[default]
    Zero,
    /// They are left out, and what is left is joined
    Skip,
}

impl From<LostPlaces> for Holes {
    fn from(places: LostPlaces) -> Self {
        match places {
            LostPlaces::Zero => Self::Zero,
            LostPlaces::Skip => Self::Skip,
        }
    }
}

/// `KEY=VALUE`, cut at the first `=`.
pub(crate) fn entry(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("an entry is KEY=VALUE".into()),
    }
}

fn threads(text: &str) -> Result<Threads, String> {
    let count = text.parse().map_err(|_| "a number of threads is a number")?;
    Threads::exactly(count).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_has_an_argument_of_the_id_of_a_global_one() {
        fn look(command: &clap::Command, above: &[&str]) {
            let mut all = above.to_vec();
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(!above.contains(&id), "{}: {id}", command.get_name());
                all.extend(argument.is_global_set().then_some(id));
            }
            command.get_subcommands().for_each(|below| look(below, &all));
        }
        look(&Arguments::command(), &[]);
    }

    #[test]
    fn an_entry_is_cut_at_the_first_equals_sign() {
        assert_eq!(entry("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(entry("a="), Ok(("a".into(), String::new())));
        assert!(entry("=b").is_err() && entry("ab").is_err());
    }
}
