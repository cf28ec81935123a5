//! What a head tells of a rewrap before anybody is called: whether those who are named open the message, and whether a
//! KMS may do all of it inside.

use super::look::{HeadFacts, SlotFacts};
use super::plan::{Aim, Mode, Plan, Role, Target};
use crate::native::slots::PASSPHRASE;
use crate::provider::Recipient;
use crate::provider::raw::NAME as RAW;

/// Whether the sources and targets open a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Opening {
    /// None of them has to do with it.
    Nobody,
    /// One of them may open more than what it names: an older key of an alias, a replica. Only a call tells.
    Perhaps,
    /// A wrapped key in it is for one of them, by its name.
    Named,
}

/// Those who open the keys that they name, and no other.
const ONLY_WHAT_THEY_NAME: [&str; 3] = [RAW, PASSPHRASE, VAULT];
/// Those whose KMS re-encrypts no data key inside.
const NEVER_INSIDE: [&str; 3] = [RAW, PASSPHRASE, VAULT];
/// The provider name in the slots of Transit, whether that provider is compiled in or not.
const VAULT: &str = "vault";

impl Aim {
    /// Whether somebody opens this message, as far as names tell.
    pub(super) fn opening(&self, plan: &Plan, facts: &HeadFacts) -> Opening {
        let slots = facts.slots.iter().enumerate().filter(|(at, slot)| !slot.missing && plan.opens_by(*at));
        let openings =
            slots.flat_map(|(_, slot)| self.openers.iter().map(|(_, names)| opening_of(&slot.recipient, names)));
        openings.max().unwrap_or(Opening::Nobody)
    }

    /// Whether a rewrap by `plan` is tried without a data key being seen here. What a key service may not do, or not
    /// between these two keys, only a call tells.
    pub(super) fn foresees_blind(&self, plan: &Plan, facts: &HeadFacts) -> bool {
        let due: Vec<&Target> = plan.due.iter().filter_map(|at| self.targets.get(*at)).collect();
        let there: Vec<&SlotFacts> = facts.slots.iter().filter(|slot| !slot.missing).collect();
        let inside =
            |provider: &str| there.iter().any(|slot| slot.recipient.provider == provider) && is_inside(provider);
        let can = |target: &&Target| {
            let told = self.mode == Mode::Blind || target.may_try_to_re_encrypt();
            told && target.alternatives.iter().all(|any| any.iter().any(|it| inside(&it.provider)))
        };
        let taken = |slot: &SlotFacts| {
            let mut names = due.iter().flat_map(|target| &target.recipients);
            names.any(|it| it.provider == slot.recipient.provider)
        };
        let goes = facts.slots.iter().zip(&plan.roles).filter(|(slot, role)| !slot.missing && **role != Role::Stays);
        self.mode != Mode::Open
            && plan.may_be_blind(facts)
            && due.iter().all(can)
            && goes.map(|(slot, _)| slot).all(taken)
    }
}

fn opening_of(recipient: &Recipient, names: &[Recipient]) -> Opening {
    // Somebody's own provider says what it writes, and reads whatever it was made for.
    let is_strangers = |it: &Recipient| it.provider.contains('.');
    let knows_more = |it: &Recipient| {
        it.provider == recipient.provider && !ONLY_WHAT_THEY_NAME.contains(&recipient.provider.as_str())
    };
    match names.contains(recipient) {
        true => Opening::Named,
        false if names.is_empty() => Opening::Perhaps,
        false if names.iter().any(|it| is_strangers(it) || knows_more(it)) => Opening::Perhaps,
        false => Opening::Nobody,
    }
}

