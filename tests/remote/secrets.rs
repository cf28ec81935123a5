//! Credentials, tokens and data keys are in no log, span, metric or error, at whatever level, also where everything fails.

use crate::support::child::{Running, tell, words};
use crate::support::faults::{FaultServer, Reply};
use crate::support::kms::{FakeKms, KEY};
use crate::support::leaks::{Planted, texts};
use crate::support::openbao::Bao;
use crate::support::proxy::{Proxy, Way};
use crate::support::transport::shared;
use crate::support::watch::Everything;
use crate::support::{run, say};
use envelock::{
    AwsCredentials, AwsKmsBuilder, AwsKmsProvider, CacheLimits, DataKey, EncryptionContext, Envelope, HttpPolicy,
    KeyProvider, KmsContext, VaultAuth, VaultBuilder, VaultProvider,
};
use serde_json::json;
use std::time::Duration;

const SECRET: &str = "wJalrXUtnFEMI/PLANTED/SECRETACCESSKEY";
const SESSION: &str = "IQoJb3JpZ2luX2PLANTED-SESSION-TOKEN-of-some-length//////////";
const POD: &str = "PLANTED-token-of-the-pod";
const GIVEN: &str = "PLANTED+secret+that+the+container+gave/12";
const GRANT: &str = "AQpPLANTEDGRANTTOKEN0000000000000000000";
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.PLANTED-web-identity.c2lnbmF0dXJl";
const PASSWORD: &str = "PLANTED-password-of-the-proxy";

/// A data key of the caller's, which goes out to be wrapped.
const OWN: [u8; 32] = *b"PLANTED-data-key-of-the-caller's";

fn impatient() -> HttpPolicy {
    HttpPolicy::default()
        .connect(Duration::from_millis(300))
        .attempt(Duration::from_millis(500))
        .total(Duration::from_secs(3))
        .attempts(3)
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
        .breaker(4, Duration::from_millis(100))
}

/// Makes, opens, wraps and re-encrypts data keys by `provider`; what fails is looked at.
async fn use_all(provider: &dyn KeyProvider, planted: &Planted, errors: &mut Vec<String>) {
    let context = KmsContext::new(&EncryptionContext::from([("tenant", "acme")])).unwrap();
    let mut failed = |error: envelock::Error| {
        planted.assert_not_in_error(&error, "an error");
        errors.push(texts(&error));
    };
    match provider.encrypt_data_key(&DataKey::from_slice(&OWN).unwrap(), &context).await {
        Ok(slots) => {
            for slot in &slots {
                if let envelock::DataKeyAnswer::Failed(error) = provider.decrypt_data_key(slot, &context).await {
                    failed(error);
                }
                if let Err(error) = provider.re_encrypt_data_key(slot, &context).await {
                    failed(error);
                }
            }
        }
        Err(error) => failed(error),
    }
    if let Err(error) = provider.generate_data_key(envelock::DataKeyLength::Bytes32, &context).await {
        failed(error);
    }
    planted.assert_not_in(format!("{provider:?} {provider:#?} {:?}", provider.identity()), "a provider");
}

fn aws(url: &str) -> AwsKmsBuilder {
    AwsKmsProvider::strict([KEY])
        .environment([("PATH", "")])
        .endpoint(url)
        .credentials(AwsCredentials::new("AKIAPLANTED000000000", SECRET).session_token(SESSION))
        .grant_tokens([GRANT])
        .policy(impatient())
        .transport(shared())
}

/// A server that repeats all that it was sent, headers and body, as its error.
fn echo(status: u16) -> FaultServer {
    FaultServer::new(move |request| {
        let said = format!("{:?} {}", request.headers, String::from_utf8_lossy(&request.body));
        Reply::json(status, json!({"__type": "SomethingNew", "message": said, "errors": [said]}))
            .with("X-Echo", SESSION)
    })
}

