//! Compact records: many small values under one data key (docs/format.md, "Compact records").
//!
//! ```text
//! record set     = core || slots || record-set tag
//! record-set tag = HKDF-Expand-SHA-384(K, "envelock/v1 record set" || 00 || core || unstored, 32)
//! record key     = HKDF-Expand-SHA-384(K, "envelock/v1 records"    || 00 || core || unstored, 32)
//! record          1  E1
//!                16  fingerprint: the first 16 bytes of the record-set tag
//!                24  nonce
//!                    ciphertext || tag (16): XAES-256-GCM under the record key
//! ```

use crate::context::StoredContext;
use crate::crypto::{self, TAG_LEN, XAES_NONCE_LEN, XaesKey};
use crate::error::{Error, Result};
use crate::material::EncryptedDataKey;
use crate::native::floe::KeyRef;
use crate::native::header::{Committed, Head, Limits, SET_TAG_LEN, parse_record_set};
use crate::native::place::AssociatedData;
use crate::secret::{Secret, plaintext_buffer, same};
use std::fmt;

/// The first byte of a record: compact record, version 1.
pub(crate) const RECORD: u8 = 0xE1;
const FINGERPRINT_LEN: usize = 16;
/// Bytes that a record adds to its value.
pub(crate) const OVERHEAD: usize = 1 + FINGERPRINT_LEN + XAES_NONCE_LEN + TAG_LEN;
/// "Values up to 16 MiB, larger ones are messages."
const VALUE_MAX: usize = 16 << 20;
/// "At most 64 KiB."
const ASSOCIATED_MAX: usize = 64 << 10;

const TAG_LABEL: &[u8] = b"envelock/v1 record set\0";
const KEY_LABEL: &[u8] = b"envelock/v1 records\0";

/// Which record set a record belongs to: 16 bytes that every record of a set begins with, after its first.
///
/// No secret. To find the header of a record among many, keep it under this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_LEN]);

impl Fingerprint {
    /// The fingerprint that `record` names.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) or [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for what
    /// is no record.
    pub fn of_record(record: &[u8]) -> Result<Self> {
        Ok(Record::parse(record)?.fingerprint)
    }

    /// A fingerprint that was kept as [bytes](Self::as_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; FINGERPRINT_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes, 16 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; FINGERPRINT_LEN] {
        &self.0
    }
}

/// In hexadecimal.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A parsed record-set header. Everything in it is unverified until
/// [`open_record_set`](crate::Envelope::open_record_set) has opened it.
#[derive(Clone)]
pub struct RecordSetHeader {
    head: Head<'static>,
    context: StoredContext,
    tag: [u8; SET_TAG_LEN],
}

impl RecordSetHeader {
    /// Parses the record set that `bytes` begin with; what follows it, a record of its own or nothing, is left
    /// alone.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed), [`Unsupported`](crate::ErrorKind::Unsupported) (a message
    /// among others), [`LimitExceeded`](crate::ErrorKind::LimitExceeded), and
    /// [`Truncated`](crate::ErrorKind::Truncated) if `bytes` end within it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_within(bytes, &Limits::default())
    }

    pub(crate) fn parse_within(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let head = parse_record_set(bytes, limits)?;
        let tag = head.binding().try_into().map_err(|_| Error::internal("a record-set tag has 32 bytes"))?;
        Ok(Self { context: head.stored_context().to_owned(), head, tag })
    }

    /// Length of the record set in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a record set is never empty")]
    pub fn len(&self) -> usize {
        self.head.as_bytes().len()
    }

    /// Its own bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.head.as_bytes()
    }

    /// What its records begin with. It comes from the tag, which a rewrap does not change.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.tag)
    }

    /// The entries of the encryption context that are stored. Unverified.
    #[must_use]
    pub fn stored_context(&self) -> &StoredContext {
        &self.context
    }

    /// Whether the set is bound to entries that are not stored.
    #[must_use]
    pub fn has_unstored_context(&self) -> bool {
        self.head.has_unstored_context()
    }

    /// The slots: one encrypted data key for each recipient, the missing ones among them. Unverified.
    #[must_use]
    pub fn slots(&self) -> &[EncryptedDataKey] {
        self.head.slots()
    }
}

impl Committed for RecordSetHeader {
    type Keys = RecordKey;

    fn head(&self) -> &Head<'_> {
        &self.head
    }

    fn keys(&self, key: KeyRef<'_>, aad: Vec<u8>) -> Result<Option<RecordKey>> {
        let keys = RecordKey::create(key, &aad)?;
        Ok(same(&keys.tag, &self.tag).then_some(keys))
    }
}

impl fmt::Debug for RecordSetHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSetHeader")
            .field("len", &self.len())
            .field("fingerprint", &self.fingerprint())
            .field("stored_context", self.stored_context())
            .field("has_unstored_context", &self.has_unstored_context())
            .field("slots", &self.slots())
            .finish()
    }
}

