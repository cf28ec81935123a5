//! The evaluator.

use super::KeyPolicy;
use super::grant::Grant;
use super::request::AccessRequest;
use super::statement::{Effect, Statement};
use crate::kms::state::KeyOperation;
use std::fmt;
use std::time::Duration;

/// What becomes of a request, and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// A statement of the policy allows it, and none denies it.
    AllowedByStatement(StatementRef),
    /// A grant allows it, no statement does, and none denies it.
    AllowedByGrant {
        /// Of the grants that allow it, the first in the order of their ids.
        grant_id: String,
    },
    /// A statement denies it: nothing else counts.
    DeniedByStatement(StatementRef),
    /// Neither a statement nor a grant allows it.
    DeniedImplicitly,
}

/// A statement of a policy: of those that decide alike, the first in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatementRef {
    /// Its place in the text, from 1.
    pub number: usize,
    /// Its `Sid`, if it has one.
    pub sid: Option<String>,
}

impl Decision {
    /// Whether the request is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::AllowedByStatement(_) | Self::AllowedByGrant { .. })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedByStatement(statement) => write!(f, "allowed by {statement}"),
            Self::AllowedByGrant { grant_id } => write!(f, "allowed by the grant {grant_id}"),
            Self::DeniedByStatement(statement) => write!(f, "denied by {statement}"),
            Self::DeniedImplicitly => {
                f.write_str("denied, since no statement of the key's policy and no grant allows it")
            }
        }
    }
}

impl fmt::Display for StatementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {} of the key's policy", self.number)?;
        match &self.sid {
            Some(sid) => write!(f, " ({sid:?})"),
            None => Ok(()),
        }
    }
}

impl From<&Statement> for StatementRef {
    fn from(statement: &Statement) -> Self {
        Self { number: statement.number, sid: statement.sid.clone() }
    }
}

/// Whether `request` is allowed: a statement that denies it decides before all others; then one that allows it; then a
/// grant; else it is denied (IAM User Guide, "Policy evaluation logic"; AWS KMS Developer Guide, "Grants").
///
/// The order of statements and of grants makes no difference to whether it is allowed. Grants of other keys count for
/// nothing.
#[must_use]
pub fn decide(policy: &KeyPolicy, grants: &[Grant], request: &AccessRequest<'_>) -> Decision {
    let first = |effect| {
        let mut statements = policy.statements.iter().filter(|statement| statement.effect == effect);
        statements.find(|statement| statement.applies_to(request)).map(StatementRef::from)
    };
    if let Some(statement) = first(Effect::Deny) {
        return Decision::DeniedByStatement(statement);
    }
    if let Some(statement) = first(Effect::Allow) {
        return Decision::AllowedByStatement(statement);
    }
    let allowing = grants.iter().filter(|grant| grant.allows(request)).map(|grant| &grant.grant_id).min();
    match allowing {
        Some(grant_id) => Decision::AllowedByGrant { grant_id: grant_id.clone() },
        None => Decision::DeniedImplicitly,
    }
}

/// Whether `principal`, after putting `policy` on `key` (its full name), could not put another one: what AWS refuses
/// unless `BypassPolicyLockoutSafetyCheck` is set. It is asked at `now`, the time since the Unix epoch: a policy that
/// ends on a date locks out then, and passes before.
#[must_use]
pub fn would_lock_out(policy: &KeyPolicy, principal: &str, key: &str, now: Duration) -> bool {
    !decide(policy, &[], &AccessRequest::new(principal, KeyOperation::PutKeyPolicy, key, now)).is_allowed()
}
