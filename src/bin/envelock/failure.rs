//! What a command ends with when it did not do all that it was asked: one line and an exit code.

use crate::keystore;
use crate::text::plain;
use envelock::{Error, ErrorKind, KeystoreCause, Recipients, TransportError, TransportFailure};
use std::borrow::Cow;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A line for standard error and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
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
       a keystore that something else than envelock changed, or that does not fit the audit head;
       recover: it was damaged, and what is left was written
  4    no usable key: none given opens the message, or the key is refused, disabled or not there
  5    worth retrying: a key service or a file is busy or out of reach, or a rekey came between
  6    input or output failed
  7    the target exists, and --force was not given; the alias exists
  130  interrupted (129: hung up, 143: terminated); nothing half-written is left, but what
       encrypt --resume keeps
With several files the rest is still done, and the code is that of the first failure.";

impl Failure {
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { code: USAGE, line: Some(line.into()) }
    }

    pub(crate) fn no_key(line: impl Into<String>) -> Self {
        Self { code: NO_KEY, line: Some(line.into()) }
    }

    /// Something is at `path`, and may not be replaced.
    pub(crate) fn target_exists(path: &Path) -> Self {
        let path = path.display();
        Self { code: TARGET_EXISTS, line: Some(format!("{path} exists, and was kept; --force replaces it")) }
    }

    /// As [`target_exists`](Self::target_exists), where nothing replaces it.
    pub(crate) fn kept(path: &Path) -> Self {
        Self {
            code: TARGET_EXISTS,
            line: Some(format!("{} exists, and was kept: choose another name", path.display())),
        }
    }

    /// `what` failed in the operating system.
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self { code: IO, line: Some(format!("{what}: {error}")) }
    }

    /// Not all of a message was authentic, though the work was done.
    pub(crate) fn damaged(line: impl Into<String>) -> Self {
        Self { code: NOT_AUTHENTIC, line: Some(line.into()) }
    }

    /// A signal ended the program.
    pub(crate) fn signal(number: u8) -> Self {
        Self { code: 128 + number, line: Some("interrupted".into()) }
    }

    pub(crate) fn is_signal(&self) -> bool {
        self.code > 128
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What it says; nothing if it was said.
    pub(crate) fn line(&self) -> &str {
        self.line.as_deref().unwrap_or_default()
    }

    /// A failure that this one decides, in another line.
    pub(crate) fn with_line(&self, line: String) -> Self {
        Self { code: self.code, line: Some(line) }
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

    /// That of a file of a fleet.
    pub(crate) fn of_fleet(error: &Error) -> Self {
        Self::told(error, Scope::Fleet)
    }

    fn told(error: &Error, scope: Scope) -> Self {
        let failure = Self { code: code(error), line: Some(error.to_string()) };
        hints(error, scope).into_iter().fold(failure, |failure, hint| failure.and(&hint))
    }

    /// The same failure, whose line is not said: all of it was told already.
    pub(crate) fn silent(&self) -> Self {
        Self { code: self.code, line: None }
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
        Self::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::told(error, Scope::File)
    }
}

/// What is worked on: what there is to do about an error is said by the options of its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    File,
    Fleet,
}

/// Set while something is written that every provider must encrypt for.
static ALL_MUST_WRITE: AtomicBool = AtomicBool::new(false);

/// Says that what is written from now on stops where one provider is out of reach.
pub(crate) fn all_must_write() {
    ALL_MUST_WRITE.store(true, Ordering::Relaxed);
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        _ if error.is_retryable() || error.keystore_cause() == Some(KeystoreCause::Rekeyed) => RETRY,
        _ if error.keystore_cause() == Some(KeystoreCause::Tampered) => NOT_AUTHENTIC,
        _ if error.code() == Some("AlreadyExistsException") => TARGET_EXISTS,
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
fn hints(error: &Error, scope: Scope) -> Vec<Cow<'static, str>> {
    let of_keystore = error.keystore_cause().and_then(|cause| keystore_hint(error, cause));
    match of_keystore {
        Some(hint) => vec![hint],
        None => other_hints(error, scope).into_iter().map(Cow::Borrowed).collect(),
    }
}