/// A record, taken apart. Unverified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    fingerprint: Fingerprint,
    nonce: &'a [u8; XAES_NONCE_LEN],
    /// Ciphertext and tag.
    sealed: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let not = |what: &'static str, advice| Error::malformed(what).with_advice(advice);
        match bytes.split_first() {
            Some((&RECORD, rest)) if bytes.len() >= OVERHEAD => {
                if bytes.len() > OVERHEAD + VALUE_MAX {
                    return Err(too_long(bytes.len() - OVERHEAD));
                }
                let short = || Error::internal("57 bytes hold a fingerprint and a nonce");
                let (&fingerprint, rest) = rest.split_first_chunk().ok_or_else(short)?;
                let (nonce, sealed) = rest.split_first_chunk().ok_or_else(short)?;
                Ok(Self { fingerprint: Fingerprint(fingerprint), nonce, sealed })
            }
            Some((&RECORD, _)) | None => Err(not(
                "a compact record has at least 57 bytes",
                "it was cut off where it is stored or on its way: fetch it again or restore it",
            )),
            Some((b'E', _)) => Err(not(
                "this looks like a message or a record set, not like a compact record",
                "open a message with `decrypt`, and a value that has its own record set with `open_value`",
            )),
            Some((b'e', _)) if bytes.starts_with(b"elk1.") => Err(not(
                "this looks like the text form of a record",
                "turn it into bytes first: `envelock::from_text` does",
            )),
            Some(_) => Err(not(
                "this does not begin as a compact record does",
                "check what this is, or restore it: a field that holds a plain value was never sealed",
            )),
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// The keys of a record set: seals and opens its records.
pub(crate) struct RecordKey {
    tag: [u8; SET_TAG_LEN],
    fingerprint: Fingerprint,
    xaes: XaesKey,
}

impl RecordKey {
    /// The keys of a record set. `aad` is core || unstored.
    pub(crate) fn create<'a>(key: impl Into<KeyRef<'a>>, aad: &[u8]) -> Result<Self> {
        let mut tag = [0; SET_TAG_LEN];
        let record_key = Secret::try_init(|record_key: &mut [u8; 32]| {
            key.into().expand_each(&mut [(&[TAG_LABEL, aad], &mut tag), (&[KEY_LABEL, aad], record_key)])
        })?;
        Ok(Self { tag, fingerprint: fingerprint(&tag), xaes: crypto::xaes(record_key.expose()) })
    }

    pub(crate) fn tag(&self) -> &[u8; SET_TAG_LEN] {
        &self.tag
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether both are of one set, its slots left aside.
    pub(crate) fn is(&self, other: &Self) -> bool {
        same(&self.tag, &other.tag)
    }

    /// A record of `value`, under a nonce that serves this once.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; XAES_NONCE_LEN],
        value: &[u8],
        associated_data: &AssociatedData,
    ) -> Result<Vec<u8>> {
        check_associated(associated_data)?;
        if value.len() > VALUE_MAX {
            return Err(too_long(value.len()));
        }
        let mut record = Vec::with_capacity(OVERHEAD + value.len());
        record.push(RECORD);
        record.extend_from_slice(&self.fingerprint.0);
        record.extend_from_slice(nonce);
        let start = record.len();
        record.resize(OVERHEAD + value.len(), 0);
        self.xaes.seal_to(nonce, associated_data.as_bytes(), value, &mut record[start..])?;
        Ok(record)
    }

    /// The value of a record. "The fingerprint is compared before anything is decrypted."
    pub(crate) fn unseal(&self, record: Record<'_>, associated_data: &AssociatedData) -> Result<Vec<u8>> {
        check_associated(associated_data)?;
        if !same(&record.fingerprint.0, &self.fingerprint.0) {
            return Err(no_set(record.fingerprint));
        }
        let mut value = plaintext_buffer(record.sealed.len() - TAG_LEN);
        self.xaes.open_to(record.nonce, associated_data.as_bytes(), record.sealed, &mut value)?;
        Ok(std::mem::take(&mut *value))
    }
}

/// Prints no key.
impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKey").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn fingerprint(tag: &[u8; SET_TAG_LEN]) -> Fingerprint {
    let mut first = [0; FINGERPRINT_LEN];
    first.copy_from_slice(&tag[..FINGERPRINT_LEN]);
    Fingerprint(first)
}

/// What to answer where the set of a record is not at hand.
pub(crate) fn no_set(fingerprint: Fingerprint) -> Error {
    Error::no_matching_key(format!("this record belongs to the record set {fingerprint}, which is not at hand"))
        .with_advice("open that set's header, and open the record with it")
}

fn check_associated(associated_data: &AssociatedData) -> Result<()> {
    let len = associated_data.as_bytes().len();
    if len > ASSOCIATED_MAX {
        return Err(Error::limit(format!("{len} bytes of associated data; {ASSOCIATED_MAX} is the most"))
            .with_advice("name the place by less, or by a hash of its name"));
    }
    Ok(())
}

fn too_long(len: usize) -> Error {
    Error::limit(format!("a value of {len} bytes; a compact record holds at most {VALUE_MAX}"))
        .with_advice("encrypt larger values as messages")
}

const _: () = assert!(OVERHEAD == 57);

#[cfg(test)]
mod tests;