fn is_inside(provider: &str) -> bool {
    !NEVER_INSIDE.contains(&provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::KmsContext;
    use crate::error::{Error, Result};
    use crate::fleet::plan::{Others, Rules, Step};
    use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
    use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider};
    use async_trait::async_trait;
    use std::sync::Arc;

    /// A provider that is only asked for its names.
    #[derive(Debug)]
    struct Names(Vec<Recipient>);

    #[async_trait]
    impl KeyProvider for Names {
        fn recipients(&self) -> Vec<Recipient> {
            self.0.clone()
        }

        async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey> {
            Err(Error::internal("nobody is called"))
        }

        async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
            Err(Error::internal("nobody is called"))
        }

        async fn decrypt_data_key(&self, _: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
            DataKeyAnswer::NotMine
        }
    }

    fn recipient(text: &str) -> Recipient {
        let (provider, key) = text.split_once(':').unwrap();
        Recipient::new(provider, key)
    }

    fn aim(to: &[&str], from: &[&str], mode: Mode, others: Others) -> Aim {
        let all = |names: &[&str]| -> Vec<Arc<dyn KeyProvider>> {
            let named = |name: &&str| Arc::new(Names(vec![recipient(name)])) as Arc<dyn KeyProvider>;
            names.iter().map(named).collect()
        };
        let rules = Rules { mode, others, oldest_version: None, again: false, at_least: None };
        Aim::new(all(to), all(from), &rules).unwrap()
    }

    fn head(keys: &[&str]) -> HeadFacts {
        let mut facts = HeadFacts::new(&[], b"");
        let slot = |key: &&str| SlotFacts {
            recipient: recipient(key.trim_start_matches('-')),
            version: None,
            missing: key.starts_with('-'),
        };
        facts.slots = keys.iter().map(slot).collect();
        facts
    }

    fn plan(aim: &Aim, facts: &HeadFacts) -> Plan {
        match aim.plan(facts).unwrap() {
            Step::Due(plan) => plan,
            Step::Current => panic!("it is due"),
        }
    }

    #[test]
    fn names_tell_who_opens_a_message_where_they_are_all_that_a_provider_opens() {
        let opening = |to: &[&str], from: &[&str], keys: &[&str]| {
            let (aim, facts) = (aim(to, from, Mode::default(), Others::Keep), head(keys));
            aim.opening(&plan(&aim, &facts), &facts)
        };
        let arn = "aws-kms:arn:aws:kms:eu-west-1:1:key/a";
        assert_eq!(opening(&[arn], &["vault:transit/orders"], &["vault:transit/orders"]), Opening::Named);
        assert_eq!(opening(&[arn], &["vault:transit/order"], &["vault:transit/orders"]), Opening::Nobody);
        assert_eq!(opening(&[arn], &[], &["vault:transit/orders", "raw:escrow"]), Opening::Nobody);
        assert_eq!(opening(&[arn], &["raw:a"], &["raw:b", "passphrase:"]), Opening::Nobody);
        assert_eq!(opening(&[arn], &["passphrase:"], &["passphrase:"]), Opening::Named);
        // Who is missing opens nothing.
        assert_eq!(opening(&[arn], &["raw:a"], &["raw:b", "-raw:a"]), Opening::Nobody);
        // An alias' older key, a replica in another Region, whatever somebody's own provider reads.
        assert_eq!(opening(&["raw:a"], &["local:new"], &["local:old"]), Opening::Perhaps);
        assert_eq!(opening(&["raw:a"], &[arn], &["aws-kms:arn:aws:kms:eu-west-1:1:key/b"]), Opening::Perhaps);
        assert_eq!(opening(&["raw:a"], &["com.example.hsm:k"], &["vault:transit/orders"]), Opening::Perhaps);
    }

    #[test]
    fn inside_is_said_only_where_one_kind_of_key_service_re_encrypts_all_that_goes() {
        let blind = |to: &[&str], from: &[&str], keys: &[&str]| {
            let (aim, facts) = (aim(to, from, Mode::default(), Others::Keep), head(keys));
            aim.foresees_blind(&plan(&aim, &facts), &facts)
        };
        assert!(blind(&["aws-kms:new"], &["aws-kms:old"], &["aws-kms:old"]));
        assert!(blind(&["aws-kms:a", "aws-kms:b"], &[], &["aws-kms:a"]));
        assert!(blind(&["com.example.hsm:new"], &["com.example.hsm:old"], &["com.example.hsm:old"]));
        assert!(!blind(&["aws-kms:new"], &["vault:transit/old"], &["vault:transit/old"]));
        assert!(!blind(&["vault:transit/new"], &["vault:transit/old"], &["vault:transit/old"]));
        assert!(!blind(&["vault:transit/new", "raw:a"], &[], &["raw:a"]));
        assert!(!blind(&["raw:new"], &["raw:old"], &["raw:old"]));
        assert!(
            !blind(&["aws-kms:new", "raw:a"], &["aws-kms:old"], &["aws-kms:old"]),
            "nobody makes a raw slot inside"
        );
        assert!(!blind(&["aws-kms:new"], &["aws-kms:old", "raw:a"], &["aws-kms:old", "raw:a"]), "two go");
        let open = aim(&["aws-kms:new"], &["aws-kms:old"], Mode::Open, Others::Keep);
        let facts = head(&["aws-kms:old"]);
        assert!(!open.foresees_blind(&plan(&open, &facts), &facts));
    }

    #[test]
    fn a_message_with_two_strangers_is_refused_before_anybody_is_called() {
        let aim = aim(&["raw:a"], &["local:new"], Mode::default(), Others::Refuse);
        assert!(aim.plan(&head(&["local:old"])).is_ok(), "the one stranger may be an older key of its own");
        let refused = aim.plan(&head(&["local:old", "raw:escrow"])).unwrap_err();
        assert!(refused.to_string().contains("raw:escrow"), "{refused}");
    }
}
