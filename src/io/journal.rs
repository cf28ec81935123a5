//! The journal by which the slots of a message file are rewritten in place, crash-safe.
//!
//! ```text
//! <file>.rewrap = 01 || u16(m) || old m bytes || new m bytes || SHA-256(all before it || binding)
//! ```
//! The binding is what a rewrap never changes: `core || the 74 FLOE header bytes`, or the record-set
//! tag in place of the latter. This file knows no header format: callers parse it and hand in where
//! the slots are. The m field lies before the m bytes, so it can be parsed while they are torn.
//!
//! The exclusive lock on the message file, which [`LockedFile`] is, is held from before the journal
//! is looked at until it is deleted. It must be held by everyone who renames something over the file
//! too ([`commit_over`]), or a rewrap of the old file would delete the journal of the new one.

use crate::crypto::sha256;
use crate::durable::{Access, AtomicFile, FileSystem, LockedFile, OsFileSystem, folder_of, resolve};
use crate::error::{Error, Result};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the slots of a message file are, and what they are bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Where the m bytes begin, in bytes from the start of the file.
    pub(crate) offset: u64,
    /// How many they are: m.
    pub(crate) len: u16,
    /// The pieces of `core || the 74 FLOE header bytes`, or of `core || record-set tag`.
    pub(crate) binding: &'a [&'a [u8]],
}

/// What became of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Recovery {
    /// There was none.
    Nothing,
    /// An interrupted rewrap was finished.
    Applied,
    /// It was torn, or belonged to another state of the file, and was removed.
    Removed,
}

impl Recovery {
    /// The line to show to a person, if there is something to say.
    pub(crate) fn notice(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Applied => Some("finished a rewrap that had been interrupted"),
            Self::Removed => Some(
                "removed the journal of an interrupted rewrap: it was incomplete or belonged to another state of \
                 this file, which is as it was",
            ),
        }
    }
}

/// The slots of a rewrap under way, each m bytes. Nothing but hints, like all slots.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// To be tried first.
    pub(crate) new: Vec<u8>,
    pub(crate) old: Vec<u8>,
}

/// Finishes or discards the rewrap that a crash interrupted. To be called under the lock before the
/// slots are read, before a [`rewrite`], and before the file is replaced.
///
/// # Errors
/// Kind Io if file, journal or folder cannot be read or written; then the journal stays. Kind
/// InvalidInput if what lies at the journal's name cannot be a journal, nor what a crash left of one:
/// then it stays, and the message is as it was.
pub(crate) fn recover(message: &LockedFile, place: Place<'_>) -> Result<Recovery> {
    let path = journal_path(message.path());
    let fs = message.file_system();
    let journal = match load(fs, &path)? {
        Loaded::Nothing => return Ok(Recovery::Nothing),
        Loaded::Bytes(bytes) if may_be_torn(&bytes) => bytes,
        Loaded::Bytes(_) | Loaded::Foreign => return Err(foreign(&path)),
    };
    let current = read_slots(message, place)?;
    let recovery = match parse(&journal, &current, place.binding) {
        Some(pending) => {
            // Even where the bytes are the new ones already: they may never have been synced.
            fs.write_at(message.file(), &pending.new, place.offset)
                .and_then(|()| fs.sync_file(message.file()))
                .map_err(|e| unfinished("cannot finish an interrupted rewrap", message.path(), e))?;
            Recovery::Applied
        }
        None => Recovery::Removed,
    };
    remove(fs, &path).map_err(|e| harmless(&path, e))?;
    Ok(recovery)
}

