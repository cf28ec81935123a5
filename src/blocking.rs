//! The same face for callers without an async runtime.
//!
//! Each call drives the asynchronous one on the calling thread and parks it while a key provider
//! works. No runtime is started for it: a provider of your own that needs one must bring it. Not for use
//! inside an async task, whose executor would stand still meanwhile.
//!
//! Providers across a network (features `aws-kms`, `vault`) wait for sockets and timers on one thread, `envelock-net`, which
//! the first of their calls starts, by whatever thread it is made; it serves all of them, and ends with the process. Calls
//! that need no network start nothing.
//!
//! ```
//! use envelock::{EncryptionContext, RawKeyProvider, blocking};
//! # fn main() -> Result<(), envelock::Error> {
//! let envelope = envelock::Envelope::builder(RawKeyProvider::generate("example")?).build()?;
//! let envelope = blocking::Envelope::new(envelope);
//! let context = EncryptionContext::from([("tenant", "acme")]);
//! let sealed = envelope.encrypt(b"attack at dawn", &context)?;
//! assert_eq!(envelope.decrypt(&sealed, &context)?, b"attack at dawn");
//! # Ok(())
//! # }
//! ```

use crate::context::EncryptionContext;
use crate::envelope::file::FileOptions;
use crate::envelope::message::{Decryptor, Encryptor};
use crate::envelope::record::{RecordSet, RewrappedRecordSet};
use crate::envelope::recover::{DamageMap, RecoverOptions};
use crate::envelope::resume::{ResumeOptions, Resumed};
use crate::envelope::rewrap::{RewrapOptions, Rewrapped};
use crate::error::Result;
use crate::io::range::byte_range::ByteRange;
use crate::io::range::{RangeReader, ReadAt};
use crate::io::read::DecryptReader;
use crate::io::write::EncryptWriter;
use crate::native::header::Header;
use crate::worker;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::path::Path;
use std::pin::pin;

/// Runs a future of this crate to its end on the calling thread: for the calls of
/// [`LocalKms`](crate::LocalKms) and of key providers. A call on a keystore that nobody else uses at that moment is
/// done by this thread itself, which is quicker than to await it; so join calls on a keystore on an executor, not here, where
/// they would be done one after the other.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    pollster::block_on(poll_fn(|context| worker::waiting(|| future.as_mut().poll(context))))
}

/// An [`Envelope`](crate::Envelope) whose calls return when they are done.
///
/// Each method does what the asynchronous one of the same name does, with the same errors.
#[derive(Clone, Debug)]
pub struct Envelope {
    inner: crate::envelope::Envelope,
}

impl Envelope {
    /// The blocking face of `envelope`.
    #[must_use]
    pub fn new(envelope: crate::envelope::Envelope) -> Self {
        Self { inner: envelope }
    }

    /// The asynchronous envelope.
    #[must_use]
    pub fn inner(&self) -> &crate::envelope::Envelope {
        &self.inner
    }

    /// See [`Envelope::accepting_more_context`](crate::Envelope::accepting_more_context).
    #[must_use]
    pub fn accepting_more_context(&self) -> Self {
        Self::new(self.inner.accepting_more_context())
    }

