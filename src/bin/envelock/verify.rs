//! `verify`.

use crate::args::Verify;
use crate::failure::{Failure, each};
use crate::progress::Progress;
use crate::provider::{context, reader};
use crate::signals::Signals;
use crate::streams::{self, Source, Stopped};
use crate::text::{Notes, answer, plain};
use envelock::{EncryptionContext, Envelope, Error, blocking};
use std::io;
use std::path::Path;

pub(crate) fn verify(arguments: &Verify, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let envelope = reader(&arguments.opening, &arguments.matching, signals, notes)?;
    let context = context(&arguments.opening);
    each(&arguments.files, |file| {
        signals.check()?;
        let name = streams::name(file);
        let length = one(&envelope, file, &context, notes).map_err(|failure| failure.of(&name))?;
        match notes.shown() {
            true => answer(&format!("{}: authentic, {length} bytes of plaintext\n", plain(&name))),
            false => Ok(()),
        }
    })
}

fn one(envelope: &Envelope, file: &Path, context: &EncryptionContext, notes: Notes) -> Result<u64, Failure> {
    let name = streams::name(file);
    let (length, checked) = match Source::of(file)? {
        Source::File(path) => {
            let progress = Progress::new(&name, path.metadata().ok().map(|it| it.len()), notes);
            let mut reader = blocking::wait(envelope.file_reader(path, context))?;
            let outcome = streams::copy(&mut reader, &mut io::sink(), &progress);
            progress.clear();
            outcome
        }
        Source::Stream(stream) => {
            let mut reader = blocking::wait(envelope.decrypt_reader(stream.open()?, context))?;
            let progress = Progress::new(&name, None, notes);
            let outcome = streams::copy(&mut reader, &mut io::sink(), &progress);
            progress.clear();
            outcome
        }
    };
    match checked {
        Ok(()) => Ok(length),
        Err(Stopped::Source(error) | Stopped::Target(error)) => Err(Error::from(error).into()),
    }
}
