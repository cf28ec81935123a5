//! The key version that an embedded keystore's ciphertext blob names.

use crate::kms::version_of_blob;

/// `None` if this is no blob.
pub(super) fn of_blob(blob: &[u8]) -> Option<u32> {
    version_of_blob(blob)
}