fn keystore_hint(error: &Error, cause: KeystoreCause) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(match cause {
        KeystoreCause::Rekeyed => "run it again",
        KeystoreCause::RootKeyMissing => {
            let path = error.path().map_or(Cow::Borrowed("PATH"), Path::to_string_lossy);
            return Some(format!("`install -m 600 COPY {path}` puts a copy there, --root-key COPY uses it").into());
        }
        KeystoreCause::Sealed => "--unseal PROVIDER names what `envelock keystore rekey --to` was given",
        KeystoreCause::NotSealed => "leave --unseal off",
        KeystoreCause::OwnerOnly => "leave --as off",
        KeystoreCause::DeniedByStatement => "`envelock policy get KEY` prints them",
        KeystoreCause::LocksOut => {
            "--lock-out puts it all the same; the keystore's owner is the principal \"owner\", which is no ARN"
        }
        KeystoreCause::KeyDisabled => "`envelock keys enable KEY` enables it",
        KeystoreCause::KeyPendingDeletion => {
            "`envelock keys cancel-deletion KEY` takes that back, `envelock keys enable KEY` makes it usable then"
        }
        KeystoreCause::KeyManaged => {
            "`envelock keys create --alias alias/orders` makes a key, --provider local:alias/orders uses it"
        }
        KeystoreCause::GrantMissing => "`envelock grants list KEY` shows those that there are",
        _ => return None,
    }))
}

fn other_hints(error: &Error, scope: Scope) -> Vec<&'static str> {
    let source = std::error::Error::source(error);
    let recipients = source.and_then(|source| source.downcast_ref::<Recipients>());
    match (error.kind(), recipients) {
        (ErrorKind::NoMatchingKey, Some(Recipients(all))) => {
            let of = |name| all.iter().any(|it| it.provider == name);
            let raw = of("raw").then_some("raw key files are known by their name: give raw:file=PATH,id=NAME");
            let passphrase = of("passphrase").then_some("passphrase: asks for one");
            let option = match scope {
                Scope::File => "name it with --provider",
                Scope::Fleet => "name it with --from if its key is to go, with --provider if it is to stay",
            };
            [option].into_iter().chain(raw).chain(passphrase).collect()
        }
        (ErrorKind::InvalidInput, Some(_)) => vec![match scope {
            Scope::File => "name all that are to stay with --provider or --to, or remove the others with --drop-others",
            Scope::Fleet => {
                "--keep-others leaves them, --drop-others removes them; or name them, with --provider those that are to \
                 stay and with --from those that are to go"
            }
        }],
        (ErrorKind::ContextMismatch, _) => {
            vec!["--context tenant=... gives a stored entry, --unstored tenant=... one that is not stored"]
        }
        _ => match error.code() {
            // Those of AWS KMS have the same names, and advice of their own.
            Some(_) if !keystore::is_open() => Vec::new(),
            Some("NotFoundException") => vec!["`envelock keys list` shows those that exist"],
            Some("AlreadyExistsException") => vec!["`envelock keys alias move` points it to another key"],
            Some(_) => Vec::new(),
            None => network_hint(error).into_iter().collect(),
        },
    }
}

fn network_hint(error: &Error) -> Option<&'static str> {
    match transport_failure(error)? {
        TransportFailure::Tls => {
            Some("a vault: provider trusts the certificates of a file with ,cacert=FILE behind it")
        }
        TransportFailure::Timeout | TransportFailure::Connect if ALL_MUST_WRITE.load(Ordering::Relaxed) => {
            Some("a profile with write = \"2 of 3\" or \"failover\" goes on without one of several")
        }
        _ => None,
    }
}

/// Which part of the way to a key service failed.
pub(crate) fn transport_failure(error: &Error) -> Option<TransportFailure> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(transport) = error.downcast_ref::<TransportError>() {
            return Some(transport.failure());
        }
        next = error.source();
    }
    None
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
        let taken = Error::new(ErrorKind::InvalidInput, "x").with_code("AlreadyExistsException");
        assert_eq!(code(&taken), TARGET_EXISTS);
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
                2 => Err(Failure { code: IO, line: None }),
                3 => Err(Failure { code: 130, line: None }),
                _ => Ok(()),
            }
        });
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(failure.unwrap_err().code(), IO);
    }
}
