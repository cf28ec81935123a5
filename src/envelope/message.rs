//! A message's key and segments: how one is made, and how one is opened (docs/format.md, rules 1, 2).

use crate::cache::handed::{ReadingAnswer, ReadingKey};
use crate::cache::held::Need;
use crate::context::{EncryptionContext, KeyUse, KmsContext, ReaderContext, WriterContext};
use crate::crypto::random::{Process, SegmentIvs};
use crate::envelope::unopened::none_opened;
use crate::envelope::{Envelope, plaintext_buffer};
use crate::error::{Error, ErrorKind, Result};
use crate::io::opener::Opener;
use crate::io::parallel::Threads;
use crate::io::range::remote::{AsyncRangeReader, Opening};
use crate::io::range::source::RangeSource;
use crate::io::range::{RangeReader, ReadAt};
use crate::io::read::DecryptReader;
use crate::io::sealer::Sealer;
use crate::io::whole;
use crate::io::write::EncryptWriter;
use crate::material::{DataKeyLength, EncryptedDataKey};
use crate::native::floe::{FLOE_HEADER_LEN, Floe, one_segment_len};
use crate::native::header::{Committed, Form, Head, core_len, encode_core};
use crate::native::slots::{PASSPHRASE, SlotsRoom, encode_slots};
use crate::provider::multi::more_retryable;
use crate::provider::{Recipient, Recipients};
use crate::segments::{Layout, Position, ResumePoint, Segments};
use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

/// A message about to be written: its head and a key for its segments.
///
/// It serves the process that made it: in a fork of that, whatever seals answers with an error.
pub struct Encryptor {
    message: Prepared,
    made_by: Process,
}

impl Encryptor {
    /// The head of the message. It comes before the segments, or is kept apart from them.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.message.head
    }

    /// Lengths and offsets of the segments.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.message.segments.layout()
    }

    /// Length of the whole message of a plaintext of `plaintext_len` bytes.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) past 2^40 segments or 2^60 bytes.
    pub fn sealed_len(&self, plaintext_len: u64) -> Result<u64> {
        self.message.sealed_len(plaintext_len)
    }

    /// The whole message of `plaintext`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) in a fork,
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub fn seal(self, plaintext: &[u8]) -> Result<Vec<u8>> {
        self.made_by.check()?;
        self.message.seal(plaintext)
    }

    /// The whole message of `plaintext` into `out`, which has exactly [`sealed_len`](Self::sealed_len)
    /// bytes. One pass over the data.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for another length of `out`, and in a
    /// fork; [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub fn seal_to(self, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        self.made_by.check()?;
        self.message.seal_to(plaintext, out)
    }

    /// A writer that puts the head and then the segments into `inner`.
    pub fn into_writer<W: Write>(self, inner: W) -> EncryptWriter<W> {
        EncryptWriter::new(inner, self.into_sealer())
    }

    /// Head, segments, and the process that may seal them.
    pub(super) fn into_parts(self) -> (Vec<u8>, Arc<Floe>, Process) {
        (self.message.head, Arc::new(self.message.segments), self.made_by)
    }

    /// A writer of the segments alone, for a [head](Self::head) that is kept apart.
    pub fn into_segment_writer<W: Write>(self, inner: W) -> EncryptWriter<W> {
        EncryptWriter::new(inner, self.into_segment_sealer())
    }

    /// The head and the segments, for a shell.
    pub(super) fn into_sealer(self) -> Sealer {
        let (head, segments, made_by) = self.into_parts();
        Sealer::new(head, segments, SegmentIvs::new(made_by))
    }

    /// The segments alone, for a shell.
    pub(super) fn into_segment_sealer(self) -> Sealer {
        let (_, segments, made_by) = self.into_parts();
        Sealer::new(Vec::new(), segments, SegmentIvs::new(made_by))
    }
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("segments", &self.message.segments).finish_non_exhaustive()
    }
}

/// Head and key of a new message, for the call that made them, or with the process it may serve.
pub(crate) struct Prepared {
    /// With room for the one segment behind it, where that is short and its length was known.
    head: Vec<u8>,
    segments: Floe,
    /// For calls on slices.
    threads: Threads,
}

impl Prepared {
    fn sealed_len(&self, plaintext_len: u64) -> Result<u64> {
        Ok(self.segments.layout().sealed_len(plaintext_len)? + self.head.len() as u64)
    }

    pub(crate) fn seal(mut self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let sealed_len = usize::try_from(self.sealed_len(plaintext.len() as u64)?)
            .map_err(|_| Error::limit("the message does not fit into memory: use a writer"))?;
        let mut out = std::mem::take(&mut self.head);
        let start = out.len();
        if out.capacity() < sealed_len {
            // Pages that come zeroed from the system are written once.
            let head = std::mem::replace(&mut out, vec![0; sealed_len]);
            out[..start].copy_from_slice(&head);
        }
        out.resize(sealed_len, 0);
        self.seal_segments(plaintext, &mut out[start..])?;
        Ok(out)
    }

