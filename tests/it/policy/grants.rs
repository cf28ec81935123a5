//! Grants: what they add to a policy, their constraints, and what may be granted on.

use super::Outcome::{self, Allowed, Denied, Granted, Nothing};
use super::{KEY_ID, ask, outcome, policy, statement};
use envelock::kms::KeyOperation::{self, *};
use envelock::kms::{
    AccessRequest, CreateGrantRequest, Grant, GrantConstraints, GrantOperation as Op, GrantOperations, PolicyAction,
};
use std::time::UNIX_EPOCH;

pub struct Case {
    pub name: &'static str,
    grants: Vec<Grant>,
    statements: Vec<String>,
    request: AccessRequest<'static>,
    expected: Outcome,
}

type Entries = &'static [(&'static str, &'static str)];
const GRANT: Outcome = Granted("grant-0");
const ACME: Entries = &[("tenant", "acme")];
const ACME_BLUE: Entries = &[("colour", "blue"), ("tenant", "acme")];

fn made(number: usize, request: &CreateGrantRequest) -> Grant {
    request.to_grant(format!("grant-{number}"), KEY_ID, "token", UNIX_EPOCH).unwrap()
}

fn to_alice<const N: usize>(operations: [Op; N]) -> CreateGrantRequest {
    CreateGrantRequest::new("alice", operations)
}

fn equals(pairs: Entries) -> GrantConstraints {
    GrantConstraints::new().encryption_context_equals(pairs.iter().copied())
}

fn subset(pairs: Entries) -> GrantConstraints {
    GrantConstraints::new().encryption_context_subset(pairs.iter().copied())
}

fn one(name: &'static str, grant: &CreateGrantRequest, request: AccessRequest<'static>, expected: Outcome) -> Case {
    Case {
        name,
        grants: vec![made(0, grant)],
        statements: vec![statement("Allow", r#""Principal": {"AWS": "owner"}"#, r#""*""#)],
        request,
        expected,
    }
}

fn with(operation: KeyOperation, context: Entries) -> AccessRequest<'static> {
    ask("alice", operation).encryption_context(context.iter().copied())
}

/// What one test keeps for as long as requests may name it.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub fn cases() -> Vec<Case> {
    let mut cases = operations();
    cases.extend(constraints());
    cases.extend(beside_policies());
    cases.extend(granting_on());
    cases.extend(retiring());
    cases
}

fn operations() -> Vec<Case> {
    let decrypt = to_alice([Op::Decrypt]);
    let mut other_key = made(0, &decrypt);
    other_key.key_id = "1b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab".to_owned();
    vec![
        one("the grantee does what is granted", &decrypt, with(Decrypt, &[]), GRANT),
        one("a grant without constraints is for any context", &decrypt, with(Decrypt, ACME), GRANT),
        one("the grantee does nothing else", &decrypt, with(Encrypt, &[]), Nothing),
        one("another principal", &decrypt, ask("bob", Decrypt), Nothing),
        one("grantees are compared by case", &decrypt, ask("Alice", Decrypt), Nothing),
        one(
            "a data key is not a data key without plaintext",
            &to_alice([Op::GenerateDataKey]),
            with(GenerateDataKeyWithoutPlaintext, &[]),
            Nothing,
        ),
        one(
            "the other data key",
            &to_alice([Op::GenerateDataKeyWithoutPlaintext]),
            with(GenerateDataKeyWithoutPlaintext, &[]),
            GRANT,
        ),
        one("re-encrypting from, granted", &to_alice([Op::ReEncryptFrom]), with(ReEncryptFrom, &[]), GRANT),
        one("re-encrypting to, not granted", &to_alice([Op::ReEncryptFrom]), with(ReEncryptTo, &[]), Nothing),
        one(
            "re-encrypting is not decrypting",
            &to_alice([Op::ReEncryptFrom, Op::ReEncryptTo]),
            with(Decrypt, &[]),
            Nothing,
        ),
        one(
            "a grant does not change contexts",
            &to_alice(Op::ALL),
            ask("alice", PolicyAction::ChangeEncryptionContext),
            Nothing,
        ),
        one("a grant puts no policy", &to_alice(Op::ALL), ask("alice", PutKeyPolicy), Nothing),
        one("a grant revokes no grant", &to_alice(Op::ALL), ask("alice", RevokeGrant), Nothing),
        one("describing, granted", &to_alice([Op::DescribeKey]), ask("alice", DescribeKey), GRANT),
        Case { grants: vec![other_key], ..one("a grant of another key", &decrypt, with(Decrypt, &[]), Nothing) },
    ]
}

