//! Tags of keys.

use crate::error::Result;
use crate::kms::LocalKms;
use crate::kms::page::{Page, PageLimits, PageRequest};
use crate::kms::records::KeyRecord;
use crate::kms::state::KeyOperation;
use crate::kms::tags::{Tag, put_tags, remove_tags, tags_of};
use serde_json::{Map, Value};

impl LocalKms {
    /// Gives a customer key tags, up to 50; one with a tag key that it has takes its place. Tags decide nothing.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::Tag;
    /// kms.tag_resource("alias/orders", [Tag::new("team", "billing")]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// TagException or ValidationException for a tag, LimitExceededException beyond 50; KMSInvalidStateException,
    /// UnsupportedOperationException, NotFoundException, AccessDeniedException; the keystore's own failures.
    pub async fn tag_resource(&self, key: &str, tags: impl IntoIterator<Item = Tag>) -> Result<()> {
        let (name, tags) = (key.to_owned(), tags.into_iter().collect::<Vec<_>>());
        self.call(self.asks("TagResource").key(key).with("tags", recorded(&tags)), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::TagResource, None)?;
            put_tags(tx, &key.key_id, &tags)
        })
        .await
    }

    /// Takes the tags with these tag keys from a customer key. Those that it does not have are no error.
    ///
    /// # Errors
    /// As [`tag_resource`](Self::tag_resource).
    pub async fn untag_resource(&self, key: &str, tag_keys: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let tag_keys: Vec<String> = tag_keys.into_iter().map(|it| it.as_ref().to_owned()).collect();
        let name = key.to_owned();
        self.call(self.asks("UntagResource").key(key).with("tagKeys", tag_keys.clone()), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::UntagResource, None)?;
            remove_tags(tx, &key.key_id, &tag_keys)
        })
        .await
    }

    /// Every tag of a key, by tag key.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn list_resource_tags(&self, key: &str) -> Result<Vec<Tag>> {
        let name = key.to_owned();
        self.call(self.asks("ListResourceTags").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListResourceTags, None)?;
            tags_of(tx, &key.key_id)
        })
        .await
    }

    /// As [`list_resource_tags`](Self::list_resource_tags), a page of them.
    ///
    /// # Errors
    /// As [`list_resource_tags`](Self::list_resource_tags), and ValidationException for the page.
    pub async fn list_resource_tags_page(&self, key: &str, page: PageRequest) -> Result<Page<Tag>> {
        let name = key.to_owned();
        self.call(self.asks("ListResourceTags").key(key), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListResourceTags, None)?;
            let tags = tags_of(tx, &key.key_id)?;
            // Any text may be a tag key.
            page.of(PageLimits::TAGS, tags, |tag| tag.tag_key.clone(), |text| Some(text.to_owned()), String::clone)
        })
        .await
    }
}

/// As CloudTrail shows them.
pub(super) fn recorded(tags: &[Tag]) -> Vec<Value> {
    let entry = |tag: &Tag| {
        Map::from_iter([
            ("tagKey".to_owned(), Value::from(tag.tag_key.as_str())),
            ("tagValue".to_owned(), Value::from(tag.tag_value.as_str())),
        ])
    };
    tags.iter().map(|tag| entry(tag).into()).collect()
}
