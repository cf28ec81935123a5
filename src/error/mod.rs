//! One opaque error for every failure.
//!
//! An [`Error`] says what failed, in which key, file or segment, whether to retry, and what to do
//! next. Its [`ErrorKind`] is what a program decides from; its text is for the person who reads the
//! log. The constructors of each family stand in a file that mirrors the module tree.

mod format;
#[cfg(feature = "local-kms")]
mod keystore;
mod provider;
#[cfg(feature = "http")]
pub(crate) mod remote;
mod source;
mod storage;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
///
/// A kind is retryable or not as a whole: see [`Error::is_retryable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that cannot be done as asked.
    InvalidInput,
    /// The bytes are not a message, keystore or key of the expected form.
    Malformed,
    /// The bytes are well formed, and need a version or algorithm that this build does not have.
    Unsupported,
    /// A length or count is above a configured limit.
    LimitExceeded,
    /// The message was made for another encryption context than the one given.
    ContextMismatch,
    /// The bytes are not what was encrypted, or the key is not the one they were encrypted under.
    AuthenticationFailed,
    /// The input ends before its authenticated end.
    Truncated,
    /// Bytes follow the authenticated end.
    TrailingData,
    /// None of the configured providers has a key that the message was encrypted under.
    NoMatchingKey,
    /// The key provider knows the key and refuses this caller.
    KeyDenied,
    /// The key is disabled, pending deletion or otherwise in a state that forbids the operation.
    KeyState,
    /// The key provider cannot be reached now.
    Unavailable,
    /// A resource is in use by somebody else for longer than the call waits.
    Busy,
    /// The operating system gave no random bytes.
    RandomFailed,
    /// A keystore file is damaged, tampered with, or cannot be used from here.
    Storage,
    /// Reading or writing failed.
    Io,
    /// A fault of this crate.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change by the caller.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Busy | Self::RandomFailed)
    }
}

/// What a failure of the embedded keystore comes from, where that tells more than its [`ErrorKind`]: the advice to the
/// one who uses it depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeystoreCause {
    /// It was changed by something else than this crate, or is not what an audit head was kept of.
    Tampered,
    /// It has another root key than when it was opened: somebody else has rekeyed it. Opening it again helps.
    Rekeyed,
    /// The file of its root key is not there.
    RootKeyMissing,
    /// A key provider wraps its root key, and it was to be opened without one.
    Sealed,
    /// No key provider wraps its root key, and it was to be opened with one.
    NotSealed,
    /// Only its owner may do this.
    OwnerOnly,
    /// A statement of the key's policy denies it.
    DeniedByStatement,
    /// The caller could not put another policy afterwards.
    LocksOut,
    /// The key is disabled.
    KeyDisabled,
    /// The key is pending deletion.
    KeyPendingDeletion,
    /// The key is a managed key, which does not do what was asked.
    KeyManaged,
    /// The key has no grant of this id.
    GrantMissing,
}

