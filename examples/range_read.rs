//! Reads 4 KiB out of the middle of a message: two segments are fetched and opened, not the whole.
//!
//! `cargo run --example range_read`

use envelock::{EncryptionContext, Envelope, RawKeyProvider, ReadAt, blocking};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source that counts what is fetched from it, as an object store would bill it.
struct Counted {
    bytes: Vec<u8>,
    fetched: AtomicU64,
}

impl ReadAt for Counted {
    fn len(&self) -> std::io::Result<u64> {
        ReadAt::len(&self.bytes)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.fetched.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(buffer, offset)
    }
}

fn main() -> Result<(), envelock::Error> {
    let envelope = Envelope::builder(RawKeyProvider::generate("example")?).segment_len(16 * 1024).build()?;
    let envelope = blocking::Envelope::new(envelope);
    let context = EncryptionContext::from([("object", "log/2026-11-23")]);

    let plaintext: Vec<u8> = (0..10_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let source = Counted { bytes: envelope.encrypt(&plaintext, &context)?, fetched: AtomicU64::new(0) };

    let reader = envelope.range_reader(&source, &context)?;
    println!(
        "{} bytes of plaintext, verified at the price of {} bytes",
        reader.len(),
        source.fetched.load(Ordering::Relaxed)
    );

    source.fetched.store(0, Ordering::Relaxed);
    let range = reader.read_range(5_000_000..5_004_096)?;
    assert_eq!(range, &plaintext[5_000_000..5_004_096]);
    println!("4 KiB from the middle: {} bytes fetched", source.fetched.load(Ordering::Relaxed));
    Ok(())
}
