//! Where credentials come from, and when they are renewed.

use super::fake::Fake;
use super::{AwsCredentials, AwsKmsProvider, KEY, OTHER, context, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::material::DataKeyLength;
use crate::provider::aws_kms::builder::AwsKmsBuilder;
use crate::provider::aws_kms::chain::Chain;
use crate::provider::aws_kms::renewal::Credentials;
use crate::provider::aws_kms::source::{AwsRole, Source};
use crate::provider::aws_kms::surroundings::{self, Environment, Programs};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::TransportFailure;
use crate::provider::{KeyProvider, Revocations};
use crate::worker::{self, network};
use reqsign_core::time::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) const OFF: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
const CONTAINER: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/role");

pub(super) fn found(fake: &Fake, variables: &[(&str, &str)]) -> AwsKmsBuilder {
    AwsKmsProvider::strict([KEY])
        .environment(variables.iter().copied())
        .policy(HttpPolicy::default().attempts(1))
        .transport(fake.shared())
}

pub(super) fn generate(provider: &AwsKmsProvider) -> Result<()> {
    wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).map(drop)
}

/// Waits until so many requests were sent since the last look.
fn wait_for(fake: &Fake, count: usize) {
    for _ in 0..500 {
        if fake.count() >= count {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} requests were sent, and not {count}", fake.count());
}

/// The access key that the last request was signed with.
pub(super) fn signer(fake: &Fake) -> String {
    let sent = fake.sent();
    let text = sent.last().unwrap().headers().get("authorization").unwrap().to_str().unwrap();
    text.split(['=', '/']).nth(1).unwrap().to_owned()
}

fn container_gives(fake: &Fake, id: &str, lifetime: u64) {
    let ends = (Timestamp::now() + Duration::from_secs(lifetime)).format_rfc3339_zulu();
    let body = format!(
        "{{\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"hush-secret\",\"Token\":\"hush-token\",\"Expiration\":\"{ends}\"}}"
    );
    fake.answers(200, &[], body);
}

/// A home with AWS's two files.
pub(super) fn home(config: &str, credentials: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
    home
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_environment_comes_before_a_profile_and_a_named_profile_before_all() {
    let fake = Fake::new();
    let home = home(
        "[profile roomy]\naws_access_key_id = AKIDROOMY\naws_secret_access_key = s\n",
        "[default]\naws_access_key_id=AKIDDEFAULT\naws_secret_access_key=s\naws_session_token=t\n",
    );
    let home = ("HOME", text(home.path()));
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "s"), home, OFF];
    generate(&found(&fake, &keys).build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "AKIDENV");
    generate(&found(&fake, &keys).profile("roomy").build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "AKIDROOMY");
    generate(&found(&fake, &[home, OFF]).build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "AKIDDEFAULT");
    generate(&found(&fake, &[home, ("AWS_PROFILE", "roomy"), OFF]).build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "AKIDROOMY");
    let error = generate(&found(&fake, &[home, ("AWS_PROFILE", "gone"), OFF]).build().unwrap()).unwrap_err();
    assert!(error.to_string().contains("no profile gone"), "{error}");
}

#[test]
fn without_any_credentials_the_error_says_what_to_set() {
    let fake = Fake::new();
    let error = generate(&found(&fake, &[("HOME", "/nonexistent"), OFF]).build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    assert!(error.to_string().contains("set AWS_PROFILE"), "{error}");
    assert_eq!(fake.sent().len(), 0);
}

#[test]
fn the_instance_is_asked_last_and_with_a_session_token_of_its_own() {
    let fake = Fake::new();
    let ends = (Timestamp::now() + Duration::from_secs(9_000)).format_rfc3339_zulu();
    fake.answers(200, &[], "imds-token").answers(200, &[], "role-name").answers(
        200,
        &[],
        format!("{{\"Code\":\"Success\",\"AccessKeyId\":\"ASIAINSTANCE\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\"Expiration\":\"{ends}\"}}"),
    );
    let provider = found(&fake, &[("HOME", "/nonexistent")]).build().unwrap();
    generate(&provider).unwrap();
    let sent = fake.sent();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0].uri().to_string(), "http://169.254.169.254/latest/api/token");
    assert_eq!(sent[2].headers().get("x-aws-ec2-metadata-token").unwrap(), "imds-token");
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "ASIAINSTANCE");
}