/// A failure: its [kind](Error::kind), a sentence that says what to do, and its cause.
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    advice: Option<Cow<'static, str>>,
    code: Option<&'static str>,
    cause: Option<KeystoreCause>,
    segment: Option<u64>,
    path: Option<PathBuf>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message. For key providers written outside this crate.
    ///
    /// The message should name the key, and must not hold a secret: it ends up in logs.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            advice: None,
            code: None,
            cause: None,
            segment: None,
            path: None,
            source: None,
        }))
    }

    /// The same error, caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error with the KMS's own name for it, as AWS spells it (`AccessDeniedException`).
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    /// The same error with a sentence that says what to do.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// The same error, naming the file or folder that it happened at.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_path_buf());
        self
    }

    /// The same error, naming the segment (counted from 0) that it happened in.
    #[must_use]
    pub(crate) fn with_segment(mut self, index: u64) -> Self {
        self.0.segment = Some(index);
        self
    }

    /// The same error, naming the member of a batch (counted from 0) that it is about.
    #[must_use]
    pub(crate) fn with_member(mut self, index: usize) -> Self {
        self.0.message = format!("number {index} of the batch: {}", self.0.message);
        self
    }

    /// A failure that this one decides, told in another sentence: of the same kind, code and cause, and with this one as
    /// its source.
    #[must_use]
    pub(crate) fn behind(self, message: impl Into<String>) -> Self {
        let inner = Inner { message: message.into(), advice: None, segment: None, path: None, ..(*self.0).clone() };
        Self(Box::new(inner)).with_source(self)
    }

    /// The same failure, for another caller that it concerns.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without any change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// The name that AWS KMS gives this error, where it has one (`DisabledException`).
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        self.0.code
    }

    /// What a failure of the embedded keystore comes from, where that is told.
    ///
    /// ```
    /// use envelock::{Error, KeystoreCause};
    /// // A program that holds a keystore open for long: after a rekey, it opens it again.
    /// fn opens_again(error: &Error) -> bool {
    ///     error.keystore_cause() == Some(KeystoreCause::Rekeyed)
    /// }
    /// # assert!(!opens_again(&Error::new(envelock::ErrorKind::Io, "x")));
    /// ```
    #[must_use]
    pub fn keystore_cause(&self) -> Option<KeystoreCause> {
        self.0.cause
    }

    /// The segment, counted from 0, in which the failure was found.
    #[must_use]
    pub fn segment(&self) -> Option<u64> {
        self.0.segment
    }

    /// The file or folder at which the failure happened.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The structured error inside an [`std::io::Error`] that this crate's readers and writers gave.
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(path) = &inner.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&inner.message)?;
        if let Some(segment) = inner.segment {
            write!(f, " (segment {segment})")?;
        }
        if let Some(advice) = &inner.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

/// The sentence first: this is what a `main` that returns an error prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{self} [{:?}", inner.kind)?;
        if let Some(code) = inner.code {
            write!(f, ", {code}")?;
        }
        f.write_str("]")?;
        match &inner.source {
            Some(source) => write!(f, ", caused by: {source:?}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Wraps the structured error, so that [`Error::from_io`] finds it again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::Truncated => Io::UnexpectedEof,
            ErrorKind::InvalidInput => Io::InvalidInput,
            ErrorKind::Malformed
            | ErrorKind::LimitExceeded
            | ErrorKind::AuthenticationFailed
            | ErrorKind::TrailingData => Io::InvalidData,
            ErrorKind::Unsupported => Io::Unsupported,
            ErrorKind::KeyDenied => Io::PermissionDenied,
            _ => Io::Other,
        };
        Self::new(kind, error)
    }
}

/// The structured error back out of an I/O error, or a new one of kind [`ErrorKind::Io`].
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(other) => Self::io("input or output failed", other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structured_error_survives_a_trip_through_io_error() {
        let error = Error::new(ErrorKind::Truncated, "the input ends early").with_segment(7);
        let io = std::io::Error::from(error);
        assert_eq!(io.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(Error::from_io(&io).and_then(Error::segment), Some(7));
        let back = Error::from(io);
        assert_eq!(back.kind(), ErrorKind::Truncated);
        assert_eq!(back.segment(), Some(7));
    }

    #[test]
    fn a_main_that_returns_an_error_prints_the_sentence_first() {
        let error = Error::new(ErrorKind::KeyState, "the key is disabled").with_code("DisabledException");
        assert_eq!(format!("{error:?}"), "the key is disabled [KeyState, DisabledException]");
        let error = Error::new(ErrorKind::Io, "it cannot be read").with_source(error).with_advice("try again");
        let expected =
            "it cannot be read; try again [Io], caused by: the key is disabled [KeyState, DisabledException]";
        assert_eq!(format!("{error:?}"), expected);
    }

    #[test]
    fn the_sentence_names_path_segment_and_what_to_do() {
        let error = Error::new(ErrorKind::AuthenticationFailed, "the segment is not authentic")
            .with_segment(3)
            .with_path("/data/a.elk")
            .with_advice("restore the file from a backup");
        assert_eq!(
            error.to_string(),
            "/data/a.elk: the segment is not authentic (segment 3); restore the file from a backup"
        );
    }
}
