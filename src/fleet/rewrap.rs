//! Moving many message files to other keys.

use super::calls::{Calls, Pace};
use super::crowd::Crowd;
use super::files::{Files, FoundFile};
use super::foresee::Opening;
use super::group::{Run, Worked, not_blind, opened_by_nobody};
use super::journal::{Done, Journal, RunId};
use super::look::{FileId, HeadFacts, Seen, SeenFile, is_passing};
use super::names::{Further, Names};
use super::outcome::{Change, Outcome, RewrapReport};
use super::plan::{Aim, Mode, Others, Rules, Step};
use super::scan::Scan;
use super::select::Selection;
use crate::context::EncryptionContext;
use crate::durable::{FileSystem, OsFileSystem};
use crate::error::{Error, ErrorKind, Result};
use crate::native::header::Limits;
use crate::provider::KeyProvider;
use crate::worker;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Encrypts the data keys of many messages for other recipients, in place; core, body and encryption context stay
/// as they are ([`Envelope::rewrap_file`](crate::Envelope::rewrap_file) says what that means).
///
/// Each message is to be under all of the target providers. Those that are missing in it are added, from whatever
/// the sources and targets open; recipients of the sources go. What is decided by the head alone makes no call: a
/// message that is under the targets already is left as it is, so that a run that is repeated, or that goes on after
/// a crash, does the rest. A file is locked while it is worked on, and decided upon under the lock.
///
/// **A rewrap is not a revocation**: whoever had a data key or an old copy of a file still has it. And it vouches for
/// nothing: what somebody could write under an old key opens under the new one afterwards.
///
/// ```
/// use envelock::fleet::{Files, Rewrap};
/// use envelock::{KeyProvider, RawKeyProvider};
/// use std::sync::Arc;
/// # fn main() -> Result<(), envelock::Error> {
/// # pollster::block_on(async {
/// # let folder = tempfile::tempdir()?;
/// let old: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("2025")?);
/// let new: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("2026")?);
/// let report = Rewrap::to([new]).from([old]).run(Files::below([folder.path()]), |path, outcome| {
///     println!("{}: {outcome:?}", path.display());
/// });
/// assert_eq!(report.await?.failed, 0);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Rewrap {
    to: Vec<Arc<dyn KeyProvider>>,
    from: Vec<Arc<dyn KeyProvider>>,
    context: EncryptionContext,
    selection: Selection,
    mode: Mode,
    others: Others,
    again: Again,
    effect: Effect,
    at_least: Option<usize>,
    per_second: Option<f64>,
    concurrency: usize,
    journal: Option<PathBuf>,
    limits: Limits,
    stop: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Write,
    Tell,
}

impl fmt::Debug for Rewrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewrap").field("to", &self.to).field("from", &self.from).finish_non_exhaustive()
    }
}

impl Rewrap {
    /// To these providers: every message is to be under each of them. One that stands for several keys, such as a
    /// [`MultiProvider`](crate::MultiProvider), is asked as a whole; give its members one by one, and only those that
    /// a message lacks are.
    pub fn to(providers: impl IntoIterator<Item = Arc<dyn KeyProvider>>) -> Self {
        Self {
            to: providers.into_iter().collect(),
            from: Vec::new(),
            context: EncryptionContext::new(),
            selection: Selection::all(),
            mode: Mode::default(),
            others: Others::default(),
            again: Again::No,
            effect: Effect::Write,
            at_least: None,
            per_second: None,
            concurrency: CONCURRENCY,
            journal: None,
            limits: Limits::default(),
            stop: Arc::default(),
        }
    }

    /// From these providers: they open messages, and their recipients are removed.
    pub fn from(mut self, providers: impl IntoIterator<Item = Arc<dyn KeyProvider>>) -> Self {
        self.from.extend(providers);
        self
    }

