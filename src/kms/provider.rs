//! A key of the embedded KMS as key provider.
//!
//! In slots, the provider's name is `local`, the key id the full key name, and the wrapped key a
//! ciphertext blob.

use super::LocalKms;
use super::alias::Alias;
use super::answers::EncryptAnswer;
use super::key::{KeyName, multi_region_key_id, validation};
use super::operations::cryptographic::{check_blob, decrypt, encrypt, generate, generates, re_encrypt, re_encrypts};
use super::operations::keys::describe;
use super::records::KeyRecord;
use super::state::KeyOperation;
use super::tx::Tx;
use crate::context::KmsContext;
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};

/// A key of a [`LocalKms`], for envelopes.
///
/// It encrypts under the key that it was named by: of an alias, the key that it points to at the
/// time. It opens what was encrypted under that key, under every key that the alias ever pointed to,
/// and under the keys of [`also_opens`](Self::also_opens).
#[derive(Clone, Debug)]
pub struct LocalProvider {
    kms: LocalKms,
    name: Arc<str>,
    also: Arc<[String]>,
    /// The full name of the key that encrypted last.
    current: Arc<Mutex<String>>,
}

impl LocalKms {
    /// A provider on a key, named by its id, full name or alias. The first use of
    /// `alias/envelock/<service>` makes its key.
    ///
    /// Waits for the keystore, as [`open`](Self::open) does: a call for the set-up. It only looks the name up, and asks
    /// for no permission: each call of the provider is allowed or denied, and recorded, by itself.
    ///
    /// # Errors
    /// NotFoundException, ValidationException; AccessDeniedException for the first use of a managed key by anybody but
    /// the owner; the keystore's own failures.
    pub fn provider(&self, key: &str) -> Result<LocalProvider> {
        let name = key.to_owned();
        let found = self.look_blocking(move |store| {
            store.read(|tx| Ok(KeyRecord::resolve(tx, &name)?.map(|key| tx.realm.full_name(&key.key_id))))
        })?;
        let full_name = match found {
            Some(full_name) => full_name,
            None => {
                let name = key.to_owned();
                self.call_blocking(self.asks("DescribeKey").key(key), move |tx| describe(tx, &name))?.arn
            }
        };
        Ok(LocalProvider {
            kms: self.clone(),
            name: key.into(),
            also: Arc::default(),
            current: Arc::new(Mutex::new(full_name)),
        })
    }
}

impl LocalProvider {
    /// The same provider, which also opens what was encrypted under these keys, named by id or full
    /// name.
    ///
    /// # Errors
    /// NotFoundException, ValidationException (also for an alias); the keystore's own failures.
    pub fn also_opens<K: AsRef<str>>(self, keys: impl IntoIterator<Item = K>) -> Result<Self> {
        let names: Vec<String> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        let also = self.kms.look_blocking(move |store| {
            store.read(|tx| {
                let mut ids = Vec::new();
                for name in &names {
                    if let KeyName::Alias(alias) = tx.realm.resolve(name)? {
                        return Err(validation(format!("{alias} is an alias: name the keys that it pointed to")));
                    }
                    ids.push(KeyRecord::existing(tx, name)?.key_id);
                }
                ids.sort_unstable();
                ids.dedup();
                Ok(ids)
            })
        })?;
        Ok(Self { also: also.into(), ..self })
    }

    /// The full name of the key that encrypted last, or was found when the provider was made.
    #[must_use]
    pub fn key_name(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, key_name: String, blob: Vec<u8>) -> EncryptedDataKey {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&key_name);
        EncryptedDataKey::new(NAME, key_name, blob)
    }

    /// The key id in a slot that may be this provider's: a full key name of this keystore, or of a multi-Region key,
    /// which opens here what any of its keystores encrypted.
    fn key_id_of(&self, slot: &EncryptedDataKey) -> Option<String> {
        if slot.provider() != NAME {
            return None;
        }
        let text = std::str::from_utf8(slot.key_id()).ok()?;
        if let Some(key_id) = multi_region_key_id(text) {
            return Some(key_id.to_owned());
        }
        match self.kms.realm().resolve(text) {
            Ok(KeyName::Id(key_id)) if self.kms.realm().full_name(key_id) == text => Some(key_id.to_owned()),
            _ => None,
        }
    }
}

