//! Passphrases: from the terminal without echo, a file, or a file descriptor.

use crate::failure::Failure;
use crate::signals::Signals;
use crate::terminal::Silent;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PassphraseSource {
    Terminal,
    File(PathBuf),
    Descriptor(u16),
}

/// How often the terminal is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Once,
    /// And the answers must agree.
    Twice,
}

/// More is no passphrase.
const MAX: u64 = 65_536;

/// The passphrase as bytes, less one LF or CRLF at its end.
pub(crate) fn read(source: &PassphraseSource, ask: Ask, signals: &Signals) -> Result<Vec<u8>, Failure> {
    match source {
        PassphraseSource::Terminal => signals.undoing(|| from_terminal(ask, signals)),
        PassphraseSource::File(path) => from_path(path, &path.display().to_string()),
        // A descriptor of this process, opened again by its name: for a pipe, the same pipe.
        PassphraseSource::Descriptor(number) => {
            from_path(Path::new(&format!("/dev/fd/{number}")), &format!("file descriptor {number}"))
        }
    }
}

fn from_terminal(ask: Ask, signals: &Signals) -> Result<Vec<u8>, Failure> {
    let terminal = Silent::open(signals)?;
    let first = terminal.ask("Passphrase: ")?;
    if ask == Ask::Twice && *terminal.ask("The same again: ")? != *first {
        return Err(Failure::usage("the two passphrases differ: try again"));
    }
    Ok(first.to_vec())
}

fn from_path(path: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::io(&format!("the passphrase cannot be read from {name}"), &e);
    let file = File::open(path).map_err(failed)?;
    // All of it at once, so that no growing buffer leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX as usize + 1));
    file.take(MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX {
        return Err(Failure::usage(format!("{name} holds more than {MAX} bytes: this is no passphrase")));
    }
    let line = bytes.strip_suffix(b"\n").map_or(&**bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(line.to_vec())
}
