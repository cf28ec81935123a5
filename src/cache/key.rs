//! What a cached data key is found by. Everything is compared in full, field by field: no two entries
//! meet because their encodings run into one another, or because hashes do.

use crate::context::KmsContext;
use crate::material::EncryptedDataKey;
use crate::provider::{ProviderIdentity, Recipient};
use quick_cache::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Whose data key: the provider's own word for it, or a number that one envelope drew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ProviderKey {
    Identity(ProviderIdentity),
    Own(u64),
}

impl fmt::Display for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(identity) => f.write_str(identity.as_str()),
            Self::Own(number) => write!(f, "#{number}"),
        }
    }
}

/// Tenant and provider: what no entry is shared across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) tenant: Option<Arc<str>>,
    pub(super) provider: ProviderKey,
    /// The hash of both, since a hit has better things to do.
    hash: u64,
}

impl Partition {
    /// `hasher` is the same for all that are compared.
    pub(super) fn new(tenant: Option<&str>, provider: ProviderKey, hasher: &impl BuildHasher) -> Self {
        let hash = hasher.hash_one((tenant, &provider));
        Self { tenant: tenant.map(Arc::from), provider, hash }
    }
}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// What an entry is found by.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) partition: Arc<Partition>,
    /// The encrypted data key that it is for, or `None` where it encrypts.
    pub(super) slot: Option<EncryptedDataKey>,
    /// What it is bound to and used for: the KMS context has a constant entry that names the use.
    pub(super) kms: KmsContext,
}

/// A [`Key`] to look for: borrowed, so that a look-up allocates nothing.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) partition: &'a Arc<Partition>,
    pub(super) slot: Option<&'a EncryptedDataKey>,
    pub(super) kms: &'a KmsContext,
}

impl Key {
    pub(super) fn probe(&self) -> Probe<'_> {
        Probe { partition: &self.partition, slot: self.slot.as_ref(), kms: &self.kms }
    }

    /// Whether its slot is of this recipient.
    pub(super) fn is_of(&self, recipient: &Recipient) -> bool {
        self.slot.as_ref().is_some_and(|slot| is_of(slot, recipient))
    }
}

pub(super) fn is_of(slot: &EncryptedDataKey, recipient: &Recipient) -> bool {
    slot.provider() == recipient.provider && slot.key_id() == recipient.key_id
}

impl Probe<'_> {
    pub(super) fn to_key(self) -> Key {
        Key { partition: Arc::clone(self.partition), slot: self.slot.cloned(), kms: self.kms.clone() }
    }

    fn is(&self, other: &Probe<'_>) -> bool {
        let partition = Arc::ptr_eq(self.partition, other.partition) || self.partition == other.partition;
        partition && self.slot == other.slot && self.kms == other.kms
    }
}

/// Over what differs between entries; all of it is compared.
impl Hash for Probe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.partition.hash(state);
        if let Some(slot) = self.slot {
            state.write(slot.wrapped());
        }
        state.write(self.kms.encoded());
    }
}

/// A [`Key`] as the map holds it.
#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<Key>);

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.probe().hash(state);
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.0.probe().is(&other.0.probe())
    }
}

impl Eq for Shared {}

impl Equivalent<Shared> for Probe<'_> {
    fn equivalent(&self, key: &Shared) -> bool {
        self.is(&key.0.probe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::EncryptionContext;
    use std::hash::{BuildHasherDefault, DefaultHasher};

    fn key(tenant: Option<&str>, provider: u64, slot: Option<[&str; 3]>, context: &[(&str, &str)]) -> Shared {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let partition = Partition::new(tenant, ProviderKey::Own(provider), &hasher);
        let slot = slot.map(|[provider, id, wrapped]| EncryptedDataKey::new(provider, id, wrapped));
        let kms = KmsContext::new(&context.iter().copied().collect::<EncryptionContext>()).unwrap();
        Shared(Arc::new(Key { partition: Arc::new(partition), slot, kms }))
    }

    #[test]
    fn keys_whose_bytes_run_together_alike_are_different_keys() {
        let all = [
            key(None, 1, None, &[]),
            key(Some(""), 1, None, &[]),
            key(Some("t"), 1, None, &[]),
            key(Some("t"), 2, None, &[]),
            key(None, 1, None, &[("ab", "c")]),
            key(None, 1, None, &[("a", "bc")]),
            key(None, 1, None, &[("a", ""), ("b", "c")]),
            key(None, 1, Some(["", "", ""]), &[]),
            key(None, 1, Some(["ab", "c", "d"]), &[]),
            key(None, 1, Some(["a", "bc", "d"]), &[]),
            key(None, 1, Some(["ab", "cd", ""]), &[]),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{one:?} {other:?}");
                assert_eq!(one.0.probe().equivalent(other), at == other_at);
            }
        }
    }
}