fn constraints() -> Vec<Case> {
    let under = |constraints| to_alice([Op::Decrypt, Op::DescribeKey, Op::GenerateDataKey]).constraints(constraints);
    let (exact, part) = (under(equals(ACME)), under(subset(ACME)));
    let both = under(equals(ACME_BLUE).encryption_context_subset(ACME.iter().copied()));
    let torn = under(equals(ACME).encryption_context_subset([("colour", "blue")]));
    vec![
        one("equal to the context", &exact, with(Decrypt, ACME), GRANT),
        one("equal, for a data key", &exact, with(GenerateDataKey, ACME), GRANT),
        one("equal, and there is more", &exact, with(Decrypt, ACME_BLUE), Nothing),
        one("equal, and there is less", &under(equals(ACME_BLUE)), with(Decrypt, ACME), Nothing),
        one("equal, and there is none", &exact, with(Decrypt, &[]), Nothing),
        one(
            "equal, in another order",
            &under(equals(ACME_BLUE)),
            with(Decrypt, &[("tenant", "acme"), ("colour", "blue")]),
            GRANT,
        ),
        one("equal, another value", &exact, with(Decrypt, &[("tenant", "other")]), Nothing),
        one("equal, values go by case", &exact, with(Decrypt, &[("tenant", "Acme")]), Nothing),
        one("equal, keys do not go by case", &exact, with(Decrypt, &[("Tenant", "acme")]), GRANT),
        one("equal, another key", &exact, with(Decrypt, &[("owner", "acme")]), Nothing),
        one("equal, the key in two cases", &exact, with(Decrypt, &[("TENANT", "acme"), ("tenant", "acme")]), Nothing),
        one("part of the context", &part, with(Decrypt, ACME_BLUE), GRANT),
        one("part, and there is no more", &part, with(Decrypt, ACME), GRANT),
        one("part, and there is none", &part, with(Decrypt, &[]), Nothing),
        one("part, another value", &part, with(Decrypt, &[("colour", "blue"), ("tenant", "other")]), Nothing),
        one("part, only some of it", &under(subset(ACME_BLUE)), with(Decrypt, ACME), Nothing),
        one("part, values go by case", &part, with(Decrypt, &[("tenant", "ACME")]), Nothing),
        one("part, keys do not go by case", &part, with(Decrypt, &[("TENANT", "acme")]), GRANT),
        one(
            "part, the key in two cases with two values",
            &part,
            with(Decrypt, &[("TENANT", "acme"), ("tenant", "other")]),
            Nothing,
        ),
        one("both constraints, both hold", &both, with(Decrypt, ACME_BLUE), GRANT),
        one("both constraints, one holds", &both, with(Decrypt, ACME), Nothing),
        one("both constraints, which cannot both hold", &torn, with(Decrypt, ACME_BLUE), Nothing),
        one("describing a key has no context to constrain", &exact, ask("alice", DescribeKey), GRANT),
    ]
}

