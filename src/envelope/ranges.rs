//! Ranges of messages in files and in sources that are awaited.

use crate::context::EncryptionContext;
use crate::envelope::Envelope;
use crate::envelope::file::{FileOptions, named, open_target};
use crate::envelope::file_source::check_regular;
use crate::envelope::offload::offload;
use crate::envelope::watch::Watch;
use crate::error::{Error, Result};
use crate::io::range::RangeReader;
use crate::io::range::byte_range::ByteRange;
use crate::io::range::remote::{AsyncRangeReader, Opening};
use crate::io::range::source::RangeSource;
use crate::native::header::{Header, HeaderParse};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Envelope {
    /// Decrypts ranges of the message in `source`, which is pinned to the version it has now. The head
    /// and the final segment are fetched and verified here, so that the length is authentic: in two
    /// reads, or one if the message has at most 16 KiB.
    ///
    /// ```
    /// # fn main() -> Result<(), envelock::Error> { pollster::block_on(async {
    /// # use envelock::{EncryptionContext, Envelope, RawKeyProvider};
    /// # let envelope = Envelope::builder(RawKeyProvider::generate("example")?).build()?;
    /// # let context = EncryptionContext::new();
    /// let sealed = envelope.encrypt(b"attack at dawn", &context).await?;
    /// let reader = envelope.async_range_reader(bytes::Bytes::from(sealed), &context).await?;
    /// assert_eq!(reader.len(), 14);
    /// assert_eq!(reader.read_range(10..14).await?, b"dawn");
    /// # Ok(()) }) }
    /// ```
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and [`Io`](crate::ErrorKind::Io) if the source changes meanwhile
    /// or gives another number of bytes than asked; the source's own.
    pub async fn async_range_reader<S: RangeSource>(
        &self,
        source: S,
        context: &EncryptionContext,
    ) -> Result<AsyncRangeReader<S>> {
        let mut opening = Opening::begin(source, 0).await?;
        let header = loop {
            match Header::parse_some(opening.bytes(), &self.config.limits)? {
                HeaderParse::Complete(header) => break header,
                HeaderParse::More(needed) => opening.extend(needed).await?,
            }
        };
        let decryptor = self.decryptor(&header, context).await?;
        decryptor.resume_opening(opening, header.len() as u64).await
    }

    /// Decrypts ranges of the message in the file at `path`, in spite of a rewrap in place that is under
    /// way or was interrupted. See [`ReadAt`](crate::ReadAt) for what happens if the file changes.
    ///
    /// # Errors
    /// As [`range_reader`](Self::range_reader), with the path;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is no regular file.
    pub async fn file_range_reader(
        &self,
        path: impl AsRef<Path>,
        context: &EncryptionContext,
    ) -> Result<RangeReader<File>> {
        let path = path.as_ref();
        offload({
            let path = path.to_path_buf();
            move |_| {
                let there = path.metadata().map_err(|e| Error::io_at("the file cannot be opened", &path, e))?;
                check_regular(&there, &path)
            }
        })
        .await?;
        let message = self.open_message(path, context).await?;
        let reader = offload(move |_| {
            let body_start = (&message.file).stream_position()?;
            message.decryptor.into_range_reader(message.file, body_start)
        });
        reader.await.map_err(|error| named(error, path))
    }

    /// Decrypts some bytes of the message in the file `from` to the file `to`, which appears whole or
    /// not at all, with mode 0600. Only the segments that the range touches are read, and the final one.
    /// Returns how many bytes were written: fewer than asked where the message ends.
    ///
    /// # Errors
    /// As [`file_range_reader`](Self::file_range_reader);
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if no byte is in the range or if the target
    /// exists, [`Io`](crate::ErrorKind::Io) with the path; the target is then as it was.
    pub async fn decrypt_file_range(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        range: ByteRange,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let from = from.as_ref();
        let reader = Arc::new(self.file_range_reader(from, context).await?);
        let range = range.within(reader.len()).map_err(|error| named(error, from))?;
        let total = range.end - range.start;
        let (to, limits) = (to.as_ref().to_path_buf(), self.config.limits.clone());
        let done = offload(move |cancelled| {
            let mut target = open_target(&to, &options, &limits)?;
            let mut source = Watch::new(&options, cancelled, Some(total)).over(reader.stream(range));
            copy(&mut source, &mut target.new)?;
            source.watch().check()?;
            target.commit_plaintext()?;
            Ok(total)
        });
        done.await.map_err(|error| named(error, from))
    }
}

/// Copies all of `source`, which is plaintext.
fn copy(source: &mut impl Read, target: &mut impl Write) -> Result<()> {
    let mut buffer = Zeroizing::new(vec![0; COPY_LEN]);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => target.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Bytes that a copy takes at once.
const COPY_LEN: usize = 1 << 20;
