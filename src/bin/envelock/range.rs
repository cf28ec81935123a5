//! `decrypt --range`.

use crate::crypt::{Work, cut_short, written};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::streams::{self, Interruptible, Source, Stopped};
use envelock::{ByteRange, EncryptionContext, Envelope, Error, ErrorKind, FileOptions, blocking};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Decrypts some bytes.
pub(crate) struct RangeOpener {
    envelope: Envelope,
    range: ByteRange,
}

impl RangeOpener {
    pub(crate) fn new(envelope: Envelope, range: ByteRange) -> Self {
        Self { envelope, range }
    }
}

/// Refuses what cannot be read from the middle, before any key is asked for.
pub(crate) fn check_seekable(files: &[PathBuf]) -> Result<(), Failure> {
    for file in files {
        // What is not there is said later, with the other failures of one file.
        if let Ok(Source::Stream(_)) = Source::of(file) {
            return Err(Failure::usage(no_file(&streams::name(file))));
        }
    }
    Ok(())
}

fn no_file(name: &str) -> String {
    format!("{name} is no regular file: --range reads from the middle, so store the message in a file first")
}

impl Work for RangeOpener {
    async fn file_to_file(
        &self,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.envelope.decrypt_file_range(from, to, self.range, context, options).await
    }

    async fn stream_to_file(
        &self,
        _: Interruptible,
        _: &Path,
        _: &EncryptionContext,
        _: FileOptions,
    ) -> envelock::Result<u64> {
        Err(Error::new(ErrorKind::InvalidInput, no_file("the input")))
    }

    fn to_output(
        &self,
        source: &Source,
        mut output: File,
        context: &EncryptionContext,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let Source::File(path) = source else { return Err(Failure::usage(no_file("the input"))) };
        let reader = Arc::new(blocking::wait(self.envelope.file_range_reader(path, context))?);
        let range = self.range.within(reader.len())?;
        let (sent, copied) = streams::copy(&mut reader.stream(range), &mut output, progress);
        match copied {
            Ok(()) => Ok(()),
            Err(Stopped::Target(error)) => Err(written(error)),
            Err(Stopped::Source(error)) => Err(cut_short(error, sent)),
        }
    }
}
