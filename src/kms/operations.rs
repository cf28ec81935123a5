//! The operations: what each checks, reads and changes, in one transaction.

use super::LocalKms;
use super::answers::{
    AliasEntry, CreateKeyRequest, DecryptAnswer, EncryptAnswer, GenerateDataKeyAnswer,
    GenerateDataKeyWithoutPlaintextAnswer, KeyMetadata, KeyVersion, ReEncryptAnswer,
};
use super::cipher::{Blob, invalid_ciphertext, seal_blob};
use super::key::{KeyManager, KeyName, KeyOperation, MANAGED_PREFIX, check_alias, check_state, not_found, validation};
use super::records::{Alias, KeyRecord, with_key};
use super::store::{Store, Tx};
use crate::context::{EncryptionContext, KmsContext};
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength};
use zeroize::Zeroizing;

/// Keys and aliases. A key is named by its id, its full name, or an alias.
impl LocalKms {
    /// Makes a customer key, with its alias if one is given.
    ///
    /// # Errors
    /// AlreadyExistsException or InvalidAliasNameException for the alias, ValidationException for the
    /// description; the keystore's own failures: [`Storage`](crate::ErrorKind::Storage),
    /// [`Busy`](crate::ErrorKind::Busy), [`Io`](crate::ErrorKind::Io).
    pub async fn create_key(&self, request: CreateKeyRequest) -> Result<KeyMetadata> {
        self.call(move |store| {
            store.write(|tx| {
                if let Some(alias) = &request.alias {
                    check_free(tx, alias)?;
                }
                let key = KeyRecord::create(tx, KeyManager::Customer, &request.description)?;
                if let Some(alias) = &request.alias {
                    Alias::create(tx, alias, &key.key_id)?;
                }
                Ok(key.metadata(tx.realm))
            })
        })
        .await
    }

    /// What there is to know about a key. The first use of `alias/envelock/<service>` makes its key.
    ///
    /// # Errors
    /// NotFoundException, ValidationException; the keystore's own failures.
    pub async fn describe_key(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(move |store| describe(store, &name)).await
    }

    /// Every key, oldest first.
    ///
    /// # Errors
    /// The keystore's own failures.
    pub async fn list_keys(&self) -> Result<Vec<KeyMetadata>> {
        self.call(|store| {
            store.read(|tx| Ok(KeyRecord::all(tx)?.into_iter().map(|key| key.metadata(tx.realm)).collect()))
        })
        .await
    }

    /// Every version of a key, oldest first: each but the first came from a rotation.
    ///
    /// # Errors
    /// NotFoundException, ValidationException; the keystore's own failures.
    pub async fn list_key_versions(&self, key: &str) -> Result<Vec<KeyVersion>> {
        let name = key.to_owned();
        self.call(move |store| store.read(|tx| KeyRecord::existing(tx, &name)?.versions(tx))).await
    }

    /// Gives a customer key a new version, which encrypts from now on; older ones still decrypt.
    /// AWS's `RotateKeyOnDemand`.
    ///
    /// # Errors
    /// UnsupportedOperationException for a managed key, DisabledException, KMSInvalidStateException,
    /// NotFoundException, ValidationException; the keystore's own failures.
    pub async fn rotate(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(move |store| {
            store.write(|tx| {
                let mut key = KeyRecord::existing(tx, &name)?;
                if key.manager == KeyManager::Managed {
                    return Err(Error::invalid_input(format!(
                        "{name} is a managed key, which is not rotated on demand"
                    ))
                    .with_code("UnsupportedOperationException")
                    .with_advice("make a key of your own, under an alias of your own, and rotate that"));
                }
                check_state(&key.key_id, key.state, KeyOperation::RotateKeyOnDemand)?;
                key.rotate(tx)?;
                Ok(key.metadata(tx.realm))
            })
        })
        .await
    }

    /// Makes an alias, `alias/…`, that points to a customer key.
    ///
    /// # Errors
    /// AlreadyExistsException, InvalidAliasNameException (also below `alias/envelock/`),
    /// KMSInvalidStateException, NotFoundException, ValidationException; the keystore's own failures.
    pub async fn create_alias(&self, alias: &str, key: &str) -> Result<()> {
        let (alias, name) = (alias.to_owned(), key.to_owned());
        self.call(move |store| {
            store.write(|tx| {
                check_free(tx, &alias)?;
                let key = alias_target(tx, &name, KeyOperation::CreateAlias)?;
                Alias::create(tx, &alias, &key.key_id)
            })
        })
        .await
    }

