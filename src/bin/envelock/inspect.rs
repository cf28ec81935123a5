//! `inspect`: what a message, a record or a record set says of itself, before any key.

use crate::failure::Failure;
use crate::file_args::Inspect;
use crate::small::{Small, text_of};
use crate::streams::{self, Source};
use crate::text::{answer, plain};
use envelock::kms::version_of_blob;
use envelock::{AeadAlgorithm, EncryptedDataKey, Fingerprint, Header, Limits, RecordSetHeader, read_header};
use serde_json::json;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

pub(crate) fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let name = streams::name(&arguments.file);
    let (mut file, length) = match Source::of(&arguments.file)? {
        Source::File(path) => {
            let file = File::open(&path).map_err(|e| Failure::io(&name, &e))?;
            let length = file.metadata().map_err(|e| Failure::io(&name, &e))?.len();
            (file, Some(length))
        }
        Source::Stream(stream) => (stream.open()?, None),
    };
    let mut start = Vec::new();
    file.by_ref().take(5).read_to_end(&mut start).map_err(|e| Failure::io(&name, &e))?;
    let text = match Small::read(&start, &mut file).map_err(|e| Failure::io(&name, &e))? {
        Some(small) => {
            let bytes = match &small {
                Small::Text(text) => text_of(text),
                Small::Bytes(bytes) => Ok(bytes.clone()),
            };
            bytes.and_then(|bytes| described(&bytes, arguments)).map_err(|e| Failure::from(e).of(&name))?
        }
        None => {
            let header = read_header(&mut start.chain(&mut file), &Limits::default());
            message(&header.map_err(|e| Failure::from(e).of(&name))?, length, arguments)
        }
    };
    answer(&text)
}

fn message(header: &Header, length: Option<u64>, arguments: &Inspect) -> String {
    let message = Message { header, length };
    if arguments.json { message.json() } else { message.text() }
}

/// What bytes that are all at hand are: a message, a record, a record set or a value with its own.
fn described(bytes: &[u8], arguments: &Inspect) -> Result<String, envelock::Error> {
    match bytes {
        [b'E', b'L', b'K', 1, 2 | 3, ..] => {
            let header = RecordSetHeader::parse(bytes)?;
            let rest = bytes.get(header.len()..).unwrap_or_default();
            let value_len = match rest {
                [] => None,
                record => Some((Fingerprint::of_record(record)?, record.len() - RECORD_OVERHEAD).1),
            };
            let set = Set { header: &header, value_len };
            Ok(if arguments.json { set.json() } else { set.text() })
        }
        [0xE1, ..] => {
            let fingerprint = Fingerprint::of_record(bytes)?.to_string();
            let len = bytes.len() - RECORD_OVERHEAD;
            Ok(match arguments.json {
                true => json_text(&json!({ "format_version": 1, "fingerprint": fingerprint, "value_len": len })),
                false => {
                    format!("compact record     of the record set {fingerprint}\nvalue              {len} bytes\n")
                }
            })
        }
        _ => Ok(message(&Header::parse(bytes)?, Some(bytes.len() as u64), arguments)),
    }
}

/// What a compact record adds to its value.
const RECORD_OVERHEAD: usize = 57;

struct Set<'a> {
    header: &'a RecordSetHeader,
    /// Of the record behind it, if there is one.
    value_len: Option<usize>,
}

impl Set<'_> {
    fn text(&self) -> String {
        let header = self.header;
        let mut out = format!("format version     1\nrecord set         {}\n", header.fingerprint());
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "{name:<18} {value}");
        };
        match self.value_len {
            Some(len) => line("value", &format!("{len} bytes, unverified")),
            None => line("value", "none: its records are kept elsewhere"),
        }
        if header.stored_context().is_empty() {
            line("stored context", "none");
        }
        for (key, value) in header.stored_context().iter() {
            line("stored context", &format!("{key:?} = {value:?}"));
        }
        line("unstored context", if header.has_unstored_context() { "needed to open" } else { "none" });
        for (at, slot) in (1..).zip(header.slots()) {
            line(&format!("slot {at}"), &slot_text(slot));
        }
        out
    }

    fn json(&self) -> String {
        let header = self.header;
        let context: serde_json::Map<_, _> =
            header.stored_context().iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        json_text(&json!({
            "format_version": 1,
            "fingerprint": header.fingerprint().to_string(),
            "stored_context": context,
            "needs_unstored_context": header.has_unstored_context(),
            "slots": header.slots().iter().map(slot_json).collect::<Vec<_>>(),
            "header_len": header.len(),
            "value_len_unverified": self.value_len,
        }))
    }
}

