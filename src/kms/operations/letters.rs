//! What the keystores of a multi-Region key tell one another: a rotation, another primary key, a deletion.

use crate::error::{Error, ErrorKind, Result};
use crate::kms::LocalKms;
use crate::kms::answers::{IssuedFile, KeyMetadata};
use crate::kms::authorise::check_owner;
use crate::kms::family;
use crate::kms::imported::{self, invalid_state};
use crate::kms::key::{KeyName, KeyOrigin, Realm, not_found, validation};
use crate::kms::operations::replicas::{answer, sealed_to};
use crate::kms::parcel::{
    Address, Family, FileKind, KeyPair, Letter, News, Sha256Fingerprint, describe_file, make_primary_change,
    make_rotation, new_versions,
};
use crate::kms::records::KeyRecord;
use crate::kms::state::KeyOperation;
use crate::kms::tx::Tx;
use crate::kms::wrapping::WrappingKey;
use crate::worker;

/// Files between the keystores of a multi-Region key. Each is taken once, and none after a later one of the same
/// issuer. They are authenticated under the key's first material; only a rotation has secrets, which are sealed.
impl LocalKms {
    /// Seals all versions of a multi-Region primary key to a keystore that has its replica, which takes those that it
    /// lacks with [`import_rotation`](Self::import_rotation). The public key is given as to
    /// [`replicate_key`](Self::replicate_key), whose permission this needs. A primary key that was a replica before
    /// learns of the others when it makes a file for them.
    ///
    /// # Errors
    /// As [`replicate_key`](Self::replicate_key).
    pub async fn export_rotation(
        &self,
        key: &str,
        replication_key: &[u8],
        fingerprint: &Sha256Fingerprint,
    ) -> Result<IssuedFile> {
        let (name, replication_key, fingerprint) = (key.to_owned(), replication_key.to_vec(), *fingerprint);
        let call = self.asks("ExportRotation").key(key).with("publicKeySha256", fingerprint.to_string());
        self.call(call, move |tx| {
            let (key, target) = sealed_to(tx, &name, &replication_key, &fingerprint)?;
            let issue = family::next_issue(tx, &key.key_id)?;
            let first = family::first_material(tx, &key)?;
            let file = make_rotation(&issue, &family::content(tx, &key)?, &target, &first)?;
            family::issued(tx, &issue.to(target.realm()), FileKind::Rotation, None)?;
            tx.event.set("keyVersion", key.current_version);
            Ok(answer(tx, &key.key_id, target.realm().to_string(), file))
        })
        .await
    }

    /// Takes the versions of a rotation file that are new here; the newest encrypts from now on.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) if no keystore that has the key made it;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is for another keystore, was taken, has nothing new, or is
    /// not from the primary key that this keystore knows of; NotFoundException if the key is not here;
    /// AccessDeniedException unless this is the owner's handle; [`Malformed`](crate::ErrorKind::Malformed) and the
    /// like for the file; the keystore's own failures.
    pub async fn import_rotation(&self, file: &[u8]) -> Result<KeyMetadata> {
        self.take("ImportRotation", file, FileKind::Rotation, |tx, key, family, (address, news)| {
            let News::Rotated(content) = news else { return Err(another_kind()) };
            family.check_from_primary(&address.issuer)?;
            let versions = new_versions(key.current_version, &content.versions)?;
            family::take_versions(tx, key, content, versions)?;
            tx.event.set("keyVersion", key.current_version);
            Ok(())
        })
        .await
    }

