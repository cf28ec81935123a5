//! Conditions: an operator, a key, and the values of which one must match.
//!
//! Sources: IAM User Guide, "Condition operators", "Multivalued context keys" and "Conditions with multiple
//! context keys or values"; AWS KMS Developer Guide, "AWS KMS condition keys".

use super::json::Json;
use super::parse::{listed, object};
use super::pattern::{Pattern, Version, literal};
use super::request::AccessRequest;
use super::statement::Effect;
use super::{dates, malformed, same_name, shown};
use crate::error::Result;
use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    over: Over,
    key: Key,
    test: Test,
}

/// How the request's values are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    One,
    AllValues,
    AnyValue,
}

/// What of the request is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// Of the entry of this name, in any case.
    EncryptionContext(String),
    EncryptionContextKeys,
    GranteePrincipal,
    RetiringPrincipal,
    GrantOperations,
    GrantConstraintType,
    BypassPolicyLockoutSafetyCheck,
    CurrentTime,
}

/// What each value of the request is compared with: one of the policy's must match; for `StringNotEquals`, none.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Equals(Vec<String>),
    NotEquals(Vec<String>),
    Like(Vec<Pattern>),
    Bool(Vec<bool>),
    Before(Vec<i128>),
    After(Vec<i128>),
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    /// Nanoseconds since the Unix epoch.
    Time(i128),
}

impl Condition {
    /// Whether the condition is true of the request.
    ///
    /// Without a set operator a key has one value in AWS. Here an encryption context may hold keys that differ in
    /// case alone, and all of them are meant by one condition key. What is allowed then is what all of them allow,
    /// and what is denied is what one of them denies, so that nobody gets past a condition by adding an entry.
    pub(super) fn holds(&self, request: &AccessRequest<'_>, effect: Effect) -> bool {
        let values = self.key.values(request);
        let matches = |value: &Value<'_>| self.test.matches(*value);
        match self.over {
            Over::AllValues => values.iter().all(matches),
            Over::AnyValue => values.iter().any(matches),
            // "If the key that you specify in a policy condition is not present in the request context, the values do
            // not match and the condition is false." Negated, the condition is true.
            Over::One if values.is_empty() => matches!(self.test, Test::NotEquals(_)),
            Over::One => match effect {
                Effect::Allow => values.iter().all(matches),
                Effect::Deny => values.iter().any(matches),
            },
        }
    }
}

impl Test {
    fn matches(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Equals(wanted), Value::Text(text)) => wanted.iter().any(|it| it == text),
            (Self::NotEquals(unwanted), Value::Text(text)) => unwanted.iter().all(|it| it != text),
            (Self::Like(patterns), Value::Text(text)) => patterns.iter().any(|it| it.matches(text)),
            (Self::Bool(wanted), Value::Flag(flag)) => wanted.contains(&flag),
            (Self::Bool(wanted), Value::Text(text)) => truth(text).is_some_and(|flag| wanted.contains(&flag)),
            (Self::Before(dates), Value::Time(time)) => dates.iter().any(|date| time < *date),
            (Self::After(dates), Value::Time(time)) => dates.iter().any(|date| time > *date),
            // Refused when the policy was put.
            _ => false,
        }
    }
}

impl Key {
    fn values<'a>(&self, request: &AccessRequest<'a>) -> Vec<Value<'a>> {
        let texts = |texts: Vec<&'a str>| texts.into_iter().map(Value::Text).collect();
        match self {
            Self::EncryptionContext(name) => {
                let entries = request.context().into_iter().filter(|(key, _)| same_name(key, name));
                texts(entries.map(|(_, value)| value).collect())
            }
            Self::EncryptionContextKeys => texts(request.context().into_iter().map(|(key, _)| key).collect()),
            Self::GranteePrincipal => {
                texts(request.creating.iter().map(|grant| grant.grantee_principal.as_str()).collect())
            }
            Self::RetiringPrincipal => {
                texts(request.creating.iter().filter_map(|grant| grant.retiring_principal.as_deref()).collect())
            }
            Self::GrantOperations => {
                texts(request.creating.iter().flat_map(|grant| grant.operations.iter()).map(|it| it.name()).collect())
            }
            Self::GrantConstraintType => {
                texts(request.creating.iter().flat_map(|grant| grant.constraints.types()).collect())
            }
            Self::BypassPolicyLockoutSafetyCheck => {
                request.bypass_of_lockout_check().into_iter().map(Value::Flag).collect()
            }
            Self::CurrentTime => vec![Value::Time(request.now)],
        }
    }

    fn parse(text: &str, what: &dyn fmt::Display) -> Result<Self> {
        // The prefix is ASCII, so that its length in any case is the same.
        let prefixed = text.get(..CONTEXT_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONTEXT_PREFIX));
        if prefixed && text.len() > CONTEXT_PREFIX.len() {
            return Ok(Self::EncryptionContext(text[CONTEXT_PREFIX.len()..].to_owned()));
        }
        KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, key)| key.clone()).ok_or_else(|| {
            malformed(format!(
                "{what} has the condition key {}, which is not supported: there are {CONTEXT_PREFIX}<context key>, {}",
                shown(text),
                KEYS.map(|(name, _)| name).join(", ")
            ))
        })
    }

    /// Whether a request may have several values of it.
    fn is_multivalued(&self) -> bool {
        matches!(self, Self::EncryptionContextKeys | Self::GrantOperations)
    }

    fn takes(&self, test: &Test) -> bool {
        match test {
            Test::Equals(_) | Test::NotEquals(_) | Test::Like(_) => {
                !matches!(self, Self::CurrentTime | Self::BypassPolicyLockoutSafetyCheck)
            }
            Test::Bool(_) => matches!(self, Self::EncryptionContext(_) | Self::BypassPolicyLockoutSafetyCheck),
            Test::Before(_) | Test::After(_) => *self == Self::CurrentTime,
        }
    }
}

