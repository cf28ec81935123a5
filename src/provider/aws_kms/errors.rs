//! What AWS KMS's errors mean, and what is to be done about each.
//!
//! An error is known by its code, which is in the header `X-Amzn-ErrorType`, in the body's `__type`, or in both, with or
//! without a namespace before it and an address behind it; the status decides only where the code is unknown. Nothing that
//! the server writes is repeated, as it may repeat the request: of its sentence only known words are recognised.

use super::wire::{Flaw, Operation};
use crate::error::{Error, ErrorKind};
use crate::provider::http::exchange::Verdict;
use http::{HeaderMap, StatusCode};
use reqsign_core::time::Timestamp;
use serde::Deserialize;

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// No other attempt mends it.
    Final,
    /// The same, for every caller of the key: its data keys that were cached before are not to be used any more.
    Revoked,
    /// The same, since this machine's clock is off.
    Clock,
    /// The endpoint is not well.
    Unwell,
    /// It was asked too often, or the key is busy with something that passes.
    Throttled,
    /// Other credentials may help.
    Renew,
}

/// A code of AWS's, and what it comes to here.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) code: &'static str,
    pub(super) class: Class,
    pub(super) kind: ErrorKind,
    says: &'static str,
    advice: &'static str,
}

/// What an answer that is an error comes to.
pub(super) fn judge<T>(
    operation: Operation,
    subject: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Verdict<T> {
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let sentence = said.message.as_deref().or(said.capital.as_deref()).unwrap_or_default();
    let name = operation.name();
    let codes = || [header, said.kind.as_deref(), said.code.as_deref()].into_iter().flatten().map(bare);
    let Some(known) = codes().find_map(known) else {
        return unknown(name, subject, status, codes().find(is_code));
    };
    let known = seen_through(known, sentence);
    let mut what = known.says.to_owned();
    if known.class == Class::Clock {
        what.push_str(&clock_difference(headers));
    }
    // A code may say it all.
    let has_states = known.kind == ErrorKind::KeyState && known.code != "DisabledException";
    if let Some(state) = STATES.iter().find(|(words, _)| has_states && contains(sentence, words)) {
        what = format!("{what} ({})", state.1);
    }
    if let (ErrorKind::KeyDenied, Some(why)) = (known.kind, DENIALS.iter().find(|words| contains(sentence, words))) {
        what = format!("{what} ({why})");
    }
    let error = Error::new(known.kind, format!("{name} for {subject} failed: {what}"))
        .with_code(known.code)
        .with_advice(known.advice);
    match known.class {
        Class::Final | Class::Revoked | Class::Clock => Verdict::Fail(error),
        Class::Unwell => Verdict::Unwell(error),
        Class::Throttled => Verdict::Throttled { error, after: None },
        Class::Renew => Verdict::Renew(error),
    }
}

/// What an answer of status 200 that is not taken comes to.
pub(super) fn refused<T>(operation: Operation, subject: &str, flaw: &Flaw) -> Verdict<T> {
    let name = operation.name();
    match flaw {
        Flaw::Garbage => Verdict::Unwell(
            Error::new(ErrorKind::Unavailable, format!("{name} for {subject} was answered with no answer of AWS KMS"))
                .with_advice("check the address of the KMS, and whether a proxy answers in its place; then try again"),
        ),
        Flaw::Unfit => Verdict::Fail(
            Error::invalid_input(format!("{subject} is no symmetric key for encryption, and wraps no data keys"))
                .with_code("InvalidKeyUsageException")
                .with_advice("use a symmetric key with the usage ENCRYPT_DECRYPT"),
        ),
        Flaw::Lie(what) => Verdict::Fail(
            Error::new(ErrorKind::AuthenticationFailed, format!("{name} for {subject} was answered wrongly: {what}"))
                .with_advice(
                    "nothing of the answer was used: find out who answers at this address before you trust it again",
                ),
        ),
    }
}

/// Whether the key is not to be used by anybody any more. What one caller may not do, by its context or its identity, says
/// nothing about the others' data keys.
pub(super) fn revokes(error: &Error) -> bool {
    !error.is_retryable() && error.code().and_then(known).is_some_and(|known| known.class == Class::Revoked)
}

/// An error's body, as far as it is read. What is not text counts as missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "__type")]
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
    #[serde(rename = "Message")]
    capital: Option<String>,
}

