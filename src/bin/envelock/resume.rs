//! `encrypt --resume`.

use crate::args::Encrypt;
use crate::crypt::Work;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::streams::{Interruptible, Source, is_pipe};
use crate::text::Notes;
use envelock::{EncryptionContext, Envelope, Error, ErrorKind, FileOptions, ResumeOptions, ResumeStart};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Encrypts files in partial files, which stay when the work ends early.
pub(crate) struct Resumer {
    envelope: Envelope,
    notes: Notes,
    /// The present file's partial file is at work.
    begun: Arc<AtomicBool>,
}

impl Resumer {
    pub(crate) fn new(envelope: Envelope, notes: Notes) -> Self {
        Self { envelope, notes, begun: Arc::default() }
    }
}

/// # Errors
/// If what is encrypted, or where to, is no file. Nothing is opened: a pipe would wait for its writer.
pub(crate) fn check(arguments: &Encrypt) -> Result<(), Failure> {
    let output = arguments.output.output.as_deref();
    let is_stream = |file: &Path| is_pipe(file) || file.metadata().is_ok_and(|it| !it.is_file() && !it.is_dir());
    match output.is_some_and(is_pipe) || arguments.files.iter().any(|file| is_stream(file)) {
        true => Err(Failure::usage(NO_PIPES)),
        false => Ok(()),
    }
}

const NO_PIPES: &str = "--resume goes from a file to a file: a pipe cannot be read again from where it ended";

impl Work for Resumer {
    async fn file_to_file(
        &self,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.begun.store(false, Ordering::SeqCst);
        let (begun, notes, name) = (Arc::clone(&self.begun), self.notes, from.display().to_string());
        let options = ResumeOptions::from(options).on_start(move |start| {
            begun.store(true, Ordering::SeqCst);
            match start {
                ResumeStart::Continued { verified_segments, verified_len } => notes.say(&format!(
                    "{name}: going on after {verified_len} bytes, whose {verified_segments} segments were verified"
                )),
                ResumeStart::BegunAnew(why) => notes.say(&format!("{name}: begun anew, as a new message, since {why}")),
                _ => {}
            }
        });
        Ok(self.envelope.encrypt_file_resumable(from, to, context, options).await?.sealed_len)
    }

    async fn stream_to_file(
        &self,
        _from: Interruptible,
        _to: &Path,
        _context: &EncryptionContext,
        _options: FileOptions,
    ) -> envelock::Result<u64> {
        Err(Error::new(ErrorKind::InvalidInput, NO_PIPES))
    }

    fn to_output(
        &self,
        _source: &Source,
        _output: File,
        _context: &EncryptionContext,
        _progress: &Progress,
    ) -> Result<(), Failure> {
        Err(Failure::usage(NO_PIPES))
    }

    fn not_done(&self, to: &Path, failure: Failure) -> Failure {
        let partial = Envelope::partial_path(to).ok().filter(|path| path.symlink_metadata().is_ok());
        match partial {
            // A signal may come while what is there is being verified.
            Some(path) if self.begun.load(Ordering::SeqCst) || failure.is_signal() => failure.and(&format!(
                "what was encrypted so far is kept in {}: run the same command again to go on with it",
                path.display()
            )),
            _ => failure,
        }
    }
}
