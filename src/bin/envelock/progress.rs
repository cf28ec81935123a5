//! A progress bar with rate, on a terminal only.

use crate::text::{Notes, plain};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal as _};

/// A bar, or nothing. Clones draw the same one.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Nothing is drawn.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// A bar for `name` on standard error, if that is a terminal and notes are wanted.
    pub(crate) fn new(name: &str, total: Option<u64>, notes: Notes) -> Self {
        if !notes.shown() || !io::stderr().is_terminal() {
            return Self::none();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match total {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(plain(name).into_owned());
        Self(Some(bar))
    }

    /// To be given to the library.
    pub(crate) fn reporter(&self) -> impl Fn(envelock::Progress) + Send + Sync + 'static {
        let bar = self.0.clone();
        move |progress| {
            if let Some(bar) = &bar {
                if let Some(total) = progress.total {
                    bar.set_length(total);
                }
                bar.set_position(progress.done);
            }
        }
    }

    /// Takes the bar off the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
