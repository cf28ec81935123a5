//! Questions on the terminal whose answers are not shown.

use crate::failure::Failure;
use crate::signals::Signals;
use crate::streams::Interruptible;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use zeroize::Zeroizing;

/// The terminal that this process is controlled by, whatever its standard streams are, without echo
/// until it is dropped.
pub(crate) struct Silent<'a> {
    terminal: File,
    before: Termios,
    signals: &'a Signals,
}

/// A terminal hands over a line of at most 4,095 bytes, and drops silently what is longer.
const LINE_MAX: usize = 4_095;

impl<'a> Silent<'a> {
    /// Must be called where a signal lets the work undo itself ([`Signals::undoing`]).
    pub(crate) fn open(signals: &'a Signals) -> Result<Self, Failure> {
        let open = || -> io::Result<Self> {
            let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
            let before = tcgetattr(&terminal)?;
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK | LocalModes::ECHONL);
            // What was typed before the question is no answer to it.
            tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
            Ok(Self { terminal, before, signals })
        };
        open().map_err(failed)
    }

    /// The next line after `question`, without its end. A signal ends the wait within a tenth of a second.
    pub(crate) fn ask(&self, question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        (&self.terminal).write_all(question.as_bytes()).map_err(failed)?;
        let input = self.terminal.try_clone().map_err(failed)?;
        let mut input = Interruptible::new(input, self.signals.flag());
        // All of it at once, so that no growing buffer leaves copies behind.
        let mut line = Zeroizing::new(vec![0; LINE_MAX + 1]);
        let mut len = 0;
        let read = loop {
            let room = line.get_mut(len..).unwrap_or_default();
            match input.read(room) {
                Ok(0) => break Ok(()),
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if line.get(..len).is_some_and(|line| line.ends_with(b"\n")) {
                break Ok(());
            }
        };
        // The line end that the user typed was not shown either.
        (&self.terminal).write_all(b"\n").map_err(failed)?;
        read.map_err(failed)?;
        line.truncate(len);
        if line.is_empty() {
            return Err(Failure::usage("no passphrase was typed"));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() >= LINE_MAX {
            return Err(Failure::usage(format!(
                "a terminal takes lines below {LINE_MAX} bytes: use passphrase:file=PATH for a longer passphrase"
            )));
        }
        Ok(line)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

fn failed(error: impl Into<io::Error>) -> Failure {
    Failure::io("the passphrase cannot be read from a terminal", &error.into())
        .and("without a terminal, use passphrase:file=PATH or passphrase:fd=N")
}
