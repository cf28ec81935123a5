//! `encrypt` and `decrypt`.

use crate::args::{Decrypt, Encrypt, Output};
use crate::failure::{Failure, each};
use crate::progress::Progress;
use crate::provider::{Providers, Purpose, context, reader, together};
use crate::range::{RangeOpener, check_seekable};
use crate::resume::{self, Resumer};
use crate::signals::Signals;
use crate::streams::{self, Interruptible, Source, Stopped, is_pipe};
use crate::text::Notes;
use envelock::{EncryptionContext, Envelope, Error, FileOptions, blocking};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

const EXTENSION: &str = "elk";

pub(crate) fn encrypt(arguments: &Encrypt, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let name = |file: &Path| Ok(sibling_with_extension(file));
    let run = Run { signals, notes, context: context(&arguments.opening), doing: "encrypted" };
    let envelope = || {
        if arguments.output.output.is_none()
            && arguments.files.iter().any(|it| is_pipe(it))
            && io::stdout().is_terminal()
        {
            return Err(Failure::usage(
                "a message is not for a terminal: name a target with --output, or insist with --output -",
            ));
        }
        let mut providers = Providers::new(&arguments.opening.keystore, signals, notes).making(arguments.making);
        let members = providers.members(&arguments.opening.provider, Purpose::Encrypt)?;
        let mut envelope = Envelope::builder(together(members, arguments.at_least)?).aead(arguments.aead.into());
        if let Some(bytes) = arguments.segment_len {
            envelope = envelope.segment_len(bytes);
        }
        Ok(envelope.build()?)
    };
    match arguments.resume {
        true => {
            resume::check(arguments)?;
            run.all(&arguments.files, &arguments.output, name, || Ok(Resumer::new(envelope()?, notes)))
        }
        false => run.all(&arguments.files, &arguments.output, name, || Ok(Sealer(envelope()?))),
    }
}

pub(crate) fn decrypt(arguments: &Decrypt, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let name = |file: &Path| match file.extension() {
        Some(extension) if extension == EXTENSION => Ok(file.with_extension("")),
        _ => Err(Failure::usage(format!(
            "{} does not end in .{EXTENSION}: name the target with --output",
            file.display()
        ))),
    };
    let run = Run { signals, notes, context: context(&arguments.opening), doing: "decrypted" };
    if let Some(range) = arguments.range {
        check_seekable(&arguments.files)?;
        return run.all(&arguments.files, &arguments.output, name, || {
            Ok(RangeOpener::new(reader(&arguments.opening, &arguments.matching, signals, notes)?, range))
        });
    }
    run.all(&arguments.files, &arguments.output, name, || {
        Ok(Opener(reader(&arguments.opening, &arguments.matching, signals, notes)?))
    })
}

/// `name.elk` beside `name`.
fn sibling_with_extension(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(EXTENSION);
    name.into()
}

/// One source and where it goes.
struct Job {
    source: Source,
    name: String,
    target: Target,
}

enum Target {
    StandardOutput,
    File(PathBuf),
}

/// What `encrypt` and `decrypt` share.
struct Run<'a> {
    signals: &'a Signals,
    notes: Notes,
    context: EncryptionContext,
    doing: &'a str,
}

