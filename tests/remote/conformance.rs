//! Every provider keeps what providers promise: the suite, and what goes beyond it: rewraps of messages, a hundred tasks
//! at once, calls that are dropped at any time.

use crate::aws::strict;
use crate::support::aws::Account;
use crate::support::openbao::Bao;
use crate::support::random::Random;
use crate::support::{run, say};
use envelock::conformance::{self, Flaw};
use envelock::{
    CreateKeyRequest, EncryptionContext, Envelope, ErrorKind, FileOptions, KeyProvider, LocalKms, MultiProvider,
    PassphraseCost, PassphraseProvider, RawKeyProvider, RewrapMode, RewrapOptions, RootKey, Secret, VaultAuth,
    VaultProvider,
};
use std::sync::Arc;

pub(crate) type Shared = Arc<dyn KeyProvider>;

/// A provider, another of the same kind on another key, and what is known of what stands behind them.
struct Case {
    name: &'static str,
    provider: Shared,
    stranger: Shared,
    flaws: &'static [Flaw],
    /// Whether the KMS re-encrypts inside.
    re_encrypts: bool,
}

fn raw(seed: u8) -> Shared {
    Arc::new(RawKeyProvider::new("a", Secret::init(|key| key.fill(seed))).unwrap())
}

fn passphrase(words: &str) -> Shared {
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    Arc::new(PassphraseProvider::new(words).unwrap().with_cost(cost).unwrap())
}

pub(crate) fn vault(bao: &Bao, key: &str) -> Shared {
    let token = VaultAuth::token(bao.token.as_str());
    Arc::new(VaultProvider::builder(key).address(bao.url.as_str()).auth(token).build().unwrap())
}

/// The suite, then what goes beyond it.
fn conforms(case: &Case) {
    let Case { name, provider, stranger, flaws, re_encrypts } = case;
    run(async {
        let report = conformance::check_but(provider, stranger, flaws).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(report.checks >= 30 && report.re_encrypts == *re_encrypts, "{name}: {report:?}");
        rewraps(case).await;
        a_hundred_tasks_at_once(case).await;
        let cancelled = cancelled_at_random(case).await;
        say(format!(
            "conformance of {name}: {} checks, {} places where a call was dropped, {cancelled} of 60 cancelled at random times",
            report.checks, report.dropped
        ));
    });
}

fn context(of: usize) -> EncryptionContext {
    EncryptionContext::from([("of", of.to_string())])
}

/// A file moves to another key, with its data key in the open; and inside the KMS where that can.
async fn rewraps(case: &Case) {
    let name = case.name;
    let folder = tempfile::tempdir().unwrap();
    let (from, sealed) = (folder.path().join("plain"), folder.path().join("sealed"));
    std::fs::write(&from, b"attack at dawn").unwrap();
    let envelope = |provider: &Shared| Envelope::builder(Arc::clone(provider)).build().unwrap();
    let (old, new) = (envelope(&case.provider), envelope(&case.stranger));
    old.encrypt_file(&from, &sealed, &context(1), FileOptions::default()).await.unwrap();
    let open = RewrapOptions::default();
    old.rewrap_file(&sealed, &new, &context(1), open.clone()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    new.verify_file(&sealed, &context(1)).await.unwrap();
    let lost = old.verify_file(&sealed, &context(1)).await.unwrap_err();
    assert!(matches!(lost.kind(), ErrorKind::NoMatchingKey | ErrorKind::AuthenticationFailed), "{name}: {lost}");
    // Inside the KMS a key goes to its own current version.
    let blind = new.rewrap_file(&sealed, &new, &context(1), open.mode(RewrapMode::Blind)).await;
    match blind {
        Ok(_) if case.re_encrypts => {}
        Err(error) if !case.re_encrypts && error.kind() == ErrorKind::Unsupported => {}
        Err(error) if case.flaws.contains(&Flaw::LacksReEncryption) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput)
        }
        other => panic!("{name}: {other:?}"),
    }
    let plain = new.decrypt(&std::fs::read(&sealed).unwrap(), &context(1)).await.unwrap();
    assert_eq!(plain, b"attack at dawn", "{name}");
}

