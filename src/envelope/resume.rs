//! Resume: an encryption that goes on with what an earlier run left (docs/format.md, rule 10).

use crate::context::{EncryptionContext, KeyUse, WriterContext};
use crate::crypto::random::{Process, SegmentIvs};
use crate::durable::{FileSystem, LockedFile, OsFileSystem, PartialFile, Stamp, partial_path};
use crate::envelope::Envelope;
use crate::envelope::file::{FileOptions, named, open_source, recover_old};
use crate::envelope::head::read_header;
use crate::envelope::offload::{Cancelled, offload};
use crate::envelope::watch::Watch;
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal;
use crate::io::resume::{Body, Standing};
use crate::native::floe::Floe;
use crate::native::header::{Header, Limits, encode_core};
use std::fmt;
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`encrypt_file_resumable`](Envelope::encrypt_file_resumable) works.
#[derive(Clone, Default)]
pub struct ResumeOptions {
    file: FileOptions,
    on_start: Option<Arc<dyn Fn(ResumeStart) + Send + Sync>>,
}

impl ResumeOptions {
    /// Calls `report` once, when it is known whether the call goes on with a partial file, before
    /// anything is sealed.
    #[must_use]
    pub fn on_start(mut self, report: impl Fn(ResumeStart) + Send + Sync + 'static) -> Self {
        self.on_start = Some(Arc::new(report));
        self
    }
}

impl From<FileOptions> for ResumeOptions {
    fn from(file: FileOptions) -> Self {
        Self { file, on_start: None }
    }
}

impl fmt::Debug for ResumeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeOptions").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What a resumable encryption did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Length of the message in bytes.
    pub sealed_len: u64,
    /// What it began with.
    pub start: ResumeStart,
}

/// What a resumable encryption began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResumeStart {
    /// No partial file was there.
    Begun,
    /// It went on with a partial file, whose whole segments were verified and are kept as they are.
    Continued {
        /// How many segments were kept.
        verified_segments: u64,
        /// How many bytes of the source they hold.
        verified_len: u64,
    },
    /// A partial file was there, and could not be gone on with: a new message was begun, under a fresh
    /// data key. Tell whoever waits for it.
    BegunAnew(Restart),
}

/// Why an encryption began a new message although a partial file was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// The source was changed since the partial file was begun, or may have been.
    SourceChanged,
    /// The file system does not tell when a file was made, and so not whether the source is older.
    SourceAgeUnknown,
    /// The partial file is for other recipients than the key provider's, or one of them was missing.
    OtherRecipients,
    /// The key provider does not open the partial file.
    OtherKey,
    /// The partial file is bound to another encryption context.
    OtherContext,
    /// The partial file was begun with another AEAD.
    OtherAead,
    /// The partial file holds no head of a message, or one of its segments is not authentic.
    Damaged,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceChanged => "the file was changed since the message was begun, or may have been",
            Self::SourceAgeUnknown => "this file system does not tell whether the file was changed since",
            Self::OtherRecipients => "the message that was begun is for other keys",
            Self::OtherKey => "the keys do not open the message that was begun",
            Self::OtherContext => "the message that was begun has another encryption context",
            Self::OtherAead => "the message that was begun has another cipher",
            Self::Damaged => "the message that was begun is damaged",
        })
    }
}

impl Envelope {
    /// As [`encrypt_file`](Self::encrypt_file), and when it ends early (an error, a kill, a power
    /// failure), what was sealed stays in a [partial file](Self::partial_path) beside the target. The
    /// same call then goes on from there: every segment that lies whole in it is opened and compared
    /// with the source, and is never sealed again.
    ///
    /// A new message is begun instead, and the answer says so, when the source was changed since, or
    /// the partial file does not verify; see [`Restart`]. Segment length and slots are those that the
    /// message was begun with. No key is stored anywhere but encrypted, in the message's slots: the
    /// provider must be able to decrypt. It is asked itself, and the message's data key serves nothing else,
    /// whatever [cache](Self::cache) the envelope has.
    ///
    /// ```no_run
    /// # async fn example(envelope: envelock::Envelope) -> Result<(), envelock::Error> {
    /// use envelock::{EncryptionContext, FileOptions, ResumeStart};
    /// let context = EncryptionContext::from([("object", "backup.tar")]);
    /// let options = FileOptions::default();
    /// let done = envelope.encrypt_file_resumable("backup.tar", "backup.tar.elk", &context, options).await?;
    /// if let ResumeStart::BegunAnew(why) = done.start {
    ///     eprintln!("a new message was begun, since {why}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `from` is a regular file that nobody writes to meanwhile. A later call that writes `to` in
    /// another way removes the partial file.
    ///
    /// # Errors
    /// As [`encrypt_file`](Self::encrypt_file). [`InvalidInput`](ErrorKind::InvalidInput) if `from` is no
    /// regular file, or if what lies at the partial file's name is not to be trusted: no regular file, a
    /// link, somebody else's, or open to others. [`Busy`](ErrorKind::Busy) if another call is at work
    /// in the partial file, or the source changed under the work. The provider's own, where it cannot
    /// say whether it opens the partial file; that then stays.
    pub async fn encrypt_file_resumable(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: impl Into<ResumeOptions>,
    ) -> Result<Resumed> {
        let fs = Arc::new(OsFileSystem);
        // What goes on later knows of no cache, and pays none for what it seals.
        self.without_cache().encrypt_resumable_in(fs, from.as_ref(), to.as_ref(), context, options.into()).await
    }

