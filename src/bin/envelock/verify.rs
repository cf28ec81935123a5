//! `verify`.

use crate::failure::{Failure, each};
use crate::file_args::Verify;
use crate::forgotten;
use crate::progress::Progress;
use crate::provider::{context, reader};
use crate::signals::Signals;
use crate::small::Small;
use crate::streams::{self, Source};
use crate::text::{Notes, answer, plain};
use envelock::{EncryptionContext, Envelope, FileOptions, blocking};
use std::io::{self, Read as _};
use std::path::Path;

pub(crate) fn verify(arguments: &Verify, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    forgotten::check(&arguments.opening, &arguments.files)?;
    let envelope = reader(&arguments.opening, &arguments.matching, signals, notes)?;
    let context = context(&arguments.opening);
    each(&arguments.files, |file| {
        signals.check()?;
        let name = streams::name(file);
        let what = one(&envelope, file, &context, notes).map_err(|failure| failure.of(&name))?;
        match notes.shown() {
            true => answer(&format!("{}: authentic, {what}\n", plain(&name))),
            false => Ok(()),
        }
    })
}

fn one(envelope: &Envelope, file: &Path, context: &EncryptionContext, notes: Notes) -> Result<String, Failure> {
    let source = Source::of(file)?;
    let failed = |e| Failure::io(&streams::name(file), &e);
    let (mut opened, mut start) = (source.open()?, Vec::new());
    opened.by_ref().take(5).read_to_end(&mut start).map_err(failed)?;
    if let Some(small) = Small::read(&start, &mut opened).map_err(failed)? {
        return small.verify(envelope, context);
    }
    let length = match &source {
        Source::File(path) => path.metadata().ok().map(|it| it.len()),
        Source::Stream(_) => None,
    };
    let progress = Progress::new(&streams::name(file), length, notes);
    let options = FileOptions::default().on_progress(progress.reporter());
    let checked = match source {
        Source::File(path) => blocking::wait(envelope.decrypt_file_to_pipe(path, io::sink(), context, options)),
        Source::Stream(_) => {
            let whole = io::Cursor::new(start).chain(opened);
            blocking::wait(envelope.decrypt_pipe(whole, io::sink(), context, options))
        }
    };
    progress.clear();
    Ok(format!("{} bytes of plaintext", checked?))
}
