//! The end of the trail as text, to be kept where a writer of the file cannot reach.
//!
//! ```text
//! text form = "envelock-audit1." || base64url without padding (keystore id (16) || sequence (8) || hash (32) ||
//!             digest (32) || check (4))
//! check     = first 4 bytes of SHA-256 of what is before it
//! ```

use super::Trail;
use crate::codec::{Reader, Short};
use crate::crypto;
use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::authorise::check_owner;
use crate::kms::tx::Tx;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Where the audit trail of a keystore ended at some time: a line to anchor in a log, a ticket, another system.
///
/// It covers every record up to that one, and the state of all keys, aliases, policies and grants then. It is no
/// secret, and nothing in it is authentic by itself: keep it where whoever can write the keystore cannot.
///
/// ```no_run
/// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
/// use envelock::kms::AuditHead;
/// let line = kms.audit_head().await?.to_string(); // envelock-audit1.…
/// // Later, from where the line was kept:
/// let head: AuditHead = line.parse()?;
/// kms.verify_audit(Some(&head)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub(super) keystore_id: [u8; 16],
    pub(super) sequence: u64,
    pub(super) hash: [u8; 32],
    pub(super) digest: [u8; 32],
}

impl AuditHead {
    /// The end of this trail, with the rows that there are now.
    pub(in crate::kms) fn of(tx: &Tx<'_>, trail: &Trail<'_>) -> Self {
        Self {
            keystore_id: tx.realm.keystore_id,
            sequence: trail.ends.last,
            hash: trail.ends.hash,
            digest: tx.trust.rows.digest(),
        }
    }

    /// The keystore that it is of, as [`LocalKms::keystore_id`] gives it.
    #[must_use]
    pub fn keystore_id(&self) -> String {
        Uuid::from_bytes(self.keystore_id).to_string()
    }

    /// The last record's sequence; records count from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The SHA-256 of the last record, as 64 hex digits.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&self.hash)
    }
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [&self.keystore_id[..], &self.sequence.to_be_bytes(), &self.hash, &self.digest].concat();
        let check = crypto::sha256(&[&bytes]);
        bytes.extend_from_slice(&check[..CHECK_LEN]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for AuditHead {
    type Err = Error;

    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no audit head, or not all of it.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid_input("this is not an audit head").with_advice(
                "an audit head is one line, `envelock-audit1.` and 123 letters, digits, `-` and `_`: check that all of it is there",
            )
        };
        let encoded = text.trim().strip_prefix(PREFIX).filter(|it| it.len() == ENCODED_LEN).ok_or_else(bad)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad())?;
        let (fields, check) = bytes.split_last_chunk::<CHECK_LEN>().ok_or_else(bad)?;
        if crypto::sha256(&[fields]).get(..CHECK_LEN) != Some(check.as_slice()) {
            return Err(bad());
        }
        let mut reader = Reader::new(fields);
        let short = |_: Short| bad();
        Ok(Self {
            keystore_id: reader.array().map_err(short)?,
            sequence: reader.array().map(u64::from_be_bytes).map_err(short)?,
            hash: reader.array().map_err(short)?,
            digest: reader.array().map_err(short)?,
        })
    }
}

impl LocalKms {
    /// Where the audit trail ends now. No call on the KMS: it leaves no record.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn audit_head(&self) -> Result<AuditHead> {
        check_owner(self.principal(), "GetAuditHead")?;
        self.look(|store| store.read_trail(|tx, trail| Ok(AuditHead::of(tx, trail)))).await
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        out.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        out
    })
}

const PREFIX: &str = "envelock-audit1.";
const CHECK_LEN: usize = 4;
/// Of 92 bytes.
const ENCODED_LEN: usize = 123;
