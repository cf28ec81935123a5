//! `seal` and `open`: one value as one line of text.

use crate::failure::Failure;
use crate::forgotten;
use crate::lines::Caching;
use crate::missing;
use crate::provider::{self, Providers, Purpose, context, reading};
use crate::signals::Signals;
use crate::small::text_of;
use crate::streams::{Source, StandardOutput};
use crate::text::{Notes, answer};
use crate::value_args::{OpenValue, SealValue};
use envelock::{EncryptionContext, Envelope, Error, ErrorKind, RecordSetHeader, blocking, to_text};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest value, in bytes.
const VALUE_MAX: usize = 16 << 20;
/// The longest text: the longest value under the longest head, in base64.
const TEXT_MAX: usize = (VALUE_MAX + (64 << 10) + 1_024).div_ceil(3) * 4;

pub(crate) fn seal(arguments: &SealValue, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let mut providers = Providers::new(&arguments.opening.keystore, signals, notes).making(arguments.making);
    let chosen = providers.chosen(&arguments.opening, Purpose::Encrypt)?;
    chosen.told_of_outages(arguments.at_least);
    let limits = chosen.cache_limits();
    let envelope = Envelope::builder(chosen.writing(arguments.at_least)?);
    let context = context(&arguments.opening);
    // Nothing has to be undone: a signal ends the program at once.
    if arguments.lines.lines {
        let caching = Caching::new(limits)?;
        let envelope = envelope.shared_cache(caching.cache()).build()?;
        let said = Cell::new(false);
        return caching.each_line(arguments.lines, VALUE_MAX, |line| {
            let sealed = blocking::wait(envelope.seal_value(line, &context))?;
            if !said.get() {
                said.set(say_missing(&sealed, notes));
            }
            Ok(Zeroizing::new(to_text(&sealed).into_bytes()))
        });
    }
    let sealed = blocking::wait(envelope.build()?.seal_value(&input(VALUE_MAX)?, &context))?;
    say_missing(&sealed, notes);
    answer(&format!("{}\n", to_text(&sealed)))
}

fn say_missing(sealed: &[u8], notes: Notes) -> bool {
    RecordSetHeader::parse(sealed).is_ok_and(|header| missing::say(VALUE, header.slots(), None, notes))
}

pub(crate) fn open(arguments: &OpenValue, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let (opening, matching) = (&arguments.opening, &arguments.matching);
    let lacking = !arguments.lines.lines && forgotten::lacking(opening)?.is_some();
    let early = if lacking { Some(input(TEXT_MAX)?) } else { None };
    if let Some(bytes) = early.as_ref().and_then(|text| text_of(text).ok()) {
        forgotten::check_value(opening, INPUT, &bytes)?;
    }
    let chosen = Providers::new(&opening.keystore, signals, notes).chosen(opening, Purpose::Decrypt)?;
    let context = context(opening);
    if arguments.lines.lines {
        let caching = Caching::new(chosen.cache_limits())?;
        let envelope = provider::caching(chosen, matching, caching.cache())?;
        return caching.each_line(arguments.lines, TEXT_MAX, |line| {
            let value = opened(&envelope, line, &context)?;
            if value.contains(&b'\n') {
                let error = Error::new(ErrorKind::Unsupported, "this value has a line end in it, and is no line");
                return Err(error.with_advice("open it by itself, without --lines"));
            }
            Ok(value)
        });
    }
    let envelope = reading(chosen, matching)?;
    let input = early.map_or_else(|| input(TEXT_MAX), Ok)?;
    let value = opened(&envelope, &input, &context).map_err(|error| Failure::from(error).of(INPUT))?;
    StandardOutput::open()?.write_all(&value).map_err(|e| Failure::from(Error::from(e)))
}

fn opened(envelope: &Envelope, text: &[u8], context: &EncryptionContext) -> Result<Zeroizing<Vec<u8>>, Error> {
    blocking::wait(envelope.open_value(&text_of(text)?, context)).map(Zeroizing::new)
}

/// All of standard input.
fn input(most: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut source = Source::of(Path::new("-"))?.open()?;
    let mut input = Zeroizing::new(Vec::new());
    while read_more(&mut source, &mut input)? > 0 {
        if input.len() > most {
            let error = Error::new(ErrorKind::LimitExceeded, format!("{INPUT} has more than {most} bytes"));
            return Err(error.with_advice("encrypt larger values as files").into());
        }
    }
    Ok(input)
}

/// Appends a piece of standard input, and returns its length: zero at the end.
pub(crate) fn read_more(source: &mut File, input: &mut Zeroizing<Vec<u8>>) -> Result<usize, Failure> {
    let mut piece = Zeroizing::new([0; 16_384]);
    loop {
        match source.read(&mut piece[..]) {
            Ok(count) => {
                append(input, piece.get(..count).unwrap_or_default());
                return Ok(count);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failure::io(INPUT, &e)),
        }
    }
}

/// Appends without leaving a copy of what is there where it was.
pub(crate) fn append(to: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    if to.capacity() - to.len() < bytes.len() {
        let room = (2 * to.capacity()).max(to.len() + bytes.len()).max(65_536);
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(to);
        *to = larger;
    }
    to.extend_from_slice(bytes);
}

pub(crate) const INPUT: &str = "standard input";
const VALUE: &str = "what was sealed";
