//! `decrypt --range`.

use crate::failure::Failure;
use crate::streams::{self, Source, StandardOutput};
use envelock::{ByteRange, EncryptionContext, Envelope, Error, blocking};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

pub(crate) fn no_file(name: &str) -> String {
    format!("{name} is no regular file: --range reads from the middle, so store the message in a file first")
}

/// Returns how many bytes there were.
pub(crate) fn to_output(
    envelope: &Envelope,
    path: &Path,
    range: ByteRange,
    context: &EncryptionContext,
    mut output: StandardOutput,
) -> envelock::Result<u64> {
    let reader = Arc::new(blocking::wait(envelope.file_range_reader(path, context))?);
    let range = range.within(reader.len())?;
    io::copy(&mut reader.stream(range), &mut output).map_err(Error::from)
}
