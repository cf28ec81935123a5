//! What narrows a grant: the encryption contexts that it is for.

use super::json::Json;
use super::same_name;
use crate::error::{Error, Result};
use crate::kms::key::validation;
use std::collections::BTreeMap;

/// Which encryption contexts a grant is for. With none of both, it is for any.
///
/// As in AWS (API reference, "GrantConstraints"), values are compared by case and keys are not; at most 8 pairs in
/// each, with values of at most 384 characters. A constraint that is given may not be empty, and its keys must differ
/// in more than case: AWS advises against that, and here it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantConstraints {
    equals: Option<Pairs>,
    subset: Option<Pairs>,
}

type Pairs = BTreeMap<String, String>;

impl GrantConstraints {
    /// No constraint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The request's encryption context must be these pairs: `EncryptionContextEquals`.
    #[must_use]
    pub fn encryption_context_equals<K, V>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        self.equals = Some(collected(pairs));
        self
    }

    /// The request's encryption context must hold these pairs: `EncryptionContextSubset`.
    #[must_use]
    pub fn encryption_context_subset<K, V>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        self.subset = Some(collected(pairs));
        self
    }

    /// Whether there is no constraint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.equals.is_none() && self.subset.is_none()
    }

    /// As AWS's JSON, always the same for the same constraints:
    /// `{"EncryptionContextEquals":{…},"EncryptionContextSubset":{…}}`, without what is not given.
    #[must_use]
    pub fn to_json(&self) -> String {
        let named = [(EQUALS, &self.equals), (SUBSET, &self.subset)];
        let object = |pairs: &Pairs| pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let given = named.into_iter().filter_map(|(name, pairs)| Some((name.to_owned(), pairs.as_ref().map(object)?)));
        serde_json::Value::Object(given.map(|(name, pairs)| (name, serde_json::Value::Object(pairs))).collect())
            .to_string()
    }

    /// Reads what [`to_json`](Self::to_json) wrote, or a person.
    ///
    /// # Errors
    /// ValidationException for what is no such JSON, has a member twice, or names another constraint, and for
    /// constraints that no grant may have.
    pub fn from_json(json: &str) -> Result<Self> {
        let Json::Object(members) =
            Json::parse(json).map_err(|error| validation(format!("the grant's constraints are no JSON: {error}")))?
        else {
            return Err(validation("the grant's constraints are no JSON object"));
        };
        let mut constraints = Self::new();
        for (name, pairs) in members {
            let place = match name.as_str() {
                EQUALS => &mut constraints.equals,
                SUBSET => &mut constraints.subset,
                other => {
                    return Err(validation(format!(
                        "the grant constraint {} is not supported: there are {EQUALS} and {SUBSET}",
                        super::shown(other)
                    )));
                }
            };
            *place = Some(text_pairs(pairs, &name)?);
        }
        constraints.check()?;
        Ok(constraints)
    }

    /// Refuses what no grant may have.
    pub(super) fn check(&self) -> Result<()> {
        for (name, pairs) in [(EQUALS, &self.equals), (SUBSET, &self.subset)] {
            let Some(pairs) = pairs else { continue };
            let keys: Vec<_> = pairs.keys().collect();
            let repeated =
                keys.iter().enumerate().any(|(at, key)| keys[..at].iter().any(|other| same_name(key, other)));
            let fault = match () {
                () if pairs.is_empty() => "is empty: leave it out if every encryption context will do",
                () if pairs.len() > PAIRS_MAX => "has more than 8 pairs",
                () if pairs.keys().any(String::is_empty) => "has an empty key",
                () if repeated => "has keys that differ in case alone, and grant constraints do not tell them apart",
                () if pairs.values().any(|value| value.chars().count() > VALUE_MAX) => {
                    "has a value of more than 384 characters"
                }
                () => continue,
            };
            return Err(validation(format!("the grant constraint {name} {fault}")));
        }
        Ok(())
    }

    /// Whether a cryptographic operation with this encryption context is among those that the grant is for.
    pub(super) fn allow(&self, context: &[(&str, &str)]) -> bool {
        // A key that is there in two spellings must have the value in both.
        let holds = |(key, value): (&String, &String)| {
            let mut same = context.iter().filter(|(name, _)| same_name(name, key)).peekable();
            same.peek().is_some() && same.all(|(_, found)| found == value)
        };
        self.equals.as_ref().is_none_or(|pairs| pairs.len() == context.len() && pairs.iter().all(holds))
            && self.subset.as_ref().is_none_or(|pairs| pairs.iter().all(holds))
    }

    /// Whether these constraints let through no encryption context that `parent`'s do not.
    pub(super) fn are_at_least_as_strict_as(&self, parent: &Self) -> bool {
        let equal =
            |pairs: &Pairs| self.equals.as_ref().is_some_and(|own| own.len() == pairs.len() && contains(own, pairs));
        let within = |pairs: &Pairs| [&self.equals, &self.subset].into_iter().flatten().any(|own| contains(own, pairs));
        parent.equals.as_ref().is_none_or(equal) && parent.subset.as_ref().is_none_or(within)
    }

    /// AWS's names of the constraints that there are: `kms:GrantConstraintType`.
    pub(super) fn types(&self) -> impl Iterator<Item = &'static str> {
        [(EQUALS, &self.equals), (SUBSET, &self.subset)]
            .into_iter()
            .filter(|(_, it)| it.is_some())
            .map(|(name, _)| name)
    }

    /// The pairs of both, each once.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let in_equals = |key: &str, value: &str| {
            self.equals.as_ref().and_then(|pairs| pairs.get(key)).is_some_and(|other| other == value)
        };
        let equals = self.equals.iter().flatten();
        let subset = self.subset.iter().flatten().filter(move |(key, value)| !in_equals(key, value));
        equals.chain(subset).map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn collected<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Pairs {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn contains(pairs: &Pairs, others: &Pairs) -> bool {
    others.iter().all(|(key, value)| pairs.iter().any(|(own, found)| same_name(own, key) && found == value))
}

fn text_pairs(json: Json, name: &str) -> Result<Pairs> {
    let wrong = || -> Error { validation(format!("the grant constraint {name} is no object of strings")) };
    let Json::Object(members) = json else { return Err(wrong()) };
    let pair = |(key, value)| match value {
        Json::String(value) => Ok((key, value)),
        _ => Err(wrong()),
    };
    members.into_iter().map(pair).collect()
}

const EQUALS: &str = "EncryptionContextEquals";
const SUBSET: &str = "EncryptionContextSubset";
const PAIRS_MAX: usize = 8;
const VALUE_MAX: usize = 384;
