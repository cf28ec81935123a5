//! `recover`.

use crate::failure::Failure;
use crate::file_args::{LostPlaces, Recover};
use crate::forgotten;
use crate::inspect::json_text;
use crate::progress::Progress;
use crate::provider::{context, reader};
use crate::signals::Signals;
use crate::streams::{self, Source, StandardOutput, is_pipe};
use crate::text::Notes;
use envelock::{Damage, DamageMap, FileOptions, RecoverOptions};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) fn recover(arguments: &Recover, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    check(arguments)?;
    let name = streams::name(&arguments.file);
    forgotten::check(&arguments.opening, std::slice::from_ref(&arguments.file))?;
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
            map.end(&found, arguments).map_err(|e| {
                map.remove();
                Failure::io(&map_name(&arguments.map), &e)
            })?;
            said(&name, arguments, &found, notes)
        }
        Err(failure) => {
            map.remove();
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
    if [&arguments.output, &arguments.file].into_iter().any(|it| is_same(it, &arguments.map)) {
        return Err(Failure::usage("the map needs a name of its own"));
    }
    for target in [&arguments.output, &arguments.map] {
        if !arguments.force && !is_pipe(target) && target.symlink_metadata().is_ok() {
            return Err(Failure::target_exists(target));
        }
    }
    Ok(())
}

/// Whether two paths name one file, or would: by another way of writing it, or by links.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some((folder.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other || (place(one).is_some() && place(one) == place(other)),
    }
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

/// The map, written as it comes: it may be longer than memory. It has its name once it is whole.
struct Map {
    temporary: Option<PathBuf>,
    out: BufWriter<Box<dyn Write + Send>>,
    entries: u64,
    /// The first failure to write it.
    failure: Option<io::Error>,
}

impl Map {
    fn begin(arguments: &Recover) -> Result<Self, Failure> {
        let path = &arguments.map;
        let (temporary, file): (_, Box<dyn Write + Send>) = match is_pipe(path) {
            true => (None, Box::new(StandardOutput::open()?)),
            false => {
                let mut name = OsString::from(".");
                name.push(path.file_name().unwrap_or_default());
                name.push(".envelock-map");
                let temporary = path.with_file_name(name);
                // Of a run that was killed.
                let _ = fs::remove_file(&temporary);
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
                let file = file.map_err(|e| Failure::io(&path.display().to_string(), &e))?;
                (Some(temporary), Box::new(file))
            }
        };
        let mut map = Self { temporary, out: BufWriter::new(file), entries: 0, failure: None };
        let holes = if arguments.holes == LostPlaces::Skip { "skip" } else { "zero" };
        let of = |path: &Path| json_text(&Value::from(path.to_string_lossy())).trim_end().to_owned();
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

    fn end(&mut self, found: &DamageMap, arguments: &Recover) -> io::Result<()> {
        let close = if self.entries == 0 { "]" } else { "\n  ]" };
        self.write(close);
        for (name, value) in [
            ("whole", found.is_whole().into()),
            ("end_verified", found.end_verified.into()),
            ("damage_count", found.damage_count.into()),
            ("segment_len", found.segment_len.into()),
            ("authentic_segments", found.authentic_segments.into()),
            ("lost_segments", found.lost_segments.into()),
            ("authentic_len", found.authentic_len.into()),
            ("output_len", Value::from(found.output_len)),
        ] {
            self.write(&format!(",\n  \"{name}\": {value}"));
        }
        self.write("\n}\n");
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.out.flush()?;
        match &self.temporary {
            None => Ok(()),
            Some(temporary) if arguments.force => fs::rename(temporary, &arguments.map),
            // Fails where something has appeared at the name.
            Some(temporary) => fs::hard_link(temporary, &arguments.map).and_then(|()| fs::remove_file(temporary)),
        }
    }

    fn write(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(text.as_bytes()).err();
        }
    }

    /// Takes a map away that is of nothing.
    fn remove(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What stays is a beginning, which no reader of JSON takes for a map.
            let _ = fs::remove_file(temporary);
        }
    }
}
