//! Multi-Region keys: replicated to another keystore, and described with all that is known of theirs.

use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::answers::{IssuedFile, KeyMetadata, ReplicationParameters};
use crate::kms::authorise::check_owner;
use crate::kms::family;
use crate::kms::key::KeyManager;
use crate::kms::operations::import::changed_meanwhile;
use crate::kms::parcel::{
    Address, ConfirmedKey, Content, Family, FileKind, KeyPair, MultiRegionConfiguration, ReplicationKey,
    Sha256Fingerprint, check_new, make_bundle, no_replication_key, open_bundle,
};
use crate::kms::records::{KeyRecord, MultiRegion};
use crate::kms::schema::KEYS;
use crate::kms::state::{KeyOperation, KeyState};
use crate::kms::tx::Tx;
use crate::kms::wrapping::WrappingKey;
use crate::worker;

/// Multi-Region keys: one key in several keystores, each of which opens what the others encrypted.
///
/// Keystores do not see one another. What one has to tell another is a file, which somebody carries: see docs/kms.md.
impl LocalKms {
    /// This keystore's public key for replicas, which the keystores that replicate to this one are given. The first
    /// call makes it, which takes 0.2 to 1.3 s, now and then more, on a thread of its own; it stays the same.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn replication_parameters(&self) -> Result<ReplicationParameters> {
        const NAME: &str = "GetReplicationParameters";
        let missing = check_owner(&self.principal, NAME).is_ok()
            && matches!(self.peek(|tx| WrappingKey::for_replication(tx)).await, Ok(None));
        let pair = match missing {
            true => Some(KeyPair::generate().await?),
            false => None,
        };
        self.call(self.asks(NAME), move |tx| {
            tx.permit_owner(NAME)?;
            let key = match WrappingKey::for_replication(tx)? {
                Some(key) => key.public_key()?,
                None => {
                    let pair = pair.as_ref().ok_or_else(changed_meanwhile)?;
                    WrappingKey::keep_for_replication(tx, pair)?;
                    pair.public_key.clone()
                }
            };
            let key = ReplicationKey { realm: tx.realm.clone(), key };
            tx.event.set("publicKeySha256", key.fingerprint().to_string());
            Ok(ReplicationParameters { file: key.encode()?, fingerprint: key.fingerprint() })
        })
        .await
    }

    /// Seals a multi-Region key to another keystore, whose [`replication_parameters`](Self::replication_parameters) are
    /// given: the public key as a file, and the `fingerprint` that its owner said another way.
    /// [`import_replica`](Self::import_replica) takes the bundle there. It may be made again, if it was lost.
    ///
    /// ```no_run
    /// # async fn example(here: envelock::LocalKms, there: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::CreateKeyRequest;
    /// let key = here.create_key(CreateKeyRequest::default().multi_region()).await?.key_id;
    /// let target = there.replication_parameters().await?;
    /// let bundle = here.replicate_key(&key, &target.file, &target.fingerprint).await?;
    /// there.import_replica(&bundle.file, &bundle.sha256).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) if the public key does not have the fingerprint;
    /// AlreadyExistsException if the key has one in that Region, in another keystore; UnsupportedOperationException
    /// unless it is a multi-Region primary key; DisabledException, KMSInvalidStateException, NotFoundException,
    /// ValidationException; AccessDeniedException unless this is the owner's handle and the policy allows it, since the
    /// material leaves; [`Malformed`](crate::ErrorKind::Malformed) and the like for the file;
    /// the keystore's own failures.
    pub async fn replicate_key(
        &self,
        key: &str,
        replication_key: &[u8],
        fingerprint: &Sha256Fingerprint,
    ) -> Result<IssuedFile> {
        let (name, replication_key, fingerprint) = (key.to_owned(), replication_key.to_vec(), *fingerprint);
        let call = self.asks("ReplicateKey").key(key).with("publicKeySha256", fingerprint.to_string());
        self.call(call, move |tx| {
            let (key, target) = sealed_to(tx, &name, &replication_key, &fingerprint)?;
            let issue = family::next_issue(tx, &key.key_id)?;
            let (file, sha256) = make_bundle(&issue, &family::content(tx, &key)?, &target)?;
            family::issued(tx, &issue.to(target.realm()), FileKind::ReplicaBundle, None)?;
            tx.event.set("sha256", sha256.to_string());
            Ok(answer(tx, &key.key_id, target.realm().to_string(), file))
        })
        .await
    }

    /// Makes the replica that a bundle brings. It begins Enabled, with the description of the primary key, and with a
    /// policy, grants, aliases and tags of its own, which are none.
    ///
    /// `sha256` is what the source printed: without it, whoever has this keystore's public key could plant material
    /// that he knows.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) for another hash;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bundle that is for another keystore, or was taken already;
    /// AlreadyExistsException if the keystore has a key of that id, which is never replaced; AccessDeniedException
    /// unless this is the owner's handle; [`Malformed`](crate::ErrorKind::Malformed) and the like for the file; the
    /// keystore's own failures.
    pub async fn import_replica(&self, bundle: &[u8], sha256: &Sha256Fingerprint) -> Result<KeyMetadata> {
        const NAME: &str = "ImportReplica";
        let opened = match check_owner(&self.principal, NAME) {
            Ok(()) => self.opened(bundle.to_vec(), *sha256).await,
            Err(error) => Err(error),
        };
        self.call(self.asks(NAME).with("sha256", sha256.to_string()), move |tx| {
            tx.permit_owner(NAME)?;
            let (address, content) = opened.as_ref().map_err(Error::again)?;
            tx.event.key_id.clone_from(&address.key_id);
            let existing = KeyRecord::find(tx, &address.key_id)?;
            check_new(&address.key_id, existing.map(|key| key.state.name()))?;
            family::taken(tx, address, FileKind::ReplicaBundle)?;
            let key = make_replica(tx, address, content)?;
            key.metadata(tx)
        })
        .await
    }

    /// A multi-Region key's keys, as far as this keystore has been told: AWS's `MultiRegionConfiguration`.
    ///
    /// # Errors
    /// UnsupportedOperationException for another key, NotFoundException, ValidationException, AccessDeniedException; the
    /// keystore's own failures.
    pub async fn multi_region_configuration(&self, key: &str) -> Result<MultiRegionConfiguration> {
        let name = key.to_owned();
        self.call(self.asks("DescribeKey").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::DescribeKey, None)?;
            Ok(family::load(tx, &key)?.configuration(tx.realm))
        })
        .await
    }

    async fn opened(&self, bundle: Vec<u8>, sha256: Sha256Fingerprint) -> Result<(Address, Content)> {
        let pkcs8 = self.peek(|tx| WrappingKey::for_replication(tx)?.map(|key| key.pkcs8(tx)).transpose()).await?;
        let here = self.realm().clone();
        worker::run("envelock-replica", move || {
            // Whatever the bundle is, it is not looked at before its hash.
            Sha256Fingerprint::of(&bundle).check(&sha256, "the replica bundle")?;
            let pkcs8 = pkcs8.ok_or_else(no_replication_key)?;
            open_bundle(&bundle, &sha256, &here, &KeyPair::private_key(&pkcs8)?)
        })
        .await
    }
}

