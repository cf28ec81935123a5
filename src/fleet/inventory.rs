//! What is where, without any key.

use super::files::Files;
use super::look::{HeadFacts, Seen, SeenFile, is_passing};
use super::scan::Scan;
use super::select::Selection;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::native::header::Limits;
use crate::provider::Recipient;
use crate::worker;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Counts message files by what their heads say. It needs no key and makes no call, and so nothing that it tells
/// is verified: whoever writes to the storage can write any head.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Inventory {
    by: By,
    selection: Selection,
    limits: Limits,
    threads: Option<usize>,
    stop: Option<Arc<AtomicBool>>,
}

/// What messages are grouped by. One that belongs to several groups counts in each, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The names of its providers.
    Provider,
    /// Its recipients: provider name and key id. The default.
    #[default]
    Key,
    /// Its recipients, and the versions of their keys where they show.
    Version,
    /// How long ago its file was modified.
    Age,
}

/// What the messages of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupKey {
    /// A provider's name.
    Provider(String),
    /// A provider's name and a key id.
    Key(String, Vec<u8>),
    /// The same with a version of the key, where it shows.
    Version(String, Vec<u8>, Option<u32>),
    /// A span of ages; `None` where the time cannot be told.
    Age(Option<AgeBand>),
}

/// How long ago a file was modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgeBand {
    /// Less than a day, or in the future.
    Day,
    /// Less than 7 days.
    Week,
    /// Less than 30 days.
    Month,
    /// Less than 365 days.
    Year,
    /// Longer.
    Older,
}

/// As text for people: names that a stranger wrote are escaped.
impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(name) => write!(f, "{}", name.escape_debug()),
            Self::Key(name, key_id) => Recipient::new(name.as_str(), key_id.as_slice()).fmt(f),
            Self::Version(name, key_id, version) => {
                Recipient::new(name.as_str(), key_id.as_slice()).fmt(f)?;
                match version {
                    Some(version) => write!(f, " version {version}"),
                    None => Ok(()),
                }
            }
            Self::Age(Some(AgeBand::Day)) => f.write_str("less than a day"),
            Self::Age(Some(AgeBand::Week)) => f.write_str("1 to 7 days"),
            Self::Age(Some(AgeBand::Month)) => f.write_str("7 to 30 days"),
            Self::Age(Some(AgeBand::Year)) => f.write_str("30 to 365 days"),
            Self::Age(Some(AgeBand::Older)) => f.write_str("365 days and more"),
            Self::Age(None) => f.write_str("unknown"),
        }
    }
}

/// The messages of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// How many of them can be opened by what they are grouped by: all of them, grouped by age.
    pub files: u64,
    /// How many of them record it as missing: it cannot open them. Grouped by age: how many record anybody.
    pub missing: u64,
    /// When the oldest of them was modified.
    pub oldest: Option<SystemTime>,
    /// When the newest of them was modified.
    pub newest: Option<SystemTime>,
}

/// What an inventory found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InventoryReport {
    /// Messages that the selection means.
    pub messages: u64,
    /// Record sets, and values with their own, that the selection means.
    pub record_sets: u64,
    /// Of both, those that record a missing recipient.
    pub with_missing: u64,
    /// Messages beside which the journal of a rewrap lies: one is under way or was interrupted.
    pub interrupted: u64,
    /// Messages and record sets that the selection does not mean.
    pub not_selected: u64,
    /// Files that begin as a message does and have no whole head.
    pub damaged: u64,
    /// Files and folders that could not be read.
    pub unreadable: u64,
    /// Files that were gone before they could be looked at.
    pub vanished: u64,
    /// Messages that are being written, or whose writing ended early.
    pub unfinished: u64,
    /// Other regular files.
    pub not_envelock: u64,
    /// Further names of files that were counted.
    pub other_names: u64,
    /// Symbolic links that were not followed.
    pub links: u64,
    /// Pipes, sockets and devices.
    pub special: u64,
    /// The selected messages and record sets, grouped, in the order of the groups' names.
    pub groups: Vec<Group>,
    /// Slots of groups beyond the 10,000 that are kept apart.
    pub beyond_groups: u64,
}

impl Inventory {
    /// One of all messages, grouped by key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what messages are grouped by.
    pub fn by(mut self, by: By) -> Self {
        self.by = by;
        self
    }

    /// Counts only the messages that `selection` means.
    pub fn only(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// What heads are accepted, as for readers.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads heads on so many threads, 1 to 64. Default: 8, since they mostly wait.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.clamp(1, 64));
        self
    }

