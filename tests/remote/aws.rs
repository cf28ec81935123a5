//! AWS KMS on emulators: with AWS's own client in both directions, under signatures that are verified, and with credentials
//! that end midway. What only a lying or failing server shows is in the fault matrix.

use crate::support::aws::{Account, text};
use crate::support::child::{Running, tell, words};
use crate::support::faults::{FaultServer, Reply};
use crate::support::transport::{Counting, shared};
use crate::support::{run, say};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelock::http::{Request, Response};
use envelock::{
    AwsCredentials, AwsKmsBuilder, AwsKmsProvider, AwsRole, DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey,
    EncryptionContext, Envelope, Error, ErrorKind, ExchangeLimits, HttpPolicy, HttpTransport, KeyProvider, KmsContext,
    TransportError, TransportFailure, async_trait,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn context() -> KmsContext {
    KmsContext::new(&EncryptionContext::from([("tenant", "acme"), ("object", "a \"quoted\" ключ")])).unwrap()
}

fn credentials(account: &Account) -> AwsCredentials {
    let credentials = AwsCredentials::new(account.id.as_str(), account.secret.as_str());
    match &account.token {
        Some(token) => credentials.session_token(token.as_str()),
        None => credentials,
    }
}

/// A builder that calls as `account`, and looks at nothing of whoever runs the tests.
fn called_by(account: &Account, builder: AwsKmsBuilder) -> AwsKmsBuilder {
    builder.environment([("PATH", "")]).endpoint(account.endpoint.as_str()).credentials(credentials(account))
}

pub(crate) fn strict(account: &Account, keys: &[&str]) -> AwsKmsProvider {
    called_by(account, AwsKmsProvider::strict(keys.iter().copied())).transport(shared()).build().unwrap()
}

fn generate(provider: &AwsKmsProvider) -> Result<(DataKey, EncryptedDataKey), Error> {
    let mut made = run(provider.generate_data_key(DataKeyLength::Bytes32, &context()))?;
    Ok((made.key, made.encrypted.remove(0)))
}

fn open(provider: &AwsKmsProvider, slot: &EncryptedDataKey) -> Result<Option<DataKey>, Error> {
    match run(provider.decrypt_data_key(slot, &context())) {
        DataKeyAnswer::Key(key) => Ok(Some(key)),
        DataKeyAnswer::NotMine => Ok(None),
        DataKeyAnswer::Failed(error) => Err(error),
    }
}

fn pairs() -> serde_json::Value {
    json!({"tenant": "acme", "object": "a \"quoted\" ключ"})
}

#[test]
fn what_ours_wraps_opens_by_awss_own_client_and_the_other_way_round() {
    for account in [Account::moto("eu-west-1"), Account::ministack("us-east-1")] {
        let arn = account.key();
        let provider = strict(&account, &[&arn]);
        let (key, slot) = generate(&provider).unwrap();
        let wrapped = run(provider.encrypt_data_key(&key, &context())).unwrap().remove(0);
        for slot in [&slot, &wrapped] {
            assert_eq!(slot.key_id_text(), arn);
            let blob = STANDARD.encode(slot.wrapped());
            let opened =
                account.kms("Decrypt", json!({"CiphertextBlob": blob, "EncryptionContext": pairs(), "KeyId": arn}));
            assert_eq!(text(&opened, "Plaintext"), STANDARD.encode(key.expose()));
        }
        let theirs = json!({"KeyId": arn, "NumberOfBytes": 32, "EncryptionContext": pairs()});
        let made = account.kms("GenerateDataKey", theirs);
        let blob = STANDARD.decode(text(&made, "CiphertextBlob")).unwrap();
        let opened = open(&provider, &EncryptedDataKey::new("aws-kms", arn.as_str(), blob)).unwrap().unwrap();
        assert_eq!(STANDARD.encode(opened.expose()), text(&made, "Plaintext"));
        let given = json!({"KeyId": arn, "Plaintext": STANDARD.encode([7; 32]), "EncryptionContext": pairs()});
        let blob = STANDARD.decode(text(&account.kms("Encrypt", given), "CiphertextBlob")).unwrap();
        let opened = open(&provider, &EncryptedDataKey::new("aws-kms", arn.as_str(), blob)).unwrap().unwrap();
        assert_eq!(opened.expose(), [7; 32]);
    }
}

#[test]
fn re_encrypt_moves_a_data_key_inside_moto_and_its_own_client_opens_it() {
    let account = Account::moto("eu-west-1");
    let (old, new) = (account.key(), account.key());
    let (key, slot) = generate(&strict(&account, &[&old])).unwrap();
    let provider =
        called_by(&account, AwsKmsProvider::strict([new.as_str()])).also_opens([old.as_str()]).build().unwrap();
    let moved = run(provider.re_encrypt_data_key(&slot, &context())).unwrap().unwrap().remove(0);
    assert_eq!(moved.key_id_text(), new);
    let blob = STANDARD.encode(moved.wrapped());
    let opened = account.kms("Decrypt", json!({"CiphertextBlob": blob, "EncryptionContext": pairs()}));
    assert_eq!(text(&opened, "Plaintext"), STANDARD.encode(key.expose()));
    assert_eq!(text(&opened, "KeyId"), new);
}

#[test]
fn an_alias_is_resolved_and_its_arn_stands_in_the_slot() {
    let account = Account::moto("eu-west-1");
    let arn = account.key();
    let id = arn.rsplit('/').next().unwrap();
    account.kms("CreateAlias", json!({"AliasName": "alias/resolved", "TargetKeyId": id}));
    let alias = format!("{}alias/resolved", arn.strip_suffix(&format!("key/{id}")).unwrap());
    for name in [alias.as_str(), "alias/resolved", id] {
        let builder = called_by(&account, AwsKmsProvider::strict([name])).region("eu-west-1");
        let provider = run(builder.connect()).unwrap();
        assert_eq!(provider.key_arns().collect::<Vec<_>>(), [arn.as_str()], "{name}");
        let (_, slot) = generate(&provider).unwrap();
        assert_eq!(slot.key_id_text(), arn);
    }
    let missing = called_by(&account, AwsKmsProvider::strict(["alias/missing"])).region("eu-west-1");
    let error = run(missing.connect()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NoMatchingKey, Some("NotFoundException")));
}

