//! Key policies and grants. The outcomes in the tables are written from AWS's documentation (IAM User Guide:
//! "Policy evaluation logic", "Condition operators", "Conditions with multiple context keys or values", "Multivalued
//! context keys"; AWS KMS Developer Guide: "Condition keys", "Grants"), not from the code.

mod conditions;
mod grants;
mod properties;
mod refusals;
mod statements;

use crate::support::say;
use envelock::kms::{AccessRequest, Decision, Grant, KeyPolicy, PolicyAction, decide};
use std::collections::BTreeSet;
use std::time::Duration;

const KEY_ID: &str = "0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab";
const KEY: &str = "envelock:eu-west-1:7f7f3f1c-6a3c-4a55-8f0e-3f2b5a1f0c11:key/0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab";
/// 2026-07-01T12:00:00Z
const NOON: Duration = Duration::from_secs(1_782_907_200);

/// What decides, as the tables write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// By the statement of this number.
    Allowed(usize),
    Granted(&'static str),
    Denied(usize),
    Nothing,
}

fn outcome(policy: &KeyPolicy, grants: &[Grant], request: &AccessRequest<'_>) -> Outcome {
    match decide(policy, grants, request) {
        Decision::AllowedByStatement(statement) => Outcome::Allowed(statement.number),
        Decision::DeniedByStatement(statement) => Outcome::Denied(statement.number),
        Decision::DeniedImplicitly => Outcome::Nothing,
        Decision::AllowedByGrant { grant_id } => {
            let grant = grants.iter().position(|grant| grant.grant_id == grant_id).expect("one of the grants");
            Outcome::Granted(["grant-0", "grant-1", "grant-2"][grant])
        }
        other => panic!("a new decision: {other:?}"),
    }
}

/// A policy of these statements.
fn policy(statements: &[String]) -> KeyPolicy {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{}]}}"#, statements.join(","));
    KeyPolicy::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A statement about every key, in which `who` and `action` are JSON.
fn statement(effect: &str, who: &str, action: &str) -> String {
    format!(r#"{{"Effect": "{effect}", {who}, "Action": {action}, "Resource": "*"}}"#)
}

fn ask<'a>(principal: &'a str, action: impl Into<PolicyAction>) -> AccessRequest<'a> {
    AccessRequest::new(principal, action, KEY, NOON)
}

/// That a table's cases have names of their own, and how many there are.
fn counted<'a>(table: &str, names: impl IntoIterator<Item = &'a str>) -> usize {
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name), "two cases of {table} are called {name:?}");
    }
    seen.len()
}

#[test]
fn there_are_at_least_150_cases_with_outcomes_of_awss_rules() {
    let tables = [
        ("statements", counted("statements", statements::cases().iter().map(|case| case.name))),
        ("conditions", counted("conditions", conditions::cases().iter().map(|case| case.name))),
        ("grants", counted("grants", grants::cases().iter().map(|case| case.name))),
        ("refusals", counted("refusals", refusals::cases().iter().map(|case| case.0))),
    ];
    let decided: usize = tables[..3].iter().map(|(_, count)| count).sum();
    say(format_args!("{decided} cases of decisions, and {} of policies that are refused", tables[3].1));
    assert!(decided >= 150, "{tables:?}");
}