    /// Entries of the encryption context that every message must have, and the unstored ones, which are needed to
    /// open it. Default: none. Each message is opened under the context that it stores, whatever else is in there:
    /// nothing of it is handed out, and whoever reads it later compares.
    pub fn context(mut self, context: EncryptionContext) -> Self {
        self.context = context;
        self
    }

    /// Only the messages that `selection` means. With
    /// [`below_version`](Selection::below_version), what a target has under an older version of its key is
    /// encrypted anew.
    pub fn only(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Sets whether data keys are seen here. Default: [`Mode::BlindWhereSafe`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what becomes of recipients that neither the targets nor the sources name. Default: [`Others::Refuse`].
    pub fn others(mut self, others: Others) -> Self {
        self.others = others;
        self
    }

    /// Goes on where at least `needed` of the targets hold a message's data key afterwards: one that cannot be reached
    /// is recorded as missing, and a later run fills it in. Default: all of them must.
    pub fn at_least(mut self, needed: usize) -> Self {
        self.at_least = Some(needed);
        self
    }

    /// Encrypts for all targets anew, whatever the heads say: for a KMS that does not show the versions of its
    /// keys. A head cannot tell that this was done, so it takes a [journal](Self::journal) to go on later.
    pub fn again(mut self) -> Self {
        self.again = Again::Yes;
        self
    }

    /// Makes at most so many calls to key providers a second, evenly; raw keys and passphrases are called too. Default: as
    /// many as there are.
    pub fn calls_per_second(mut self, rate: f64) -> Self {
        self.per_second = Some(rate);
        self
    }

    /// Works on so many files at once, 1 to 64, or on so many batches of files where a KMS takes batches.
    /// Default: 8.
    pub fn concurrency(mut self, count: usize) -> Self {
        self.concurrency = count.clamp(1, 64);
        self
    }

    /// Notes in the file at `path` what is done, and goes on from what an earlier run noted there. It is removed at
    /// the end of a run without failures. A run that needs it is one whose heads do not tell that they are done
    /// with: [`again`](Self::again), a passphrase as target, and one that has the name of a source, unless
    /// both have the same [`identity`](KeyProvider::identity).
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// What heads are accepted, as for readers.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Tells what would be done, makes no call, and writes nothing.
    pub fn dry_run(mut self) -> Self {
        self.effect = Effect::Tell;
        self
    }

    /// Begins no further file once `flag` is set, and makes no further call for those under way; what is not written by then
    /// stays as it is: [`RewrapReport::stopped`].
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = flag;
        self
    }

    /// Does it, and tells `each` file's outcome. Files that fail with an error worth retrying come once more at the
    /// end. Providers are called where this is polled, and files are worked on by threads; a run that is dropped
    /// leaves every file whole, under its old keys or its new ones.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for providers, a rate or a journal that cannot be used,
    /// [`Busy`](ErrorKind::Busy) if another run has the journal, [`Io`](ErrorKind::Io) if it cannot be written, if
    /// the disk is full or read-only, or if there was no space for sixteen files in a row: then no further file is begun. Failures of single files are in the report.
    pub async fn run(self, files: Files, each: impl FnMut(&Path, &Outcome) + Send) -> Result<RewrapReport> {
        let rules = Rules {
            mode: self.mode,
            others: self.others,
            oldest_version: self.selection.oldest_version(),
            again: self.again == Again::Yes,
            at_least: self.at_least,
        };
        let aim = Aim::new(self.to, self.from, &rules)?;
        let id = RunId::new(&aim.text());
        let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
        let mut report = RewrapReport::default();
        let (mut journal, mut looked) = (None, Done::default());
        if let Some(path) = self.journal {
            let (fs, effect) = (Arc::clone(&fs), self.effect);
            let opened = worker::run("envelock-fleet", move || match effect {
                Effect::Write => Ok((Some(Journal::open(fs, &path, id)?), Done::default())),
                Effect::Tell => Ok((None, Journal::look(&path, id)?)),
            });
            (journal, looked) = opened.await?;
            let done = journal.as_ref().map_or(&looked, Journal::done);
            (report.resumed, report.journal_damaged) = (done.heads.len() as u64, done.damaged);
        }
        let run = Arc::new(Run {
            fs,
            aim,
            calls: Calls::new(Pace::new(self.per_second, Arc::clone(&self.stop))?),
            limits: self.limits.clone(),
            context: self.context,
            journal: journal.map(Mutex::new),
            looked,
            unfit: AtomicU32::new(0),
            stop: self.stop,
        });
        let driver = Driver {
            run: Arc::clone(&run),
            selection: self.selection,
            effect: self.effect,
            concurrency: self.concurrency,
            queue: VecDeque::new(),
            put_off: Vec::new(),
            names: Names::default(),
            last_round: false,
            report,
            each,
        };
        let outcome = driver.drive(Scan::new(files, self.limits, LOOKING)).await;
        finish(run, outcome).await
    }
}

/// Removes the journal of a run that has done all, and syncs that of another.
async fn finish(run: Arc<Run>, outcome: Result<RewrapReport>) -> Result<RewrapReport> {
    let complete = outcome.as_ref().is_ok_and(|report| report.failed == 0 && !report.stopped);
    // Every job has ended, so this share is the last one.
    let Some(journal) = Arc::into_inner(run).and_then(|run| run.journal) else { return outcome };
    let mut journal = journal.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = worker::run("envelock-fleet", move || if complete { journal.remove() } else { journal.sync() }).await;
    let report = outcome?;
    ended.map(|()| report)
}

/// A run under way.
struct Driver<E> {
    run: Arc<Run>,
    selection: Selection,
    effect: Effect,
    concurrency: usize,
    /// Files to be worked on.
    queue: VecDeque<FoundFile>,
    /// Files that come again at the end.
    put_off: Vec<FoundFile>,
    names: Names,
    last_round: bool,
    report: RewrapReport,
    each: E,
}

type Job = Pin<Box<dyn Future<Output = Event> + Send>>;

/// What a job ended with.
enum Event {
    Scanned(Box<Scan>, Vec<SeenFile>),
    Worked(Worked),
    Paused,
    Failed(Error),
}

impl<E: FnMut(&Path, &Outcome) + Send> Driver<E> {
    async fn drive(mut self, scan: Scan) -> Result<RewrapReport> {
        let mut crowd: Crowd<Job> = Crowd::new();
        let mut idle = Some(Box::new(scan));
        // The walk is not at its end.
        let mut walking = true;
        let mut working = 0;
        let mut fatal = None;
        loop {
            let stopped = fatal.is_some() || self.run.stop.load(Ordering::Relaxed);
            let group = self.group_len();
            if !stopped
                && self.queue.len() < QUEUE.max(2 * group)
                && let Some(scan) = idle.take()
            {
                crowd.push(Box::pin(scanned(scan)));
            }
            while !stopped && working < self.concurrency && self.has_group(group, walking) {
                let files = self.queue.drain(..group.min(self.queue.len())).collect();
                let wait = if self.last_round { LAST_LOCK_WAIT } else { Duration::ZERO };
                let run = Arc::clone(&self.run);
                crowd.push(Box::pin(async move { Event::Worked(run.work(files, wait).await) }));
                working += 1;
            }
            match crowd.next().await {
                Some(Event::Scanned(scan, seen)) => {
                    walking = !seen.is_empty();
                    seen.into_iter().for_each(|file| self.seen(file));
                    idle = Some(scan).filter(|_| walking);
                }
                Some(Event::Worked(worked)) => {
                    working -= 1;
                    self.report.stopped |= worked.left > 0;
                    worked.files.into_iter().for_each(|(file, outcome)| self.outcome(&file, outcome, stopped));
                    fatal = fatal.or(worked.fatal);
                }
                Some(Event::Paused) => {
                    self.last_round = true;
                    self.queue = std::mem::take(&mut self.put_off).into();
                }
                Some(Event::Failed(error)) => {
                    walking = false;
                    fatal = fatal.or(Some(error));
                }
                None if stopped || self.last_round || self.put_off.is_empty() => break,
                None => crowd.push(Box::pin(paused())),
            }
        }
        let unfinished = walking || !self.queue.is_empty() || !self.put_off.is_empty();
        self.report.stopped |= unfinished;
        self.report.calls = self.run.calls.counts();
        match fatal {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    /// Files of a group: what one call takes, within the files that may be open at once. In the last round a lock is
    /// waited for, so that no other is held meanwhile.
    fn group_len(&self) -> usize {
        if self.last_round {
            return 1;
        }
        let aim = &self.run.aim;
        let batches = aim.openers.iter().map(|(provider, _)| provider.batch_len());
        batches.max().unwrap_or(1).clamp(1, (OPEN_FILES / self.concurrency).max(1))
    }

    /// Whether a group is full, or as full as it gets.
    fn has_group(&self, group: usize, walking: bool) -> bool {
        self.queue.len() >= if walking { group } else { 1 }
    }

    fn seen(&mut self, file: SeenFile) {
        let SeenFile { path, modified, what, by_link, id } = file;
        let file = FoundFile { path: path.clone(), by_link };
        let (facts, is_message) = match what {
            Seen::Message(facts) => (facts, true),
            Seen::RecordSet(facts) => (facts, false),
            Seen::Damaged(error) | Seen::Unreadable(error) => {
                return self.outcome(&file, Outcome::Failed(error), false);
            }
            Seen::Unfinished => {
                self.report.unfinished += 1;
                return (self.each)(&path, &Outcome::Ignored);
            }
            // What other runs, or this one, keep beside a message is no file of anybody's.
            Seen::Vanished if is_passing(&path) => return self.outcome(&file, Outcome::Ignored, false),
            Seen::Vanished => return self.outcome(&file, Outcome::Vanished, false),
            Seen::Again => return self.further(id, file),
            Seen::Other | Seen::Link | Seen::Special => return self.outcome(&file, Outcome::Ignored, false),
        };
        self.report.messages += 1;
        if !self.selection.means(&facts, modified) {
            return self.outcome(&file, Outcome::NotSelected, false);
        }
        let outcome = match self.run.aim.plan(&facts) {
            Err(error) => Outcome::Failed(error.with_path(&path)),
            Ok(_) if self.run.knows(&facts) && !facts.interrupted => Outcome::Current,
            Ok(Step::Current) if !facts.interrupted => Outcome::Current,
            Ok(Step::Due(_)) if !is_message => Outcome::Failed(record_set(&path)),
            Ok(step) => match self.effect {
                Effect::Write => {
                    if let Some(id) = id {
                        self.names.begin(id, &path);
                    }
                    return self.queue.push_back(file);
                }
                Effect::Tell => {
                    self.told(&step, &facts).unwrap_or_else(|error| Outcome::Failed(error.with_path(&path)))
                }
            },
        };
        self.outcome(&file, outcome, false);
    }

    /// Another name of a file that was seen before.
    fn further(&mut self, id: Option<FileId>, file: FoundFile) {
        match id.map_or(Further::Same, |id| self.names.further(id, file.clone())) {
            Further::Same => self.outcome(&file, Outcome::Ignored, false),
            Further::Waits => {}
            Further::Own(file) => self.own(file),
            Further::TooMany => {
                let error = Error::limit("this is one of too many names of files that are being moved")
                    .with_path(&file.path)
                    .with_advice("run it again");
                self.outcome(&file, Outcome::Failed(error), false);
            }
        }
    }

    /// A name that was another's, and is a file of its own now: it is decided upon under its lock.
    fn own(&mut self, file: FoundFile) {
        self.report.messages += 1;
        self.queue.push_back(file);
    }

    /// What the run would do.
    ///
    /// # Errors
    /// What it would fail with, where the head tells that it would.
    fn told(&self, step: &Step, facts: &HeadFacts) -> Result<Outcome> {
        let (aim, mut change) = (&self.run.aim, Change::default());
        if let Step::Due(plan) = step {
            change.perhaps = match aim.opening(plan, facts) {
                Opening::Nobody => return Err(opened_by_nobody(facts)),
                opening => opening == Opening::Perhaps,
            };
            (change.added, change.removed) = aim.change(plan, facts);
            change.blind = aim.foresees_blind(plan, facts);
            if aim.mode == Mode::Blind && !change.blind {
                return Err(not_blind());
            }
        }
        if facts.interrupted {
            change.notice = Some("a rewrap of it was interrupted, and would be finished or undone");
        }
        Ok(Outcome::Due(change))
    }

    fn outcome(&mut self, file: &FoundFile, outcome: Outcome, stopped: bool) {
        let outcome = match outcome {
            // What the caller stopped is no failure.
            Outcome::Failed(error) if error.is_retryable() && (stopped || self.run.stop.load(Ordering::Relaxed)) => {
                self.put_off.push(file.clone());
                Outcome::PutOff(error)
            }
            Outcome::Failed(error) if error.is_retryable() && !self.last_round && self.put_off.len() < PUT_OFF_MAX => {
                self.put_off.push(file.clone());
                Outcome::PutOff(error)
            }
            other => other,
        };
        (self.each)(&file.path, &outcome);
        let (others, own) = self.names.ended(&file.path, &outcome);
        for other in others {
            match own {
                true => self.own(other),
                false => self.outcome(&other, Outcome::Ignored, false),
            }
        }
        let report = &mut self.report;
        match outcome {
            Outcome::Rewrapped(change) | Outcome::Due(change) => {
                report.rewrapped += 1;
                report.blind += u64::from(change.blind);
                report.perhaps += u64::from(change.perhaps);
                report.copied += u64::from(change.copied);
                report.with_missing += u64::from(!change.missing.is_empty());
            }
            Outcome::Current | Outcome::Recovered(_) => report.current += 1,
            Outcome::NotSelected => report.not_selected += 1,
            Outcome::Vanished => report.vanished += 1,
            Outcome::PutOff(_) => {}
            Outcome::Failed(error) => {
                report.failed += 1;
                report.first_failure.get_or_insert(error);
            }
            Outcome::Ignored => report.ignored += 1,
        }
    }
}

async fn scanned(mut scan: Box<Scan>) -> Event {
    let piece = worker::run("envelock-fleet", move || {
        let seen = scan.next();
        Ok((scan, seen))
    });
    match piece.await {
        Ok((scan, seen)) => Event::Scanned(scan, seen),
        Err(error) => Event::Failed(error),
    }
}

/// Lets whoever was busy get on.
async fn paused() -> Event {
    let slept = worker::run("envelock-fleet", || {
        std::thread::sleep(PAUSE);
        Ok(())
    });
    match slept.await {
        Ok(()) => Event::Paused,
        Err(error) => Event::Failed(error),
    }
}

fn record_set(path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, "this is a record set, or a value with its own: it is not rewrapped in place")
        .with_path(path)
        .with_advice("rewrap it to a new file, which takes the place of the old one in your table or configuration")
}

/// Files that are worked on at once, without batches.
const CONCURRENCY: usize = 8;
/// Threads that read heads.
const LOOKING: usize = 8;
/// Files that wait to be worked on while the walk goes on.
const QUEUE: usize = 256;
/// Files that may be open at once: half of what a process commonly may.
const OPEN_FILES: usize = 512;
/// Files that come again at the end; those beyond fail at once.
const PUT_OFF_MAX: usize = 1 << 16;
/// Before the last round.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last round waits for another rewrap of the same file.
const LAST_LOCK_WAIT: Duration = Duration::from_secs(10);
