//! Messages to damage, and each way to read one.

#[cfg(feature = "tokio")]
use crate::support::asynchronous::AsyncWay;
use crate::support::kind_of;
use crate::support::model::{Known, Verdict, Walk};
use crate::support::providers::{Down, all, at_least, raw};
use bytes::Bytes;
use envelock::{AeadAlgorithm, EncryptionContext, Envelope, ErrorKind, blocking};
use std::io::{Cursor, Read, Seek, SeekFrom};

/// A message, its reader and what is known of it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) reader: blocking::Envelope,
    pub(crate) context: EncryptionContext,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) known: Known,
}

/// Bytes that tell where they stand.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 7 + i / 251 + 1) % 256).unwrap()).collect()
}

impl Sample {
    /// Slots of four recipients (one missing, one foreign, two of the reader's), stored and unstored
    /// entries, padded slots. `len` bytes of plaintext in segments of 64 bytes, 32 each.
    pub(crate) fn rich(aead: AeadAlgorithm, len: usize) -> Self {
        let gone = Down::shared("com.example.gone", "far away", ErrorKind::Unavailable);
        let (foreign, mine, second) = (raw("foreign", 1), raw("mine", 2), raw("second", 3));
        let writer = at_least(3, &[&gone, &foreign, &mine, &second]);
        let writer = Envelope::builder(writer).aead(aead).segment_len(64).build().unwrap();
        let context = EncryptionContext::from([("object", "reports/2025.csv"), ("tenant", "acme")])
            .with_unstored("path", "/srv/a");
        let plaintext = pattern(len);
        let encryptor = blocking::wait(writer.file_encryptor(&context)).unwrap();
        let message = encryptor.seal(&plaintext).unwrap();
        Self {
            name: "rich",
            reader: reader(all(&[&mine, &second])),
            context,
            plaintext,
            known: Known::new(message, &[("raw", "mine"), ("raw", "second")]),
        }
    }

    /// One slot, no context, no padding.
    pub(crate) fn plain(aead: AeadAlgorithm, len: usize) -> Self {
        Self::of_segments(aead, 64, len)
    }

    /// As [`plain`](Self::plain), in segments of another length.
    pub(crate) fn of_segments(aead: AeadAlgorithm, segment_len: u32, len: usize) -> Self {
        let mine = raw("mine", 2);
        let writer =
            Envelope::builder(std::sync::Arc::clone(&mine)).aead(aead).segment_len(segment_len).build().unwrap();
        let plaintext = pattern(len);
        let message = blocking::wait(writer.encrypt(&plaintext, &EncryptionContext::new())).unwrap();
        Self {
            name: "plain",
            reader: reader(mine),
            context: EncryptionContext::new(),
            plaintext,
            known: Known::new(message, &[("raw", "mine")]),
        }
    }

    /// What `way` makes of `message`, and what must come of it.
    pub(crate) fn check(&self, way: Way, message: &[u8]) -> Result<Verdict, String> {
        let expected = self.known.verdict(message, way.walk());
        let (error, released) = way.open(self, message);
        let got = Verdict { error, released: released.len() };
        let whole = if way.gives_all_or_nothing() && expected.error.is_some() { 0 } else { expected.released };
        if got != (Verdict { released: whole, ..expected }) {
            return Err(format!("{way:?} gave {got:?} instead of {expected:?}"));
        }
        if released != self.plaintext[..got.released] {
            return Err(format!("{way:?} released other bytes than were encrypted"));
        }
        Ok(got)
    }
}

fn reader(provider: std::sync::Arc<dyn envelock::KeyProvider>) -> blocking::Envelope {
    blocking::Envelope::new(Envelope::builder(provider).build().unwrap())
}

/// The ways into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From memory to memory.
    Whole,
    /// A stream, read in pieces of so many bytes.
    Stream(usize),
    /// A reader that seeks to the end before it reads.
    Seek(usize),
    /// Ranges, asked for segment by segment.
    Range,
    /// The same, from a source that is awaited.
    AsyncRange,
    /// One of the asynchronous shells.
    #[cfg(feature = "tokio")]
    Async(AsyncWay),
}

impl Way {
    const ALWAYS: [Self; 7] = [
        Self::Whole,
        Self::Stream(7),
        Self::Stream(1_024),
        Self::Seek(7),
        Self::Seek(1_024),
        Self::Range,
        Self::AsyncRange,
    ];

    #[cfg(not(feature = "tokio"))]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::ALWAYS.into_iter()
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::ALWAYS.into_iter().chain(AsyncWay::ALL.into_iter().map(Self::Async))
    }

    /// Whether nothing comes out of a message that is not whole.
    fn gives_all_or_nothing(self) -> bool {
        match self {
            Self::Whole => true,
            #[cfg(feature = "tokio")]
            Self::Async(AsyncWay::Restream(_)) => true,
            _ => false,
        }
    }

    pub(crate) fn walk(self) -> Walk {
        match self {
            Self::Whole | Self::Stream(_) => Walk::Stream,
            Self::Seek(_) | Self::Range | Self::AsyncRange => Walk::Seek,
            #[cfg(feature = "tokio")]
            Self::Async(AsyncWay::Seek(_)) => Walk::Seek,
            #[cfg(feature = "tokio")]
            Self::Async(_) => Walk::Stream,
        }
    }

    /// The error if any, and all plaintext that came before it.
    pub(crate) fn open(self, sample: &Sample, message: &[u8]) -> (Option<ErrorKind>, Vec<u8>) {
        let (reader, context) = (&sample.reader, &sample.context);
        let mut out = Vec::new();
        let result = match self {
            #[cfg(feature = "tokio")]
            Self::Async(way) => return way.open(sample, message),
            Self::Whole => reader.decrypt(message, context).map(|plaintext| out = plaintext).map_err(|e| e.kind()),
            Self::Stream(size) => reader
                .decrypt_reader(message, context)
                .map_err(|e| e.kind())
                .and_then(|mut reader| read_to_end(&mut reader, size, &mut out)),
            Self::Seek(size) => {
                reader.decrypt_reader(Cursor::new(message), context).map_err(|e| e.kind()).and_then(|mut reader| {
                    reader.seek(SeekFrom::End(0)).map_err(|e| kind_of(&e))?;
                    reader.rewind().map_err(|e| kind_of(&e))?;
                    read_to_end(&mut reader, size, &mut out)
                })
            }
            Self::Range => reader.range_reader(message, context).map_err(|e| e.kind()).and_then(|ranges| {
                for start in (0..ranges.len()).step_by(32) {
                    out.extend(ranges.read_range(start..start + 32).map_err(|e| e.kind())?);
                }
                Ok(())
            }),
            Self::AsyncRange => blocking::wait(async {
                let ranges = reader.inner().async_range_reader(Bytes::copy_from_slice(message), context).await?;
                for start in (0..ranges.len()).step_by(32) {
                    out.extend(ranges.read_range(start..start + 32).await?);
                }
                Ok(())
            })
            .map_err(|e: envelock::Error| e.kind()),
        };
        (result.err(), out)
    }
}

fn read_to_end(reader: &mut impl Read, size: usize, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    let mut buffer = vec![0; size];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => out.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(kind_of(&error)),
        }
    }
}
