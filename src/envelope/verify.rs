//! Verify: every segment of a message is authentic, and nothing is written.

use crate::context::EncryptionContext;
use crate::envelope::Envelope;
use crate::envelope::file::{FileOptions, named};
use crate::envelope::head::read_header;
use crate::envelope::offload::offload;
use crate::envelope::watch::Watch;
use crate::error::Result;
use crate::io::parallel;
use std::io::{self, Read};
use std::path::Path;

impl Envelope {
    /// Decrypts the message at `path` without writing it anywhere, and returns the length of its
    /// plaintext. A large one is worked on by several threads ([`Threads::auto`](crate::Threads::auto)).
    /// After a blind rewrap, this is the check before the old key is retired: the key provider itself opens
    /// the message, whatever is cached.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and [`Io`](crate::ErrorKind::Io), with the path.
    pub async fn verify_file(&self, path: impl AsRef<Path>, context: &EncryptionContext) -> Result<u64> {
        let path = path.as_ref().to_path_buf();
        let message = self.without_cache().open_message(&path, context).await?;
        offload(move |cancelled| {
            let total = message.body_len();
            let options = FileOptions::default();
            let source = Watch::new(&options, cancelled, total).over(message.file);
            let decryptor = message.decryptor;
            let plan = source.watch().plan(decryptor.layout());
            parallel::open(decryptor.segments(), source, io::sink(), plan).map_err(|error| named(error, &path))
        })
        .await
    }

    /// As [`verify_file`](Self::verify_file), for a message that is read from `input`, synchronously, where
    /// the future is polled.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and [`Io`](crate::ErrorKind::Io).
    pub async fn verify(&self, mut input: impl Read, context: &EncryptionContext) -> Result<u64> {
        let header = read_header(&mut input, &self.config.limits)?;
        let mut reader = self.without_cache().decryptor(&header, context).await?.into_reader(input);
        Ok(io::copy(&mut reader, &mut io::sink())?)
    }
}
