//! The arguments of `envelock seal` and `envelock open`.

use crate::args::{Making, Matching, Opening};
use clap::Args;

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
    /// must, or as many as the profile says
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
