//! What holds of every policy: a Deny wins, order does not matter, another Deny never allows more, and the evaluator
//! takes whatever it is given.

use super::{KEY, KEY_ID, NOON, outcome, policy};
use envelock::kms::{
    AccessRequest, CreateGrantRequest, Decision, Grant, GrantConstraints, GrantOperation, KeyPolicy, PolicyAction,
    decide,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

const CASES: u32 = 2_000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

fn principal() -> impl Strategy<Value = Value> {
    let named = vec(select(&["alice", "bob", "carol"][..]), 1..3);
    (0..4, named).prop_map(|(kind, names)| match kind {
        0 => json!({"Principal": "*"}),
        1 => json!({"NotPrincipal": {"AWS": names}}),
        _ => json!({"Principal": {"AWS": names}}),
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let set = select(&["", "ForAllValues:", "ForAnyValue:"][..]);
    let operator = select(&["StringEquals", "StringNotEquals", "StringLike"][..]);
    let key = select(
        &[
            "kms:EncryptionContext:tenant",
            "kms:EncryptionContext:Colour",
            "kms:EncryptionContextKeys",
            "kms:GranteePrincipal",
        ][..],
    );
    let values = vec(select(&["acme", "blue", "tenant", "a*", "*", "b?ue", "bob", ""][..]), 1..3);
    let text = (set, operator, key, values).prop_map(|(set, operator, key, values)| {
        let set = if key == "kms:EncryptionContextKeys" && set.is_empty() { "ForAnyValue:" } else { set };
        json!({format!("{set}{operator}"): {key: values}})
    });
    let date = (select(&["DateLessThan", "DateGreaterThan"][..]), select(&["2026-06-01", "2026-08-01"][..]))
        .prop_map(|(operator, date)| json!({operator: {"aws:CurrentTime": date}}));
    prop_oneof![3 => text, 1 => date]
}

fn statement(effect: &'static [&'static str]) -> impl Strategy<Value = String> {
    let actions =
        vec(select(&["kms:Decrypt", "kms:*", "kms:ReEncrypt*", "kms:CreateGrant", "kms:?ncrypt", "kms:Re*"][..]), 1..3);
    let resource = select(&["*", KEY, "envelock:*:key/0*", "envelock:eu-west-2:*"][..]);
    (select(effect), principal(), actions, resource, proptest::option::of(condition())).prop_map(
        |(effect, principal, actions, resource, condition)| {
            let mut statement = principal;
            statement["Effect"] = effect.into();
            statement["Action"] = json!(actions);
            statement["Resource"] = resource.into();
            if let Some(condition) = condition {
                statement["Condition"] = condition;
            }
            statement.to_string()
        },
    )
}

fn statements() -> impl Strategy<Value = Vec<String>> {
    vec(statement(&["Allow", "Allow", "Deny"]), 1..6)
}

/// A grant, and what is asked, as owned values.
#[derive(Clone, Debug)]
struct Asked {
    principal: &'static str,
    action: PolicyAction,
    context: Vec<(&'static str, &'static str)>,
    child: CreateGrantRequest,
}

impl Asked {
    fn request(&self) -> AccessRequest<'_> {
        AccessRequest::new(self.principal, self.action, KEY, NOON)
            .encryption_context(self.context.iter().copied())
            .creating(&self.child)
    }
}

fn entries() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    subsequence(&[("colour", "blue"), ("tenant", "acme"), ("tenant2", "other"), ("TENANT", "other")][..], 0..=4)
}

