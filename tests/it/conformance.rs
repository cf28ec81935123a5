//! The conformance suite of key providers: it passes those that keep their promises, and names one
//! that each broken one does not.

use crate::support::providers::{Down, all, raw};
use crate::support::say;
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Error, ErrorKind, FailoverProvider,
    GeneratedDataKey, KeyProvider, KmsContext, PassphraseCost, PassphraseProvider, RawKeyProvider, Recipient, Result,
    Secret, async_trait, blocking, conformance,
};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

fn cheap(words: &str) -> Arc<dyn KeyProvider> {
    let cost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };
    Arc::new(PassphraseProvider::new(words).unwrap().with_cost(cost).unwrap())
}

#[test]
fn every_provider_keeps_its_promises() {
    let both = |seed, words| all(&[&raw("a", seed), &cheap(words)]);
    let either = |seed, words| -> Arc<dyn KeyProvider> {
        Arc::new(FailoverProvider::in_order(vec![raw("a", seed), cheap(words)]).unwrap())
    };
    // The first is out of reach, and the second does it all.
    let down = |seed| -> Arc<dyn KeyProvider> {
        let down = Down::shared("raw", "down", ErrorKind::Unavailable);
        Arc::new(FailoverProvider::nearest(vec![down, raw("a", seed)]).unwrap())
    };
    let providers = [
        ("raw", raw("a", 1), raw("a", 2)),
        ("raw of another name", raw("a", 1), raw("b", 1)),
        ("passphrase", cheap("right"), cheap("wrong")),
        ("both", both(1, "right"), both(2, "wrong")),
        ("either", either(1, "right"), either(2, "wrong")),
        ("either, the first down", down(1), down(2)),
        ("shared twice", Arc::new(raw("a", 1)), Arc::new(raw("a", 2))),
    ];
    for (name, provider, stranger) in providers {
        let report = blocking::wait(conformance::check(&provider, &stranger)).unwrap_or_else(|e| panic!("{name}: {e}"));
        say(format!("conformance of {name}: {} checks", report.checks));
        assert!(report.checks >= 30 && !report.re_encrypts, "{name}: {report:?}");
    }
}

#[cfg(feature = "local-kms")]
#[test]
fn the_embedded_keystore_keeps_its_promises_and_re_encrypts_inside() {
    use envelock::{CreateKeyRequest, LocalKms, RootKey};
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let root = RootKey::file(folder.path().join(format!("{name}.key"))).unwrap();
        LocalKms::open(folder.path().join(name), root).unwrap()
    };
    let (kms, elsewhere) = (open("keys.db"), open("other.db"));
    let other = blocking::wait(kms.create_key(CreateKeyRequest::default())).unwrap();
    let provider = kms.provider("alias/envelock/default").unwrap();
    let strangers = [
        ("another key", kms.provider(&other.key_id).unwrap()),
        ("another keystore", elsewhere.provider("alias/envelock/default").unwrap()),
    ];
    for (name, stranger) in strangers {
        let report = blocking::wait(conformance::check(&provider, &stranger)).unwrap_or_else(|e| panic!("{name}: {e}"));
        say(format!("conformance of local against {name}: {} checks", report.checks));
        assert!(report.checks >= 30 && report.re_encrypts, "{name}: {report:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    IgnoresContext,
    SaysNotMineToDamage,
    TakesOthersSlots,
    OpensAnything,
    WrapsInTheClear,
    RepeatsDataKeys,
    NamesAnotherRecipient,
    WritesNothing,
    MakesShortKeys,
    ReEncryptsAnotherKey,
    ReEncryptsToTheSameBytes,
    FailsToReEncrypt,
    LosesTheCallersKey,
    StaysBusyOnceDropped,
    MixesCallsAtOnce,
    JoinsContexts,
    OpensDamage,
}

/// A raw provider with one fault.
#[derive(Debug)]
struct Broken {
    inner: RawKeyProvider,
    flaw: Flaw,
    busy: AtomicBool,
    latest: Mutex<[u8; 32]>,
    written: Mutex<HashSet<Vec<u8>>>,
}

impl Broken {
    fn new(flaw: Flaw) -> Self {
        Self {
            inner: RawKeyProvider::new("a", Secret::init(|key| key.fill(1))).unwrap(),
            flaw,
            busy: AtomicBool::new(false),
            latest: Mutex::default(),
            written: Mutex::default(),
        }
    }

    fn context(&self, given: &KmsContext) -> KmsContext {
        let context = match self.flaw {
            Flaw::IgnoresContext => EncryptionContext::new(),
            Flaw::JoinsContexts => {
                let joined: String = given.iter().map(|(key, value)| format!("{key}{value}")).collect();
                EncryptionContext::from([("joined", joined)])
            }
            _ => return given.clone(),
        };
        KmsContext::new(&context).unwrap()
    }

    fn key(byte: u8) -> DataKey {
        DataKey::from_slice(&[byte; 32]).unwrap()
    }
}

#[async_trait]
impl KeyProvider for Broken {
    fn recipients(&self) -> Vec<Recipient> {
        if self.flaw == Flaw::NamesAnotherRecipient {
            vec![Recipient::new("rar", "a")]
        } else {
            self.inner.recipients()
        }
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let context = self.context(context);
        let mut generated = self.inner.generate_data_key(length, &context).await?;
        if self.flaw == Flaw::StaysBusyOnceDropped && self.busy.swap(true, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Busy, "another call is under way"));
        }
        self.latest.lock().unwrap().copy_from_slice(&generated.key.expose()[..32]);
        wait_once().await;
        self.busy.store(false, Ordering::SeqCst);
        match self.flaw {
            Flaw::RepeatsDataKeys => {
                generated.key = Self::key(3);
                generated.encrypted = self.inner.encrypt_data_key(&generated.key, &context).await?;
            }
            Flaw::WritesNothing => generated.encrypted.clear(),
            Flaw::MakesShortKeys => generated = self.inner.generate_data_key(DataKeyLength::Bytes16, &context).await?,
            Flaw::MixesCallsAtOnce => generated.key = DataKey::from_slice(&*self.latest.lock().unwrap())?,
            Flaw::WrapsInTheClear => {
                generated.encrypted = vec![EncryptedDataKey::new("raw", "a", generated.key.expose())];
            }
            _ => {}
        }
        self.written.lock().unwrap().extend(generated.encrypted.iter().map(|slot| slot.wrapped().to_vec()));
        Ok(generated)
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        let other = Self::key(4);
        let key = if self.flaw == Flaw::LosesTheCallersKey { &other } else { key };
        self.inner.encrypt_data_key(key, &self.context(context)).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let renamed = EncryptedDataKey::new("raw", "a", slot.wrapped());
        let slot = if self.flaw == Flaw::TakesOthersSlots { &renamed } else { slot };
        match self.inner.decrypt_data_key(slot, &self.context(context)).await {
            DataKeyAnswer::Failed(_) if self.flaw == Flaw::SaysNotMineToDamage => DataKeyAnswer::NotMine,
            DataKeyAnswer::Failed(_) if self.flaw == Flaw::OpensAnything => DataKeyAnswer::Key(Self::key(5)),
            DataKeyAnswer::Failed(_)
                if self.flaw == Flaw::OpensDamage && !self.written.lock().unwrap().contains(slot.wrapped()) =>
            {
                DataKeyAnswer::Key(Self::key(7))
            }
            DataKeyAnswer::Failed(_) if self.flaw == Flaw::WrapsInTheClear => {
                DataKey::from_slice(slot.wrapped()).map_or_else(DataKeyAnswer::Failed, DataKeyAnswer::Key)
            }
            answer => answer,
        }
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        match self.flaw {
            Flaw::ReEncryptsAnotherKey => self.inner.encrypt_data_key(&Self::key(6), context).await.map(Some),
            Flaw::ReEncryptsToTheSameBytes => Ok(Some(vec![slot.clone()])),
            Flaw::FailsToReEncrypt => Err(Error::new(ErrorKind::KeyDenied, "no")),
            _ => Ok(None),
        }
    }
}

