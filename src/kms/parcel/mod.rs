//! What leaves a keystore and what enters it: imported key material, and the files by which keystores that
//! do not see one another share multi-Region keys (docs/kms-files.md). Bytes to types and back, with the
//! cryptography of each; no row is read or written here.
//!
//! ```text
//! file    = "EKMS" || 01 || kind (1) || what the kind says
//! address = issuing keystore id (16) || byte string of its Region || target keystore id (16)
//!           || byte string of its Region || byte string of the key id || serial (8) || time of issue (8)
//! ```
//! Big-endian; times in milliseconds since 1970. A file is parsed as a whole, and no byte may follow it.

mod bundle;
mod content;
mod describe;
mod fingerprint;
mod frame;
mod import;
mod key_pair;
mod letter;
mod material_text;
mod replication_key;
mod rules;
mod same;
mod sealed;

#[cfg(test)]
mod tests;

pub(super) use bundle::{Issue, make as make_bundle, open as open_bundle};
pub(super) use content::{Content, SharedVersion};
pub use describe::{FileDescription, describe_file};
pub use fingerprint::Sha256Fingerprint;
pub(super) use frame::Address;
pub use frame::FileKind;
pub use import::{ImportParameters, wrap_key_material};
pub(super) use import::{TokenPlace, check_token, lost_token, unverified_fingerprint, unwrap_key_material};
pub(super) use key_pair::KeyPair;
pub(super) use letter::{Letter, News, make_deletion_receipt, make_primary_change, make_rotation, no_replication_key};
pub(super) use material_text::open_key_material;
pub use material_text::{KeyMaterialText, seal_key_material};
pub(super) use replication_key::{ConfirmedKey, ReplicationKey};
pub(super) use rules::{Family, check_new, check_serial, new_versions, version_not_here};
pub use rules::{MultiRegionConfiguration, MultiRegionKey};
pub(super) use same::SameMaterial;
