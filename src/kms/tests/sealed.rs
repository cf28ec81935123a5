//! Keystores that another key provider unlocks.

use super::{CHEAP, Place, block_on, context, new_key};
use crate::context::KmsContext;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::kms::{CreateKeyRequest, KmsOptions, LocalKms, RestoreOptions, RootKey};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::multi::MultiProvider;
use crate::provider::passphrase::PassphraseProvider;
use crate::provider::raw::RawKeyProvider;
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, Recipient};
use crate::secret::Secret;
use async_trait::async_trait;
use std::fs;
use std::sync::{Arc, Mutex};

fn named(name: &str, byte: u8) -> RawKeyProvider {
    RawKeyProvider::new(name, Secret::init(|out| out.fill(byte))).unwrap()
}

fn raw(name: &str) -> RawKeyProvider {
    named(name, u8::try_from(name.len()).unwrap())
}

type Entries = Vec<(String, String)>;

/// A provider that shows its contexts, and may be out of reach.
#[derive(Clone, Debug)]
struct Remote {
    inner: Arc<RawKeyProvider>,
    contexts: Arc<Mutex<Vec<Entries>>>,
    away: bool,
}

impl Remote {
    fn new(away: bool) -> Self {
        Self { inner: Arc::new(raw("remote")), contexts: Arc::default(), away }
    }

