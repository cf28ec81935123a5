//! Files: encrypted, decrypted and replaced atomically.

use crate::context::EncryptionContext;
use crate::durable::{AtomicFile, LockedFile, OsFileSystem, Overwrite};
use crate::envelope::Envelope;
use crate::envelope::head::{fill, read_header};
use crate::envelope::message::{Encryptor, Unlocked};
use crate::envelope::offload::offload;
use crate::envelope::watch::Watch;
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal::{self, Place};
use crate::io::read::DecryptReader;
use crate::native::header::{Header, HeaderParse, Limits, Outline, SlotsRoom};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

/// How far an operation on a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of input taken.
    pub done: u64,
    /// Bytes of input in all, where that is known.
    pub total: Option<u64>,
}

/// How [`encrypt_file`](Envelope::encrypt_file) and [`decrypt_file`](Envelope::decrypt_file) work.
#[derive(Clone, Default)]
pub struct FileOptions {
    replace: bool,
    pub(super) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    pub(super) stop: Stop,
}

/// A flag of the caller's that ends an operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Option<Arc<AtomicBool>>);

impl Stop {
    pub(super) fn when(flag: Arc<AtomicBool>) -> Self {
        Self(Some(flag))
    }

    /// # Errors
    /// Kind Io once the flag is set.
    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Io, "stopped, as the caller asked: nothing was changed"))
            }
            _ => Ok(()),
        }
    }
}

impl FileOptions {
    /// Replaces an existing target. Default: it is kept, and the call fails.
    #[must_use]
    pub fn replace_existing(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Calls `report` on the working thread, about once for each MiB. It should return quickly.
    #[must_use]
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(report));
        self
    }

    /// Ends the call with an error of kind [`Io`](ErrorKind::Io) soon after `flag` is set, between two
    /// pieces of work of about a MiB. What was begun is undone before the call returns: for a program
    /// that is told to end, and must not leave temporary files. (Dropping the future of a call cancels
    /// it as well, and does not wait until that is done.)
    #[must_use]
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Stop::when(flag);
        self
    }

    pub(super) fn replaces(&self) -> bool {
        self.replace
    }

    pub(super) fn overwrite(&self) -> Overwrite {
        if self.replace { Overwrite::Replace } else { Overwrite::Never }
    }
}

impl fmt::Debug for FileOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOptions").field("replace", &self.replace).finish_non_exhaustive()
    }
}

/// How long an operation waits for another one on the same file before it fails with kind Busy.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(30);

