//! A message file that gets new slots: locked, written in place where they fit, copied where not.

use crate::durable::{AtomicFile, FileSystem, Links, LockedFile, Overwrite, Stamp};
use crate::envelope::file;
use crate::envelope::head::read_header;
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal;
use crate::material::EncryptedDataKey;
use crate::native::header::{Header, Limits, Outline};
use crate::native::slots::{SlotsRoom, encode_slots};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A message file under an exclusive lock, its journal recovered.
pub(crate) struct Opened {
    fs: Arc<dyn FileSystem>,
    file: LockedFile,
    outline: Outline,
    header: Header,
    /// Of the file before its head was read.
    stamp: Stamp,
    notice: Option<&'static str>,
}

/// What a file got.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whether only the slots were overwritten; else a copy took the file's place.
    pub(crate) in_place: bool,
    /// What a person should read.
    pub(crate) notice: Option<&'static str>,
    /// The bytes of the head as it is now.
    pub(crate) head: Vec<u8>,
}

impl Opened {
    /// Waits for at most `wait` for another rewrap of the same file.
    ///
    /// # Errors
    /// Kind Busy after that; as [`read_header`]; kind Io.
    pub(crate) fn lock(
        fs: Arc<dyn FileSystem>,
        path: &Path,
        links: Links,
        limits: &Limits,
        wait: Duration,
    ) -> Result<Self> {
        let file = LockedFile::open_by(Arc::clone(&fs), path, links, wait)?;
        let mut notice = None;
        if let Some((outline, raw)) = file::read_outline(&mut file.file(), limits) {
            notice = file::recover(&file, outline, &raw)?.notice();
        }
        let mut handle = file.file();
        handle.rewind().map_err(|e| Error::io_at("the file cannot be read", path, e))?;
        let stamp = Stamp::of(handle).map_err(|e| Error::io_at("the file cannot be looked at", path, e))?;
        let header = read_header(&mut handle, limits).map_err(|error| error.with_path(path))?;
        Ok(Self { fs, outline: header.outline(), file, header, stamp, notice })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What a person should read of an earlier rewrap.
    pub(crate) fn notice(&self) -> Option<&'static str> {
        self.notice
    }

    /// Only those who work by this crate honour the lock. Between it and a write lie the calls to a KMS, in which
    /// anybody may have put another file in this one's place, or other bytes into it.
    ///
    /// # Errors
    /// Kind Busy if that is so; kind Io if it cannot be seen.
    fn is_as_it_was(&self) -> Result<()> {
        let (file, path) = (self.file.file(), self.file.path());
        let unreadable = |e| Error::io_at("the file cannot be read", path, e);
        let mut head = vec![0; self.header.len()];
        let same = self.file.is_in_place()?
            && Stamp::of(file).map_err(unreadable)? == self.stamp
            && match file.read_exact_at(&mut head, 0) {
                Ok(()) => head == self.header.as_bytes(),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(e) => return Err(unreadable(e)),
            };
        match same {
            true => Ok(()),
            false => Err(changed(path)),
        }
    }

    /// Gives the file these slots. `check` is asked now and then while a copy is made. The copy has the owner, the
    /// group, the permissions and the extended attributes of the file; no setuid or setgid bit, and its own times.
    ///
    /// # Errors
    /// Kind Busy if somebody changed the file meanwhile; kind Io, also if a copy cannot have the same owner;
    /// LimitExceeded if no message has room for so much; what `check` answers.
    pub(crate) fn write(
        self,
        slots: &[EncryptedDataKey],
        limits: &Limits,
        check: impl Fn() -> Result<()>,
    ) -> Result<Written> {
        self.is_as_it_was()?;
        let notice = self.notice;
        let room = SlotsRoom::Exactly(self.outline.slots().len());
        if let Ok(area) = encode_slots(slots, room, self.header.core().len()) {
            let binding = self.outline.binding(self.header.as_bytes());
            journal::rewrite(&self.file, file::place(self.outline, &binding)?, &area)?;
            let head = self.outline.with_slots_area(self.header.as_bytes(), &area)?;
            return Ok(Written { in_place: true, notice, head });
        }
        let path = self.file.path().to_path_buf();
        let unreadable = |e| Error::io_at("the file cannot be read", &path, e);
        let metadata = self.file.file().metadata().map_err(unreadable)?;
        let mut new = AtomicFile::create(Arc::clone(&self.fs), &path, Overwrite::Replace)?;
        // A link that came there would be followed.
        if new.target() != path {
            return Err(changed(&path));
        }
        new.keep(self.file.file())?;
        new.set_mode(metadata.permissions().mode() & 0o777);
        let mut body = self.file.file();
        body.seek(SeekFrom::Start(self.header.len() as u64)).map_err(unreadable)?;
        let copy = Copy { header: self.header.clone(), body, path: path.clone(), limits: limits.clone() };
        let (new, head) = copy.write(new, slots, check)?;
        self.is_as_it_was()?;
        journal::commit_over(new, Some(self.file))?;
        let notice = notice.or((metadata.nlink() > 1).then_some(OTHER_NAMES));
        Ok(Written { in_place: false, notice, head })
    }
}

fn changed(path: &Path) -> Error {
    Error::new(ErrorKind::Busy, "this file was changed while its keys were asked for")
        .with_path(path)
        .with_advice("nothing was written to it: do it again once nobody else writes it")
}

/// A message under other slots, on its way to another file.
pub(super) struct Copy<R> {
    pub(super) header: Header,
    /// Stands at the first segment.
    pub(super) body: R,
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
}

impl<R: Read> Copy<R> {
    /// The file, and the bytes of its head.
    pub(super) fn write(
        mut self,
        mut new: AtomicFile,
        slots: &[EncryptedDataKey],
        check: impl Fn() -> Result<()>,
    ) -> Result<(AtomicFile, Vec<u8>)> {
        let area = encode_slots(slots, SlotsRoom::Spare, self.header.core().len())?;
        let header = self.header.with_slots_area(&area, &self.limits)?;
        new.write_all(header.as_bytes())?;
        let mut buffer = vec![0; COPY_LEN];
        loop {
            check()?;
            match self.body.read(&mut buffer) {
                Ok(0) => return Ok((new, header.as_bytes().to_vec())),
                Ok(count) => new.write_all(buffer.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io_at("the file cannot be read", &self.path, error)),
            }
        }
    }
}

/// Of a file that was copied.
const OTHER_NAMES: &str = "it had other names (hard links), which stand for the file as it was, under its former keys";
/// Bytes that a copy takes at once.
const COPY_LEN: usize = 1 << 20;
