//! What a head needs: decided without a call, from names and versions alone.

use super::foresee::Opening;
use super::look::{HeadFacts, SlotFacts};
use crate::error::{Error, Result};
use crate::native::slots::PASSPHRASE;
use crate::provider::{KeyProvider, Recipient, Recipients};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process sees data keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The KMS re-encrypts inside where it can, and where every wrapped key that goes is re-encrypted itself: then
    /// nothing that opened a message is given up for something that was not looked at. Else as
    /// [`Open`](Self::Open). The default.
    #[default]
    BlindWhereSafe,
    /// Each data key is decrypted, checked against its message, and encrypted anew.
    Open,
    /// The KMS re-encrypts inside; a message for which it cannot is a failure.
    Blind,
}

/// What becomes of recipients that are neither those that the rewrap writes nor those that it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// A message that has one, and would have to be written, is a failure and stays as it is. The default.
    #[default]
    Refuse,
    /// Their slots stay as they are.
    Keep,
    /// They are removed.
    Remove,
}

/// A provider that every message is to be under.
pub(super) struct Target {
    pub(super) provider: Arc<dyn KeyProvider>,
    pub(super) recipients: Vec<Recipient>,
    /// Of each of these, a message needs one.
    pub(super) alternatives: Vec<Vec<Recipient>>,
    /// Whether a head tells that a slot is its own: a passphrase has no name, and a source may bear the same one as
    /// the target.
    told_by_name: bool,
    /// It was denied once.
    pub(super) may_not_re_encrypt: AtomicBool,
}

impl Target {
    /// Whether it is worth a call: a slot of its name may be another's, and whoever was denied once is denied again.
    pub(super) fn may_try_to_re_encrypt(&self) -> bool {
        self.told_by_name && !self.may_not_re_encrypt.load(Ordering::Relaxed)
    }
}

/// What a run is to achieve.
pub(super) struct Aim {
    pub(super) targets: Vec<Target>,
    /// Who may open a message, each with whom it writes for: those that it comes from, and the targets.
    pub(super) openers: Vec<(Arc<dyn KeyProvider>, Vec<Recipient>)>,
    from: Vec<Recipient>,
    pub(super) mode: Mode,
    /// How many targets a message must be under.
    pub(super) needed: usize,
    others: Others,
    oldest_version: Option<u32>,
    again: bool,
}

/// What is said about a run, beside its providers.
pub(super) struct Rules {
    pub(super) mode: Mode,
    pub(super) others: Others,
    pub(super) oldest_version: Option<u32>,
    pub(super) again: bool,
    pub(super) at_least: Option<usize>,
}

impl Aim {
    /// # Errors
    /// Kind InvalidInput without a target, if one names no recipient or two write for the same one, or if more are
    /// needed than there are.
    pub(super) fn new(to: Vec<Arc<dyn KeyProvider>>, from: Vec<Arc<dyn KeyProvider>>, rules: &Rules) -> Result<Self> {
        if to.is_empty() {
            return Err(Error::invalid_input("a rewrap needs a key provider to move messages to"));
        }
        let needed = rules.at_least.unwrap_or(to.len());
        if needed == 0 || needed > to.len() {
            return Err(Error::invalid_input(format!("{needed} of {} key providers cannot be met", to.len())));
        }
        let from: Vec<_> = from.into_iter().map(named).collect();
        let from_names: Vec<Recipient> = from.iter().flat_map(|(_, names)| names.clone()).collect();
        // Equal names are the same key only where both say who they are: two clusters may have one mount and key.
        let is_anothers = |provider: &dyn KeyProvider, name: &Recipient| {
            let mut sources = from.iter().filter(|(_, names)| names.contains(name));
            sources.any(|(source, _)| source.identity().is_none_or(|it| provider.identity() != Some(it)))
        };
        let to: Vec<_> = to.into_iter().map(named).collect();
        if to.iter().any(|(_, names)| names.is_empty()) {
            return Err(Error::invalid_input("a key provider that names no recipient cannot be what messages move to"));
        }
        let mut seen: Vec<&Recipient> = Vec::new();
        for recipient in to.iter().flat_map(|(_, names)| names) {
            if seen.contains(&recipient) {
                return Err(Error::invalid_input(format!("two key providers write the same recipient {recipient}")));
            }
            seen.push(recipient);
        }
        let targets = to.iter().map(|(provider, names)| Target {
            provider: Arc::clone(provider),
            recipients: names.clone(),
            alternatives: provider.alternatives(),
            told_by_name: names.iter().all(|name| name.provider != PASSPHRASE && !is_anothers(provider, name)),
            may_not_re_encrypt: AtomicBool::new(false),
        });
        let targets = targets.collect();
        Ok(Self {
            targets,
            openers: from.into_iter().chain(to.iter().cloned()).collect(),
            from: from_names,
            mode: rules.mode,
            needed,
            others: rules.others,
            oldest_version: rules.oldest_version,
            again: rules.again,
        })
    }