#[test]
fn credentials_of_a_container_are_asked_for_once_and_again_ahead_of_their_end() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod"), OFF]).build().unwrap();
    container_gives(&fake, "ASIAFIRST", 3_600);
    generate(&provider).unwrap();
    let sent = fake.sent();
    let token = sent[0].headers().get("authorization").unwrap();
    assert!(token == "pod" && token.is_sensitive());
    for _ in 0..3 {
        generate(&provider).unwrap();
        assert_eq!(signer(&fake), "ASIAFIRST");
    }
}

#[test]
fn credentials_that_the_kms_calls_expired_are_renewed_within_the_call() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    container_gives(&fake, "ASIAFIRST", 3_600);
    fake.answers(400, &[("x-amzn-errortype", "ExpiredTokenException")], "{}");
    container_gives(&fake, "ASIASECOND", 3_600);
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "ASIASECOND");
}

#[test]
fn a_source_is_asked_in_one_runtime_so_that_its_connections_stay() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    container_gives(&fake, "ASIAFIRST", 3_600);
    fake.answers(400, &[("x-amzn-errortype", "ExpiredTokenException")], "{}");
    container_gives(&fake, "ASIASECOND", 3_600);
    generate(&provider).unwrap();
    let of_blocking = Some(worker::waiting(network::runtime).unwrap().unwrap().id());
    // The calls themselves are made here, where no runtime is.
    assert_eq!(fake.runtimes(), [of_blocking, None, of_blocking, None]);
}

#[test]
fn refused_credentials_that_the_source_gives_again_are_not_sent_again() {
    let fake = Fake::new();
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDWRONG"), ("AWS_SECRET_ACCESS_KEY", "s"), OFF];
    let provider = found(&fake, &keys).build().unwrap();
    for _ in 0..3 {
        fake.answers(400, &[("x-amzn-errortype", "InvalidSignatureException")], "{}");
        let error = generate(&provider).unwrap_err();
        assert_eq!(error.code(), Some("InvalidSignatureException"), "{error}");
        assert_eq!(fake.sent().len(), 1);
    }
}

#[test]
fn a_source_whose_every_credentials_are_refused_is_not_asked_by_every_call() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    let refuse = || fake.answers(400, &[("x-amzn-errortype", "InvalidSignatureException")], "{}");
    let asked = || fake.sent().iter().filter(|request| request.uri().path() == "/role").count();
    container_gives(&fake, "ASIAFIRST", 3_600);
    refuse();
    container_gives(&fake, "ASIASECOND", 3_600);
    refuse();
    let began = std::time::Instant::now();
    assert_eq!(generate(&provider).unwrap_err().code(), Some("InvalidSignatureException"));
    assert_eq!(asked(), 2, "at first, and after the refusal");
    for _ in 0..5 {
        refuse();
        assert_eq!(generate(&provider).unwrap_err().code(), Some("InvalidSignatureException"));
        assert_eq!(asked(), 0);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Later they may be good again.
    std::thread::sleep(Duration::from_millis(10_100));
    refuse();
    container_gives(&fake, "ASIATHIRD", 3_600);
    generate(&provider).unwrap();
    assert_eq!(asked(), 1);
}

#[test]
fn credentials_that_are_newer_than_the_refused_are_taken_without_asking() {
    let fake = Fake::new();
    let environment = Environment::of([CONTAINER, OFF]);
    let context = surroundings::context(&environment, &fake.shared(), Programs::Refused);
    let chain = Chain::new(environment, None, Programs::Refused, "eu-central-1".to_owned(), Revocations::default());
    let credentials = Arc::new(Credentials::new(Source::Found(Box::new(chain)), context));
    container_gives(&fake, "ASIAFIRST", 3_600);
    let first = wait(credentials.current()).unwrap().number();
    container_gives(&fake, "ASIASECOND", 3_600);
    assert!(wait(credentials.renew(first)).unwrap());
    assert!(wait(credentials.renew(first)).unwrap(), "of a call that was signed with the first as well");
    let second = wait(credentials.current()).unwrap().number();
    assert!(!wait(credentials.renew(second)).unwrap());
    assert_eq!(fake.sent().len(), 2);
}

