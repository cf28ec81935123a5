//! Failover between two Regions of one multi-Region key, and between a KMS and another.

use crate::support::aws::Account;
use crate::support::openbao::Bao;
use crate::support::run;
use crate::support::sockets::{Refusing, Unreachable};
use envelock::{
    AwsCredentials, AwsKmsProvider, EncryptionContext, Envelope, ErrorKind, FailoverProvider, Header, HttpPolicy,
    KeyProvider, ReqwestTransport, VaultAuth, VaultProvider,
};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Shared = Arc<dyn KeyProvider>;

fn aws(account: &Account, key: &str, endpoint: &str, attempts: u32) -> Shared {
    let policy = HttpPolicy::default().attempts(attempts).total(Duration::from_secs(5));
    let credentials = AwsCredentials::new(account.id.as_str(), account.secret.as_str());
    let builder = AwsKmsProvider::strict([key]).credentials(credentials).endpoint(endpoint).policy(policy);
    Arc::new(builder.build().unwrap())
}

fn envelope(provider: FailoverProvider) -> Envelope {
    Envelope::builder(provider).build().unwrap()
}

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn writer(sealed: &[u8]) -> String {
    Header::parse(sealed).unwrap().slots()[0].key_id_text()
}

#[test]
fn a_region_that_is_down_is_left_and_the_other_opens_what_it_wrote() {
    let account = Account::ministack("us-east-1");
    let primary = account.key_with(json!({"MultiRegion": true}));
    account.kms("ReplicateKey", json!({"KeyId": primary, "ReplicaRegion": "eu-west-1"}));
    let replica = primary.replace("us-east-1", "eu-west-1");
    let refusing = Refusing::new();
    let dead = format!("http://{}", refusing.address());
    let here = |endpoint: &str| aws(&account, &primary, endpoint, 1);
    let there = || aws(&account, &replica, &account.endpoint, 1);
    run(async {
        let well = envelope(FailoverProvider::in_order(vec![here(&account.endpoint), there()]).unwrap());
        let by_primary = well.encrypt(b"x", &context()).await.unwrap();
        assert_eq!(writer(&by_primary), primary);
        let without = envelope(FailoverProvider::in_order(vec![here(&dead), there()]).unwrap());
        assert_eq!(without.decrypt(&by_primary, &context()).await.unwrap(), b"x", "the replica opens the primary's");
        let by_replica = without.encrypt(b"y", &context()).await.unwrap();
        assert_eq!(writer(&by_replica), replica);
        assert_eq!(well.decrypt(&by_replica, &context()).await.unwrap(), b"y", "the primary opens the replica's");
        let neither = FailoverProvider::in_order(vec![here(&dead), aws(&account, &replica, &dead, 1)]).unwrap();
        let error = envelope(neither).encrypt(b"z", &context()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&primary) && error.to_string().contains(&replica), "{error}");
    });
}

#[test]
fn a_silent_primary_costs_the_delay_and_not_its_time_out() {
    let (account, bao) = (Account::moto("eu-west-1"), Bao::shared());
    let (key, transit) = (account.key(), bao.key());
    let silent = Unreachable::new();
    let vault: Shared = Arc::new(
        VaultProvider::builder(transit)
            .address(bao.url.as_str())
            .auth(VaultAuth::token(bao.token.as_str()))
            .build()
            .unwrap(),
    );
    run(async {
        let primary = aws(&account, &key, &format!("http://{}", silent.address()), 1);
        let transport = Arc::new(ReqwestTransport::new().unwrap());
        let provider = FailoverProvider::nearest(vec![primary, vault]).unwrap();
        let envelope = envelope(provider.hedged_after(Duration::from_millis(200), transport));
        let begun = Instant::now();
        let sealed = envelope.encrypt(b"x", &context()).await.unwrap();
        let first = begun.elapsed();
        assert!((Duration::from_millis(200)..Duration::from_millis(2_500)).contains(&first), "{first:?}");
        assert!(writer(&sealed).starts_with("transit/"));
        // Its silence is remembered: it is not asked first again.
        let begun = Instant::now();
        for _ in 0..5 {
            envelope.encrypt(b"x", &context()).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    });
}