    /// Whether a head alone cannot tell that a message is done with.
    pub(super) fn needs_memory(&self) -> bool {
        self.again || self.targets.iter().any(|target| !target.told_by_name)
    }

    /// What a message needs.
    ///
    /// # Errors
    /// Kind InvalidInput if it has recipients that must not be removed.
    pub(super) fn plan(&self, facts: &HeadFacts) -> Result<Step> {
        let due: Vec<usize> = (0..self.targets.len()).filter(|&at| self.is_due(at, &facts.slots)).collect();
        let roles: Vec<Role> = facts.slots.iter().map(|slot| self.role(slot, &due)).collect();
        if due.is_empty() && !roles.contains(&Role::Goes) {
            return Ok(Step::Current);
        }
        let plan = Plan { due, roles };
        match self.opening(&plan, facts) {
            Opening::Named => plan.refuse_others(facts, None)?,
            // One of our own under an older name, of an alias for one, may be the only one that opens.
            Opening::Perhaps if plan.with(facts, Role::Unknown).count() > 1 => plan.refuse_others(facts, None)?,
            // What nobody opens is told as that.
            Opening::Perhaps | Opening::Nobody => {}
        }
        Ok(Step::Due(plan))
    }

    fn is_due(&self, target: usize, slots: &[SlotFacts]) -> bool {
        let Some(target) = self.targets.get(target) else { return false };
        self.again || !target.told_by_name || !self.is_there(target, slots)
    }

    /// Whether a message has what a target writes, by the names.
    fn is_there(&self, target: &Target, slots: &[SlotFacts]) -> bool {
        let is_new = |version: Option<u32>| match (self.oldest_version, version) {
            (Some(oldest), Some(version)) => version >= oldest,
            _ => true,
        };
        let has = |recipient: &Recipient| {
            slots.iter().any(|slot| slot.recipient == *recipient && !slot.missing && is_new(slot.version))
        };
        target.alternatives.iter().all(|any| any.iter().any(has))
    }

    /// Whether the journal may be believed that a message is done with: where its head does not tell the contrary.
    pub(super) fn may_be_done(&self, facts: &HeadFacts) -> bool {
        let goes = |slot: &SlotFacts| {
            let is_targets = self.targets.iter().any(|target| target.recipients.contains(&slot.recipient));
            !is_targets && (self.from.contains(&slot.recipient) || self.others == Others::Remove)
        };
        let mut told = self.targets.iter().filter(|target| target.told_by_name);
        !facts.slots.iter().any(goes) && told.all(|target| self.is_there(target, &facts.slots))
    }

    /// Whether a wrapped key of this target's recipient, which opened the message before, is kept where the target
    /// has written none for it.
    pub(super) fn keeps(&self, target: &Target, recipient: &Recipient) -> bool {
        target.told_by_name || !self.from.contains(recipient)
    }

