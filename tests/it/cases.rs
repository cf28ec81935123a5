//! What a case in JSON says, as the crate takes it; and every way to open a message, compared.
//!
//! The shape of a case stands in tests/reference/README.md.

use envelock::blocking::wait;
use envelock::{
    AeadAlgorithm, DecryptReader, EncryptionContext, Envelope, Error, ErrorKind, Header, KeyProvider, Limits,
    MultiProvider, PassphraseCost, PassphraseProvider, RawKeyProvider, Secret, read_header,
};
use serde_json::Value;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

/// Prints a count that is to be seen when the test passes, too.
pub fn say(line: impl std::fmt::Display) {
    // Not `eprintln!`, which the harness swallows too.
    io::stderr().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2) && digits.is_ascii(), "not hexadecimal: {digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Byte i of every plaintext is i mod 251.
pub fn plaintext(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {value}"))
}

/// The providers of a case, at the cost that it names.
pub fn provider(providers: &Value) -> Arc<dyn KeyProvider> {
    let mut members = providers.as_array().unwrap().iter().map(one_provider).collect::<Vec<_>>();
    match members.len() {
        // Nobody's key: an envelope has some provider.
        0 => Arc::new(RawKeyProvider::generate("nobody's").unwrap()),
        1 => members.remove(0),
        _ => Arc::new(MultiProvider::all(members).unwrap()),
    }
}

fn one_provider(provider: &Value) -> Arc<dyn KeyProvider> {
    match text(provider, "kind") {
        "raw" => {
            let key = Secret::from_slice(&unhex(text(provider, "key"))).unwrap();
            Arc::new(RawKeyProvider::new(text(provider, "name"), key).unwrap())
        }
        "passphrase" => {
            let made = PassphraseProvider::new(text(provider, "passphrase")).unwrap();
            let Some(argon2) = provider["argon2"].as_array() else { return Arc::new(made) };
            let number = |at: usize| argon2[at].as_u64().unwrap();
            let cost = PassphraseCost {
                memory_kib: number(0).try_into().unwrap(),
                passes: number(1).try_into().unwrap(),
                lanes: number(2).try_into().unwrap(),
            };
            Arc::new(made.with_cost(cost).unwrap())
        }
        other => panic!("a provider of kind {other}"),
    }
}

/// The context of a case, split as a writer splits it.
pub fn context(case: &Value) -> EncryptionContext {
    let entries =
        |name| case[name].as_object().into_iter().flatten().map(|(key, value)| (key, value.as_str().unwrap()));
    let stored = entries("context").fold(EncryptionContext::new(), |made, (key, value)| made.with(key, value));
    entries("unstored").fold(stored, |made, (key, value)| made.with_unstored(key, value))
}

/// The same entries as a reader may give them who does not know which ones are stored.
pub fn plain_context(case: &Value) -> EncryptionContext {
    context(case).iter().collect()
}

/// The envelope that opens a case.
pub fn envelope(case: &Value) -> Envelope {
    let envelope = Envelope::builder(provider(&case["providers"])).build().unwrap();
    if case["match"] == "at_least" { envelope.accepting_more_context() } else { envelope }
}

/// The envelope that writes a case.
pub fn writing_envelope(case: &Value) -> Envelope {
    let aead = match text(case, "aead") {
        "aes256gcm" => AeadAlgorithm::Aes256Gcm,
        "chacha20poly1305" => AeadAlgorithm::ChaCha20Poly1305,
        other => panic!("AEAD {other}"),
    };
    let segment_len = case["segment_length"].as_u64().unwrap().try_into().unwrap();
    Envelope::builder(provider(&case["providers"])).aead(aead).segment_len(segment_len).build().unwrap()
}

/// How an open ended: the plaintext; or the kind of the failure, and what was handed out before it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Opened(Vec<u8>),
    Failed(ErrorKind, Vec<u8>),
}

impl Outcome {
    /// The failure's kind as the reference names it.
    pub fn kind(&self) -> Option<String> {
        match self {
            Self::Opened(_) => None,
            Self::Failed(kind, _) => Some(format!("{kind:?}")),
        }
    }

    /// Verified plaintext that came out, failure or not.
    pub fn released(&self) -> &[u8] {
        let (Self::Opened(bytes) | Self::Failed(_, bytes)) = self;
        bytes
    }
}

/// The whole-message call.
pub fn whole(envelope: &Envelope, message: &[u8], context: &EncryptionContext) -> Outcome {
    match wait(envelope.decrypt(message, context)) {
        Ok(plaintext) => Outcome::Opened(plaintext),
        Err(error) => Outcome::Failed(error.kind(), Vec::new()),
    }
}

/// The streaming reader, whose caller reads `read_len` bytes at a time, over a source that gives
/// `source_len` bytes at a time.
pub fn streamed(
    envelope: &Envelope,
    message: &[u8],
    context: &EncryptionContext,
    read_len: usize,
    source_len: usize,
) -> Outcome {
    let source = Trickle { bytes: message, at_once: source_len };
    match wait(envelope.decrypt_reader(source, context)) {
        Ok(reader) => drain(reader, read_len),
        Err(error) => Outcome::Failed(error.kind(), Vec::new()),
    }
}

