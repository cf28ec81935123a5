//! Failures of key providers across a network.

use super::{Error, ErrorKind};
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// How far a call came: what its error tells beside the cause.
#[derive(Clone, Debug)]
pub(crate) struct Tried<'a> {
    /// `Decrypt`, `transit/encrypt`.
    pub(crate) operation: &'a str,
    /// A key's name or ARN.
    pub(crate) subject: &'a str,
    /// The address, without anything secret.
    pub(crate) endpoint: &'a str,
    /// How many requests were sent.
    pub(crate) attempts: u32,
    /// How long it took.
    pub(crate) time: Duration,
    /// Why there was no further attempt.
    pub(crate) stopped: Stopped,
}

/// Why a call was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It would fail again.
    Useless,
    /// It was tried as often as it may be.
    Attempts,
    /// The retry budget is used up.
    Budget,
    /// It would not be done in time.
    Time,
    /// The breaker is open.
    Breaker,
}

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.attempts == 1 { "" } else { "s" };
        write!(f, "{} attempt{plural} in {}", self.attempts, Seconds(self.time))?;
        f.write_str(match self.stopped {
            Stopped::Useless | Stopped::Attempts => "",
            Stopped::Budget => ", and the retry budget is used up",
            Stopped::Time => ", and no time for another",
            Stopped::Breaker => ", and it is held back from the endpoint for now",
        })
    }
}

impl Tried<'_> {
    /// `Decrypt for alias/orders`, or what is asked alone where that says what it is about.
    fn call(&self) -> String {
        if self.operation == self.subject {
            return self.operation.to_owned();
        }
        format!("{} for {}", self.operation, self.subject)
    }
}

impl Error {
    /// No answer came: `what` says what kept it.
    pub(crate) fn unanswered(
        tried: &Tried<'_>,
        what: impl fmt::Display,
        advice: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let (call, endpoint) = (tried.call(), tried.endpoint);
        let message = format!("{call} got no answer from {endpoint}: {what} ({tried})");
        Self::new(ErrorKind::Unavailable, message).with_advice(advice).with_source(source)
    }

    /// A request that this program cannot send, so that no other attempt would help.
    pub(crate) fn not_sendable(
        tried: &Tried<'_>,
        what: impl fmt::Display,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let (call, endpoint) = (tried.call(), tried.endpoint);
        let message = format!("{call} cannot be sent to {endpoint}: {what}");
        Self::unsupported(message).with_source(source).with_advice(
            "run it under tokio with its I/O and timers enabled, or use envelock::blocking; if it lacks no runtime, check the address and \
             the credentials",
        )
    }

    /// The answers were failures to the end: the last one's error, with how far it came.
    pub(crate) fn after(mut self, tried: &Tried<'_>) -> Self {
        self.0.message = format!("{} ({tried})", self.0.message);
        self
    }

    /// New credentials were got after `refused`, and the budget forbids a request by them.
    pub(crate) fn not_sent_again(tried: &Tried<'_>, refused: Self) -> Self {
        let (call, endpoint) = (tried.call(), tried.endpoint);
        let message = format!(
            "{call} was refused by {endpoint}, and not sent again with the credentials that were renewed \
             ({tried})"
        );
        Self::new(ErrorKind::Unavailable, message).with_advice("try again: the next call has them").with_source(refused)
    }

    /// The breaker is open: nothing was sent.
    pub(crate) fn held_back(tried: &Tried<'_>, open: Duration, probe: Duration, cause: &str) -> Self {
        let (call, endpoint) = (tried.call(), tried.endpoint);
        let (open, probe) = (Seconds(open), Seconds(probe));
        let message = format!(
            "{call} was not sent to {endpoint}: it has been failing for {open} (last: {cause}), and is tried \
             again in {probe}",
        );
        Self::new(ErrorKind::Unavailable, message)
            .with_advice("see to the KMS or the way there; calls go through again by themselves once one succeeds")
    }

    /// The time for the whole call ran out while nothing was under way that could have failed.
    pub(crate) fn out_of_time(tried: &Tried<'_>, waited_for: &str) -> Self {
        let (call, endpoint) = (tried.call(), tried.endpoint);
        let message = format!("{call} at {endpoint} was not done in time: it waited for {waited_for} ({tried})");
        Self::new(ErrorKind::Unavailable, message)
            .with_advice("try again; if it persists, allow more requests at once or more time (`HttpPolicy`; in a profile, `timeout`)")
    }
}

/// A time as a person reads it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIED: Tried<'static> = Tried {
        operation: "Decrypt",
        subject: "alias/orders",
        endpoint: "https://kms.example",
        attempts: 3,
        time: Duration::from_millis(1234),
        stopped: Stopped::Budget,
    };

    #[test]
    fn the_sentence_names_operation_key_endpoint_attempts_and_what_to_do() {
        let source = std::io::Error::other("x");
        let error = Error::unanswered(&TRIED, "the connection was refused", "check that it runs", source);
        assert_eq!(
            error.to_string(),
            "Decrypt for alias/orders got no answer from https://kms.example: the connection was refused (3 attempts in 1.2 s, and \
             the retry budget is used up); check that it runs"
        );
        assert!(error.is_retryable() && StdError::source(&error).is_some());
        let error = Error::held_back(&TRIED, Duration::from_secs(12), Duration::from_millis(400), "timed out");
        assert_eq!(
            error.to_string(),
            "Decrypt for alias/orders was not sent to https://kms.example: it has been failing for 12.0 s (last: timed out), and is \
             tried again in 0.4 s; see to the KMS or the way there; calls go through again by themselves once one succeeds"
        );
    }

    #[test]
    fn what_is_asked_is_not_said_twice_where_it_is_what_it_is_about() {
        let tried = Tried { operation: "auth/token/lookup-self", subject: "auth/token/lookup-self", ..TRIED };
        let error = Error::held_back(&tried, Duration::from_secs(1), Duration::from_secs(1), "timed out");
        assert!(error.to_string().starts_with("auth/token/lookup-self was not sent to https://kms.example"), "{error}");
    }

    #[test]
    fn an_answers_error_keeps_its_kind_and_says_how_often_it_was_tried() {
        let error = Error::new(ErrorKind::Busy, "sealed").with_code("X").after(&TRIED);
        assert_eq!(error.to_string(), "sealed (3 attempts in 1.2 s, and the retry budget is used up)");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Busy, Some("X")));
    }
}
