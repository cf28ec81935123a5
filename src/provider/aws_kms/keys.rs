//! Which keys a provider has, and which of them a slot may be asked of.

use super::NAME;
use super::arn::KeyArn;
use crate::material::EncryptedDataKey;
use std::fmt;

/// A provider's keys.
#[derive(Debug)]
pub(super) enum Keys {
    /// Those of a list. The first makes data keys, all of `keys` wrap them, `also` only opens.
    Strict { keys: Vec<KeyArn>, also: Vec<KeyArn> },
    /// Any of these accounts and Regions, to open only.
    Discovery { partition: String, accounts: Vec<String>, regions: Vec<String> },
}

impl Keys {
    /// What is written under, in order.
    pub(super) fn written(&self) -> &[KeyArn] {
        match self {
            Self::Strict { keys, .. } => keys,
            Self::Discovery { .. } => &[],
        }
    }

    /// Every partition and Region that calls may go to.
    pub(super) fn places(&self) -> Vec<(String, String)> {
        let mut places: Vec<(String, String)> = match self {
            Self::Strict { keys, also } => {
                keys.iter().chain(also).map(|key| (key.partition().to_owned(), key.region().to_owned())).collect()
            }
            Self::Discovery { partition, regions, .. } => {
                regions.iter().map(|region| (partition.clone(), region.clone())).collect()
            }
        };
        let mut seen = Vec::new();
        places.retain(|place| {
            !seen.contains(place) && {
                seen.push(place.clone());
                true
            }
        });
        places
    }

    /// The keys that may open `slot`, the likeliest first: the very key, then the same multi-Region key elsewhere. None if
    /// the slot is not this provider's.
    pub(super) fn that_may_open(&self, slot: &EncryptedDataKey) -> Vec<KeyArn> {
        if slot.provider() != NAME || slot.is_missing() {
            return Vec::new();
        }
        let Some(named) = std::str::from_utf8(slot.key_id()).ok().and_then(KeyArn::parse) else { return Vec::new() };
        match self {
            Self::Strict { keys, also } => {
                let all = || keys.iter().chain(also);
                let same = all().filter(|key| **key == named);
                same.chain(all().filter(|key| **key != named && key.is_replica_of(&named))).cloned().collect()
            }
            Self::Discovery { partition, accounts, regions } => {
                if named.partition() != partition || !accounts.iter().any(|account| account == named.account()) {
                    return Vec::new();
                }
                let here = regions.iter().any(|region| region == named.region());
                let elsewhere = regions.iter().filter(|region| named.is_multi_region() && *region != named.region());
                let replicas = elsewhere.map(|region| named.in_region(region)).collect::<Vec<_>>();
                here.then_some(named).into_iter().chain(replicas).collect()
            }
        }
    }
}

/// For identities: nothing of it is a secret, and no two of them that differ read alike.
impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict { keys, also } => write!(f, "{keys:?} also {also:?}"),
            Self::Discovery { partition, accounts, regions } => {
                write!(f, "discovery {partition} {accounts:?} {regions:?}")
            }
        }
    }
}
