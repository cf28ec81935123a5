//! Rewrap: new slots on an unchanged core and body (docs/format.md, rule 5).

use crate::context::EncryptionContext;
use crate::durable::{AtomicFile, LockedFile, OsFileSystem, Overwrite};
use crate::envelope::Envelope;
use crate::envelope::file::{self, LOCK_WAIT, Stop};
use crate::envelope::head::read_header;
use crate::envelope::offload::{Cancelled, offload};
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal;
use crate::material::EncryptedDataKey;
use crate::native::header::{Header, Limits, Outline, SlotsRoom, encode_slots};
use crate::provider::multi::more_retryable;
use crate::provider::{DataKeyAnswer, Recipient, Recipients};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How [`rewrap_file`](Envelope::rewrap_file) works.
#[derive(Clone, Debug, Default)]
pub struct RewrapOptions {
    mode: RewrapMode,
    to: Option<PathBuf>,
    stop: Stop,
    removal: Removal,
}

/// What becomes of a recipient that the new envelope does not write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Removal {
    #[default]
    Tell,
    Refuse,
}

/// Whether this process sees the data key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewrapMode {
    /// The data key is decrypted, checked against the message, and encrypted anew. The default.
    #[default]
    Open,
    /// The KMS re-encrypts the wrapped key inside: this process never sees the data key.
    ///
    /// It cannot see that a slot was swapped, so keep the old key until
    /// [`verify_file`](Envelope::verify_file) has opened the message under the new one.
    Blind,
}

impl RewrapOptions {
    /// Sets the mode. Default: [`RewrapMode::Open`].
    #[must_use]
    pub fn mode(mut self, mode: RewrapMode) -> Self {
        self.mode = mode;
        self
    }

    /// Writes the message to another file, which must not exist, and leaves this one as it is.
    #[must_use]
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.to = Some(path.into());
        self
    }

    /// Fails with kind [`InvalidInput`](ErrorKind::InvalidInput) if a recipient would be removed that the
    /// reading envelope has no key of: its source is then [`Recipients`]. For a rewrap that is to bring the
    /// caller's own slots up to date, and nothing else. Default: the new envelope's recipients replace all
    /// that the message has, and [`Rewrapped::removed`] tells which.
    #[must_use]
    pub fn keep_others(mut self) -> Self {
        self.removal = Removal::Refuse;
        self
    }

    /// Ends a copy to a new file soon after `flag` is set, as
    /// [`FileOptions::stop_when`](crate::FileOptions::stop_when) does. A rewrap in place is over too soon for that.
    #[must_use]
    pub fn stop_when(mut self, flag: Arc<AtomicBool>) -> Self {
        self.stop = Stop::when(flag);
        self
    }
}

/// What a rewrap did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrapped {
    /// Whether only the slots were overwritten; else the message was copied to a new file, because
    /// the new slots did not fit or because the caller asked for it.
    pub in_place: bool,
    /// Something about an earlier, interrupted rewrap that a person should read.
    pub notice: Option<&'static str>,
    /// Recipients that the message had and has no longer, by provider name and key id as it told them.
    pub removed: Vec<Recipient>,
}

