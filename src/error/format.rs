//! Failures of bytes: messages, wrapped keys, encryption contexts.

use super::{Error, ErrorKind};

impl Error {
    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, message).with_advice(
            "this is no envelock message, or its header is damaged: check which file this is, or restore it",
        )
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// What a newer version may have written.
    pub(crate) fn unknown(what: impl std::fmt::Display) -> Self {
        Self::unsupported(format!("{what} is unknown here"))
            .with_advice("use a newer envelock, or the header is damaged: then restore the message")
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    pub(crate) fn context_mismatch(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ContextMismatch, message).with_advice(
            "give the encryption context that your application expects: one copied from the message proves nothing",
        )
    }

    /// Every failed authentication is this one error: which check failed is nobody's business.
    pub(crate) fn authentication() -> Self {
        Self::new(ErrorKind::AuthenticationFailed, "the data is not authentic")
            .with_advice("it was changed after it was encrypted; do not use it, restore it from a backup")
    }

    /// The same kind for what is forged as a whole, and by whom can be told.
    pub(crate) fn authentication_of(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AuthenticationFailed, message)
            .with_advice("one of them is forged: do not use either until you know which")
    }

    /// The same kind before any segment, where a wrong passphrase is the likelier cause.
    pub(crate) fn not_opened() -> Self {
        Self::new(ErrorKind::AuthenticationFailed, "none of the keys that were tried opened this message").with_advice(
            "the passphrase or key is not the one that it was encrypted with, the unstored context is another, or its \
             head was changed: try again with the right one",
        )
    }

    pub(crate) fn truncated() -> Self {
        Self::new(ErrorKind::Truncated, "the message ends before its authenticated end")
            .with_advice("the rest is missing: fetch or copy it again")
    }

    pub(crate) fn trailing_data() -> Self {
        Self::new(ErrorKind::TrailingData, "bytes follow the authenticated end of the message")
            .with_advice("something was appended to it: cut it off or fetch the message again")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message).with_advice("this is a fault in envelock: please report it")
    }
}
