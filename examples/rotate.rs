//! Rotates a key of the embedded keystore, and moves a file to the new version inside the keystore.
//!
//! `cargo run --example rotate`

use envelock::{
    CreateKeyRequest, EncryptionContext, Envelope, FileOptions, LocalKms, RewrapMode, RewrapOptions, RootKey, blocking,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let kms = LocalKms::open(path("keys.db"), RootKey::file(path("root.key"))?)?;
    let key = blocking::wait(kms.create_key(CreateKeyRequest::default().alias("alias/orders")))?;
    let envelope = blocking::Envelope::new(Envelope::builder(kms.provider("alias/orders")?).build()?);

    let context = EncryptionContext::from([("table", "orders")]);
    std::fs::write(path("orders.csv"), "id,amount\n1,100\n")?;
    envelope.encrypt_file(path("orders.csv"), path("orders.csv.elk"), &context, FileOptions::default())?;

    // A new version of the key: it encrypts from now on, and the old one still opens what it encrypted.
    let rotated = blocking::wait(kms.rotate(&key.key_id))?;
    println!("the key is at version {}", rotated.current_version);
    envelope.verify_file(path("orders.csv.elk"), &context)?;

    // The keystore encrypts the file's data key anew; this program's envelope never sees it. Header only.
    let options = RewrapOptions::default().mode(RewrapMode::Blind);
    let done = envelope.rewrap_file(path("orders.csv.elk"), &envelope, &context, options)?;
    println!("rewrapped in place: {}", done.in_place);

    // A blind rewrap is checked before anything old is retired.
    println!("{} bytes verified under the new version", envelope.verify_file(path("orders.csv.elk"), &context)?);
    Ok(())
}
