//! Rewrap: new slots on an unchanged core and body (docs/format.md, rule 5).

pub(crate) mod opened;

use crate::cache::handed::ReadingKey;
use crate::context::{EncryptionContext, KmsContext};
use crate::durable::{AtomicFile, FileSystem, Links, OsFileSystem, Overwrite};
use crate::envelope::Envelope;
use crate::envelope::file::{Heads, LOCK_WAIT, Stop};
use crate::envelope::message::{Tries, too_many_tries};
use crate::envelope::offload::offload;
use crate::error::{Error, ErrorKind, Result};
use crate::io::journal;
use crate::material::{DataKey, EncryptedDataKey};
use crate::native::header::{Committed, Head};
use crate::native::slots::PASSPHRASE;
use crate::provider::multi::more_retryable;
use crate::provider::raw::NAME as RAW;
use crate::provider::{DataKeyAnswer, Recipient, Recipients};
use opened::{Copy, Opened};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use subtle::ConstantTimeEq;

/// How [`rewrap_file`](Envelope::rewrap_file) works.
#[derive(Clone, Debug, Default)]
pub struct RewrapOptions {
    mode: RewrapMode,
    pub(super) to: Option<PathBuf>,
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
#[non_exhaustive]
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
    /// [`Rewrapped::removed`] tells and [`RewrapOptions::keep_others`] refuses. **A rewrap is not a
    /// revocation**: whoever had the data key or a copy of the old file still has it.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments; the new provider's own;
    /// [`Unsupported`](ErrorKind::Unsupported) for a blind rewrap that no KMS can do inside;
    /// [`Busy`](ErrorKind::Busy) after half a minute of waiting for another rewrap of the same file, and if somebody else
    /// changed it meanwhile; [`Io`](ErrorKind::Io) also where a copy cannot have the same owner.
    pub async fn rewrap_file(
        &self,
        path: impl AsRef<Path>,
        new: &Envelope,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<Rewrapped> {
        self.rewrap_in(Arc::new(OsFileSystem), path.as_ref(), new, context, options).await
    }

    async fn rewrap_in(
        &self,
        fs: Arc<dyn FileSystem>,
        path: &Path,
        new: &Envelope,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<Rewrapped> {
        let path = path.to_path_buf();
        let limits = self.config.limits.clone();
        let mut tries = self.tries();
        match options.to.clone() {
            None => {
                let opened = offload({
                    let (path, limits) = (path.clone(), limits.clone());
                    move |_| Opened::lock(fs, &path, Links::Follow, &limits, LOCK_WAIT)
                })
                .await?;
                let made = self.slots(opened.header(), new, context, &options, &mut tries).await;
                let (slots, removed) = match made {
                    Ok(Slots::Made(slots, removed)) => (slots, removed),
                    Ok(Slots::NotOpened(error)) | Err(error) => return Err(error.with_path(&path)),
                };
                offload(move |cancelled| {
                    let check = || cancelled.check().and_then(|()| options.stop.check());
                    let written = opened.write(&slots, &limits, check)?;
                    Ok(Rewrapped { in_place: written.in_place, notice: written.notice, removed })
                })
                .await
            }
            Some(to) => {
                // Only read: it may lie on a disk that nobody writes to. A rewrap of it that was
                // interrupted stays for whoever may finish it.
                let mut heads = Heads::of(&path, &limits).await?;
                let mut failure = None;
                while let Some(header) = heads.next().await {
                    match self.slots(&header, new, context, &options, &mut tries).await {
                        Ok(Slots::Made(slots, removed)) => {
                            let file = heads.into_file(header.len())?;
                            let copy = Copy { header, body: file, path, limits };
                            return offload(move |cancelled| {
                                let new = AtomicFile::create(fs, &to, Overwrite::Never)?;
                                let check = || cancelled.check().and_then(|()| options.stop.check());
                                journal::commit_over(copy.write(new, &slots, check)?.0, None)?;
                                Ok(Rewrapped { in_place: false, notice: None, removed })
                            })
                            .await;
                        }
                        Ok(Slots::NotOpened(error)) => failure = failure.or(Some(error)),
                        Err(error) => return Err(error.with_path(&path)),
                    }
                }
                Err(heads.failed(failure))
            }
        }
    }

    /// The data key in `header`, encrypted for the recipients of `new`, and who is none of these any more.
    ///
    /// # Errors
    /// What no other head of the same message changes: the new provider's own, and a refusal.
    pub(super) async fn slots(
        &self,
        committed: &(impl Committed + Sync),
        new: &Envelope,
        context: &EncryptionContext,
        options: &RewrapOptions,
        tries: &mut Tries,
    ) -> Result<Slots> {
        let header = committed.head();
        let (slots, key) = match options.mode {
            // By the provider itself: what a rewrap relies on is what it answers now.
            RewrapMode::Open => match self.without_cache().unlock_head(committed, context, tries).await {
                Ok((_, key, kms)) => {
                    let slots = new.config.provider.encrypt_data_key(key.data_key()?, &kms).await?;
                    (slots, Some(key))
                }
                Err(error) => return Ok(Slots::NotOpened(error)),
            },
            RewrapMode::Blind => match self.slots_blind(header, new, context, tries).await {
                Ok(slots) => (slots, None),
                Err(error) => return Ok(Slots::NotOpened(error)),
            },
        };
        let removed = removed(header, &slots);
        if options.removal == Removal::Refuse {
            self.keep_others(
                header,
                &slots,
                &removed,
                key.as_ref().map(ReadingKey::data_key).transpose()?,
                context,
                tries,
            )
            .await?;
        }
        Ok(Slots::Made(slots, removed))
    }

    /// Without `key`, in a blind rewrap, nothing is decrypted to find out whose a slot is.
    ///
    /// # Errors
    /// Kind InvalidInput if a slot would go that is not this envelope's own. One that is, under an older
    /// key of an alias, say, was moved by its owner.
    async fn keep_others(
        &self,
        header: &Head<'_>,
        slots: &[EncryptedDataKey],
        removed: &[Recipient],
        key: Option<&DataKey>,
        context: &EncryptionContext,
        tries: &mut Tries,
    ) -> Result<()> {
        let kms = self.reader_context(header, context)?.kms;
        let mut others = Vec::new();
        for slot in header.slots().iter().filter(|slot| !slots.contains(slot)) {
            let recipient = Recipient::from(slot);
            // A passphrase has no name, and a raw key one that its owner chose: somebody else's may look
            // like ours.
            let nameless = matches!(slot.provider(), RAW | PASSPHRASE) && !slot.is_missing();
            if !removed.contains(&recipient) && !nameless {
                continue;
            }
            let own = match key {
                Some(key) if !slot.is_missing() => self.is_own(slot, key, &kms, tries).await,
                _ => false,
            };
            if !own {
                others.push(recipient);
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        let others = Recipients(others);
        Err(Error::invalid_input(format!("this rewrap would remove recipients of the message: {others}"))
            .with_source(others)
            .with_advice("nothing was changed: give a provider for each that is to stay, or let the others go"))
    }

    /// Whether this envelope's provider opens `slot` to `key`, or knows it as its own and may not say.
    async fn is_own(&self, slot: &EncryptedDataKey, key: &DataKey, kms: &KmsContext, tries: &mut Tries) -> bool {
        let derives = slot.provider() == PASSPHRASE;
        if tries.slots == 0 || (derives && tries.passphrases == 0) {
            return false;
        }
        let own = match self.config.provider.decrypt_data_key(slot, kms).await {
            DataKeyAnswer::NotMine => return false,
            DataKeyAnswer::Key(found) => found.expose().ct_eq(key.expose()).into(),
            DataKeyAnswer::Failed(error) => error.kind() != ErrorKind::AuthenticationFailed,
        };
        tries.slots -= 1;
        tries.passphrases -= usize::from(derives);
        own
    }

    async fn slots_blind(
        &self,
        header: &Head<'_>,
        new: &Envelope,
        context: &EncryptionContext,
        tries: &mut Tries,
    ) -> Result<Vec<EncryptedDataKey>> {
        let kms = self.reader_context(header, context)?.kms;
        let mut failure = None;
        for slot in header.slots().iter().filter(|slot| !slot.is_missing()) {
            if tries.slots == 0 {
                failure = more_retryable(failure, too_many_tries(self.config.limits.slots_tried));
                break;
            }
            match new.config.provider.re_encrypt_data_key(slot, &kms).await {
                Ok(Some(slots)) => return Ok(slots),
                // A slot that is not the provider's costs no call, and so no try.
                Ok(None) => {}
                Err(error) => {
                    failure = more_retryable(failure, error);
                    tries.slots -= 1;
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::new(ErrorKind::Unsupported, "no key provider re-encrypts a key of this message inside its KMS")
                .with_advice("rewrap openly, with a provider that may decrypt")
        }))
    }
}

/// What came of a head.
pub(super) enum Slots {
    /// New slots, and who has none among them any more.
    Made(Vec<EncryptedDataKey>, Vec<Recipient>),
    /// This head gave no data key: another head of the same message may.
    NotOpened(Error),
}

/// Who has a slot in the message and none among the new ones.
fn removed(header: &Head<'_>, slots: &[EncryptedDataKey]) -> Vec<Recipient> {
    let stays = |old: &Recipient| slots.iter().any(|new| Recipient::from(new) == *old);
    header.slots().iter().map(Recipient::from).filter(|old| !stays(old)).collect()
}

#[cfg(test)]
mod tests;