    fn note(&self, context: &KmsContext) -> Result<()> {
        let entries = context.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.contexts.lock().unwrap().push(entries);
        match self.away {
            true => Err(Error::new(ErrorKind::Unavailable, "the remote is away")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl KeyProvider for Remote {
    fn recipients(&self) -> Vec<Recipient> {
        self.inner.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.note(context)?;
        self.inner.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.note(context)?;
        self.inner.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        match self.note(context) {
            Ok(()) => self.inner.decrypt_data_key(slot, context).await,
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }
}

#[test]
fn a_provider_makes_and_unlocks_a_keystore_under_exactly_two_context_entries() {
    let place = Place::new();
    let remote = Remote::new(false);
    let kms = block_on(LocalKms::unseal(place.keystore(), remote.clone())).unwrap();
    assert!(kms.made_keystore() && !kms.made_root_key_file());
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"kept", &context())).unwrap().ciphertext_blob;
    let id = kms.keystore_id();
    drop(kms);
    let kms = block_on(LocalKms::unseal(place.keystore(), remote.clone())).unwrap();
    assert!(!kms.made_keystore());
    assert_eq!(block_on(kms.decrypt(&blob, &context())).unwrap().plaintext(), b"kept");
    let expected = vec![("envelock-keystore".to_owned(), id), ("envelock-use".to_owned(), "root/1".to_owned())];
    assert_eq!(*remote.contexts.lock().unwrap(), [expected.clone(), expected]);
    assert_eq!(
        fs::read_dir(place.folder.path())
            .unwrap()
            .filter(|it| { it.as_ref().unwrap().file_name().to_str().unwrap().contains("root") })
            .count(),
        0
    );
}

#[test]
fn a_provider_out_of_reach_is_worth_retrying_and_makes_nothing() {
    let place = Place::new();
    let error = block_on(LocalKms::unseal(place.keystore(), Remote::new(true))).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
    assert!(!place.keystore().exists());
    let kms = block_on(LocalKms::unseal(place.keystore(), Remote::new(false))).unwrap();
    let key = new_key(&kms);
    drop(kms);
    let error = block_on(LocalKms::unseal(place.keystore(), Remote::new(true))).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    block_on(block_on(LocalKms::unseal(place.keystore(), Remote::new(false))).unwrap().describe_key(&key)).unwrap();
}

#[test]
fn each_member_of_several_unlocks_alone_and_a_stranger_is_told_who_does() {
    let place = Place::new();
    let phrase = || PassphraseProvider::new("correct horse").unwrap();
    let both = MultiProvider::all(vec![Arc::new(raw("first")), Arc::new(phrase())]).unwrap();
    let key = new_key(&block_on(LocalKms::unseal(place.keystore(), both)).unwrap());
    let list = |kms: LocalKms| block_on(kms.list_keys()).unwrap()[0].key_id.clone();
    assert_eq!(list(block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap()), key);
    assert_eq!(list(block_on(LocalKms::unseal(place.keystore(), phrase())).unwrap()), key);
    let error = block_on(LocalKms::unseal(place.keystore(), raw("stranger"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert!(error.to_string().contains("raw:first") && error.to_string().contains("export"), "{error}");
    // The same name and another key.
    let forged = named("first", 99);
    let error = block_on(LocalKms::unseal(place.keystore(), forged)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
}

#[test]
fn another_keystore_unlocks_one_and_a_keystore_never_itself() {
    let (place, vault) = (Place::new(), Place::new());
    let outer = vault.open();
    block_on(outer.create_key(CreateKeyRequest::default().alias("alias/unlock"))).unwrap();
    let provider = outer.provider("alias/unlock").unwrap();
    let kms = block_on(LocalKms::unseal(place.keystore(), provider.clone())).unwrap();
    let key = new_key(&kms);
    let itself = kms.provider(&key).unwrap();
    let error = block_on(kms.rekey_sealed(itself.clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let with_escrow = MultiProvider::all(vec![Arc::new(itself), Arc::new(raw("escrow"))]).unwrap();
    block_on(kms.rekey_sealed(with_escrow)).unwrap();
    drop(kms);
    let error = block_on(LocalKms::unseal(place.keystore(), provider)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
    block_on(block_on(LocalKms::unseal(place.keystore(), raw("escrow"))).unwrap().describe_key(&key)).unwrap();
}

#[test]
fn each_kind_of_root_key_is_told_from_the_others_with_what_opens_it() {
    let says = |error: Error, what: &str| {
        assert_eq!(error.kind(), ErrorKind::NoMatchingKey, "{error}");
        assert!(error.to_string().contains(what), "{what:?} is not in {error}");
    };
    let phrase = || RootKey::passphrase("p").unwrap().with_cost(CHEAP).unwrap();
    let (by_file, by_phrase, by_provider) = (Place::new(), Place::new(), Place::new());
    drop(by_file.open());
    drop(LocalKms::open(by_phrase.keystore(), phrase()).unwrap());
    drop(block_on(LocalKms::unseal(by_provider.keystore(), raw("first"))).unwrap());
    let unseal = |place: &Place| block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap_err();
    says(unseal(&by_file), "root key file");
    says(unseal(&by_phrase), "passphrase");
    says(LocalKms::open(by_provider.keystore(), phrase()).unwrap_err(), "unseal it");
    says(by_provider.try_open().unwrap_err(), "unseal it");
    says(by_phrase.try_open().unwrap_err(), "give that");
    assert!(!by_provider.root_key().exists() && !by_phrase.root_key().exists());
}

#[test]
fn a_keystore_that_must_exist_is_not_made_by_unsealing_and_a_torn_slot_is_tampering() {
    let place = Place::new();
    let options = KmsOptions::default().must_exist();
    let error = block_on(LocalKms::unseal_with(place.keystore(), raw("first"), options.clone())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    assert!(!place.keystore().exists());
    fs::write(place.keystore(), "").unwrap();
    let error = block_on(LocalKms::unseal_with(place.keystore(), raw("first"), options)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
    drop(block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap());
    let good: Vec<u8> = place.sql().query_row("SELECT root_slots FROM meta", [], |row| row.get(0)).unwrap();
    for bad in [Vec::new(), vec![33], good[..good.len() - 1].to_vec(), [good.as_slice(), &[1]].concat()] {
        place.sql().execute("UPDATE meta SET root_slots = ?1", [&bad]).unwrap();
        let error = block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    }
    // Padding is another row, though it opens.
    place.sql().execute("UPDATE meta SET root_slots = ?1", [&[good.as_slice(), &[0]].concat()]).unwrap();
    let error = block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    place.sql().execute("UPDATE meta SET root_slots = ?1", [&good]).unwrap();
    block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap();
}

#[test]
fn several_unsealings_at_once_make_one_keystore() {
    let place = Place::new();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let open = || {
            let options = KmsOptions::default().busy_timeout(std::time::Duration::from_secs(60));
            block_on(LocalKms::unseal_with(place.keystore(), raw("first"), options)).unwrap().keystore_id()
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_sealed_backup_is_restored_by_its_provider_and_by_the_export() {
    let place = Place::new();
    let kms = block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap();
    let key = new_key(&kms);
    let backup = place.folder.path().join("backup.db");
    block_on(kms.backup(&backup)).unwrap();
    let export = block_on(kms.export_root_key()).unwrap();
    drop(kms);
    let restored = place.folder.path().join("restored.db");
    let options = RestoreOptions::default();
    let error = block_on(LocalKms::restore_sealed(&backup, &restored, raw("other one"), options.clone())).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NoMatchingKey, Some(&*backup)));
    assert!(!restored.exists());
    block_on(LocalKms::restore_sealed(&backup, &restored, raw("first"), options.clone())).unwrap();
    block_on(block_on(LocalKms::unseal(&restored, raw("first"))).unwrap().describe_key(&key)).unwrap();
    let second = place.folder.path().join("second.db");
    LocalKms::restore(&backup, &second, RootKey::value(export.expose()).unwrap(), options).unwrap();
    block_on(block_on(LocalKms::unseal(&second, raw("first"))).unwrap().describe_key(&key)).unwrap();
}

#[test]
fn the_right_provider_is_not_doubted_for_a_changed_check() {
    let place = Place::new();
    drop(block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap());
    place.sql().execute("UPDATE meta SET check_value = zeroblob(16)", []).unwrap();
    let error = block_on(LocalKms::unseal(place.keystore(), raw("first"))).unwrap_err();
    assert_eq!((error.kind(), error.keystore_cause()), (ErrorKind::Storage, Some(KeystoreCause::Tampered)), "{error}");
    assert!(error.to_string().contains("the row \"meta 1\" was changed"), "{error}");
    let stranger = block_on(LocalKms::unseal(place.keystore(), raw("stranger"))).unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::NoMatchingKey);
}