    /// Moves an alias to another customer key, at once for everybody. Providers named by the alias
    /// still open what was encrypted under every key that it ever pointed to.
    ///
    /// # Errors
    /// As [`create_alias`](Self::create_alias), and NotFoundException if the alias does not exist.
    pub async fn update_alias(&self, alias: &str, key: &str) -> Result<()> {
        let (alias, name) = (alias.to_owned(), key.to_owned());
        self.call(move |store| {
            store.write(|tx| {
                let found = existing_alias(tx, &alias)?;
                let key = alias_target(tx, &name, KeyOperation::UpdateAlias)?;
                found.point_to(tx, &key.key_id)
            })
        })
        .await
    }

    /// Removes an alias; the key stays. What it pointed to stays known: made again, it opens that too.
    ///
    /// # Errors
    /// NotFoundException, InvalidAliasNameException; the keystore's own failures.
    pub async fn delete_alias(&self, alias: &str) -> Result<()> {
        let alias = alias.to_owned();
        self.call(move |store| store.write(|tx| existing_alias(tx, &alias)?.delete(tx))).await
    }

    /// Every alias, by name.
    ///
    /// # Errors
    /// The keystore's own failures.
    pub async fn list_aliases(&self) -> Result<Vec<AliasEntry>> {
        self.call(|store| store.read(|tx| Ok(Alias::all(tx)?.into_iter().map(Alias::entry).collect()))).await
    }
}

/// Cryptographic operations. Contexts may not have keys that begin with `envelock-`.
impl LocalKms {
    /// Makes a data key, and encrypts it under `key`, bound to `context`.
    ///
    /// # Errors
    /// DisabledException, KMSInvalidStateException, NotFoundException, ValidationException;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the context; the keystore's own failures.
    pub async fn generate_data_key(
        &self,
        key: &str,
        length: DataKeyLength,
        context: &EncryptionContext,
    ) -> Result<GenerateDataKeyAnswer> {
        let (name, context) = (key.to_owned(), KmsContext::new(context)?);
        self.call(move |store| generate(store, &name, length, &context, KeyOperation::GenerateDataKey)).await
    }

    /// As [`generate_data_key`](Self::generate_data_key), without the data key in the clear.
    ///
    /// # Errors
    /// As [`generate_data_key`](Self::generate_data_key).
    pub async fn generate_data_key_without_plaintext(
        &self,
        key: &str,
        length: DataKeyLength,
        context: &EncryptionContext,
    ) -> Result<GenerateDataKeyWithoutPlaintextAnswer> {
        let (name, context) = (key.to_owned(), KmsContext::new(context)?);
        let operation = KeyOperation::GenerateDataKeyWithoutPlaintext;
        self.call(move |store| {
            let GenerateDataKeyAnswer { key_id, ciphertext_blob, .. } =
                generate(store, &name, length, &context, operation)?;
            Ok(GenerateDataKeyWithoutPlaintextAnswer { key_id, ciphertext_blob })
        })
        .await
    }

    /// Encrypts 1 to 4,096 bytes under `key`, bound to `context`.
    ///
    /// # Errors
    /// As [`generate_data_key`](Self::generate_data_key); ValidationException for the length.
    pub async fn encrypt(&self, key: &str, plaintext: &[u8], context: &EncryptionContext) -> Result<EncryptAnswer> {
        let context = KmsContext::new(context)?;
        if plaintext.is_empty() || plaintext.len() > PLAINTEXT_MAX {
            return Err(validation(format!("the KMS encrypts 1 to {PLAINTEXT_MAX} bytes, not {}", plaintext.len()))
                .with_advice("encrypt larger data with an `Envelope` on `LocalKms::provider`"));
        }
        let (name, plaintext) = (key.to_owned(), Zeroizing::new(plaintext.to_vec()));
        self.call(move |store| encrypt(store, &name, &plaintext, &context)).await
    }