    fn role(&self, slot: &SlotFacts, due: &[usize]) -> Role {
        let of = self.targets.iter().position(|target| target.recipients.contains(&slot.recipient));
        match of {
            Some(target) if due.contains(&target) => Role::Goes,
            Some(_) => Role::Stays,
            None if self.from.contains(&slot.recipient) => Role::Goes,
            None => match self.others {
                Others::Refuse => Role::Unknown,
                Others::Keep => Role::Stays,
                Others::Remove => Role::Goes,
            },
        }
    }

    /// Whom a rewrap by `plan` adds and removes.
    pub(super) fn change(&self, plan: &Plan, facts: &HeadFacts) -> (Vec<Recipient>, Vec<Recipient>) {
        let written = plan.due.iter().filter_map(|at| self.targets.get(*at)).flat_map(|target| &target.recipients);
        let stays = plan.with(facts, Role::Stays).map(|slot| &slot.recipient);
        let after: Vec<_> = written.clone().chain(stays).collect();
        let opened = |it: &Recipient| facts.slots.iter().any(|slot| !slot.missing && slot.recipient == *it);
        let added = written.filter(|it| !opened(it)).cloned().collect();
        let removed = facts.slots.iter().map(|slot| &slot.recipient).filter(|it| !after.contains(it)).cloned();
        (added, removed.collect())
    }

    /// What tells this aim from another one.
    pub(super) fn text(&self) -> String {
        let names: Vec<_> = self.targets.iter().flat_map(|target| &target.recipients).collect();
        let (from, others, version) = (&self.from, self.others, self.oldest_version);
        format!("to {names:?} from {from:?} others {others:?} version {version:?} again {}", self.again)
    }
}

fn named(provider: Arc<dyn KeyProvider>) -> (Arc<dyn KeyProvider>, Vec<Recipient>) {
    let names = provider.recipients();
    (provider, names)
}

impl fmt::Debug for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// What a message needs.
#[derive(Debug)]
pub(super) enum Step {
    Current,
    Due(Plan),
}

/// What becomes of each slot, and who gets a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Targets, by their numbers.
    pub(super) due: Vec<usize>,
    pub(super) roles: Vec<Role>,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Stays,
    Goes,
    /// It goes if it is the one that opened the message; else nobody knows whose it is, and the message is refused.
    Unknown,
}

impl Plan {
    fn with<'a>(&'a self, facts: &'a HeadFacts, role: Role) -> impl Iterator<Item = &'a SlotFacts> {
        facts.slots.iter().zip(&self.roles).filter(move |(_, it)| **it == role).map(|(slot, _)| slot)
    }

    /// # Errors
    /// Kind InvalidInput if there are slots of unknown owners besides `opened`, which opened the message.
    pub(super) fn refuse_others(&self, facts: &HeadFacts, opened: Option<usize>) -> Result<()> {
        let slots = facts.slots.iter().zip(&self.roles).enumerate();
        let others = slots.filter(|(at, (_, role))| **role == Role::Unknown && Some(*at) != opened);
        let others: Vec<_> = others.map(|(_, (slot, _))| slot.recipient.clone()).collect();
        if others.is_empty() {
            return Ok(());
        }
        let others = Recipients(others);
        Err(Error::invalid_input(format!("this rewrap would remove recipients of the message: {others}"))
            .with_source(others)
            .with_advice("nothing was changed: say whether those that are not named stay or go"))
    }

    /// The slots that the message can be opened by, as far as this plan wants it: with nothing to encrypt, one that
    /// stays, so that nothing goes before what stays was seen to open it.
    pub(super) fn opens_by(&self, at: usize) -> bool {
        !self.due.is_empty() || self.roles.get(at) == Some(&Role::Stays)
    }

