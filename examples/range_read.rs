//! Reads 4 KiB out of the middle of a message, and then many rows in one call: only the segments that
//! hold them are fetched and opened. First from a source that is read by position, then from one that
//! is awaited, as an object store is.
//!
//! `cargo run --example range_read`

use bytes::Bytes;
use envelock::{
    EncryptionContext, Envelope, FetchAnswer, Fetched, RangeOptions, RangeSource, RawKeyProvider, ReadAt,
    SourceVersion, async_trait, blocking,
};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// An object that counts what is fetched from it, as an object store would bill it.
struct Counted {
    bytes: Bytes,
    requests: AtomicU64,
    fetched: AtomicU64,
}

impl Counted {
    fn count(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Since the last call.
    fn bill(&self) -> String {
        let (requests, bytes) = (self.requests.swap(0, Ordering::Relaxed), self.fetched.swap(0, Ordering::Relaxed));
        format!("{requests} requests, {bytes} bytes")
    }
}

impl ReadAt for Counted {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.count(buffer.len() as u64);
        self.bytes[..].read_exact_at(buffer, offset)
    }
}

/// What an HTTP client would do: `Range`, and `If-Match` with the pinned version.
#[async_trait]
impl RangeSource for Counted {
    fn name(&self) -> String {
        "s3://logs/2026-11-23".into()
    }

    async fn fetch(&self, range: Range<u64>, pinned: Option<&SourceVersion>) -> Result<FetchAnswer, envelock::Error> {
        let etag = "\"6e4f\"";
        if pinned.is_some_and(|pinned| pinned.as_str() != etag) {
            return Ok(FetchAnswer::Changed);
        }
        let len = self.bytes.len();
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(len);
        let bytes = self.bytes.slice(at(range.start)..at(range.end));
        self.count(bytes.len() as u64);
        Ok(FetchAnswer::Fetched(Fetched { bytes, object_len: len as u64, version: Some(SourceVersion::new(etag)) }))
    }
}

fn main() -> Result<(), envelock::Error> {
    let envelope = Envelope::builder(RawKeyProvider::generate("example")?).segment_len(16 * 1024).build()?;
    let context = EncryptionContext::from([("object", "log/2026-11-23")]);
    let plaintext: Vec<u8> = (0..10_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let sealed = blocking::wait(envelope.encrypt(&plaintext, &context))?;
    let source = Counted { bytes: sealed.into(), requests: AtomicU64::new(0), fetched: AtomicU64::new(0) };

    let reader = blocking::Envelope::new(envelope.clone()).range_reader(&source, &context)?;
    println!("by position: {} bytes of plaintext, verified by {}", reader.len(), source.bill());
    assert_eq!(reader.read_range(5_000_000..5_004_096)?, &plaintext[5_000_000..5_004_096]);
    println!("4 KiB from the middle: {}", source.bill());

    blocking::wait(async {
        let reader = envelope.async_range_reader(&source, &context).await?;
        println!("awaited: {} bytes of plaintext, verified by {}", reader.len(), source.bill());
        assert_eq!(reader.read_range(5_000_000..5_004_096).await?, &plaintext[5_000_000..5_004_096]);
        println!("4 KiB from the middle: {}", source.bill());

        let rows: Vec<_> = (0..40).map(|row| row * 50_000..row * 50_000 + 80).collect();
        for (row, bytes) in rows.iter().zip(reader.read_ranges(&rows).await?) {
            assert_eq!(bytes, [&plaintext[row.start as usize..row.end as usize]].concat());
        }
        println!("40 rows of 80 bytes, near ones by one request: {}", source.bill());

        let reader = reader.with_options(RangeOptions::remote().merge_gap(0));
        reader.read_ranges(&rows).await?;
        println!("the same, no byte more than the touched segments: {}", source.bill());
        Ok(())
    })
}
