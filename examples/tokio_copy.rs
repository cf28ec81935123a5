//! Encrypts one file into another on tokio, with progress, and decrypts it again.
//!
//! `cargo run --example tokio_copy --features tokio`
//!
//! Where the target must be whole or not there at all, `Envelope::encrypt_file` is the call: it is
//! asynchronous too, and replaces the target atomically.

use envelock::{EncryptionContext, Envelope, RawKeyProvider};
use std::io;
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Copies all of `from` into `to`, and says how far it is at each quarter.
async fn copy(
    what: &str,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    total: u64,
) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let (mut done, mut quarters) = (0, 0);
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(done);
        }
        to.write_all(&buffer[..count]).await?;
        done += count as u64;
        if done * 4 / total > quarters {
            quarters = done * 4 / total;
            println!("{what}: {done} of {total} bytes");
        }
    }
}

async fn encrypt(envelope: &Envelope, from: &Path, to: &Path, context: &EncryptionContext) -> io::Result<()> {
    let mut source = File::open(from).await?;
    let total = source.metadata().await?.len();
    let encryptor = envelope.encryptor(context).await?;
    println!("{total} bytes will be a message of {} bytes", encryptor.sealed_len(total)?);
    let mut writer = encryptor.into_async_writer(File::create(to).await?);
    copy("encrypted", &mut source, &mut writer, total).await?;
    // The final segment: without it, the message reads as truncated.
    let file = writer.finish().await.map_err(io::Error::from)?;
    file.sync_all().await
}

async fn decrypt(envelope: &Envelope, from: &Path, to: &Path, context: &EncryptionContext) -> io::Result<()> {
    let mut reader = envelope.decrypt_async_reader(File::open(from).await?, context).await?;
    // The file seeks, and so does the reader: its end is verified before its length is believed.
    let total = reader.verified_len().await?;
    let mut target = File::create(to).await?;
    copy("decrypted", &mut reader, &mut target, total).await?;
    target.sync_all().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    tokio::fs::write(path("report.txt"), "quarterly figures\n".repeat(500_000)).await?;

    let envelope = Envelope::builder(RawKeyProvider::generate("reports")?).build()?;
    let context = EncryptionContext::from([("tenant", "acme"), ("object", "report.txt")]);
    encrypt(&envelope, &path("report.txt"), &path("report.txt.elk"), &context).await?;
    decrypt(&envelope, &path("report.txt.elk"), &path("copy.txt"), &context).await?;
    assert_eq!(tokio::fs::read(path("report.txt")).await?, tokio::fs::read(path("copy.txt")).await?);
    println!("the copy is the original");
    Ok(())
}
