//! What a command ends with when it did not do all that it was asked: one line and an exit code.

use crate::text::plain;
use envelock::{Error, ErrorKind, Recipients};
use std::io::{self, Write as _};
use std::path::Path;

/// A line for standard error and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// What the library's error was, if it was one.
    kind: Option<ErrorKind>,
    /// `None` if it was said before.
    line: Option<String>,
}

pub(crate) const OTHER: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_AUTHENTIC: u8 = 3;
pub(crate) const NO_KEY: u8 = 4;
pub(crate) const RETRY: u8 = 5;
pub(crate) const IO: u8 = 6;
pub(crate) const TARGET_EXISTS: u8 = 7;

/// For `--help` and the manual page.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    another failure (an unsupported message, a limit, a damaged keystore)
  2    wrong usage
  3    not authentic: changed, cut off, followed by other data, of another context, or no message;
       audit: a record or a key's row is not as it was written;
       recover: it was damaged, and what is left was written
  4    no usable key: none given opens the message, or the key is refused, disabled or not there
  5    worth retrying: a key service or a file is busy or out of reach
  6    input or output failed
  7    the target exists, and --force was not given
  130  interrupted (129: hung up, 143: terminated); nothing half-written is left, but what
       encrypt --resume keeps
With several files the rest is still done, and the code is that of the first failure.";

impl Failure {
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { code: USAGE, kind: None, line: Some(line.into()) }
    }

    pub(crate) fn no_key(line: impl Into<String>) -> Self {
        Self { code: NO_KEY, kind: None, line: Some(line.into()) }
    }

    /// Something is at `path`, and may not be replaced.
    pub(crate) fn target_exists(path: &Path) -> Self {
        let path = path.display();
        Self {
            code: TARGET_EXISTS,
            kind: None,
            line: Some(format!("{path} exists, and was kept; --force replaces it")),
        }
    }

    /// As [`target_exists`](Self::target_exists), where nothing replaces it.
    pub(crate) fn kept(path: &Path) -> Self {
        Self {
            code: TARGET_EXISTS,
            kind: None,
            line: Some(format!("{} exists, and was kept: choose another name", path.display())),
        }
    }

    /// `what` failed in the operating system.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self { code: IO, kind: None, line: Some(format!("{what}: {error}")) }
    }

    /// Not all of a message was authentic, though the work was done.
    pub(crate) fn damaged(line: impl Into<String>) -> Self {
        Self { code: NOT_AUTHENTIC, kind: None, line: Some(line.into()) }
    }

    /// The same failure where the question was whether a keystore is authentic: what was tampered with is not.
    pub(crate) fn verifying(mut self) -> Self {
        if self.kind == Some(ErrorKind::Storage) {
            self.code = NOT_AUTHENTIC;
        }
        self
    }

    /// A signal ended the program.
    pub(crate) fn signal(number: u8) -> Self {
        Self { code: 128 + number, kind: None, line: Some("interrupted".into()) }
    }

    pub(crate) fn is_signal(&self) -> bool {
        self.code > 128
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The same failure, its line begun by `name` unless it stands there.
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.line = self.line.map(|line| if line.contains(name) { line } else { format!("{name}: {line}") });
        self
    }

    /// The same failure with more to say.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.line = self.line.map(|line| format!("{line}; {more}"));
        self
    }

    /// Says the line, once.
    pub(crate) fn report(&self) {
        if let Some(line) = &self.line {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr().lock(), "envelock: {}", plain(line));
        }
    }

    /// The same failure, said.
    pub(crate) fn reported(mut self) -> Self {
        self.report();
        self.line = None;
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self { code: code(&error), kind: Some(error.kind()), line: Some(error.to_string()) };
        hints(&error).into_iter().fold(failure, Self::and)
    }
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        _ if error.is_retryable() => RETRY,
        ErrorKind::InvalidInput if target_exists(error) => TARGET_EXISTS,
        ErrorKind::InvalidInput => USAGE,
        ErrorKind::Malformed
        | ErrorKind::ContextMismatch
        | ErrorKind::AuthenticationFailed
        | ErrorKind::Truncated
        | ErrorKind::TrailingData => NOT_AUTHENTIC,
        ErrorKind::NoMatchingKey | ErrorKind::KeyDenied | ErrorKind::KeyState => NO_KEY,
        ErrorKind::Io => IO,
        _ => OTHER,
    }
}

