//! `seal` and `open`: one value as one line of text.

use crate::args::{OpenValue, SealValue};
use crate::failure::Failure;
use crate::provider::{Providers, Purpose, context, reader, together};
use crate::signals::Signals;
use crate::streams::{Source, StandardOutput};
use crate::text::{Notes, answer};
use envelock::{Envelope, ErrorKind, blocking, from_text, to_text};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest value, in bytes.
const VALUE_MAX: usize = 16 << 20;
/// The longest text: the longest value under the longest head, in base64.
const TEXT_MAX: usize = (VALUE_MAX + (64 << 10) + 1_024).div_ceil(3) * 4;

pub(crate) fn seal(arguments: &SealValue, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let mut providers = Providers::new(&arguments.opening.keystore, signals, notes).making(arguments.making);
    let members = providers.members(&arguments.opening.provider, Purpose::Encrypt)?;
    let envelope = Envelope::builder(together(members, arguments.at_least)?).build()?;
    let value = input(VALUE_MAX)?;
    // Nothing has to be undone: a signal ends the program at once.
    let sealed = blocking::wait(envelope.seal_value(&value, &context(&arguments.opening)))?;
    answer(&format!("{}\n", to_text(&sealed)))
}

pub(crate) fn open(arguments: &OpenValue, signals: &Signals, notes: Notes) -> Result<(), Failure> {
    let envelope = reader(&arguments.opening, &arguments.matching, signals, notes)?;
    let sealed = text_of(&input(TEXT_MAX)?, INPUT)?;
    let opened = blocking::wait(envelope.open_value(&sealed, &context(&arguments.opening)));
    let value = Zeroizing::new(opened.map_err(|error| Failure::from(error).of(INPUT))?);
    StandardOutput::open()?.write_all(&value).map_err(|e| Failure::from(envelock::Error::from(e)))
}

/// The bytes of one line of text out of `name`, its end cut off.
pub(crate) fn text_of(text: &[u8], name: &str) -> Result<Vec<u8>, Failure> {
    let line = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
    // What is no UTF-8 is no base64 either.
    from_text(&String::from_utf8_lossy(line)).map_err(|error| Failure::from(error).of(name))
}

/// All of standard input.
fn input(most: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut source = Source::of(Path::new("-"))?.open()?;
    let mut input = Zeroizing::new(Vec::new());
    let mut piece = Zeroizing::new([0; 4_096]);
    loop {
        let count = match source.read(&mut piece[..]) {
            Ok(0) => return Ok(input),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::io(INPUT, &e)),
        };
        if input.len() + count > most {
            let error = envelock::Error::new(ErrorKind::LimitExceeded, format!("{INPUT} has more than {most} bytes"));
            return Err(error.with_advice("encrypt larger values as files").into());
        }
        grow(&mut input, count);
        input.extend_from_slice(&piece[..count]);
    }
}

/// Makes room without leaving a copy of the value where it was.
fn grow(input: &mut Zeroizing<Vec<u8>>, count: usize) {
    if input.capacity() - input.len() < count {
        let mut larger = Zeroizing::new(Vec::with_capacity((2 * input.capacity()).max(65_536)));
        larger.extend_from_slice(input);
        *input = larger;
    }
}

const INPUT: &str = "standard input";
