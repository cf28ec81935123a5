//! Conditions: operators, missing keys, several values, sets, dates. Each case is tried in an Allow and in a Deny.

use super::Outcome::{Allowed, Denied, Nothing};
use super::{KEY, NOON, ask, outcome, policy};
use envelock::kms::KeyOperation::*;
use envelock::kms::{AccessRequest, KeyPolicy};
use std::time::Duration;

type Entries = &'static [(&'static str, &'static str)];

pub struct Case {
    pub name: &'static str,
    condition: String,
    context: Entries,
    now: Duration,
    holds: bool,
}

const NONE: Entries = &[];
const ACME: Entries = &[("tenant", "acme")];
const ACME_BLUE: Entries = &[("colour", "blue"), ("tenant", "acme")];

/// A case about the encryption context.
fn about(name: &'static str, operator: &str, key: &str, values: &str, context: Entries, holds: bool) -> Case {
    Case { name, condition: format!(r#"{{"{operator}": {{"{key}": {values}}}}}"#), context, now: NOON, holds }
}

fn tenant(name: &'static str, operator: &str, values: &str, context: Entries, holds: bool) -> Case {
    about(name, operator, "kms:EncryptionContext:tenant", values, context, holds)
}

fn keys(name: &'static str, operator: &str, values: &str, context: Entries, holds: bool) -> Case {
    about(name, operator, "kms:EncryptionContextKeys", values, context, holds)
}

fn whole(name: &'static str, condition: &str, context: Entries, holds: bool) -> Case {
    Case { name, condition: condition.to_owned(), context, now: NOON, holds }
}

/// A case about the time, which is noon of 2026-07-01 UTC.
fn time(name: &'static str, operator: &str, date: &str, holds: bool) -> Case {
    about(name, operator, "aws:CurrentTime", date, NONE, holds)
}

pub fn cases() -> Vec<Case> {
    let mut cases = equality();
    cases.extend(wildcards());
    cases.extend(sets());
    cases.extend(combinations());
    cases.extend(truths_and_dates());
    cases
}

fn equality() -> Vec<Case> {
    let (equals, differs) = ("StringEquals", "StringNotEquals");
    let two = r#"["other", "acme"]"#;
    vec![
        tenant("the value is there", equals, r#""acme""#, ACME, true),
        tenant("another value is there", equals, r#""other""#, ACME, false),
        tenant("values are compared by case", equals, r#""Acme""#, ACME, false),
        tenant("StringEquals of a missing key is false", equals, r#""acme""#, NONE, false),
        tenant(
            "StringEquals of a missing key beside another is false",
            equals,
            r#""acme""#,
            &[("colour", "blue")],
            false,
        ),
        tenant("more keys do no harm", equals, r#""acme""#, ACME_BLUE, true),
        tenant("several values are alternatives", equals, two, ACME, true),
        tenant("several values, none of them", equals, r#"["other", "third"]"#, ACME, false),
        tenant("a star is a star to StringEquals", equals, r#""ac*""#, ACME, false),
        tenant("a star equals a star", equals, r#""ac*""#, &[("tenant", "ac*")], true),
        tenant("an empty value equals an empty value", equals, r#""""#, &[("tenant", "")], true),
        tenant("an empty value is not a missing key", equals, r#""""#, NONE, false),
        tenant("a longer value is another", equals, r#""acme""#, &[("tenant", "acme2")], false),
        tenant("the value stands under another key", equals, r#""acme""#, &[("owner", "acme")], false),
        about(
            "the context key's case does not matter",
            equals,
            "kms:EncryptionContext:Tenant",
            r#""acme""#,
            ACME,
            true,
        ),
        about(
            "the condition key's case does not matter",
            equals,
            "KMS:encryptionCONTEXT:tenant",
            r#""acme""#,
            ACME,
            true,
        ),
        about(
            "a context key with a colon",
            equals,
            "kms:EncryptionContext:aws:s3:arn",
            r#""x""#,
            &[("aws:s3:arn", "x")],
            true,
        ),
        tenant("a context key in another case", equals, r#""acme""#, &[("TENANT", "acme")], true),
        tenant("StringNotEquals of another value is true", differs, r#""other""#, ACME, true),
        tenant("StringNotEquals of the value is false", differs, r#""acme""#, ACME, false),
        tenant("StringNotEquals of a missing key is true", differs, r#""acme""#, NONE, true),
        tenant("StringNotEquals of several values means none of them", differs, two, ACME, false),
        tenant("StringNotEquals of several other values", differs, r#"["other", "third"]"#, ACME, true),
        tenant("StringNotEquals goes by case", differs, r#""ACME""#, ACME, true),
        tenant("StringNotEquals knows no wildcards", differs, r#""a*""#, ACME, true),
    ]
}

fn wildcards() -> Vec<Case> {
    let like = "StringLike";
    vec![
        tenant("StringLike without wildcards is equality", like, r#""acme""#, ACME, true),
        tenant("StringLike goes by case", like, r#""ACM*""#, ACME, false),
        tenant("a star at the end of a value", like, r#""ac*""#, ACME, true),
        tenant("a star at the beginning of a value", like, r#""*me""#, ACME, true),
        tenant("a star in the middle of a value", like, r#""a*e""#, ACME, true),
        tenant("a star for nothing", like, r#""acme*""#, ACME, true),
        tenant("a star alone is any value", like, r#""*""#, ACME, true),
        tenant("a star alone is an empty value too", like, r#""*""#, &[("tenant", "")], true),
        tenant("a star alone is no missing key", like, r#""*""#, NONE, false),
        tenant("a question mark for a character", like, r#""acm?""#, ACME, true),
        tenant("a question mark for no character", like, r#""acme?""#, ACME, false),
        tenant("a question mark for two characters", like, r#""ac?""#, ACME, false),
        tenant("a question mark for a character of several bytes", like, r#""a?c""#, &[("tenant", "aüc")], true),
        tenant("a star goes back for a later match", like, r#""*ab""#, &[("tenant", "aabab")], true),
        tenant("two stars go back", like, r#""a*b*c""#, &[("tenant", "a-b-b-c-c")], true),
        tenant("two stars, and something missing", like, r#""a*b*c""#, &[("tenant", "a-c-b")], false),
        tenant("several patterns are alternatives", like, r#"["x*", "a*"]"#, ACME, true),
        tenant("an escaped star is a star", like, r#""a${*}""#, &[("tenant", "a*")], true),
        tenant("an escaped star is nothing else", like, r#""a${*}""#, ACME, false),
        tenant("an escaped question mark is one", like, r#""acm${?}""#, ACME, false),
        tenant("an escaped dollar begins no variable", "StringEquals", r#""${$}{x}""#, &[("tenant", "${x}")], true),
    ]
}

fn sets() -> Vec<Case> {
    let (all_equal, any_equals) = ("ForAllValues:StringEquals", "ForAnyValue:StringEquals");
    let both = r#"["tenant", "colour"]"#;
    vec![
        keys("every key is listed", all_equal, both, ACME_BLUE, true),
        keys("fewer keys than are listed", all_equal, both, ACME, true),
        keys("a key that is not listed", all_equal, r#""tenant""#, ACME_BLUE, false),
        keys("ForAllValues over an empty set is true", all_equal, r#""tenant""#, NONE, true),
        keys("the names of keys are compared by case", all_equal, r#""Tenant""#, ACME, false),
        keys("one key of several is listed", any_equals, r#""tenant""#, ACME_BLUE, true),
        keys("no key is listed", any_equals, r#""object""#, ACME_BLUE, false),
        keys("ForAnyValue over an empty set is false", any_equals, r#""tenant""#, NONE, false),
        keys("ForAnyValue goes by case", any_equals, r#""TENANT""#, ACME, false),
        keys("every key is like a pattern", "ForAllValues:StringLike", r#"["ten*", "c?lour"]"#, ACME_BLUE, true),
        keys("a key is like no pattern", "ForAllValues:StringLike", r#""ten*""#, ACME_BLUE, false),
        keys("some key, whichever it is", "ForAnyValue:StringLike", r#""*""#, ACME, true),
        keys("some key, and there is none", "ForAnyValue:StringLike", r#""*""#, NONE, false),
        keys("every key differs", "ForAllValues:StringNotEquals", r#"["object", "owner"]"#, ACME_BLUE, true),
        keys("one key does not differ", "ForAllValues:StringNotEquals", r#"["object", "tenant"]"#, ACME_BLUE, false),
        keys("every key of none differs", "ForAllValues:StringNotEquals", r#""tenant""#, NONE, true),
        keys("some key differs", "ForAnyValue:StringNotEquals", r#""tenant""#, ACME_BLUE, true),
        keys("no key differs", "ForAnyValue:StringNotEquals", both, ACME_BLUE, false),
        keys("some key of none differs", "ForAnyValue:StringNotEquals", r#""tenant""#, NONE, false),
        keys(
            "the envelope's own key counts",
            all_equal,
            r#""tenant""#,
            &[("envelock-use", "message/1"), ("tenant", "acme")],
            false,
        ),
        tenant("ForAllValues over one value that matches", all_equal, r#""acme""#, ACME, true),
        tenant("ForAllValues over one value that does not", all_equal, r#""other""#, ACME, false),
        tenant("ForAllValues over a missing key", all_equal, r#""acme""#, NONE, true),
        tenant("ForAnyValue over one value that matches", any_equals, r#""acme""#, ACME, true),
        tenant("ForAnyValue over a missing key", any_equals, r#""acme""#, NONE, false),
        tenant("ForAnyValue negated over a missing key", "ForAnyValue:StringNotEquals", r#""acme""#, NONE, false),
    ]
}

fn combinations() -> Vec<Case> {
    let two_keys =
        r#"{"StringEquals": {"kms:EncryptionContext:tenant": "acme", "kms:EncryptionContext:colour": "blue"}}"#;
    let two_operators = r#"{"StringEquals": {"kms:EncryptionContext:tenant": "acme"},
                            "StringNotEquals": {"kms:EncryptionContext:colour": "red"}}"#;
    let exactly = r#"{"StringEquals": {"kms:EncryptionContext:tenant": "acme"},
                      "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "tenant"}}"#;
    let either = r#"{"StringEquals": {"kms:EncryptionContext:tenant": ["acme", "other"],
                                      "kms:EncryptionContext:colour": ["blue", "red"]}}"#;
    vec![
        whole("two keys of an operator, both true", two_keys, ACME_BLUE, true),
        whole("two keys of an operator, one missing", two_keys, ACME, false),
        whole("two keys of an operator, one wrong", two_keys, &[("colour", "red"), ("tenant", "acme")], false),
        whole("two operators, both true", two_operators, ACME_BLUE, true),
        whole("two operators, the negated one over a missing key", two_operators, ACME, true),
        whole("two operators, the negated one false", two_operators, &[("colour", "red"), ("tenant", "acme")], false),
        whole("a value and no key beside it", exactly, ACME, true),
        whole("a value and a key beside it", exactly, ACME_BLUE, false),
        whole("values are alternatives, keys are not", either, &[("colour", "red"), ("tenant", "other")], true),
        whole("values are alternatives, and a key has none", either, &[("colour", "green"), ("tenant", "acme")], false),
    ]
}

fn truths_and_dates() -> Vec<Case> {
    let urgent =
        |name, value, context, holds| about(name, "Bool", "kms:EncryptionContext:urgent", value, context, holds);
    let (before, after) = ("DateLessThan", "DateGreaterThan");
    vec![
        urgent("true is true", r#""true""#, &[("urgent", "true")], true),
        urgent("true without quotes", "true", &[("urgent", "true")], true),
        urgent("true is not false", r#""false""#, &[("urgent", "true")], false),
        urgent("Bool does not go by case", r#""True""#, &[("urgent", "TRUE")], true),
        urgent("Bool of a missing key is false", "false", NONE, false),
        urgent("what is no truth value is neither", "false", &[("urgent", "no")], false),
        urgent("either truth value", "[true, false]", &[("urgent", "false")], true),
        about(
            "only putting a policy may bypass the check",
            "Bool",
            "kms:BypassPolicyLockoutSafetyCheck",
            "false",
            NONE,
            false,
        ),
        time("before a later date", before, r#""2026-07-02""#, true),
        time("before an earlier date", before, r#""2026-07-01""#, false),
        time("before this very moment", before, r#""2026-07-01T12:00:00Z""#, false),
        time("before the next second", before, r#""2026-07-01T12:00:01Z""#, true),
        time("before the next millisecond", before, r#""2026-07-01T12:00:00.001Z""#, true),
        time("after an earlier date", after, r#""2026-07-01""#, true),
        time("after a later date", after, r#""2027-01-01""#, false),
        time("after this very moment", after, r#""2026-07-01T12:00Z""#, false),
        time("after, in an offset that is ahead", after, r#""2026-07-01T13:59:59+02:00""#, true),
        time("after, in an offset that is behind", after, r#""2026-07-01T04:59:59-07:00""#, true),
        time("not after, in an offset that is behind", after, r#""2026-07-01T05:00:01-07:00""#, false),
        time("before seconds since the epoch", before, r#""1782907201""#, true),
        time("before seconds as a number", before, "1782907201", true),
        time("not before seconds as a number", before, "1782907200", false),
        time("before one of two dates", before, r#"["2020-01-01", "2030-01-01"]"#, true),
        about("the epoch's time is the time", before, "aws:EpochTime", "1782907201", NONE, true),
        about("a time in any case", before, "AWS:currenttime", r#""2026-07-02""#, NONE, true),
        whole(
            "between two dates",
            r#"{"DateGreaterThan": {"aws:CurrentTime": "2026-07-01"}, "DateLessThan": {"aws:CurrentTime": "2026-08-01"}}"#,
            NONE,
            true,
        ),
        whole(
            "not between two dates",
            r#"{"DateGreaterThan": {"aws:CurrentTime": "2026-07-02"}, "DateLessThan": {"aws:CurrentTime": "2026-08-01"}}"#,
            NONE,
            false,
        ),
    ]
}

/// One statement for everyone and everything, under a condition.
fn under(effect: &str, condition: &str) -> String {
    format!(r#"{{"Effect": "{effect}", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {condition}}}"#)
}

fn allow_all() -> String {
    r#"{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}"#.to_owned()
}

#[test]
fn conditions_hold_as_awss_rules_say() {
    for case in cases() {
        let request =
            AccessRequest::new("alice", Decrypt, KEY, case.now).encryption_context(case.context.iter().copied());
        let allowing = policy(&[under("Allow", &case.condition)]);
        let expected = if case.holds { Allowed(1) } else { Nothing };
        assert_eq!(outcome(&allowing, &[], &request), expected, "{}, in an Allow", case.name);
        let denying = policy(&[allow_all(), under("Deny", &case.condition)]);
        let expected = if case.holds { Denied(2) } else { Allowed(1) };
        assert_eq!(outcome(&denying, &[], &request), expected, "{}, in a Deny", case.name);
    }
}

#[test]
fn nobody_gets_past_a_condition_by_a_key_in_another_case() {
    let twice = [("TENANT", "acme"), ("tenant", "other")];
    let decided = |statements: &[String], context: &[(&'static str, &'static str)]| {
        outcome(&policy(statements), &[], &ask("alice", Decrypt).encryption_context(context.iter().copied()))
    };
    let (equals, differs) = (
        r#"{"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}"#,
        r#"{"StringNotEquals": {"kms:EncryptionContext:tenant": "acme"}}"#,
    );
    assert_eq!(decided(&[under("Allow", equals)], &twice), Nothing);
    assert_eq!(decided(&[under("Allow", differs)], &twice), Nothing);
    assert_eq!(decided(&[allow_all(), under("Deny", equals)], &twice), Denied(2));
    assert_eq!(decided(&[allow_all(), under("Deny", differs)], &twice), Denied(2));
    assert_eq!(decided(&[under("Allow", equals)], &[("TENANT", "acme"), ("tenant", "acme")]), Allowed(1));
}

#[test]
fn the_older_version_takes_a_variable_for_text() {
    for version in ["", r#""Version": "2008-10-17", "#] {
        let text = format!(
            r#"{{{version}"Statement": {}}}"#,
            under("Allow", r#"{"StringEquals": {"kms:EncryptionContext:tenant": "${aws:username}"}}"#)
        );
        let policy = KeyPolicy::parse(&text).unwrap();
        let request = ask("alice", Decrypt).encryption_context([("tenant", "${aws:username}")]);
        assert_eq!(outcome(&policy, &[], &request), Allowed(1));
    }
}

#[test]
fn the_bypass_of_the_lockout_check_is_seen_when_a_policy_is_put() {
    let deny = r#"{"Bool": {"kms:BypassPolicyLockoutSafetyCheck": true}}"#;
    let policy = policy(&[allow_all(), under("Deny", deny)]);
    assert_eq!(outcome(&policy, &[], &ask("alice", PutKeyPolicy)), Allowed(1));
    assert_eq!(outcome(&policy, &[], &ask("alice", PutKeyPolicy).bypassing_lockout_check()), Denied(2));
    assert_eq!(outcome(&policy, &[], &ask("alice", GetKeyPolicy).bypassing_lockout_check()), Allowed(1));
}

/// 32 KiB of a pattern that goes back at every step, over 8 KiB of a value that never ends as it wants.
#[test]
fn the_worst_pattern_takes_a_bounded_time() {
    let condition = format!(r#"{{"StringLike": {{"kms:EncryptionContext:a": "*{}b"}}}}"#, "a".repeat(4_000));
    let policy = policy(&[under("Allow", &condition)]);
    let value = "a".repeat(8_000);
    let started = std::time::Instant::now();
    let request = ask("alice", Decrypt).encryption_context([("a", value.as_str())]);
    assert_eq!(outcome(&policy, &[], &request), Nothing);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
