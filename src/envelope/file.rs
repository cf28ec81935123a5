//! Files: encrypted, decrypted and replaced atomically.

use crate::cache::held::Need;
use crate::context::EncryptionContext;
use crate::crypto::random::SegmentIvs;
use crate::durable::{AtomicFile, LockedFile, OsFileSystem, Overwrite};
use crate::envelope::Envelope;
use crate::envelope::head::read_header;
use crate::envelope::message::{Decryptor, Encryptor};
use crate::envelope::offload::offload;
use crate::envelope::watch::{Watch, Watched};
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal::{self, Place};
use crate::io::parallel::{self, Threads};
use crate::io::read::DecryptReader;
use crate::native::header::{Header, HeaderParse, Limits, Outline};
use crate::native::slots::SlotsRoom;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How far an operation on a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of input taken; of a range, bytes of plaintext. The head of a message does not count.
    pub done: u64,
    /// Bytes of input in all, where that is known.
    pub total: Option<u64>,
}

/// How [`encrypt_file`](Envelope::encrypt_file), [`decrypt_file`](Envelope::decrypt_file) and their likes for
/// streams work.
#[derive(Clone, Default)]
pub struct FileOptions {
    replace: bool,
    pub(super) threads: Threads,
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
                Err(Error::new(ErrorKind::Io, "stopped, as the caller asked"))
            }
            _ => Ok(()),
        }
    }
}

impl FileOptions {
    /// Replaces an existing target. Default: it is kept, and the call fails. Means nothing where the output is a
    /// sink.
    #[must_use]
    pub fn replace_existing(mut self) -> Self {
        self.replace = true;
        self
    }

    /// On how many threads segments are sealed and opened. Default: [`Threads::auto`]. What comes out is
    /// the same with any number. Resuming, recovering and decrypting a range work on one, and do not look
    /// at this.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// Calls `report` about once for each MiB, on one of the working threads, one call at a time. It should
    /// return quickly: reading waits for it.
    #[must_use]
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(report));
        self
    }

    /// Ends the call with an error of kind [`Io`](ErrorKind::Io) soon after `flag` is set, between two
    /// reads of a segment or some. What was begun is undone before the call returns, but for what
    /// has reached a sink and for the partial file of a resumable encryption: for a program that is told
    /// to end, and must not leave temporary files. (Dropping the future of a call cancels
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
        f.debug_struct("FileOptions")
            .field("replace", &self.replace)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
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
            let (to, options, limits) = (to.to_path_buf(), options.clone(), self.config.limits.clone());
            move |_| open_target(&to, &options, &limits)
        })
        .await?;
        let need = total.map_or(Need::Growing, Need::About);
        let encryptor = self.encryptor_with_room(context, SlotsRoom::Spare, need).await?;
        offload(move |cancelled| {
            let source = Watch::new(&options, cancelled, total).over(source);
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
        let total = message.body_len();
        let done = self.decrypt_sized(message.decryptor, message.file, total, to.as_ref(), options).await;
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
        let (decryptor, source) = self.decryptor_of_stream(source, context).await?;
        self.decrypt_sized(decryptor, source, None, to.as_ref(), options).await
    }

    /// Reads the head of a message from `source`, which then stands at the first segment.
    pub(super) async fn decryptor_of_stream<R: Read + Send + 'static>(
        &self,
        mut source: R,
        context: &EncryptionContext,
    ) -> Result<(Decryptor, R)> {
        let limits = self.config.limits.clone();
        let (source, header) = offload(move |_| {
            let header = read_header(&mut source, &limits)?;
            Ok((source, header))
        })
        .await?;
        Ok((self.decryptor(&header, context).await?, source))
    }

    /// `source` stands at the first segment; `total` is how many bytes of segments it holds, if that is known.
    async fn decrypt_sized(
        &self,
        decryptor: Decryptor,
        source: impl Read + Send + 'static,
        total: Option<u64>,
        to: &Path,
        options: FileOptions,
    ) -> Result<u64> {
        let (to, limits) = (to.to_path_buf(), self.config.limits.clone());
        offload(move |cancelled| {
            let target = open_target(&to, &options, &limits)?;
            let source = Watch::new(&options, cancelled, total).over(source);
            decrypt_opened(source, target, &decryptor)
        })
        .await
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
        self.encryptor_with_room(context, SlotsRoom::Spare, Need::Growing).await
    }

    /// Opens the message in the file at `path`, in spite of a rewrap that is under way or was
    /// interrupted: "a reader whose open fails tries the new, then the old slots of such a journal,
    /// caps counted over all tries, then re-reads the file's slots once before it reports".
    pub(super) async fn open_message(&self, path: &Path, context: &EncryptionContext) -> Result<Message> {
        let mut tries = self.tries();
        let mut heads = Heads::of(path, &self.config.limits).await?;
        let mut failure = None;
        while let Some(header) = heads.next().await {
            match self.unlock(&header, context, &mut tries).await {
                Ok(decryptor) => return heads.into_message(decryptor, header.len()),
                // The file's own slots are what the caller asked about.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(heads.failed(failure))
    }
}

/// A message file that was opened with its key.
pub(super) struct Message {
    /// Stands at the first segment.
    pub(super) file: File,
    pub(super) decryptor: Decryptor,
    pub(super) head_len: u64,
}

impl Message {
    pub(super) fn body_len(&self) -> Option<u64> {
        let length = self.file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        length.checked_sub(self.head_len)
    }

    fn into_reader(self) -> DecryptReader<File> {
        self.decryptor.into_reader(self.file)
    }
}

/// The heads that a message file may have, in the order to try them: its own, and those of a rewrap that
/// is under way or was interrupted.
pub(super) struct Heads {
    head: Arc<Head>,
    limits: Limits,
    own_was_next: bool,
    /// Not looked for unless the file's own is of no use.
    others: Option<std::vec::IntoIter<Header>>,
}

impl Heads {
    pub(super) async fn of(path: &Path, limits: &Limits) -> Result<Self> {
        let (path, limits) = (path.to_path_buf(), limits.clone());
        offload(move |_| {
            let head = Arc::new(Head::read(path, &limits)?);
            Ok(Self { head, limits, own_was_next: false, others: None })
        })
        .await
    }

    pub(super) async fn next(&mut self) -> Option<Header> {
        if !std::mem::replace(&mut self.own_was_next, true)
            && let Ok(header) = &self.head.header
        {
            return Some(header.clone());
        }
        if self.others.is_none() {
            let (head, limits) = (Arc::clone(&self.head), self.limits.clone());
            // A journal that cannot be read is no news to whoever has the wrong key.
            let others = offload(move |_| head.others(&limits)).await.unwrap_or_default();
            self.others = Some(others.into_iter());
        }
        self.others.as_mut()?.next()
    }

    /// What to report when none of them opened: `failure` of the file's own, or what is wrong with that.
    pub(super) fn failed(self, failure: Option<Error>) -> Error {
        let path = self.head.path.clone();
        let header = Arc::into_inner(self.head).and_then(|head| head.header.err());
        failure
            .or(header)
            .unwrap_or_else(|| Error::internal("a message that failed to open has an error"))
            .with_path(path)
    }

    /// The file, which stands at the first segment: after `head_len` bytes.
    pub(super) fn into_file(self, head_len: usize) -> Result<File> {
        // The thread that looked for the others has dropped its share: its answer came after that.
        let head = Arc::into_inner(self.head).ok_or_else(|| Error::internal("a file is in use by a call that ended"));
        let mut file = head?.file;
        // A seek in a regular file to a place that was read before; a pipe stands there already.
        let _ = file.seek(SeekFrom::Start(head_len as u64));
        Ok(file)
    }

    fn into_message(self, decryptor: Decryptor, head_len: usize) -> Result<Message> {
        Ok(Message { file: self.into_file(head_len)?, decryptor, head_len: head_len as u64 })
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
            Err(_) => read_outline(&mut file, limits),
        };
        Ok(Self { path, file, header, raw })
    }

    /// The head with the slots of the journal, new and old, and with those that the file has now.
    fn others(&self, limits: &Limits) -> Result<Vec<Header>> {
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
            && let Some((outline_now, raw_now)) = read_outline(&mut again, limits)
            && outline_now == *outline
            && raw_now != *raw
        {
            areas.push(raw_now.get(outline.slots()).unwrap_or_default().to_vec());
        }
        let mut headers = Vec::new();
        for area in areas {
            if let Ok(HeaderParse::Complete(header)) = Header::parse_some(&outline.with_slots_area(raw, &area)?, limits)
            {
                headers.push(header);
            }
        }
        Ok(headers)
    }
}