    /// Ends soon after `flag` is set, with an error.
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Looks at all of `files` and tells `each` of them, in the order of the walk, on a thread of its own.
    ///
    /// What cannot be read is counted and told, and does not end it. Memory: the groups, a few hundred files, and
    /// the numbers of files that have several names.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if it was stopped, or no thread can be started.
    pub async fn take(self, files: Files, mut each: impl FnMut(&SeenFile) + Send + 'static) -> Result<InventoryReport> {
        worker::run("envelock-inventory", move || {
            let mut tally = Tally::new(self.by, self.selection);
            let mut scan = Scan::new(files, self.limits, self.threads.unwrap_or(THREADS));
            loop {
                if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    return Err(Error::new(ErrorKind::Io, "stopped, as the caller asked"));
                }
                let seen = scan.next();
                if seen.is_empty() {
                    return Ok(tally.finish());
                }
                for file in &seen {
                    tally.count(file);
                    each(file);
                }
            }
        })
        .await
    }
}

/// A report under way.
struct Tally {
    by: By,
    selection: Selection,
    now: SystemTime,
    report: InventoryReport,
    groups: BTreeMap<GroupKey, Group>,
}

impl Tally {
    fn new(by: By, selection: Selection) -> Self {
        let now = UNIX_EPOCH + SystemClock.wall();
        Self { by, selection, now, report: InventoryReport::default(), groups: BTreeMap::new() }
    }

    fn count(&mut self, file: &SeenFile) {
        let report = &mut self.report;
        let (facts, count) = match &file.what {
            Seen::Message(facts) => (facts, &mut report.messages),
            Seen::RecordSet(facts) => (facts, &mut report.record_sets),
            Seen::Unfinished => return report.unfinished += 1,
            Seen::Damaged(_) => return report.damaged += 1,
            Seen::Unreadable(_) => return report.unreadable += 1,
            Seen::Vanished => return report.vanished += u64::from(!is_passing(&file.path)),
            Seen::Other => return report.not_envelock += 1,
            Seen::Again => return report.other_names += 1,
            Seen::Link => return report.links += 1,
            Seen::Special => return report.special += 1,
        };
        if !self.selection.means(facts, file.modified) {
            report.not_selected += 1;
            return;
        }
        *count += 1;
        report.interrupted += u64::from(facts.interrupted);
        report.with_missing += u64::from(facts.has_missing());
        for (key, missing) in self.keys(facts, file.modified) {
            self.group(key, missing, file.modified);
        }
    }

    /// The groups of a message, each once, and whether it is missing there.
    fn keys(&self, facts: &HeadFacts, modified: Option<SystemTime>) -> BTreeMap<GroupKey, bool> {
        let mut keys = BTreeMap::new();
        if self.by == By::Age {
            let band = modified.map(|modified| AgeBand::of(self.now.duration_since(modified).unwrap_or_default()));
            keys.insert(GroupKey::Age(band), facts.has_missing());
            return keys;
        }
        for slot in &facts.slots {
            let Recipient { provider, key_id } = slot.recipient.clone();
            let key = match self.by {
                By::Provider => GroupKey::Provider(provider),
                By::Key => GroupKey::Key(provider, key_id),
                By::Version | By::Age => GroupKey::Version(provider, key_id, slot.version),
            };
            // It opens the message if any slot of the group does.
            keys.entry(key).and_modify(|missing| *missing &= slot.missing).or_insert(slot.missing);
        }
        keys
    }

    fn group(&mut self, key: GroupKey, missing: bool, modified: Option<SystemTime>) {
        if !self.groups.contains_key(&key) && self.groups.len() >= GROUPS_MAX {
            self.report.beyond_groups += 1;
            return;
        }
        let counts_both = self.by == By::Age;
        let new = Group { key: key.clone(), files: 0, missing: 0, oldest: None, newest: None };
        let group = self.groups.entry(key).or_insert(new);
        group.files += u64::from(counts_both || !missing);
        group.missing += u64::from(missing);
        group.oldest = group.oldest.into_iter().chain(modified).min();
        group.newest = group.newest.into_iter().chain(modified).max();
    }

    fn finish(self) -> InventoryReport {
        InventoryReport { groups: self.groups.into_values().collect(), ..self.report }
    }
}

impl AgeBand {
    fn of(age: Duration) -> Self {
        match age.as_secs() / 86_400 {
            0 => Self::Day,
            1..7 => Self::Week,
            7..30 => Self::Month,
            30..365 => Self::Year,
            _ => Self::Older,
        }
    }
}

/// Groups that are kept apart: strangers write key names.
const GROUPS_MAX: usize = 10_000;
/// Threads that read heads.
const THREADS: usize = 8;