/// Each task gets its own message back, and no other's.
async fn a_hundred_tasks_at_once(case: &Case) {
    let envelope = Envelope::builder(Arc::clone(&case.provider)).build().unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let envelope = envelope.clone();
            tokio::spawn(async move {
                let text = format!("message {number}");
                let sealed = envelope.encrypt(text.as_bytes(), &context(number)).await?;
                let other = envelope.decrypt(&sealed, &context(number + 1)).await.map_err(|e| e.kind());
                assert!(other.is_err(), "{number} opened under another context");
                assert_eq!(envelope.decrypt(&sealed, &context(number)).await?, text.as_bytes());
                Ok::<_, envelock::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

/// Calls are aborted after any time, together with others that must not suffer. How many were not done by then.
async fn cancelled_at_random(case: &Case) -> usize {
    let envelope = Envelope::builder(Arc::clone(&case.provider)).build().unwrap();
    let sealed = envelope.encrypt(b"attack at dawn", &context(0)).await.unwrap();
    let mut random = Random::new(case.name.len() as u64);
    let mut cancelled = 0;
    for _ in 0..20 {
        let doomed: Vec<_> = (0..3)
            .map(|_| {
                let (envelope, sealed) = (envelope.clone(), sealed.clone());
                tokio::spawn(async move { envelope.decrypt(&sealed, &context(0)).await })
            })
            .collect();
        let (other, message) = (envelope.clone(), sealed.clone());
        let spared = tokio::spawn(async move { other.decrypt(&message, &context(0)).await });
        for _ in 0..random.below(60) {
            tokio::task::yield_now().await;
        }
        for task in doomed {
            task.abort();
            match task.await {
                Ok(done) => assert_eq!(done.unwrap(), b"attack at dawn"),
                Err(error) => cancelled += usize::from(error.is_cancelled()),
            }
        }
        assert_eq!(spared.await.unwrap().unwrap(), b"attack at dawn", "{}", case.name);
    }
    cancelled
}

#[test]
fn raw_keys_passphrases_and_several_of_them_conform() {
    let all = |members: Vec<Shared>| -> Shared { Arc::new(MultiProvider::all(members).unwrap()) };
    let cases = [
        ("raw", raw(1), raw(2)),
        ("passphrase", passphrase("right"), passphrase("wrong")),
        ("raw and passphrase", all(vec![raw(1), passphrase("right")]), all(vec![raw(2), passphrase("wrong")])),
    ];
    for (name, provider, stranger) in cases {
        conforms(&Case { name, provider, stranger, flaws: &[], re_encrypts: false });
    }
}

#[test]
fn the_embedded_keystore_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = RootKey::file(folder.path().join("root.key")).unwrap();
    let kms = LocalKms::open(folder.path().join("keys.db"), root).unwrap();
    run(async {
        for alias in ["alias/one", "alias/two"] {
            kms.create_key(CreateKeyRequest::default().alias(alias)).await.unwrap();
        }
    });
    let provider = |alias| -> Shared { Arc::new(kms.provider(alias).unwrap()) };
    let (provider, stranger) = (provider("alias/one"), provider("alias/two"));
    conforms(&Case { name: "local", provider, stranger, flaws: &[], re_encrypts: true });
}

fn aws(account: &Account, key: &str) -> Shared {
    Arc::new(strict(account, &[key]))
}

#[test]
fn aws_kms_conforms_on_moto() {
    let account = Account::moto("eu-central-1");
    let [provider, stranger] = [account.key(), account.key()].map(|key| aws(&account, &key));
    let flaws = &[Flaw::JoinsContexts];
    conforms(&Case { name: "aws-kms on moto", provider, stranger, flaws, re_encrypts: true });
}

#[test]
fn aws_kms_conforms_on_ministack() {
    let account = Account::ministack("eu-central-1");
    let [provider, stranger] = [account.key(), account.key()].map(|key| aws(&account, &key));
    let flaws = &[Flaw::OpensDamage, Flaw::LacksReEncryption];
    conforms(&Case { name: "aws-kms on ministack", provider, stranger, flaws, re_encrypts: false });
}

#[test]
fn aws_kms_and_vault_conform_together() {
    let (account, bao) = (Account::moto("us-east-1"), Bao::shared());
    let both = || -> Shared {
        Arc::new(MultiProvider::all(vec![aws(&account, &account.key()), vault(&bao, &bao.key())]).unwrap())
    };
    let (provider, stranger) = (both(), both());
    conforms(&Case {
        name: "aws-kms and vault",
        provider,
        stranger,
        flaws: &[Flaw::JoinsContexts],
        re_encrypts: false,
    });
}

#[test]
fn vault_conforms_on_openbao() {
    let bao = Bao::shared();
    let [provider, stranger] = [bao.key(), bao.key()].map(|key| vault(&bao, &key));
    conforms(&Case { name: "vault on OpenBao", provider, stranger, flaws: &[], re_encrypts: false });
}

#[test]
fn vault_conforms_beside_another_provider() {
    let bao = Bao::shared();
    let both = |seed| -> Shared { Arc::new(MultiProvider::all(vec![vault(&bao, &bao.key()), raw(seed)]).unwrap()) };
    let (provider, stranger) = (both(1), both(2));
    conforms(&Case { name: "vault and raw", provider, stranger, flaws: &[], re_encrypts: false });
}