/// The head's bytes and where its parts lie, whatever the slots hold.
pub(super) fn read_outline<F: Read + Seek>(file: &mut F, limits: &Limits) -> Option<(Outline, Vec<u8>)> {
    file.rewind().ok()?;
    let mut raw = Vec::new();
    file.take(Outline::len_max(limits)).read_to_end(&mut raw).ok()?;
    let outline = Outline::of(&raw, limits)?;
    raw.truncate(outline.len());
    Some((outline, raw))
}

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

pub(super) fn open_target(path: &Path, options: &FileOptions, limits: &Limits) -> Result<Target> {
    let new = AtomicFile::create(Arc::new(OsFileSystem), path, options.overwrite())?;
    let old = if options.replace { recover_old(path, limits)? } else { None };
    Ok(Target { new, old })
}

/// "Replacing a file recovers its journal first."
pub(super) fn recover_old(path: &Path, limits: &Limits) -> Result<Option<LockedFile>> {
    if !path.exists() {
        return Ok(None);
    }
    let old = match LockedFile::open(Arc::new(OsFileSystem), path, LOCK_WAIT) {
        Ok(old) => old,
        // A file that may be replaced and not written is no message whose rewrap is under way.
        Err(error) if error.kind() == ErrorKind::Io => return Ok(None),
        Err(error) => return Err(error),
    };
    match read_outline(&mut old.file(), limits) {
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

fn encrypt_opened<R: Read + Send>(source: Watched<'_, R>, target: Target, encryptor: Encryptor) -> Result<u64> {
    let watch = source.watch().clone();
    let plan = watch.plan(encryptor.layout());
    let (head, segments, made_by) = encryptor.into_parts();
    let head_len = head.len() as u64;
    target.new.write_at(&head, 0)?;
    let ivs = SegmentIvs::new(made_by);
    let sealed = parallel::seal_to_file(&*segments, ivs, source, &target.new, head_len, plan)?;
    watch.check()?;
    journal::commit_over(target.new, target.old)?;
    Ok(head_len + sealed)
}

fn decrypt_opened<R: Read + Send>(source: Watched<'_, R>, target: Target, decryptor: &Decryptor) -> Result<u64> {
    let watch = source.watch().clone();
    let plan = watch.plan(decryptor.layout());
    let length = parallel::open_to_file(decryptor.segments(), source, &target.new, plan)?;
    watch.check()?;
    target.commit_plaintext()?;
    Ok(length)
}

/// What fails names `path` unless it names one of its own.
pub(super) fn named(error: Error, path: &Path) -> Error {
    if error.path().is_none() { error.with_path(path) } else { error }
}