    fn seal_to(self, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        let (head, segments) = out
            .split_at_mut_checked(self.head.len())
            .ok_or_else(|| Error::invalid_input("the output is shorter than the message's head"))?;
        self.seal_segments(plaintext, segments)?;
        head.copy_from_slice(&self.head);
        Ok(())
    }

    fn seal_segments(&self, plaintext: &[u8], out: &mut [u8]) -> Result<()> {
        let threads = self.threads.plan(self.segments.layout(), Some(plaintext.len() as u64)).threads;
        whole::seal(&self.segments, plaintext, out, threads)
    }
}

/// A message whose head was found authentic, with the key for its segments.
#[derive(Debug)]
pub struct Decryptor {
    segments: Floe,
    /// For calls on slices.
    threads: Threads,
}

impl Decryptor {
    /// Lengths and offsets of the segments.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.segments.layout()
    }

    /// Opens all segments: the whole plaintext, or an error.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed),
    /// [`Truncated`](crate::ErrorKind::Truncated), [`TrailingData`](crate::ErrorKind::TrailingData).
    pub fn open(&self, segments: &[u8]) -> Result<Vec<u8>> {
        // A length that no message has is found by the walk, in the order that a stream finds it.
        let len = self.layout().plaintext_len(segments.len() as u64).unwrap_or(segments.len() as u64);
        let mut plaintext = plaintext_buffer(len)?;
        let len = self.open_to(segments, &mut plaintext)?;
        plaintext.truncate(len);
        Ok(std::mem::take(&mut *plaintext))
    }

    /// As [`open`](Self::open), into `out`; returns the length of the plaintext. One pass over the
    /// data. On failure all of `out` is wiped.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`InvalidInput`](crate::ErrorKind::InvalidInput) if `out` is
    /// shorter than the plaintext.
    pub fn open_to(&self, segments: &[u8], out: &mut [u8]) -> Result<usize> {
        let threads = self.threads.plan(self.layout(), Some(segments.len() as u64)).threads;
        whole::open(&self.segments, segments, out, threads)
    }

    pub(super) fn segments(&self) -> &dyn Segments {
        &self.segments
    }

    /// Opens one segment by position into `plaintext`, which is exactly
    /// [`overhead`](Layout::overhead) shorter.
    ///
    /// The caller says which segment it is: the end of the message is authentic only once the segment
    /// that opens as the last one has been seen.
    ///
    /// # Errors
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed); then `plaintext` is wiped.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `plaintext` has another length.
    pub fn open_segment(&self, at: Position, segment: &[u8], plaintext: &mut [u8]) -> Result<()> {
        let overhead = self.layout().overhead();
        if segment.len() >= overhead && plaintext.len() != segment.len() - overhead {
            return Err(Error::invalid_input(format!(
                "the plaintext's buffer must be {overhead} bytes shorter than the segment"
            )));
        }
        self.segments.open_to(at, segment, plaintext)
    }

    pub(super) fn into_segments(self) -> Arc<Floe> {
        Arc::new(self.segments)
    }

    /// A reader of the plaintext; `inner` stands at the first segment.
    pub fn into_reader<R: Read>(self, inner: R) -> DecryptReader<R> {
        DecryptReader::new(inner, self.into_opener())
    }

    /// A reader that goes on where another one stopped; `inner` stands at the segment that `point`
    /// names: [`sealed_offset`](ResumePoint::sealed_offset) bytes after the first segment's start.
    ///
    /// It gives the plaintext from [`plaintext_offset`](ResumePoint::plaintext_offset) on. Where
    /// `inner` holds the whole message, it seeks as any reader does.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a point in a message of another segment
    /// length. The reader reports a wrong place: nothing
    /// [authenticates](crate::ErrorKind::AuthenticationFailed) there.
    pub fn into_reader_from<R: Read>(self, point: ResumePoint, inner: R) -> Result<DecryptReader<R>> {
        Ok(DecryptReader::new(inner, self.into_opener_at(point)?))
    }

    /// All segments, for a shell.
    pub(super) fn into_opener(self) -> Opener {
        Opener::new(self.into_segments())
    }

    /// The segments from `point` on, for a shell.
    pub(super) fn into_opener_at(self, point: ResumePoint) -> Result<Opener> {
        Opener::resuming(self.into_segments(), point)
    }

    /// Ranges of the plaintext out of `source`, whose first segment is at `body_start`.
    ///
    /// # Errors
    /// As [`open`](Self::open) for the final segment, which is verified here.
    pub fn into_range_reader<S: ReadAt>(self, source: S, body_start: u64) -> Result<RangeReader<S>> {
        RangeReader::new(source, self.into_segments(), body_start)
    }

    /// Ranges of the plaintext out of `source`, whose first segment is at `body_start`: 0 where the head
    /// is kept apart.
    ///
    /// # Errors
    /// As [`open`](Self::open) for the final segment, which is verified here;
    /// [`Io`](crate::ErrorKind::Io) if the source changes meanwhile or gives another number of bytes
    /// than asked; the source's own.
    pub async fn into_async_range_reader<S: RangeSource>(
        self,
        source: S,
        body_start: u64,
    ) -> Result<AsyncRangeReader<S>> {
        self.resume_opening(Opening::begin(source, body_start).await?, body_start).await
    }

    pub(super) async fn resume_opening<S: RangeSource>(
        self,
        opening: Opening<S>,
        body_start: u64,
    ) -> Result<AsyncRangeReader<S>> {
        opening.finish(self.into_segments(), body_start).await
    }
}

