//! Some files at once: locked, decided upon, moved with as few calls as their KMS allows, written.

use super::calls::{Calls, Stopped};
use super::files::FoundFile;
use super::journal::{Done, Journal};
use super::look::{HeadFacts, digest, io_kind, is_gone};
use super::outcome::{Change, Outcome};
use super::plan::{Aim, Mode, Plan, Role, Step, Target};
use crate::context::{ContextMatch, EncryptionContext, ReaderContext};
use crate::durable::{FileSystem, Links, folder_of, has_room};
use crate::envelope::message;
use crate::envelope::rewrap::opened::Opened;
use crate::error::{Error, ErrorKind, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::native::header::{Committed, Form, Limits};
use crate::provider::multi::{is_outage, more_retryable};
use crate::provider::{DataKeyAnswer, Recipient};
use crate::worker;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What all groups of a run share.
pub(super) struct Run {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) aim: Aim,
    pub(super) calls: Calls,
    pub(super) limits: Limits,
    pub(super) context: EncryptionContext,
    pub(super) journal: Option<Mutex<Journal>>,
    /// What the journal holds, of a dry run.
    pub(super) looked: Done,
    /// How many files in a row there was no space for, though the disk has some.
    pub(super) unfit: AtomicU32,
    pub(super) stop: Arc<AtomicBool>,
}

/// What came of a group.
pub(super) struct Worked {
    pub(super) files: Vec<(FoundFile, Outcome)>,
    /// Files that were not begun, since the run is to stop.
    pub(super) left: u64,
    /// What ends the run.
    pub(super) fatal: Option<Error>,
}

/// A file under its lock.
struct Item {
    place: FoundFile,
    opened: Opened,
    facts: HeadFacts,
    plan: Plan,
    context: ReaderContext,
    /// What each target of the plan got.
    new: Vec<Option<Vec<EncryptedDataKey>>>,
    /// The slots that were re-encrypted, or that opened the message.
    used: Vec<usize>,
    key: Option<DataKey>,
    /// Slots and openers to try, the likeliest first.
    tries: Vec<(usize, usize)>,
    tried: usize,
    /// Targets that could not be reached, and why.
    unreached: Vec<(usize, Error)>,
    /// Why the last tries did not open it.
    last: Option<Error>,
    failure: Option<Error>,
    /// Nothing more is to be asked: the KMS has done it all.
    over: bool,
}

impl Run {
    /// Moves the messages in these files. Of a file that another process works on, the lock is waited for by `wait`:
    /// for a group of several that is nothing, or two runs could wait for each other.
    pub(super) async fn work(self: Arc<Self>, files: Vec<FoundFile>, wait: Duration) -> Worked {
        let run = Arc::clone(&self);
        let all = files.clone();
        let locked = worker::run("envelock-fleet", move || {
            Ok(files.into_iter().map(|file| run.lock(file, wait)).collect::<Vec<_>>())
        });
        let mut done = Worked { files: Vec::new(), left: 0, fatal: None };
        let mut items = Vec::new();
        match locked.await {
            Ok(locked) => {
                for item in locked {
                    match item {
                        Ok(item) => items.push(item),
                        Err(outcome) => done.files.push(*outcome),
                    }
                }
            }
            Err(error) => {
                done.files.extend(all.into_iter().map(|file| (file, Outcome::Failed(error.again()))));
                return done;
            }
        }
        if self.ask(&mut items).await.is_err() {
            done.left = items.len() as u64;
            return done;
        }
        let places: Vec<_> = items.iter().map(|item| item.place.clone()).collect();
        let run = Arc::clone(&self);
        match worker::run("envelock-fleet", move || Ok(run.write(items))).await {
            Ok((files, fatal)) => {
                done.files.extend(files);
                done.fatal = fatal;
            }
            Err(error) => done.files.extend(places.into_iter().map(|file| (file, Outcome::Failed(error.again())))),
        }
        done
    }

