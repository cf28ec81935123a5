//! Encrypts a file under the embedded keystore, with progress, and decrypts it again.
//!
//! `cargo run --example file`

use envelock::{EncryptionContext, Envelope, FileOptions, LocalKms, RootKey, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);

    // Both files are made at first use. A program keeps them, and a copy of the root key elsewhere.
    let kms = LocalKms::open(path("keys.db"), RootKey::file(path("root.key"))?)?;
    let provider = kms.provider("alias/envelock/default")?;
    let envelope = blocking::Envelope::new(Envelope::builder(provider).build()?);

    std::fs::write(path("report.txt"), "quarterly figures\n".repeat(500_000))?;
    // What the data is: whoever decrypts must say the same.
    let context = EncryptionContext::from([("tenant", "acme"), ("object", "report.txt")]);

    let options = FileOptions::default().on_progress(|progress| {
        if progress.total == Some(progress.done) {
            println!("encrypted {} bytes", progress.done);
        }
    });
    envelope.encrypt_file(path("report.txt"), path("report.txt.elk"), &context, options)?;
    envelope.decrypt_file(path("report.txt.elk"), path("copy.txt"), &context, FileOptions::default())?;
    assert_eq!(std::fs::read(path("report.txt"))?, std::fs::read(path("copy.txt"))?);

    let wrong = EncryptionContext::from([("tenant", "another"), ("object", "report.txt")]);
    let error = envelope.verify_file(path("report.txt.elk"), &wrong).expect_err("another tenant's name opens nothing");
    println!("under another context: {error}");
    Ok(())
}