/// The code without `com.amazonaws.kms#` before it or `:http://…` behind it.
fn bare(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit_once('#').map_or(code, |(_, code)| code).trim()
}

/// Whether it has the form of one.
fn is_code(code: &&str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn known(code: &str) -> Option<&'static Known> {
    let same = |known: &&Known| {
        known.code == code || known.code.strip_suffix("Exception") == Some(code) || OTHERS.contains(&(code, known.code))
    };
    KNOWN.iter().find(same)
}

/// A code that means one thing or another by what its sentence says.
fn seen_through(known: &'static Known, sentence: &str) -> &'static Known {
    let by_clock = ["Signature expired", "Signature not yet current"].iter().any(|words| contains(sentence, words));
    match known.code {
        "InvalidSignatureException" if by_clock => &EXPIRED_SIGNATURE,
        "KMSInvalidStateException" if PASSING.iter().any(|words| contains(sentence, words)) => &PASSING_STATE,
        _ => known,
    }
}

fn contains(sentence: &str, words: &str) -> bool {
    sentence.to_ascii_lowercase().contains(&words.to_ascii_lowercase())
}

/// An error whose code nobody here has heard of: the status decides.
fn unknown<T>(name: &str, subject: &str, status: StatusCode, code: Option<&str>) -> Verdict<T> {
    let what = match code {
        Some(code) => format!("{name} for {subject} failed: {code}, status {}", status.as_u16()),
        None => format!("{name} for {subject} failed with status {}", status.as_u16()),
    };
    let error = |kind: ErrorKind, advice: &'static str| Error::new(kind, what.clone()).with_advice(advice);
    match status.as_u16() {
        429 => Verdict::Throttled {
            error: error(ErrorKind::Unavailable, "try again later, or cache data keys"),
            after: None,
        },
        500.. => Verdict::Unwell(error(ErrorKind::Unavailable, "try again in a moment")),
        300..=399 => Verdict::Fail(error(
            ErrorKind::Unavailable,
            "a KMS does not send its callers elsewhere: check its address, and whether a proxy answers in its place",
        )),
        401 | 403 => Verdict::Fail(error(ErrorKind::KeyDenied, "check the identity that calls, and what it may do")),
        _ if code.is_none() => Verdict::Unwell(error(
            ErrorKind::Unavailable,
            "this is no answer of AWS KMS: check its address, and whether a proxy answers in its place",
        )),
        _ => Verdict::Fail(error(ErrorKind::InvalidInput, "look the code up in AWS's documentation of this operation")),
    }
}

/// By how much this machine's clock differs from the answer's `Date`, in words.
fn clock_difference(headers: &HeaderMap) -> String {
    let date = headers.get(http::header::DATE).and_then(|value| value.to_str().ok());
    let Some(theirs) = date.and_then(|date| Timestamp::parse_rfc2822(date).ok()) else { return String::new() };
    let seconds = Timestamp::now().as_second().saturating_sub(theirs.as_second());
    let way = if seconds < 0 { "behind" } else { "ahead" };
    match seconds.unsigned_abs() {
        0..=119 => format!("; by the answer's date it is {} s {way}", seconds.unsigned_abs()),
        more => format!("; by the answer's date it is {} minutes {way}", more / 60),
    }
}

/// Other spellings: what AWS's common errors are called by services with another protocol, and by emulators.
const OTHERS: &[(&str, &str)] = &[
    ("InvalidClientTokenId", "UnrecognizedClientException"),
    ("SignatureDoesNotMatch", "InvalidSignatureException"),
    ("RequestTimeTooSkewed", "RequestExpired"),
    ("ValidationError", "ValidationException"),
    ("NotAuthorized", "AccessDeniedException"),
    ("TooManyRequestsException", "ThrottlingException"),
    ("RequestLimitExceeded", "ThrottlingException"),
    ("RequestThrottled", "ThrottlingException"),
    ("RequestThrottledException", "ThrottlingException"),
    ("InternalServerError", "InternalFailure"),
];

/// Words of a sentence about a key's state, and ours for them.
const STATES: &[(&str, &str)] = &[
    ("pending replica deletion", "it waits for its replicas to be deleted"),
    ("pending deletion", "it is pending deletion"),
    ("pending import", "its material is not imported"),
    ("creating", "it is being made"),
    ("unavailable", "its key store is not connected"),
    ("disabled", "it is disabled"),
];

/// States that pass by themselves.
const PASSING: &[&str] = &["creating", "unavailable", "updating"];

/// Words of a sentence about a refusal, which are worth repeating.
const DENIALS: &[&str] = &[
    "with an explicit deny in an identity-based policy",
    "with an explicit deny in a resource-based policy",
    "with an explicit deny in a service control policy",
    "with an explicit deny in a permissions boundary",
    "with an explicit deny in a VPC endpoint policy",
    "no identity-based policy allows",
    "no resource-based policy allows",
    "no permissions boundary allows",
    "no session policy allows",
    "no VPC endpoint policy allows",
    "the resource does not exist in this Region",
];

const EXPIRED_SIGNATURE: Known = Known {
    code: "InvalidSignatureException",
    class: Class::Clock,
    kind: ErrorKind::KeyDenied,
    says: CLOCK,
    advice: SET_CLOCK,
};

const PASSING_STATE: Known = Known {
    code: "KMSInvalidStateException",
    class: Class::Throttled,
    kind: ErrorKind::Unavailable,
    says: "the key is in a state that passes",
    advice: "try again in a few minutes; a custom key store may have to be connected",
};

const CLOCK: &str = "the time of the request is refused, so this machine's clock is off";
const SET_CLOCK: &str = "set the clock (by NTP, for one), then try again";
const ACCESS: &str = "the identity that calls is not allowed this, by IAM, the key's policy or a grant";

/// After the errors of AWS KMS's service model and AWS's common errors; `ThrottlingException` and `AccessDeniedException`
/// are in neither, and come all the same.
#[rustfmt::skip]
pub(super) const KNOWN: &[Known] = &[
    Known { code: "ThrottlingException", class: Class::Throttled, kind: ErrorKind::Unavailable,
        says: "more requests than the account's quota in this Region",
        advice: "try again later, cache data keys (`EnvelopeBuilder::cache`; in a profile, `cache`), or have the quota raised" },
    Known { code: "LimitExceededException", class: Class::Final, kind: ErrorKind::LimitExceeded,
        says: "a quota of resources is used up",
        advice: "delete what is not needed, or have the quota raised" },
    Known { code: "DependencyTimeoutException", class: Class::Unwell, kind: ErrorKind::Unavailable,
        says: "the KMS waited for another part of AWS in vain",
        advice: "try again in a moment" },
    Known { code: "KMSInternalException", class: Class::Unwell, kind: ErrorKind::Unavailable,
        says: "the KMS failed inside",
        advice: "try again in a moment" },
    Known { code: "KeyUnavailableException", class: Class::Unwell, kind: ErrorKind::Unavailable,
        says: "the key is not available now",
        advice: "try again in a moment, or let another key open it as well" },
    Known { code: "KMSInvalidStateException", class: Class::Revoked, kind: ErrorKind::KeyState,
        says: "the key is in a state that forbids this",
        advice: "look at its state (`aws kms describe-key`): cancel its deletion, import its material, or use another key" },
    Known { code: "DisabledException", class: Class::Revoked, kind: ErrorKind::KeyState,
        says: "the key is disabled",
        advice: "enable it (`aws kms enable-key`), or use another key" },
    Known { code: "NotFoundException", class: Class::Revoked, kind: ErrorKind::NoMatchingKey,
        says: "there is no such key or alias in this account and Region",
        advice: "check the ARN, the Region and the account; a key of another account is named by its ARN" },
    Known { code: "AccessDeniedException", class: Class::Final, kind: ErrorKind::KeyDenied,
        says: ACCESS,
        advice: "allow it in the IAM policy or the key's policy (docs/aws-kms.md lists what is needed); a new grant works \
                 at once with its grant token" },
    Known { code: "InvalidCiphertextException", class: Class::Final, kind: ErrorKind::AuthenticationFailed,
        says: "the encrypted data key is damaged, or was made with another encryption context",
        advice: "give the encryption context that it was made with, or restore the message from a backup" },
    Known { code: "IncorrectKeyException", class: Class::Final, kind: ErrorKind::AuthenticationFailed,
        says: "the encrypted data key was not made under the key that its slot names",
        advice: "the slot was changed, or swapped for another: restore the message from a backup" },
    Known { code: "InvalidKeyUsageException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "the key is not one for encryption",
        advice: "use a symmetric key with the usage ENCRYPT_DECRYPT" },
    Known { code: "InvalidGrantTokenException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "a grant token is not valid",
        advice: "give the token that CreateGrant answered with, whole" },
    Known { code: "InvalidArnException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "the key's ARN is not valid",
        advice: "give the ARN that `aws kms describe-key` shows" },
    Known { code: "UnsupportedOperationException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "the key does not do this",
        advice: "use a symmetric key for encryption" },
    Known { code: "DryRunOperationException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "it was a dry run, which would have succeeded",
        advice: "something between here and the KMS asks for dry runs: take it out" },
    Known { code: "ExpiredTokenException", class: Class::Renew, kind: ErrorKind::KeyDenied,
        says: "the credentials have expired",
        advice: "renew them where they come from (`aws sso login`, a new session), or let envelock find them itself" },
    Known { code: "UnrecognizedClientException", class: Class::Renew, kind: ErrorKind::KeyDenied,
        says: "AWS does not know the access key, or the session token does not belong to it",
        advice: "check the access key id and AWS_SESSION_TOKEN, and that they are of this partition of AWS" },
    Known { code: "InvalidSignatureException", class: Class::Renew, kind: ErrorKind::KeyDenied,
        says: "the signature is wrong, so the secret access key is not that of the access key id",
        advice: "check the secret access key, and whether something on the way changes requests" },
    Known { code: "IncompleteSignature", class: Class::Final, kind: ErrorKind::KeyDenied,
        says: "the signature did not arrive whole",
        advice: "look for a proxy that changes or removes the header Authorization" },
    Known { code: "MissingAuthenticationToken", class: Class::Final, kind: ErrorKind::KeyDenied,
        says: "the signature did not arrive",
        advice: "look for a proxy that removes the header Authorization" },
    Known { code: "RequestExpired", class: Class::Clock, kind: ErrorKind::KeyDenied, says: CLOCK, advice: SET_CLOCK },
    Known { code: "OptInRequired", class: Class::Final, kind: ErrorKind::KeyDenied,
        says: "the account is not signed up for this Region or service",
        advice: "enable the Region for the account, or use a key in another" },
    Known { code: "ServiceUnavailable", class: Class::Unwell, kind: ErrorKind::Unavailable,
        says: "the KMS is not available now",
        advice: "try again in a moment" },
    Known { code: "InternalFailure", class: Class::Unwell, kind: ErrorKind::Unavailable,
        says: "the KMS failed inside",
        advice: "try again in a moment" },
    Known { code: "ValidationException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "the request is not valid to the KMS",
        advice: "check the key's name, and that the encryption context has no empty names or values too long for AWS" },
    Known { code: "SerializationException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "the request could not be read by the KMS",
        advice: "check the address of the KMS, and look for a proxy that changes requests" },
    Known { code: "UnknownOperationException", class: Class::Final, kind: ErrorKind::InvalidInput,
        says: "what answers does not know this operation",
        advice: "check the address: it is not that of AWS KMS" },
];