#[test]
fn a_strict_provider_refuses_a_foreign_key_and_discovery_a_foreign_account_without_a_call() {
    let account = Account::moto("eu-west-1");
    let (mine, foreign) = (account.key(), account.key());
    let (_, slot) = generate(&strict(&account, &[&foreign])).unwrap();
    let counting = Counting::new(shared());
    let count = |builder| called_by(&account, builder).transport(Arc::new(counting.clone())).build().unwrap();
    assert!(open(&count(AwsKmsProvider::strict([mine.as_str()])), &slot).unwrap().is_none());
    let discovery =
        |account: &str, region: &str| count(AwsKmsProvider::dangerous_discovery("aws", [account], [region]));
    assert!(open(&discovery("999999999999", "eu-west-1"), &slot).unwrap().is_none());
    assert!(open(&discovery("123456789012", "us-east-1"), &slot).unwrap().is_none());
    assert_eq!(counting.sent(), 0);
    assert!(open(&discovery("123456789012", "eu-west-1"), &slot).unwrap().is_some());
    assert_eq!(counting.sent(), 1);
    // A slot that names my key over a foreign key's blob is asked for with my key's name.
    let forged = EncryptedDataKey::new("aws-kms", mine.as_str(), slot.wrapped());
    let error = open(&strict(&account, &[&mine]), &forged).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::KeyDenied), "{error}");
}

/// What a call of this identity comes to.
fn refused(account: &Account, key: &str) -> Error {
    generate(&strict(account, &[key])).expect_err("it must be refused")
}

#[test]
fn signatures_are_verified_by_ministack() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    generate(&strict(&account, &[&key])).unwrap();
    let wrong = Account { secret: "not-the-secret-of-this-identity".to_owned(), ..account.clone() };
    let error = refused(&wrong, &key);
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("InvalidSignatureException")), "{error}");
    assert!(error.to_string().contains("check the secret access key"), "{error}");
    let nobody = Account { id: "AKIAENVELOCKNOBODY00".to_owned(), ..account };
    let error = refused(&nobody, &key);
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("UnrecognizedClientException")), "{error}");
}

/// Changes a request after it was signed, and what it says of its body as well: ministack takes the header's word for that,
/// where AWS looks.
#[derive(Debug)]
struct Tampering;

#[async_trait]
impl HttpTransport for Tampering {
    async fn send(
        &self,
        request: Request<bytes::Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        let (mut parts, body) = request.into_parts();
        let body = String::from_utf8(body.to_vec()).unwrap().replace("acme", "evil");
        let hash = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        parts.headers.insert("x-amz-content-sha256", hash.parse().unwrap());
        shared().send(Request::from_parts(parts, body.into()), limits).await
    }

    async fn sleep(&self, time: Duration) {
        shared().sleep(time).await;
    }
}

#[test]
fn the_signature_covers_the_body() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let provider =
        called_by(&account, AwsKmsProvider::strict([key.as_str()])).transport(Arc::new(Tampering)).build().unwrap();
    let error = generate(&provider).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("InvalidSignatureException")), "{error}");
}

