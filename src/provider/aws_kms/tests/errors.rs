//! Every code of AWS's, in every form that it comes in.

use super::fake::Fake;
use super::{AwsCredentials, KEY, context, on, wait};
use crate::error::{Error, ErrorKind};
use crate::material::DataKeyLength;
use crate::provider::KeyProvider;
use crate::provider::aws_kms::errors::{Class, KNOWN, judge};
use crate::provider::aws_kms::wire::Operation;
use crate::provider::http::exchange::Verdict;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqsign_core::time::Timestamp;
use std::time::Duration;

fn verdict(status: u16, header: Option<&str>, body: &str) -> (&'static str, Error) {
    let mut headers = HeaderMap::new();
    if let Some(code) = header {
        headers.insert("x-amzn-errortype", HeaderValue::from_str(code).unwrap());
    }
    told(judge(Operation::Decrypt, KEY, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()))
}

fn told(verdict: Verdict<()>) -> (&'static str, Error) {
    match verdict {
        Verdict::Done(()) => panic!("an error was taken for an answer"),
        Verdict::Fail(error) => ("fail", error),
        Verdict::Unwell(error) => ("unwell", error),
        Verdict::Throttled { error, .. } => ("throttled", error),
        Verdict::Renew(error) => ("renew", error),
    }
}

#[test]
fn every_known_code_is_known_in_every_form() {
    for known in KNOWN {
        let code = known.code;
        let forms = [
            (Some(code.to_owned()), String::new()),
            (Some(format!("{code}:http://internal.amazon.com/coral/com.amazonaws.kms/")), "{}".to_owned()),
            (None, format!("{{\"__type\":\"{code}\"}}")),
            (None, format!("{{\"__type\":\"com.amazonaws.kms#{code}\",\"Message\":\"why\"}}")),
            (None, format!("{{\"__type\":\"com.amazon.coral.service#{code}\",\"message\":null,\"x\":[1]}}")),
            (None, format!("{{\"code\":\"{code}\",\"message\":\"why\"}}")),
        ];
        for (header, body) in &forms {
            let (what, error) = verdict(400, header.as_deref(), body);
            let expected = match known.class {
                Class::Final | Class::Revoked | Class::Clock => "fail",
                Class::Unwell => "unwell",
                Class::Throttled => "throttled",
                Class::Renew => "renew",
            };
            assert_eq!((what, error.kind()), (expected, known.kind), "{header:?} {body}");
            assert_eq!(error.code(), Some(code));
            let text = error.to_string();
            assert!(text.starts_with(&format!("Decrypt for {KEY} failed: ")) && text.contains("; "), "{text}");
        }
    }
}

#[test]
fn the_codes_of_the_service_model_are_classified_as_their_meaning_asks() {
    use ErrorKind as Kind;
    for (code, status, what, kind) in [
        ("ThrottlingException", 400, "throttled", Kind::Unavailable),
        ("LimitExceededException", 400, "fail", Kind::LimitExceeded),
        ("DependencyTimeoutException", 503, "unwell", Kind::Unavailable),
        ("KMSInternalException", 500, "unwell", Kind::Unavailable),
        ("KeyUnavailableException", 500, "unwell", Kind::Unavailable),
        ("KMSInvalidStateException", 409, "fail", Kind::KeyState),
        ("DisabledException", 409, "fail", Kind::KeyState),
        ("NotFoundException", 404, "fail", Kind::NoMatchingKey),
        ("AccessDeniedException", 400, "fail", Kind::KeyDenied),
        ("InvalidCiphertextException", 400, "fail", Kind::AuthenticationFailed),
        ("IncorrectKeyException", 400, "fail", Kind::AuthenticationFailed),
        ("InvalidKeyUsageException", 400, "fail", Kind::InvalidInput),
        ("InvalidGrantTokenException", 400, "fail", Kind::InvalidInput),
        ("InvalidArnException", 400, "fail", Kind::InvalidInput),
        ("UnsupportedOperationException", 400, "fail", Kind::InvalidInput),
        ("DryRunOperationException", 412, "fail", Kind::InvalidInput),
        ("ExpiredTokenException", 400, "renew", Kind::KeyDenied),
        ("UnrecognizedClientException", 400, "renew", Kind::KeyDenied),
        ("InvalidSignatureException", 400, "renew", Kind::KeyDenied),
        ("RequestExpired", 400, "fail", Kind::KeyDenied),
        ("IncompleteSignature", 400, "fail", Kind::KeyDenied),
        ("NotAuthorized", 400, "fail", Kind::KeyDenied),
        ("OptInRequired", 403, "fail", Kind::KeyDenied),
        ("ServiceUnavailable", 503, "unwell", Kind::Unavailable),
        ("InternalFailure", 500, "unwell", Kind::Unavailable),
        ("ValidationError", 400, "fail", Kind::InvalidInput),
        ("AccessDenied", 403, "fail", Kind::KeyDenied),
        ("Throttling", 400, "throttled", Kind::Unavailable),
    ] {
        let (verdict, error) = verdict(status, Some(code), "{}");
        assert_eq!((verdict, error.kind()), (what, kind), "{code}");
        assert!(error.code().is_some());
    }
}