struct Message<'a> {
    header: &'a Header,
    /// Of the whole file, where it is one.
    length: Option<u64>,
}

impl Message<'_> {
    /// The byte after the magic.
    fn version(&self) -> u8 {
        self.header.as_bytes().get(3).copied().unwrap_or_default()
    }

    fn aead(&self) -> &'static str {
        match self.header.aead() {
            AeadAlgorithm::Aes256Gcm => "AES-256-GCM",
            AeadAlgorithm::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            _ => "unknown",
        }
    }

    /// As the file's length implies it; nobody verified that.
    fn plaintext_len(&self) -> Option<Result<u64, envelock::Error>> {
        let body = self.length?.saturating_sub(self.header.len() as u64);
        Some(self.header.layout().plaintext_len(body))
    }

    fn text(&self) -> String {
        let header = self.header;
        let mut out = format!(
            "format version     {}\ncipher             {}\nsegment length     {} bytes\n",
            self.version(),
            self.aead(),
            header.layout().segment_len()
        );
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:<18} {value}");
        };
        line(
            "plaintext",
            &match self.plaintext_len() {
                Some(Ok(length)) => format!("{length} bytes, unverified: computed from the length of the file"),
                Some(Err(_)) => "unknown: no message has this length, so it is cut off".into(),
                None => "unknown: the input has no length".into(),
            },
        );
        line("slots area", &format!("{} bytes", header.slots_len()));
        if header.stored_context().is_empty() {
            line("stored context", "none");
        }
        for (key, value) in header.stored_context().iter() {
            line("stored context", &format!("{key:?} = {value:?}"));
        }
        line("unstored context", if header.has_unstored_context() { "needed to decrypt" } else { "none" });
        for (at, slot) in (1..).zip(header.slots()) {
            line(&format!("slot {at}"), &slot_text(slot));
        }
        out
    }

    fn json(&self) -> String {
        let header = self.header;
        let context: serde_json::Map<_, _> =
            header.stored_context().iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        let slots: Vec<_> = header.slots().iter().map(slot_json).collect();
        let value = json!({
            "format_version": self.version(),
            "aead": self.aead(),
            "segment_len": header.layout().segment_len(),
            "stored_context": context,
            "needs_unstored_context": header.has_unstored_context(),
            "slots": slots,
            "slots_area_len": header.slots_len(),
            "header_len": header.len(),
            "file_len": self.length,
            "plaintext_len_unverified": self.plaintext_len().and_then(Result::ok),
        });
        json_text(&value)
    }
}

fn slot_text(slot: &EncryptedDataKey) -> String {
    let id = match slot.key_id().is_empty() {
        true => String::new(),
        false => format!(" {}", plain(&slot.key_id_text())),
    };
    let state = match slot.is_missing() {
        true => "MISSING: this recipient could not be reached, and cannot open the message".into(),
        false => match key_version(slot) {
            Some(version) => format!("key version {version}, {} bytes wrapped", slot.wrapped().len()),
            None => format!("{} bytes wrapped", slot.wrapped().len()),
        },
    };
    format!("{}{id} ({state})", plain(slot.provider()))
}

/// Which version of its key an embedded keystore wrapped the data key under: older than the key's current
/// one, and the file waits for a rewrap.
fn key_version(slot: &EncryptedDataKey) -> Option<u32> {
    match slot.provider() {
        "local" => version_of_blob(slot.wrapped()),
        _ => None,
    }
}

fn slot_json(slot: &EncryptedDataKey) -> serde_json::Value {
    json!({
        "provider": slot.provider(),
        "key_id": slot.key_id_text(),
        "key_version": key_version(slot),
        "wrapped_len": slot.wrapped().len(),
        "missing": slot.is_missing(),
    })
}

/// Indented JSON in which a character that could drive a terminal is a `\u` escape.
pub(crate) fn json_text(value: &serde_json::Value) -> String {
    let mut out = String::new();
    for c in format!("{value:#}\n").chars() {
        if c == '\n' || plain(c.encode_utf8(&mut [0; 4])).len() == c.len_utf8() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_and_drives_no_terminal() {
        let hostile = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{e0001}\"\\\n漢";
        let text = json_text(&json!({ "key": hostile }));
        assert!(text.chars().all(|c| c == '\n' || plain(&c.to_string()).len() == c.len_utf8()), "{text:?}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["key"], hostile);
    }
}