fn session(account: &Account, seconds: u64) -> Account {
    let role = format!("role-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]});
    let root = Account::ministack_root(&account.region);
    let made = root.call("iam", "CreateRole", json!({"RoleName": role, "AssumeRolePolicyDocument": trust.to_string()}));
    let arn = text(&made.unwrap()["Role"], "Arn").to_owned();
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let put = json!({"RoleName": role, "PolicyName": "all", "PolicyDocument": policy.to_string()});
    root.call("iam", "PutRolePolicy", put).unwrap();
    let asked = json!({"RoleArn": arn, "RoleSessionName": "test", "DurationSeconds": seconds});
    let made = account.call("sts", "AssumeRole", asked).unwrap();
    let got = &made["Credentials"];
    Account {
        id: text(got, "AccessKeyId").to_owned(),
        secret: text(got, "SecretAccessKey").to_owned(),
        token: Some(text(got, "SessionToken").to_owned()),
        ..account.clone()
    }
}

#[test]
fn a_session_needs_its_token() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let session = session(&account, 900);
    generate(&strict(&session, &[&key])).unwrap();
    let other = Account { token: Some("bm90IHRoZSB0b2tlbg==".to_owned()), ..session.clone() };
    let error = refused(&other, &key);
    assert_eq!(error.kind(), ErrorKind::KeyDenied, "{error}");
    assert!(!format!("{error:?}").contains(&session.secret), "{error:?}");
}

#[test]
fn a_role_is_assumed_at_ministacks_sts() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let role = json!({"RoleName": "assumed", "AssumeRolePolicyDocument": json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}).to_string()});
    let root = Account::ministack_root("us-east-1");
    let arn = text(&root.call("iam", "CreateRole", role).unwrap()["Role"], "Arn").to_owned();
    let policy =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]});
    let put = json!({"RoleName": "assumed", "PolicyName": "keys", "PolicyDocument": policy.to_string()});
    root.call("iam", "PutRolePolicy", put).unwrap();
    let provider = AwsKmsProvider::strict([key.as_str()])
        .environment([("AWS_ENDPOINT_URL", account.endpoint.as_str())])
        .credentials(credentials(&account))
        .assume_role(AwsRole::new(arn.as_str()).session_name("nightly"))
        .build()
        .unwrap();
    let (made, slot) = generate(&provider).unwrap();
    assert_eq!(open(&provider, &slot).unwrap().unwrap().expose(), made.expose());
}

#[test]
fn permissions_and_states_are_told_as_they_are() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let nothing = json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key});
    let reader = Account::ministack_root("us-east-1").user("only-decrypts", &nothing);
    let (_, slot) = generate(&strict(&account, &[&key])).unwrap();
    assert!(open(&strict(&reader, &[&key]), &slot).unwrap().is_some());
    let provider = strict(&reader, &[&key]);
    let before = provider.revocations().unwrap().epoch();
    let error = generate(&provider).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyDenied, Some("AccessDeniedException")), "{error}");
    assert_eq!(provider.revocations().unwrap().epoch(), before, "one caller's refusal empties nobody's cache");
    account.kms("DisableKey", json!({"KeyId": key}));
    let error = open(&provider, &slot).unwrap_err();
    assert_ne!(provider.revocations().unwrap().epoch(), before);
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyState, Some("DisabledException")), "{error}");
    account.kms("EnableKey", json!({"KeyId": key}));
    account.kms("ScheduleKeyDeletion", json!({"KeyId": key, "PendingWindowInDays": 7}));
    let error = open(&strict(&account, &[&key]), &slot).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyState, Some("KMSInvalidStateException")), "{error}");
}

/// A transport on which one Region is down.
#[derive(Debug)]
struct Outage {
    region: &'static str,
    met: AtomicUsize,
}

#[async_trait]
impl HttpTransport for Outage {
    async fn send(
        &self,
        request: Request<bytes::Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        let scope = request.headers()["authorization"].to_str().unwrap();
        if scope.contains(&format!("/{}/kms/", self.region)) {
            self.met.fetch_add(1, Ordering::SeqCst);
            return Err(TransportError::new(TransportFailure::Connect, "the Region is down"));
        }
        shared().send(request, limits).await
    }

    async fn sleep(&self, time: Duration) {
        shared().sleep(time).await;
    }
}

