//! Failures of key providers and of the system's randomness.

use super::{Error, ErrorKind};

impl Error {
    pub(crate) fn no_matching_key(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NoMatchingKey, message).with_advice("configure a provider that holds one of these keys")
    }

    pub(crate) fn message_forked() -> Self {
        Self::new(ErrorKind::InvalidInput, "this message was begun before a fork, by another process")
            .with_advice("make a new encryptor or writer in this process; only the one that began the message ends it")
    }

    pub(crate) fn random(source: getrandom::Error) -> Self {
        Self::new(ErrorKind::RandomFailed, "the operating system gave no random bytes")
            .with_source(source)
            .with_advice("nothing was encrypted; try again, and check the system if it persists")
    }
}
