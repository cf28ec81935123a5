//! What every file begins with: its magic and kind, and the address of those that pass between keystores.

use crate::codec::{Reader, put_byte_string};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::{Realm, check_region, is_key_id};
use std::fmt;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A public key to wrap key material with, and the token that its import is asked to bring.
    ImportParameters,
    /// A keystore's public key, to which others seal replicas of their keys.
    ReplicationKey,
    /// A replica of a multi-Region key, sealed to one keystore.
    ReplicaBundle,
    /// Later versions of a multi-Region key, sealed to one keystore that has its replica.
    Rotation,
    /// A replica was deleted.
    DeletionReceipt,
    /// Another keystore's replica is the primary key now.
    PrimaryChange,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::ImportParameters,
        Self::ReplicationKey,
        Self::ReplicaBundle,
        Self::Rotation,
        Self::DeletionReceipt,
        Self::PrimaryChange,
    ];

    fn code(self) -> u8 {
        match self {
            Self::ImportParameters => 1,
            Self::ReplicationKey => 2,
            Self::ReplicaBundle => 3,
            Self::Rotation => 4,
            Self::DeletionReceipt => 5,
            Self::PrimaryChange => 6,
        }
    }

    /// A word for people and machines: `replica-bundle`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImportParameters => "import-parameters",
            Self::ReplicationKey => "replication-key",
            Self::ReplicaBundle => "replica-bundle",
            Self::Rotation => "rotation",
            Self::DeletionReceipt => "deletion-receipt",
            Self::PrimaryChange => "primary-change",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Begins a file.
pub(crate) fn begin(kind: FileKind) -> Vec<u8> {
    [MAGIC.as_slice(), &[FORMAT, kind.code()]].concat()
}

/// The kind of a file, and what follows its beginning.
///
/// # Errors
/// Kind LimitExceeded above [`FILE_MAX`]; Malformed for what is no file of a keystore; Unsupported for a
/// version or kind that is unknown here; Truncated.
pub(crate) fn kind_of(bytes: &[u8]) -> Result<(FileKind, Fields<'_>)> {
    if bytes.len() > FILE_MAX {
        return Err(Error::limit(format!(
            "a keystore's file has at most {FILE_MAX} bytes, and this has {}",
            bytes.len()
        ))
        .with_advice("check which file this is"));
    }
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(magic) {
        return Err(malformed("this is no file of a keystore"));
    }
    let mut fields = Fields::new(bytes);
    fields.take(MAGIC.len())?;
    let [version, code] = fields.array()?;
    if version != FORMAT {
        return Err(unknown(format!("version {version} of a keystore's files")));
    }
    let kind = FileKind::ALL.into_iter().find(|kind| kind.code() == code);
    Ok((kind.ok_or_else(|| unknown(format!("kind {code} of a keystore's files")))?, fields))
}

/// What follows the beginning of a file that must be of `kind`.
///
/// # Errors
/// As [`kind_of`], and kind InvalidInput for a file of another kind.
pub(crate) fn read(kind: FileKind, bytes: &[u8]) -> Result<Fields<'_>> {
    match kind_of(bytes)? {
        (found, fields) if found == kind => Ok(fields),
        (found, _) => Err(Error::invalid_input(format!("this file is of the kind {found}, and {kind} is asked for"))
            .with_advice("check which file this is, and give the one that is asked for")),
    }
}