    /// Decrypts a ciphertext blob, which names its key, under the context that it was encrypted with.
    ///
    /// # Errors
    /// InvalidCiphertextException, of kind [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed), if
    /// blob or context is not what was encrypted; NotFoundException if its key is not in this keystore;
    /// DisabledException, KMSInvalidStateException; the keystore's own failures.
    pub async fn decrypt(&self, ciphertext_blob: &[u8], context: &EncryptionContext) -> Result<DecryptAnswer> {
        let (blob, context) = (check_blob(ciphertext_blob)?, KmsContext::new(context)?);
        self.call(move |store| store.read(|tx| decrypt(tx, &blob, &context, None))).await
    }

    /// As [`decrypt`](Self::decrypt), only if `key` is the key that the blob names.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and IncorrectKeyException.
    pub async fn decrypt_under(
        &self,
        key: &str,
        ciphertext_blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<DecryptAnswer> {
        let (blob, context) = (check_blob(ciphertext_blob)?, KmsContext::new(context)?);
        let name = key.to_owned();
        self.call(move |store| {
            store.read(|tx| {
                let key = KeyRecord::existing(tx, &name)?;
                decrypt(tx, &blob, &context, Some(&key.key_id))
            })
        })
        .await
    }

    /// Decrypts a blob and encrypts it under `destination_key`'s current version, inside the KMS, under
    /// the same context.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) and [`encrypt`](Self::encrypt).
    pub async fn re_encrypt(
        &self,
        ciphertext_blob: &[u8],
        context: &EncryptionContext,
        destination_key: &str,
    ) -> Result<ReEncryptAnswer> {
        let (blob, context) = (check_blob(ciphertext_blob)?, KmsContext::new(context)?);
        let destination = destination_key.to_owned();
        self.call(move |store| re_encrypt(store, &blob, &context, None, &destination)).await
    }
}

pub(super) fn describe(store: &mut Store, name: &str) -> Result<KeyMetadata> {
    with_key(store, name, |tx, key| {
        check_state(&key.key_id, key.state, KeyOperation::DescribeKey)?;
        Ok(key.clone().metadata(tx.realm))
    })
}

pub(super) fn generate(
    store: &mut Store,
    name: &str,
    length: DataKeyLength,
    context: &KmsContext,
    operation: KeyOperation,
) -> Result<GenerateDataKeyAnswer> {
    with_key(store, name, |tx, key| {
        check_state(&key.key_id, key.state, operation)?;
        let plaintext = DataKey::try_init(length, crypto::random::fill)?;
        let ciphertext_blob = seal_blob(&key.current_material(tx)?, plaintext.expose(), context)?;
        Ok(GenerateDataKeyAnswer { key_id: tx.realm.full_name(&key.key_id), plaintext, ciphertext_blob })
    })
}

pub(super) fn encrypt(store: &mut Store, name: &str, plaintext: &[u8], context: &KmsContext) -> Result<EncryptAnswer> {
    with_key(store, name, |tx, key| {
        check_state(&key.key_id, key.state, KeyOperation::Encrypt)?;
        let ciphertext_blob = seal_blob(&key.current_material(tx)?, plaintext, context)?;
        Ok(EncryptAnswer { key_id: tx.realm.full_name(&key.key_id), ciphertext_blob })
    })
}

/// Decrypts, if the blob's key is `expected` where one is given.
pub(super) fn decrypt(tx: &Tx<'_>, blob: &[u8], context: &KmsContext, expected: Option<&str>) -> Result<DecryptAnswer> {
    open(tx, blob, context, expected, KeyOperation::Decrypt)
}

pub(super) fn re_encrypt(
    store: &mut Store,
    blob: &[u8],
    context: &KmsContext,
    source: Option<&str>,
    destination: &str,
) -> Result<ReEncryptAnswer> {
    with_key(store, destination, |tx, key| {
        let opened = open(tx, blob, context, source, KeyOperation::ReEncryptFrom)?;
        check_state(&key.key_id, key.state, KeyOperation::ReEncryptTo)?;
        let ciphertext_blob = seal_blob(&key.current_material(tx)?, &opened.plaintext, context)?;
        Ok(ReEncryptAnswer { source_key_id: opened.key_id, key_id: tx.realm.full_name(&key.key_id), ciphertext_blob })
    })
}

fn open(
    tx: &Tx<'_>,
    blob: &[u8],
    context: &KmsContext,
    expected: Option<&str>,
    operation: KeyOperation,
) -> Result<DecryptAnswer> {
    let blob = Blob::parse(blob)?;
    if let Some(expected) = expected
        && expected != blob.key_id
    {
        return Err(Error::new(ErrorKind::NoMatchingKey, format!("the ciphertext is not under the key {expected}"))
            .with_code("IncorrectKeyException")
            .with_advice("name the key that it was encrypted under, or none"));
    }
    let key = KeyRecord::find(tx, blob.key_id)?.ok_or_else(|| {
        not_found(format!(
            "the ciphertext is under the key {:?}, which is not in this keystore, {}",
            blob.key_id, tx.realm
        ))
    })?;
    check_state(&key.key_id, key.state, operation)?;
    if blob.version > key.current_version {
        return Err(version_not_here(&key, blob.version));
    }
    let material = key.material(tx, blob.version)?.ok_or_else(invalid_ciphertext)?;
    let plaintext = blob.open(&material, context)?;
    Ok(DecryptAnswer { key_id: tx.realm.full_name(&key.key_id), plaintext })
}

/// A version that a key does not have yet. Nothing vouches for the number; what it is said for is a keystore
/// that was restored from a backup made before a rotation.
fn version_not_here(key: &KeyRecord, version: u32) -> Error {
    let (key_id, current) = (&key.key_id, key.current_version);
    let message = format!(
        "this was encrypted under version {version} of the key {key_id}, and the newest here is version {current}"
    );
    Error::new(ErrorKind::KeyState, message)
        .with_code("InvalidCiphertextException")
        .with_advice("this keystore is probably an older backup: restore one that was made after that rotation, and do not rotate the key before")
}

/// A copy of a blob that may be one by its length.
pub(super) fn check_blob(blob: &[u8]) -> Result<Vec<u8>> {
    match blob.len() {
        0..=BLOB_MAX => Ok(blob.to_vec()),
        _ => Err(invalid_ciphertext()),
    }
}

/// Whether somebody may make the alias.
fn check_free(tx: &Tx<'_>, alias: &str) -> Result<()> {
    check_alias(alias)?;
    refuse_managed(alias)?;
    match Alias::find(tx, alias)? {
        None => Ok(()),
        Some(_) => Err(Error::invalid_input(format!("the alias {alias} exists already"))
            .with_code("AlreadyExistsException")
            .with_advice("choose another name, or point the alias to another key")),
    }
}

fn existing_alias(tx: &Tx<'_>, alias: &str) -> Result<Alias> {
    check_alias(alias)?;
    refuse_managed(alias)?;
    Alias::find(tx, alias)?.ok_or_else(|| not_found(format!("the alias {alias} does not exist")))
}

fn refuse_managed(alias: &str) -> Result<()> {
    match alias.starts_with(MANAGED_PREFIX) {
        false => Ok(()),
        true => Err(Error::invalid_input(format!("{alias} is of a managed key, which its first use makes"))
            .with_code("InvalidAliasNameException")
            .with_advice("choose a name that does not begin with `alias/envelock/`")),
    }
}

fn alias_target(tx: &Tx<'_>, name: &str, operation: KeyOperation) -> Result<KeyRecord> {
    let key = match tx.realm.resolve(name)? {
        KeyName::Id(_) => KeyRecord::existing(tx, name)?,
        KeyName::Alias(_) => {
            return Err(validation(format!("{name} is an alias, and an alias points to a key"))
                .with_advice("name the key by its id or full name"));
        }
    };
    if key.manager == KeyManager::Managed {
        return Err(validation(format!("{name} is a managed key, which has its own alias only")));
    }
    check_state(&key.key_id, key.state, operation)?;
    Ok(key)
}

/// AWS's limit for `Encrypt`.
const PLAINTEXT_MAX: usize = 4_096;
/// The longest blob that this version makes.
const BLOB_MAX: usize = 2 + 255 + 4 + 32 + 12 + PLAINTEXT_MAX + 16;
