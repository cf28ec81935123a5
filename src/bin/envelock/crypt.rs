//! `encrypt` and `decrypt`.

use crate::args::{Output, Working};
use crate::failure::{Failure, each};
use crate::file_args::{Decrypt, Encrypt};
use crate::forgotten;
use crate::missing;
use crate::progress::Progress;
use crate::provider::{Providers, Purpose, context, reader};
use crate::range::{self, check_seekable};
use crate::resume::{self, Kept};
use crate::signals::Signals;
use crate::streams::{self, Interruptible, Source, StandardOutput, is_pipe};
use crate::text::Notes;
use envelock::{ByteRange, EncryptionContext, Envelope, FileOptions, blocking};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

const EXTENSION: &str = "elk";

pub(crate) fn encrypt(arguments: &Encrypt, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let name = |file: &Path| Ok(sibling_with_extension(file));
    let way = match arguments.resume {
        true => {
            resume::check(arguments)?;
            Way::Resume
        }
        false => Way::Encrypt,
    };
    let context = context(&arguments.opening);
    let choice = &missing::choice(&arguments.opening.choosing);
    let run = Run { way, signals, notes, context, choice, output: &arguments.output, working: &arguments.working };
    run.all(&arguments.files, name, || {
        if arguments.output.output.is_none()
            && arguments.files.iter().any(|it| is_pipe(it))
            && io::stdout().is_terminal()
        {
            return Err(Failure::usage(
                "a message is not for a terminal: name a target with --output, or insist with --output -",
            ));
        }
        let mut providers = Providers::new(&arguments.opening.keystore, signals, notes).making(arguments.making);
        let chosen = providers.chosen(&arguments.opening, Purpose::Encrypt)?;
        chosen.told_of_outages(arguments.at_least);
        let cache = chosen.cache_limits();
        let mut envelope = Envelope::builder(chosen.writing(arguments.at_least)?).aead(arguments.aead.into());
        if let Some(limits) = cache {
            envelope = envelope.cache(limits);
        }
        if let Some(bytes) = arguments.segment_len {
            envelope = envelope.segment_len(bytes);
        }
        Ok(envelope.build()?)
    })
}

pub(crate) fn decrypt(arguments: &Decrypt, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let name = |file: &Path| match file.extension() {
        Some(extension) if extension == EXTENSION => Ok(file.with_extension("")),
        _ => Err(Failure::usage(format!(
            "{} does not end in .{EXTENSION}: name the target with --output",
            file.display()
        ))),
    };
    let way = match arguments.range {
        Some(range) => {
            check_seekable(&arguments.files)?;
            Way::Range(range)
        }
        None => Way::Decrypt,
    };
    let context = context(&arguments.opening);
    let run = Run { way, signals, notes, context, choice: "", output: &arguments.output, working: &arguments.working };
    run.all(&arguments.files, name, || {
        forgotten::check(&arguments.opening, &arguments.files)?;
        reader(&arguments.opening, &arguments.matching, signals, notes)
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

/// What is done to each file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Encrypt,
    /// In partial files, which stay when the work ends early.
    Resume,
    Decrypt,
    Range(ByteRange),
}

impl Way {
    fn done(self) -> &'static str {
        match self {
            Self::Encrypt | Self::Resume => "encrypted",
            Self::Decrypt | Self::Range(_) => "decrypted",
        }
    }
}

/// One call of the program.
struct Run<'a> {
    way: Way,
    signals: &'a Signals,
    notes: Notes,
    context: EncryptionContext,
    /// How the providers were named.
    choice: &'a str,
    output: &'a Output,
    working: &'a Working,
}