/// Overwrites the slots with `new`, exactly m bytes. When this returns, they survive a power failure;
/// a crash before that leaves the old slots, the new ones, or a journal to [`recover`].
///
/// # Errors
/// Kind Internal if `new` has another length; kind Io if something cannot be written. Then the old
/// slots are back and the journal is gone, unless the error says otherwise.
pub(crate) fn rewrite(message: &LockedFile, place: Place<'_>, new: &[u8]) -> Result<()> {
    if new.len() != usize::from(place.len) {
        return Err(Error::internal("the new slots have another length than the old ones"));
    }
    let path = journal_path(message.path());
    let (fs, file) = (message.file_system(), message.file());
    let old = read_slots(message, place)?;
    write_journal(message, &path, &encode(&old, new, place))?;

    let overwrite = |slots| fs.write_at(file, slots, place.offset).and_then(|()| fs.sync_file(file));
    if let Err(e) = overwrite(new) {
        overwrite(&old)
            .and_then(|()| remove(fs, &path))
            .map_err(|e| unfinished("cannot rewrite the slots", message.path(), e))?;
        return Err(Error::unchanged("cannot rewrite the slots", message.path(), e));
    }
    remove(fs, &path).map_err(|e| harmless(&path, e))
}

/// Commits a message file, and removes the journal of the message that was there. A file that only has
/// the name of a journal is somebody's own, and stays.
///
/// `old` is that message, locked and [recovered](recover), or `None` if there was none or if it is
/// no message; its lock ends when the new one is in place.
///
/// # Errors
/// As [`AtomicFile::commit`]; or kind Io if the journal cannot be removed, the new file being in place.
pub(crate) fn commit_over(new: AtomicFile, old: Option<LockedFile>) -> Result<()> {
    let new = new.commit()?;
    let path = journal_path(new.path());
    let fs = new.file_system();
    if let Loaded::Bytes(bytes) = load(fs, &path)?
        && has_form(&bytes)
    {
        remove(fs, &path).map_err(|e| harmless(&path, e))?;
    }
    drop(old);
    Ok(())
}

/// For a reader, who holds no lock, and whose attempt to open `message` with the slots that he read,
/// `current`, failed: the slots of a rewrap that is under way or was interrupted.
///
/// `None` if there is no journal, or none that belongs to this message. A rewrap may have ended
/// meanwhile: read the file's slots once more before reporting the failure.
///
/// # Errors
/// Kind Io if a journal is there and cannot be read.
pub(crate) fn pending(message: &Path, current: &[u8], binding: &[&[u8]]) -> Result<Option<Pending>> {
    match load(&OsFileSystem, &journal_path(&resolve(message)?))? {
        Loaded::Bytes(journal) => Ok(parse(&journal, current, binding)),
        Loaded::Nothing | Loaded::Foreign => Ok(None),
    }
}

/// What lies at a journal's name.
enum Loaded {
    Nothing,
    /// A regular file that is not too long for a journal.
    Bytes(Vec<u8>),
    /// Anything else.
    Foreign,
}

fn load(fs: &dyn FileSystem, path: &Path) -> Result<Loaded> {
    let file = match fs.open(path, Access::Read) {
        Ok(file) => file,
        Err(e) => {
            return match e.kind() {
                // A name too long for a file has never been one.
                io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename => Ok(Loaded::Nothing),
                _ if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(Loaded::Foreign),
                _ => Err(Error::io_at("cannot open the journal of a rewrap", path, e)),
            };
        }
    };
    let cannot_read = |e| Error::io_at("cannot read the journal of a rewrap", path, e);
    let metadata = file.metadata().map_err(cannot_read)?;
    if !metadata.is_file() || metadata.len() > MAX_LEN {
        return Ok(Loaded::Foreign);
    }
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(cannot_read)?;
    Ok(Loaded::Bytes(bytes))
}

/// Version, and the length that follows from m. The hash cannot be checked without the message.
fn has_form(bytes: &[u8]) -> bool {
    matches!(bytes, [VERSION, high, low, ..] if bytes.len() == whole_len(*high, *low))
}

/// Whether this can be what a crash left of a journal, which was written in one piece and not synced: the
/// beginning of one, or one without its first sector. Nobody else's file begins like that.
fn may_be_torn(bytes: &[u8]) -> bool {
    match bytes {
        [] | [VERSION] | [VERSION, _] => true,
        [VERSION, high, low, ..] => bytes.len() <= whole_len(*high, *low),
        _ => bytes.iter().take(SECTOR).all(|byte| *byte == 0),
    }
}

