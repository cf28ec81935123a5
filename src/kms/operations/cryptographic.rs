//! Operations that use a key's material.

use crate::context::{EncryptionContext, KmsContext};
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::kms::LocalKms;
use crate::kms::alias::key_for;
use crate::kms::answers::{
    DecryptAnswer, EncryptAnswer, GenerateDataKeyAnswer, GenerateDataKeyWithoutPlaintextAnswer, GenerateRandomAnswer,
    ReEncryptAnswer,
};
use crate::kms::call::Call;
use crate::kms::cipher::{Blob, invalid_ciphertext, seal_blob};
use crate::kms::key::{not_found, validation};
use crate::kms::parcel;
use crate::kms::policy::PolicyAction;
use crate::kms::records::{KeyRecord, MultiRegion};
use crate::kms::state::KeyOperation;
use crate::kms::tx::Tx;
use crate::material::{DataKey, DataKeyLength};
use zeroize::Zeroizing;

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
        let call = generates(self.asks("GenerateDataKey"), key, length, &context);
        self.call(call, move |tx| generate(tx, &name, length, &context, KeyOperation::GenerateDataKey)).await
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
        let call = generates(self.asks("GenerateDataKeyWithoutPlaintext"), key, length, &context);
        self.call(call, move |tx| {
            let GenerateDataKeyAnswer { key_id, ciphertext_blob, .. } =
                generate(tx, &name, length, &context, operation)?;
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
        let call = self.asks("Encrypt").key(key).context(&context);
        self.call(call, move |tx| encrypt(tx, &name, &plaintext, &context)).await
    }

    /// Decrypts a ciphertext blob, which names its key, under the context that it was encrypted with.
    ///
    /// # Errors
    /// InvalidCiphertextException, of kind [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed), if
    /// blob or context is not what was encrypted; NotFoundException if its key is not in this keystore;
    /// DisabledException, KMSInvalidStateException; the keystore's own failures.
    pub async fn decrypt(&self, ciphertext_blob: &[u8], context: &EncryptionContext) -> Result<DecryptAnswer> {
        let (blob, context) = (check_blob(ciphertext_blob)?, KmsContext::new(context)?);
        let call = self.asks("Decrypt").context(&context);
        self.call(call, move |tx| decrypt(tx, &blob, &context, None)).await
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
        let call = self.asks("Decrypt").key(key).context(&context);
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            decrypt(tx, &blob, &context, Some(&key.key_id))
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
        let call = re_encrypts(self.asks("ReEncrypt"), destination_key, &context);
        self.call(call, move |tx| re_encrypt(tx, &blob, &context, None, &destination)).await
    }

    /// As [`re_encrypt`](Self::re_encrypt), under another context than before. What the old context kept apart is
    /// so no longer: both keys must allow `kms:ChangeEncryptionContext` besides.
    ///
    /// # Errors
    /// As [`re_encrypt`](Self::re_encrypt).
    pub async fn re_encrypt_with_context(
        &self,
        ciphertext_blob: &[u8],
        source_context: &EncryptionContext,
        destination_key: &str,
        destination_context: &EncryptionContext,
    ) -> Result<ReEncryptAnswer> {
        let blob = check_blob(ciphertext_blob)?;
        let (from, to) = (KmsContext::new(source_context)?, KmsContext::new(destination_context)?);
        let destination = destination_key.to_owned();
        let call = self
            .asks("ReEncrypt")
            .with("destinationKeyId", destination_key)
            .context_as("sourceEncryptionContext", &from)
            .context_as("destinationEncryptionContext", &to);
        self.call(call, move |tx| re_encrypt_to(tx, (&blob, &from), None, (&destination, &to))).await
    }

    /// 1 to 1,024 random bytes of the operating system's generator.
    ///
    /// # Errors
    /// ValidationException for the number; AccessDeniedException unless this is the owner's handle; the keystore's
    /// own failures.
    pub async fn generate_random(&self, number_of_bytes: usize) -> Result<GenerateRandomAnswer> {
        if !(1..=RANDOM_MAX).contains(&number_of_bytes) {
            return Err(validation(format!("the KMS draws 1 to {RANDOM_MAX} bytes, not {number_of_bytes}")));
        }
        self.call(self.asks("GenerateRandom").with("numberOfBytes", number_of_bytes), move |tx| {
            tx.permit_owner("GenerateRandom")?;
            let mut plaintext = Zeroizing::new(vec![0; number_of_bytes]);
            crypto::random::fill(&mut plaintext)?;
            Ok(GenerateRandomAnswer { plaintext })
        })
        .await
    }
}