fn draft() -> impl Strategy<Value = CreateGrantRequest> {
    let operations = subsequence(&GrantOperation::ALL[..], 1..=9);
    let pairs = || proptest::option::of(subsequence(&[("colour", "blue"), ("tenant", "acme")][..], 1..=2));
    (select(&["alice", "bob", "carol"][..]), operations, pairs(), pairs()).prop_map(
        |(who, operations, equals, subset)| {
            let mut constraints = GrantConstraints::new();
            if let Some(pairs) = equals {
                constraints = constraints.encryption_context_equals(pairs);
            }
            if let Some(pairs) = subset {
                constraints = constraints.encryption_context_subset(pairs);
            }
            let operations: envelock::kms::GrantOperations = operations.into_iter().collect();
            CreateGrantRequest::new(who, operations).constraints(constraints)
        },
    )
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    vec(draft(), 0..3).prop_map(|drafts| {
        let made = |(at, draft): (usize, &CreateGrantRequest)| {
            draft.to_grant(format!("grant-{at}"), KEY_ID, "token", UNIX_EPOCH).expect("a good grant")
        };
        drafts.iter().enumerate().map(made).collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let actions: Vec<_> = PolicyAction::all().collect();
    // The few that grants and most statements speak of, as often as all others.
    let usual = GrantOperation::ALL.map(|it| PolicyAction::from(it.operation())).to_vec();
    (select(&["alice", "bob", "carol"][..]), prop_oneof![select(actions), select(usual)], entries(), draft())
        .prop_map(|(principal, action, context, child)| Asked { principal, action, context, child })
}

/// JSON that looks like a policy in places.
fn arbitrary_json() -> impl Strategy<Value = String> {
    let word = select(
        &[
            "Version",
            "2012-10-17",
            "Statement",
            "Effect",
            "Allow",
            "Deny",
            "Principal",
            "NotPrincipal",
            "AWS",
            "*",
            "alice",
            "Action",
            "kms:*",
            "Resource",
            "Condition",
            "StringLike",
            "kms:EncryptionContext:tenant",
            "Bool",
            "DateLessThan",
            "aws:CurrentTime",
            "2026-07-01",
            "ForAllValues:StringEquals",
            "kms:EncryptionContextKeys",
            "${*}",
            "${",
        ][..],
    );
    let leaf = prop_oneof![
        4 => word.clone().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    let tree = leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((word.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    });
    tree.prop_map(|tree| tree.to_string())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_deny_that_applies_always_wins(
        mut statements in statements(), deny in statement(&["Deny"]), at in any::<prop::sample::Index>(),
        grants in grants(), asked in asked(),
    ) {
        let alone = decide(&policy(std::slice::from_ref(&deny)), &[], &asked.request());
        let at = at.index(statements.len() + 1);
        statements.insert(at, deny);
        let decision = decide(&policy(&statements), &grants, &asked.request());
        if matches!(alone, Decision::DeniedByStatement(_)) {
            prop_assert!(matches!(decision, Decision::DeniedByStatement(_)), "{decision}");
        }
    }

    #[test]
    fn the_order_of_statements_and_grants_does_not_matter(
        (statements, shuffled) in statements().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
        (grants, mixed) in grants().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
        asked in asked(),
    ) {
        let one = decide(&policy(&statements), &grants, &asked.request());
        let other = decide(&policy(&shuffled), &mixed, &asked.request());
        prop_assert_eq!(std::mem::discriminant(&one), std::mem::discriminant(&other), "{} and {}", one, other);
        if matches!(one, Decision::AllowedByGrant { .. }) {
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn another_deny_never_allows_more_and_another_allow_never_less(
        statements in statements(), more in statement(&["Allow", "Deny"]), grants in grants(), asked in asked(),
    ) {
        let denies = more.contains(r#""Deny""#);
        let with = [&statements[..], std::slice::from_ref(&more)].concat();
        let before = decide(&policy(&statements), &grants, &asked.request());
        let after = decide(&policy(&with), &grants, &asked.request());
        prop_assert!(!denies || before.is_allowed() || !after.is_allowed(), "a Deny allows: {more}");
        prop_assert!(denies || !before.is_allowed() || after.is_allowed(), "an Allow denies: {more}");
    }

    #[test]
    fn grants_only_ever_allow_more(statements in statements(), grants in grants(), asked in asked()) {
        let without = decide(&policy(&statements), &[], &asked.request());
        let with = decide(&policy(&statements), &grants, &asked.request());
        match without {
            Decision::DeniedImplicitly => prop_assert!(!matches!(with, Decision::DeniedByStatement(_))),
            decided => prop_assert_eq!(with, decided),
        }
    }

    /// Whoever may grant something on by a grant may do nothing by the new grant that the old one does not allow.
    #[test]
    fn what_is_granted_on_is_never_wider(parent in draft(), child in draft(), asked in asked()) {
        let nothing = policy(&[r#"{"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "*", "Resource": "*"}"#.to_owned()]);
        let make = |id: &str, draft: &CreateGrantRequest| draft.to_grant(id, KEY_ID, "token", UNIX_EPOCH).expect("a good grant");
        // The same grantee, so that only what is granted differs.
        let parent = make("grant-0", &parent);
        let who = parent.grantee_principal.clone();
        let granting = AccessRequest::new(&who, envelock::kms::KeyOperation::CreateGrant, KEY, NOON).creating(&child);
        if decide(&nothing, std::slice::from_ref(&parent), &granting).is_allowed() {
            let mut child = make("grant-1", &child);
            child.grantee_principal.clone_from(&who);
            let request = AccessRequest::new(&who, asked.action, KEY, NOON)
                .encryption_context(asked.context.iter().copied())
                .creating(&asked.child);
            if decide(&nothing, &[child], &request).is_allowed() {
                prop_assert!(decide(&nothing, &[parent], &request).is_allowed());
            }
        }
    }

    #[test]
    fn any_json_is_a_policy_or_an_error_and_any_policy_decides(text in arbitrary_json(), asked in asked(), seconds: u64) {
        match KeyPolicy::parse(&text) {
            Ok(policy) => {
                prop_assert_eq!(policy.text(), &text);
                let request = AccessRequest::new(asked.principal, asked.action, &text, Duration::from_secs(seconds));
                let decision = decide(&policy, &[], &request);
                prop_assert!(!matches!(decision, Decision::AllowedByGrant { .. }), "there is no grant");
            }
            Err(error) => prop_assert!(error.code().is_some(), "{error}"),
        }
    }

    #[test]
    fn any_text_is_a_policy_or_an_error(text: String) {
        if let Err(error) = KeyPolicy::parse(&text) {
            prop_assert_eq!(error.code(), Some("MalformedPolicyDocumentException"));
        }
    }

    #[test]
    fn names_are_compared_as_they_are_written(principal in "[^*?\\p{C}]{1,20}", asked in "\\PC{0,20}") {
        let text = json!({"Statement": {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "*", "Resource": "*"}});
        let policy = KeyPolicy::parse(&text.to_string()).unwrap();
        let of = |name: &str| {
            let action = PolicyAction::ChangeEncryptionContext;
            outcome(&policy, &[], &AccessRequest::new(name, action, KEY, NOON)) == super::Outcome::Allowed(1)
        };
        prop_assert!(of(&principal));
        prop_assert_eq!(of(&asked), asked == principal);
    }
}
