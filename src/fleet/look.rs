//! What one file is: a look at its head, without any key.

use super::files::FoundFile;
#[cfg(feature = "local-kms")]
use super::version_local as local;
#[cfg(not(feature = "local-kms"))]
use super::version_none as local;
use crate::crypto::sha256;
use crate::durable::{Access, FileSystem, OsFileSystem, resolve};
use crate::envelope::head::read_header;
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal;
use crate::material::EncryptedDataKey;
use crate::native::header::{Header, HeaderParse, Limits, Outline};
use crate::native::record::RecordSetHeader;
use crate::provider::Recipient;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that was looked at, or a name that stands for none.
#[derive(Debug)]
#[non_exhaustive]
pub struct SeenFile {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last modified, where that can be told. A rewrap in place modifies a file.
    pub modified: Option<SystemTime>,
    /// What it is.
    pub what: Seen,
    /// Whether a link may lead to it.
    pub(super) by_link: bool,
    /// By what it is known, where it may have several names.
    pub(super) id: Option<FileId>,
}

/// Device and number of a file.
pub(super) type FileId = (u64, u64);

/// What a file is. Nothing of it is verified: it is what the head says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Seen {
    /// A message.
    Message(HeadFacts),
    /// A record set, or a value with its own.
    RecordSet(HeadFacts),
    /// A message that is being written, or whose writing ended early: `.NAME.0.envelock-tmp` and its likes, and
    /// `.NAME.envelock-partial`. It becomes a message, or a later run to the same name removes it.
    Unfinished,
    /// It begins as a message does, and its head is none: cut off, changed, or of a newer version.
    Damaged(Error),
    /// It could not be read, or not be looked at.
    Unreadable(Error),
    /// The walk came by it, and then it was gone: removed, renamed, or something that another program kept for a moment.
    Vanished,
    /// A regular file that is no message: plaintext, or anything else.
    Other,
    /// Another name of a file that was seen before.
    Again,
    /// A symbolic link that was not followed.
    Link,
    /// A pipe, a socket or a device, which was not opened.
    Special,
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadFacts {
    /// Its slots, in their order.
    pub slots: Vec<SlotFacts>,
    /// Whether the journal of a rewrap lies beside the file: one is under way or was interrupted. The slots are
    /// those that it will have.
    pub interrupted: bool,
    /// Of the whole head: whether it is the same as before.
    pub(super) digest: Digest,
}

/// The first half of a SHA-256: it only tells a head from another state of its own file.
pub(super) type Digest = [u8; 16];

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotFacts {
    /// Whom it is for.
    pub recipient: Recipient,
    /// The version of the key, where the wrapped key shows it: of `local` and `vault` keys.
    pub version: Option<u32>,
    /// Whether it only records a recipient that could not be reached.
    pub missing: bool,
}

impl HeadFacts {
    pub(super) fn new(slots: &[EncryptedDataKey], head: &[u8]) -> Self {
        let slots = slots.iter().map(|slot| SlotFacts {
            recipient: Recipient::from(slot),
            version: version(slot),
            missing: slot.is_missing(),
        });
        Self { slots: slots.collect(), interrupted: false, digest: digest(head) }
    }

    pub(super) fn has_missing(&self) -> bool {
        self.slots.iter().any(|slot| slot.missing)
    }
}

pub(super) fn digest(head: &[u8]) -> Digest {
    let whole = sha256(&[head]);
    std::array::from_fn(|at| whole.get(at).copied().unwrap_or_default())
}

/// Reads the head of a file. It is opened without waiting, whatever has taken its place meanwhile.
pub(super) fn look(found: FoundFile, limits: &Limits) -> SeenFile {
    let FoundFile { path, by_link } = found;
    let opened = match by_link {
        true => resolve(&path).and_then(|to| open(&to).map(|file| (to, file))),
        false => open(&path).map(|file| (path.clone(), file)),
    };
    let failed = |path, error| SeenFile { path, modified: None, what: Seen::Unreadable(error), by_link, id: None };
    let (target, file) = match opened {
        Ok(opened) => opened,
        Err(error) if is_gone(&error) => {
            return SeenFile { path, modified: None, what: Seen::Vanished, by_link, id: None };
        }
        Err(error) => return failed(path, error),
    };
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(e) => return failed(path.clone(), Error::io_at("this cannot be looked at", &path, e)),
    };
    let id = (by_link || metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()));
    let what = match metadata.is_file() {
        true => named(see(&target, file, limits), &path),
        false => Seen::Special,
    };
    SeenFile { modified: metadata.modified().ok(), what, path, by_link, id }
}

fn open(path: &Path) -> Result<File> {
    OsFileSystem.open(path, Access::Read).map_err(|e| Error::io_at("the file cannot be opened", path, e))
}

