//! An open keystore, and the transactions on its file.
//!
//! Calls come in groups, each a transaction of its own ([`Store::run`]): it begins with the head, whose MAC
//! and sequence are checked, and, where its digest is not the one that was last checked, with all rows
//! against it; it ends with a new head, and counts only once it is durable. What is no call on the KMS
//! (a backup, a look at the audit trail) reads in a transaction that leaves no record ([`Store::read`]).

use super::audit::Trail;
use super::buffer::Buffer;
use super::call::{Call, Job};
use super::cipher::{self, Place};
use super::draft;
use super::due;
use super::group::Group;
use super::head::Head;
use super::key::Realm;
use super::root::RootKeys;
use super::rows::Columns;
use super::schema::{META, META_AUDIT_KEY, META_REGION, SCHEMA_VERSION};
use super::trust::{Checked, Trust, check_root_key};
use super::tx::{Access, Tx};
use super::waiting::{Begun, Waiting};
use super::wrapped;
use crate::clock::Clock;
use crate::crypto;
use crate::durable::AtomicFile;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::Revocations;
use crate::secret::Secret;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An open keystore: the connection, the keys, and what this process knows of the file.
#[derive(Debug)]
pub(super) struct Store {
    sql: Connection,
    keys: RootKeys,
    /// Of the records' MACs.
    audit_key: Secret<32>,
    trust: Trust,
    realm: Realm,
    waiting: Waiting,
    clock: Arc<dyn Clock>,
    watch: Watch,
    buffer: Option<Buffer>,
    /// After a failure, when what is to be done while nobody calls is tried again.
    patient_until: Option<Instant>,
    /// Whether what is due has to wait for another opening: nobody has looked at a restored keystore yet.
    holds_due: bool,
}

/// The epoch that caches compare, and whether there are any that do.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    pub(super) epoch: Revocations,
    wanted: Arc<AtomicBool>,
}

impl Watch {
    /// Asks for the epoch to follow other processes too; `true` the first time.
    pub(super) fn want(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

/// What a keystore is opened with besides its file and its keys.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) waiting: Waiting,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) watch: Watch,
    pub(super) buffer: Option<Buffer>,
}

impl Store {
    /// A keystore whose schema exists, after a check of all its rows.
    pub(super) fn open(sql: Connection, keys: RootKeys, settings: Settings) -> Result<Self> {
        let mut trust = Trust::nothing(0);
        let tx = begin_reading(&sql)?;
        trust.check(&tx, &keys)?;
        let (realm, audit_key) = identify(&tx, &keys, &mut trust)?;
        drop(tx);
        let Settings { waiting, clock, watch, buffer } = settings;
        Ok(Self {
            sql,
            keys,
            audit_key,
            trust,
            realm,
            waiting,
            clock,
            watch,
            buffer,
            patient_until: None,
            holds_due: false,
        })
    }