fn beside_policies() -> Vec<Case> {
    let granted = to_alice([Op::Decrypt]);
    let (alice, all) = (r#""Principal": {"AWS": "alice"}"#, r#""Principal": "*""#);
    let case = |name, statements: &[String], expected| Case {
        name,
        grants: vec![made(0, &granted)],
        statements: statements.to_vec(),
        request: with(Decrypt, ACME),
        expected,
    };
    let deny_acme = r#"{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*",
                        "Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}}"#;
    let two = |name, first: GrantConstraints, second: GrantConstraints, expected| Case {
        name,
        grants: vec![made(0, &granted.clone().constraints(first)), made(1, &granted.clone().constraints(second))],
        statements: vec![statement("Allow", r#""Principal": {"AWS": "owner"}"#, r#""*""#)],
        request: with(Decrypt, ACME),
        expected,
    };
    vec![
        case("a grant adds to a policy that says nothing", &[statement("Allow", alice, r#""kms:Encrypt""#)], GRANT),
        case("a Deny beats a grant", &[statement("Deny", alice, r#""kms:Decrypt""#)], Denied(1)),
        case("a Deny for everyone beats a grant", &[statement("Deny", all, r#""*""#)], Denied(1)),
        case("a Deny under a condition beats a grant", &[deny_acme.to_owned()], Denied(1)),
        case("a Deny of something else leaves a grant", &[statement("Deny", alice, r#""kms:Encrypt""#)], GRANT),
        case("an Allow is named before a grant", &[statement("Allow", alice, r#""kms:Decrypt""#)], Allowed(1)),
        two("of two grants the one that fits", equals(&[("tenant", "other")]), subset(ACME), Granted("grant-1")),
        two("of two grants that fit the first by id", subset(ACME), equals(ACME), Granted("grant-0")),
        two("of two grants none fits", equals(ACME_BLUE), subset(&[("tenant", "other")]), Nothing),
    ]
}

fn granting_on() -> Vec<Case> {
    let free = to_alice([Op::CreateGrant, Op::Decrypt, Op::Encrypt]);
    let within = |constraints| free.clone().constraints(constraints);
    let asked = |child: CreateGrantRequest| ask("alice", CreateGrant).creating(kept(child));
    let to_bob = |constraints| CreateGrantRequest::new("bob", [Op::Decrypt]).constraints(constraints);
    let none = GrantConstraints::new;
    vec![
        one("granting on an operation that one has", &free, asked(to_bob(none())), GRANT),
        one(
            "granting on the right to grant",
            &free,
            asked(CreateGrantRequest::new("bob", [Op::CreateGrant, Op::Decrypt])),
            GRANT,
        ),
        one(
            "granting an operation that one has not",
            &free,
            asked(CreateGrantRequest::new("bob", [Op::Decrypt, Op::GenerateDataKey])),
            Nothing,
        ),
        one("granting on without the right to grant", &to_alice([Op::Decrypt]), asked(to_bob(none())), Nothing),
        one("granting on with a constraint of one's own", &free, asked(to_bob(equals(ACME))), GRANT),
        one("granting on without one's constraint, equal", &within(equals(ACME)), asked(to_bob(none())), Nothing),
        one("granting on without one's constraint, part", &within(subset(ACME)), asked(to_bob(none())), Nothing),
        one("equal to equal, the same", &within(equals(ACME)), asked(to_bob(equals(ACME))), GRANT),
        one("equal to equal, more pairs", &within(equals(ACME)), asked(to_bob(equals(ACME_BLUE))), Nothing),
        one(
            "equal to equal, another value",
            &within(equals(ACME)),
            asked(to_bob(equals(&[("tenant", "other")]))),
            Nothing,
        ),
        one("equal to part is wider", &within(equals(ACME)), asked(to_bob(subset(ACME))), Nothing),
        one("part to part, the same", &within(subset(ACME)), asked(to_bob(subset(ACME))), GRANT),
        one("part to part, more pairs", &within(subset(ACME)), asked(to_bob(subset(ACME_BLUE))), GRANT),
        one("part to part, fewer pairs", &within(subset(ACME_BLUE)), asked(to_bob(subset(ACME))), Nothing),
        one("part to equal, with the pairs", &within(subset(ACME)), asked(to_bob(equals(ACME_BLUE))), GRANT),
        one(
            "part to equal, without the pairs",
            &within(subset(ACME)),
            asked(to_bob(equals(&[("colour", "blue")]))),
            Nothing,
        ),
    ]
}

fn retiring() -> Vec<Case> {
    let plain = to_alice([Op::Decrypt]).retiring_principal("carol");
    let own = to_alice([Op::Decrypt, Op::RetireGrant]);
    let retire = |principal, grant: &CreateGrantRequest| ask(principal, RetireGrant).retiring(kept(made(0, grant)));
    let other = ask("alice", RetireGrant).retiring(kept(made(7, &own)));
    let denied = Case {
        statements: vec![statement("Deny", r#""Principal": "*""#, r#""kms:RetireGrant""#)],
        ..one("a Deny beats the retiring principal", &plain, retire("carol", &plain), Denied(1))
    };
    let constrained = own.clone().constraints(equals(ACME));
    vec![
        one("the retiring principal retires", &plain, retire("carol", &plain), GRANT),
        one("the grantee does not, unless it is granted", &plain, retire("alice", &plain), Nothing),
        one("the grantee retires, where it is granted", &own, retire("alice", &own), GRANT),
        one("nobody else retires", &own, retire("bob", &own), Nothing),
        one("a grant retires no other grant", &own, other, Nothing),
        one("the owner retires by the policy", &own, retire("owner", &own), Allowed(1)),
        one("a constraint does not keep from retiring", &constrained, retire("alice", &constrained), GRANT),
        one("the retiring principal does nothing else", &plain, ask("carol", Decrypt), Nothing),
        denied,
    ]
}

#[test]
fn grants_allow_as_awss_rules_say() {
    for case in cases() {
        assert_eq!(outcome(&policy(&case.statements), &case.grants, &case.request), case.expected, "{}", case.name);
    }
}

#[test]
fn a_policy_sees_the_grant_that_is_to_be_created() {
    let conditions = [
        (r#"{"StringEquals": {"kms:GranteePrincipal": "bob"}}"#, true),
        (r#"{"StringEquals": {"kms:GranteePrincipal": "alice"}}"#, false),
        (r#"{"StringLike": {"kms:RetiringPrincipal": "car*"}}"#, true),
        (r#"{"ForAllValues:StringEquals": {"kms:GrantOperations": ["Decrypt", "Encrypt", "DescribeKey"]}}"#, true),
        (r#"{"ForAllValues:StringEquals": {"kms:GrantOperations": ["Decrypt"]}}"#, false),
        (r#"{"ForAnyValue:StringEquals": {"kms:GrantOperations": ["GenerateDataKey"]}}"#, false),
        (r#"{"StringEquals": {"kms:GrantConstraintType": "EncryptionContextSubset"}}"#, true),
        (r#"{"StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}}"#, false),
        (r#"{"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}"#, true),
        (r#"{"StringEquals": {"kms:EncryptionContext:tenant": "other"}}"#, false),
        (r#"{"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "tenant"}}"#, true),
    ];
    let child = CreateGrantRequest::new("bob", [Op::Decrypt, Op::Encrypt])
        .retiring_principal("carol")
        .constraints(subset(ACME));
    for (condition, holds) in conditions {
        let statement = format!(
            r#"{{"Effect": "Allow", "Principal": "*", "Action": "kms:CreateGrant", "Resource": "*", "Condition": {condition}}}"#
        );
        let decided = outcome(&policy(&[statement]), &[], &ask("alice", CreateGrant).creating(&child));
        assert_eq!(decided, if holds { Allowed(1) } else { Nothing }, "{condition}");
    }
    let nothing_to_see = r#"{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*",
                             "Condition": {"StringLike": {"kms:GranteePrincipal": "*"}}}"#;
    assert_eq!(outcome(&policy(&[nothing_to_see.to_owned()]), &[], &with(Decrypt, ACME)), Nothing);
}

#[test]
fn what_no_grant_may_have_is_refused() {
    let code = |request: CreateGrantRequest| {
        let error = request.to_grant("grant-0", KEY_ID, "token", UNIX_EPOCH).expect_err("not a grant");
        error.code().map(|code| (code, error.to_string())).expect("AWS's code")
    };
    let pairs = |count: usize, len: usize| (0..count).map(move |at| (format!("key-{at}"), "v".repeat(len)));
    let under = |constraints| to_alice([Op::Decrypt]).constraints(constraints);
    let none: Entries = &[];
    let refused = [
        (CreateGrantRequest::new("", [Op::Decrypt]), "is empty"),
        (CreateGrantRequest::new("a*", [Op::Decrypt]), "wildcard"),
        (CreateGrantRequest::new("a\u{7}", [Op::Decrypt]), "control character"),
        (CreateGrantRequest::new("a".repeat(257), [Op::Decrypt]), "256"),
        (to_alice([Op::Decrypt]).retiring_principal("*"), "wildcard"),
        (to_alice([]), "no operation"),
        (to_alice([Op::Decrypt]).name(""), "name"),
        (to_alice([Op::Decrypt]).name("with space"), "name"),
        (to_alice([Op::Decrypt]).name("n".repeat(257)), "name"),
        (under(equals(none)), "is empty"),
        (under(subset(none)), "is empty"),
        (under(GrantConstraints::new().encryption_context_equals(pairs(9, 1))), "more than 8 pairs"),
        (under(GrantConstraints::new().encryption_context_subset(pairs(1, 385))), "384"),
        (under(equals(&[("", "x")])), "empty key"),
        (under(equals(&[("A", "x"), ("a", "x")])), "case alone"),
    ];
    for (request, said) in refused {
        let (code, sentence) = code(request);
        assert_eq!(code, "ValidationException");
        assert!(sentence.contains(said), "{sentence:?} does not say {said:?}");
    }
    let most = under(GrantConstraints::new().encryption_context_equals(pairs(8, 384))).name("n".repeat(256));
    most.to_grant("grant-0", KEY_ID, "token", UNIX_EPOCH).unwrap();
}

#[test]
fn operations_and_constraints_come_back_from_their_json() {
    let operations = GrantOperations::from([Op::RetireGrant, Op::Decrypt, Op::CreateGrant, Op::Decrypt]);
    assert_eq!(operations.to_json(), r#"["CreateGrant","Decrypt","RetireGrant"]"#);
    assert_eq!(GrantOperations::from_json(&operations.to_json()).unwrap(), operations);
    let all: GrantOperations = Op::ALL.into_iter().collect();
    assert_eq!(GrantOperations::from_json(&all.to_json()).unwrap(), all);

    let constraints = equals(&[("b", "\"2\""), ("a", "1")]).encryption_context_subset([("ü", "")]);
    let json = r#"{"EncryptionContextEquals":{"a":"1","b":"\"2\""},"EncryptionContextSubset":{"ü":""}}"#;
    assert_eq!(constraints.to_json(), json);
    for constraints in [constraints, GrantConstraints::new(), subset(ACME)] {
        assert_eq!(GrantConstraints::from_json(&constraints.to_json()).unwrap(), constraints);
    }

    let code = |error: envelock::Error| error.code().expect("AWS's code");
    for json in ["", "{}", "[1]", r#"["Sign"]"#, r#"["decrypt"]"#, r#"["Decrypt"] x"#] {
        assert_eq!(code(GrantOperations::from_json(json).expect_err(json)), "ValidationException");
    }
    for json in [
        "",
        "[]",
        r#"{"EncryptionContextEquals":{}}"#,
        r#"{"EncryptionContextEquals":{"a":1}}"#,
        r#"{"EncryptionContextEquals":["a"]}"#,
        r#"{"SourceArn":"x"}"#,
        r#"{"EncryptionContextEquals":{"a":"1","a":"1"}}"#,
    ] {
        assert_eq!(code(GrantConstraints::from_json(json).expect_err(json)), "ValidationException");
    }
}