/// A `Condition`: operators, each with its keys, each with its values. All of them must hold.
pub(super) fn block(json: Json, version: Version, what: &dyn fmt::Display) -> Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    for (operator, keys) in object(json, what)? {
        let keys = object(keys, &format_args!("{} in {what}", shown(&operator)))?;
        if keys.is_empty() {
            return Err(malformed(format!("{what} has the operator {} with no condition key", shown(&operator))));
        }
        for (name, values) in keys {
            conditions.push(condition(&operator, &name, values, version, what)?);
        }
    }
    match conditions.is_empty() {
        true => Err(malformed(format!("{what} is empty: leave it out if there is no condition"))),
        false => Ok(conditions),
    }
}

fn condition(operator: &str, name: &str, values: Json, version: Version, what: &dyn fmt::Display) -> Result<Condition> {
    let (over, bare) = match operator.split_once(':') {
        Some(("ForAllValues", bare)) => (Over::AllValues, bare),
        Some(("ForAnyValue", bare)) => (Over::AnyValue, bare),
        _ => (Over::One, operator),
    };
    let values = listed(values, &format_args!("the value of {} in {what}", shown(name)))?;
    let texts = || values.iter().map(|value| text(value, name, what));
    let dates = || values.iter().map(|value| date(value, what)).collect::<Result<_>>();
    let test = match bare {
        "StringEquals" => Test::Equals(texts().map(|text| literal(text?, version)).collect::<Result<_>>()?),
        "StringNotEquals" => Test::NotEquals(texts().map(|text| literal(text?, version)).collect::<Result<_>>()?),
        "StringLike" => Test::Like(texts().map(|text| Pattern::parse(text?, version)).collect::<Result<_>>()?),
        "Bool" => Test::Bool(values.iter().map(|value| flag(value, what)).collect::<Result<_>>()?),
        "DateLessThan" => Test::Before(dates()?),
        "DateGreaterThan" => Test::After(dates()?),
        _ => {
            return Err(malformed(format!(
                "{what} has the operator {}, which is not supported: there are StringEquals, StringNotEquals, StringLike, \
                 Bool, DateLessThan, DateGreaterThan, each also after `ForAllValues:` or `ForAnyValue:`",
                shown(operator)
            )));
        }
    };
    let key = Key::parse(name, what)?;
    if !key.takes(&test) {
        return Err(malformed(format!("{what} compares {} by {bare}, which is not for what it holds", shown(name))));
    }
    if key.is_multivalued() && over == Over::One {
        return Err(malformed(format!(
            "{what} compares {}, of which a request has several values, by {bare} alone: write `ForAllValues:{bare}` or \
             `ForAnyValue:{bare}`",
            shown(name)
        )));
    }
    Ok(Condition { over, key, test })
}

fn text<'a>(value: &'a Json, name: &str, what: &dyn fmt::Display) -> Result<&'a str> {
    match value {
        Json::String(text) => Ok(text),
        other => Err(malformed(format!(
            "{what} compares {} with {}: write it as a string, in quotes",
            shown(name),
            other.kind()
        ))),
    }
}

fn flag(value: &Json, what: &dyn fmt::Display) -> Result<bool> {
    match value {
        Json::Bool(flag) => Some(*flag),
        Json::String(text) => truth(text),
        _ => None,
    }
    .ok_or_else(|| malformed(format!("{what} has a Bool that is neither true nor false")))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn date(value: &Json, what: &dyn fmt::Display) -> Result<i128> {
    match value {
        Json::String(text) => dates::parse(text),
        Json::Integer(seconds) => dates::parse(&seconds.to_string()),
        _ => None,
    }
    .ok_or_else(|| {
        malformed(format!(
            "{what} has a date that cannot be read: write `2026-01-31`, `2026-01-31T12:00:00Z`, with `Z` or an offset, \
             or seconds since 1970"
        ))
    })
}

const CONTEXT_PREFIX: &str = "kms:EncryptionContext:";
const KEYS: [(&str, Key); 8] = [
    ("kms:EncryptionContextKeys", Key::EncryptionContextKeys),
    ("kms:GranteePrincipal", Key::GranteePrincipal),
    ("kms:RetiringPrincipal", Key::RetiringPrincipal),
    ("kms:GrantOperations", Key::GrantOperations),
    ("kms:GrantConstraintType", Key::GrantConstraintType),
    ("kms:BypassPolicyLockoutSafetyCheck", Key::BypassPolicyLockoutSafetyCheck),
    ("aws:CurrentTime", Key::CurrentTime),
    ("aws:EpochTime", Key::CurrentTime),
];
