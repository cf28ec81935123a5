//! Which of the messages.

use super::look::HeadFacts;
use crate::provider::Recipient;
use std::time::SystemTime;

/// Which messages are meant: those for which every condition holds that was given. Default: all.
///
/// ```
/// use envelock::fleet::Selection;
/// use std::time::{Duration, SystemTime};
/// let a_year_ago = SystemTime::now() - Duration::from_secs(365 * 86_400);
/// let old = Selection::all().under("aws-kms", "arn:aws:kms:eu-west-1:111122223333:key/1234").modified_before(a_year_ago);
/// # let _ = old;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    under: Vec<Recipient>,
    with_missing: bool,
    modified_before: Option<SystemTime>,
    below_version: Option<u32>,
}

impl Selection {
    /// All messages.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that have a wrapped key of this provider name and key id, as slots spell them. Given several times:
    /// of any of these.
    #[must_use]
    pub fn under(mut self, provider: impl Into<String>, key_id: impl Into<Vec<u8>>) -> Self {
        self.under.push(Recipient::new(provider, key_id));
        self
    }

    /// Those that record a recipient as missing.
    #[must_use]
    pub fn with_missing(mut self) -> Self {
        self.with_missing = true;
        self
    }

    /// Those in files that were last modified before `time`. A file whose time cannot be told is not meant.
    #[must_use]
    pub fn modified_before(mut self, time: SystemTime) -> Self {
        self.modified_before = Some(time);
        self
    }

    /// Those with a wrapped key that shows an older version of its key than `version`. Only wrapped keys of
    /// `local` and `vault` show one.
    #[must_use]
    pub fn below_version(mut self, version: u32) -> Self {
        self.below_version = Some(version);
        self
    }

    pub(super) fn oldest_version(&self) -> Option<u32> {
        self.below_version
    }

    /// Whether it means a message with this head, in a file that was modified then.
    #[must_use]
    pub fn means(&self, facts: &HeadFacts, modified: Option<SystemTime>) -> bool {
        let named = |recipient: &Recipient| self.under.is_empty() || self.under.contains(recipient);
        let is_old = |version: Option<u32>| self.below_version.is_none_or(|most| version.is_some_and(|it| it < most));
        let by_slot = self.under.is_empty() && self.below_version.is_none();
        (by_slot || facts.slots.iter().any(|slot| !slot.missing && named(&slot.recipient) && is_old(slot.version)))
            && (!self.with_missing || facts.has_missing())
            && self.modified_before.is_none_or(|time| modified.is_some_and(|modified| modified < time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::look::SlotFacts;
    use std::time::{Duration, UNIX_EPOCH};

    fn facts(slots: &[(&str, Option<u32>, bool)]) -> HeadFacts {
        let mut facts = HeadFacts::new(&[], b"");
        facts.slots = slots
            .iter()
            .map(|&(key, version, missing)| SlotFacts { recipient: Recipient::new("vault", key), version, missing })
            .collect();
        facts
    }

    #[test]
    fn every_condition_must_hold_and_of_one_slot() {
        let two = facts(&[("a", Some(1), false), ("b", Some(5), false)]);
        let at = Some(UNIX_EPOCH + Duration::from_secs(100));
        let all = Selection::all;
        assert!(all().means(&two, None));
        assert!(all().under("vault", "a").means(&two, None));
        assert!(all().under("vault", "x").under("vault", "b").means(&two, None));
        assert!(!all().under("raw", "a").means(&two, None));
        assert!(all().below_version(2).means(&two, None));
        assert!(!all().below_version(1).means(&two, None));
        assert!(!all().under("vault", "b").below_version(5).means(&two, None));
        assert!(!all().with_missing().means(&two, None));
        assert!(all().modified_before(UNIX_EPOCH + Duration::from_secs(101)).means(&two, at));
        assert!(!all().modified_before(UNIX_EPOCH + Duration::from_secs(100)).means(&two, at));
        assert!(!all().modified_before(UNIX_EPOCH + Duration::from_secs(101)).means(&two, None));
        let missing = facts(&[("a", None, true), ("b", None, false)]);
        assert!(all().with_missing().means(&missing, None));
        assert!(!all().under("vault", "a").means(&missing, None), "who is missing opens nothing");
    }
}
