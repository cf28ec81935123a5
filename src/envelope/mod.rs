//! The front door: where header, keys, segments and I/O meet.

pub(crate) mod builder;
#[cfg(feature = "local-kms")]
mod figures;
pub(crate) mod file;
pub(crate) mod file_source;
pub(crate) mod head;
mod keys;
pub(crate) mod message;
mod offload;
mod pipe;
#[cfg(feature = "test-util")]
pub(crate) mod probe;
mod ranges;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod resume;
pub(crate) mod rewrap;
#[cfg(feature = "serde")]
pub(crate) mod sealed;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
pub(crate) mod unopened;
pub(crate) mod verify;
mod watch;

use crate::cache::binding::Binding;
use crate::cache::held::Need;
use crate::context::{ContextMatch, EncryptionContext};
use crate::crypto::AeadAlgorithm;
use crate::envelope::builder::EnvelopeBuilder;
use crate::error::{Error, Result};
use crate::io::parallel::Threads;
use crate::io::range::{RangeReader, ReadAt};
use crate::io::read::DecryptReader;
use crate::io::write::EncryptWriter;
use crate::native::header::{Header, Limits, ParsedHeader};
use crate::native::slots::SlotsRoom;
use crate::provider::KeyProvider;
use head::read_header;
use message::{Decryptor, Encryptor};
use std::io::{Read, Write};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Encrypts and decrypts messages under a key provider. Cheap to clone; shared by threads and tasks.
///
/// ```
/// use envelock::{EncryptionContext, Envelope, RawKeyProvider};
/// # fn main() -> Result<(), envelock::Error> {
/// # pollster::block_on(async {
/// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
/// let context = EncryptionContext::from([("tenant", "acme")]);
/// let sealed = envelope.encrypt(b"attack at dawn", &context).await?;
/// assert_eq!(envelope.decrypt(&sealed, &context).await?, b"attack at dawn");
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Envelope {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    provider: Arc<dyn KeyProvider>,
    /// Where data keys are looked for before the provider is asked.
    cache: Option<Binding>,
    aead: AeadAlgorithm,
    segment_len: u32,
    limits: Limits,
    context_match: ContextMatch,
    /// For calls on slices.
    threads: Threads,
}

impl Envelope {
    /// Starts to configure an envelope on `provider`.
    pub fn builder(provider: impl KeyProvider + 'static) -> EnvelopeBuilder {
        EnvelopeBuilder::new(Arc::new(provider))
    }

    /// The same envelope, which accepts messages whose stored context holds *at least* the entries
    /// that a call names, instead of exactly these.
    ///
    /// It asks for less: a message of the same key with more entries than expected is accepted too.
    #[must_use]
    pub fn accepting_more_context(&self) -> Self {
        let config = Config { context_match: ContextMatch::AtLeast, ..(*self.config).clone() };
        Self { config: Arc::new(config) }
    }

    /// Encrypts bytes to a whole message.
    ///
    /// # Errors
    /// The provider's own, [`InvalidInput`](crate::ErrorKind::InvalidInput) for a context that breaks
    /// the rules, [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub async fn encrypt(&self, plaintext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        self.prepare(context, SlotsRoom::Tight, Need::Whole(plaintext.len() as u64)).await?.seal(plaintext)
    }

    /// Decrypts a whole message: all of its plaintext, or an error.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed), [`Unsupported`](crate::ErrorKind::Unsupported),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded),
    /// [`ContextMismatch`](crate::ErrorKind::ContextMismatch),
    /// [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey), the provider's own; then
    /// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed),
    /// [`Truncated`](crate::ErrorKind::Truncated), [`TrailingData`](crate::ErrorKind::TrailingData).
    pub async fn decrypt(&self, sealed: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        let header = ParsedHeader::parse(sealed, &self.config.limits)?.ok_or_else(Error::truncated)?;
        let segments = sealed.get(header.len()..).unwrap_or_default();
        self.unlock(&header, context, &mut self.tries()).await?.open(segments)
    }

    /// A writer that encrypts into `inner`. Call [`finish`](EncryptWriter::finish) at the end.
    ///
    /// Writing is synchronous; only the key provider is awaited, here.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn encrypt_writer<W: Write>(&self, inner: W, context: &EncryptionContext) -> Result<EncryptWriter<W>> {
        Ok(self.encryptor(context).await?.into_writer(inner))
    }

    /// A reader that decrypts `inner`, which stands at the start of a message. Where `inner` seeks, so
    /// does the reader.
    ///
    /// The head of the message is read here, synchronously; then the key provider is awaited.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments, which the reader reports.
    pub async fn decrypt_reader<R: Read>(&self, mut inner: R, context: &EncryptionContext) -> Result<DecryptReader<R>> {
        let header = read_header(&mut inner, &self.config.limits)?;
        Ok(self.decryptor(&header, context).await?.into_reader(inner))
    }

    /// Decrypts ranges of a message that is read by position. The final segment is verified here, so
    /// that the length is authentic.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt).
    pub async fn range_reader<S: ReadAt>(&self, source: S, context: &EncryptionContext) -> Result<RangeReader<S>> {
        let header = read_header(&mut Positioned { source: &source, at: 0 }, &self.config.limits)?;
        let body_start = header.len() as u64;
        self.decryptor(&header, context).await?.into_range_reader(source, body_start)
    }

    /// What a new message is made with: its head, and a key for its segments.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn encryptor(&self, context: &EncryptionContext) -> Result<Encryptor> {
        self.encryptor_with_room(context, SlotsRoom::Tight, Need::Growing).await
    }

    /// What a message is opened with, from its head.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments.
    pub async fn decryptor(&self, header: &Header, context: &EncryptionContext) -> Result<Decryptor> {
        let mut tries = self.tries();
        self.unlock(header, context, &mut tries).await
    }
}

/// Reads a source by position from the front.
struct Positioned<'a, S> {
    source: &'a S,
    at: u64,
}

impl<S: ReadAt> Read for Positioned<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.source.len()?.saturating_sub(self.at);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(out.len());
        self.source.read_exact_at(out.get_mut(..count).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A buffer for a whole plaintext, wiped unless it is handed out.
fn plaintext_buffer(len: u64) -> Result<Zeroizing<Vec<u8>>> {
    let len = usize::try_from(len).map_err(|_| Error::limit("the message does not fit into memory: use a reader"))?;
    Ok(crate::secret::plaintext_buffer(len))
}
