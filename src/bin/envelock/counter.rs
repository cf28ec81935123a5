//! A count of files on the terminal, while nobody knows how many there will be.

use crate::failure::Failure;
use crate::text::{Notes, plain};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal as _};

/// A count, or nothing. Clones draw the same one.
#[derive(Clone, Debug)]
pub(crate) struct Counter(Option<ProgressBar>);

impl Counter {
    /// A count after `name` on standard error, if that is a terminal and notes are wanted.
    pub(crate) fn new(name: &str, notes: Notes) -> Self {
        if !notes.shown() || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {spinner} {pos} files {per_sec}") {
            bar.set_style(style);
        }
        bar.set_message(plain(name).into_owned());
        Self(Some(bar))
    }

    /// One more.
    pub(crate) fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    /// Does something that may write lines, with the count off the terminal.
    pub(crate) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Takes it off the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// What went wrong while files were told.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// With a file: the rest is still done.
    File(Failure),
    /// With standard output: nobody is left to be told.
    Output(Failure),
}

impl Trouble {
    pub(crate) fn ends(&self) -> bool {
        matches!(self, Self::Output(_))
    }

    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::File(failure) | Self::Output(failure) => failure,
        }
    }
}