#[test]
fn a_renewal_ahead_of_the_end_costs_no_call_any_time_whatever_becomes_of_it() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    // Dates are in whole seconds: signed with for 12 to 13 s, and renewed in the last three of them.
    container_gives(&fake, "ASIAFIRST", 24);
    generate(&provider).unwrap();
    std::thread::sleep(Duration::from_millis(10_500));
    fake.sent();
    // The source hangs; twenty calls go on, and one renewal is under way.
    fake.hangs("/role");
    let began = std::time::Instant::now();
    for _ in 0..20 {
        generate(&provider).unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    wait_for(&fake, 21);
    assert_eq!(fake.sent().len(), 21, "the source was asked once");
    // It answers at last, and the next call has what it gave.
    container_gives(&fake, "ASIASECOND", 3_600);
    fake.goes_on();
    std::thread::sleep(Duration::from_millis(200));
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "ASIASECOND");
}

#[test]
fn a_source_that_fails_ahead_of_the_end_fails_no_call() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    container_gives(&fake, "ASIAFIRST", 24);
    generate(&provider).unwrap();
    std::thread::sleep(Duration::from_millis(10_500));
    fake.fails_at("/role");
    for _ in 0..5 {
        generate(&provider).unwrap();
    }
    assert_eq!(signer(&fake), "ASIAFIRST");
    std::thread::sleep(Duration::from_millis(2_800));
    // With nothing left, it is asked in spite of the pause.
    fake.goes_on();
    container_gives(&fake, "ASIASECOND", 3_600);
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "ASIASECOND");
}

#[test]
fn a_call_that_is_dropped_or_not_polled_holds_no_other_up() {
    use futures_util::FutureExt;
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    fake.hangs("/role");
    let context = context();
    let mut stuck = Box::pin(provider.generate_data_key(DataKeyLength::Bytes32, &context));
    assert!((&mut stuck).now_or_never().is_none());
    wait_for(&fake, 1);
    drop(provider.generate_data_key(DataKeyLength::Bytes32, &context).now_or_never());
    container_gives(&fake, "ASIAFIRST", 3_600);
    fake.goes_on();
    generate(&provider).unwrap();
    let asked = fake.sent().iter().filter(|request| request.uri().path() == "/role").count();
    assert_eq!(asked, 1, "once for all");
    drop(stuck);
}

#[test]
fn a_failure_of_a_source_that_passes_fails_no_call() {
    let fake = Fake::new();
    fake.answers(503, &[], "");
    fake.fails(TransportFailure::Broken);
    container_gives(&fake, "ASIATHIRD", 3_600);
    generate(&found(&fake, &[CONTAINER, OFF]).build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "ASIATHIRD");
}

#[test]
fn a_date_at_the_end_of_time_is_an_error_or_late_and_no_panic() {
    for (date, good) in
        [("-009999-01-02T01:59:59Z", false), ("9999-12-30T22:00:00Z", true), ("1970-01-01T00:00:00Z", false)]
    {
        let fake = Fake::new();
        let body = format!(
            "{{\"AccessKeyId\":\"ASIADATE\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\"Expiration\":\"{date}\"}}"
        );
        fake.answers(200, &[], body);
        match generate(&found(&fake, &[CONTAINER, OFF]).build().unwrap()) {
            Ok(()) => assert!(good, "{date}"),
            Err(error) => assert!(!good && error.kind() == ErrorKind::KeyDenied, "{date}: {error}"),
        }
    }
}

#[test]
fn an_instance_that_is_there_and_fails_is_no_end_of_the_search() {
    let fake = Fake::new();
    let provider = || found(&fake, &[("HOME", "/nonexistent")]).build().unwrap();
    // Three attempts.
    for failure in [TransportFailure::Timeout, TransportFailure::Timeout, TransportFailure::Timeout] {
        fake.fails(failure);
    }
    let error = generate(&provider()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    fake.fails(TransportFailure::Connect);
    let error = generate(&provider()).unwrap_err();
    assert!(error.kind() == ErrorKind::KeyDenied && error.to_string().contains("no AWS credentials"), "{error}");
    // A token that the service does not take any more is not kept.
    let ends = (Timestamp::now() + Duration::from_secs(9_000)).format_rfc3339_zulu();
    fake.sent();
    fake.answers(200, &[], "old-token").answers(503, &[], "").answers(200, &[], "new-token").answers(200, &[], "role");
    let gives = format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"ASIANEW\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\"Expiration\":\"{ends}\"}}"
    );
    fake.answers(200, &[], gives);
    generate(&provider()).unwrap();
    let sent = fake.sent();
    let tokens: Vec<_> = sent.iter().filter_map(|request| request.headers().get("x-aws-ec2-metadata-token")).collect();
    assert_eq!(tokens, ["old-token", "new-token", "new-token"]);
    assert!(tokens.iter().all(|token| token.is_sensitive()));
}