    /// Makes the replica in another Region the primary key: the key here steps down, at once and durably, and only then
    /// is the file given out that says so. The replica is the primary one when
    /// [`import_primary_change`](Self::import_primary_change) has taken it there; until then nobody rotates the key.
    ///
    /// # Errors
    /// NotFoundException for a Region without a replica; UnsupportedOperationException unless the key is a multi-Region
    /// primary key; KMSInvalidStateException, also while new imported material waits for its rotation;
    /// DisabledException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn update_primary_region(&self, key: &str, primary_region: &str) -> Result<IssuedFile> {
        let (name, region) = (key.to_owned(), primary_region.to_owned());
        let call = self.asks("UpdatePrimaryRegion").key(key).with("primaryRegion", primary_region);
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::UpdatePrimaryRegion, None)?;
            if key.origin == KeyOrigin::External && imported::waiting(tx, &key)?.is_some() {
                let message = format!("new material of the key {} waits for its rotation", key.key_id);
                return Err(invalid_state(message).with_advice("rotate the key, or delete the material that waits"));
            }
            let mut family = family::load(tx, &key)?;
            let successor = family::replica_in(&family, &region)?;
            family.step_down(tx.realm, &successor)?;
            family::keep(tx, &mut key, &family)?;
            key.save(tx)?;
            family::forget_kept(tx, &key.key_id, FileKind::PrimaryChange)?;
            issue_primary_change(tx, &key, &family, &successor)
        })
        .await
    }

    /// The file again by which the key here stepped down, for the keystore in this Region: the new primary key's, or
    /// another replica's, which has to know too. Always the same for each.
    ///
    /// # Errors
    /// UnsupportedOperationException unless the key here has stepped down; NotFoundException for a Region in which no
    /// other key of it is known; ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn export_primary_change(&self, key: &str, region: &str) -> Result<IssuedFile> {
        let (name, region) = (key.to_owned(), region.to_owned());
        let call = self.asks("ExportPrimaryChange").key(key).with("region", region.as_str());
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.event.key_id.clone_from(&key.key_id);
            tx.permit(&key, KeyOperation::UpdatePrimaryRegion, None)?;
            let family = family::load(tx, &key)?;
            let primary = family.check_stepped_down(tx.realm)?.clone();
            if family::kept(tx, &key.key_id, FileKind::PrimaryChange, None)?.is_none() {
                return Err(Error::invalid_input("the key here was not the primary one before")
                    .with_code("UnsupportedOperationException")
                    .with_advice("the keystore that had the primary key makes this file"));
            }
            let target = match primary.region == region {
                true => primary,
                false => family::replica_in(&family, &region)?,
            };
            match family::kept(tx, &key.key_id, FileKind::PrimaryChange, Some(&target))? {
                Some(file) => Ok(answer(tx, &key.key_id, target.to_string(), file)),
                None => issue_primary_change(tx, &key, &family, &target),
            }
        })
        .await
    }

    /// Takes the file by which the primary key before stepped down: where it names this keystore, the key here is the
    /// primary one from now on.
    ///
    /// # Errors
    /// As [`import_rotation`](Self::import_rotation).
    pub async fn import_primary_change(&self, file: &[u8]) -> Result<KeyMetadata> {
        self.take("ImportPrimaryChange", file, FileKind::PrimaryChange, |tx, key, family, (address, news)| {
            let News::PrimaryIs(primary) = news else { return Err(another_kind()) };
            if primary == tx.realm && key.deletion_at.is_some() {
                return Err(Error::new(ErrorKind::KeyState, format!("the key {} is pending deletion", key.key_id))
                    .with_code("KMSInvalidStateException")
                    .with_advice("cancel its deletion before it becomes the primary key: else there would be none"));
            }
            family.primary_changed(&address.issuer, primary)?;
            tx.event.set("primaryRegion", primary.region.as_str());
            family::forget_kept(tx, &key.key_id, FileKind::PrimaryChange)
        })
        .await
    }

    /// The receipt that a replica left when it was deleted here, by its key id or full name: its primary key waits for
    /// that.
    ///
    /// # Errors
    /// NotFoundException if there is none; ValidationException for an alias or what is no name; AccessDeniedException
    /// unless this is the owner's handle; the keystore's own failures.
    pub async fn export_deletion_receipt(&self, key: &str) -> Result<IssuedFile> {
        const NAME: &str = "ExportDeletionReceipt";
        let name = key.to_owned();
        self.call(self.asks(NAME).key(key), move |tx| {
            tx.permit_owner(NAME)?;
            let KeyName::Id(key_id) = tx.realm.resolve(&name)? else {
                return Err(validation("a key that was deleted has no alias").with_advice("name it by its key id"));
            };
            key_id.clone_into(&mut tx.event.key_id);
            let file = family::kept(tx, key_id, FileKind::DeletionReceipt, None)?.ok_or_else(|| {
                not_found(format!("no replica {key_id} was deleted here"))
                    .with_advice("the receipt is made when the deletion takes place, at the end of its waiting period")
            })?;
            let target = describe_file(&file)?.target.unwrap_or_default();
            Ok(answer(tx, key_id, target, file))
        })
        .await
    }

    /// Takes the receipt of a replica's deletion, at the primary key. When the last replica is gone, a primary key that
    /// is PendingReplicaDeletion begins to wait for its own.
    ///
    /// # Errors
    /// As [`import_rotation`](Self::import_rotation).
    pub async fn import_deletion_receipt(&self, file: &[u8]) -> Result<KeyMetadata> {
        self.take("ImportDeletionReceipt", file, FileKind::DeletionReceipt, |tx, key, family, (address, news)| {
            let News::Deleted = news else { return Err(another_kind()) };
            family.deleted(&address.issuer)?;
            family::let_go(tx, key, family);
            Ok(())
        })
        .await
    }

    /// Forgets the replica in a Region, without a receipt: its keystore was lost, or never took the bundle. **If it is
    /// still there, it goes on opening what the key encrypted.** Needs the permission to schedule the key's deletion.
    ///
    /// # Errors
    /// NotFoundException for a Region without a replica; UnsupportedOperationException unless the key is a multi-Region
    /// primary key; ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn forget_replica(&self, key: &str, region: &str) -> Result<KeyMetadata> {
        let (name, region) = (key.to_owned(), region.to_owned());
        let call = self.asks("ForgetReplica").key(key).with("region", region.as_str());
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.event.key_id.clone_from(&key.key_id);
            tx.permit(&key, KeyOperation::ScheduleKeyDeletion, None)?;
            let mut family = family::load(tx, &key)?;
            family.check_primary(tx.realm)?;
            let replica = family::replica_in(&family, &region)?;
            family.deleted(&replica)?;
            family::keep(tx, &mut key, &family)?;
            family::let_go(tx, &mut key, &family);
            key.save(tx)?;
            key.metadata(tx)
        })
        .await
    }

    /// Takes a letter of this kind: opens it, notes that it was taken, does what it says to the key and to what is known
    /// of its keystores, and keeps both.
    async fn take(
        &self,
        name: &'static str,
        file: &[u8],
        kind: FileKind,
        apply: impl Fn(&mut Tx<'_>, &mut KeyRecord, &mut Family, (&Address, &News)) -> Result<()> + Send + 'static,
    ) -> Result<KeyMetadata> {
        let told = match check_owner(&self.principal, name) {
            Ok(()) => self.read_letter(file.to_vec(), kind).await,
            Err(error) => Err(error),
        };
        self.call(self.asks(name), move |tx| {
            tx.permit_owner(name)?;
            let (address, news) = told.as_ref().map_err(Error::again)?;
            tx.event.key_id.clone_from(&address.key_id);
            let mut key = KeyRecord::find(tx, &address.key_id)?.ok_or_else(|| no_key(tx, &address.key_id))?;
            let mut family = family::load(tx, &key)?;
            family::taken(tx, address, kind)?;
            apply(tx, &mut key, &mut family, (address, news))?;
            family::keep(tx, &mut key, &family)?;
            key.save(tx)?;
            key.metadata(tx)
        })
        .await
    }

    async fn read_letter(&self, file: Vec<u8>, kind: FileKind) -> Result<(Address, News)> {
        let found = describe_file(&file)?;
        if found.kind != kind {
            return Err(Error::invalid_input(format!(
                "this file is of the kind {}, and {kind} is asked for",
                found.kind
            ))
            .with_advice("check which file this is, and give the one that is asked for"));
        }
        let key_id = found.key_id.unwrap_or_default();
        let (first, pkcs8) = self
            .peek(move |tx| {
                let key = KeyRecord::find(tx, &key_id)?.ok_or_else(|| no_key(tx, &key_id))?;
                let pkcs8 = WrappingKey::for_replication(tx)?.map(|key| key.pkcs8(tx)).transpose()?;
                Ok((family::first_material(tx, &key)?, pkcs8))
            })
            .await?;
        let here: Realm = self.realm().clone();
        worker::run("envelock-replica", move || {
            let key = match kind {
                FileKind::Rotation => pkcs8.map(|pkcs8| KeyPair::private_key(&pkcs8)).transpose()?,
                _ => None,
            };
            Letter::parse(&file)?.open(&first, &here, key.as_ref())
        })
        .await
    }
}

fn issue_primary_change(tx: &mut Tx<'_>, key: &KeyRecord, family: &Family, target: &Realm) -> Result<IssuedFile> {
    let address = family::next_issue(tx, &key.key_id)?.to(target);
    let first = family::first_material(tx, key)?;
    let file = make_primary_change(&address, &family.primary, &first)?;
    family::issued(tx, &address, FileKind::PrimaryChange, Some(&file))?;
    Ok(answer(tx, &key.key_id, target.to_string(), file))
}

fn no_key(tx: &Tx<'_>, key_id: &str) -> Error {
    not_found(format!("this file is about the key {key_id}, which is not in this keystore, {}", tx.realm))
        .with_advice("import the key's replica here first")
}

fn another_kind() -> Error {
    Error::internal("a file says something else than its kind")
}
