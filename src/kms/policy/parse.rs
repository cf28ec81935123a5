//! The text of a policy to its statements. Whatever is not known is refused by name.

use super::action::PolicyAction;
use super::condition;
use super::json::Json;
use super::pattern::{Pattern, Version};
use super::statement::{Effect, Principals, Statement};
use super::{malformed, principal_fault, shown};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

type Members = BTreeMap<String, Json>;

/// The statements of a policy, in the order of the text.
pub(super) fn statements(json: &str) -> Result<Vec<Statement>> {
    let json =
        Json::parse(json).map_err(|error| malformed(format!("the key policy is not JSON as it must be: {error}")))?;
    let mut members = object(json, &"the key policy")?;
    only(&members, &["Version", "Id", "Statement"], &"the key policy")?;
    let version = match members.remove("Version") {
        None => Version::V2008,
        Some(version) => match string(version, &"the Version")?.as_str() {
            "2012-10-17" => Version::V2012,
            "2008-10-17" => Version::V2008,
            other => {
                return Err(malformed(format!(
                    "the Version {} is not supported: it is \"2012-10-17\" or \"2008-10-17\"",
                    shown(other)
                )));
            }
        },
    };
    if let Some(id) = members.remove("Id") {
        string(id, &"the Id")?;
    }
    let listed = match members.remove("Statement") {
        Some(Json::List(list)) if !list.is_empty() => list,
        Some(one @ Json::Object(_)) => vec![one],
        Some(Json::List(_)) | None => return Err(malformed("the key policy has no Statement: it needs one at least")),
        Some(other) => {
            return Err(malformed(format!(
                "the Statement is {}, and must be an object or a list of them",
                other.kind()
            )));
        }
    };
    let mut statements = Vec::with_capacity(listed.len());
    let mut sids = BTreeSet::new();
    for (at, json) in listed.into_iter().enumerate() {
        let statement = statement(json, at + 1, version)?;
        if let Some(sid) = &statement.sid
            && !sids.insert(sid.clone())
        {
            return Err(malformed(format!("the Sid {} is there twice: each names one statement", shown(sid))));
        }
        statements.push(statement);
    }
    Ok(statements)
}

/// What an error calls a statement.
struct Place<'a> {
    number: usize,
    sid: Option<&'a str>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {}", self.number)?;
        match self.sid {
            Some(sid) => write!(f, " ({})", shown(sid)),
            None => Ok(()),
        }
    }
}

fn statement(json: Json, number: usize, version: Version) -> Result<Statement> {
    let unnamed = Place { number, sid: None };
    let mut members = object(json, &unnamed)?;
    let sid = match members.remove("Sid") {
        None => None,
        // AWS's console writes an empty one where there is none.
        Some(sid) => Some(string(sid, &format_args!("the Sid of {unnamed}"))?).filter(|sid| !sid.is_empty()),
    };
    let place = Place { number, sid: sid.as_deref() };
    only(&members, &["Effect", "Principal", "NotPrincipal", "Action", "Resource", "Condition"], &place)?;
    let effect = string(required(&mut members, "Effect", &place)?, &format_args!("the Effect of {place}"))?;
    let effect = match effect.as_str() {
        "Allow" => Effect::Allow,
        "Deny" => Effect::Deny,
        other => {
            return Err(malformed(format!("the Effect of {place} is {}: it is \"Allow\" or \"Deny\"", shown(other))));
        }
    };
    let principals = principals(&mut members, &place)?;
    let mut actions = Vec::new();
    for action in strings(required(&mut members, "Action", &place)?, &format_args!("the Action of {place}"))? {
        for named in PolicyAction::named_by(&action, &place)? {
            if !actions.contains(&named) {
                actions.push(named);
            }
        }
    }
    let resources = strings(required(&mut members, "Resource", &place)?, &format_args!("the Resource of {place}"))?
        .iter()
        .map(|text| resource(text, version, &place))
        .collect::<Result<_>>()?;
    let conditions = match members.remove("Condition") {
        None => Vec::new(),
        Some(block) => condition::block(block, version, &format_args!("the Condition of {place}"))?,
    };
    Ok(Statement { number, sid, effect, principals, actions, resources, conditions })
}