    /// Where [`encrypt_file_resumable`](Self::encrypt_file_resumable) keeps the partial file of `to`:
    /// `.NAME.envelock-partial` in the same folder, links resolved.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path that names no file, or a name of more than
    /// 237 bytes.
    pub fn partial_path(to: impl AsRef<Path>) -> Result<PathBuf> {
        partial_path(to.as_ref())
    }

    async fn encrypt_resumable_in(
        &self,
        fs: Arc<dyn FileSystem>,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: ResumeOptions,
    ) -> Result<Resumed> {
        // Before the key is at hand: whoever forks later has another process id.
        let made_by = Process::current();
        let core = encode_core(&WriterContext::new(context, KeyUse::Message)?, 0)?;
        let (mut work, found) = offload({
            let (from, to, limits) = (from.to_path_buf(), to.to_path_buf(), self.config.limits.clone());
            move |_| Work::open(fs, from, &to, options, &limits)
        })
        .await?;
        let restart = match self.message_of(found, &core, context, made_by).await? {
            Found::It(message) => match offload(move |cancelled| work.go_on(&message, cancelled)).await? {
                Outcome::Done(resumed) => return Ok(resumed),
                Outcome::Anew(returned, restart) => {
                    work = *returned;
                    Some(restart)
                }
            },
            Found::Useless(restart) => Some(restart),
            Found::Nothing => None,
        };
        self.begin(work, restart, context).await
    }

    async fn begin(&self, work: Work, restart: Option<Restart>, context: &EncryptionContext) -> Result<Resumed> {
        let (head, segments, made_by) = self.file_encryptor(context).await?.into_parts();
        let message = Message { segments, head_len: head.len() as u64, made_by };
        offload(move |cancelled| work.begin(&head, &message, restart, cancelled)).await
    }

    /// Why the message that begins with `header` is not one that this envelope would make now.
    fn restart(&self, header: &Header, core: &[u8]) -> Option<Restart> {
        let config = &self.config;
        let mut wanted: Vec<_> = config.provider.recipients().into_iter().map(|it| (it.provider, it.key_id)).collect();
        let slots = header.slots();
        let mut there: Vec<_> = slots.iter().map(|it| (it.provider().to_owned(), it.key_id().to_vec())).collect();
        wanted.sort();
        there.sort();
        if header.core() != core {
            // Flags and entries: what is stored now must be stored there, and nothing else.
            Some(Restart::OtherContext)
        } else if header.aead() != config.aead {
            Some(Restart::OtherAead)
        } else if wanted != there || slots.iter().any(|slot| slot.is_missing()) {
            Some(Restart::OtherRecipients)
        } else {
            None
        }
    }

    /// The message that was begun, if the provider opens it.
    ///
    /// # Errors
    /// The provider's own, where it cannot tell.
    async fn message_of(
        &self,
        found: Found<Header>,
        core: &[u8],
        context: &EncryptionContext,
        made_by: Process,
    ) -> Result<Found<Message>> {
        let header = match found {
            Found::It(header) => header,
            Found::Useless(restart) => return Ok(Found::Useless(restart)),
            Found::Nothing => return Ok(Found::Nothing),
        };
        if let Some(restart) = self.restart(&header, core) {
            return Ok(Found::Useless(restart));
        }
        match self.unlock(&header, context, &mut self.tries()).await {
            Ok(decryptor) => {
                let segments = decryptor.into_segments();
                Ok(Found::It(Message { segments, head_len: header.len() as u64, made_by }))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NoMatchingKey | ErrorKind::AuthenticationFailed) => {
                Ok(Found::Useless(Restart::OtherKey))
            }
            Err(error) => Err(error),
        }
    }
}

/// What an earlier run left.
enum Found<T> {
    Nothing,
    It(T),
    Useless(Restart),
}

/// What came of going on.
enum Outcome {
    Done(Resumed),
    Anew(Box<Work>, Restart),
}

/// A message that is being written.
struct Message {
    segments: Arc<Floe>,
    head_len: u64,
    made_by: Process,
}

/// A source, the partial file that it goes to, and the message that this will replace.
struct Work {
    from: PathBuf,
    source: File,
    stamp: Stamp,
    partial: PartialFile,
    old: Option<LockedFile>,
    options: ResumeOptions,
}

