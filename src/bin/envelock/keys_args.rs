//! The arguments of `envelock keys`.

use crate::args::{KeystorePlace, Making};
use crate::life::LifeCommand;
use crate::material::MaterialCommand;
use crate::regions::RegionsCommand;
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

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
        /// As JSON
        #[arg(long)]
        json: bool,
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
        /// As JSON
        #[arg(long)]
        json: bool,
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
        /// As JSON
        #[arg(long)]
        json: bool,
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
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Point an alias to another key; it still opens what was encrypted under the keys before
    Move {
        /// Its name, which begins with alias/
        #[arg(value_name = "alias/NAME")]
        alias: String,
        /// The key, by its id or its full name
        key: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete an alias; its key stays
    Delete {
        /// Its name, which begins with alias/
        #[arg(value_name = "alias/NAME")]
        alias: String,
        /// As JSON
        #[arg(long)]
        json: bool,
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
        /// What was done as JSON, which has no root key in it
        #[arg(long, requires = "output")]
        json: bool,
    },
}
