//! What a sealed file carries of a key: the material of its versions, and the properties that all replicas
//! share.
//!
//! ```text
//! content = origin (1) || rotation period in days, 0 if off (2) || byte string of the description
//!           || number of versions (2) || versions, ascending
//! version = number (4) || made at (8) || material (32)
//! ```

use super::frame::{Fields, malformed};
use crate::codec::put_byte_string;
use crate::error::{Error, Result};
use crate::kms::key::KeyOrigin;
use crate::secret::Secret;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// What a sealed file carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) origin: KeyOrigin,
    /// Automatic rotation, in days; `None` if it is off.
    pub(crate) rotation_days: Option<u16>,
    /// The primary key's: a replica has one of its own, which begins as this.
    pub(crate) description: String,
    /// At least one, in ascending order.
    pub(crate) versions: Vec<SharedVersion>,
}

/// A version of a key, as replicas share it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SharedVersion {
    /// From 1.
    pub(crate) version: u32,
    /// In milliseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) material: Secret<32>,
}

impl Content {
    /// # Errors
    /// Kind InvalidInput for what could not be read again; LimitExceeded for too many versions.
    pub(crate) fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        if self.versions.len() > VERSIONS_MAX {
            return Err(Error::limit(format!("a file carries at most {VERSIONS_MAX} versions of a key"))
                .with_advice("send the later ones in a rotation file"));
        }
        let good = self.versions.iter().all(|it| it.version > 0 && it.created_at >= 0)
            && self.versions.is_sorted_by(|one, next| one.version < next.version)
            && !self.versions.is_empty()
            && self.rotation_days.is_none_or(|days| ROTATION_DAYS.contains(&days))
            && self.description.chars().count() <= DESCRIPTION_MAX;
        if !good {
            return Err(Error::invalid_input("a key's versions, rotation period or description cannot be sent"));
        }
        // Of the final length from the start, so that growing leaves no copy of the material behind.
        let mut out =
            Zeroizing::new(Vec::with_capacity(7 + self.description.len() + self.versions.len() * VERSION_LEN));
        out.push(match self.origin {
            KeyOrigin::Local => LOCAL,
            KeyOrigin::External => EXTERNAL,
        });
        out.extend_from_slice(&self.rotation_days.unwrap_or(0).to_be_bytes());
        put_byte_string(&mut out, self.description.as_bytes())?;
        let count = u16::try_from(self.versions.len()).map_err(|_| Error::internal("versions are counted above"))?;
        out.extend_from_slice(&count.to_be_bytes());
        for version in &self.versions {
            out.extend_from_slice(&version.version.to_be_bytes());
            out.extend_from_slice(&version.created_at.to_be_bytes());
            out.extend_from_slice(version.material.expose());
        }
        Ok(out)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let origin = match fields.array()? {
            [LOCAL] => KeyOrigin::Local,
            [EXTERNAL] => KeyOrigin::External,
            _ => return Err(malformed("this file's key comes from nowhere known")),
        };
        let rotation_days = match u16::from_be_bytes(fields.array()?) {
            0 => None,
            days if ROTATION_DAYS.contains(&days) => Some(days),
            _ => return Err(malformed("this file has a rotation period that is none")),
        };
        let description = fields.text()?.to_owned();
        let count = usize::from(u16::from_be_bytes(fields.array()?));
        if description.chars().count() > DESCRIPTION_MAX || count > VERSIONS_MAX {
            return Err(malformed("this file has too long a description, or too many versions"));
        }
        let mut versions = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            let (version, created_at) = (fields.u32()?, fields.time()?);
            if version <= last {
                return Err(malformed("the versions in this file are not in order"));
            }
            last = version;
            let material = fields.take(32)?;
            let material = Secret::init(|out| out.copy_from_slice(material));
            versions.push(SharedVersion { version, created_at, material });
        }
        fields.end()?;
        if versions.is_empty() {
            return Err(malformed("this file has no version of its key"));
        }
        Ok(Self { origin, rotation_days, description, versions })
    }
}

const LOCAL: u8 = 0;
const EXTERNAL: u8 = 1;
const VERSION_LEN: usize = 4 + 8 + 32;
/// AWS's.
const DESCRIPTION_MAX: usize = 8_192;
/// AWS's.
const ROTATION_DAYS: RangeInclusive<u16> = 90..=2_560;
/// The most versions of a key in one file.
pub(crate) const VERSIONS_MAX: usize = 4_096;
