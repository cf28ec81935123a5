//! Several key services at once, one of which is dead: AWS KMS on moto, Transit on OpenBao, and a raw key.

use crate::conformance::{Shared, vault};
use crate::support::aws::Account;
use crate::support::openbao::Bao;
use crate::support::proxy::{Proxy, Way};
use crate::support::transport::shared;
use crate::support::{run, say};
use envelock::fleet::{Files, Inventory, Rewrap, Selection};
use envelock::{
    AwsCredentials, AwsKmsProvider, EncryptedDataKey, EncryptionContext, Envelope, ErrorKind, FileOptions, Header,
    HttpPolicy, Limits, MultiProvider, RawKeyProvider, Secret, read_header,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn context() -> EncryptionContext {
    EncryptionContext::from([("tenant", "acme")])
}

fn raw() -> Shared {
    Arc::new(RawKeyProvider::new("third", Secret::init(|key| key.fill(3))).unwrap())
}

/// A key in moto, behind `proxy`.
fn aws(proxy: &Proxy, key: &str) -> Shared {
    let policy = HttpPolicy::default()
        .attempts(2)
        .attempt(Duration::from_secs(2))
        .backoff(Duration::from_millis(1), Duration::from_millis(5));
    let builder = AwsKmsProvider::strict([key])
        .environment([("PATH", "")])
        .endpoint(format!("http://{}", proxy.address()))
        .credentials(AwsCredentials::new("testing", "testing"))
        .policy(policy);
    Arc::new(builder.transport(shared()).build().unwrap())
}

fn envelope(provider: &Shared) -> Envelope {
    Envelope::builder(Arc::clone(provider)).build().unwrap()
}

fn missing(header: &Header) -> Vec<String> {
    let slots = header.slots().iter().filter(|slot| slot.is_missing());
    slots.map(|slot: &EncryptedDataKey| format!("{}:{}", slot.provider(), slot.key_id_text())).collect()
}

fn header(path: &Path) -> Header {
    read_header(&mut std::fs::File::open(path).unwrap(), &Limits::default()).unwrap()
}

#[test]
fn while_one_of_three_is_dead_writing_goes_on_and_what_is_missing_is_filled_afterwards() {
    let account = Account::moto("eu-central-1");
    let (key, bao) = (account.key(), Bao::shared());
    let proxy = Proxy::before(&account.endpoint);
    let members = [aws(&proxy, &key), vault(&bao, &bao.key()), raw()];
    let all: Shared = Arc::new(MultiProvider::at_least(2, members.to_vec()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, b"attack at dawn").unwrap();
    let files: Vec<_> = (0..6).map(|number| folder.path().join(format!("{number}.elk"))).collect();
    run(async {
        let write = |path| {
            let (envelope, plain) = (envelope(&all), plain.clone());
            async move { envelope.encrypt_file(plain, path, &context(), FileOptions::default()).await }
        };
        write(&files[0]).await.unwrap();
        assert_eq!(missing(&header(&files[0])), [""; 0]);

        for (file, way) in
            files[1..].iter().zip([Way::ResetAtOnce, Way::ResetAfterRequest, Way::Half, Way::Garbage, Way::BlackHole])
        {
            proxy.set(way);
            let started = Instant::now();
            write(file).await.unwrap_or_else(|e| panic!("{way:?}: {e}"));
            assert!(started.elapsed() < Duration::from_secs(7), "{way:?}: {:?}", started.elapsed());
            assert_eq!(missing(&header(file)), [format!("aws-kms:{key}")], "{way:?}");
            // Each of the others opens it; the dead one has no slot to try.
            for member in &members[1..] {
                envelope(member).verify_file(file, &context()).await.unwrap();
            }
            let closed = envelope(&members[0]).verify_file(file, &context()).await.unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::NoMatchingKey, "{closed}");
        }

        // All three must be there for this one, and it says who is not.
        proxy.set(Way::ResetAtOnce);
        let strict: Shared = Arc::new(MultiProvider::all(members.to_vec()).unwrap());
        let error = envelope(&strict).encrypt(b"x", &context()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&key), "{error}");

        // The inventory, which asks nobody, lists what is missing.
        let found = Inventory::new().take(Files::below([folder.path()]), |_| {}).await.unwrap();
        assert_eq!((found.messages, found.with_missing, found.groups.len()), (6, 5, 3), "{found:?}");
        let lacking: Vec<_> = found.groups.iter().filter(|group| group.missing > 0).collect();
        assert_eq!(lacking.len(), 1);
        assert!(lacking[0].missing == 5 && lacking[0].key.to_string().contains(&key), "{lacking:?}");

        // It is back: a rewrap of the fleet fills that, and all three open every message.
        proxy.set(Way::Pass);
        // The breaker has noticed the outage, and probes each second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let fill = || Rewrap::to(members.clone()).only(Selection::all().with_missing());
        let done = fill().run(Files::below([folder.path()]), |_, _| {}).await.unwrap();
        assert_eq!((done.rewrapped, done.failed, done.with_missing), (5, 0, 0), "{done:?}");
        let again = fill().run(Files::below([folder.path()]), |_, _| {}).await.unwrap();
        assert_eq!((again.rewrapped, again.failed, again.calls.all()), (0, 0, 0), "{again:?}");
        for file in &files {
            assert_eq!(missing(&header(file)), [""; 0]);
            for member in &members {
                envelope(member).verify_file(file, &context()).await.unwrap();
            }
        }
    });
    say(format!("2 of 3: {} files written past a dead KMS, and filled", files.len() - 1));
}