/// What to do on the command line: the library's errors know nothing of it.
fn hints(error: &Error) -> Vec<&'static str> {
    let source = std::error::Error::source(error);
    let recipients = source.and_then(|source| source.downcast_ref::<Recipients>());
    match (error.kind(), recipients) {
        (ErrorKind::NoMatchingKey, Some(Recipients(all))) => {
            let of = |name| all.iter().any(|it| it.provider == name);
            let raw = of("raw").then_some("raw key files are known by their name: give raw:file=PATH,id=NAME");
            let passphrase = of("passphrase").then_some("passphrase: asks for one");
            ["name it with --provider"].into_iter().chain(raw).chain(passphrase).collect()
        }
        (ErrorKind::InvalidInput, Some(_)) => {
            vec!["name all that are to stay with --provider or --to, or remove the others with --drop-others"]
        }
        (ErrorKind::ContextMismatch, _) => {
            vec!["--context tenant=... gives a stored entry, --unstored tenant=... one that is not stored"]
        }
        _ => match error.code() {
            Some("NotFoundException") => vec!["`envelock keys list` shows those that exist"],
            Some("UnsupportedOperationException") => {
                vec!["`envelock keys create --alias alias/orders` makes a key, --provider local:alias/orders uses it"]
            }
            Some("AlreadyExistsException") => vec!["`envelock keys alias move` points it to another key"],
            _ => Vec::new(),
        },
    }
}

fn target_exists(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::AlreadyExists)
}

/// Does `work` for each of `items`; what fails is said at once, and the first failure is the answer.
pub(crate) fn each<T>(items: &[T], mut work: impl FnMut(&T) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut first = None;
    for item in items {
        if let Err(failure) = work(item) {
            let failure = failure.reported();
            let ends = failure.code > 128;
            first.get_or_insert(failure);
            if ends {
                break;
            }
        }
    }
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_documented_code() {
        let table = [
            (ErrorKind::InvalidInput, USAGE),
            (ErrorKind::Malformed, NOT_AUTHENTIC),
            (ErrorKind::ContextMismatch, NOT_AUTHENTIC),
            (ErrorKind::AuthenticationFailed, NOT_AUTHENTIC),
            (ErrorKind::Truncated, NOT_AUTHENTIC),
            (ErrorKind::TrailingData, NOT_AUTHENTIC),
            (ErrorKind::NoMatchingKey, NO_KEY),
            (ErrorKind::KeyDenied, NO_KEY),
            (ErrorKind::KeyState, NO_KEY),
            (ErrorKind::Unavailable, RETRY),
            (ErrorKind::Busy, RETRY),
            (ErrorKind::RandomFailed, RETRY),
            (ErrorKind::Io, IO),
            (ErrorKind::Unsupported, OTHER),
            (ErrorKind::LimitExceeded, OTHER),
            (ErrorKind::Storage, OTHER),
            (ErrorKind::Internal, OTHER),
        ];
        for (kind, expected) in table {
            assert_eq!(code(&Error::new(kind, "x")), expected, "{kind:?}");
        }
        let exists =
            Error::new(ErrorKind::InvalidInput, "x").with_source(io::Error::from(io::ErrorKind::AlreadyExists));
        assert_eq!(code(&exists), TARGET_EXISTS);
    }

    #[test]
    fn an_interrupt_ends_the_list_and_another_failure_does_not() {
        let mut seen = Vec::new();
        let failure = each(&[1, 2, 3, 4], |&n| {
            seen.push(n);
            match n {
                2 => Err(Failure { code: IO, kind: None, line: None }),
                3 => Err(Failure { code: 130, kind: None, line: None }),
                _ => Ok(()),
            }
        });
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(failure.unwrap_err().code(), IO);
    }
}
