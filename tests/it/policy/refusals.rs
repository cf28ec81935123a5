//! What is no policy here is refused, by name, and never ignored.

use envelock::kms::KeyPolicy;
use envelock::{Error, ErrorKind};

/// A name, the policy, and what the error says.
pub type Case = (&'static str, String, &'static str);

fn refused(text: &str) -> Error {
    KeyPolicy::parse(text).err().unwrap_or_else(|| panic!("taken: {text}"))
}

fn whole(name: &'static str, text: &str, said: &'static str) -> Case {
    (name, text.to_owned(), said)
}

/// A policy whose only statement has these members.
fn statement(name: &'static str, members: &str, said: &'static str) -> Case {
    (name, format!(r#"{{"Version": "2012-10-17", "Statement": [{{{members}}}]}}"#), said)
}

/// A good statement with one member replaced.
fn with(name: &'static str, member: &str, json: &str, said: &'static str) -> Case {
    let good = [("Effect", r#""Allow""#), ("Principal", r#""*""#), ("Action", r#""kms:*""#), ("Resource", r#""*""#)];
    let mut members: Vec<_> = good.into_iter().filter(|(name, _)| *name != member).collect();
    members.push((member, json));
    let members: Vec<_> = members.iter().map(|(name, json)| format!(r#""{name}": {json}"#)).collect();
    statement(name, &members.join(", "), said)
}

fn condition(name: &'static str, operator: &str, key: &str, values: &str, said: &'static str) -> Case {
    with(name, "Condition", &format!(r#"{{"{operator}": {{"{key}": {values}}}}}"#), said)
}

pub fn cases() -> Vec<Case> {
    let mut cases = documents();
    cases.extend(statements());
    cases.extend(conditions());
    cases
}

fn documents() -> Vec<Case> {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    vec![
        whole("nothing", "", "not JSON"),
        whole("no JSON", "Allow everyone", "not JSON"),
        whole("JSON cut short", r#"{"Statement": ["#, "not JSON"),
        whole("something after the JSON", r#"{"Statement": []} {}"#, "not JSON"),
        whole("a list", "[]", "is a list, and must be an object"),
        whole("null", "null", "is null, and must be an object"),
        whole("a number that is none", "1e999", "not JSON"),
        whole("too deep", &deep, "8 levels"),
        whole("half a surrogate pair", r#"{"Id": "\ud800", "Statement": []}"#, "not JSON"),
        whole("no statement", "{}", "no Statement"),
        whole("an empty list of statements", r#"{"Statement": []}"#, "no Statement"),
        whole("a statement that is text", r#"{"Statement": "Allow"}"#, "the Statement is a string"),
        whole("a statement in the list that is text", r#"{"Statement": ["Allow"]}"#, "statement 1 is a string"),
        whole("another version", r#"{"Version": "2026-01-01", "Statement": []}"#, "2012-10-17"),
        whole("a version that is a number", r#"{"Version": 2012, "Statement": []}"#, "the Version is a number"),
        whole("an id that is a number", r#"{"Id": 1, "Statement": []}"#, "the Id is a number"),
        whole("an unknown element", r#"{"Statements": []}"#, "\"Statements\" of the key policy is not supported"),
        whole("an element in another case", r#"{"version": "2012-10-17"}"#, "\"version\""),
        whole("an element twice", r#"{"Id": "a", "Id": "b", "Statement": []}"#, "\"Id\" is there twice"),
        whole("an element twice, once escaped", r#"{"Id": "a", "\u0049d": "b"}"#, "\"Id\" is there twice"),
    ]
}

fn statements() -> Vec<Case> {
    let twice = r#"{"Sid": "a", "Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}"#;
    let long = format!(r#"{{"AWS": "{}"}}"#, "a".repeat(257));
    vec![
        whole("a Sid twice", &format!(r#"{{"Statement": [{twice}, {twice}]}}"#), "the Sid \"a\" is there twice"),
        with("a Sid that is a number", "Sid", "1", "the Sid of statement 1 is a number"),
        statement("no Effect", r#""Principal": "*", "Action": "*", "Resource": "*""#, "has no Effect"),
        statement("no Principal", r#""Effect": "Allow", "Action": "*", "Resource": "*""#, "has no Principal"),
        statement("no Action", r#""Effect": "Allow", "Principal": "*", "Resource": "*""#, "has no Action"),
        statement("no Resource", r#""Effect": "Allow", "Principal": "*", "Action": "*""#, "has no Resource"),
        with("an Effect in another case", "Effect", r#""allow""#, "\"Allow\" or \"Deny\""),
        with("an Effect that is true", "Effect", "true", "is a truth value"),
        with("NotAction", "NotAction", r#""kms:Decrypt""#, "\"NotAction\" of statement 1 is not supported"),
        with("NotResource", "NotResource", r#""*""#, "\"NotResource\""),
        with("Principal and NotPrincipal", "NotPrincipal", r#"{"AWS": "alice"}"#, "Principal and NotPrincipal"),
        with("a Principal that is a name", "Principal", r#""alice""#, "write {\"AWS\": …}"),
        with("a Principal that is a list", "Principal", r#"["*"]"#, "is a list"),
        with("a Service", "Principal", r#"{"Service": "s3.amazonaws.com"}"#, "\"Service\""),
        with("a Service beside AWS", "Principal", r#"{"AWS": "*", "Service": "s3"}"#, "\"Service\""),
        with("a Principal of nobody", "Principal", "{}", "has no AWS"),
        with("an empty list of principals", "Principal", r#"{"AWS": []}"#, "empty list"),
        with("an empty principal", "Principal", r#"{"AWS": ""}"#, "is empty"),
        with("a principal with a star", "Principal", r#"{"AWS": "ali*"}"#, "wildcard"),
        with("a principal with a question mark", "Principal", r#"{"AWS": "alic?"}"#, "wildcard"),
        with("a principal with a line end", "Principal", r#"{"AWS": "a\nb"}"#, "control character"),
        with("a principal that is too long", "Principal", &long, "256 characters"),
        with("a principal that is a number", "Principal", r#"{"AWS": [111122223333]}"#, "is a number"),
        statement(
            "NotPrincipal of everyone",
            r#""Effect": "Deny", "NotPrincipal": "*", "Action": "*", "Resource": "*""#,
            "apply to nobody",
        ),
        with("an action of another service", "Action", r#""s3:GetObject""#, "\"s3:GetObject\""),
        with("an action that AWS has and keys here have not", "Action", r#""kms:Sign""#, "\"kms:Sign\""),
        with("an action that no key has", "Action", r#""kms:CreateKey""#, "no action on a key"),
        with("an action without the service", "Action", r#""Decrypt""#, "\"Decrypt\""),
        with("an action with a wildcard for nothing", "Action", r#""kms:Sign*""#, "\"kms:Sign*\""),
        with("one unknown action of two", "Action", r#"["kms:Decrypt", "kms:Decipher"]"#, "\"kms:Decipher\""),
        with("an action with a space", "Action", r#""kms:Decrypt ""#, "\"kms:Decrypt \""),
        with("an empty list of actions", "Action", "[]", "empty list"),
        with("an action that is an object", "Action", "{}", "is an object"),
        with("an ARN of AWS", "Resource", r#""arn:aws:kms:*""#, "matches no key"),
        with("an alias", "Resource", r#""alias/billing""#, "matches no key"),
        with("a key id alone", "Resource", r#""0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab""#, "matches no key"),
        with("a name without a key", "Resource", r#""envelock:eu-west-1""#, "matches no key"),
        with("an empty resource", "Resource", r#""""#, "matches no key"),
        with("a variable in a resource", "Resource", r#""envelock:${aws:username}:*""#, "variable"),
    ]
}

fn conditions() -> Vec<Case> {
    let tenant = "kms:EncryptionContext:tenant";
    let (acme, now) = (r#""acme""#, "aws:CurrentTime");
    vec![
        with("an empty Condition", "Condition", "{}", "is empty"),
        with("a Condition that is a list", "Condition", "[]", "is a list"),
        with("an operator without keys", "Condition", r#"{"StringEquals": {}}"#, "no condition key"),
        with("an operator that is text", "Condition", r#"{"StringEquals": "x"}"#, "is a string"),
        with(
            "a condition key twice",
            "Condition",
            r#"{"StringEquals": {"kms:EncryptionContext:a": "1", "kms:EncryptionContext:a": "2"}}"#,
            "is there twice",
        ),
        with(
            "an operator twice",
            "Condition",
            r#"{"Bool": {"kms:EncryptionContext:a": true}, "Bool": {"kms:EncryptionContext:b": true}}"#,
            "\"Bool\" is there twice",
        ),
        condition("an unknown operator", "StringMatches", tenant, acme, "\"StringMatches\""),
        condition("an operator in another case", "stringEquals", tenant, acme, "\"stringEquals\""),
        condition("an operator without case", "StringEqualsIgnoreCase", tenant, acme, "\"StringEqualsIgnoreCase\""),
        condition("StringNotLike", "StringNotLike", tenant, acme, "\"StringNotLike\""),
        condition("IfExists", "StringEqualsIfExists", tenant, acme, "\"StringEqualsIfExists\""),
        condition("Null", "Null", tenant, "true", "\"Null\""),
        condition("a numeric operator", "NumericEquals", tenant, "1", "\"NumericEquals\""),
        condition("another date operator", "DateEquals", now, r#""2026-01-01""#, "\"DateEquals\""),
        condition("an address", "IpAddress", "aws:SourceIp", r#""10.0.0.0/8""#, "\"IpAddress\""),
        condition(
            "a set operator in another case",
            "forAllValues:StringEquals",
            tenant,
            acme,
            "\"forAllValues:StringEquals\"",
        ),
        condition(
            "two set operators",
            "ForAnyValue:ForAllValues:StringEquals",
            tenant,
            acme,
            "ForAnyValue:ForAllValues",
        ),
        condition("a set operator alone", "ForAllValues:", tenant, acme, "\"ForAllValues:\""),
        condition("a key of AWS that is not here", "StringEquals", "kms:ViaService", acme, "\"kms:ViaService\""),
        condition("a key of another service", "StringEquals", "s3:prefix", acme, "\"s3:prefix\""),
        condition(
            "an encryption context without a key",
            "StringEquals",
            "kms:EncryptionContext:",
            acme,
            "kms:EncryptionContext:",
        ),
        condition(
            "a key's name without its service",
            "StringEquals",
            "EncryptionContextKeys",
            acme,
            "\"EncryptionContextKeys\"",
        ),
        condition(
            "many values without a set operator",
            "StringEquals",
            "kms:EncryptionContextKeys",
            acme,
            "ForAnyValue:StringEquals",
        ),
        condition(
            "operations without a set operator",
            "StringEquals",
            "kms:GrantOperations",
            r#""Decrypt""#,
            "ForAllValues:StringEquals",
        ),
        condition("a time as text", "StringEquals", now, acme, "which is not for what it holds"),
        condition(
            "an encryption context as a time",
            "DateLessThan",
            tenant,
            r#""2026-01-01""#,
            "not for what it holds",
        ),
        condition("a principal as a truth value", "Bool", "kms:GranteePrincipal", "true", "not for what it holds"),
        condition(
            "a truth value as text",
            "StringEquals",
            "kms:BypassPolicyLockoutSafetyCheck",
            r#""true""#,
            "not for what it holds",
        ),
        condition("no value", "StringEquals", tenant, "[]", "empty list"),
        condition("a value that is null", "StringEquals", tenant, "null", "in quotes"),
        condition("a value that is a number", "StringEquals", tenant, "7", "in quotes"),
        condition("a value that is an object", "StringLike", tenant, "{}", "in quotes"),
        condition("a list in a list of values", "StringEquals", tenant, r#"[["acme"]]"#, "in quotes"),
        condition("a variable", "StringEquals", tenant, r#""${aws:username}""#, "variable"),
        condition("a variable in a pattern", "StringLike", tenant, r#""a-${aws:PrincipalTag/team}-*""#, "variable"),
        condition("a variable that does not end", "StringLike", tenant, r#""a${*""#, "variable"),
        condition("a truth value in words", "Bool", tenant, r#""yes""#, "neither true nor false"),
        condition("a truth value that is a number", "Bool", tenant, "1", "neither true nor false"),
        condition("a date in words", "DateLessThan", now, r#""tomorrow""#, "cannot be read"),
        condition("a year alone", "DateLessThan", now, r#""2026""#, "cannot be read"),
        condition("a year as a number", "DateLessThan", now, "2026", "cannot be read"),
        condition("a month alone", "DateLessThan", now, r#""2026-07""#, "cannot be read"),
        condition("a month that is none", "DateLessThan", now, r#""2026-13-01""#, "cannot be read"),
        condition("a day that is none", "DateLessThan", now, r#""2026-02-29""#, "cannot be read"),
        condition("a time without an offset", "DateLessThan", now, r#""2026-07-01T12:00:00""#, "cannot be read"),
        condition("an hour that is none", "DateLessThan", now, r#""2026-07-01T25:00:00Z""#, "cannot be read"),
        condition(
            "a time zone by name",
            "DateLessThan",
            now,
            r#""2026-07-01T12:00:00+02:00[Europe/Berlin]""#,
            "cannot be read",
        ),
        condition("a space for the T", "DateLessThan", now, r#""2026-07-01 12:00:00Z""#, "cannot be read"),
        condition("a date with a wildcard", "DateLessThan", now, r#""2026-07-*""#, "cannot be read"),
        condition("milliseconds", "DateLessThan", now, "1782907200000", "cannot be read"),
        condition("seconds and a part", "DateLessThan", now, "1782907200.5", "cannot be read"),
        condition("seconds before the epoch", "DateLessThan", now, "-86400", "cannot be read"),
        condition("an empty date", "DateLessThan", now, r#""""#, "cannot be read"),
    ]
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (name, text, said) in cases() {
        let error = refused(&text);
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::InvalidInput, Some("MalformedPolicyDocumentException")),
            "{name}"
        );
        let sentence = error.to_string();
        assert!(sentence.contains(said), "{name}: {sentence:?} does not say {said:?}");
    }
}

#[test]
fn an_error_names_the_statement_and_what_is_supported() {
    let text = r#"{"Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"},
        {"Sid": "Ours", "Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {"Null": {}}}
    ]}"#;
    assert!(refused(text).to_string().contains("the Condition of statement 2 (\"Ours\")"));
    let text =
        r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "NotAction": "*"}}"#;
    assert_eq!(
        refused(text).to_string(),
        "the element \"NotAction\" of statement 1 is not supported: there are Effect, Principal, NotPrincipal, Action, \
         Resource, Condition; nothing was changed: correct the policy and put it again"
    );
}

#[test]
fn a_policy_has_at_most_32_768_bytes() {
    let text = |len: usize| {
        let good = r#"{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}}"#;
        format!("{good}{}", " ".repeat(len - good.len()))
    };
    KeyPolicy::parse(&text(32_768)).unwrap();
    let error = refused(&text(32_769));
    assert_eq!((error.kind(), error.code()), (ErrorKind::LimitExceeded, Some("LimitExceededException")));
}

#[test]
fn an_error_quotes_a_part_of_what_is_long() {
    let text = format!(r#"{{"Statement": [], "{}": 1}}"#, "é".repeat(10_000));
    assert!(refused(&text).to_string().len() < 600);
}