/// Reads to the end or to the first failure, which must stay.
fn drain(mut reader: impl Read, read_len: usize) -> Outcome {
    let mut out = Vec::new();
    let mut buffer = vec![0xEE; read_len];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Outcome::Opened(out),
            Ok(count) => out.extend_from_slice(&buffer[..count]),
            Err(error) => {
                let kind = Error::from_io(&error).unwrap_or_else(|| panic!("not ours: {error}")).kind();
                for _ in 0..2 {
                    let again = reader.read(&mut buffer).expect_err("a failed reader goes on");
                    assert_eq!(Error::from_io(&again).unwrap().kind(), kind, "the failure changes");
                }
                break Outcome::Failed(kind, out);
            }
        }
    }
}

/// A source that gives at most `at_once` bytes a call.
struct Trickle<'a> {
    bytes: &'a [u8],
    at_once: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.at_once);
        self.bytes.read(&mut out[..len])
    }
}

/// The reader after a seek: the length first, then everything.
pub fn seeking(envelope: &Envelope, message: &[u8], context: &EncryptionContext) -> Outcome {
    let reader = match wait(envelope.decrypt_reader(Cursor::new(message), context)) {
        Ok(reader) => reader,
        Err(error) => return Outcome::Failed(error.kind(), Vec::new()),
    };
    seek_and_drain(reader)
}

fn seek_and_drain(mut reader: DecryptReader<Cursor<&[u8]>>) -> Outcome {
    let failed = |error: &io::Error| Outcome::Failed(Error::from_io(error).unwrap().kind(), Vec::new());
    let length = match reader.verified_len() {
        Ok(length) => length,
        Err(error) => return failed(&error),
    };
    if let Err(error) = reader.seek(SeekFrom::Start(0)) {
        return failed(&error);
    }
    let outcome = drain(&mut reader, 50);
    if let Outcome::Opened(plaintext) = &outcome {
        assert_eq!(plaintext.len() as u64, length);
        for start in [length / 2, length.saturating_sub(1), length, length + 9] {
            assert_eq!(reader.seek(SeekFrom::Start(start)).unwrap(), start);
            let tail = plaintext.get(usize::try_from(start).unwrap()..).unwrap_or_default();
            assert_eq!(drain(&mut reader, 33), Outcome::Opened(tail.to_vec()), "from {start} of {length}");
        }
    }
    outcome
}

/// The range reader: everything, and then pieces of it.
pub fn ranged(envelope: &Envelope, message: &[u8], context: &EncryptionContext) -> Outcome {
    let failed = |error: Error| Outcome::Failed(error.kind(), Vec::new());
    let reader = match wait(envelope.range_reader(message, context)) {
        Ok(reader) => reader,
        Err(error) => return failed(error),
    };
    let plaintext = match reader.read_range(0..reader.len()) {
        Ok(plaintext) => plaintext,
        Err(error) => return failed(error),
    };
    assert_eq!(plaintext.len() as u64, reader.len());
    let len = plaintext.len();
    for range in [0..len.min(1), len / 3..len - len / 3, len.saturating_sub(1)..len, len..len] {
        let wide = range.start as u64..range.end as u64;
        assert_eq!(reader.read_range(wide).unwrap(), plaintext[range]);
    }
    let both = reader.read_ranges(&[len as u64 / 2..len as u64, 0..len as u64]).unwrap();
    assert_eq!(both, [&plaintext[len / 2..], &plaintext]);
    assert!(reader.read_range(len as u64..len as u64 + 100).unwrap().is_empty());
    assert_eq!(reader.read_range(0..u64::MAX).unwrap(), plaintext);
    Outcome::Opened(plaintext)
}

/// The head parsed apart from the segments (rule 6), which then go through both in-memory calls.
pub fn detached(envelope: &Envelope, message: &[u8], context: &EncryptionContext) -> Outcome {
    let failed = |error: Error| Outcome::Failed(error.kind(), Vec::new());
    let header = match read_header(&mut &message[..], &Limits::default()) {
        Ok(header) => header,
        Err(error) => return failed(error),
    };
    let parsed = Header::parse(header.as_bytes()).unwrap();
    let segments = &message[parsed.len()..];
    let decryptor = match wait(envelope.decryptor(&parsed, context)) {
        Ok(decryptor) => decryptor,
        Err(error) => return failed(error),
    };
    let mut buffer = vec![0xEE; segments.len() + 7];
    let opened = decryptor.open_to(segments, &mut buffer);
    match (opened, decryptor.open(segments)) {
        (Ok(len), Ok(plaintext)) => {
            assert_eq!(buffer[..len], plaintext);
            Outcome::Opened(plaintext)
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.kind(), other.kind());
            assert!(buffer.iter().all(|&byte| byte == 0), "a failed whole message leaves bytes behind");
            failed(one)
        }
        (one, other) => panic!("the two calls differ: {one:?}, {other:?}"),
    }
}

/// The kind that a reader reports which derives positions from the length (rule 2), for a message
/// whose body a streaming reader rejects. `None` if there is no head.
pub fn seekable_kind(message: &[u8]) -> Option<ErrorKind> {
    let header = Header::parse(message).ok()?;
    let segments = &message[header.len()..];
    let segment_len = header.layout().segment_len();
    // "A last piece under 32 bytes, or one with prefix FFFFFFFF, is truncated."
    let last = segments.chunks(segment_len).last().unwrap_or_default();
    let cut = last.len() < 32 || last.starts_with(&[0xFF; 4]);
    Some(if cut { ErrorKind::Truncated } else { ErrorKind::AuthenticationFailed })
}
