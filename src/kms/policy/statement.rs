//! One statement of a policy, and which requests it applies to.

use super::action::PolicyAction;
use super::condition::Condition;
use super::pattern::Pattern;
use super::request::AccessRequest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Principals {
    Everyone,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// From 1, in the order of the text.
    pub(super) number: usize,
    pub(super) sid: Option<String>,
    pub(super) effect: Effect,
    pub(super) principals: Principals,
    pub(super) actions: Vec<PolicyAction>,
    pub(super) resources: Vec<Pattern>,
    pub(super) conditions: Vec<Condition>,
}

impl Statement {
    /// Whether principal, action, resource and every condition match. What the statement then does is its effect.
    pub(super) fn applies_to(&self, request: &AccessRequest<'_>) -> bool {
        self.principals.include(request.principal)
            && self.actions.contains(&request.action)
            && self.resources.iter().any(|pattern| pattern.matches(request.resource))
            && self.conditions.iter().all(|condition| condition.holds(request, self.effect))
    }
}

impl Principals {
    fn include(&self, principal: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(names) => names.iter().any(|name| name == principal),
            Self::AllBut(names) => names.iter().all(|name| name != principal),
        }
    }
}