fn principals(members: &mut Members, place: &Place<'_>) -> Result<Principals> {
    let (name, json) = match (members.remove("Principal"), members.remove("NotPrincipal")) {
        (Some(json), None) => ("Principal", json),
        (None, Some(json)) => ("NotPrincipal", json),
        (Some(_), Some(_)) => return Err(malformed(format!("{place} has Principal and NotPrincipal: it takes one"))),
        (None, None) => return Err(malformed(format!("{place} has no Principal: who it is about must be said"))),
    };
    let what = format!("the {name} of {place}");
    let names = match json {
        Json::String(all) if all == "*" => vec![all],
        Json::Object(mut kinds) => {
            only(&kinds, &["AWS"], &what)?;
            strings(required(&mut kinds, "AWS", &what)?, &what)?
        }
        Json::String(name) => {
            return Err(malformed(format!("{what} is the string {}: write {{\"AWS\": …}}, or \"*\"", shown(&name))));
        }
        other => {
            return Err(malformed(format!("{what} is {}, and must be {{\"AWS\": …}} or \"*\"", other.kind())));
        }
    };
    let everyone = names.iter().any(|name| name == "*");
    for name in names.iter().filter(|name| *name != "*") {
        if let Some(fault) = principal_fault(name) {
            return Err(malformed(format!(
                "{what} names {}, which {fault}: a principal is a name of 1 to 256 characters, as the application \
                 gives it, or \"*\" for everyone",
                shown(name)
            )));
        }
    }
    match (name, everyone) {
        ("Principal", true) => Ok(Principals::Everyone),
        ("Principal", false) => Ok(Principals::Only(names)),
        (_, true) => Err(malformed(format!("{what} is everyone, so that {place} would apply to nobody"))),
        (_, false) => Ok(Principals::AllBut(names)),
    }
}

/// `*`, or a pattern that a key's full name can match. Another would make a statement that never applies.
fn resource(text: &str, version: Version, place: &Place<'_>) -> Result<Pattern> {
    let pattern = Pattern::parse(text, version)?;
    let prefix = pattern.literal_prefix();
    let possible = match pattern.has_wildcards() {
        true => prefix.starts_with(ARN_START) || ARN_START.starts_with(&prefix),
        false => prefix.starts_with(ARN_START) && prefix.split_once(":key/").is_some_and(|(_, id)| !id.is_empty()),
    };
    if !possible {
        return Err(malformed(format!(
            "the Resource {} of {place} matches no key: it is \"*\", which is the policy's own key, or a key's full name \
             `envelock:<region>:<keystore id>:key/<key id>`, in which wildcards may stand",
            shown(text)
        )));
    }
    Ok(pattern)
}

pub(super) fn object(json: Json, what: &dyn fmt::Display) -> Result<Members> {
    match json {
        Json::Object(members) => Ok(members),
        other => Err(malformed(format!("{what} is {}, and must be an object", other.kind()))),
    }
}

fn string(json: Json, what: &dyn fmt::Display) -> Result<String> {
    match json {
        Json::String(text) => Ok(text),
        other => Err(malformed(format!("{what} is {}, and must be a string", other.kind()))),
    }
}

/// A string, or a list of one at least.
fn strings(json: Json, what: &dyn fmt::Display) -> Result<Vec<String>> {
    listed(json, what)?.into_iter().map(|json| string(json, what)).collect()
}

/// A value, or a list of one at least: an empty one would match nothing, or everything.
pub(super) fn listed(json: Json, what: &dyn fmt::Display) -> Result<Vec<Json>> {
    match json {
        Json::List(list) if list.is_empty() => Err(malformed(format!("{what} is an empty list: it needs one value"))),
        Json::List(list) => Ok(list),
        one => Ok(vec![one]),
    }
}

fn required(members: &mut Members, name: &str, what: &dyn fmt::Display) -> Result<Json> {
    members.remove(name).ok_or_else(|| malformed(format!("{what} has no {name}")))
}

/// Refuses members of other names. AWS's are matched by case.
fn only(members: &Members, known: &[&str], what: &dyn fmt::Display) -> Result<()> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(malformed(format!(
            "the element {} of {what} is not supported: there are {}",
            shown(name),
            known.join(", ")
        ))),
    }
}

const ARN_START: &str = "envelock:";