    /// Whether the journal knows this head as done with.
    pub(super) fn knows(&self, facts: &HeadFacts) -> bool {
        let holds = |done: &Done| done.heads.contains(&facts.digest);
        self.aim.needs_memory()
            && self.aim.may_be_done(facts)
            && match &self.journal {
                Some(journal) => holds(journal.lock().unwrap_or_else(PoisonError::into_inner).done()),
                None => holds(&self.looked),
            }
    }

    fn lock(&self, place: FoundFile, wait: Duration) -> Result<Item, Box<(FoundFile, Outcome)>> {
        // What was no link when it was found, and is one now, was put there by somebody.
        let links = if place.by_link { Links::Follow } else { Links::Refuse };
        let opened = match Opened::lock(Arc::clone(&self.fs), &place.path, links, &self.limits, wait) {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return Err(Box::new((place, Outcome::Vanished))),
            Err(error) => return Err(Box::new((place, Outcome::Failed(error)))),
        };
        let header = opened.header();
        let facts = HeadFacts::new(header.slots(), header.as_bytes());
        let planned = self.aim.plan(&facts).and_then(|step| {
            let (how, form) = (ContextMatch::AtLeast, Form::Message);
            let (stored, unstored) = (header.stored_context(), header.has_unstored_context());
            let context = ReaderContext::new(stored.view(), unstored, &self.context, how, form.key_use())?;
            Ok((step, context))
        });
        let (plan, context) = match planned {
            Ok((Step::Due(plan), context)) if !self.knows(&facts) => (plan, context),
            Ok(_) => {
                let outcome = opened.notice().map_or(Outcome::Current, Outcome::Recovered);
                return Err(Box::new((place, outcome)));
            }
            Err(error) => {
                let error = error.with_path(&place.path);
                return Err(Box::new((place, Outcome::Failed(error))));
            }
        };
        let new = self.aim.targets.iter().map(|_| None).collect();
        let tries = self.tries(&facts, &plan);
        Ok(Item {
            place,
            opened,
            facts,
            plan,
            context,
            new,
            used: Vec::new(),
            key: None,
            tries,
            tried: 0,
            unreached: Vec::new(),
            last: None,
            failure: None,
            over: false,
        })
    }

    /// Slots and openers, those whose names fit first.
    fn tries(&self, facts: &HeadFacts, plan: &Plan) -> Vec<(usize, usize)> {
        let slots = facts.slots.iter().enumerate().filter(|(at, slot)| !slot.missing && plan.opens_by(*at));
        let mut named = Vec::new();
        let mut others = Vec::new();
        for (at, slot) in slots {
            for (opener, (_, names)) in self.aim.openers.iter().enumerate() {
                let list = if names.contains(&slot.recipient) { &mut named } else { &mut others };
                list.push((at, opener));
            }
        }
        named.extend(others);
        named
    }

    /// Asks the providers for all that the plans want.
    async fn ask(&self, items: &mut [Item]) -> Result<(), Stopped> {
        if self.aim.mode != Mode::Open {
            self.re_encrypt(items).await?;
        }
        self.decrypt(items).await?;
        self.encrypt(items).await
    }

