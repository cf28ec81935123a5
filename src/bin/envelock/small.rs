//! Files that are no messages: values and record sets, as bytes or as lines of text.

use crate::failure::Failure;
use envelock::{EncryptionContext, Envelope, Error, RecordSetHeader, RewrapOptions, blocking, from_text, to_text};
use std::fs::File;
use std::io::{self, Read as _};

/// A value, a record set or a record, unread.
#[derive(Debug)]
pub(crate) enum Small {
    /// As it is.
    Bytes(Vec<u8>),
    /// One a line.
    Text(Vec<u8>),
}

impl Small {
    /// What is in `file` behind its first five bytes, `start`, if that is none of a message. No more is read
    /// than the longest value has.
    pub(crate) fn read(start: &[u8], file: &mut File) -> io::Result<Option<Self>> {
        let kind: fn(Vec<u8>) -> Self = match start {
            b"elk1." => Self::Text,
            // Without and with an unstored context.
            b"ELK\x01\x02" | b"ELK\x01\x03" => Self::Bytes,
            // A record.
            [0xE1, ..] => Self::Bytes,
            _ => return Ok(None),
        };
        let mut bytes = start.to_vec();
        file.take(WHOLE_MAX).read_to_end(&mut bytes)?;
        Ok(Some(kind(bytes)))
    }

    /// Checks each, and says what they are.
    pub(crate) fn verify(&self, envelope: &Envelope, context: &EncryptionContext) -> Result<String, Failure> {
        let one = |bytes: &[u8]| blocking::wait(envelope.verify_record_set(bytes, context));
        match self {
            Self::Bytes(bytes) => {
                one(bytes)?;
                let set = RecordSetHeader::parse(bytes)?;
                Ok(if set.len() < bytes.len() { "a value" } else { "a record set" }.into())
            }
            Self::Text(text) => {
                let lines = each_line(text, |line| one(&text_of(line)?))?.len();
                Ok(if lines == 1 { "one line".into() } else { format!("{lines} lines") })
            }
        }
    }

    /// The same for the recipients of `new`; and what opens them no more.
    pub(crate) fn rewrap(
        &self,
        envelope: &Envelope,
        new: &Envelope,
        context: &EncryptionContext,
        options: &RewrapOptions,
    ) -> Result<(Vec<u8>, Vec<String>), Failure> {
        let mut removed = Vec::new();
        let mut one = |bytes: &[u8]| -> Result<_, Error> {
            let done = blocking::wait(envelope.rewrap_record_set(bytes, new, context, options.clone()))?;
            removed.extend(done.removed.iter().map(ToString::to_string));
            Ok(done.header)
        };
        let made = match self {
            Self::Bytes(bytes) => one(bytes)?,
            Self::Text(text) => {
                let lines = each_line(text, |line| Ok(to_text(&one(&text_of(line)?)?) + "\n"))?;
                lines.concat().into_bytes()
            }
        };
        removed.sort_unstable();
        removed.dedup();
        Ok((made, removed))
    }
}

/// All lines, or the failure of the first that failed.
fn each_line<T>(text: &[u8], mut work: impl FnMut(&[u8]) -> Result<T, Error>) -> Result<Vec<T>, Failure> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
    let made = (1..)
        .zip(lines)
        .map(|(number, line)| work(line).map_err(|error| Failure::from(error).of(&format!("line {number}"))));
    made.collect()
}

/// The bytes of one line of text, its end cut off.
pub(crate) fn text_of(text: &[u8]) -> Result<Vec<u8>, Error> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // What is no UTF-8 is no base64 either.
    from_text(&String::from_utf8_lossy(line))
}

/// More than the text of any one value has.
const WHOLE_MAX: u64 = 32 << 20;