async fn aws_kms(planted: &Planted, errors: &mut Vec<String>) {
    let kms = FakeKms::new();
    let server = kms.serve();
    // Well, then ill, then dead.
    for percent in [0, 60, 100] {
        kms.fail(percent);
        let provider = aws(&server.url()).build().unwrap();
        for _ in 0..5 {
            use_all(&provider, planted, errors).await;
        }
    }
    kms.fail(0);
    let envelope = Envelope::builder(aws(&server.url()).build().unwrap());
    let envelope = envelope.cache(CacheLimits::default()).build().unwrap();
    let context = EncryptionContext::from([("tenant", "acme")]);
    let sealed = envelope.encrypt(b"attack at dawn", &context).await.unwrap();
    assert_eq!(envelope.decrypt(&sealed, &context).await.unwrap(), b"attack at dawn");

    let proxy = Proxy::before(&server.url());
    for way in [Way::ResetAfterRequest, Way::Half, Way::Garbage, Way::Truncate(40), Way::BlackHole] {
        proxy.set(way);
        use_all(&aws(&format!("http://{}", proxy.address())).build().unwrap(), planted, errors).await;
    }
    for status in [200, 302, 400, 403, 500] {
        use_all(&aws(&echo(status).url()).build().unwrap(), planted, errors).await;
    }
    // TLS that fails, and a proxy whose address has a password.
    use_all(&aws(&Bao::shared().tls_url).build().unwrap(), planted, errors).await;
    let by_proxy = envelock::ReqwestTransport::builder().proxy(format!("http://user:{PASSWORD}@127.0.0.1:9"));
    let by_proxy = aws("https://kms.envelock.invalid").transport(std::sync::Arc::new(by_proxy.build().unwrap()));
    use_all(&by_proxy.build().unwrap(), planted, errors).await;
}

/// Credentials that come over HTTP: from a container's service and for a web identity, well and not.
async fn sources(planted: &Planted, errors: &mut Vec<String>) {
    let kms = FakeKms::new();
    let server = kms.serve();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, JWT).unwrap();
    let given = json!({"AccessKeyId": "ASIAPLANTED000000000", "SecretAccessKey": GIVEN, "Token": SESSION,
        "Expiration": "2099-01-01T00:00:00Z"});
    let xml = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAPLANTED000000000</AccessKeyId>\
         <SecretAccessKey>{GIVEN}</SecretAccessKey><SessionToken>{SESSION}</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    let services = [
        FaultServer::new(move |request| match request.path() {
            "/container" => Reply::json(200, &given),
            _ => Reply::Answer(200, vec![("Content-Type".into(), "text/xml".into())], xml.clone().into_bytes()),
        }),
        // Cut off in the middle of a secret, an echo, and a refusal.
        FaultServer::new(|_| Reply::json(200, format!("{{\"SecretAccessKey\": \"{GIVEN}\", \"Token\": \"{SESSION}"))),
        echo(200),
        echo(403),
    ];
    for (number, service) in services.iter().enumerate() {
        let container = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/container", service.url())),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", POD.to_owned()),
            ("AWS_ENDPOINT_URL_KMS", server.url()),
        ];
        let web = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
            ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/app".to_owned()),
            ("AWS_ENDPOINT_URL_STS", service.url()),
            ("AWS_ENDPOINT_URL_KMS", server.url()),
        ];
        for environment in [container.to_vec(), web.to_vec()] {
            let builder = AwsKmsProvider::strict([KEY]).environment(environment).policy(impatient());
            let failures = errors.len();
            use_all(&builder.transport(shared()).build().unwrap(), planted, errors).await;
            assert_eq!(errors.len() == failures, number == 0, "service {number}: {:?}", &errors[failures..]);
        }
    }
}