#[test]
fn a_changed_file_of_awss_is_another_identity_and_makes_cached_keys_stale() {
    let fake = Fake::new();
    let keys = |id: &str| format!("[default]\naws_access_key_id={id}\naws_secret_access_key=s\n");
    let home = home("", &keys("AKIDALICE"));
    let variables = [("HOME", text(home.path())), OFF];
    let alice = found(&fake, &variables).build().unwrap();
    let same = found(&fake, &variables).build().unwrap();
    assert_eq!(alice.identity(), same.identity());
    generate(&alice).unwrap();
    let before = alice.revocations().unwrap().epoch();
    std::fs::write(home.path().join(".aws/credentials"), keys("AKIDBOB")).unwrap();
    let bob = found(&fake, &variables).build().unwrap();
    assert_ne!(alice.identity(), bob.identity());
    // Under one provider, when it looks again.
    fake.answers(400, &[("x-amzn-errortype", "ExpiredTokenException")], "{}");
    generate(&alice).unwrap();
    assert_eq!(signer(&fake), "AKIDBOB");
    assert_ne!(alice.revocations().unwrap().epoch(), before);
}

#[test]
fn names_are_asked_about_with_the_providers_own_credentials() {
    let fake = Fake::new();
    let [app, old] = ["alias/app", "alias/old"].map(|name| format!("arn:aws:kms:eu-central-1:111122223333:{name}"));
    fake.knows_alias(&app, KEY);
    fake.knows_alias(&old, OTHER);
    let on = |variables: &[(&str, &str)]| {
        let builder = AwsKmsProvider::strict([app.clone()]).also_opens([old.clone()]).transport(fake.shared());
        wait(builder.environment(variables.iter().copied()).connect()).unwrap()
    };
    container_gives(&fake, "ASIAONCE", 3_600);
    let provider = on(&[CONTAINER, OFF]);
    generate(&provider).unwrap();
    let paths: Vec<_> = fake.sent().iter().map(|request| request.uri().path().to_owned()).collect();
    assert_eq!(paths, ["/role", "/", "/", "/"], "once for two names and the provider");
    // What they find in a changed file still ends what caches hold.
    let keys = |id: &str| format!("[default]\naws_access_key_id={id}\naws_secret_access_key=s\n");
    let home = home("", &keys("AKIDALICE"));
    let provider = on(&[("HOME", text(home.path())), OFF]);
    let before = provider.revocations().unwrap().epoch();
    std::fs::write(home.path().join(".aws/credentials"), keys("AKIDBOB")).unwrap();
    fake.answers(400, &[("x-amzn-errortype", "ExpiredTokenException")], "{}");
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "AKIDBOB");
    assert_ne!(provider.revocations().unwrap().epoch(), before);
}