/// What they do not.
pub(crate) trait Work {
    async fn file_to_file(
        &self,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64>;
    async fn stream_to_file(
        &self,
        from: Interruptible,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64>;
    fn to_output(
        &self,
        source: &Source,
        output: File,
        context: &EncryptionContext,
        progress: &Progress,
    ) -> Result<(), Failure>;

    /// What there is to say of a file that was not done.
    fn not_done(&self, _to: &Path, failure: Failure) -> Failure {
        failure
    }
}

struct Sealer(Envelope);
struct Opener(Envelope);

impl Run<'_> {
    /// Nothing is opened, made or asked for before at least one file is known to have a way.
    fn all<W: Work>(
        &self,
        files: &[PathBuf],
        output: &Output,
        name: impl Fn(&Path) -> Result<PathBuf, Failure>,
        prepare: impl FnOnce() -> Result<W, Failure>,
    ) -> Result<(), Failure> {
        check_files(files, output)?;
        let mut jobs = Vec::new();
        let planned = each(files, |file| {
            jobs.push(plan(file, output, &name)?);
            Ok(())
        });
        if jobs.is_empty() {
            return planned;
        }
        let work = prepare()?;
        let done = each(&jobs, |job| {
            self.signals.check()?;
            self.one(&work, job, output)
        });
        planned.and(done)
    }

    fn one(&self, work: &impl Work, job: &Job, output: &Output) -> Result<(), Failure> {
        let progress = match &job.target {
            // The bar and the plaintext would mix.
            Target::StandardOutput if io::stdout().is_terminal() => Progress::none(),
            _ => Progress::new(&job.name, length(&job.source), self.notes),
        };
        let done = match &job.target {
            Target::File(to) => self.to_file(work, job, to, output, &progress),
            Target::StandardOutput => {
                work.to_output(&job.source, streams::standard_output()?, &self.context, &progress)
            }
        };
        progress.clear();
        done.map_err(|failure| failure.of(&job.name))?;
        if let Target::File(to) = &job.target {
            self.notes.say(&format!("{} {} to {}", self.doing, job.name, to.display()));
        }
        Ok(())
    }

    fn to_file(
        &self,
        work: &impl Work,
        job: &Job,
        to: &Path,
        output: &Output,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut options = FileOptions::default().stop_when(self.signals.flag());
        if output.force {
            options = options.replace_existing();
        }
        let length = match &job.source {
            Source::File(from) => {
                let options = options.on_progress(progress.reporter());
                self.signals.drive(work.file_to_file(from, to, &self.context, options))
            }
            Source::Stream(stream) => {
                let from = Interruptible::new(stream.open()?, self.signals.flag(), progress.clone());
                self.signals.drive(work.stream_to_file(from, to, &self.context, options))
            }
        };
        length.map(|_| ()).map_err(|failure| work.not_done(to, failure))
    }
}

fn check_files(files: &[PathBuf], output: &Output) -> Result<(), Failure> {
    if files.len() > 1 {
        if files.iter().any(|file| is_pipe(file)) {
            return Err(Failure::usage("standard input (-) goes alone, without other files"));
        }
        if output.output.as_ref().is_some_and(|output| !output.is_dir()) {
            return Err(Failure::usage("several files have one target each: --output must name an existing folder"));
        }
    }
    Ok(())
}

fn plan(file: &Path, output: &Output, name: impl Fn(&Path) -> Result<PathBuf, Failure>) -> Result<Job, Failure> {
    let source = Source::of(file)?;
    let target = match &output.output {
        Some(output) if is_pipe(output) => Target::StandardOutput,
        None if is_pipe(file) => Target::StandardOutput,
        None => Target::File(name(file)?),
        Some(folder) if folder.is_dir() => {
            if is_pipe(file) {
                return Err(Failure::usage(format!("{} is a folder: name a file in it", folder.display())));
            }
            let named = name(file)?;
            Target::File(folder.join(named.file_name().unwrap_or_default()))
        }
        Some(output) => Target::File(output.clone()),
    };
    if let Target::File(to) = &target
        && !output.force
        && to.symlink_metadata().is_ok_and(|there| !there.is_symlink())
    {
        return Err(Failure::target_exists(to));
    }
    Ok(Job { source, name: streams::name(file), target })
}

fn length(source: &Source) -> Option<u64> {
    match source {
        Source::File(path) => path.metadata().ok().map(|metadata| metadata.len()),
        Source::Stream(_) => None,
    }
}

impl Work for Sealer {
    async fn file_to_file(
        &self,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.0.encrypt_file(from, to, context, options).await
    }

    async fn stream_to_file(
        &self,
        from: Interruptible,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.0.encrypt_to_file(from, to, context, options).await
    }

    /// Padded as in a file: a pipe usually ends in one.
    fn to_output(
        &self,
        source: &Source,
        output: File,
        context: &EncryptionContext,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut source = open(source)?;
        let mut writer = blocking::wait(self.0.file_encryptor(context))?.into_writer(output);
        let (_, copied) = streams::copy(&mut source, &mut writer, progress);
        match copied {
            Err(Stopped::Source(error)) => Err(Failure::io("it cannot be read", &error)),
            Err(Stopped::Target(error)) => Err(written(error)),
            Ok(()) => writer.finish().map(|_| ()).map_err(|error| written(error.into())),
        }
    }
}

impl Work for Opener {
    async fn file_to_file(
        &self,
        from: &Path,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.0.decrypt_file(from, to, context, options).await
    }

    async fn stream_to_file(
        &self,
        from: Interruptible,
        to: &Path,
        context: &EncryptionContext,
        options: FileOptions,
    ) -> envelock::Result<u64> {
        self.0.decrypt_to_file(from, to, context, options).await
    }

    fn to_output(
        &self,
        source: &Source,
        mut output: File,
        context: &EncryptionContext,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let (sent, copied) = match source {
            Source::File(path) => {
                streams::copy(&mut blocking::wait(self.0.file_reader(path, context))?, &mut output, progress)
            }
            Source::Stream(stream) => {
                let mut reader = blocking::wait(self.0.decrypt_reader(stream.open()?, context))?;
                streams::copy(&mut reader, &mut output, progress)
            }
        };
        match copied {
            Ok(()) => Ok(()),
            Err(Stopped::Target(error)) => Err(written(error)),
            Err(Stopped::Source(error)) => Err(cut_short(error, sent)),
        }
    }
}

fn open(source: &Source) -> Result<File, Failure> {
    match source {
        Source::File(path) => File::open(path).map_err(|e| Failure::io(&path.display().to_string(), &e)),
        Source::Stream(stream) => stream.open(),
    }
}

/// A failure of the message after `sent` bytes went out.
pub(crate) fn cut_short(error: io::Error, sent: u64) -> Failure {
    Failure::from(Error::from(error))
        .and(&format!("the {sent} bytes that were written before are a verified beginning, not the whole"))
}

/// A failure of the target, which an encrypting writer may have wrapped.
pub(crate) fn written(error: io::Error) -> Failure {
    match Error::from_io(&error) {
        Some(_) => Failure::from(Error::from(error)),
        None => Failure::io("standard output", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lies_beside_its_file() {
        assert_eq!(sibling_with_extension(Path::new("a/README.md")), Path::new("a/README.md.elk"));
        assert_eq!(sibling_with_extension(Path::new(".hidden")), Path::new(".hidden.elk"));
    }
}