    /// Writes the first rows, the first record and the first head, inside the transaction that makes the
    /// schema. `fill` writes all rows but `meta`, of which `meta` is all but the audit key.
    pub(super) fn initialise(
        sql: &Connection,
        keys: &RootKeys,
        mut meta: Columns,
        (sequence, now): (u64, i64),
        call: &Call,
        fill: impl FnOnce(&mut Tx<'_>) -> Result<()>,
    ) -> Result<()> {
        let realm = Realm { keystore_id: keys.rows.keystore_id, region: String::new() };
        let audit_key = Secret::try_init(|out| crypto::random::fill(out))?;
        meta.push(Value::Blob(cipher::wrap(&keys.root, audit_place(&realm), &audit_key)?));
        let mut trust = Trust::nothing(sequence);
        let mut first = Tx::new(sql, keys, &realm, &mut trust, Access::Writing, now);
        first.insert(&META, meta)?;
        fill(&mut first)?;
        first.keep()?;
        // What there is now is what the trail begins with.
        let ends = super::head::AuditEnds::beginning(trust.rows.digest());
        super::audit::keep_checkpoint(sql, &trust.rows)?;
        say(sql, keys, (&realm, &mut trust), Trail { ends, key: &audit_key }, now, call)
    }

    /// As [`initialise`](Self::initialise), for a keystore whose rows stay as they were checked.
    pub(super) fn go_on(
        sql: &Connection,
        keys: &RootKeys,
        mut trust: Trust,
        ends: super::head::AuditEnds,
        now: i64,
        call: &Call,
    ) -> Result<()> {
        let (realm, audit_key) = identify(sql, keys, &mut trust)?;
        say(sql, keys, (&realm, &mut trust), Trail { ends, key: &audit_key }, now, call)
    }

    /// Does nothing by itself from now on, whatever is due.
    pub(super) fn hold_due(&mut self) {
        self.holds_due = true;
    }

    pub(super) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Runs `operation` on one snapshot of the file. It cannot change anything, and leaves no record.
    pub(super) fn read<T>(&mut self, operation: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let sql = begin_reading(&self.sql)?;
        look_at(&mut self.trust, &self.watch, &sql, &self.keys)?.to_go_on_from()?;
        let now = millis(self.clock.wall());
        operation(&mut Tx::new(&sql, &self.keys, &self.realm, &mut self.trust, Access::Reading, now))
    }

    /// As [`read`](Self::read), with the audit trail. What waits to be written to that is written before.
    pub(super) fn read_trail<T>(&mut self, operation: impl FnOnce(&Tx<'_>, &Trail<'_>) -> Result<T>) -> Result<T> {
        // On a full disk the trail is read without them.
        let _ = self.flush();
        let key = &self.audit_key;
        let sql = begin_reading(&self.sql)?;
        let checked = look_at(&mut self.trust, &self.watch, &sql, &self.keys)?;
        let now = millis(self.clock.wall());
        let tx = Tx::new(&sql, &self.keys, &self.realm, &mut self.trust, Access::Reading, now);
        operation(&tx, &Trail { ends: checked.audit, key })
    }

    /// Runs calls that came together, and others that `join` them before the commit, and answers them once what they
    /// did is durable. How many that were.
    pub(super) fn run(
        &mut self,
        mut jobs: Vec<Box<dyn Job>>,
        join: Option<&dyn Fn(usize) -> Vec<Box<dyn Job>>>,
    ) -> usize {
        let others = |gathered| join.map(|join| join(gathered)).unwrap_or_default();
        let (clock, holds_due) = (Arc::clone(&self.clock), self.holds_due);
        let done = match self.run_buffered(&mut jobs) {
            Some(done) => done,
            None => self.write(|group| {
                if join.is_some() {
                    group.tx.remember();
                }
                let mut run = 0;
                while run < jobs.len() {
                    for job in jobs.iter_mut().skip(run) {
                        job.run(group);
                        if group.is_over() {
                            return;
                        }
                    }
                    run = jobs.len();
                    jobs.extend(others(run));
                    if run < jobs.len() {
                        // Who joins is judged by the time of his call.
                        group.tx.now = millis(clock.wall()).max(group.tx.now);
                        if !holds_due {
                            due::run(group);
                        }
                        if group.is_over() {
                            return;
                        }
                    }
                }
            }),
        };
        let callers = jobs.len();
        for job in jobs {
            job.deliver(done.as_ref().err());
        }
        callers
    }

    /// Runs `work` alone among all writers, after the records that were to be written later and what is due. What it
    /// changed is durable when this returns; if it fails, nothing was changed.
    fn write(&mut self, work: impl FnOnce(&mut Group<'_>)) -> Result<()> {
        self.write_under(None, work)
    }

    /// As [`write`](Self::write), where `work` may put the keystore under `successor`.
    pub(super) fn write_under(&mut self, successor: Option<RootKeys>, work: impl FnOnce(&mut Group<'_>)) -> Result<()> {
        forget_pages(&self.sql)?;
        let sql = self.waiting.begin(&self.sql)?;
        let checked = look_at(&mut self.trust, &self.watch, &sql, &self.keys)?.to_go_on_from()?;
        let known = self.trust.digest;
        // Until the commit is known to stand, the rows in memory are not those of the file.
        self.trust.digest = None;
        let now = millis(self.clock.wall());
        let mut tx = Tx::new(&sql, &self.keys, &self.realm, &mut self.trust, Access::Writing, now);
        tx.successor = successor.as_ref();
        let mut group = Group::new(tx, Trail { ends: checked.audit, key: &self.audit_key });
        for entry in self.buffer.iter().flat_map(Buffer::entries) {
            group.trail.append(&sql, &self.keys, entry.clone())?;
        }
        if !self.holds_due {
            due::run(&mut group);
        }
        if !group.is_over() {
            work(&mut group);
        }
        let replaced = successor.as_ref().is_some_and(|it| std::ptr::eq(it, group.tx.keys));
        let Group { tx, trail: Trail { ends, .. }, changed, revoked, broken, .. } = group;
        // With the material that its calls shared: the commit may take long.
        drop(tx);
        if let Some(error) = broken {
            return Err(error);
        }
        let digest = if changed { self.trust.rows.digest() } else { known.unwrap_or_default() };
        let sequence = self.trust.sequence + 1;
        self.trust.audited = ends.last;
        if ends != checked.audit {
            let head = Head { schema_version: SCHEMA_VERSION, sequence, digest, audit: ends.encode() };
            let keys = successor.as_ref().filter(|_| replaced).unwrap_or(&self.keys);
            head.write(&sql, keys, checked.audit.last, ends.last)?;
            sql.commit().map_err(Error::sqlite)?;
            self.trust.sequence = sequence;
        }
        if let Some(successor) = successor.filter(|_| replaced) {
            self.keys = successor;
        }
        self.trust.digest = Some(digest);
        if let Some(buffer) = &mut self.buffer {
            buffer.written();
        }
        if revoked {
            self.watch.epoch.bump();
        }
        match (changed, replaced) {
            (_, true) => self.waiting.fold_patiently(&self.sql),
            (true, false) => self.waiting.fold(&self.sql),
            (false, false) => {}
        }
        Ok(())
    }

    /// In the buffered mode, runs calls that change nothing, and keeps their records for later. `None` if they
    /// have to run in a transaction that writes.
    fn run_buffered(&mut self, jobs: &mut [Box<dyn Job>]) -> Option<Result<()>> {
        let buffer = self.buffer.as_mut().filter(|buffer| !buffer.is_due())?;
        let sql = match begin_reading(&self.sql) {
            Ok(sql) => sql,
            Err(error) => return Some(Err(error)),
        };
        let checked = match look_at(&mut self.trust, &self.watch, &sql, &self.keys).and_then(Checked::to_go_on_from) {
            Ok(checked) => checked,
            Err(error) => return Some(Err(error)),
        };
        let now = millis(self.clock.wall());
        if self.trust.dates.is_due(now) {
            return None;
        }
        let tx = Tx::new(&sql, &self.keys, &self.realm, &mut self.trust, Access::Reading, now);
        let mut group = Group::new(tx, Trail { ends: checked.audit, key: &self.audit_key });
        if jobs.len() > 1 {
            group.tx.remember();
        }
        for job in jobs {
            job.run(&mut group);
            if group.is_over() {
                return None;
            }
        }
        buffer.add(group.later);
        Some(Ok(()))
    }

    /// What is to be done while nobody calls: records that have waited for long enough are written; where caches
    /// use the keystore, what other processes changed is looked for; and what is due is done.
    pub(super) fn tick(&mut self) {
        if self.buffer.as_ref().is_some_and(Buffer::is_due) && self.flush().is_err() {
            self.patient_until = Some(Instant::now() + PATIENT);
        }
        if self.watch.is_wanted() {
            // What is found moves the epoch.
            let _ = self.read(|_| Ok(()));
        }
        if self.due_in().is_some_and(|wait| wait.is_zero()) {
            self.patient_until = self.write(|_| ()).is_err().then(|| Instant::now() + PATIENT);
        }
    }

    /// Writes the records that were to be written later. If that fails, they stay, and the next call that
    /// finds them due fails.
    pub(super) fn flush(&mut self) -> Result<()> {
        match self.buffer.as_ref().is_some_and(|buffer| buffer.entries().next().is_some()) {
            true => self.write(|_| ()),
            false => Ok(()),
        }
    }

    /// When [`tick`](Self::tick) has something to do, if nobody calls before.
    pub(super) fn next_tick(&self) -> Option<Duration> {
        let patient = self.patience();
        let buffer = self.buffer.as_ref().and_then(Buffer::due_in).map(|wait| wait.max(patient));
        let watch = self.watch.is_wanted().then_some(LOOK);
        [buffer, watch, self.due_in()].into_iter().flatten().min()
    }

    /// How long the thread sleeps before what is due next; not for very long, since the clock may leap.
    fn due_in(&self) -> Option<Duration> {
        let wait = self.trust.dates.next()?.saturating_sub(millis(self.clock.wall()));
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0)).max(self.patience());
        Some(wait.min(SLEEP))
    }

    /// How long it is left alone after a failure.
    fn patience(&self) -> Duration {
        self.patient_until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Writes the whole keystore to `file`, of one moment, while others may use it, and checks every row of the copy.
    pub(super) fn copy_to(&self, file: &AtomicFile) -> Result<()> {
        forget_pages(&self.sql)?;
        draft::copy(&self.sql, file)?;
        self.check_draft(file)
    }

    /// Checks every row of `file`, which is this keystore, or a copy of it.
    pub(super) fn check_draft(&self, file: &AtomicFile) -> Result<()> {
        draft::check(file, self.trust.sequence, &self.keys)
    }

    /// Forgets what the last check found, but that the sequence cannot go back: the next one reads everything.
    pub(super) fn forget(&mut self) {
        self.trust = Trust::nothing(self.trust.sequence);
    }

    /// Runs `work` while no other process can change the keystore, which it does not change itself, after a check
    /// that it is still under this root key.
    pub(super) fn alone<T>(&mut self, work: impl FnOnce(&RootKeys) -> Result<T>) -> Result<T> {
        let sql = self.waiting.begin(&self.sql)?;
        check_root_key(&sql, &self.keys)?;
        work(&self.keys)
    }

    #[cfg(test)]
    pub(super) fn next_date(&self) -> Option<i64> {
        self.trust.dates.next()
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> &RootKeys {
        &self.keys
    }
}

/// Checks what a transaction sees. What others changed may be a revocation; and a keystore that cannot be asked, unless it
/// is only busy, says no more that a key may be used.
fn look_at(trust: &mut Trust, watch: &Watch, sql: &Connection, keys: &RootKeys) -> Result<Checked> {
    let checked = trust.check(sql, keys);
    let revoked = match &checked {
        Ok(checked) => checked.changed,
        Err(error) => error.kind() != ErrorKind::Busy,
    };
    if revoked {
        watch.epoch.bump();
    }
    checked
}

/// Whose keystore it is, and the key of its audit trail, from rows that were checked.
fn identify(sql: &Connection, keys: &RootKeys, trust: &mut Trust) -> Result<(Realm, Secret<32>)> {
    let mut realm = Realm { keystore_id: keys.rows.keystore_id, region: String::new() };
    let first = Tx::new(sql, keys, &realm, trust, Access::Reading, 0);
    let mut meta = first.row(&META, &[Value::Integer(1)])?.unwrap_or_default();
    let (Some(Value::Text(region)), Some(Value::Blob(wrapped))) =
        (meta.get(META_REGION).cloned(), meta.get_mut(META_AUDIT_KEY))
    else {
        return Err(Error::tampered("it has no Region, or no key of its audit trail"));
    };
    let audit_key = cipher::unwrap(&keys.root, audit_place(&realm), wrapped)
        .map_err(|e| Error::tampered("the key of its audit trail is not authentic").with_source(e))?;
    realm.region = region;
    Ok((realm, audit_key))
}

/// Appends the record of a call that changed no row, and writes the head.
fn say(
    sql: &Connection,
    keys: &RootKeys,
    (realm, trust): (&Realm, &mut Trust),
    trail: Trail<'_>,
    now: i64,
    call: &Call,
) -> Result<()> {
    let before = trail.ends.last;
    let mut group = Group::new(Tx::new(sql, keys, realm, trust, Access::Writing, now), trail);
    group.run(call, |_| Ok(()))?;
    let ends = match group.broken {
        Some(error) => return Err(error),
        None => group.trail.ends,
    };
    let (sequence, digest) = (trust.sequence + 1, trust.rows.digest());
    let head = Head { schema_version: SCHEMA_VERSION, sequence, digest, audit: ends.encode() };
    head.write(sql, keys, before, ends.last)
}

fn audit_place(realm: &Realm) -> Place<'_> {
    Place { keystore_id: &realm.keystore_id, key_id: "", purpose: wrapped::AUDIT, version: 0 }
}

pub(super) fn begin_reading(sql: &Connection) -> Result<Begun<'_>> {
    forget_pages(sql)?;
    Begun::reading(sql).map_err(Error::sqlite)
}

/// Keeps no pages from before, so that bytes changed past SQLite are seen.
fn forget_pages(sql: &Connection) -> Result<()> {
    sql.release_memory().map_err(Error::sqlite)
}

/// Milliseconds since the Unix epoch; 0 for what was before.
pub(super) fn millis_of(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// Between two looks at what other processes changed: half of the second within which a revocation reaches a cache.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// The longest sleep before something that is due.
const SLEEP: Duration = Duration::from_secs(60);
/// After a failure to do what is due, while nobody calls.
const PATIENT: Duration = Duration::from_secs(5);

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