fn whole_len(high: u8, low: u8) -> usize {
    3 + 2 * usize::from(u16::from_be_bytes([high, low])) + HASH_LEN
}

fn foreign(path: &Path) -> Error {
    Error::invalid_input("this is not the journal of a rewrap, though it has the name of one")
        .with_path(path)
        .with_advice("it was left as it is, and nothing was changed: move it away")
}

fn encode(old: &[u8], new: &[u8], place: Place<'_>) -> Vec<u8> {
    let mut journal = [&[VERSION], &place.len.to_be_bytes()[..], old, new].concat();
    let digest = digest(&journal, place.binding);
    journal.extend_from_slice(&digest);
    journal
}

/// "A journal is applied only if it is whole, its hash holds, its m is the file's, and every byte of
/// the file's slots equals the old or the new byte there."
fn parse(journal: &[u8], current: &[u8], binding: &[&[u8]]) -> Option<Pending> {
    let (content, hash) = journal.split_last_chunk::<HASH_LEN>()?;
    let (&[version, high, low], slots) = content.split_first_chunk()?;
    let m = usize::from(u16::from_be_bytes([high, low]));
    if version != VERSION || m != current.len() || slots.len() != 2 * m || digest(content, binding) != *hash {
        return None;
    }
    let (old, new) = slots.split_at(m);
    let ours = current.iter().zip(old.iter().zip(new)).all(|(now, (old, new))| now == old || now == new);
    ours.then(|| Pending { new: new.to_vec(), old: old.to_vec() })
}

fn digest(content: &[u8], binding: &[&[u8]]) -> [u8; HASH_LEN] {
    sha256(&[&[content], binding].concat())
}

fn read_slots(message: &LockedFile, place: Place<'_>) -> Result<Vec<u8>> {
    let mut slots = vec![0; usize::from(place.len)];
    let read = message.file().read_exact_at(&mut slots, place.offset);
    read.map_err(|e| Error::io_at("cannot read the slots", message.path(), e))?;
    Ok(slots)
}

/// On failure, the journal is removed again.
fn write_journal(message: &LockedFile, path: &Path, journal: &[u8]) -> Result<()> {
    let fs = message.file_system();
    let cannot_write = |e| Error::unchanged("cannot write the journal of a rewrap", path, e);
    // Whoever may read the message may need the journal to open it, whatever the umask; it holds
    // nothing else.
    let mode = message.file().metadata().map_err(cannot_write)?.permissions().mode() & 0o666;
    let file: File = fs.create_new(path, 0o600).map_err(cannot_write)?;
    let written = fs
        .set_mode(&file, mode)
        .and_then(|()| fs.write_at(&file, journal, 0))
        .and_then(|()| fs.sync_file(&file))
        .and_then(|()| fs.sync_folder(folder_of(path)));
    written.map_err(|e| {
        let _ = remove(fs, path);
        cannot_write(e)
    })
}

fn remove(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    fs.remove(path)?;
    fs.sync_folder(folder_of(path))
}

fn unfinished(action: &str, message: &Path, source: io::Error) -> Error {
    Error::io_at(action, message, source)
        .with_advice("its journal was kept, and readers use it: check the disk, then rewrap the file again")
}

fn harmless(journal: &Path, source: io::Error) -> Error {
    Error::io_at("cannot remove this journal of a rewrap", journal, source).with_advice(
        "the file beside it is whole, and the journal does no harm: check the folder, the next rewrap removes it",
    )
}

/// Where the journal of the message at this path is, links resolved.
pub(crate) fn journal_path(message: &Path) -> PathBuf {
    let mut path = OsString::from(message);
    path.push(SUFFIX);
    path.into()
}

/// Whether a journal may have this name.
pub(crate) fn is_journal_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes())
}

const SUFFIX: &str = ".rewrap";

pub(super) const VERSION: u8 = 1;
const HASH_LEN: usize = 32;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The longest journal: two times the largest m.
const MAX_LEN: u64 = 3 + 2 * u16::MAX as u64 + HASH_LEN as u64;
