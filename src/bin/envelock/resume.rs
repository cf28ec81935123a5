//! `encrypt --resume`.

use crate::failure::Failure;
use crate::file_args::Encrypt;
use crate::streams::is_pipe;
use crate::text::Notes;
use envelock::{Envelope, FileOptions, ResumeOptions, ResumeStart};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What becomes of one file's partial file.
#[derive(Default)]
pub(crate) struct Kept {
    /// The partial file is at work.
    begun: Arc<AtomicBool>,
}

impl Kept {
    /// `options`, which say what the file `name` begins with.
    pub(crate) fn told(&self, options: FileOptions, name: &str, notes: Notes) -> ResumeOptions {
        let (begun, name) = (Arc::clone(&self.begun), name.to_owned());
        ResumeOptions::from(options).on_start(move |start| {
            begun.store(true, Ordering::SeqCst);
            match start {
                ResumeStart::Continued { verified_segments, verified_len } => notes.say(&format!(
                    "{name}: going on after {verified_len} bytes, whose {verified_segments} segments were verified"
                )),
                ResumeStart::BegunAnew(why) => notes.say(&format!("{name}: begun anew, as a new message, since {why}")),
                _ => {}
            }
        })
    }

    /// What there is to say of a file that was not done.
    pub(crate) fn not_done(&self, to: &Path, failure: Failure) -> Failure {
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

pub(crate) const NO_PIPES: &str =
    "--resume goes from a file to a file: a pipe cannot be read again from where it ended";
