//! A record of the audit trail as bytes.
//!
//! ```text
//! record = keystore id (16) || previous (32) || sequence (8) || at (8) || byte strings of name, principal, key id and
//!          code || u32(length) || details || u32(length) || changes
//! hash   = SHA-256(record): what the next record has as its previous, and the head as the end
//! mac    = HMAC-SHA-256(audit key, record)
//! ```
//! The audit key is random, and wrapped under the root key like key material: so the records of before stay as
//! they are when the root key is replaced. A MAC names the record that was changed; that none is missing, and
//! that this is the whole trail, the chain and the head say.

use crate::codec::put_byte_string;
use crate::crypto;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// What a call leaves in the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kms) struct Entry {
    /// Milliseconds since the Unix epoch.
    pub(in crate::kms) at: i64,
    /// AWS's name of the operation.
    pub(in crate::kms) name: String,
    /// Who called.
    pub(in crate::kms) principal: String,
    /// The key that the call was about, or empty.
    pub(in crate::kms) key_id: String,
    /// The error's code, or empty.
    pub(in crate::kms) code: String,
    /// A JSON object: the request's parameters, and the error's sentence.
    pub(in crate::kms) details: String,
    /// The deciding rows that the call changed, and their hashes since ([`Tx::keep`](super::super::tx::Tx::keep)).
    pub(in crate::kms) changes: Vec<u8>,
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kms) struct Record {
    /// From 1, without gaps.
    pub(in crate::kms) sequence: u64,
    /// The hash of the record before it.
    pub(in crate::kms) previous: [u8; 32],
    pub(in crate::kms) entry: Entry,
}

impl Record {
    pub(in crate::kms) fn encode(&self, keystore_id: &[u8; 16]) -> Result<Vec<u8>> {
        let Entry { at, name, principal, key_id, code, details, changes } = &self.entry;
        let mut out = Vec::with_capacity(160 + name.len() + principal.len() + details.len() + changes.len());
        let place = (&self.previous, self.sequence, *at);
        Self::put(&mut out, keystore_id, place, [name, principal, key_id, code], details, changes)?;
        Ok(out)
    }

    /// Appends the bytes of a record: its place is the hash of the one before, its sequence and its time.
    pub(super) fn put(
        out: &mut Vec<u8>,
        keystore_id: &[u8; 16],
        (previous, sequence, at): (&[u8; 32], u64, i64),
        texts: [&str; 4],
        details: &str,
        changes: &[u8],
    ) -> Result<()> {
        out.extend_from_slice(keystore_id);
        out.extend_from_slice(previous);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&at.to_be_bytes());
        for text in texts {
            put_byte_string(out, text.as_bytes())?;
        }
        for bytes in [details.as_bytes(), changes] {
            let len = u32::try_from(bytes.len()).map_err(|_| Error::limit("an audit record is longer than 4 GiB"))?;
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Ok(())
    }

    pub(in crate::kms) fn hash(encoded: &[u8]) -> [u8; 32] {
        crypto::sha256(&[encoded])
    }

    pub(in crate::kms) fn mac(key: &Secret<32>, encoded: &[u8]) -> [u8; 32] {
        crypto::hmac_sha256(key.expose(), &[encoded])
    }
}