    /// Lets each due target re-encrypt a slot of its own, where that gives nothing up.
    async fn re_encrypt(&self, items: &mut [Item]) -> Result<(), Stopped> {
        for (number, target) in self.aim.targets.iter().enumerate() {
            if self.aim.mode == Mode::BlindWhereSafe && !target.may_try_to_re_encrypt() {
                continue;
            }
            let mut sources: Vec<(usize, Vec<usize>)> = Vec::new();
            for (at, item) in items.iter().enumerate() {
                let safe = self.aim.mode == Mode::Blind || item.plan.may_be_blind(&item.facts);
                if safe && item.failure.is_none() && item.plan.due.contains(&number) {
                    sources.push((at, item.sources()));
                }
            }
            // A source of each at a time: those that are not the provider's cost no call.
            for round in 0.. {
                sources.retain(|(at, sources)| {
                    let open = items.get(*at).is_some_and(|item| item.lacks(number) && item.failure.is_none());
                    open && sources.len() > round
                });
                if sources.is_empty() {
                    break;
                }
                let asked = sources.iter().filter_map(|(at, sources)| Some((*at, *sources.get(round)?)));
                let asked: Vec<(usize, usize)> = asked.collect();
                let slots = requests(items, &asked, |item, slot| {
                    Some((item.opened.header().slots().get(slot)?, &item.context.kms))
                });
                let answers = self.calls.re_encrypt(&*target.provider, &slots).await?;
                for ((at, slot), answer) in asked.into_iter().zip(answers) {
                    let Some(item) = items.get_mut(at) else { continue };
                    match answer {
                        Ok(Some(new)) => item.took(number, slot, new),
                        Ok(None) => {}
                        // It is asked once more, to encrypt, and may be done without.
                        Err(error) if self.tolerates(&error) => item.last = more_retryable(item.last.take(), error),
                        Err(error) if error.is_retryable() => item.failure = Some(error),
                        // The next source may do, and else the data key is asked for.
                        Err(error) => {
                            if error.kind() == ErrorKind::KeyDenied && self.aim.mode == Mode::BlindWhereSafe {
                                target.may_not_re_encrypt.store(true, Ordering::Relaxed);
                            }
                            item.last = more_retryable(item.last.take(), error);
                        }
                    }
                }
            }
        }
        for item in items.iter_mut().filter(|item| item.failure.is_none()) {
            if item.is_blind() {
                item.over = true;
            } else if self.aim.mode == Mode::Blind {
                item.failure = Some(item.last.take().unwrap_or_else(not_blind));
            } else {
                item.last = None;
                item.new.iter_mut().for_each(|new| *new = None);
                item.used.clear();
            }
        }
        Ok(())
    }

    /// Finds the data key of each message that has to be opened.
    async fn decrypt(&self, items: &mut [Item]) -> Result<(), Stopped> {
        loop {
            let mut by_opener: Vec<Vec<(usize, usize)>> = self.aim.openers.iter().map(|_| Vec::new()).collect();
            for (at, item) in items.iter_mut().enumerate() {
                if item.over || item.failure.is_some() || item.key.is_some() {
                    continue;
                }
                match item.tries.first().copied() {
                    Some((slot, opener)) if item.tried < self.limits.slots_tried => {
                        item.tries.remove(0);
                        if let Some(list) = by_opener.get_mut(opener) {
                            list.push((at, slot));
                        }
                    }
                    _ => item.not_opened(),
                }
            }
            if by_opener.iter().all(Vec::is_empty) {
                return Ok(());
            }
            for (asked, (opener, _)) in by_opener.into_iter().zip(&self.aim.openers) {
                if asked.is_empty() {
                    continue;
                }
                let slots = requests(items, &asked, |item, slot| {
                    Some((item.opened.header().slots().get(slot)?, &item.context.kms))
                });
                let answers = self.calls.decrypt(&**opener, &slots).await?;
                for ((at, slot), answer) in asked.into_iter().zip(answers) {
                    if let Some(item) = items.get_mut(at) {
                        item.answered(slot, answer);
                    }
                }
            }
        }
    }

