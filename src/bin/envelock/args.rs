//! The command line's face: what there is to do, and the options that several commands share.

use crate::audit_args::{Audit, Cost};
use crate::check::Check;
use crate::failure::EXIT_CODES;
use crate::file_args::{Decrypt, Encrypt, Inspect, Recover, Rewrap, Verify};
use crate::fleet_args::{Fleet, Inventory};
use crate::keys_args::Keys;
use crate::permissions::{Grants, Policy};
use crate::provider_name::ProviderName;
use crate::upkeep::Keystore;
use crate::value_args::{OpenValue, SealValue};
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use envelock::Threads;
use std::path::PathBuf;

/// Encrypts files and pipes, and moves them from key to key without touching their content.
///
/// A data key encrypts the data, and key providers encrypt the data key: an embedded keystore (made at
/// first use), a passphrase, a key file of your own, AWS KMS, Vault or OpenBao.
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
    Inventory(Inventory),
    Fleet(Fleet),
    Check(Check),
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
    /// The key provider, no local: one, that unwraps the keystore's root key, where `keystore rekey --to`
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

/// Which key providers.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choosing {
    /// A key provider; repeat it for several. Default: those of the profile `default`, if there
    /// is one; else local:alias/envelock/default
    ///
    /// local:[KEY]              a key of the embedded keystore: alias/NAME, a key id or a full
    ///                          key name
    /// raw:file=PATH[,id=NAME]  a file of 64 hex digits; NAME goes into the message, and must be
    ///                          the same later; default: the file's name without its last
    ///                          extension. To make one:
    ///                          (umask 077; openssl rand -hex 32 > escrow.key)
    /// passphrase:              asked for on the terminal
    /// passphrase:file=PATH     read from a file, less one line end
    /// passphrase:fd=N          read from an open file descriptor, less one line end
    /// aws-kms:KEY              a key of AWS KMS: an ARN, a key id or alias/NAME; with
    ///                          ,region=NAME ,endpoint=URL ,profile=NAME where AWS's
    ///                          environment does not say
    /// vault:MOUNT/KEY          a Transit key of Vault or OpenBao at VAULT_ADDR; or
    ///                          vault:https://HOST:PORT/MOUNT/KEY; with ,namespace=NAME
    ///                          ,cacert=FILE ,login=approle|kubernetes|cert ,role=NAME
    ///                          ,secret_id_file=FILE
    ///
    /// Credentials come from the environment or from files, never from here.
    #[arg(long, short, value_name = "PROVIDER", verbatim_doc_comment)]
    pub(crate) provider: Vec<ProviderName>,
    /// The providers of this profile, and what it says of their use [env: ENVELOCK_PROFILE]
    #[arg(long, value_name = "NAME", conflicts_with = "provider")]
    pub(crate) profile: Option<String>,
    /// The file of profiles [env: ENVELOCK_CONFIG] [default: $XDG_CONFIG_HOME/envelock/config.toml, else
    /// ~/.config/envelock/config.toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "provider")]
    pub(crate) config: Option<PathBuf>,
}

/// Key providers and the encryption context.
#[derive(Args, Clone, Debug)]
pub(crate) struct Opening {
    #[command(flatten)]
    pub(crate) choosing: Choosing,
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
