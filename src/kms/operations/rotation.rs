//! Rotation: a key gets a new version by itself or when somebody asks, and older ones still decrypt.

use crate::error::Result;
use crate::kms::LocalKms;
use crate::kms::answers::{KeyMetadata, KeyRotation, KeyRotationStatus, KeyVersion};
use crate::kms::fields::time;
use crate::kms::imported::rotate_to_imported;
use crate::kms::key::KeyOrigin;
use crate::kms::page::{Page, PageLimits, PageRequest};
use crate::kms::records::{KeyRecord, Source, VersionRecord};
use crate::kms::schedule::{Rotation, RotationPeriod};
use crate::kms::state::KeyOperation;

impl LocalKms {
    /// Gives a customer key a new version, which encrypts from now on; older ones still decrypt. It moves no date of
    /// automatic rotation. AWS's `RotateKeyOnDemand`.
    ///
    /// # Errors
    /// UnsupportedOperationException for a managed key, DisabledException, KMSInvalidStateException (also for an
    /// imported key without new material), NotFoundException, ValidationException, AccessDeniedException; the keystore's
    /// own failures.
    pub async fn rotate(&self, key: &str) -> Result<KeyMetadata> {
        let name = key.to_owned();
        self.call(self.asks("RotateKeyOnDemand").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::RotateKeyOnDemand, None)?;
            match key.origin {
                KeyOrigin::Local => key.rotate(tx, Source::OnDemand)?,
                KeyOrigin::External => rotate_to_imported(tx, &mut key)?,
            }
            key.metadata(tx)
        })
        .await
    }

    /// Lets a customer key be rotated by itself, for the first time when one period has passed. With another period
    /// than before, the dates are counted from now; with the same, they stay.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::RotationPeriod;
    /// kms.enable_key_rotation("alias/orders", RotationPeriod::from_days(180)?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// UnsupportedOperationException for managed and imported keys and for replicas, DisabledException,
    /// KMSInvalidStateException, NotFoundException, ValidationException, AccessDeniedException; the keystore's own
    /// failures.
    pub async fn enable_key_rotation(&self, key: &str, period: RotationPeriod) -> Result<()> {
        let name = key.to_owned();
        let call = self.asks("EnableKeyRotation").key(key).with("rotationPeriodInDays", period.days());
        self.call(call, move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::EnableKeyRotation, None)?;
            if key.rotation().is_some_and(|rotation| rotation.period == period) {
                return Ok(());
            }
            key.rotation_period_days = Some(period.days().into());
            key.next_rotation_at = Some(Rotation { since: tx.now, period, last: None }.next_date());
            key.save(tx)
        })
        .await
    }

    /// Lets a customer key be rotated on demand only.
    ///
    /// # Errors
    /// As [`enable_key_rotation`](Self::enable_key_rotation).
    pub async fn disable_key_rotation(&self, key: &str) -> Result<()> {
        let name = key.to_owned();
        self.call(self.asks("DisableKeyRotation").key(key), move |tx| {
            let mut key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::DisableKeyRotation, None)?;
            if key.rotation_period_days.is_none() {
                return Ok(());
            }
            key.rotation_period_days = None;
            key.next_rotation_at = None;
            key.save(tx)
        })
        .await
    }

    /// Whether and when a key is rotated by itself.
    ///
    /// # Errors
    /// UnsupportedOperationException for an imported key, NotFoundException, ValidationException,
    /// AccessDeniedException; the keystore's own failures.
    pub async fn get_key_rotation_status(&self, key: &str) -> Result<KeyRotationStatus> {
        let name = key.to_owned();
        self.call(self.asks("GetKeyRotationStatus").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::GetKeyRotationStatus, None)?;
            // A replica has the period of its primary key, which alone is rotated by it.
            let days = key.rotation_period_days.filter(|_| !key.is_pending_deletion());
            Ok(KeyRotationStatus {
                key_id: tx.realm.full_name(&key.key_id),
                key_rotation_enabled: days.is_some(),
                rotation_period_in_days: days.and_then(|days| u16::try_from(days).ok()),
                next_rotation_date: days.and(key.next_rotation_at).map(time),
            })
        })
        .await
    }

    /// Every version of a key, oldest first: each but the first came from a rotation.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn list_key_versions(&self, key: &str) -> Result<Vec<KeyVersion>> {
        self.versions_of(key, |versions| Ok(versions.iter().map(VersionRecord::answer).collect())).await
    }

    /// As [`list_key_versions`](Self::list_key_versions), a page of them.
    ///
    /// # Errors
    /// As [`list_key_versions`](Self::list_key_versions), and InvalidMarkerException.
    pub async fn list_key_versions_page(&self, key: &str, page: PageRequest) -> Result<Page<KeyVersion>> {
        self.versions_of(key, move |versions| {
            let versions = versions.iter().map(VersionRecord::answer).collect();
            page.of(PageLimits::ROTATIONS, versions, |it| it.version, |text| text.parse().ok(), u32::to_string)
        })
        .await
    }

    /// Every rotation of a key, oldest first.
    ///
    /// # Errors
    /// As [`list_key_versions`](Self::list_key_versions).
    pub async fn list_key_rotations(&self, key: &str) -> Result<Vec<KeyRotation>> {
        self.versions_of(key, |versions| Ok(versions.iter().filter_map(VersionRecord::rotation).collect())).await
    }

    /// As [`list_key_rotations`](Self::list_key_rotations), a page of them.
    ///
    /// # Errors
    /// As [`list_key_rotations`](Self::list_key_rotations), and InvalidMarkerException.
    pub async fn list_key_rotations_page(&self, key: &str, page: PageRequest) -> Result<Page<KeyRotation>> {
        self.versions_of(key, move |versions| {
            let rotations = versions.iter().filter_map(VersionRecord::rotation).collect();
            page.of(PageLimits::ROTATIONS, rotations, |it| it.version, |text| text.parse().ok(), u32::to_string)
        })
        .await
    }

    async fn versions_of<T: Send + 'static>(
        &self,
        key: &str,
        answer: impl Fn(&[VersionRecord]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let name = key.to_owned();
        self.call(self.asks("ListKeyRotations").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListKeyRotations, None)?;
            answer(&key.versions(tx)?)
        })
        .await
    }
}