    /// Wraps the data keys that were found.
    async fn encrypt(&self, items: &mut [Item]) -> Result<(), Stopped> {
        for (number, target) in self.aim.targets.iter().enumerate() {
            let due = items.iter().enumerate().filter(|(_, item)| {
                !item.over && item.failure.is_none() && item.key.is_some() && item.plan.due.contains(&number)
            });
            let asked: Vec<(usize, usize)> = due.map(|(at, _)| (at, number)).collect();
            if asked.is_empty() {
                continue;
            }
            let keys = requests(items, &asked, |item, _| Some((item.key.as_ref()?, &item.context.kms)));
            let answers = self.calls.encrypt(&*target.provider, &keys).await?;
            for ((at, _), answer) in asked.into_iter().zip(answers) {
                let Some(item) = items.get_mut(at) else { continue };
                match answer {
                    Ok(new) => item.got(number, new),
                    // As where several providers write a new message, whatever the failure is.
                    Err(error) if self.needs_not_all() => item.unreached.push((number, error)),
                    Err(error) => item.failure = Some(error),
                }
            }
        }
        items.iter_mut().for_each(|item| self.do_without(item));
        Ok(())
    }

    fn tolerates(&self, error: &Error) -> bool {
        self.needs_not_all() && is_outage(error)
    }

    fn needs_not_all(&self) -> bool {
        self.aim.needed < self.aim.targets.len()
    }

    /// Records the targets that could not be reached as missing, where enough of them hold the data key, unless that is
    /// what stands there already and nothing else is to be written.
    fn do_without(&self, item: &mut Item) {
        let unreached = std::mem::take(&mut item.unreached);
        let reached = self.aim.targets.len() - unreached.len();
        let is_recorded = |target: &Target| {
            let recorded = |it: &Recipient| item.facts.slots.iter().any(|slot| slot.missing && slot.recipient == *it);
            target.recipients.iter().all(recorded)
        };
        let mut targets = unreached.iter().filter_map(|(number, _)| self.aim.targets.get(*number));
        let comes = item.new.iter().any(Option::is_some)
            || item.goes_for_good(&self.aim)
            || targets.any(|target| !is_recorded(target));
        for (number, error) in unreached {
            let Some(target) = self.aim.targets.get(number) else { continue };
            // A wrapped key of its own, under an older version for one, is not given up for a record that it is missing.
            let has = item.facts.slots.iter().any(|slot| !slot.missing && target.recipients.contains(&slot.recipient));
            if reached < self.aim.needed || has || !comes {
                item.failure = more_retryable(item.failure.take(), error);
            } else if let Some(place) = item.new.get_mut(number) {
                let missing = target
                    .recipients
                    .iter()
                    .map(|it| EncryptedDataKey::missing(it.provider.as_str(), it.key_id.as_slice()));
                *place = Some(missing.collect());
            }
        }
    }

    /// Writes what was made, and notes it; then what ends the run, if something does.
    fn write(&self, items: Vec<Item>) -> (Vec<(FoundFile, Outcome)>, Option<Error>) {
        let mut done = Vec::with_capacity(items.len());
        let mut fatal = None;
        for item in items {
            let place = item.place.clone();
            match self.write_one(item) {
                Ok((change, head)) => {
                    self.unfit.store(0, Ordering::Relaxed);
                    // What lacks somebody is not done with.
                    if let Some(journal) = self.journal.as_ref().filter(|_| change.missing.is_empty()) {
                        let noted = journal.lock().unwrap_or_else(PoisonError::into_inner).note(digest(&head));
                        fatal = fatal.or(noted.err());
                    }
                    done.push((place, Outcome::Rewrapped(change)));
                }
                Err(error) => {
                    let error = if error.path().is_none() { error.with_path(&place.path) } else { error };
                    if fatal.is_none() && self.ends_all(&error, &place.path) {
                        fatal = Some(error.again());
                    }
                    done.push((place, Outcome::Failed(error)));
                }
            }
        }
        (done, fatal)
    }

