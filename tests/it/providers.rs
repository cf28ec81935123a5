//! Key providers, each by what is its own: raw key files, the work of passphrases, several at once.

use crate::support::providers::{all, at_least, raw};
use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, ErrorKind, GeneratedDataKey,
    KeyProvider, KmsContext, PassphraseProvider, ProviderIdentity, RawKeyProvider, Recipient, Result, Revocations,
    async_trait,
};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

fn no_context() -> KmsContext {
    KmsContext::new(&EncryptionContext::new()).unwrap()
}

#[test]
fn a_raw_key_file_is_64_hex_digits_and_one_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        RawKeyProvider::from_file("k", &path)
    };
    for end in ["", "\n", "\r\n"] {
        read(&format!("{digits}{end}")).unwrap();
    }
    for end in ["\r", "\n\n", "\n\r", "\r\r\n", "\r\n\n", " ", "\0", "0"] {
        let error = read(&format!("{digits}{end}")).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidInput, Some(&*path)), "{end:?}");
    }
    for text in ["", "\n", &digits[1..], &format!("{}g", &digits[1..]), &format!(" {}", &digits[1..])] {
        assert_eq!(read(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text:?}");
    }
}

#[test]
fn a_raw_key_file_that_others_may_read_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "00".repeat(32)).unwrap();
    let read = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        RawKeyProvider::from_file("k", &path)
    };
    for mode in [0o600, 0o400, 0o700] {
        read(mode).unwrap();
    }
    for mode in [0o644, 0o640, 0o604, 0o660, 0o602, 0o601] {
        let error = read(mode).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(&*path)), "{mode:o}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_passphrase_is_stretched_off_the_polling_thread_and_its_future_may_be_dropped() {
    let provider = PassphraseProvider::new("words").unwrap();
    let (context, mut waker) = (no_context(), Context::from_waker(Waker::noop()));
    // Each is dropped while its thread works.
    assert!(pin!(provider.generate_data_key(DataKeyLength::Bytes32, &context)).as_mut().poll(&mut waker).is_pending());
    let generated = pollster::block_on(provider.generate_data_key(DataKeyLength::Bytes32, &context)).unwrap();
    let slot = &generated.encrypted[0];
    assert!(pin!(provider.encrypt_data_key(&generated.key, &context)).as_mut().poll(&mut waker).is_pending());
    assert!(pin!(provider.decrypt_data_key(slot, &context)).as_mut().poll(&mut waker).is_pending());
    let other = PassphraseProvider::new("words").unwrap();
    assert!(pin!(other.decrypt_data_key(slot, &context)).as_mut().poll(&mut waker).is_pending());
    drop(other);
    let DataKeyAnswer::Key(key) = pollster::block_on(provider.decrypt_data_key(slot, &context)) else {
        panic!("it does not open")
    };
    assert_eq!(key.expose(), generated.key.expose());
    // What is no slot of its own costs nothing.
    let damaged = EncryptedDataKey::new("passphrase", Vec::new(), &slot.wrapped()[1..]);
    assert!(pin!(provider.decrypt_data_key(&damaged, &context)).as_mut().poll(&mut waker).is_ready());
}

/// A provider with an identity or revocations, or neither.
#[derive(Debug)]
struct Known {
    inner: Arc<dyn KeyProvider>,
    identity: Option<ProviderIdentity>,
    revocations: Option<Revocations>,
}

#[async_trait]
impl KeyProvider for Known {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.inner.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        self.inner.decrypt_data_key(slot, context).await
    }

    fn revocations(&self) -> Option<Revocations> {
        self.revocations.clone()
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        self.identity.clone()
    }
}

/// A raw key that calls itself so, and has such an epoch.
pub(crate) fn known(key_id: &str, identity: Option<&str>, revocations: Option<&Revocations>) -> Arc<dyn KeyProvider> {
    let identity = identity.map(ProviderIdentity::new);
    Arc::new(Known { inner: raw(key_id, 1), identity, revocations: revocations.cloned() })
}

#[test]
fn several_providers_are_revoked_when_one_of_them_is() {
    let (one, two) = (Revocations::default(), Revocations::default());
    let several = all(&[&known("a", None, Some(&one)), &known("b", None, None), &known("c", None, Some(&two))]);
    let nested = all(&[&several, &raw("d", 1)]);
    for provider in [&several, &nested] {
        let together = provider.revocations().unwrap();
        let mut epoch = together.epoch();
        for part in [&one, &two, &two, &one, &together] {
            assert_eq!(provider.revocations().unwrap().epoch(), epoch, "it stands still by itself");
            part.bump();
            assert_ne!(provider.revocations().unwrap().epoch(), epoch);
            epoch = together.epoch();
        }
    }
    // A part is not moved by the whole.
    let before = one.epoch();
    several.revocations().unwrap().bump();
    assert_eq!(one.epoch(), before);
    assert!(all(&[&raw("a", 1), &raw("b", 1)]).revocations().is_none());
}

#[test]
fn several_providers_are_the_same_only_if_each_of_them_is_and_as_many_must_wrap() {
    let a = || known("a", Some("kms one"), None);
    let b = || known("b", Some("kms two"), None);
    let same = all(&[&a(), &b()]).identity();
    assert!(same.is_some());
    assert_eq!(same, all(&[&a(), &b()]).identity());
    assert_eq!(all(&[&a(), &known("b", None, None)]).identity(), None);
    let others = [
        at_least(1, &[&a(), &b()]),
        all(&[&b(), &a()]),
        all(&[&a()]),
        all(&[&a(), &b(), &known("c", Some("kms two"), None)]),
        // The same text, cut elsewhere.
        all(&[&known("a", Some("kms one 7:kms two"), None)]),
        all(&[&known("a", Some("kms o"), None), &known("b", Some("ne kms two"), None)]),
    ];
    for (n, other) in others.iter().enumerate() {
        assert!(other.identity().is_some() && other.identity() != same, "{n}");
        for another in &others[n + 1..] {
            assert_ne!(other.identity(), another.identity());
        }
    }
}