/// The key, and the keystore that its material may be sealed to, which is of its family from now on.
pub(in crate::kms) fn sealed_to(
    tx: &mut Tx<'_>,
    name: &str,
    replication_key: &[u8],
    fingerprint: &Sha256Fingerprint,
) -> Result<(KeyRecord, ConfirmedKey)> {
    let mut key = KeyRecord::existing(tx, name)?;
    tx.allow(&key, KeyOperation::ReplicateKey, None)?;
    // What leaves is the material, for whoever has the key pair that the caller names: in AWS it stays within.
    tx.permit_owner("ReplicateKey")?;
    let target = ReplicationKey::parse(replication_key)?.confirm(fingerprint)?;
    tx.event.set("replicaRegion", target.realm().region.as_str());
    let mut family = family::load(tx, &key)?;
    family.replicate(tx.realm, target.realm())?;
    family::keep(tx, &mut key, &family)?;
    Ok((key, target))
}

fn make_replica(tx: &mut Tx<'_>, address: &Address, content: &Content) -> Result<KeyRecord> {
    let mut key = KeyRecord {
        key_id: address.key_id.clone(),
        manager: KeyManager::Customer,
        state: KeyState::Enabled,
        origin: content.origin,
        description: content.description.clone(),
        created_at: tx.now,
        current_version: 0,
        rotation_period_days: None,
        next_rotation_at: None,
        deletion_at: None,
        pending_window_days: None,
        multi_region: MultiRegion::Replica,
        primary_region: Some(address.issuer.region.clone()),
    };
    family::take_versions(tx, &mut key, content, &content.versions)?;
    family::keep(tx, &mut key, &Family::of_bundle(address))?;
    tx.insert(&KEYS, key.to_row())?;
    Ok(key)
}

pub(in crate::kms) fn answer(tx: &Tx<'_>, key_id: &str, target: String, file: Vec<u8>) -> IssuedFile {
    IssuedFile { sha256: Sha256Fingerprint::of(&file), file, key_id: tx.realm.full_name(key_id), target }
}