impl Run<'_> {
    /// Nothing is opened, made or asked for before at least one file is known to have a way.
    fn all(
        &self,
        files: &[PathBuf],
        name: impl Fn(&Path) -> Result<PathBuf, Failure>,
        prepare: impl FnOnce() -> Result<Envelope, Failure>,
    ) -> Result<(), Failure> {
        check_files(files, self.output)?;
        let mut jobs = Vec::new();
        let planned = each(files, |file| {
            jobs.push(plan(file, self.output, &name)?);
            Ok(())
        });
        if jobs.is_empty() {
            return planned;
        }
        let envelope = prepare()?;
        let done = each(&jobs, |job| {
            self.signals.check()?;
            self.one(&envelope, job)
        });
        planned.and(done)
    }

    fn one(&self, envelope: &Envelope, job: &Job) -> Result<(), Failure> {
        let progress = match &job.target {
            // The bar and the plaintext would mix.
            Target::StandardOutput if io::stdout().is_terminal() => Progress::none(),
            _ => Progress::new(&job.name, length(&job.source), self.notes),
        };
        let done = match &job.target {
            Target::File(to) => self.to_file(envelope, job, to, &progress),
            Target::StandardOutput => self.to_output(envelope, job, &progress),
        };
        progress.clear();
        done.map_err(|failure| failure.of(&job.name))?;
        if let Target::File(to) = &job.target {
            self.notes.say(&format!("{} {} to {}", self.way.done(), job.name, to.display()));
            if matches!(self.way, Way::Encrypt | Way::Resume) {
                missing::say_of_file(to, self.choice, self.notes);
            }
        }
        Ok(())
    }

    fn options(&self, progress: &Progress) -> FileOptions {
        let options = FileOptions::default().threads(self.working.threads()).on_progress(progress.reporter());
        if self.output.force { options.replace_existing() } else { options }
    }

    fn to_file(&self, envelope: &Envelope, job: &Job, to: &Path, progress: &Progress) -> Result<(), Failure> {
        let (context, options) = (&self.context, self.options(progress).stop_when(self.signals.flag()));
        let from = match &job.source {
            Source::File(from) => from,
            Source::Stream(stream) => {
                let from = Interruptible::new(stream.open()?, self.signals.flag());
                return match self.way {
                    Way::Encrypt => self.signals.drive(envelope.encrypt_to_file(from, to, context, options)),
                    Way::Decrypt => self.signals.drive(envelope.decrypt_to_file(from, to, context, options)),
                    Way::Resume => return Err(Failure::usage(resume::NO_PIPES)),
                    Way::Range(_) => return Err(Failure::usage(range::no_file(&job.name))),
                }
                .map(drop);
            }
        };
        match self.way {
            Way::Encrypt => self.signals.drive(envelope.encrypt_file(from, to, context, options)).map(drop),
            Way::Decrypt => self.signals.drive(envelope.decrypt_file(from, to, context, options)).map(drop),
            Way::Range(range) => {
                self.signals.drive(envelope.decrypt_file_range(from, to, range, context, options)).map(drop)
            }
            Way::Resume => {
                let kept = Kept::default();
                let options = kept.told(options, &job.name, self.notes);
                let done = self.signals.drive(envelope.encrypt_file_resumable(from, to, context, options));
                done.map(drop).map_err(|failure| kept.not_done(to, failure))
            }
        }
    }

    /// Nothing has to be undone: a signal ends the program at once.
    fn to_output(&self, envelope: &Envelope, job: &Job, progress: &Progress) -> Result<(), Failure> {
        let (context, options) = (&self.context, self.options(progress));
        let output = StandardOutput::open()?;
        let state = output.state();
        // Nobody waits for a source whose sink is gone.
        let from = |source: &Source| Ok::<_, Failure>(Interruptible::new(source.open()?, state.broken()));
        let done = match (self.way, &job.source) {
            (Way::Encrypt, source) => blocking::wait(envelope.encrypt_pipe(from(source)?, output, context, options)),
            (Way::Decrypt, source @ Source::Stream(_)) => {
                blocking::wait(envelope.decrypt_pipe(from(source)?, output, context, options))
            }
            (Way::Decrypt, Source::File(path)) => {
                blocking::wait(envelope.decrypt_file_to_pipe(path, output, context, options))
            }
            (Way::Range(range), Source::File(path)) => range::to_output(envelope, path, range, context, output),
            (Way::Range(_), Source::Stream(_)) => return Err(Failure::usage(range::no_file(&job.name))),
            (Way::Resume, _) => return Err(Failure::usage(resume::NO_PIPES)),
        };
        done.map(drop).map_err(|error| {
            let failure = Failure::from(error);
            match state.written() {
                0 => failure,
                _ if matches!(self.way, Way::Encrypt | Way::Resume) || state.is_broken() => failure,
                sent => failure
                    .and(&format!("the {sent} bytes that were written before are a verified beginning, not the whole")),
            }
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lies_beside_its_file() {
        assert_eq!(sibling_with_extension(Path::new("a/README.md")), Path::new("a/README.md.elk"));
        assert_eq!(sibling_with_extension(Path::new(".hidden")), Path::new(".hidden.elk"));
    }
}