impl Envelope {
    /// Encrypts the data key of the message at `path` for the recipients of `new` instead of those it
    /// has. Core and body stay as they are, and so does the encryption context: milliseconds at any
    /// size, unless the new slots do not fit.
    ///
    /// This envelope opens the message; `new` says who can open it afterwards, and nothing that the
    /// file says does: a recipient that `new` does not write is removed, which
    /// [`Rewrapped::removed`] tells and [`RewrapOptions::keep_others`] refuses. **A rewrap is not a revocation**: whoever had the data key or a copy of the old
    /// file still has it.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments; the new provider's own;
    /// [`Unsupported`](ErrorKind::Unsupported) for a blind rewrap that no KMS can do inside;
    /// [`Busy`](ErrorKind::Busy) after half a minute of waiting for another rewrap of the same file.
    pub async fn rewrap_file(
        &self,
        path: impl AsRef<Path>,
        new: &Envelope,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<Rewrapped> {
        let path = path.as_ref().to_path_buf();
        let opened = offload({
            let (path, limits) = (path.clone(), self.config.limits.clone());
            move |_| Opened::lock(&path, &limits)
        })
        .await?;
        let slots = match options.mode {
            RewrapMode::Open => self.slots_open(&opened.header, new, context).await,
            RewrapMode::Blind => self.slots_blind(&opened.header, new, context).await,
        };
        let slots = slots.map_err(|error| error.with_path(&path))?;
        let removed = removed(&opened.header, &slots);
        if options.removal == Removal::Refuse {
            self.keep_others(&opened.header, &removed, context).await.map_err(|error| error.with_path(&path))?;
        }
        let (in_place, notice) = offload(move |cancelled| opened.write(&slots, &options, cancelled)).await?;
        Ok(Rewrapped { in_place, notice, removed })
    }

    /// # Errors
    /// Kind InvalidInput if a slot of those `removed` is not this envelope's own. One that is, under an
    /// older key of an alias, say, was moved by its owner.
    async fn keep_others(&self, header: &Header, removed: &[Recipient], context: &EncryptionContext) -> Result<()> {
        let kms = self.reader_context(header, context)?.kms;
        let mut others = Vec::new();
        let mut asked = 0;
        for slot in header.slots() {
            let recipient = Recipient::from(slot);
            if !removed.contains(&recipient) {
                continue;
            }
            if !slot.is_missing() && asked < self.config.limits.slots_tried {
                match self.config.provider.decrypt_data_key(slot, &kms).await {
                    DataKeyAnswer::NotMine => {}
                    DataKeyAnswer::Key(_) | DataKeyAnswer::Failed(_) => {
                        asked += 1;
                        continue;
                    }
                }
            }
            others.push(recipient);
        }
        if others.is_empty() {
            return Ok(());
        }
        let others = Recipients(others);
        Err(Error::invalid_input(format!("this rewrap would remove recipients of the message: {others}"))
            .with_source(others)
            .with_advice("nothing was changed: give a provider for each that is to stay, or let the others go"))
    }

    async fn slots_open(
        &self,
        header: &Header,
        new: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Vec<EncryptedDataKey>> {
        let mut tries = self.tries();
        let unlocked = self.unlock(header, context, &mut tries).await?;
        new.config.provider.encrypt_data_key(&unlocked.key, &unlocked.kms).await
    }

    async fn slots_blind(
        &self,
        header: &Header,
        new: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Vec<EncryptedDataKey>> {
        let kms = self.reader_context(header, context)?.kms;
        let mut failure = None;
        let mut failed = 0;
        for slot in header.slots().iter().filter(|slot| !slot.is_missing()) {
            match new.config.provider.re_encrypt_data_key(slot, &kms).await {
                Ok(Some(slots)) => return Ok(slots),
                // A slot that is not the provider's costs no call, and so no try.
                Ok(None) => {}
                Err(error) => {
                    failure = more_retryable(failure, error);
                    failed += 1;
                }
            }
            if failed == self.config.limits.slots_tried {
                break;
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::new(ErrorKind::Unsupported, "no key provider re-encrypts a key of this message inside its KMS")
                .with_advice("rewrap openly, with a provider that may decrypt")
        }))
    }
}

/// Who has a slot in the message and none among the new ones.
fn removed(header: &Header, slots: &[EncryptedDataKey]) -> Vec<Recipient> {
    let stays = |old: &Recipient| slots.iter().any(|new| Recipient::from(new) == *old);
    header.slots().iter().map(Recipient::from).filter(|old| !stays(old)).collect()
}

/// A message file under an exclusive lock, its journal recovered.
struct Opened {
    file: LockedFile,
    outline: Outline,
    header: Header,
    notice: Option<&'static str>,
}

impl Opened {
    fn lock(path: &Path, limits: &Limits) -> Result<Self> {
        let file = LockedFile::open(Arc::new(OsFileSystem), path, LOCK_WAIT)?;
        let mut notice = None;
        if let Some((outline, raw)) = file::read_outline(&mut file.file()) {
            notice = file::recover(&file, outline, &raw)?.notice();
        }
        let mut handle = file.file();
        handle.rewind().map_err(|e| Error::io_at("the file cannot be read", path, e))?;
        let header = read_header(&mut handle, limits).map_err(|error| error.with_path(path))?;
        Ok(Self { outline: header.outline(), file, header, notice })
    }

    /// Whether that was in place, and what a person should read.
    fn write(
        self,
        slots: &[EncryptedDataKey],
        options: &RewrapOptions,
        cancelled: &Cancelled,
    ) -> Result<(bool, Option<&'static str>)> {
        let core_len = self.header.core().len();
        let notice = self.notice;
        let room = SlotsRoom::Exactly(self.outline.slots().len());
        if options.to.is_none()
            && let Ok(area) = encode_slots(slots, room, core_len)
        {
            let binding = self.outline.binding(self.header.as_bytes());
            journal::rewrite(&self.file, file::place(self.outline, &binding)?, &area)?;
            return Ok((true, notice));
        }
        let area = encode_slots(slots, SlotsRoom::Spare, core_len)?;
        self.copy(&area, options, cancelled)?;
        Ok((false, notice))
    }

    /// The message with other slots, to a new file that takes the old one's place or another name.
    fn copy(self, area: &[u8], options: &RewrapOptions, cancelled: &Cancelled) -> Result<()> {
        let old = self.file.path().to_path_buf();
        let (target, overwrite) = match &options.to {
            Some(to) => (to.as_path(), Overwrite::Never),
            None => (old.as_path(), Overwrite::Replace),
        };
        let mut new = AtomicFile::create(Arc::new(OsFileSystem), target, overwrite)?;
        if options.to.is_none() {
            let metadata =
                self.file.file().metadata().map_err(|e| Error::io_at("the file cannot be looked at", &old, e))?;
            new.set_mode(metadata.permissions().mode());
        }
        let head = self.header.with_slots_area(area)?;
        std::io::Write::write_all(&mut new, head.as_bytes())?;
        let mut body = self.file.file();
        body.seek(SeekFrom::Start(self.header.len() as u64))
            .map_err(|e| Error::io_at("the file cannot be read", &old, e))?;
        let mut body = Stoppable { inner: body, stop: &options.stop, cancelled };
        file::copy(&mut body, &mut new, &old)?;
        let replaced = options.to.is_none().then_some(self.file);
        journal::commit_over(new, replaced)
    }
}

/// A body being copied, until the caller has gone or asks to stop.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a Stop,
    cancelled: &'a Cancelled,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.cancelled.check()?;
        self.stop.check()?;
        self.inner.read(out)
    }
}
