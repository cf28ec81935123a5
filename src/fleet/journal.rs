//! The journal of a run: what is done, so that a run that was interrupted does not do it again.
//!
//! ```text
//! "envelock fleet journal 1 " || the run (64 hex digits) || LF
//! then 44 bytes for each message that is done with:
//! "d " || digest of its head (32 hex digits) || " " || check (8 hex digits) || LF
//! check = the first 4 bytes of SHA-256(the run || digest)
//! ```
//! The run is a SHA-256 of whom it moves messages to and from, so that the journal of another run is refused.
//! It is a hint, and not trusted: a message that is not under the new keys by its own head is moved whatever stands
//! here. What was lost or damaged costs that a message is moved again, where its head does not tell.

use super::look::Digest;
use crate::crypto::sha256;
use crate::durable::{FileSystem, LockedFile, folder_of};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What tells a run from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId([u8; 32]);

impl RunId {
    pub(super) fn new(text: &str) -> Self {
        Self(sha256(&[b"envelock/v1 fleet", text.as_bytes()]))
    }
}

/// A journal, locked for this run.
#[derive(Debug)]
pub(super) struct Journal {
    fs: Arc<dyn FileSystem>,
    file: LockedFile,
    run: RunId,
    done: Done,
    /// Where the next line goes.
    end: u64,
    unsynced: u32,
}

/// What a journal held.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) heads: HashSet<Digest>,
    /// Lines that were none.
    pub(super) damaged: u64,
}

