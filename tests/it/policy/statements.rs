//! Effects, principals, actions and resources.

use super::Outcome::{self, Allowed, Denied, Nothing};
use super::{KEY, NOON, ask, outcome, policy, statement};
use envelock::kms::KeyOperation::*;
use envelock::kms::{AccessRequest, KeyOperation, KeyPolicy, OWNER, PolicyAction, decide, would_lock_out};

pub struct Case {
    pub name: &'static str,
    statements: Vec<String>,
    request: AccessRequest<'static>,
    expected: Outcome,
}

const ALICE: &str = r#""Principal": {"AWS": "alice"}"#;
const BOB: &str = r#""Principal": {"AWS": "bob"}"#;
const ALL: &str = r#""Principal": "*""#;

fn case<const N: usize>(
    name: &'static str,
    statements: [(&str, &str, &str); N],
    request: AccessRequest<'static>,
    expected: Outcome,
) -> Case {
    let statements = statements.into_iter().map(|(effect, who, action)| statement(effect, who, action)).collect();
    Case { name, statements, request, expected }
}

fn for_principal(name: &'static str, who: &str, principal: &'static str, expected: Outcome) -> Case {
    case(name, [("Allow", who, r#""kms:Decrypt""#)], ask(principal, Decrypt), expected)
}

fn for_action(name: &'static str, action: &str, asked: impl Into<PolicyAction>, expected: Outcome) -> Case {
    case(name, [("Allow", ALICE, action)], ask("alice", asked), expected)
}

fn for_resource(name: &'static str, resource: &str, expected: Outcome) -> Case {
    let statement = format!(r#"{{"Effect": "Allow", {ALICE}, "Action": "kms:Decrypt", "Resource": {resource}}}"#);
    Case { name, statements: vec![statement], request: ask("alice", Decrypt), expected }
}

pub fn cases() -> Vec<Case> {
    let mut cases = effects();
    cases.extend(principals());
    cases.extend(actions());
    cases.extend(resources());
    cases
}

fn effects() -> Vec<Case> {
    let (allow, deny) = (("Allow", ALICE, r#""kms:*""#), ("Deny", ALICE, r#""kms:Decrypt""#));
    let bobs = ("Allow", BOB, r#""kms:*""#);
    vec![
        case("what is allowed is allowed", [allow], ask("alice", Decrypt), Allowed(1)),
        case("what nothing speaks of is denied", [allow], ask("carol", Decrypt), Nothing),
        case("what is only denied is denied", [deny], ask("alice", Decrypt), Denied(1)),
        case("a Deny alone allows nothing else", [deny], ask("alice", Encrypt), Nothing),
        case("a Deny after an Allow wins", [allow, deny], ask("alice", Decrypt), Denied(2)),
        case("a Deny before an Allow wins", [deny, allow], ask("alice", Decrypt), Denied(1)),
        case("a Deny of one action leaves the others", [allow, deny], ask("alice", Encrypt), Allowed(1)),
        case("a Deny of one principal leaves the others", [deny, bobs], ask("bob", Decrypt), Allowed(2)),
        case(
            "a Deny for everyone beats an Allow by name",
            [allow, ("Deny", ALL, r#""kms:Decrypt""#)],
            ask("alice", Decrypt),
            Denied(2),
        ),
        case(
            "an Allow for everyone does not beat a Deny by name",
            [("Allow", ALL, r#""kms:*""#), deny],
            ask("alice", Decrypt),
            Denied(2),
        ),
        case(
            "a broad Deny beats a narrow Allow",
            [("Allow", ALICE, r#""kms:Decrypt""#), ("Deny", ALICE, r#""kms:*""#)],
            ask("alice", Decrypt),
            Denied(2),
        ),
        case("statements add up", [bobs, allow], ask("alice", Encrypt), Allowed(2)),
        case("of two Allows the first is named", [allow, allow], ask("alice", Encrypt), Allowed(1)),
        case("of two Denies the first is named", [allow, deny, deny], ask("alice", Decrypt), Denied(2)),
    ]
}

fn principals() -> Vec<Case> {
    let two = r#""Principal": {"AWS": ["alice", "bob"]}"#;
    let not_alice = r#""NotPrincipal": {"AWS": "alice"}"#;
    let not_two = r#""NotPrincipal": {"AWS": ["alice", "bob"]}"#;
    let deny_others = |who| [("Allow", ALL, r#""kms:*""#), ("Deny", who, r#""kms:Decrypt""#)];
    vec![
        for_principal("a principal by name", ALICE, "alice", Allowed(1)),
        for_principal("another principal", ALICE, "bob", Nothing),
        for_principal("principals are compared by case", ALICE, "Alice", Nothing),
        for_principal("a longer name is another principal", ALICE, "alice2", Nothing),
        for_principal("a shorter name is another principal", ALICE, "alic", Nothing),
        for_principal("a space makes another principal", ALICE, "alice ", Nothing),
        for_principal("the first of a list", two, "alice", Allowed(1)),
        for_principal("the last of a list", two, "bob", Allowed(1)),
        for_principal("none of a list", two, "carol", Nothing),
        for_principal("everyone, as a string", ALL, "carol", Allowed(1)),
        for_principal("everyone, as AWS writes it too", r#""Principal": {"AWS": "*"}"#, "carol", Allowed(1)),
        for_principal("everyone in a list", r#""Principal": {"AWS": ["alice", "*"]}"#, "carol", Allowed(1)),
        for_principal(
            "an ARN is a name as any other",
            r#""Principal": {"AWS": "arn:aws:iam::111122223333:role/a"}"#,
            "arn:aws:iam::111122223333:role/a",
            Allowed(1),
        ),
        for_principal("the owner is a name as any other", ALICE, OWNER, Nothing),
        for_principal("NotPrincipal means the others", not_alice, "bob", Allowed(1)),
        for_principal("NotPrincipal does not mean those it names", not_alice, "alice", Nothing),
        for_principal("NotPrincipal with a list leaves out each", not_two, "bob", Nothing),
        for_principal("NotPrincipal with a list means the rest", not_two, "carol", Allowed(1)),
        case(
            "a Deny with NotPrincipal spares those it names",
            deny_others(not_alice),
            ask("alice", Decrypt),
            Allowed(1),
        ),
        case("a Deny with NotPrincipal hits the others", deny_others(not_alice), ask("bob", Decrypt), Denied(2)),
    ]
}

fn actions() -> Vec<Case> {
    let data_keys = r#""kms:GenerateDataKey*""#;
    vec![
        for_action("an action by name", r#""kms:Decrypt""#, Decrypt, Allowed(1)),
        for_action("another action", r#""kms:Decrypt""#, Encrypt, Nothing),
        for_action("actions are compared without case", r#""KMS:deCRYPT""#, Decrypt, Allowed(1)),
        for_action("a list of actions, its last", r#"["kms:Encrypt", "kms:Decrypt"]"#, Decrypt, Allowed(1)),
        for_action("a list of actions, none of it", r#"["kms:Encrypt", "kms:Decrypt"]"#, DescribeKey, Nothing),
        for_action("every action of the service", r#""kms:*""#, ScheduleKeyDeletion, Allowed(1)),
        for_action("every action of every service", r#""*""#, ScheduleKeyDeletion, Allowed(1)),
        for_action("a star at the end", data_keys, GenerateDataKeyWithoutPlaintext, Allowed(1)),
        for_action("a star stands for nothing too", data_keys, GenerateDataKey, Allowed(1)),
        for_action("a star at the end, another action", data_keys, Decrypt, Nothing),
        for_action("a star in the middle", r#""kms:Enable*Rotation""#, EnableKeyRotation, Allowed(1)),
        for_action("a star in the middle, another action", r#""kms:Enable*Rotation""#, EnableKey, Nothing),
        for_action("a star at the beginning", r#""*:Decrypt""#, Decrypt, Allowed(1)),
        for_action("several stars", r#""kms:*Key*Rotation*""#, GetKeyRotationStatus, Allowed(1)),
        for_action("a question mark is one character", r#""kms:?ncrypt""#, Encrypt, Allowed(1)),
        for_action("a question mark is not two characters", r#""kms:?agResource""#, UntagResource, Nothing),
        for_action("question marks for each character", r#""kms:??crypt""#, Encrypt, Allowed(1)),
        for_action("a wildcard is compared without case too", r#""kms:generate*""#, GenerateDataKey, Allowed(1)),
        for_action(
            "the name's beginning alone is not the name",
            r#""kms:GenerateDataKey""#,
            GenerateDataKeyWithoutPlaintext,
            Nothing,
        ),
        for_action("re-encrypting from is an action", r#""kms:ReEncryptFrom""#, ReEncryptFrom, Allowed(1)),
        for_action("re-encrypting to is another", r#""kms:ReEncryptFrom""#, ReEncryptTo, Nothing),
        for_action("both ways of re-encrypting", r#""kms:ReEncrypt*""#, ReEncryptTo, Allowed(1)),
        for_action("who may decrypt may not re-encrypt", r#""kms:Decrypt""#, ReEncryptFrom, Nothing),
        for_action("who may re-encrypt may not decrypt", r#""kms:ReEncrypt*""#, Decrypt, Nothing),
        for_action(
            "re-encrypting keeps the context",
            r#""kms:ReEncrypt*""#,
            PolicyAction::ChangeEncryptionContext,
            Nothing,
        ),
        for_action(
            "changing the context by its name",
            r#""kms:ChangeEncryptionContext""#,
            PolicyAction::ChangeEncryptionContext,
            Allowed(1),
        ),
        for_action(
            "changing the context is part of everything",
            r#""kms:*""#,
            PolicyAction::ChangeEncryptionContext,
            Allowed(1),
        ),
        for_action("reading the policy is not putting it", r#""kms:Get*""#, PutKeyPolicy, Nothing),
        for_action("creating a grant is not revoking it", r#""kms:CreateGrant""#, RevokeGrant, Nothing),
    ]
}

fn resources() -> Vec<Case> {
    let other = KEY.replace("0b0c8f4e", "1b0c8f4e");
    vec![
        for_resource("every key", r#""*""#, Allowed(1)),
        for_resource("the key by its full name", &format!("{KEY:?}"), Allowed(1)),
        for_resource("another key's full name", &format!("{other:?}"), Nothing),
        for_resource("a list with the key", &format!("[{other:?}, {KEY:?}]"), Allowed(1)),
        for_resource("a star for keystore and key", r#""envelock:eu-west-1:*""#, Allowed(1)),
        for_resource("a star, another Region", r#""envelock:eu-west-2:*""#, Nothing),
        for_resource("a star for the Region", r#""envelock:*:key/0b0c8f4e-*""#, Allowed(1)),
        for_resource("a star for aliases", r#""envelock:*:alias/*""#, Nothing),
        for_resource("a question mark in a key's name", r#""envelock:eu-west-?:*""#, Allowed(1)),
        for_resource("resources are compared by case", r#""envelock:EU-WEST-1:*""#, Nothing),
    ]
}

#[test]
fn statements_decide_as_awss_rules_say() {
    for case in cases() {
        let policy = policy(&case.statements);
        assert_eq!(outcome(&policy, &[], &case.request), case.expected, "{}", case.name);
    }
}

#[test]
fn one_statement_need_not_be_in_a_list() {
    let text = format!(r#"{{"Statement": {}}}"#, statement("Allow", ALICE, r#""kms:Decrypt""#));
    assert_eq!(outcome(&KeyPolicy::parse(&text).unwrap(), &[], &ask("alice", Decrypt)), Allowed(1));
}

#[test]
fn a_decision_names_the_statement_by_its_sid() {
    let text = format!(
        r#"{{"Statement": [{{"Sid": "Readers \"at large\"", "Effect": "Allow", {ALICE}, "Action": "*", "Resource": "*"}}]}}"#
    );
    let policy = KeyPolicy::parse(&text).unwrap();
    let said = decide(&policy, &[], &ask("alice", Decrypt)).to_string();
    assert_eq!(said, r#"allowed by statement 1 of the key's policy ("Readers \"at large\"")"#);
    let said = decide(&policy, &[], &ask("bob", Decrypt)).to_string();
    assert_eq!(said, "denied, since no statement of the key's policy and no grant allows it");
}

#[test]
fn the_default_policy_lets_the_owner_do_everything_and_nobody_else_anything() {
    let policy = KeyPolicy::default();
    assert_eq!(KeyPolicy::parse(policy.text()).unwrap(), policy);
    for action in PolicyAction::all() {
        assert_eq!(outcome(&policy, &[], &ask(OWNER, action)), Allowed(1), "{action}");
        assert_eq!(outcome(&policy, &[], &ask("alice", action)), Nothing, "{action}");
    }
}

#[test]
fn every_operation_has_an_action_of_its_own_name() {
    assert_eq!(PolicyAction::all().count(), KeyOperation::ALL.len() + 1);
    for operation in KeyOperation::ALL {
        assert_eq!(PolicyAction::from(operation).name(), format!("kms:{operation:?}"));
    }
}

#[test]
fn the_text_is_kept_to_the_byte() {
    let text = "\n {\"Id\" : \"\\u0041\",\"Statement\":\t{\"Effect\":\"Deny\",\"Principal\":\"*\",\"Action\":\"*\",\"Resource\":\"*\"}}\r\n";
    assert_eq!(KeyPolicy::parse(text).unwrap().text(), text);
}

#[test]
fn a_policy_locks_out_whom_it_does_not_let_put_another() {
    let text = |effect: &str, who: &str, action: &str, more: &str| {
        policy(&[format!(r#"{{"Effect": "{effect}", {who}, "Action": {action}, "Resource": "*"{more}}}"#)])
    };
    let locked_out = |policy: &KeyPolicy| would_lock_out(policy, "alice", KEY, NOON);
    assert!(!locked_out(&text("Allow", ALICE, r#""kms:PutKeyPolicy""#, "")));
    assert!(!locked_out(&text("Allow", ALL, r#""kms:Put*""#, "")));
    assert!(locked_out(&text("Allow", BOB, r#""kms:*""#, "")), "another may");
    assert!(locked_out(&text("Allow", ALICE, r#"["kms:GetKeyPolicy", "kms:Decrypt"]"#, "")), "another action");
    let both = [statement("Allow", ALICE, r#""kms:*""#), statement("Deny", ALL, r#""kms:PutKeyPolicy""#)];
    assert!(locked_out(&policy(&both)), "allowed and denied");
    let until = |date: &str| format!(r#", "Condition": {{"DateLessThan": {{"aws:CurrentTime": "{date}"}}}}"#);
    assert!(locked_out(&text("Allow", ALICE, r#""kms:*""#, &until("2026-07-01"))), "it has ended");
    assert!(!locked_out(&text("Allow", ALICE, r#""kms:*""#, &until("2026-07-02"))), "it has not ended yet");
    let bypassing = r#", "Condition": {"Bool": {"kms:BypassPolicyLockoutSafetyCheck": true}}"#;
    assert!(locked_out(&text("Allow", ALICE, r#""kms:*""#, bypassing)), "only ever past the check");
    assert!(!would_lock_out(&KeyPolicy::default(), OWNER, KEY, NOON));
}
