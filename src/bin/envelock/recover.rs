//! `recover`.

use crate::args::{LostPlaces, Recover};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::provider::{context, reader};
use crate::signals::Signals;
use crate::streams::{self, Source, StandardOutput, is_pipe};
use crate::text::Notes;
use envelock::{Damage, DamageMap, FileOptions, RecoverOptions};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) fn recover(arguments: &Recover, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    check(arguments)?;
    let name = streams::name(&arguments.file);
    let envelope = reader(&arguments.opening, &arguments.matching, signals, notes)?;
    let map = Map::begin(arguments)?;
    let map = Arc::new(Mutex::new(map));
    let progress = Progress::new(&name, arguments.file.metadata().ok().map(|it| it.len()), notes);
    let mut file = FileOptions::default().stop_when(signals.flag()).on_progress(progress.reporter());
    if arguments.force {
        file = file.replace_existing();
    }
    let options = RecoverOptions::from(file).holes(arguments.holes.into()).on_damage({
        let map = Arc::clone(&map);
        move |damage| map.lock().unwrap_or_else(PoisonError::into_inner).add(&damage)
    });
    let context = context(&arguments.opening);
    let done = signals.drive(envelope.dangerous_recover_file(&arguments.file, &arguments.output, &context, options));
    progress.clear();
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    match done {
        Ok(found) => {
            map.end(&found).map_err(|e| Failure::io(&map_name(&arguments.map), &e))?;
            said(&name, arguments, &found, notes)
        }
        Err(failure) => {
            map.remove(&arguments.map);
            Err(failure.of(&name))
        }
    }
}

/// Nothing is asked for, opened or made before everything has a way.
fn check(arguments: &Recover) -> Result<(), Failure> {
    if is_pipe(&arguments.file) || is_pipe(&arguments.output) {
        return Err(Failure::usage(
            "recover goes from a file to a file: it reads at any place, and writes all or nothing",
        ));
    }
    if let Source::Stream(_) = Source::of(&arguments.file)? {
        return Err(Failure::usage(format!("{} is no regular file", arguments.file.display())));
    }
    if arguments.map == arguments.output || arguments.map == arguments.file {
        return Err(Failure::usage("the map needs a name of its own"));
    }
    for target in [&arguments.output, &arguments.map] {
        if !arguments.force && !is_pipe(target) && target.symlink_metadata().is_ok() {
            return Err(Failure::target_exists(target));
        }
    }
    Ok(())
}

/// The line that ends it, and the exit code.
fn said(name: &str, arguments: &Recover, found: &DamageMap, notes: Notes) -> Result<(), Failure> {
    let output = arguments.output.display();
    if found.is_whole() {
        notes.say(&format!("{name} is whole: {} bytes of plaintext written to {output}", found.output_len));
        return Ok(());
    }
    let end = match found.end_verified {
        true => "",
        false => "; its end was not found, and how much is missing there is not known",
    };
    Err(Failure::damaged(format!(
        "{name} is damaged: {} of {} segments are authentic, their {} bytes of plaintext were written to {output}{end}; \
         see {} for what is not there",
        found.authentic_segments,
        found.authentic_segments + found.lost_segments,
        found.authentic_len,
        map_name(&arguments.map),
    )))
}

/// A map's path as messages name it.
fn map_name(map: &Path) -> String {
    if is_pipe(map) { "standard output".into() } else { map.display().to_string() }
}

/// The map, written as it comes: it may be longer than memory.
struct Map {
    out: BufWriter<Box<dyn Write + Send>>,
    entries: u64,
    /// The first failure to write it.
    failure: Option<io::Error>,
}

impl Map {
    fn begin(arguments: &Recover) -> Result<Self, Failure> {
        let path = &arguments.map;
        let file: Box<dyn Write + Send> = match is_pipe(path) {
            true => Box::new(StandardOutput::open()?),
            false => {
                let mut options = OpenOptions::new();
                match arguments.force {
                    true => options.create(true).truncate(true),
                    false => options.create_new(true),
                };
                Box::new(options.write(true).open(path).map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => Failure::target_exists(path),
                    _ => Failure::io(&path.display().to_string(), &e),
                })?)
            }
        };
        let mut map = Self { out: BufWriter::new(file), entries: 0, failure: None };
        let holes = if arguments.holes == LostPlaces::Skip { "skip" } else { "zero" };
        let of = |path: &Path| Value::from(path.to_string_lossy());
        let (file, output) = (of(&arguments.file), of(&arguments.output));
        map.write(&format!(
            "{{\n  \"file\": {file},\n  \"output\": {output},\n  \"holes\": \"{holes}\",\n  \"damage\": ["
        ));
        Ok(map)
    }

    fn add(&mut self, damage: &Damage) {
        // Numbers, and names of ours: nothing to escape.
        let range = |range: &Range<u64>| format!("{{\"start\": {}, \"end\": {}}}", range.start, range.end);
        let entry = format!(
            "{{\"segments\": {}, \"sealed\": {}, \"plaintext\": {}, \"output_at\": {}, \"cause\": \"{}\", \
             \"recovered\": {}}}",
            range(&damage.segments),
            range(&damage.sealed),
            range(&damage.plaintext),
            damage.output_at,
            damage.cause.name(),
            damage.is_recovered(),
        );
        let comma = if self.entries == 0 { "" } else { "," };
        self.write(&format!("{comma}\n    {entry}"));
        self.entries += 1;
    }

    fn end(&mut self, found: &DamageMap) -> io::Result<()> {
        let close = if self.entries == 0 { "]" } else { "\n  ]" };
        self.write(close);
        for (name, value) in [
            ("whole", found.is_whole().into()),
            ("end_verified", found.end_verified.into()),
            ("segment_length", found.segment_len.into()),
            ("authentic_segments", found.authentic_segments.into()),
            ("lost_segments", found.lost_segments.into()),
            ("authentic_length", found.authentic_len.into()),
            ("output_length", Value::from(found.output_len)),
        ] {
            self.write(&format!(",\n  \"{name}\": {value}"));
        }
        self.write("\n}\n");
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.out.flush(),
        }
    }

    fn write(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(text.as_bytes()).err();
        }
    }

    /// Takes a map away that is of nothing.
    fn remove(&mut self, path: &Path) {
        if !is_pipe(path) {
            // What stays is a beginning, which no reader of JSON takes for a map.
            let _ = std::fs::remove_file(path);
        }
    }
}
