//! `rewrap`.

use crate::failure::{Failure, each};
use crate::file_args::Rewrap;
use crate::forgotten;
use crate::missing;
use crate::provider::{Chosen, Member, Providers, Purpose, context, reading};
use crate::signals::Signals;
use crate::small::Small;
use crate::streams::{self, Source, is_pipe, write_new};
use crate::text::Notes;
use envelock::{EncryptionContext, Envelope, RewrapMode, RewrapOptions};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub(crate) fn rewrap(arguments: &Rewrap, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    check(arguments)?;
    let opening = &arguments.opening;
    let mut providers = Providers::new(&opening.keystore, signals, notes).making(arguments.making);
    forgotten::check(opening, &arguments.files)?;
    let from = providers.chosen(opening, Purpose::Decrypt)?;
    let mut to = match arguments.to.is_empty() {
        true => from.clone(),
        false => Chosen::of(providers.members(&arguments.to, Purpose::Encrypt)?),
    };
    if arguments.blind {
        to.members = opening_keys_of(&from.members, to.members, signals)?;
    }
    let old = reading(from, &arguments.matching)?;
    let new = Envelope::builder(to.writing(arguments.at_least)?).build()?;
    // A blind rewrap reads the message's context with the old envelope, and re-encrypts with the new one.
    let choice = match arguments.to.is_empty() {
        true => missing::choice(&opening.choosing),
        false => missing::named(&arguments.to),
    };
    let work = Work { old, new, context: context(opening), choice, arguments, signals, notes };
    let mut rewrapped = 0;
    let done = each(&arguments.files, |file| {
        signals.check()?;
        work.one(file).map_err(|failure| failure.of(&streams::name(file)))?;
        rewrapped += 1;
        Ok(())
    });
    if rewrapped == 0 {
        return done;
    }
    notes.say("a rewrap is not a revocation: whoever had a data key or an old copy of a file still has it");
    if arguments.blind {
        notes.say(
            "the data keys were not seen here: run `envelock verify` with the new keys before an old key is retired",
        );
    }
    done
}

fn check(arguments: &Rewrap) -> Result<(), Failure> {
    if arguments.files.iter().any(|file| is_pipe(file)) || arguments.output.as_deref().is_some_and(is_pipe) {
        return Err(Failure::usage("rewrap works on files, not on pipes"));
    }
    if arguments.files.len() > 1 && arguments.output.as_ref().is_some_and(|output| !output.is_dir()) {
        return Err(Failure::usage("several files have one target each: --output must name an existing folder"));
    }
    Ok(())
}

/// A key service re-encrypts what its new provider may open: let it open what the old ones do.
pub(crate) fn opening_keys_of(from: &[Member], to: Vec<Member>, signals: &Signals) -> Result<Vec<Member>, Failure> {
    let (mut keys, mut arns) = (Vec::new(), Vec::new());
    for member in from {
        match member {
            Member::Local(local) => keys.push(local.key_name()),
            Member::Aws(aws) => arns.extend(aws.key_arns()),
            Member::Vault(_) | Member::Other(_) => {}
        }
    }
    to.into_iter()
        .map(|member| match member {
            Member::Local(local) => Ok(Member::Local(local.also_opens(&keys)?)),
            Member::Aws(aws) => Ok(Member::Aws(aws.also_opens(&arns, signals)?)),
            other @ (Member::Vault(_) | Member::Other(_)) => Ok(other),
        })
        .collect()
}

struct Work<'a> {
    old: Envelope,
    new: Envelope,
    context: EncryptionContext,
    /// How the new providers were named.
    choice: String,
    arguments: &'a Rewrap,
    signals: &'a Signals,
    notes: Notes,
}

impl Work<'_> {
    fn one(&self, file: &Path) -> Result<(), Failure> {
        if let Source::Stream(_) = Source::of(file)? {
            return Err(Failure::usage("rewrap works on files, not on pipes"));
        }
        let mut options = RewrapOptions::default().stop_when(self.signals.flag());
        if self.arguments.blind {
            options = options.mode(RewrapMode::Blind);
        }
        if self.arguments.to.is_empty() && !self.arguments.drop_others {
            options = options.keep_others();
        }
        let target = self.target(file)?;
        if let Some(small) = small(file)? {
            return self.small(file, &small, target.as_deref(), &options);
        }
        if let Some(target) = &target {
            options = options.to_file(target);
        }
        let done = self.signals.drive(self.old.rewrap_file(file, &self.new, &self.context, options))?;
        if let Some(notice) = done.notice {
            self.notes.say(&format!("{}: {notice}", file.display()));
        }
        let how = match &target {
            Some(target) => format!("to {}", target.display()),
            None if done.in_place => "in place".into(),
            None => "as a new file in its place, since the new keys did not fit".into(),
        };
        self.notes.say(&format!("rewrapped {} {how}", file.display()));
        missing::say_of_file(target.as_deref().unwrap_or(file), &self.choice, self.notes);
        for recipient in done.removed {
            self.notes.say(&format!("{}: {recipient} REMOVED: it opens this file no more", file.display()));
        }
        Ok(())
    }

    /// The new one always goes to a file of its own: what the old one replaces is for whoever has the table or
    /// the configuration in which it stands.
    fn small(&self, file: &Path, small: &Small, target: Option<&Path>, options: &RewrapOptions) -> Result<(), Failure> {
        let target = target.ok_or_else(|| {
            Failure::usage("values and record sets are not rewrapped in place: name a new file with --output")
        })?;
        let (made, removed) = small.rewrap(&self.old, &self.new, &self.context, options)?;
        self.signals.undoing(|| write_new(target, &made))?;
        self.notes.say(&format!("rewrapped {} as {}", file.display(), target.display()));
        for recipient in removed {
            self.notes.say(&format!("{}: {recipient} REMOVED: it opens this file no more", target.display()));
        }
        Ok(())
    }

    fn target(&self, file: &Path) -> Result<Option<PathBuf>, Failure> {
        let Some(output) = &self.arguments.output else { return Ok(None) };
        let target = match output.is_dir() {
            true => output.join(file.file_name().unwrap_or_default()),
            false => output.clone(),
        };
        Ok(Some(target))
    }
}

fn small(file: &Path) -> Result<Option<Small>, Failure> {
    let failed = |e: io::Error| Failure::io(&file.display().to_string(), &e);
    let (mut opened, mut start) = (File::open(file).map_err(failed)?, Vec::new());
    opened.by_ref().take(5).read_to_end(&mut start).map_err(failed)?;
    Small::read(&start, &mut opened).map_err(failed)
}