    /// Whether the others fare no better, whatever is asked for them. One that must be copied may want more space than
    /// there is, where the others are written in place; a quota may be that of a part of the tree.
    fn ends_all(&self, error: &Error, path: &Path) -> bool {
        match io_kind(error) {
            Some(io::ErrorKind::ReadOnlyFilesystem) => true,
            Some(io::ErrorKind::StorageFull) if !has_room(folder_of(path)) => true,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.unfit.fetch_add(1, Ordering::Relaxed) + 1 >= UNFIT_MAX
            }
            _ => false,
        }
    }

    /// What a target wrote; in place of a record that somebody is missing, the wrapped key that he has. Of members of
    /// whom one writes, those that it did not write for keep theirs.
    fn with_what_stays(
        &self,
        target: &Target,
        new: Vec<EncryptedDataKey>,
        old: &[EncryptedDataKey],
    ) -> Vec<EncryptedDataKey> {
        let written: Vec<_> = new.iter().filter(|slot| !slot.is_missing()).map(Recipient::from).collect();
        let mut kept: Vec<EncryptedDataKey> = Vec::new();
        for slot in old.iter().filter(|slot| !slot.is_missing()) {
            let recipient = Recipient::from(slot);
            let is_one_of_many = target.alternatives.iter().any(|any| any.len() > 1 && any.contains(&recipient));
            let is_missing = new.iter().any(|new| new.is_missing() && Recipient::from(new) == recipient);
            if (is_one_of_many || is_missing) && !written.contains(&recipient) && self.aim.keeps(target, &recipient) {
                kept.push(slot.clone());
            }
        }
        let names: Vec<_> = kept.iter().map(Recipient::from).collect();
        let stays = |slot: &EncryptedDataKey| !(slot.is_missing() && names.contains(&Recipient::from(slot)));
        new.into_iter().filter(stays).chain(kept).collect()
    }

    fn write_one(&self, item: Item) -> Result<(Change, Vec<u8>)> {
        let Item { opened, facts, plan, mut new, used, failure, over, .. } = item;
        if let Some(error) = failure {
            return Err(error);
        }
        plan.refuse_others(&facts, used.first().copied().filter(|_| used.len() == 1))?;
        let old = opened.header().slots().to_vec();
        let stays = |at: usize| plan.roles.get(at) == Some(&Role::Stays);
        let mut slots = Vec::new();
        for (target, new) in self.aim.targets.iter().zip(&mut new) {
            match new.take() {
                Some(new) => slots.extend(self.with_what_stays(target, new, &old)),
                None => slots.extend(
                    old.iter()
                        .enumerate()
                        .filter(|(at, slot)| stays(*at) && target.recipients.contains(&Recipient::from(*slot)))
                        .map(|(_, slot)| slot.clone()),
                ),
            }
        }
        let is_target = |slot: &EncryptedDataKey| {
            let recipient = Recipient::from(slot);
            self.aim.targets.iter().any(|target| target.recipients.contains(&recipient))
        };
        slots.extend(
            old.iter().enumerate().filter(|(at, slot)| stays(*at) && !is_target(slot)).map(|(_, it)| it.clone()),
        );
        let mut change = changed(&old, &slots);
        let check = || match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Busy, "stopped, as the caller asked")),
            false => Ok(()),
        };
        let written = opened.write(&slots, &self.limits, check)?;
        (change.blind, change.copied, change.notice) = (over, !written.in_place, written.notice);
        Ok((change, written.head))
    }
}

fn changed(old: &[EncryptedDataKey], new: &[EncryptedDataKey]) -> Change {
    let names = |slots: &[EncryptedDataKey], missing| -> Vec<Recipient> {
        slots.iter().filter(|slot| slot.is_missing() == missing).map(Recipient::from).collect()
    };
    let (before, after, missing) = (names(old, false), names(new, false), names(new, true));
    let all: Vec<_> = old.iter().map(Recipient::from).collect();
    Change {
        added: after.iter().filter(|it| !before.contains(it)).cloned().collect(),
        removed: all
            .into_iter()
            .filter(|it| !after.contains(it) && (before.contains(it) || !missing.contains(it)))
            .collect(),
        missing,
        ..Change::default()
    }
}

