//! Uploads an object in parts while it is being encrypted, and downloads it over a connection that
//! breaks: the download goes on from the segment where it stopped.
//!
//! `cargo run --example object_upload --features tokio`
//!
//! The store has the shape of an S3-compatible one (create, upload parts of at least 5 MiB, complete or
//! abort; get a range), and keeps its parts in memory. A client for a real one takes the same streams.

use bytes::{Bytes, BytesMut};
use envelock::{EncryptionContext, Envelope, Error, Header, HeaderParse, Limits, RawKeyProvider};
use futures_util::{Stream, StreamExt, pin_mut, stream};
use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

/// What every part but the last has at least.
const PART_LEN: usize = 5 << 20;

#[derive(Default)]
struct Store {
    objects: Mutex<HashMap<String, Bytes>>,
}

/// Parts that are no object before the upload is complete.
struct Upload<'a> {
    store: &'a Store,
    name: String,
    parts: Vec<Bytes>,
}

impl Store {
    fn create_multipart_upload(&self, name: &str) -> Upload<'_> {
        Upload { store: self, name: name.into(), parts: Vec::new() }
    }

    /// The bytes of an object from `offset` on, as the network brings them; the connection breaks after
    /// `until` bytes.
    fn get(&self, name: &str, offset: usize, until: usize) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let object = self.objects.lock().unwrap()[name].slice(offset..);
        let broken = until < object.len();
        let mut pieces = Vec::new();
        for start in (0..object.len().min(until)).step_by(10_000) {
            pieces.push(Ok(object.slice(start..object.len().min(until).min(start + 10_000))));
        }
        if broken {
            pieces.push(Err(io::ErrorKind::ConnectionReset.into()));
        }
        stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            piece
        })
    }
}

impl Upload<'_> {
    async fn upload_part(&mut self, part: Bytes) -> io::Result<()> {
        tokio::task::yield_now().await;
        println!("part {}: {} bytes", self.parts.len() + 1, part.len());
        self.parts.push(part);
        Ok(())
    }

    fn complete(self) -> io::Result<()> {
        let (_, all_but_the_last) = self.parts.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        if all_but_the_last.iter().any(|part| part.len() < PART_LEN) {
            return Err(io::Error::other("EntityTooSmall"));
        }
        self.store.objects.lock().unwrap().insert(self.name, self.parts.concat().into());
        Ok(())
    }
}

/// Gathers the message into parts. Memory: one part, one segment, one chunk. When the stream fails, the
/// upload is dropped, and there is no object.
async fn upload(
    store: &Store,
    name: &str,
    message: impl Stream<Item = Result<Bytes, Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut upload = store.create_multipart_upload(name);
    let mut part = BytesMut::with_capacity(PART_LEN + (1 << 20));
    pin_mut!(message);
    while let Some(piece) = message.next().await {
        part.extend_from_slice(&piece?);
        if part.len() >= PART_LEN {
            upload.upload_part(part.split().freeze()).await?;
        }
    }
    upload.upload_part(part.freeze()).await?;
    Ok(upload.complete()?)
}

/// Downloads and decrypts, over as many connections as it takes.
async fn download(
    envelope: &Envelope,
    store: &Store,
    name: &str,
    context: &EncryptionContext,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // The head first, by ranges: it says itself how long it is.
    let (object, limits) = (store.objects.lock().unwrap()[name].clone(), Limits::default());
    let mut have = 0;
    let header: Header = loop {
        match Header::parse_some(&object[..have], &limits)? {
            HeaderParse::Complete(header) => break header,
            HeaderParse::More(needed) => have = needed,
        }
    };
    let mut plaintext = Vec::new();
    let mut point = header.layout().resume_point(0);
    for attempt in 1.. {
        let offset = header.len() + usize::try_from(point.sealed_offset())?;
        println!("connection {attempt}: from byte {offset}, {} bytes of plaintext are here", plaintext.len());
        let body = store.get(name, offset, 3_000_000 * attempt);
        let mut stream = envelope.decryptor(&header, context).await?.into_stream_from(point, body)?;
        let failure = loop {
            match stream.next().await {
                // Verified, whatever comes later: it may be written to a file at once.
                Some(Ok(piece)) => plaintext.extend_from_slice(&piece),
                Some(Err(error)) => break error,
                None => return Ok(plaintext),
            }
        };
        // The connection's failures are worth another try. A message that is not authentic is not.
        if failure.kind() != envelock::ErrorKind::Io {
            return Err(failure.into());
        }
        point = stream.resume_point();
    }
    unreachable!("attempts do not run out")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let envelope = Envelope::builder(RawKeyProvider::generate("backups")?).build()?;
    let context = EncryptionContext::from([("bucket", "backups"), ("object", "2026/11/24.tar")]);
    let store = Store::default();

    let data = Bytes::from("what is to be kept\n".repeat(700_000));
    let chunks = stream::iter((0..data.len()).step_by(123_456).map(|start| {
        let end = data.len().min(start + 123_456);
        Ok::<_, io::Error>(data.slice(start..end))
    }));
    let message = envelope.encrypt_stream(chunks, &context).await?;
    upload(&store, "2026/11/24.tar", message).await?;

    let plaintext = download(&envelope, &store, "2026/11/24.tar", &context).await?;
    assert_eq!(plaintext, data);
    println!("{} bytes came back", plaintext.len());
    Ok(())
}