/// Lets others have their turn.
async fn wait_once() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn every_broken_provider_is_reported_for_what_it_breaks() {
    let cases = [
        (Flaw::IgnoresContext, "context"),
        (Flaw::SaysNotMineToDamage, "fails under another context"),
        (Flaw::TakesOthersSlots, "not mine"),
        (Flaw::OpensAnything, "fails under another context"),
        (Flaw::WrapsInTheClear, "does not show"),
        (Flaw::RepeatsDataKeys, "two data keys differ"),
        (Flaw::NamesAnotherRecipient, "recipient"),
        (Flaw::WritesNothing, "recipient"),
        (Flaw::MakesShortKeys, "32 bytes"),
        (Flaw::ReEncryptsAnotherKey, "the same key"),
        (Flaw::ReEncryptsToTheSameBytes, "new bytes"),
        (Flaw::FailsToReEncrypt, "re-encryption does not fail"),
        (Flaw::LosesTheCallersKey, "comes back"),
        (Flaw::StaysBusyOnceDropped, "no data key: another call is under way"),
        (Flaw::MixesCallsAtOnce, "gets its own key"),
        (Flaw::JoinsContexts, "once it is joined"),
        (Flaw::OpensDamage, "damaged wrapped key"),
    ];
    let stranger = raw("a", 2);
    for (flaw, word) in cases {
        let broken = blocking::wait(conformance::check(&Broken::new(flaw), &stranger));
        let report = broken.expect_err(&format!("{flaw:?} was not found")).to_string();
        assert!(report.contains(word), "{flaw:?}: {report}");
    }
    let twin = blocking::wait(conformance::check(&*raw("a", 1), &*raw("a", 1))).unwrap_err();
    assert!(twin.to_string().contains("another key opens nothing"), "{twin}");
}

#[test]
fn flaws_that_an_emulator_is_known_for_are_left_out_as_long_as_they_are_there() {
    let known =
        [(Flaw::JoinsContexts, conformance::Flaw::JoinsContexts), (Flaw::OpensDamage, conformance::Flaw::OpensDamage)];
    let stranger = raw("a", 2);
    let check = |flaw, known: &[_]| blocking::wait(conformance::check_but(&Broken::new(flaw), &stranger, known));
    for (flaw, name) in known {
        let report = check(flaw, &[name]).unwrap();
        assert!(report.checks >= 30 && report.dropped == 1, "{report:?}");
    }
    let (joins, opens) = (conformance::Flaw::JoinsContexts, conformance::Flaw::OpensDamage);
    assert!(check(Flaw::JoinsContexts, &[opens]).unwrap_err().to_string().contains("once it is joined"));
    assert!(check(Flaw::OpensDamage, &[opens, joins]).unwrap_err().to_string().contains("take it off the list"));
}