/// The fields of a file that is wholly at hand, in order: one that does not fit is one that is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, reader: Reader::new(bytes) }
    }

    /// # Errors
    /// Kind Truncated if there are fewer bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        self.reader.take(len).map_err(|_| truncated())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.reader.array().map_err(|_| truncated())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A byte string that is UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let bytes = self.reader.byte_string().map_err(|_| truncated())?;
        std::str::from_utf8(bytes).map_err(|_| malformed("a text in this file is not UTF-8"))
    }

    /// Milliseconds since 1970, below 2^63.
    pub(crate) fn time(&mut self) -> Result<i64> {
        let time = i64::from_be_bytes(self.array()?);
        if time < 0 { Err(malformed("a time in this file is before 1970")) } else { Ok(time) }
    }

    pub(crate) fn realm(&mut self) -> Result<Realm> {
        let keystore_id = self.array()?;
        let region = self.text()?.to_owned();
        check_region(&region).map_err(|_| malformed("this file has a Region name that is none"))?;
        Ok(Realm { keystore_id, region })
    }

    /// All bytes before the next field.
    pub(crate) fn before(&self) -> &'a [u8] {
        self.bytes.get(..self.bytes.len() - self.reader.remaining()).unwrap_or_default()
    }

    /// # Errors
    /// Kind TrailingData if anything is left.
    pub(crate) fn end(&self) -> Result<()> {
        match self.reader.remaining() {
            0 => Ok(()),
            more => Err(Error::new(ErrorKind::TrailingData, format!("{more} bytes follow the end of this file"))
                .with_advice("something was appended to it: have it sent again")),
        }
    }
}

/// Who tells whom, about which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) issuer: Realm,
    pub(crate) target: Realm,
    /// Of a multi-Region key: `mrk-…`.
    pub(crate) key_id: String,
    /// From 1, higher in each file that the issuer makes, whatever it is about.
    pub(crate) serial: u64,
    /// In milliseconds since 1970. For people: nothing is decided by it.
    pub(crate) issued_at: i64,
}

impl Address {
    /// # Errors
    /// Kind InvalidInput for what could not be read again.
    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        let good = is_multi_region(&self.key_id) && self.serial > 0 && self.issued_at >= 0;
        if !good || self.issuer.keystore_id == self.target.keystore_id {
            return Err(Error::invalid_input("a file needs a multi-Region key, a serial from 1 and two keystores")
                .with_advice("name a key whose id begins with `mrk-`, and another keystore than its own"));
        }
        put_realm(out, &self.issuer)?;
        put_realm(out, &self.target)?;
        put_byte_string(out, self.key_id.as_bytes())?;
        out.extend_from_slice(&self.serial.to_be_bytes());
        out.extend_from_slice(&self.issued_at.to_be_bytes());
        Ok(())
    }

    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self> {
        let (issuer, target) = (fields.realm()?, fields.realm()?);
        let key_id = fields.text()?.to_owned();
        if !is_multi_region(&key_id) {
            return Err(malformed("this file names no multi-Region key"));
        }
        let serial = u64::from_be_bytes(fields.array()?);
        let issued_at = fields.time()?;
        if serial == 0 || issuer.keystore_id == target.keystore_id {
            return Err(malformed("this file has no serial, or one keystore on both sides"));
        }
        Ok(Self { issuer, target, key_id, serial, issued_at })
    }

    /// # Errors
    /// Kind InvalidInput if this is meant for another keystore than `here`.
    pub(crate) fn check_target(&self, here: &Realm) -> Result<()> {
        if self.target == *here {
            return Ok(());
        }
        Err(Error::invalid_input(format!("this file is for the keystore {}, and this one is {here}", self.target))
            .with_advice("take it to that keystore, or have one made for this"))
    }
}

pub(crate) fn put_realm(out: &mut Vec<u8>, realm: &Realm) -> Result<()> {
    check_region(&realm.region)?;
    out.extend_from_slice(&realm.keystore_id);
    put_byte_string(out, realm.region.as_bytes())
}

/// Whether this is the id of a multi-Region key.
pub(crate) fn is_multi_region(key_id: &str) -> bool {
    key_id.starts_with("mrk-") && is_key_id(key_id)
}

pub(crate) fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Malformed, message).with_advice("check which file this is, or have it sent again")
}

fn truncated() -> Error {
    Error::new(ErrorKind::Truncated, "this file ends early, or a length in it is damaged")
        .with_advice("the rest is missing: have it sent again")
}

fn unknown(what: String) -> Error {
    Error::unsupported(format!("{what} is unknown here"))
        .with_advice("use a newer envelock, or the file is damaged: have it sent again")
}

const MAGIC: &[u8; 4] = b"EKMS";
const FORMAT: u8 = 1;
/// More than any file has: the longest carries [`VERSIONS_MAX`](super::content::VERSIONS_MAX) versions of a key.
pub(crate) const FILE_MAX: usize = 256 * 1_024;
