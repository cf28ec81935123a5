//! Tags of keys as rows.

use super::fields::{Fields, text};
use super::key::validation;
use super::rows::Columns;
use super::schema::TAGS;
use super::tx::Tx;
use crate::error::{Error, Result};

/// A label of a key, for people and their tools. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tag {
    /// What kind of label: 1 to 128 characters.
    pub tag_key: String,
    /// The label: up to 256 characters.
    pub tag_value: String,
}

impl Tag {
    /// A tag; whether it may be one is checked where it is given to a key.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { tag_key: key.into(), tag_value: value.into() }
    }
}

/// Every tag of a key, by tag key.
pub(super) fn tags_of(tx: &Tx<'_>, key_id: &str) -> Result<Vec<Tag>> {
    tx.rows_of(&TAGS, &text(key_id))?.into_iter().map(read).collect()
}

/// Gives a key tags; one with a tag key that it has takes its place.
pub(super) fn put_tags(tx: &mut Tx<'_>, key_id: &str, tags: &[Tag]) -> Result<()> {
    check_tags(tags)?;
    let before = tags_of(tx, key_id)?;
    let new = tags.iter().filter(|tag| !before.iter().any(|it| it.tag_key == tag.tag_key)).count();
    if before.len() + new > TAGS_MAX {
        return Err(Error::limit(format!("the key {key_id} would have more than {TAGS_MAX} tags"))
            .with_code("LimitExceededException")
            .with_advice("remove tags that are not needed"));
    }
    for tag in tags {
        let row = vec![text(key_id), text(&tag.tag_key), text(&tag.tag_value)];
        match before.iter().find(|it| it.tag_key == tag.tag_key) {
            None => tx.insert(&TAGS, row)?,
            Some(same) if same.tag_value == tag.tag_value => {}
            Some(_) => tx.update(&TAGS, row)?,
        }
    }
    Ok(())
}

/// Takes tags from a key; those that it does not have it goes on not having.
pub(super) fn remove_tags(tx: &mut Tx<'_>, key_id: &str, tag_keys: &[String]) -> Result<()> {
    for tag_key in tag_keys {
        check_tag_key(tag_key)?;
    }
    for tag in tags_of(tx, key_id)?.iter().filter(|tag| tag_keys.contains(&tag.tag_key)) {
        tx.delete(&TAGS, &[text(key_id), text(&tag.tag_key)])?;
    }
    Ok(())
}

/// AWS's rules for tags.
fn check_tags(tags: &[Tag]) -> Result<()> {
    for (at, tag) in tags.iter().enumerate() {
        check_tag_key(&tag.tag_key)?;
        if tag.tag_value.chars().count() > VALUE_MAX {
            return Err(validation(format!(
                "the value of the tag {:?} is longer than {VALUE_MAX} characters",
                tag.tag_key
            )));
        }
        if !tag.tag_value.chars().all(is_plain) {
            return Err(bad_tag(format!("the value of the tag {:?} has other characters than tags have", tag.tag_key)));
        }
        if tags.iter().take(at).any(|it| it.tag_key == tag.tag_key) {
            return Err(bad_tag(format!("the tag {:?} is given twice", tag.tag_key)));
        }
    }
    Ok(())
}

fn check_tag_key(tag_key: &str) -> Result<()> {
    if !(1..=KEY_MAX).contains(&tag_key.chars().count()) {
        return Err(validation(format!("a tag key has 1 to {KEY_MAX} characters")));
    }
    match tag_key.chars().all(is_plain) && !tag_key.to_ascii_lowercase().starts_with("aws:") {
        true => Ok(()),
        false => Err(bad_tag(format!("{tag_key:?} is no tag key"))),
    }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || " _.:/=+-@".contains(c)
}

fn bad_tag(message: String) -> Error {
    Error::invalid_input(message).with_code("TagException").with_advice(
        "tags are of letters, digits, spaces and `_ . : / = + - @`, and their keys do not begin with `aws:`",
    )
}

fn read(row: Columns) -> Result<Tag> {
    let mut row = Fields(row.into_iter().skip(1));
    Ok(Tag { tag_key: row.text()?, tag_value: row.text()? })
}

/// AWS's limits.
const TAGS_MAX: usize = 50;
const KEY_MAX: usize = 128;
const VALUE_MAX: usize = 256;