    /// See [`Envelope::for_tenant`](crate::Envelope::for_tenant).
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self::new(self.inner.for_tenant(tenant))
    }

    /// See [`Envelope::without_cache`](crate::Envelope::without_cache).
    #[must_use]
    pub fn without_cache(&self) -> Self {
        Self::new(self.inner.without_cache())
    }

    /// See [`Envelope::encrypt`](crate::Envelope::encrypt).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt(&self, plaintext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        wait(self.inner.encrypt(plaintext, context))
    }

    /// See [`Envelope::decrypt`](crate::Envelope::decrypt).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt(&self, sealed: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        wait(self.inner.decrypt(sealed, context))
    }

    /// See [`Envelope::record_set`](crate::Envelope::record_set).
    ///
    /// # Errors
    /// As there.
    pub fn record_set(&self, context: &EncryptionContext) -> Result<RecordSet> {
        wait(self.inner.record_set(context))
    }

    /// See [`Envelope::open_record_set`](crate::Envelope::open_record_set).
    ///
    /// # Errors
    /// As there.
    pub fn open_record_set(&self, header: &[u8], context: &EncryptionContext) -> Result<RecordSet> {
        wait(self.inner.open_record_set(header, context))
    }

    /// See [`Envelope::rewrap_record_set`](crate::Envelope::rewrap_record_set).
    ///
    /// # Errors
    /// As there.
    pub fn rewrap_record_set(
        &self,
        set: &[u8],
        new: &Self,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<RewrappedRecordSet> {
        wait(self.inner.rewrap_record_set(set, &new.inner, context, options))
    }

    /// See [`Envelope::verify_record_set`](crate::Envelope::verify_record_set).
    ///
    /// # Errors
    /// As there.
    pub fn verify_record_set(&self, set: &[u8], context: &EncryptionContext) -> Result<()> {
        wait(self.inner.verify_record_set(set, context))
    }

    /// See [`Envelope::seal_value`](crate::Envelope::seal_value).
    ///
    /// # Errors
    /// As there.
    pub fn seal_value(&self, value: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        wait(self.inner.seal_value(value, context))
    }

    /// See [`Envelope::open_value`](crate::Envelope::open_value).
    ///
    /// # Errors
    /// As there.
    pub fn open_value(&self, sealed: &[u8], context: &EncryptionContext) -> Result<Vec<u8>> {
        wait(self.inner.open_value(sealed, context))
    }

    /// See [`Envelope::encrypt_writer`](crate::Envelope::encrypt_writer).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_writer<W: Write>(&self, inner: W, context: &EncryptionContext) -> Result<EncryptWriter<W>> {
        wait(self.inner.encrypt_writer(inner, context))
    }

    /// See [`Envelope::decrypt_reader`](crate::Envelope::decrypt_reader).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_reader<R: Read>(&self, inner: R, context: &EncryptionContext) -> Result<DecryptReader<R>> {
        wait(self.inner.decrypt_reader(inner, context))
    }

    /// See [`Envelope::range_reader`](crate::Envelope::range_reader).
    ///
    /// # Errors
    /// As there.
    pub fn range_reader<S: ReadAt>(&self, source: S, context: &EncryptionContext) -> Result<RangeReader<S>> {
        wait(self.inner.range_reader(source, context))
    }

    /// See [`Envelope::file_range_reader`](crate::Envelope::file_range_reader).
    ///
    /// # Errors
    /// As there.
    pub fn file_range_reader(&self, path: impl AsRef<Path>, context: &EncryptionContext) -> Result<RangeReader<File>> {
        wait(self.inner.file_range_reader(path, context))
    }

    /// See [`Envelope::decrypt_file_range`](crate::Envelope::decrypt_file_range).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_file_range(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        range: ByteRange,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.decrypt_file_range(from, to, range, context, options))
    }

    /// See [`Envelope::encryptor`](crate::Envelope::encryptor).
    ///
    /// # Errors
    /// As there.
    pub fn encryptor(&self, context: &EncryptionContext) -> Result<Encryptor> {
        wait(self.inner.encryptor(context))
    }

    /// See [`Envelope::file_encryptor`](crate::Envelope::file_encryptor).
    ///
    /// # Errors
    /// As there.
    pub fn file_encryptor(&self, context: &EncryptionContext) -> Result<Encryptor> {
        wait(self.inner.file_encryptor(context))
    }

    /// See [`Envelope::decryptor`](crate::Envelope::decryptor).
    ///
    /// # Errors
    /// As there.
    pub fn decryptor(&self, header: &Header, context: &EncryptionContext) -> Result<Decryptor> {
        wait(self.inner.decryptor(header, context))
    }

    /// See [`Envelope::encrypt_file`](crate::Envelope::encrypt_file).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.encrypt_file(from, to, context, options))
    }

    /// See [`Envelope::decrypt_file`](crate::Envelope::decrypt_file).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.decrypt_file(from, to, context, options))
    }

    /// See [`Envelope::encrypt_file_resumable`](crate::Envelope::encrypt_file_resumable).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_file_resumable(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: impl Into<ResumeOptions>,
    ) -> Result<Resumed> {
        wait(self.inner.encrypt_file_resumable(from, to, context, options))
    }

    /// See [`Envelope::dangerous_recover_file`](crate::Envelope::dangerous_recover_file).
    ///
    /// # Errors
    /// As there.
    pub fn dangerous_recover_file(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: impl Into<RecoverOptions>,
    ) -> Result<DamageMap> {
        wait(self.inner.dangerous_recover_file(from, to, context, options))
    }

    /// See [`Envelope::encrypt_to_file`](crate::Envelope::encrypt_to_file).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_to_file(
        &self,
        source: impl Read + Send + 'static,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.encrypt_to_file(source, to, context, options))
    }

    /// See [`Envelope::decrypt_to_file`](crate::Envelope::decrypt_to_file).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_to_file(
        &self,
        source: impl Read + Send + 'static,
        to: impl AsRef<Path>,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.decrypt_to_file(source, to, context, options))
    }

    /// See [`Envelope::encrypt_pipe`](crate::Envelope::encrypt_pipe).
    ///
    /// # Errors
    /// As there.
    pub fn encrypt_pipe(
        &self,
        source: impl Read + Send + 'static,
        sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.encrypt_pipe(source, sink, context, options))
    }

    /// See [`Envelope::decrypt_pipe`](crate::Envelope::decrypt_pipe).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_pipe(
        &self,
        source: impl Read + Send + 'static,
        sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.decrypt_pipe(source, sink, context, options))
    }

    /// See [`Envelope::decrypt_file_to_pipe`](crate::Envelope::decrypt_file_to_pipe).
    ///
    /// # Errors
    /// As there.
    pub fn decrypt_file_to_pipe(
        &self,
        path: impl AsRef<Path>,
        sink: impl Write + Send + 'static,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> Result<u64> {
        wait(self.inner.decrypt_file_to_pipe(path, sink, context, options))
    }

    /// See [`Envelope::file_reader`](crate::Envelope::file_reader).
    ///
    /// # Errors
    /// As there.
    pub fn file_reader(&self, path: impl AsRef<Path>, context: &EncryptionContext) -> Result<DecryptReader<File>> {
        wait(self.inner.file_reader(path, context))
    }

    /// See [`Envelope::rewrap_file`](crate::Envelope::rewrap_file).
    ///
    /// # Errors
    /// As there.
    pub fn rewrap_file(
        &self,
        path: impl AsRef<Path>,
        new: &Self,
        context: &EncryptionContext,
        options: RewrapOptions,
    ) -> Result<Rewrapped> {
        wait(self.inner.rewrap_file(path, &new.inner, context, options))
    }

    /// See [`Envelope::verify_file`](crate::Envelope::verify_file).
    ///
    /// # Errors
    /// As there.
    pub fn verify_file(&self, path: impl AsRef<Path>, context: &EncryptionContext) -> Result<u64> {
        wait(self.inner.verify_file(path, context))
    }

    /// See [`Envelope::verify`](crate::Envelope::verify).
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self, input: impl Read, context: &EncryptionContext) -> Result<u64> {
        wait(self.inner.verify(input, context))
    }
}