impl Journal {
    /// Opens the journal at `path`, or makes it.
    ///
    /// # Errors
    /// Kind Busy if another run works with it; kind InvalidInput if what is there is no journal, or another run's;
    /// LimitExceeded for one of more than 1 GiB; kind Io.
    pub(super) fn open(fs: Arc<dyn FileSystem>, path: &Path, run: RunId) -> Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
            return Err(Error::invalid_input("the journal of a run is not written through a link").with_path(path));
        }
        let made = match fs.create_new(path, 0o600) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(cannot_write(path, e)),
        };
        let file = LockedFile::open(Arc::clone(&fs), path, LOCK_WAIT).map_err(|error| match error.is_retryable() {
            true => error.with_advice("another run works with this journal: wait for its end, or name another one"),
            false => error,
        })?;
        let mut journal = Self { fs, file, run, done: Done::default(), end: 0, unsynced: 0 };
        let first = first_line(run);
        match journal.read()? {
            Some((done, end)) => (journal.done, journal.end) = (done, end),
            None => {
                journal.append(first.as_bytes())?;
                journal.sync()?;
                journal.fs.sync_folder(folder_of(path)).map_err(|e| cannot_write(path, e))?;
            }
        }
        debug_assert!(journal.end >= first.len() as u64 || made);
        Ok(journal)
    }

    /// What a run at `path` has done, as far as can be told without writing: nothing where no journal is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn look(path: &Path, run: RunId) -> Result<Done> {
        match fs::File::open(path) {
            Ok(file) => Ok(parse(file, run, path)?.map(|(done, _)| done).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Done::default()),
            Err(e) => Err(Error::io_at("the journal of a run cannot be read", path, e)),
        }
    }

    pub(super) fn done(&self) -> &Done {
        &self.done
    }

    /// Notes that the message with this head is done with. It survives a kill at once, a power failure a little
    /// later.
    ///
    /// # Errors
    /// Kind Io.
    pub(super) fn note(&mut self, head: Digest) -> Result<()> {
        if !self.done.heads.insert(head) {
            return Ok(());
        }
        self.append(line(self.run, head).as_bytes())?;
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// # Errors
    /// Kind Io.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.fs.sync_file(self.file.file()).map_err(|e| cannot_write(self.file.path(), e))
    }

    /// Removes it: the run is done.
    ///
    /// # Errors
    /// Kind Io.
    pub(super) fn remove(self) -> Result<()> {
        let path = self.file.path();
        self.fs.remove(path).and_then(|()| self.fs.sync_folder(folder_of(path))).map_err(|e| {
            Error::io_at("cannot remove the journal of a run that is done", path, e).with_advice("remove it yourself")
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.fs.write_at(self.file.file(), bytes, self.end).map_err(|e| cannot_write(self.file.path(), e))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn read(&self) -> Result<Option<(Done, u64)>> {
        parse(self.file.file(), self.run, self.file.path())
    }
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::unchanged("cannot write the journal of this run", path, source)
        .with_advice("what was moved is moved: free space or choose another disk, then run it again")
}

fn first_line(run: RunId) -> String {
    format!("{MAGIC}{}\n", hex(&run.0))
}

fn line(run: RunId, head: Digest) -> String {
    format!("d {} {}\n", hex(&head), check(run, head))
}

fn check(run: RunId, head: Digest) -> String {
    let whole = sha256(&[&run.0, &head]);
    hex(whole.get(..4).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is done, and where the next line goes; `None` if not even the first line is whole, as a crash leaves it.
fn parse(file: impl Read, run: RunId, path: &Path) -> Result<Option<(Done, u64)>> {
    let failed = |e| Error::io_at("the journal of a run cannot be read", path, e);
    let mut file = BufReader::new(file.take(JOURNAL_LEN_MAX + 1));
    let expected = first_line(run);
    let mut first = Vec::new();
    file.by_ref().take(expected.len() as u64).read_to_end(&mut first).map_err(failed)?;
    if first.len() < expected.len() && expected.as_bytes().starts_with(&first) {
        return Ok(None);
    }
    if first != expected.as_bytes() {
        return Err(match first.starts_with(MAGIC.as_bytes()) {
            true => Error::invalid_input("this is the journal of another run, to other keys or from others")
                .with_path(path)
                .with_advice("nothing was changed: run that one to its end, or name another journal"),
            false => Error::invalid_input("this is not the journal of a run")
                .with_path(path)
                .with_advice("it was left as it is, and nothing was changed: name another file"),
        });
    }
    let (mut done, mut end) = (Done::default(), expected.len() as u64);
    loop {
        let mut bytes = Vec::with_capacity(LINE_LEN);
        file.by_ref().take(LINE_LEN as u64).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < LINE_LEN {
            // The next line goes over one that was cut off.
            return Ok(Some((done, end)));
        }
        end += LINE_LEN as u64;
        if end > JOURNAL_LEN_MAX {
            return Err(Error::limit("the journal of a run has more than 1 GiB")
                .with_path(path)
                .with_advice("name another one: what is moved is seen by its head"));
        }
        match digest_of(&bytes).filter(|head| line(run, *head).as_bytes() == bytes) {
            Some(head) => drop(done.heads.insert(head)),
            None => done.damaged += 1,
        }
    }
}

fn digest_of(line: &[u8]) -> Option<Digest> {
    let digits = std::str::from_utf8(line.get(2..34)?).ok()?;
    let mut digest = Digest::default();
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

const MAGIC: &str = "envelock fleet journal 1 ";
const LINE_LEN: usize = 44;
const SYNC_EVERY: u32 = 64;
/// A program that this process just starts holds copies of its open files, and so their locks, for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Read into memory at the start of a run: half of it, at the most.
const JOURNAL_LEN_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::OsFileSystem;
    use crate::durable::crash::Recorder;
    use crate::error::ErrorKind;
    use rustix::io::Errno;
    use std::path::PathBuf;

    fn run() -> RunId {
        RunId::new("to a")
    }

    fn open(path: &Path) -> Result<Journal> {
        Journal::open(Arc::new(OsFileSystem), path, run())
    }

    fn head(number: u16) -> Digest {
        std::array::from_fn(|at| number.to_be_bytes()[at % 2])
    }

    fn at(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("run.journal")
    }

    #[test]
    fn what_was_noted_is_known_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(&at(&folder)).unwrap();
        for number in 0..200 {
            journal.note(head(number)).unwrap();
            journal.note(head(number)).unwrap();
        }
        assert_eq!(open(&at(&folder)).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(Journal::look(&at(&folder), run()).unwrap().heads.len(), 200);
        drop(journal);
        let journal = open(&at(&folder)).unwrap();
        assert_eq!((journal.done().heads.len(), journal.done().damaged), (200, 0));
        assert!(journal.done().heads.contains(&head(7)));
        journal.remove().unwrap();
        assert!(!at(&folder).exists());
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_gives_its_whole_lines_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(&at(&folder)).unwrap();
        (0..3).for_each(|number| journal.note(head(number)).unwrap());
        drop(journal);
        let whole = fs::read(at(&folder)).unwrap();
        let first = first_line(run()).len();
        for len in 0..=whole.len() {
            fs::write(at(&folder), &whole[..len]).unwrap();
            let mut journal = open(&at(&folder)).unwrap();
            let lines = len.saturating_sub(first) / LINE_LEN;
            assert_eq!((journal.done().heads.len(), journal.done().damaged), (lines, 0), "cut at {len}");
            journal.note(head(9)).unwrap();
            drop(journal);
            let done = Journal::look(&at(&folder), run()).unwrap();
            assert!(done.heads.contains(&head(9)) && done.heads.len() == lines + 1 && done.damaged == 0, "{len}");
        }
    }

    #[test]
    fn a_changed_byte_loses_a_line_or_refuses_the_whole_and_adds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(&at(&folder)).unwrap();
        (0..3).for_each(|number| journal.note(head(number)).unwrap());
        drop(journal);
        let whole = fs::read(at(&folder)).unwrap();
        let known: HashSet<_> = (0..3).map(head).collect();
        let first = first_line(run()).len();
        for at_byte in 0..whole.len() {
            for flip in [1, 0x20, 0x80] {
                let mut changed = whole.clone();
                changed[at_byte] ^= flip;
                fs::write(at(&folder), &changed).unwrap();
                match open(&at(&folder)) {
                    Ok(journal) => {
                        assert!(at_byte >= first);
                        assert!(journal.done().heads.is_subset(&known));
                        assert_eq!((journal.done().heads.len(), journal.done().damaged), (2, 1));
                    }
                    Err(error) => {
                        assert!(at_byte < first);
                        assert_eq!(error.kind(), ErrorKind::InvalidInput);
                        assert_eq!(fs::read(at(&folder)).unwrap(), changed, "it was left as it is");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_journal_or_another_runs_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = at(&folder);
        drop(Journal::open(Arc::new(OsFileSystem), &path, RunId::new("to b")).unwrap());
        let refused = open(&path).unwrap_err();
        assert!(refused.to_string().contains("another run"), "{refused}");
        fs::write(&path, "dear diary\n").unwrap();
        let refused = open(&path).unwrap_err();
        assert!(refused.to_string().contains("not the journal"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"dear diary\n");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("link"));
        assert!(!folder.path().join("elsewhere").exists());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(open(&path).is_err());
    }

    #[test]
    fn a_full_disk_is_told_at_every_call_and_costs_no_line_before() {
        for call in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let recorder = Recorder::failing(folder.path(), call, Errno::NOSPC, crate::durable::crash::Until::Next);
            let mut noted = 0_u16;
            let result = Journal::open(recorder.clone(), &at(&folder), run()).and_then(|mut journal| {
                for number in 0..4 {
                    journal.note(head(number))?;
                    noted += 1;
                }
                journal.sync()
            });
            if !recorder.failed() {
                result.unwrap();
                assert!(call >= 7, "only {call} calls");
                break;
            }
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("free space"), "{error}");
            let done = Journal::look(&at(&folder), run()).unwrap();
            assert!((0..noted).all(|number| done.heads.contains(&head(number))), "call {call}");
        }
    }
}