async fn vault(bao: &Bao, secret_id: &str, role_id: &str, planted: &Planted, errors: &mut Vec<String>) {
    let key = bao.key();
    let builder = |url: &str, auth: VaultAuth| -> VaultBuilder {
        VaultProvider::builder(key.as_str()).address(url).auth(auth).policy(impatient()).transport(shared())
    };
    let logins = [VaultAuth::token(bao.token.as_str()), VaultAuth::app_role(role_id, secret_id)];
    for auth in logins {
        use_all(&builder(&bao.url, auth).build().unwrap(), planted, errors).await;
    }
    assert!(errors.is_empty(), "{errors:?}");
    let auth = || VaultAuth::token(bao.token.as_str());
    let role = || VaultAuth::app_role(role_id, secret_id);
    for status in [200, 302, 400, 403, 429, 503] {
        let server = echo(status);
        use_all(&builder(&server.url(), auth()).build().unwrap(), planted, errors).await;
        use_all(&builder(&server.url(), role()).build().unwrap(), planted, errors).await;
    }
    let proxy = Proxy::before(&bao.url);
    for way in [Way::ResetAfterRequest, Way::Half, Way::Garbage, Way::Truncate(200)] {
        proxy.set(way);
        use_all(&builder(&format!("http://{}", proxy.address()), role()).build().unwrap(), planted, errors).await;
    }
    use_all(&builder(&bao.tls_url, auth()).build().unwrap(), planted, errors).await;
}

fn scene() {
    let everything = Everything::listen();
    let bao = Bao::shared();
    bao.must("POST", "sys/auth/approle", json!({"type": "approle"}));
    let rules = "path \"transit/*\" { capabilities = [\"update\", \"read\"] }";
    bao.must("PUT", "sys/policies/acl/app", json!({"policy": rules}));
    bao.must("POST", "auth/approle/role/app", json!({"token_policies": "app"}));
    let answer = bao.must("GET", "auth/approle/role/app/role-id", serde_json::Value::Null);
    let role_id = answer["data"]["role_id"].as_str().unwrap().to_owned();
    let answer = bao.must("POST", "auth/approle/role/app/secret-id", json!({}));
    let secret_id = answer["data"]["secret_id"].as_str().unwrap().to_owned();
    let planted = [
        ("secret access key", SECRET),
        ("session token", SESSION),
        ("token of the pod", POD),
        ("secret access key that was given", GIVEN),
        ("grant token", GRANT),
        ("web identity", JWT),
        ("password of the proxy", PASSWORD),
        ("token", bao.token.as_str()),
        ("secret id", secret_id.as_str()),
    ];
    let planted = planted.iter().fold(Planted::default(), |all, (name, secret)| all.text(name, secret));
    let planted = planted.bytes("data key of the caller", &OWN);
    let mut errors = Vec::new();
    run(async {
        vault(&bao, &secret_id, &role_id, &planted, &mut errors).await;
        aws_kms(&planted, &mut errors).await;
        sources(&planted, &mut errors).await;
    });
    let lines = everything.lines();
    let of = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    for line in &lines {
        let found = planted.found_in(line.as_bytes());
        assert!(found.is_empty(), "a line shows {found:?}: {}…", line.chars().take(60).collect::<String>());
    }
    // The net is wide enough: ours and the others' lines are in it, and a secret would be seen.
    for (word, least) in
        [("envelock::http", 100), ("envelock_kms_", 10), ("http.client.request.duration", 10), ("log ", 10)]
    {
        assert!(of(word) >= least, "{} lines of {word}, of {}", of(word), lines.len());
    }
    log::trace!("Authorization: {SECRET}");
    tracing::trace!(token = POD, "sent");
    let lines = everything.lines();
    let seen = lines.iter().filter(|line| !planted.found_in(line.as_bytes()).is_empty()).count();
    assert_eq!(seen, 2);
    tell(format!("{} lines of logs, spans and metrics, {} errors", lines.len() - 2, errors.len()));
}

#[test]
fn no_log_span_metric_or_error_shows_a_secret() {
    if words().is_some() {
        return scene();
    }
    let running = Running::start("secrets::no_log_span_metric_or_error_shows_a_secret", &["scene"]);
    let told = running.succeed();
    say(format!("secrets: none in {}", told.join(", ")));
}