#[test]
fn a_source_that_fails_is_named_and_its_answer_is_not_repeated() {
    let fake = Fake::new();
    let provider = found(&fake, &[CONTAINER, OFF]).build().unwrap();
    let refused = |error: Error, kind: ErrorKind| {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("the container"), "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    };
    fake.answers(403, &[], "hush-secret");
    refused(generate(&provider).unwrap_err(), ErrorKind::KeyDenied);
    let garbage = "{\"AccessKeyId\":\"hush\",\"SecretAccessKey\":{\"hush\":1}}";
    for (status, body) in [(500, "hush-secret"), (200, garbage)] {
        fake.answers(status, &[], body).answers(status, &[], body).answers(status, &[], body);
        refused(generate(&provider).unwrap_err(), ErrorKind::Unavailable);
    }
    fake.fails(TransportFailure::Connect).fails(TransportFailure::Connect).fails(TransportFailure::Connect);
    refused(generate(&provider).unwrap_err(), ErrorKind::Unavailable);
    let plain = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/role"), OFF];
    fake.sent();
    generate(&found(&fake, &plain).build().unwrap()).unwrap_err();
    assert_eq!(fake.sent().len(), 0, "nothing is sent in the clear");
    container_gives(&fake, "ASIAOLD", 5);
    let error = generate(&provider).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

fn sts_gives(fake: &Fake, action: &str, id: &str) {
    let ends = (Timestamp::now() + Duration::from_secs(3_600)).format_rfc3339_zulu();
    fake.answers(
        200,
        &[],
        format!(
            "<{action}Response><{action}Result><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s\
             </SecretAccessKey><SessionToken>t</SessionToken><Expiration>{ends}</Expiration></Credentials>\
             </{action}Result></{action}Response>"
        ),
    );
}

#[test]
fn a_role_is_assumed_with_the_callers_credentials() {
    let fake = Fake::new();
    let role = AwsRole::new("arn:aws:iam::111122223333:role/app").session_name("nightly").external_id("hush-id");
    assert!(!format!("{role:?}").contains("hush"));
    let provider =
        found(&fake, &[OFF]).credentials(AwsCredentials::new("AKIDBASE", "s")).assume_role(role).build().unwrap();
    sts_gives(&fake, "AssumeRole", "ASIAROLE0123456789");
    generate(&provider).unwrap();
    let sent = fake.sent();
    let asked = sent[0].uri().to_string();
    assert!(asked.starts_with("https://sts.eu-central-1.amazonaws.com/?"), "{asked}");
    assert!(asked.contains("RoleSessionName=nightly") && asked.contains("ExternalId=hush-id"), "{asked}");
    let text = |at: usize| sent[at].headers().get("authorization").unwrap().to_str().unwrap().to_owned();
    assert!(text(0).contains("AKIDBASE") && text(1).contains("ASIAROLE0123456789"));
    fake.answers(
        403,
        &[],
        "<ErrorResponse><Error><Code>AccessDenied</Code><Message>hush</Message></Error></ErrorResponse>",
    );
    let error = generate(
        &found(&fake, &[OFF])
            .credentials(AwsCredentials::new("AKIDBASE", "s"))
            .assume_role(AwsRole::new("arn:aws:iam::111122223333:role/app"))
            .build()
            .unwrap(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("role/app") && !format!("{error:?}").contains("hush"), "{error:?}");
}

#[test]
fn a_profile_may_assume_a_role_with_another_profile_or_with_itself() {
    let fake = Fake::new();
    let config = "[profile app]\nrole_arn = arn:aws:iam::111122223333:role/app\nsource_profile = base\nexternal_id = ext-id\n\
                  [profile self]\nrole_arn = arn:aws:iam::111122223333:role/app\nsource_profile = self\n\
                  [profile loop]\nrole_arn = arn:aws:iam::111122223333:role/a\nsource_profile = pool\n\
                  [profile pool]\nrole_arn = arn:aws:iam::111122223333:role/b\nsource_profile = loop\n\
                  [profile mfa]\nrole_arn = arn:aws:iam::111122223333:role/a\nsource_profile = base\nmfa_serial = m\n\
                  [profile half]\nrole_arn = arn:aws:iam::111122223333:role/a\n\
                  [profile run]\ncredential_process = /bin/echo {}\n";
    let credentials = "[base]\naws_access_key_id=AKIDBASE\naws_secret_access_key=s\n\
                       [self]\naws_access_key_id=AKIDSELF\naws_secret_access_key=s\n";
    let home = home(config, credentials);
    let variables = [("HOME", text(home.path())), OFF];
    for (profile, base) in [("app", "AKIDBASE"), ("self", "AKIDSELF")] {
        sts_gives(&fake, "AssumeRole", "ASIAROLE0123456789");
        generate(&found(&fake, &variables).profile(profile).build().unwrap()).unwrap();
        let sent = fake.sent();
        assert!(sent[0].headers().get("authorization").unwrap().to_str().unwrap().contains(base), "{profile}");
    }
    for (profile, why) in [
        ("loop", "too many roles"),
        ("mfa", "second factor"),
        ("half", "source_profile"),
        ("run", "`run_credential_process`"),
    ] {
        let error = generate(&found(&fake, &variables).profile(profile).build().unwrap()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(fake.sent().len(), 0);
    }
}

#[test]
fn a_web_identity_sends_its_token_in_the_body_and_not_in_the_address() {
    let fake = Fake::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hush-jwt\n").unwrap();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pod"),
        ("HOME", "/nonexistent"),
        OFF,
    ];
    sts_gives(&fake, "AssumeRoleWithWebIdentity", "ASIAWEB0123456789");
    let provider = found(&fake, &variables).build().unwrap();
    generate(&provider).unwrap();
    let sent = fake.sent();
    assert_eq!(sent[0].uri().to_string(), "https://sts.eu-central-1.amazonaws.com/");
    assert!(String::from_utf8_lossy(sent[0].body()).contains("WebIdentityToken=hush-jwt"));
    std::fs::remove_file(&file).unwrap();
    let error = generate(&found(&fake, &variables).build().unwrap()).unwrap_err();
    assert!(error.to_string().contains("the web identity is not set up"), "{error}");
}

#[test]
fn an_sso_login_is_taken_from_the_cache_of_its_session() {
    let fake = Fake::new();
    let home = home(
        "[profile corp]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = dev\n\
         [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
        "",
    );
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let variables = [("HOME", text(home.path())), OFF];
    let provider = || found(&fake, &variables).profile("corp").build().unwrap();
    let error = generate(&provider()).unwrap_err();
    assert!(error.to_string().contains("run `aws sso login`"), "{error}");
    let ends = Timestamp::now() + Duration::from_secs(3_600);
    let login = format!("{{\"accessToken\":\"hush\",\"expiresAt\":\"{}\"}}", ends.format_rfc3339_zulu());
    std::fs::write(cache.join(format!("{}.json", reqsign_core::hash::hex_sha1(b"corp"))), login).unwrap();
    let millis = ends.as_second() * 1_000;
    fake.answers(
        200,
        &[],
        format!("{{\"roleCredentials\":{{\"accessKeyId\":\"ASIASSO\",\"secretAccessKey\":\"s\",\"sessionToken\":\"t\",\"expiration\":{millis}}}}}"),
    );
    generate(&provider()).unwrap();
    let sent = fake.sent();
    assert_eq!(sent[0].uri().host().unwrap(), "portal.sso.eu-west-1.amazonaws.com");
    let token = sent[0].headers().get("x-amz-sso_bearer_token").unwrap();
    assert!(token == "hush" && token.is_sensitive());
    assert!(sent[1].headers().get("authorization").unwrap().to_str().unwrap().contains("ASIASSO"));
}

#[test]
fn an_sso_region_or_date_that_is_none_is_refused() {
    let fake = Fake::new();
    let config =
        "[default]\nsso_start_url = https://corp.example/start\nsso_account_id = 111122223333\nsso_role_name = dev\n";
    let home = home(&format!("{config}sso_region = x.evil.example/\n"), "");
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let file = cache.join(format!("{}.json", reqsign_core::hash::hex_sha1(b"https://corp.example/start")));
    std::fs::write(file, "{\"accessToken\":\"hush\",\"expiresAt\":\"9999-01-01T00:00:00Z\"}").unwrap();
    // Not where this says either: AWS's own programs do not know it.
    let variables = [("HOME", text(home.path())), ("AWS_SSO_ENDPOINT", "https://evil.example"), OFF];
    let error = generate(&found(&fake, &variables).build().unwrap()).unwrap_err();
    assert_eq!((error.kind(), fake.sent().len()), (ErrorKind::InvalidInput, 0), "{error}");
    std::fs::write(home.path().join(".aws/config"), format!("{config}sso_region = eu-west-1\n")).unwrap();
    let gives = "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"s\",\"sessionToken\":\"t\",\"expiration\":-377705023201000}}";
    fake.answers(200, &[], gives);
    let error = generate(&found(&fake, &variables).build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied, "{error}");
    assert_eq!(fake.sent()[0].uri().host().unwrap(), "portal.sso.eu-west-1.amazonaws.com");
}

#[test]
fn a_profiles_program_is_run_if_it_is_asked_for() {
    let fake = Fake::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answer.json");
    std::fs::write(
        &file,
        "{\"Version\":1,\"AccessKeyId\":\"ASIAPROGRAM\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\"}",
    )
    .unwrap();
    let home = home(&format!("[default]\ncredential_process = /bin/cat {}\n", text(&file)), "");
    let provider = found(&fake, &[("HOME", text(home.path())), OFF]).run_credential_process().build().unwrap();
    generate(&provider).unwrap();
    assert_eq!(signer(&fake), "ASIAPROGRAM");
}

#[test]
fn a_key_without_a_region_takes_that_of_the_environment_or_of_the_profile() {
    let fake = Fake::new();
    fake.knows_alias("alias/app", KEY);
    let home = home("[default]\nregion = eu-central-1\naws_access_key_id=A\naws_secret_access_key=s\n", "");
    for variables in [
        vec![("HOME", text(home.path())), OFF],
        vec![("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")],
        vec![("AWS_DEFAULT_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")],
    ] {
        let builder = AwsKmsProvider::strict(["alias/app"]).environment(variables).transport(fake.shared());
        let provider = wait(builder.connect()).unwrap();
        assert_eq!(provider.key_arns().collect::<Vec<_>>(), [KEY]);
    }
}