/// What is asked of a provider, in the order of `asked`: each is the number of an item and one of something in it.
fn requests<'a, T>(
    items: &'a [Item],
    asked: &[(usize, usize)],
    request: impl Fn(&'a Item, usize) -> Option<T>,
) -> Vec<T> {
    asked.iter().filter_map(|(at, what)| request(items.get(*at)?, *what)).collect()
}

impl Item {
    /// The slots that may be re-encrypted: first the ones that go and have been no source yet.
    fn sources(&self) -> Vec<usize> {
        let slots = self.facts.slots.iter().zip(&self.plan.roles).enumerate();
        let mut all: Vec<_> = slots
            .filter(|(_, (slot, _))| !slot.missing)
            .map(|(at, (_, role))| (*role == Role::Stays, self.used.contains(&at), at))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(.., at)| at).collect()
    }

    /// Whether a slot goes that is no target's.
    fn goes_for_good(&self, aim: &Aim) -> bool {
        self.facts.slots.iter().zip(&self.plan.roles).any(|(slot, role)| {
            *role != Role::Stays && !aim.targets.iter().any(|target| target.recipients.contains(&slot.recipient))
        })
    }

    fn lacks(&self, target: usize) -> bool {
        self.new.get(target).is_some_and(Option::is_none)
    }

    fn took(&mut self, target: usize, slot: usize, new: Vec<EncryptedDataKey>) {
        if !self.used.contains(&slot) {
            self.used.push(slot);
        }
        self.got(target, new);
    }

    fn got(&mut self, target: usize, new: Vec<EncryptedDataKey>) {
        if new.iter().all(EncryptedDataKey::is_missing) {
            self.failure = Some(Error::internal("a key provider answered without an encrypted key"));
        } else if let Some(place) = self.new.get_mut(target) {
            *place = Some(new);
        }
    }

    /// Whether every target got its slot from a KMS, and every wrapped key that goes was a source.
    fn is_blind(&self) -> bool {
        let slots = self.facts.slots.iter().zip(&self.plan.roles).enumerate();
        let mut go = slots.filter(|(_, (slot, role))| !slot.missing && **role != Role::Stays);
        !self.plan.due.is_empty()
            && self.plan.due.iter().all(|target| !self.lacks(*target))
            && go.all(|(at, _)| self.used.contains(&at))
    }

    /// "A key that fails the FLOE header tag is not the key: try the next slot."
    fn answered(&mut self, slot: usize, answer: DataKeyAnswer) {
        let error = match answer {
            DataKeyAnswer::NotMine => return,
            DataKeyAnswer::Failed(error) => error,
            DataKeyAnswer::Key(key) if key.expose().len() != DataKeyLength::Bytes32.bytes() => Error::authentication(),
            DataKeyAnswer::Key(key) => {
                let header = self.opened.header();
                match header.keys((&key).into(), [header.core(), &self.context.unstored].concat()) {
                    Ok(Some(_)) => {
                        self.key = Some(key);
                        self.used = vec![slot];
                        return;
                    }
                    Ok(None) => Error::authentication(),
                    Err(error) => error,
                }
            }
        };
        self.tried += 1;
        self.last = more_retryable(self.last.take(), error);
    }

    fn not_opened(&mut self) {
        self.failure = Some(match self.last.take() {
            Some(error) if error.kind() == ErrorKind::AuthenticationFailed => Error::not_opened(),
            Some(error) => error,
            None => opened_by_nobody(&self.facts),
        });
    }
}

/// What a message that none of the openers knows fails with.
pub(super) fn opened_by_nobody(facts: &HeadFacts) -> Error {
    message::opened_by_nobody("message", facts.slots.iter().map(|slot| slot.recipient.clone()).collect())
}

pub(super) fn not_blind() -> Error {
    Error::new(ErrorKind::Unsupported, "no key provider re-encrypts the keys of this message inside its KMS")
        .with_advice("rewrap openly, with a provider that may decrypt")
}

/// Files in a row that there was no space for, after which the others are not paid for either.
const UNFIT_MAX: u32 = 16;