#[test]
fn a_multi_region_key_opens_in_the_other_region_while_its_own_is_down() {
    let east = Account::ministack("us-east-1");
    let primary = east.key_with(json!({"MultiRegion": true}));
    east.kms("ReplicateKey", json!({"KeyId": primary, "ReplicaRegion": "eu-west-1"}));
    let replica = primary.replace("us-east-1", "eu-west-1");
    let (key, slot) = generate(&strict(&east, &[&primary])).unwrap();
    // By a provider that knows the key in the other Region only.
    let there = strict(&east, &[&replica]);
    assert_eq!(open(&there, &slot).unwrap().unwrap().expose(), key.expose());
    // And by one that knows both, while the first Region is down.
    let outage = Arc::new(Outage { region: "us-east-1", met: AtomicUsize::new(0) });
    let policy = HttpPolicy::default().attempts(2).backoff(Duration::from_millis(1), Duration::from_millis(2));
    let builder = called_by(&east, AwsKmsProvider::strict([primary.as_str()])).also_opens([replica.as_str()]);
    let both = builder.policy(policy).transport(outage.clone()).build().unwrap();
    assert_eq!(open(&both, &slot).unwrap().unwrap().expose(), key.expose());
    assert_eq!(outage.met.load(Ordering::SeqCst), 2, "the first Region was tried first");
    assert_eq!(generate(&both).unwrap_err().kind(), ErrorKind::Unavailable);
}

fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).unwrap().strftime("%FT%TZ").to_string()
}

#[test]
fn credentials_that_end_midway_are_renewed_without_a_failed_call() {
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let sessions: Vec<Account> = (0..2).map(|_| session(&account, 900)).collect();
    let ids: Vec<_> = sessions.iter().map(|session| session.id.clone()).collect();
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    // The service of a container: credentials that live for 16 s, and a failure between the first and the second.
    let container = FaultServer::new(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let session = &sessions[usize::from(number > 1)];
        if number == 1 {
            return Reply::json(500, "{}");
        }
        let ends = SystemTime::now() + Duration::from_secs(if number == 0 { 16 } else { 3_600 });
        Reply::json(
            200,
            json!({"AccessKeyId": session.id, "SecretAccessKey": session.secret, "Token": session.token, "Expiration": rfc3339(ends)}),
        )
    });
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let provider = AwsKmsProvider::strict([key.as_str()])
        .environment([
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod".to_owned()),
            ("AWS_ENDPOINT_URL_KMS", account.endpoint.clone()),
        ])
        .policy(HttpPolicy::default().attempts(1))
        .transport(Arc::new(Noting { seen: seen.clone() }))
        .build()
        .unwrap();
    let envelope = Envelope::builder(provider).build().unwrap();
    let calls = run(async {
        let (began, mut calls) = (Instant::now(), 0);
        let context = EncryptionContext::from([("tenant", "acme")]);
        while began.elapsed() < Duration::from_secs(8) {
            let four: Vec<_> = (0..4)
                .map(|_| {
                    let (envelope, context) = (envelope.clone(), context.clone());
                    tokio::spawn(async move { envelope.encrypt(b"x", &context).await })
                })
                .collect();
            for task in four {
                task.await.unwrap().unwrap();
                calls += 1;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        calls
    });
    assert_eq!(*seen.lock().unwrap(), ids.iter().cloned().collect::<BTreeSet<_>>(), "both sessions signed");
    assert_eq!(given.load(Ordering::SeqCst), 3, "asked once, once in vain, and once more");
    say(format!("{calls} calls while credentials were renewed, none failed"));
}

/// Notes the access keys that sign.
#[derive(Debug)]
struct Noting {
    seen: Arc<Mutex<BTreeSet<String>>>,
}

#[async_trait]
impl HttpTransport for Noting {
    async fn send(
        &self,
        request: Request<bytes::Bytes>,
        limits: &ExchangeLimits,
    ) -> Result<Response<bytes::Bytes>, TransportError> {
        let signed = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(id) = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()) {
            self.seen.lock().unwrap().insert(id.to_owned());
        }
        shared().send(request, limits).await
    }

    async fn sleep(&self, time: Duration) {
        shared().sleep(time).await;
    }
}

/// The library that puts a process's clock off.
fn skewed(folder: &std::path::Path) -> std::path::PathBuf {
    let library = folder.join("skew.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/remote/skew.c");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    library
}

#[test]
fn a_clock_that_is_off_is_named_as_the_reason() {
    const ME: &str = "aws::a_clock_that_is_off_is_named_as_the_reason";
    if let Some(words) = words() {
        let [endpoint, id, secret, key] = words.try_into().unwrap();
        let account = Account { endpoint, region: "us-east-1".to_owned(), id, secret, token: None };
        return tell(refused(&account, &key));
    }
    let account = Account::ministack("us-east-1");
    let key = account.key();
    let folder = tempfile::tempdir().unwrap();
    let library = skewed(folder.path());
    for (skew, words) in [("3600", "60 minutes ahead"), ("-1800", "30 minutes behind")] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("LD_PRELOAD", &library).env("ENVELOCK_SKEW", skew);
        let mut child = Running::start_by(command, ME, &[&account.endpoint, &account.id, &account.secret, &key]);
        let said = child.line().unwrap();
        assert!(said.contains("clock is off") && said.contains(words), "{said}");
    }
}