/// Bytes of a plaintext whose one segment is put right behind the head, which has room for it.
const SHORT: u64 = 16 << 10;

/// What may still be tried: counted over all attempts to open one message, its journal's heads too.
pub(crate) struct Tries {
    pub(super) slots: usize,
    pub(super) passphrases: usize,
    /// Slots of the heads before: what failed once fails again, and costs no second try.
    failed: Vec<EncryptedDataKey>,
}

/// "Passphrase derivations for one opening, over all heads."
const PASSPHRASES_TRIED: usize = 3;

impl Envelope {
    pub(crate) fn tries(&self) -> Tries {
        Tries { slots: self.config.limits.slots_tried, passphrases: PASSPHRASES_TRIED, failed: Vec::new() }
    }

    pub(crate) async fn encryptor_with_room(
        &self,
        context: &EncryptionContext,
        room: SlotsRoom,
        need: Need,
    ) -> Result<Encryptor> {
        let message = self.prepare(context, room, need).await?;
        Ok(Encryptor { message, made_by: Process::current() })
    }

    /// No await follows the draw of the message IV in here, and so no fork.
    pub(crate) async fn prepare(&self, context: &EncryptionContext, room: SlotsRoom, need: Need) -> Result<Prepared> {
        let config = &self.config;
        let context = WriterContext::new(context, KeyUse::Message)?;
        let key = self.writing_key(&context.kms, need).await?;
        let area = encode_slots(key.slots(), room, core_len(&context))?;
        let body = match need {
            Need::Whole(bytes) if bytes <= SHORT => one_segment_len(bytes, config.segment_len).unwrap_or_default(),
            _ => 0,
        };
        let mut head = encode_core(&context, 2 + area.len() + FLOE_HEADER_LEN + body)?;
        let aad = [head.as_slice(), &context.unstored].concat();
        let mut segments = Floe::create(key.key(), config.aead, config.segment_len, aad)?;
        segments.set_meter(key.into_meter());
        #[expect(clippy::cast_possible_truncation, reason = "encode_slots checks it")]
        head.extend_from_slice(&(area.len() as u16).to_be_bytes());
        head.extend_from_slice(&area);
        head.extend_from_slice(&segments.header().encode());
        Ok(Prepared { head, segments, threads: config.threads })
    }

    /// Opens a message's head.
    pub(crate) async fn unlock<H: Committed<Keys = Floe>>(
        &self,
        header: &H,
        context: &EncryptionContext,
        tries: &mut Tries,
    ) -> Result<Decryptor> {
        let (floe, ..) = self.unlock_head(header, context, tries).await?;
        Ok(Decryptor { segments: floe, threads: self.config.threads })
    }

