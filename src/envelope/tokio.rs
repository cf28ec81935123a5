//! The asynchronous face of the front door: writers, readers and streams on tokio's traits.

use crate::context::EncryptionContext;
use crate::envelope::Envelope;
use crate::envelope::head::HeadCollector;
use crate::envelope::message::{Decryptor, Encryptor};
use crate::error::Result;
use crate::io::tokio::Chunks;
use crate::io::tokio::decrypt_stream::DecryptStream;
use crate::io::tokio::encrypt_stream::EncryptStream;
use crate::io::tokio::read::AsyncDecryptReader;
use crate::io::tokio::write::AsyncEncryptWriter;
use crate::native::header::{Header, Limits};
use crate::segments::ResumePoint;
use futures_core::Stream;
use std::error::Error as StdError;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

impl Envelope {
    /// A writer that encrypts into `inner`, without blocking. Call
    /// [`finish`](AsyncEncryptWriter::finish) at the end, or shut it down.
    ///
    /// ```
    /// use envelock::{EncryptionContext, Envelope, RawKeyProvider};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
    /// let context = EncryptionContext::from([("tenant", "acme")]);
    /// let mut writer = envelope.encrypt_async_writer(Vec::new(), &context).await?;
    /// writer.write_all(b"attack at dawn").await?;
    /// let sealed = writer.finish().await?;
    ///
    /// let mut plaintext = Vec::new();
    /// envelope.decrypt_async_reader(&*sealed, &context).await?.read_to_end(&mut plaintext).await?;
    /// assert_eq!(plaintext, b"attack at dawn");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn encrypt_async_writer<W: AsyncWrite + Unpin>(
        &self,
        inner: W,
        context: &EncryptionContext,
    ) -> Result<AsyncEncryptWriter<W>> {
        Ok(self.encryptor(context).await?.into_async_writer(inner))
    }

    /// A reader that decrypts `inner`, which stands at the start of a message, without blocking. Where
    /// `inner` seeks, so does the reader.
    ///
    /// Not cancel-safe where `inner` is a borrow: bytes of the head are gone from it when the future is
    /// dropped.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments, which the reader reports.
    pub async fn decrypt_async_reader<R: AsyncRead + Unpin>(
        &self,
        mut inner: R,
        context: &EncryptionContext,
    ) -> Result<AsyncDecryptReader<R>> {
        let header = read_header_async(&mut inner, &self.config.limits).await?;
        Ok(self.decryptor(&header, context).await?.into_async_reader(inner))
    }

    /// The message of a stream of plaintext, as a stream: for bodies of HTTP requests and parts of object
    /// stores.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn encrypt_stream<S, B, E>(
        &self,
        plaintext: S,
        context: &EncryptionContext,
    ) -> Result<EncryptStream<S, B>>
    where
        S: Stream<Item = Result<B, E>>,
        B: AsRef<[u8]>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Ok(self.encryptor(context).await?.into_stream(plaintext))
    }

    /// The plaintext of a message that comes as a stream. The head is taken from it here.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt) up to the kinds that concern segments, which the stream reports.
    pub async fn decrypt_stream<S, B, E>(&self, message: S, context: &EncryptionContext) -> Result<DecryptStream<S, B>>
    where
        S: Stream<Item = Result<B, E>>,
        B: AsRef<[u8]>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut chunks = Chunks::new(message);
        let mut head = HeadCollector::new(&self.config.limits)?;
        let header = loop {
            let count = poll_fn(|cx| chunks.poll_read(cx, head.room())).await?;
            if let Some(header) = head.received(count)? {
                break header;
            }
        };
        Ok(DecryptStream::new(chunks, self.decryptor(&header, context).await?.into_opener()))
    }
}

impl Encryptor {
    /// A writer that puts the head and then the segments into `inner`, without blocking.
    pub fn into_async_writer<W: AsyncWrite + Unpin>(self, inner: W) -> AsyncEncryptWriter<W> {
        AsyncEncryptWriter::new(inner, self.into_sealer())
    }

    /// A writer of the segments alone, for a [head](Self::head) that is kept apart.
    pub fn into_async_segment_writer<W: AsyncWrite + Unpin>(self, inner: W) -> AsyncEncryptWriter<W> {
        AsyncEncryptWriter::new(inner, self.into_segment_sealer())
    }

    /// The head and then the segments of a stream of plaintext, as a stream.
    pub fn into_stream<S, B, E>(self, plaintext: S) -> EncryptStream<S, B>
    where
        S: Stream<Item = Result<B, E>>,
    {
        EncryptStream::new(plaintext, self.into_sealer())
    }

    /// The segments alone, for a [head](Self::head) that is kept apart.
    pub fn into_segment_stream<S, B, E>(self, plaintext: S) -> EncryptStream<S, B>
    where
        S: Stream<Item = Result<B, E>>,
    {
        EncryptStream::new(plaintext, self.into_segment_sealer())
    }
}

impl Decryptor {
    /// A reader of the plaintext, without blocking; `inner` stands at the first segment.
    pub fn into_async_reader<R: AsyncRead + Unpin>(self, inner: R) -> AsyncDecryptReader<R> {
        AsyncDecryptReader::new(inner, self.into_opener())
    }

    /// As [`into_reader_from`](Self::into_reader_from), without blocking.
    ///
    /// # Errors
    /// As there.
    pub fn into_async_reader_from<R: AsyncRead + Unpin>(
        self,
        point: ResumePoint,
        inner: R,
    ) -> Result<AsyncDecryptReader<R>> {
        Ok(AsyncDecryptReader::new(inner, self.into_opener_at(point)?))
    }

    /// The plaintext of a stream of segments, from the first one on.
    pub fn into_stream<S, B, E>(self, segments: S) -> DecryptStream<S, B>
    where
        S: Stream<Item = Result<B, E>>,
    {
        DecryptStream::new(Chunks::new(segments), self.into_opener())
    }

    /// As [`into_reader_from`](Self::into_reader_from), of a stream that starts at the segment that
    /// `point` names: what a request for the rest of an object answers with.
    ///
    /// # Errors
    /// As there.
    pub fn into_stream_from<S, B, E>(self, point: ResumePoint, segments: S) -> Result<DecryptStream<S, B>>
    where
        S: Stream<Item = Result<B, E>>,
    {
        Ok(DecryptStream::new(Chunks::new(segments), self.into_opener_at(point)?))
    }
}

/// As [`read_header`](crate::read_header), without blocking: not a byte more than the head is read.
///
/// Not cancel-safe: bytes of the head are gone from `input` when the future is dropped.
///
/// # Errors
/// As there.
pub async fn read_header_async<R: AsyncRead + Unpin>(input: &mut R, limits: &Limits) -> Result<Header> {
    let mut head = HeadCollector::new(limits)?;
    loop {
        let read = poll_fn(|cx| {
            let mut room = ReadBuf::new(head.room());
            Pin::new(&mut *input).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
        });
        match read.await {
            Ok(count) => {
                if let Some(header) = head.received(count)? {
                    return Ok(header);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