impl Envelope {
    /// Encrypts the file `from` to the file `to`, which appears whole or not at all, with mode 0600.
    ///
    /// The slots area is padded, so that a later rewrap in place has room. Returns the length of the
    /// message in bytes. When it returns, the message survives a power failure.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt); [`InvalidInput`](ErrorKind::InvalidInput) if the target exists,
    /// [`Io`](ErrorKind::Io) with the path; the target is then as it was.
    pub async fn encrypt_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let from = from.as_ref().to_path_buf();
        let path = from.clone();
        let source = offload(move |_| open_source(&path)).await?;
        let total = source.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        let done = self.encrypt_sized(source, total, to.as_ref(), context, options).await;
        done.map_err(|error| named(error, &from))
    }

    /// As [`encrypt_file`](Self::encrypt_file), for what is read from `source`: a pipe, say.
    ///
    /// # Errors
    /// As [`encrypt_file`](Self::encrypt_file), and what `source` fails with.
    pub async fn encrypt_to_file(
        &self,
        source: impl Read + Send + 'static,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        self.encrypt_sized(source, None, to.as_ref(), context, options).await
    }

    async fn encrypt_sized(
        &self,
        source: impl Read + Send + 'static,
        total: Option<u64>,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let target = offload({
            let (to, options) = (to.to_path_buf(), options.clone());
            move |_| open_target(&to, &options)
        })
        .await?;
        let encryptor = self.file_encryptor(context).await?;
        offload(move |cancelled| {
            let source = Watched { inner: source, watch: Watch::new(&options, cancelled, total) };
            encrypt_opened(source, target, encryptor)
        })
        .await
    }

    /// Decrypts the file `from` to the file `to`, which appears whole or not at all, with mode 0600:
    /// only once the end of the message was verified. Returns the length of the plaintext in bytes.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt); [`InvalidInput`](ErrorKind::InvalidInput) if the target exists,
    /// [`Io`](ErrorKind::Io) with the path; the target is then as it was.
    pub async fn decrypt_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let from = from.as_ref().to_path_buf();
        let message = self.open_message(&from, context).await?;
        let layout = message.unlocked.decryptor.layout();
        let total = message.body_len().and_then(|len| layout.plaintext_len(len).ok());
        let done = decrypt_opened(message.into_reader(), total, to.as_ref(), options).await;
        done.map_err(|error| named(error, &from))
    }

    /// As [`decrypt_file`](Self::decrypt_file), for a message that is read from `source`: a pipe, say.
    ///
    /// # Errors
    /// As [`decrypt_file`](Self::decrypt_file), and what `source` fails with.
    pub async fn decrypt_to_file(
        &self,
        source: impl Read + Send + 'static,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let (mut source, limits) = (source, self.config.limits.clone());
        let (source, header) = offload(move |_| {
            let header = read_header(&mut source, &limits)?;
            Ok((source, header))
        })
        .await?;
        let reader = self.decryptor(&header, context).await?.into_reader(source);
        decrypt_opened(reader, None, to.as_ref(), options).await
    }

    /// A reader of the message in the file at `path`. Unlike [`decrypt_reader`](Self::decrypt_reader) it
    /// opens a message in spite of a rewrap in place that is under way or was interrupted.
    ///
    /// # Errors
    /// As [`decrypt_reader`](Self::decrypt_reader), with the path.
    pub async fn file_reader(
        &self,
        path: impl AsRef<Path>,
        context: &EncryptionContext,
    ) -> Result<DecryptReader<File>> {
        Ok(self.open_message(path.as_ref(), context).await?.into_reader())
    }

    /// An encryptor whose message is padded for later rewraps, as messages in files are.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn file_encryptor(&self, context: &EncryptionContext) -> Result<Encryptor> {
        self.encryptor_with_room(context, SlotsRoom::Spare).await
    }

    /// Opens the message in the file at `path`, in spite of a rewrap that is under way or was
    /// interrupted: "a reader whose open fails tries the new, then the old slots of such a journal,
    /// caps counted over all tries, then re-reads the file's slots once before it reports".
    pub(super) async fn open_message(&self, path: &Path, context: &EncryptionContext) -> Result<Message> {
        let mut tries = self.tries();
        let head = offload({
            let (path, limits) = (path.to_path_buf(), self.config.limits.clone());
            move |_| Head::read(path, &limits)
        })
        .await?;
        let failure = match &head.header {
            Ok(header) => match self.unlock(header, context, &mut tries).await {
                Ok(unlocked) => {
                    let len = header.len();
                    return Ok(head.into_message(unlocked, len));
                }
                Err(error) => Some(error),
            },
            Err(_) => None,
        };
        // A journal that cannot be read is no news to whoever has the wrong key.
        for raw in head.other_heads().unwrap_or_default() {
            let Ok(HeaderParse::Complete(header)) = Header::parse_some(&raw, &self.config.limits) else { continue };
            if let Ok(unlocked) = self.unlock(&header, context, &mut tries).await {
                return Ok(head.into_message(unlocked, header.len()));
            }
        }
        let failure = failure.or(head.header.err());
        Err(failure.unwrap_or_else(|| Error::internal("a message that failed to open has an error")).with_path(path))
    }
}

/// A message file that was opened with its key.
pub(super) struct Message {
    /// Stands at the first segment.
    pub(super) file: File,
    pub(super) unlocked: Unlocked,
    pub(super) head_len: u64,
}

