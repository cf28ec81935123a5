//! What a key is, and what it is called.

use super::state::KeyState;
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use uuid::Uuid;

/// Who made a key and who looks after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyManager {
    /// Made by [`create_key`](super::LocalKms::create_key).
    Customer,
    /// Made by the first use of an alias below `alias/envelock/`.
    Managed,
}

/// Where a key's material comes from, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyOrigin {
    /// Made by this keystore (AWS's `AWS_KMS`).
    Local,
    /// Imported.
    External,
}

impl KeyOrigin {
    /// AWS's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "AWS_KMS",
            Self::External => "EXTERNAL",
        }
    }
}

/// What a multi-Region key is among those that share its id and material, as AWS KMS names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MultiRegionKeyType {
    /// The one that is replicated, rotated, and deleted last.
    Primary,
    /// One that another keystore's primary key was replicated to.
    Replica,
}

impl MultiRegionKeyType {
    /// AWS's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Replica => "REPLICA",
        }
    }
}

/// How the keystore's rows spell an enumeration.
pub(super) trait Spelled: Copy + 'static {
    const SPELLINGS: &'static [(Self, &'static str)];

    fn spelling(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::SPELLINGS.iter().find(|(value, _)| *value == self).map_or("", |(_, text)| text)
    }

    fn of_spelling(text: &str) -> Option<Self> {
        Self::SPELLINGS.iter().find(|(_, spelling)| *spelling == text).map(|(value, _)| *value)
    }
}

impl Spelled for KeyState {
    const SPELLINGS: &'static [(Self, &'static str)] = &[
        (Self::Enabled, "Enabled"),
        (Self::Disabled, "Disabled"),
        (Self::PendingDeletion, "PendingDeletion"),
        (Self::PendingImport, "PendingImport"),
        (Self::PendingReplicaDeletion, "PendingReplicaDeletion"),
    ];
}

impl Spelled for KeyManager {
    const SPELLINGS: &'static [(Self, &'static str)] = &[(Self::Customer, "customer"), (Self::Managed, "managed")];
}

impl Spelled for KeyOrigin {
    const SPELLINGS: &'static [(Self, &'static str)] = &[(Self::Local, "local"), (Self::External, "external")];
}

/// What a keystore calls itself in full key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Realm {
    pub(super) keystore_id: [u8; 16],
    pub(super) region: String,
}

impl Realm {
    /// `envelock:<region>:<keystore id as UUID>:key/<key id>`
    pub(super) fn full_name(&self, key_id: &str) -> String {
        format!("{self}:key/{key_id}")
    }

    /// What a caller's name for a key means here.
    ///
    /// # Errors
    /// NotFoundException for a name of another keystore; ValidationException for what is no name.
    pub(super) fn resolve<'a>(&self, name: &'a str) -> Result<KeyName<'a>> {
        let local = match name.strip_prefix("envelock:") {
            None => name,
            Some(_) => name
                .strip_prefix(&self.to_string())
                .and_then(|rest| rest.strip_prefix(':'))
                .map(|rest| rest.strip_prefix("key/").unwrap_or(rest))
                .ok_or_else(|| not_found(format!("the key {name} is not in this keystore, {self}")))?,
        };
        if local.starts_with(ALIAS_PREFIX) {
            check_alias(local)?;
            return Ok(KeyName::Alias(local));
        }
        if !is_key_id(local) {
            let alias = format!("{ALIAS_PREFIX}{local}");
            let meant = match check_alias(&alias) {
                Ok(()) => format!(" (did you mean {alias}?)"),
                Err(_) => String::new(),
            };
            return Err(validation(format!("{name:?} is no key id, key name or alias{meant}"))
                .with_advice("key ids are UUIDs, and aliases begin with `alias/`"));
        }
        Ok(KeyName::Id(local))
    }
}

/// `envelock:<region>:<keystore id as UUID>`
impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "envelock:{}:{}", self.region, Uuid::from_bytes(self.keystore_id))
    }
}

/// A key as a caller names it, without the keystore's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyName<'a> {
    Id(&'a str),
    Alias(&'a str),
}

/// Lower-case UUIDs with hyphens, or `mrk-` and 32 lower-case hex digits.
pub(super) fn is_key_id(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.strip_prefix("mrk-") {
        Some(digits) => digits.len() == 32 && hex(digits),
        None => text.len() == 36 && Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text),
    }
}

/// The key id in the full name of a multi-Region key, of whatever keystore: `envelock:<region>:<UUID>:key/mrk-…`.
pub(super) fn multi_region_key_id(full_name: &str) -> Option<&str> {
    let (region, rest) = full_name.strip_prefix("envelock:")?.split_once(':')?;
    let (keystore_id, key_id) = rest.split_once(":key/")?;
    let good = check_region(region).is_ok()
        && Uuid::try_parse(keystore_id).is_ok_and(|uuid| uuid.to_string() == keystore_id)
        && key_id.starts_with("mrk-")
        && is_key_id(key_id);
    good.then_some(key_id)
}

/// `alias/` and 1 to 250 of letters, digits, `/`, `_` and `-`.
pub(super) fn check_alias(alias: &str) -> Result<()> {
    let name = alias.strip_prefix(ALIAS_PREFIX).unwrap_or_default();
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-'));
    if !good || name.is_empty() || alias.len() > ALIAS_MAX {
        return Err(Error::invalid_input(format!("{alias:?} is no alias name"))
            .with_code("InvalidAliasNameException")
            .with_advice("an alias is `alias/` and 1 to 250 letters, digits, `/`, `_` and `-`"));
    }
    Ok(())
}

/// 1 to 32 lower-case letters, digits and hyphens.
pub(super) fn check_region(region: &str) -> Result<()> {
    let good = region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !good || region.is_empty() || region.len() > 32 {
        return Err(validation(format!("{region:?} is no Region name"))
            .with_advice("a Region name has 1 to 32 lower-case letters, digits and hyphens"));
    }
    Ok(())
}

pub(super) fn not_found(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::NoMatchingKey, message)
        .with_code("NotFoundException")
        .with_advice("name a key or an alias that exists")
}

pub(super) fn validation(message: impl Into<String>) -> Error {
    Error::invalid_input(message).with_code("ValidationException")
}

pub(super) const ALIAS_PREFIX: &str = "alias/";
/// Aliases below it belong to managed keys, which their first use makes.
pub(super) const MANAGED_PREFIX: &str = "alias/envelock/";
const ALIAS_MAX: usize = 256;
