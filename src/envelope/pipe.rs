//! Pipes: from readers to writers on several threads.

use crate::context::EncryptionContext;
use crate::crypto::random::SegmentIvs;
use crate::envelope::Envelope;
use crate::envelope::file::{FileOptions, named};
use crate::envelope::message::Decryptor;
use crate::envelope::offload::offload;
use crate::envelope::watch::Watch;
use crate::error::{ErrorKind, Result};
use crate::io::parallel;
use std::io::{Read, Write};
use std::path::Path;

impl Envelope {
    /// Encrypts all that `source` gives into `sink`, and flushes that: a pipe to a pipe, say. Returns the
    /// length of the message in bytes.
    ///
    /// The message is padded for later rewraps, since a stream usually ends in a file. A segment goes
    /// out as soon as it is full and a byte follows it. The work is done on threads of its own, as
    /// [`encrypt_file`](Self::encrypt_file) does it.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt), and what `source` and `sink` fail with; `sink` then holds a message
    /// that reads as truncated.
    pub async fn encrypt_pipe(
        &self,
        source: impl Read + Send + 'static,
        mut sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let encryptor = self.file_encryptor(context).await?;
        offload(move |cancelled| {
            let source = Watch::new(&options, cancelled, None).over(source);
            let plan = source.watch().plan(encryptor.layout());
            let (head, segments, made_by) = encryptor.into_parts();
            let ivs = SegmentIvs::new(made_by);
            sink.write_all(&head).map_err(parallel::sink_failed)?;
            Ok(head.len() as u64 + parallel::seal(&*segments, ivs, source, sink, plan)?)
        })
        .await
    }

    /// Decrypts the message that `source` gives into `sink`, and flushes that. Returns the length of the
    /// plaintext in bytes.
    ///
    /// What has reached `sink` is authentic, in order and without a gap; it is the whole only once this
    /// has returned without an error.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and what `source` and `sink` fail with.
    pub async fn decrypt_pipe(
        &self,
        source: impl Read + Send + 'static,
        sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let (decryptor, source) = self.decryptor_of_stream(source, context).await?;
        decrypt_into(decryptor, source, None, sink, options).await
    }

    /// As [`decrypt_pipe`](Self::decrypt_pipe), for the message in the file at `path`, which opens in
    /// spite of a rewrap that is under way or was interrupted.
    ///
    /// # Errors
    /// As [`decrypt_pipe`](Self::decrypt_pipe), with the path.
    pub async fn decrypt_file_to_pipe(
        &self,
        path: impl AsRef<Path>,
        sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        let message = self.open_message(path.as_ref(), context).await?;
        let total = message.body_len();
        let done = decrypt_into(message.decryptor, message.file, total, sink, options).await;
        done.map_err(|error| match error.kind() {
            // Either end may have failed: the error says which.
            ErrorKind::Io => error,
            _ => named(error, path.as_ref()),
        })
    }
}

async fn decrypt_into(
    decryptor: Decryptor,
    source: impl Read + Send + 'static,
    total: Option<u64>,
    sink: impl Write + Send + 'static,
    options: FileOptions,
) -> Result<u64> {
    offload(move |cancelled| {
        let source = Watch::new(&options, cancelled, total).over(source);
        let plan = source.watch().plan(decryptor.layout());
        parallel::open(decryptor.segments(), source, sink, plan)
    })
    .await
}
