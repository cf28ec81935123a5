//! The command line's face.

use crate::failure::EXIT_CODES;
use crate::provider::ProviderName;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use envelock::{AeadAlgorithm, Threads};
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
    Rewrap(Rewrap),
    Verify(Verify),
    Inspect(Inspect),
    Keys(Keys),
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
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) keystore: Option<PathBuf>,
    /// The file of the keystore's root key [env: ENVELOCK_ROOT_KEY (a path), or ENVELOCK_ROOT_KEY_VALUE
    /// (the key itself)] [default: $XDG_CONFIG_HOME/envelock/root.key, else ~/.config/envelock/root.key]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) root_key: Option<PathBuf>,
}

/// Key providers and the encryption context.
#[derive(Args, Clone, Debug)]
pub(crate) struct Opening {
    /// A key provider; repeat it for several. Default: local:alias/envelock/default
    ///
    /// local:[KEY]              a key of the embedded keystore: alias/NAME, a key id or a full key name
    /// raw:file=PATH[,id=NAME]  a file of 64 hex digits; NAME goes into the message, and must be the
    ///                          same later; default: the file's name without its last extension
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
    /// Work on N threads, 1 to 64 [default: one for each processor, at most 8; one for small input]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<Threads>,
}

impl Working {
    pub(crate) fn threads(&self) -> Threads {
        self.threads.unwrap_or_default()
    }
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
}

/// Decrypt files, each to its name without .elk, or a pipe
///
/// A file appears only once all of it was found authentic. On standard output, what was found authentic
/// streams; a failure then ends with exit code 3, and what came before is a part, not the whole.
#[derive(Args, Debug)]
pub(crate) struct Decrypt {
    /// The files to decrypt; - is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) working: Working,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
}

/// Encrypt the data keys of files anew, under current or other keys; their content is not touched
///
/// A rewrap is not a revocation: whoever had the data key, or an old copy of the file, still has it.
#[derive(Args, Debug)]
pub(crate) struct Rewrap {
    /// The files to rewrap, in place unless --output is given
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the message to this file, which must not exist, and leave the old one as it is
    #[arg(long, short, value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) opening: Opening,
    #[command(flatten)]
    pub(crate) matching: Matching,
    /// A provider that can open the files afterwards; repeat it for several. Default: those of --provider,
    /// under their current keys
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) to: Vec<ProviderName>,
    /// Go on when at least K of the new providers can encrypt. Default: all must
    #[arg(long, value_name = "K")]
    pub(crate) at_least: Option<usize>,
    /// Let the key service re-encrypt inside, without seeing the data key here. Keep the old key until
    /// `envelock verify` has opened the files
    #[arg(long)]
    pub(crate) blind: bool,
}

/// Check that every byte of files is authentic; nothing is written
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

/// Show what a message says of itself; needs no key, and checks nothing
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
    Create {
        /// A name for it: alias/NAME
        #[arg(long, value_name = "ALIAS")]
        alias: Option<String>,
        /// A text for people
        #[arg(long, default_value = "")]
        description: String,
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
    Rotate {
        /// A key id, a full key name, or alias/NAME
        key: String,
    },
    /// Look after the root key
    #[command(subcommand)]
    Root(RootCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Make an alias for a key
    Create {
        /// alias/NAME
        alias: String,
        /// A key id, a full key name, or another alias
        key: String,
    },
    /// Point an alias to another key; it still opens what was encrypted under the keys before
    Move {
        /// alias/NAME
        alias: String,
        /// A key id, a full key name, or another alias
        key: String,
    },
    /// Delete an alias; its key stays
    Delete {
        /// alias/NAME
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

/// `KEY=VALUE`, cut at the first `=`.
fn entry(text: &str) -> Result<(String, String), String> {
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
    fn an_entry_is_cut_at_the_first_equals_sign() {
        assert_eq!(entry("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(entry("a="), Ok(("a".into(), String::new())));
        assert!(entry("=b").is_err() && entry("ab").is_err());
    }
}
