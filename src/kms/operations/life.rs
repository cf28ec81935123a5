//! The life of a key: enabled, disabled, to be deleted.

use crate::error::Result;
use crate::kms::LocalKms;
use crate::kms::answers::{KeyMetadata, ScheduleKeyDeletionAnswer};
use crate::kms::fields::{text, time};
use crate::kms::key::KeyOrigin;
use crate::kms::records::{KeyRecord, MultiRegion, check_description};
use crate::kms::schedule::DeletionWindow;
use crate::kms::schema::REPLICAS;
use crate::kms::state::{KeyOperation, KeyState};
use crate::kms::tx::Tx;

/// The life of a key. A key that is disabled, or is to be deleted, is in use nowhere from the next call on, by data keys in
/// this process's caches either; in other processes' caches, within a second.
impl LocalKms {
    /// Makes a customer key usable again. One whose rotation was due meanwhile is rotated at once.
    ///
    /// # Errors
    /// KMSInvalidStateException, UnsupportedOperationException for a managed key, NotFoundException,
    /// ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn enable_key(&self, key: &str) -> Result<()> {
        let name = key.to_owned();
        self.call(self.asks("EnableKey").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::EnableKey, None)?;
            go(tx, &mut key, KeyState::Enabled)
        })
        .await
    }

    /// Makes a customer key unusable until it is enabled again. What it encrypted stays as it is, and closed.
    ///
    /// # Errors
    /// As [`enable_key`](Self::enable_key).
    pub async fn disable_key(&self, key: &str) -> Result<()> {
        let name = key.to_owned();
        self.call(self.asks("DisableKey").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::DisableKey, None)?;
            tx.revoked = true;
            go(tx, &mut key, KeyState::Disabled)
        })
        .await
    }

    /// Lets a customer key be deleted when the window ends, and makes it unusable at once. **With it goes what it
    /// encrypted, for ever.** Until then [`cancel_key_deletion`](Self::cancel_key_deletion) takes it back. The primary
    /// of a multi-Region key waits for the deletion of its replicas first.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::DeletionWindow;
    /// let answer = kms.schedule_key_deletion("alias/orders", DeletionWindow::from_days(7)?).await?;
    /// println!("{} is deleted at {:?}", answer.key_id, answer.deletion_date);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// KMSInvalidStateException if it is pending deletion already, UnsupportedOperationException for a managed key,
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn schedule_key_deletion(&self, key: &str, window: DeletionWindow) -> Result<ScheduleKeyDeletionAnswer> {
        let name = key.to_owned();
        let call = self.asks("ScheduleKeyDeletion").key(key).with("pendingWindowInDays", window.days());
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ScheduleKeyDeletion, None)?;
            let replicated =
                key.multi_region == MultiRegion::Primary && !tx.rows_of(&REPLICAS, &text(&key.key_id))?.is_empty();
            (key.state, key.deletion_at) = match replicated {
                true => (KeyState::PendingReplicaDeletion, None),
                false => (KeyState::PendingDeletion, Some(window.ends_at(tx.now.max(key.created_at)))),
            };
            key.pending_window_days = Some(window.days().into());
            key.save(tx)?;
            tx.revoked = true;
            Ok(ScheduleKeyDeletionAnswer {
                key_id: tx.realm.full_name(&key.key_id),
                deletion_date: key.deletion_at.map(time),
                key_state: key.state,
                pending_window_in_days: window.days().into(),
            })
        })
        .await
    }

    /// Takes back the deletion of a key, which is Disabled then; one that lacks imported material, PendingImport.
    ///
    /// # Errors
    /// KMSInvalidStateException unless it is pending deletion, UnsupportedOperationException for a managed key,
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn cancel_key_deletion(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(self.asks("CancelKeyDeletion").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::CancelKeyDeletion, None)?;
            let versions = key.versions(tx)?;
            let lacks = versions.is_empty() || versions.iter().any(|version| version.wrapped.is_none());
            key.state = match key.origin == KeyOrigin::External && lacks {
                true => KeyState::PendingImport,
                false => KeyState::Disabled,
            };
            key.deletion_at = None;
            key.pending_window_days = None;
            key.save(tx)?;
            key.metadata(tx)
        })
        .await
    }

    /// Gives a customer key another description: at most 8,192 characters. Not secret.
    ///
    /// # Errors
    /// KMSInvalidStateException, UnsupportedOperationException for a managed key, NotFoundException,
    /// ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn update_key_description(&self, key: &str, description: &str) -> Result<()> {
        let (name, description) = (key.to_owned(), description.to_owned());
        let call = self.asks("UpdateKeyDescription").key(key).with("description", description.as_str());
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::UpdateKeyDescription, None)?;
            check_description(&description)?;
            key.description.clone_from(&description);
            key.save(tx)
        })
        .await
    }
}

/// A key that is in the state already stays as it is.
fn go(tx: &mut Tx<'_>, key: &mut KeyRecord, state: KeyState) -> Result<()> {
    match key.state == state {
        true => Ok(()),
        false => {
            key.state = state;
            key.save(tx)
        }
    }
}