impl Message {
    pub(super) fn body_len(&self) -> Option<u64> {
        let length = self.file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        length.checked_sub(self.head_len)
    }

    fn into_reader(self) -> DecryptReader<File> {
        self.unlocked.decryptor.into_reader(self.file)
    }
}

/// The head of a message file as it was read.
struct Head {
    path: PathBuf,
    file: File,
    header: Result<Header>,
    /// The bytes of the head, also where its slots are torn.
    raw: Option<(Outline, Vec<u8>)>,
}

impl Head {
    fn read(path: PathBuf, limits: &Limits) -> Result<Self> {
        let mut file = open_source(&path)?;
        let header = read_header(&mut file, limits);
        let raw = match &header {
            Ok(header) => Some((header.outline(), header.as_bytes().to_vec())),
            Err(_) => read_outline(&mut file),
        };
        Ok(Self { path, file, header, raw })
    }

    /// The head with the slots of the journal, new and old, and with those that the file has now.
    fn other_heads(&self) -> Result<Vec<Vec<u8>>> {
        let Some((outline, raw)) = &self.raw else { return Ok(Vec::new()) };
        let current = raw.get(outline.slots()).unwrap_or_default();
        let mut areas = Vec::new();
        if self.header.is_err() {
            // Read a second time, since the slots were torn: perhaps the rewrap ended in between.
            areas.push(current.to_vec());
        }
        if let Some(pending) = journal::pending(&self.path, current, &outline.binding(raw))? {
            areas.extend([pending.new, pending.old]);
        }
        let mut again = &self.file;
        if again.rewind().is_ok()
            && let Some((outline_now, raw_now)) = read_outline(&mut again)
            && outline_now == *outline
            && raw_now != *raw
        {
            areas.push(raw_now.get(outline.slots()).unwrap_or_default().to_vec());
        }
        areas.iter().map(|area| outline.with_slots_area(raw, area)).collect()
    }

    fn into_message(mut self, unlocked: Unlocked, head_len: usize) -> Message {
        let head_len = head_len as u64;
        // A seek in a regular file to a place that was read before; a pipe stands there already.
        let _ = self.file.seek(SeekFrom::Start(head_len));
        Message { file: self.file, unlocked, head_len }
    }
}

/// The head's bytes and where its parts lie, whatever the slots hold.
pub(super) fn read_outline<F: Read + Seek>(file: &mut F) -> Option<(Outline, Vec<u8>)> {
    file.rewind().ok()?;
    let mut raw = Vec::new();
    file.take(HEAD_MAX).read_to_end(&mut raw).ok()?;
    let outline = Outline::of(&raw)?;
    raw.truncate(outline.len());
    Some((outline, raw))
}

/// More than any head within the default limits has.
const HEAD_MAX: u64 = 65_536 + 128;

pub(super) fn open_source(path: &Path) -> Result<File> {
    let failed = |e| Error::io_at("the file cannot be opened", path, e);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Error::invalid_input("this is a folder")
            .with_path(path)
            .with_advice("name a file: a folder has to be packed into one first"));
    }
    Ok(file)
}

/// A target, and the message that it replaces.
pub(super) struct Target {
    pub(super) new: AtomicFile,
    old: Option<LockedFile>,
}

impl Target {
    /// Puts a plaintext in its place.
    pub(super) fn commit_plaintext(self) -> Result<()> {
        match self.old {
            Some(old) => journal::commit_over(self.new, Some(old)),
            // What bears a journal's name beside a plaintext is somebody's file.
            None => self.new.commit().map(drop),
        }
    }
}

pub(super) fn open_target(path: &Path, options: &FileOptions) -> Result<Target> {
    let new = AtomicFile::create(Arc::new(OsFileSystem), path, options.overwrite())?;
    let old = if options.replace { recover_old(path)? } else { None };
    Ok(Target { new, old })
}

