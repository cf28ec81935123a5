//! Imported key material: asked for, taken in, deleted.

use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::answers::{ImportForm, ImportKeyMaterialAnswer, ImportKeyMaterialRequest};
use crate::kms::due::lose_material;
use crate::kms::imported;
use crate::kms::key::not_found;
use crate::kms::parcel::{
    ImportParameters, KeyPair, TokenPlace, check_token, lost_token, open_key_material, unverified_fingerprint,
    unwrap_key_material,
};
use crate::kms::records::{KeyRecord, VersionRecord};
use crate::kms::schedule::check_expiry;
use crate::kms::state::KeyOperation;
use crate::kms::store::millis_of;
use crate::kms::tx::Tx;
use crate::kms::wrapping::WrappingKey;
use crate::secret::Secret;
use crate::worker;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Imported key material: a key of origin EXTERNAL ([`CreateKeyRequest::external`](crate::CreateKeyRequest::external))
/// encrypts under 32 bytes that were made elsewhere, and that their owner keeps a copy of.
impl LocalKms {
    /// What an import begins with: a public key that wraps the material, RSA-OAEP-SHA-256 with 4,096 bits, and a
    /// token. Valid for 24 hours and one import. Takes 0.2 to 1.3 s, now and then more, on a thread of its own.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms, material: envelock::Secret<32>) -> Result<(), envelock::Error> {
    /// use envelock::CreateKeyRequest;
    /// use envelock::kms::{ImportKeyMaterialRequest, wrap_key_material};
    /// let key = kms.create_key(CreateKeyRequest::default().external()).await?.key_id;
    /// let parameters = kms.get_parameters_for_import(&key).await?;
    /// // Where the material is; the fingerprint was read out by the keystore's owner.
    /// let wrapped = wrap_key_material(&material, &parameters, &parameters.fingerprint())?;
    /// let request = ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token());
    /// kms.import_key_material(&key, request).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// UnsupportedOperationException for a key of another origin, KMSInvalidStateException, NotFoundException,
    /// ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn get_parameters_for_import(&self, key: &str) -> Result<ImportParameters> {
        let name = key.to_owned();
        let pair = match self.would_allow(key, KeyOperation::GetParametersForImport).await {
            true => Some(KeyPair::generate().await?),
            false => None,
        };
        let call = self
            .asks("GetParametersForImport")
            .key(key)
            .with("wrappingAlgorithm", "RSAES_OAEP_SHA_256")
            .with("wrappingKeySpec", "RSA_4096");
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::GetParametersForImport, None)?;
            let pair = pair.as_ref().ok_or_else(changed_meanwhile)?;
            let until = tx.now.saturating_add(ImportParameters::VALID_MILLIS);
            let token_key = WrappingKey::keep_for_import(tx, pair, &key.key_id, until)?;
            let place = TokenPlace { keystore_id: &tx.realm.keystore_id, key_id: &key.key_id, token_key: &token_key };
            let parameters = ImportParameters::issue(place, pair.public_key.clone(), tx.now)?;
            tx.event.set("publicKeySha256", parameters.fingerprint().to_string());
            Ok(parameters)
        })
        .await
    }

    /// Takes material into a key: its first; the same again, after it expired or was deleted, or to change when it
    /// expires; or new material, with
    /// [`new_key_material`](ImportKeyMaterialRequest::new_key_material), which waits until
    /// [`rotate`](Self::rotate) makes it the version that encrypts. A key all of whose material is here is Enabled.
    ///
    /// # Errors
    /// InvalidImportTokenException, ExpiredImportTokenException; InvalidCiphertextException for what is not wrapped
    /// with the token's public key, or not under the passphrase; IncorrectKeyMaterialException for other material than
    /// before, or of another length than 32 bytes; ValidationException for an expiry that has passed or is more than 365
    /// days away; KMSInvalidStateException, also where new material waits already;
    /// UnsupportedOperationException for a key of another origin, and for new material at a replica;
    /// NotFoundException, AccessDeniedException; the keystore's own failures.
    pub async fn import_key_material(
        &self,
        key: &str,
        request: ImportKeyMaterialRequest,
    ) -> Result<ImportKeyMaterialAnswer> {
        let ImportKeyMaterialRequest { form, valid_to, import_type } = request;
        let mut call = self.asks("ImportKeyMaterial").key(key);
        if let Some(valid_to) = valid_to {
            call = call.with("validTo", valid_to.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs()));
        }
        if let Some(import_type) = import_type {
            call = call.with("importType", import_type.name());
        }
        let token = match &form {
            ImportForm::Wrapped { token, .. } => Some(token.clone()),
            ImportForm::Passphrase { .. } => None,
        };
        let material = match self.would_allow(key, KeyOperation::ImportKeyMaterial).await {
            true => self.unwrapped(form).await,
            false => Err(changed_meanwhile()),
        };
        let (name, expires_at) = (key.to_owned(), valid_to.map(millis_of));
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ImportKeyMaterial, None)?;
            let used = token.as_ref().map(|token| check(tx, &key, token)).transpose()?;
            let material = material.as_ref().map_err(Error::again)?;
            if let Some(expires_at) = expires_at {
                check_expiry(expires_at, tx.now)?;
            }
            let version = imported::take(tx, &mut key, material, import_type, expires_at)?;
            tx.event.set("keyVersion", version);
            if let Some(used) = used {
                used.delete(tx)?;
            }
            Ok(ImportKeyMaterialAnswer {
                key_id: tx.realm.full_name(&key.key_id),
                version,
                key_state: key.state,
                waits_for_rotation: version > key.current_version,
            })
        })
        .await
    }

    /// Deletes the material of the version that encrypts, at once. The key is PendingImport, and opens and encrypts
    /// nothing, until the same material is imported again; what it is called, and who may use it, stays.
    ///
    /// # Errors
    /// UnsupportedOperationException for a key of another origin, NotFoundException (also if no material was ever
    /// imported), ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn delete_imported_key_material(&self, key: &str) -> Result<()> {
        self.delete_material(key, None).await
    }

    /// As [`delete_imported_key_material`](Self::delete_imported_key_material), of another version. New material that
    /// waits for its rotation leaves the key as it is.
    ///
    /// # Errors
    /// As [`delete_imported_key_material`](Self::delete_imported_key_material).
    pub async fn delete_imported_key_material_of(&self, key: &str, version: u32) -> Result<()> {
        self.delete_material(key, Some(version)).await
    }

    async fn delete_material(&self, key: &str, version: Option<u32>) -> Result<()> {
        let name = key.to_owned();
        let mut call = self.asks("DeleteImportedKeyMaterial").key(key);
        if let Some(version) = version {
            call = call.with("keyVersion", version);
        }
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::DeleteImportedKeyMaterial, None)?;
            let version = version.unwrap_or(key.current_version);
            let record = VersionRecord::find(tx, &key.key_id, version)?.ok_or_else(|| {
                not_found(format!("the key {} has no material of a version {version}", key.key_id))
                    .with_advice("name a version that it has")
            })?;
            match record.wrapped {
                Some(_) => lose_material(tx, &mut key, record),
                None => Ok(()),
            }
        })
        .await
    }

    /// The material that a request brings: slow, and so on a thread of its own.
    async fn unwrapped(&self, form: ImportForm) -> Result<Secret<32>> {
        match form {
            ImportForm::Passphrase { text, passphrase } => {
                worker::run("envelock-import", move || open_key_material(&text, &passphrase)).await
            }
            ImportForm::Wrapped { material, token } => {
                let pkcs8 = self
                    .peek(move |tx| {
                        let fingerprint = unverified_fingerprint(&token).ok_or_else(|| lost_token(&token, tx.now))?;
                        let key = WrappingKey::for_import(tx, &fingerprint)?;
                        key.ok_or_else(|| lost_token(&token, tx.now))?.pkcs8(tx)
                    })
                    .await?;
                worker::run("envelock-import", move || unwrap_key_material(&material, &KeyPair::private_key(&pkcs8)?))
                    .await
            }
        }
    }

    /// Whether the caller would be let through now: asked before slow work, and again by the call itself, which leaves
    /// the record.
    async fn would_allow(&self, key: &str, operation: KeyOperation) -> bool {
        let name = key.to_owned();
        self.peek(move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, operation, None)
        })
        .await
        .is_ok()
    }

    /// Looks at the keystore for a call that is to come, and leaves no record.
    pub(in crate::kms) async fn peek<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let principal = Arc::clone(&self.principal);
        self.look(move |store| {
            store.read(|tx| {
                tx.principal = principal;
                operation(tx)
            })
        })
        .await
    }
}

/// The pair that came with a token, which must be of this key.
fn check(tx: &Tx<'_>, key: &KeyRecord, token: &[u8]) -> Result<WrappingKey> {
    let lost = || lost_token(token, tx.now);
    let pair = WrappingKey::for_import(tx, &unverified_fingerprint(token).ok_or_else(lost)?)?.ok_or_else(lost)?;
    let token_key = pair.token_key(tx)?;
    let place = TokenPlace { keystore_id: &tx.realm.keystore_id, key_id: &key.key_id, token_key: &token_key };
    check_token(token, place, tx.now)?;
    match pair.key_id == key.key_id {
        true => Ok(pair),
        false => Err(lost()),
    }
}

pub(in crate::kms) fn changed_meanwhile() -> Error {
    Error::busy("the key changed while its call was prepared")
}