#[async_trait]
impl KeyProvider for LocalProvider {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new(NAME, self.key_name())]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let (name, context) = (Arc::clone(&self.name), context.clone());
        let operation = KeyOperation::GenerateDataKey;
        let call = generates(self.kms.asks("GenerateDataKey"), &name, length, &context);
        let made = self.kms.call(call, move |tx| generate(tx, &name, length, &context, operation)).await?;
        Ok(GeneratedDataKey { key: made.plaintext, encrypted: vec![self.slot(made.key_id, made.ciphertext_blob)] })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        let (name, context) = (Arc::clone(&self.name), context.clone());
        let key = DataKey::from_slice(key.expose())?;
        let call = self.kms.asks("Encrypt").key(&name).context(&context);
        let EncryptAnswer { key_id, ciphertext_blob } =
            self.kms.call(call, move |tx| encrypt(tx, &name, key.expose(), &context)).await?;
        Ok(vec![self.slot(key_id, ciphertext_blob)])
    }

    /// Slots of other keystores are answered without a call; whether a key of this keystore is one
    /// that this provider opens is looked up in the transaction that decrypts.
    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let Some(key_id) = self.key_id_of(slot) else { return DataKeyAnswer::NotMine };
        let (name, also, context) = (Arc::clone(&self.name), Arc::clone(&self.also), context.clone());
        let blob = match check_blob(slot.wrapped()) {
            Ok(blob) => blob,
            Err(error) => return DataKeyAnswer::Failed(error),
        };
        let call = self.kms.asks("Decrypt").key(&name).context(&context);
        let answer = self.kms.call(call, move |tx| match opens(tx, &name, &also, &key_id)? {
            true => decrypt(tx, &blob, &context, Some(&key_id)).map(Some).map_err(not_authentic),
            false => Ok(None),
        });
        match answer.await {
            Ok(None) => DataKeyAnswer::NotMine,
            Ok(Some(answer)) => match DataKey::from_slice(answer.plaintext()) {
                Ok(key) => DataKeyAnswer::Key(key),
                Err(_) => DataKeyAnswer::Failed(Error::authentication()),
            },
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }

    async fn re_encrypt_data_key(
        &self,
        slot: &EncryptedDataKey,
        context: &KmsContext,
    ) -> Result<Option<Vec<EncryptedDataKey>>> {
        let Some(key_id) = self.key_id_of(slot) else { return Ok(None) };
        let (name, also, context) = (Arc::clone(&self.name), Arc::clone(&self.also), context.clone());
        let blob = check_blob(slot.wrapped())?;
        let call = re_encrypts(self.kms.asks("ReEncrypt"), &name, &context);
        let answer = self.kms.call(call, move |tx| match opens(tx, &name, &also, &key_id)? {
            true => re_encrypt(tx, &blob, &context, Some(&key_id), &name).map(Some).map_err(not_authentic),
            false => Ok(None),
        });
        Ok(answer.await?.map(|answer| vec![self.slot(answer.key_id, answer.ciphertext_blob)]))
    }

    fn revocations(&self) -> Option<Revocations> {
        Some(self.kms.revocations())
    }

    /// Providers of one opening of a keystore that name the same keys and call as the same principal share; two openings do not,
    /// since each has revocations of its own.
    fn identity(&self) -> Option<ProviderIdentity> {
        let (keystore, instance) = (self.kms.keystore_id(), self.kms.instance());
        let (name, also, principal) = (&self.name, self.also.join(" "), self.kms.principal());
        Some(ProviderIdentity::new(format!("local {keystore} {instance} {name} {also} as {principal}")))
    }
}

/// Whether a provider on `name` opens what is under `key_id`. That it does not is what AWS calls an incorrect
/// key, and so does the audit trail.
fn opens(tx: &mut Tx<'_>, name: &str, also: &[String], key_id: &str) -> Result<bool> {
    let opens = also.iter().any(|it| it == key_id)
        || match tx.realm.resolve(name)? {
            KeyName::Id(id) => id == key_id,
            KeyName::Alias(alias) => Alias::history(tx, alias)?.iter().any(|it| it == key_id),
        };
    if !opens {
        key_id.clone_into(&mut tx.event.key_id);
        tx.event.refused = Some("IncorrectKeyException");
    }
    Ok(opens)
}

/// A blob that names another key than its slot does was changed.
fn not_authentic(error: Error) -> Error {
    match error.code() {
        Some(code @ "IncorrectKeyException") => Error::authentication().with_code(code),
        _ => error,
    }
}

/// The provider name in slots.
const NAME: &str = "local";