fn named(seen: Result<Seen>, path: &Path) -> Seen {
    match seen {
        Ok(Seen::Message(_)) if is_unfinished(path.file_name().unwrap_or_default()) => Seen::Unfinished,
        Ok(seen) => seen,
        Err(error) if error.kind() == ErrorKind::Io => Seen::Unreadable(error.with_path(path)),
        Err(_) if is_unfinished(path.file_name().unwrap_or_default()) => Seen::Unfinished,
        Err(error) => Seen::Damaged(error.with_path(path)),
    }
}

fn see(path: &Path, mut file: File, limits: &Limits) -> Result<Seen> {
    let mut start = Vec::with_capacity(START_LEN as usize);
    file.by_ref().take(START_LEN).read_to_end(&mut start)?;
    if !start.starts_with(b"ELK") {
        return Ok(Seen::Other);
    }
    // Version 1, and the flag of record sets.
    if matches!(start.as_slice(), [_, _, _, 1, flags, ..] if flags & 0b10 != 0) {
        file.take(Outline::len_max(limits).saturating_sub(START_LEN)).read_to_end(&mut start)?;
        let header = RecordSetHeader::parse_within(&start, limits)?;
        return Ok(Seen::RecordSet(HeadFacts::new(header.slots(), header.as_bytes())));
    }
    match read_header(&mut start.as_slice().chain(&file), limits) {
        Ok(header) => {
            let mut facts = HeadFacts::new(header.slots(), header.as_bytes());
            facts.interrupted = fs::symlink_metadata(journal::journal_path(path)).is_ok();
            Ok(Seen::Message(facts))
        }
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(error) => match pending(path, &mut file, limits) {
            Some(header) => {
                let facts = HeadFacts::new(header.slots(), header.as_bytes());
                Ok(Seen::Message(HeadFacts { interrupted: true, ..facts }))
            }
            None => Err(error),
        },
    }
}

/// The head that a torn one is about to have.
fn pending(path: &Path, file: &mut File, limits: &Limits) -> Option<Header> {
    file.rewind().ok()?;
    let mut raw = Vec::new();
    file.take(Outline::len_max(limits)).read_to_end(&mut raw).ok()?;
    let outline = Outline::of(&raw, limits)?;
    raw.truncate(outline.len());
    let current = raw.get(outline.slots())?;
    let pending = journal::pending(path, current, &outline.binding(&raw)).ok()??;
    let head = outline.with_slots_area(&raw, &pending.new).ok()?;
    match Header::parse_some(&head, limits) {
        Ok(HeaderParse::Complete(header)) => Some(header),
        _ => None,
    }
}

/// Whether an error says that there is no such file.
pub(super) fn is_gone(error: &Error) -> bool {
    io_kind(error) == Some(io::ErrorKind::NotFound)
}

/// What the system said, where that is what an error comes from.
pub(super) fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    std::error::Error::source(error)?.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// Whether this crate keeps a file of that name for a moment, beside one that it writes.
pub(super) fn is_passing(path: &Path) -> bool {
    path.file_name().is_some_and(|name| is_unfinished(name) || journal::is_journal_name(name))
}

/// The names that this crate gives to what it writes beside a target.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") && (name.ends_with(b".envelock-tmp") || name.ends_with(b".envelock-partial"))
}

/// Which version of its key a data key was wrapped under, where that shows.
fn version(slot: &EncryptedDataKey) -> Option<u32> {
    match slot.provider() {
        "local" => local::of_blob(slot.wrapped()),
        // "vault:v3:…"
        "vault" => {
            let text = slot.wrapped().strip_prefix(b"vault:v")?;
            let digits = text.get(..text.iter().position(|byte| *byte == b':')?)?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Bytes that are read of every file: most heads are shorter.
const START_LEN: u64 = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_of_vault_shows_its_version() {
        let of = |text: &str| version(&EncryptedDataKey::new("vault", "transit/orders", text));
        assert_eq!(of("vault:v3:AAAA"), Some(3));
        assert_eq!(of("vault:v4294967295:AAAA"), Some(u32::MAX));
        for text in ["", "vault:v", "vault:v:", "vault:vx:", "vault:v4294967296:", "vault:v-1:", "v3:AAAA"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_names_of_this_crate_are_unfinished() {
        for (name, unfinished) in [
            (".a.elk.0.envelock-tmp", true),
            (".a.elk.envelock-partial", true),
            ("a.elk.0.envelock-tmp", false),
            (".a.elk", false),
            ("a.elk", false),
        ] {
            assert_eq!(is_unfinished(OsStr::new(name)), unfinished, "{name}");
        }
    }
}
