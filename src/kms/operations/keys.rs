//! Keys: made, described, listed, rotated.

use crate::error::Result;
use crate::kms::LocalKms;
use crate::kms::alias::{Alias, key_for};
use crate::kms::answers::{CreateKeyRequest, KeyMetadata, KeyVersion};
use crate::kms::key::KeyManager;
use crate::kms::operations::aliases::check_free;
use crate::kms::records::{KeyRecord, Source, VersionRecord};
use crate::kms::state::KeyOperation;
use crate::kms::tx::Tx;

/// Keys and aliases. A key is named by its id, its full name, or an alias.
impl LocalKms {
    /// Makes a customer key, with its alias if one is given.
    ///
    /// # Errors
    /// AlreadyExistsException or InvalidAliasNameException for the alias, ValidationException for the
    /// description, AccessDeniedException; the keystore's own failures: [`Storage`](crate::ErrorKind::Storage),
    /// [`Busy`](crate::ErrorKind::Busy), [`Io`](crate::ErrorKind::Io).
    pub async fn create_key(&self, request: CreateKeyRequest) -> Result<KeyMetadata> {
        let mut call = self.asks("CreateKey").with("description", request.description.as_str());
        if let Some(alias) = &request.alias {
            call = call.with("aliasName", alias.as_str());
        }
        self.call(call, move |tx| {
            tx.permit_owner("CreateKey")?;
            if let Some(alias) = &request.alias {
                check_free(tx, alias)?;
            }
            let key = KeyRecord::create(tx, KeyManager::Customer, &request.description)?;
            if let Some(alias) = &request.alias {
                Alias::create(tx, alias, &key.key_id)?;
            }
            Ok(key.metadata(tx.realm))
        })
        .await
    }

    /// What there is to know about a key. The first use of `alias/envelock/<service>` makes its key.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn describe_key(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(self.asks("DescribeKey").key(key), move |tx| describe(tx, &name)).await
    }

    /// Every key, oldest first.
    ///
    /// # Errors
    /// AccessDeniedException; the keystore's own failures.
    pub async fn list_keys(&self) -> Result<Vec<KeyMetadata>> {
        self.call(self.asks("ListKeys"), |tx| {
            tx.permit_owner("ListKeys")?;
            Ok(KeyRecord::all(tx)?.into_iter().map(|key| key.metadata(tx.realm)).collect())
        })
        .await
    }

    /// Every version of a key, oldest first: each but the first came from a rotation.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn list_key_versions(&self, key: &str) -> Result<Vec<KeyVersion>> {
        let name = key.to_owned();
        self.call(self.asks("ListKeyRotations").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListKeyRotations, None)?;
            Ok(key.versions(tx)?.iter().map(VersionRecord::answer).collect())
        })
        .await
    }

    /// Gives a customer key a new version, which encrypts from now on; older ones still decrypt.
    /// AWS's `RotateKeyOnDemand`.
    ///
    /// # Errors
    /// UnsupportedOperationException for a managed key, DisabledException, KMSInvalidStateException,
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn rotate(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(self.asks("RotateKeyOnDemand").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::RotateKeyOnDemand, None)?;
            key.rotate(tx, Source::OnDemand)?;
            Ok(key.metadata(tx.realm))
        })
        .await
    }
}

pub(in crate::kms) fn describe(tx: &mut Tx<'_>, name: &str) -> Result<KeyMetadata> {
    let key = key_for(tx, name)?;
    tx.allow(&key, KeyOperation::DescribeKey, None)?;
    Ok(key.metadata(tx.realm))
}
