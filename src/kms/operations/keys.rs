//! Keys: made, described, listed.

use crate::error::Result;
use crate::kms::LocalKms;
use crate::kms::alias::{Alias, key_for};
use crate::kms::answers::{CreateKeyRequest, KeyMetadata};
use crate::kms::key::{KeyManager, KeyOrigin};
use crate::kms::operations::aliases::check_free;
use crate::kms::operations::tags::recorded;
use crate::kms::page::{Page, PageLimits, PageRequest};
use crate::kms::records::{KeyRecord, MultiRegion, NewKey};
use crate::kms::state::KeyOperation;
use crate::kms::tags::put_tags;
use crate::kms::tx::Tx;

/// Keys and aliases. A key is named by its id, its full name, or an alias.
impl LocalKms {
    /// Makes a customer key, with its alias if one is given.
    ///
    /// # Errors
    /// AlreadyExistsException or InvalidAliasNameException for the alias, ValidationException for the
    /// description, TagException or LimitExceededException for the tags, AccessDeniedException; the keystore's own failures: [`Storage`](crate::ErrorKind::Storage),
    /// [`Busy`](crate::ErrorKind::Busy), [`Io`](crate::ErrorKind::Io).
    pub async fn create_key(&self, request: CreateKeyRequest) -> Result<KeyMetadata> {
        let mut call = self.asks("CreateKey").with("description", request.description.as_str());
        if let Some(alias) = &request.alias {
            call = call.with("aliasName", alias.as_str());
        }
        if !request.tags.is_empty() {
            call = call.with("tags", recorded(&request.tags));
        }
        if request.external {
            call = call.with("origin", "EXTERNAL");
        }
        if request.multi_region {
            call = call.with("multiRegion", true);
        }
        self.call(call, move |tx| {
            tx.permit_owner("CreateKey")?;
            if let Some(alias) = &request.alias {
                check_free(tx, alias)?;
            }
            let new = NewKey {
                manager: KeyManager::Customer,
                origin: if request.external { KeyOrigin::External } else { KeyOrigin::Local },
                multi_region: if request.multi_region { MultiRegion::Primary } else { MultiRegion::No },
                description: &request.description,
            };
            let key = KeyRecord::create(tx, new)?;
            put_tags(tx, &key.key_id, &request.tags)?;
            if let Some(alias) = &request.alias {
                Alias::create(tx, alias, &key.key_id)?;
            }
            key.metadata(tx)
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
            KeyRecord::all(tx)?.into_iter().map(|key| key.metadata(tx)).collect()
        })
        .await
    }

    /// As [`list_keys`](Self::list_keys), a page of them.
    ///
    /// # Errors
    /// As [`list_keys`](Self::list_keys), and ValidationException, InvalidMarkerException for the page.
    pub async fn list_keys_page(&self, page: PageRequest) -> Result<Page<KeyMetadata>> {
        self.call(self.asks("ListKeys"), move |tx| {
            tx.permit_owner("ListKeys")?;
            let page = page.of(
                PageLimits::KEYS,
                KeyRecord::all(tx)?,
                |key| (key.created_at, key.key_id.clone()),
                |text| text.split_once(' ').and_then(|(at, key_id)| Some((at.parse().ok()?, key_id.to_owned()))),
                |(at, key_id): &(i64, String)| format!("{at} {key_id}"),
            )?;
            page.try_map(|key| key.metadata(tx))
        })
        .await
    }
}

pub(in crate::kms) fn describe(tx: &mut Tx<'_>, name: &str) -> Result<KeyMetadata> {
    let key = key_for(tx, name)?;
    tx.allow(&key, KeyOperation::DescribeKey, None)?;
    key.metadata(tx)
}