/// What the audit trail says of a data key that is made.
pub(in crate::kms) fn generates(call: Call, key: &str, length: DataKeyLength, context: &KmsContext) -> Call {
    call.key(key).with("numberOfBytes", length.bytes()).context(context)
}

/// What the audit trail says of a re-encryption.
pub(in crate::kms) fn re_encrypts(call: Call, destination: &str, context: &KmsContext) -> Call {
    call.with("destinationKeyId", destination).context(context)
}

pub(in crate::kms) fn generate(
    tx: &mut Tx<'_>,
    name: &str,
    length: DataKeyLength,
    context: &KmsContext,
    operation: KeyOperation,
) -> Result<GenerateDataKeyAnswer> {
    let key = key_for(tx, name)?;
    tx.allow(&key, operation, Some(context))?;
    let plaintext = DataKey::try_init(length, crypto::random::fill)?;
    let ciphertext_blob = seal_blob(&*key.current_material(tx)?, plaintext.expose(), context)?;
    Ok(GenerateDataKeyAnswer { key_id: tx.realm.full_name(&key.key_id), plaintext, ciphertext_blob })
}

pub(in crate::kms) fn encrypt(
    tx: &mut Tx<'_>,
    name: &str,
    plaintext: &[u8],
    context: &KmsContext,
) -> Result<EncryptAnswer> {
    let key = key_for(tx, name)?;
    tx.allow(&key, KeyOperation::Encrypt, Some(context))?;
    let ciphertext_blob = seal_blob(&*key.current_material(tx)?, plaintext, context)?;
    Ok(EncryptAnswer { key_id: tx.realm.full_name(&key.key_id), ciphertext_blob })
}

/// Decrypts, if the blob's key is `expected` where one is given.
pub(in crate::kms) fn decrypt(
    tx: &mut Tx<'_>,
    blob: &[u8],
    context: &KmsContext,
    expected: Option<&str>,
) -> Result<DecryptAnswer> {
    open(tx, blob, context, expected, KeyOperation::Decrypt)
}

/// Its record names the key that it is encrypted under from now on; the other is in its parameters.
pub(in crate::kms) fn re_encrypt(
    tx: &mut Tx<'_>,
    blob: &[u8],
    context: &KmsContext,
    source: Option<&str>,
    destination: &str,
) -> Result<ReEncryptAnswer> {
    re_encrypt_to(tx, (blob, context), source, (destination, context))
}

/// From a blob and its context, to a key and its context.
fn re_encrypt_to(
    tx: &mut Tx<'_>,
    (blob, source_context): (&[u8], &KmsContext),
    source: Option<&str>,
    (destination, context): (&str, &KmsContext),
) -> Result<ReEncryptAnswer> {
    let opened = open(tx, blob, source_context, source, KeyOperation::ReEncryptFrom)?;
    let from = std::mem::take(&mut tx.event.key_id);
    if source_context != context {
        let key = KeyRecord::existing(tx, &from)?;
        tx.permit(&key, PolicyAction::ChangeEncryptionContext, Some(source_context))?;
    }
    tx.event.set("sourceKeyId", from);
    let key = key_for(tx, destination)?;
    tx.allow(&key, KeyOperation::ReEncryptTo, Some(context))?;
    if source_context != context {
        tx.permit(&key, PolicyAction::ChangeEncryptionContext, Some(context))?;
    }
    let ciphertext_blob = seal_blob(&*key.current_material(tx)?, &opened.plaintext, context)?;
    Ok(ReEncryptAnswer { source_key_id: opened.key_id, key_id: tx.realm.full_name(&key.key_id), ciphertext_blob })
}

fn open(
    tx: &mut Tx<'_>,
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
    tx.allow(&key, operation, Some(context))?;
    if blob.version > key.current_version {
        return Err(match key.multi_region {
            MultiRegion::Replica => parcel::version_not_here(&key.key_id, blob.version),
            _ => version_not_here(&key, blob.version),
        });
    }
    let material = key.shared_material(tx, blob.version)?.ok_or_else(invalid_ciphertext)?;
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
pub(in crate::kms) fn check_blob(blob: &[u8]) -> Result<Vec<u8>> {
    match blob.len() {
        0..=BLOB_MAX => Ok(blob.to_vec()),
        _ => Err(invalid_ciphertext()),
    }
}

/// AWS's limit for `Encrypt`.
const PLAINTEXT_MAX: usize = 4_096;
/// AWS's limit for `GenerateRandom`.
const RANDOM_MAX: usize = 1_024;
/// The longest blob that this version makes.
const BLOB_MAX: usize = 2 + 255 + 4 + 32 + 12 + PLAINTEXT_MAX + 16;