    /// Finds the data key of a message or record set among the slots. "A key that fails the FLOE header
    /// tag is not the key: try the next slot, within the cap on provider calls."
    pub(crate) async fn unlock_head<H: Committed>(
        &self,
        committed: &H,
        context: &EncryptionContext,
        tries: &mut Tries,
    ) -> Result<(H::Keys, ReadingKey, KmsContext)> {
        let (header, given) = (committed.head(), context);
        let context = self.reader_context(header, given)?;
        let mut failure = None;
        let mut failed = Vec::new();
        let mut tried = Vec::new();
        for slot in header.slots().iter().filter(|slot| !slot.is_missing()) {
            if tries.failed.contains(slot) {
                tried.push(Recipient::from(slot));
                failure = more_retryable(failure, Error::authentication());
                continue;
            }
            if tries.slots == 0 {
                failure = more_retryable(failure, too_many_tries(self.config.limits.slots_tried));
                break;
            }
            let derives = slot.provider() == PASSPHRASE;
            if derives && tries.passphrases == 0 {
                failure = more_retryable(failure, too_many_derivations());
                continue;
            }
            let key = match self.reading_key(slot, &context.kms).await {
                ReadingAnswer::NotMine => continue,
                ReadingAnswer::Key(ReadingKey::Own(key)) if key.expose().len() != DataKeyLength::Bytes32.bytes() => {
                    Err(Error::authentication())
                }
                ReadingAnswer::Key(key) => Ok(key),
                ReadingAnswer::Failed(error) => Err(error),
            };
            tries.slots -= 1;
            tries.passphrases -= usize::from(derives);
            let error = match key {
                Ok(key) => match committed.keys(key.key(), [header.core(), &context.unstored].concat())? {
                    Some(opened) => return Ok((opened, key, context.kms)),
                    None => Error::authentication(),
                },
                Err(error) => error,
            };
            failed.push(slot.clone());
            tried.push(Recipient::from(slot));
            failure = more_retryable(failure, error);
        }
        tries.failed.append(&mut failed);
        Err(match failure {
            None => no_matching_key(header),
            Some(error) if error.kind() == ErrorKind::AuthenticationFailed => {
                let not_opened = none_opened(tried, header.has_unstored_context());
                match error.code() {
                    Some(code) => not_opened.with_code(code),
                    None => not_opened,
                }
            }
            Some(error) => error,
        })
    }

    pub(crate) fn reader_context(&self, header: &Head<'_>, given: &EncryptionContext) -> Result<ReaderContext> {
        let (how, key_use) = (self.config.context_match, header.form().key_use());
        ReaderContext::new(header.stored_context(), header.has_unstored_context(), given, how, key_use)
    }
}

pub(super) fn too_many_tries(most: usize) -> Error {
    Error::limit(format!("{most} encrypted data keys were tried, the limit, and none opened this message"))
        .with_advice("more are there: raise `Limits::slots_tried`, or configure the one key that opens it")
}

fn too_many_derivations() -> Error {
    Error::limit(format!(
        "the passphrase was tried on {PASSPHRASES_TRIED} different slots, the limit, and opened none of them"
    ))
    .with_advice("the file was changed while it was read: try again")
}

fn no_matching_key(header: &Head<'_>) -> Error {
    let what = match header.form() {
        Form::Message => "message",
        Form::RecordSet => "record set",
    };
    opened_by_nobody(what, header.slots().iter().map(Recipient::from).collect())
}

/// What a message, or a record set, for these recipients fails with where nobody knows any of its slots.
pub(crate) fn opened_by_nobody(what: &str, recipients: Vec<Recipient>) -> Error {
    let recipients = Recipients(recipients);
    let printable = |it: &Recipient| {
        let name = std::str::from_utf8(&it.key_id).is_ok_and(|name| !name.chars().any(char::is_control));
        name && it.provider.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let doubt = match recipients.0.iter().all(printable) {
        true => "",
        false => " (these are no names as they are written: the header may be damaged)",
    };
    Error::no_matching_key(format!("none of the configured keys opens this {what}, which is for {recipients}{doubt}"))
        .with_source(recipients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::header::{Header, Limits};
    use crate::provider::Recipient;
    use crate::provider::raw::RawKeyProvider;
    use crate::secret::Secret;

    /// The error of a reader without a key, for a message that a stranger wrote for `slots`.
    fn refused(slots: &[EncryptedDataKey]) -> String {
        let provider = Arc::new(RawKeyProvider::new("a", Secret::init(|key| key.fill(1))).unwrap());
        assert_eq!(crate::provider::KeyProvider::recipients(&*provider), [Recipient::new("raw", "a")]);
        let envelope = Envelope::builder(provider).build().unwrap();
        let context = EncryptionContext::new();
        let encryptor = pollster::block_on(envelope.encryptor(&context)).unwrap();
        let header = Header::parse(encryptor.head()).unwrap();
        let area = encode_slots(slots, SlotsRoom::Tight, header.core().len()).unwrap();
        let header = header.with_slots_area(&area, &Limits::default()).unwrap();
        pollster::block_on(envelope.decryptor(&header, &context)).unwrap_err().to_string()
    }

    #[test]
    fn a_strangers_key_names_neither_flood_an_error_nor_drive_a_terminal() {
        let slot = |id: &str| EncryptedDataKey::new("elsewhere", id.as_bytes(), vec![1]);
        let long = "x".repeat(5_000);
        let text = refused(&[slot("one"), slot("b\u{202e}i\u{200f}di"), slot("c\x1b[2J"), slot(&long), slot("five")]);
        assert!(text.contains("elsewhere:one, ") && text.contains("and 1 more"), "{text}");
        assert!(!text.contains("five") && text.len() < 1_000, "{text}");
        assert!(text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{text:?}");
    }
}