impl Work {
    fn open(
        fs: Arc<dyn FileSystem>,
        from: PathBuf,
        to: &Path,
        options: ResumeOptions,
        limits: &Limits,
    ) -> Result<(Self, Found<Header>)> {
        let source = open_source(&from)?;
        if !source.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::invalid_input(
                "an encryption that can be resumed reads a regular file, no pipe or device",
            )
            .with_path(&from)
            .with_advice("encrypt without resuming, or from a file"));
        }
        let partial = PartialFile::open(fs, to, options.file.overwrite())?;
        let old = if options.file.replaces() { recover_old(to, limits)? } else { None };
        // After the partial file is there: what changes from here on is younger than that.
        let stamp = stamp(&source, &from)?;
        let found = look(&partial, &stamp, limits)?;
        Ok((Self { from, source, stamp, partial, old, options }, found))
    }

    /// Opens every whole segment and compares it with the source, then seals the rest.
    fn go_on(self, message: &Message, cancelled: &Cancelled) -> Result<Outcome> {
        let body = self.body(message)?;
        let mut watch = Watch::new(&self.options.file, cancelled, Some(self.stamp.len()));
        let (file, path) = (self.partial.file(), self.partial.path());
        let len = file.metadata().map_err(|e| Error::io_at("cannot look at this partial file", path, e))?.len();
        let sealed_len = len.saturating_sub(message.head_len);
        let standing = body.verify(file, message.head_len, sealed_len, &mut |count| {
            watch.advance(count);
            watch.check().map_err(kept)
        });
        let restart = match standing.map_err(|error| named(error, &self.from))? {
            Standing::Verified(verified_segments) => {
                let verified_len = body.plaintext_before(verified_segments);
                let start = ResumeStart::Continued { verified_segments, verified_len };
                return self.seal(message, verified_segments, start, cancelled).map(Outcome::Done);
            }
            Standing::SourceDiffers => Restart::SourceChanged,
            Standing::Damaged => Restart::Damaged,
        };
        Ok(Outcome::Anew(Box::new(self), restart))
    }

    fn begin(
        mut self,
        head: &[u8],
        message: &Message,
        restart: Option<Restart>,
        cancelled: &Cancelled,
    ) -> Result<Resumed> {
        if self.partial.is_found() {
            self.partial = self.partial.begin_anew()?;
            self.stamp = stamp(&self.source, &self.from)?;
        }
        self.partial.write_at(head, 0)?;
        self.seal(message, 0, restart.map_or(ResumeStart::Begun, ResumeStart::BegunAnew), cancelled)
    }

    /// Seals what follows the first `verified` segments, and puts the message in its place.
    fn seal(self, message: &Message, verified: u64, start: ResumeStart, cancelled: &Cancelled) -> Result<Resumed> {
        if let Some(report) = &self.options.on_start {
            report(start);
        }
        let body = self.body(message)?;
        let done = body.plaintext_before(verified);
        let mut watch = Watch::new(&self.options.file, cancelled, Some(self.stamp.len())).starting_at(done);
        let mut ivs = SegmentIvs::new(message.made_by);
        // A message that lies whole needs no IV, which would tell a fork.
        message.made_by.check()?;
        body.seal_from(
            verified,
            &mut ivs,
            &mut |segments, offset| self.partial.write_at(segments, message.head_len + offset),
            &mut |count| {
                watch.advance(count);
                watch.check().map_err(kept)
            },
        )
        .map_err(|error| named(error, &self.from))?;
        watch.check().map_err(kept)?;
        if stamp(&self.source, &self.from)? != self.stamp {
            return Err(Error::source_changes().with_path(&self.from));
        }
        let sealed_len = message.head_len + body.sealed_len();
        journal::commit_over(self.partial.into_atomic(), self.old)?;
        Ok(Resumed { sealed_len, start })
    }

    fn body<'a>(&'a self, message: &'a Message) -> Result<Body<'a>> {
        Body::new(&*message.segments, &self.source, self.stamp.len()).map_err(|error| named(error, &self.from))
    }
}

fn stamp(source: &File, path: &Path) -> Result<Stamp> {
    Stamp::of(source).map_err(|e| Error::io_at("the file cannot be looked at", path, e))
}

/// What an earlier run left, if the source is older than that.
fn look(partial: &PartialFile, source: &Stamp, limits: &Limits) -> Result<Found<Header>> {
    let mut file = partial.file();
    let failed = |e| Error::io_at("cannot read this partial file", partial.path(), e);
    if !partial.is_found() || file.metadata().map_err(failed)?.len() == 0 {
        return Ok(Found::Nothing);
    }
    match partial.born() {
        None => return Ok(Found::Useless(Restart::SourceAgeUnknown)),
        Some(born) if !source.is_before(born) => return Ok(Found::Useless(Restart::SourceChanged)),
        Some(_) => {}
    }
    file.rewind().map_err(failed)?;
    match read_header(&mut file, limits) {
        Ok(header) => Ok(Found::It(header)),
        Err(error) if error.kind() == ErrorKind::Io => Err(error.with_path(partial.path())),
        Err(_) => Ok(Found::Useless(Restart::Damaged)),
    }
}

/// Work that was stopped, and is not lost.
fn kept(error: Error) -> Error {
    error.with_advice("what was sealed stays in the partial file beside the target: the same call goes on from there")
}

#[cfg(test)]
mod tests;