#[test]
fn an_unknown_code_is_judged_by_its_status_and_named_if_it_is_one() {
    for (status, what, kind) in [
        (400, "fail", ErrorKind::InvalidInput),
        (403, "fail", ErrorKind::KeyDenied),
        (429, "throttled", ErrorKind::Unavailable),
        (500, "unwell", ErrorKind::Unavailable),
        (503, "unwell", ErrorKind::Unavailable),
    ] {
        let (verdict, error) = verdict(status, None, "{\"__type\":\"a.b#BrandNewException\",\"message\":\"secret\"}");
        assert_eq!((verdict, error.kind(), error.code()), (what, kind, None), "{status}");
        assert!(error.to_string().contains("BrandNewException"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    for (header, body) in
        [(Some("NewException:http://internal.amazon.com/"), "{}"), (Some("?!"), "{\"code\":\"NewException\"}")]
    {
        let (what, error) = verdict(400, header, body);
        assert!(what == "fail" && error.to_string().contains("NewException"), "{what}: {error}");
    }
    let (verdict, error) = verdict(302, None, "<html>");
    assert_eq!((verdict, error.kind()), ("fail", ErrorKind::Unavailable));
    for garbage in
        ["", "<html>no</html>", "[]", "{\"__type\":7}", "{\"__type\":\"a\"", "{\"__type\":\"a b\\u001b[31m\"}"]
    {
        let (verdict, error) = self::verdict(400, None, garbage);
        assert_eq!(verdict, "unwell", "{garbage}: a 400 without a code is no answer of a KMS");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}

#[test]
fn a_state_that_passes_is_tried_again_and_others_are_named() {
    let state = |message: &str| {
        let body = format!("{{\"__type\":\"KMSInvalidStateException\",\"message\":\"{message}\"}}");
        verdict(409, None, &body)
    };
    let (what, error) = state("arn:x is pending deletion.");
    assert_eq!((what, error.kind()), ("fail", ErrorKind::KeyState));
    assert!(error.to_string().contains("(it is pending deletion)"), "{error}");
    let (_, error) = state("arn:x is pending import.");
    assert!(error.to_string().contains("material is not imported"), "{error}");
    for passing in ["arn:x is Creating.", "arn:x is Unavailable", "the key is updating"] {
        let (what, error) = state(passing);
        assert_eq!((what, error.kind()), ("throttled", ErrorKind::Unavailable), "{passing}");
        assert_eq!(error.code(), Some("KMSInvalidStateException"));
    }
}

#[test]
fn a_key_that_is_disabled_is_said_to_be_so_once() {
    let (_, error) = verdict(409, None, r#"{"__type":"DisabledException","message":"arn:x is disabled."}"#);
    assert_eq!(error.to_string().matches("is disabled").count(), 1, "{error}");
}

#[test]
fn a_refusal_says_which_policy_as_far_as_aws_tells() {
    let message = "User: arn:aws:iam::111122223333:user/x is not authorized to perform: kms:Decrypt on resource: y because \
                   no identity-based policy allows the kms:Decrypt action";
    let (_, error) = verdict(400, Some("AccessDeniedException"), &format!("{{\"Message\":\"{message}\"}}"));
    assert!(error.to_string().contains("(no identity-based policy allows)"), "{error}");
}

#[test]
fn nothing_that_a_server_writes_is_repeated() {
    let planted = "Zm9ydHktdHdvIHNlY3JldCBieXRlcw";
    for known in KNOWN {
        let body = format!("{{\"__type\":\"{}\",\"message\":\"{planted} pending deletion\"}}", known.code);
        let (_, error) = verdict(400, None, &body);
        assert!(!format!("{error:?} {error}").contains(planted), "{}", known.code);
    }
    let (_, error) = verdict(400, Some(&format!("{planted}{planted}{planted}")), "{}");
    assert!(!error.to_string().contains(planted), "longer than any code");
}

#[test]
fn a_clock_that_is_off_is_said_with_its_distance() {
    let now = Timestamp::now();
    for (theirs, words) in [
        (now + Duration::from_secs(3_600), "60 minutes behind"),
        (now - Duration::from_secs(1_800), "30 minutes ahead"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("date", HeaderValue::from_str(&theirs.format_http_date()).unwrap());
        let body =
            "{\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired: 20261126T150000Z is now\"}";
        let (what, error) = told(judge(Operation::Encrypt, KEY, StatusCode::BAD_REQUEST, &headers, body.as_bytes()));
        assert_eq!((what, error.kind()), ("fail", ErrorKind::KeyDenied));
        assert!(error.to_string().contains("clock is off") && error.to_string().contains(words), "{error}");
    }
    let (_, error) = verdict(400, Some("RequestTimeTooSkewed"), "{}");
    assert!(error.to_string().contains("set the clock"), "{error}");
}

#[test]
fn given_credentials_that_are_refused_are_not_tried_twice() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).credentials(AwsCredentials::new("AKID", "wrong")).build().unwrap();
    fake.answers(400, &[("x-amzn-errortype", "UnrecognizedClientException")], "{}");
    let error = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("UnrecognizedClientException")));
    assert_eq!(fake.sent().len(), 1);
}
