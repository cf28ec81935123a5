//! Completions and manual pages, made from the command line's definition.

use crate::args::Arguments;
use crate::failure::Failure;
use crate::text::answer;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::path::Path;

const NAME: &str = "envelock";

pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    answer(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(folder: Option<&Path>) -> Result<(), Failure> {
    match folder {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command())
                .render(&mut page)
                .map_err(|e| Failure::io("the manual page cannot be made", &e))?;
            answer(&String::from_utf8_lossy(&page))
        }
        Some(folder) => {
            clap_mangen::generate_to(command(), folder).map_err(|e| Failure::io(&folder.display().to_string(), &e))
        }
    }
}

/// Without the generated `help` commands, which have no page of their own.
fn command() -> Command {
    Arguments::command().disable_help_subcommand(true)
}