    /// Whether every wrapped key that goes can be the source of one that comes.
    pub(super) fn may_be_blind(&self, facts: &HeadFacts) -> bool {
        let go = facts.slots.iter().zip(&self.roles).filter(|(slot, role)| !slot.missing && **role != Role::Stays);
        !self.due.is_empty() && go.count() <= self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::provider::raw::RawKeyProvider;

    fn raw(name: &str) -> Arc<dyn KeyProvider> {
        Arc::new(RawKeyProvider::generate(name).unwrap())
    }

    fn aim(to: &[&str], from: &[&str], others: Others) -> Aim {
        let all = |names: &[&str]| names.iter().map(|name| raw(name)).collect();
        let rules = Rules { mode: Mode::default(), others, oldest_version: None, again: false, at_least: None };
        Aim::new(all(to), all(from), &rules).unwrap()
    }

    /// A head for these keys; one that begins with - is missing.
    fn head(keys: &[&str]) -> HeadFacts {
        let mut facts = HeadFacts::new(&[], b"");
        facts.slots = keys
            .iter()
            .map(|key| SlotFacts {
                recipient: Recipient::new("raw", key.trim_start_matches('-')),
                version: None,
                missing: key.starts_with('-'),
            })
            .collect();
        facts
    }

    fn due(aim: &Aim, keys: &[&str]) -> Option<(Vec<usize>, Vec<Role>)> {
        match aim.plan(&head(keys)).unwrap() {
            Step::Current => None,
            Step::Due(plan) => Some((plan.due, plan.roles)),
        }
    }

    #[test]
    fn a_move_takes_the_old_out_and_the_new_in_and_is_done_once() {
        let aim = aim(&["new"], &["old"], Others::Refuse);
        assert_eq!(due(&aim, &["old"]), Some((vec![0], vec![Role::Goes])));
        assert_eq!(due(&aim, &["new"]), None);
        assert_eq!(due(&aim, &["old", "-new"]), Some((vec![0], vec![Role::Goes, Role::Goes])));
        assert_eq!(due(&aim, &["old", "new"]), Some((vec![], vec![Role::Goes, Role::Stays])));
    }

    #[test]
    fn the_missing_are_filled_and_those_who_are_there_stay() {
        let aim = aim(&["a", "b", "c"], &[], Others::Refuse);
        assert_eq!(due(&aim, &["a", "-b", "c"]), Some((vec![1], vec![Role::Stays, Role::Goes, Role::Stays])));
        assert_eq!(due(&aim, &["a", "b", "c"]), None);
        assert_eq!(due(&aim, &["c", "a"]), Some((vec![1], vec![Role::Stays, Role::Stays])));
    }

    #[test]
    fn somebody_elses_slot_is_refused_kept_or_removed_and_no_reason_to_write() {
        let refusing = aim(&["new"], &["old"], Others::Refuse);
        let refused = refusing.plan(&head(&["old", "escrow"])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("raw:escrow"), "{refused}");
        assert_eq!(due(&refusing, &["new", "escrow"]), None);
        let keeping = aim(&["new"], &["old"], Others::Keep);
        assert_eq!(due(&keeping, &["old", "escrow"]), Some((vec![0], vec![Role::Goes, Role::Stays])));
        let removing = aim(&["new"], &["old"], Others::Remove);
        assert_eq!(due(&removing, &["old", "escrow"]), Some((vec![0], vec![Role::Goes, Role::Goes])));
        assert_eq!(due(&removing, &["new", "escrow"]), Some((vec![], vec![Role::Stays, Role::Goes])));
    }

    #[test]
    fn one_raw_name_for_two_keys_tells_nothing() {
        let aim = aim(&["same"], &["same"], Others::Refuse);
        assert!(aim.needs_memory());
        assert_eq!(due(&aim, &["same"]), Some((vec![0], vec![Role::Goes])));
    }

    #[test]
    fn blind_is_safe_only_where_nothing_goes_that_is_no_source() {
        let aim = aim(&["new"], &["old", "older"], Others::Refuse);
        let safe = |keys: &[&str]| match aim.plan(&head(keys)).unwrap() {
            Step::Due(plan) => plan.may_be_blind(&head(keys)),
            Step::Current => unreachable!("it is due"),
        };
        assert!(safe(&["old"]) && safe(&["old", "-older"]));
        assert!(!safe(&["old", "older"]) && !safe(&["old", "new"]));
    }
}
