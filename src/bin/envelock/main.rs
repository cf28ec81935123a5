//! The program `envelock`: files and pipes, encrypted under keys that the caller names.

#![forbid(unsafe_code)]
#![warn(rust_2018_idioms)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod args;
mod audit;
mod audit_args;
mod check;
mod cost;
mod counter;
mod crypt;
mod describe;
mod failure;
mod file_args;
mod fleet;
mod fleet_args;
mod forgotten;
mod inspect;
mod inventory;
mod keys;
mod keys_args;
mod keystore;
mod life;
mod lines;
mod material;
mod missing;
mod nearest;
mod noted;
mod pages;
mod passphrase;
mod permissions;
mod profile;
mod progress;
mod provider;
mod provider_name;
mod range;
mod recover;
mod regions;
mod remote;
mod resume;
mod rewrap;
mod signals;
mod small;
mod states;
mod streams;
mod terminal;
mod text;
mod time;
mod trial;
mod upkeep;
mod value;
mod value_args;
mod verify;

use args::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use signals::Signals;
use std::process::ExitCode;
use text::Notes;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let notes = Notes::new(arguments.quiet);
    let outcome = Signals::watch().and_then(|signals| run(arguments.command, &signals, notes));
    keystore::close_all();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Command, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    match command {
        Command::Encrypt(it) => crypt::encrypt(&it, signals, notes),
        Command::Decrypt(it) => crypt::decrypt(&it, signals, notes),
        Command::Seal(it) => value::seal(&it, signals, notes),
        Command::Open(it) => value::open(&it, signals, notes),
        Command::Rewrap(it) => rewrap::rewrap(&it, signals, notes),
        Command::Verify(it) => verify::verify(&it, signals, notes),
        Command::Recover(it) => recover::recover(&it, signals, notes),
        Command::Inspect(it) => inspect::inspect(&it),
        Command::Inventory(it) => inventory::inventory(&it, notes),
        Command::Fleet(it) => fleet::fleet(&it, signals, notes),
        Command::Check(it) => check::check(&it, signals, notes),
        Command::Keys(it) => keys::keys(&it, signals, notes),
        Command::Keystore(it) => upkeep::keystore(&it, signals, notes),
        Command::Policy(it) => permissions::policy(&it, signals, notes),
        Command::Grants(it) => permissions::grants(&it, signals, notes),
        Command::Audit(it) => audit::audit(&it, signals, notes),
        Command::Cost(it) => cost::cost(&it, signals, notes),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { folder } => pages::man(folder.as_deref()),
    }
}