/// "Replacing a file recovers its journal first."
pub(super) fn recover_old(path: &Path) -> Result<Option<LockedFile>> {
    if !path.exists() {
        return Ok(None);
    }
    let old = match LockedFile::open(Arc::new(OsFileSystem), path, LOCK_WAIT) {
        Ok(old) => old,
        // A file that may be replaced and not written is no message whose rewrap is under way.
        Err(error) if error.kind() == ErrorKind::Io => return Ok(None),
        Err(error) => return Err(error),
    };
    match read_outline(&mut old.file()) {
        Some((outline, raw)) => {
            match recover(&old, outline, &raw) {
                Ok(_finished_or_removed) => {}
                // A file of somebody's own that has the name of a journal: it stays, and is in nobody's way.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                Err(error) => return Err(error),
            }
            Ok(Some(old))
        }
        None => Ok(None),
    }
}

/// Finishes the rewrap of `message` that a crash interrupted.
pub(super) fn recover(message: &LockedFile, outline: Outline, raw: &[u8]) -> Result<journal::Recovery> {
    let binding = outline.binding(raw);
    journal::recover(message, place(outline, &binding)?)
}

pub(super) fn place<'a>(outline: Outline, binding: &'a [&'a [u8]; 2]) -> Result<Place<'a>> {
    let slots = outline.slots();
    let len = u16::try_from(slots.len()).map_err(|_| Error::internal("a slots area has at most 65,535 bytes"))?;
    Ok(Place { offset: slots.start as u64, len, binding })
}

fn encrypt_opened<R: Read>(mut source: Watched<'_, R>, target: Target, encryptor: Encryptor) -> Result<u64> {
    let path = target.new.target().to_path_buf();
    let (head_len, layout) = (encryptor.head().len() as u64, encryptor.layout());
    let mut writer = encryptor.into_writer(target.new);
    let length = copy_all(&mut source, &mut writer)?;
    let new = writer.finish().map_err(|error| Error::from(error).with_path(&path))?;
    source.watch.check()?;
    journal::commit_over(new, target.old)?;
    Ok(head_len + layout.sealed_len(length)?)
}

pub(super) async fn decrypt_opened(
    mut reader: impl Read + Send + 'static,
    total: Option<u64>,
    to: &Path,
    options: FileOptions,
) -> Result<u64> {
    let to = to.to_path_buf();
    offload(move |cancelled| {
        let mut target = open_target(&to, &options)?;
        let mut source = Watched { inner: &mut reader, watch: Watch::new(&options, cancelled, total) };
        let length = copy_all(&mut source, &mut target.new)?;
        source.watch.check()?;
        target.commit_plaintext()?;
        Ok(length)
    })
    .await
}

/// Copies all of `source`; what fails names `path` unless it names one of its own.
pub(super) fn copy(source: &mut impl Read, target: &mut impl Write, path: &Path) -> Result<u64> {
    copy_all(source, target).map_err(|error| named(error, path))
}

pub(super) fn named(error: Error, path: &Path) -> Error {
    if error.path().is_none() { error.with_path(path) } else { error }
}

fn copy_all(source: &mut impl Read, target: &mut impl Write) -> Result<u64> {
    let mut buffer = Zeroizing::new(vec![0; COPY_LEN]);
    let mut done = 0;
    loop {
        let count = fill(source, &mut buffer)?;
        target.write_all(buffer.get(..count).unwrap_or_default())?;
        done += count as u64;
        if count < buffer.len() {
            return Ok(done);
        }
    }
}

/// Bytes that a copy takes at once.
const COPY_LEN: usize = 1 << 20;

/// Reports progress, and ends when the caller has gone.
struct Watched<'a, R> {
    inner: R,
    watch: Watch<'a>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.watch.check()?;
        let count = self.inner.read(out)?;
        self.watch.advance(count as u64);
        Ok(count)
    }
}
