//! Encrypts a file and many small values under a key of AWS KMS.
//!
//! `cargo run --example aws_kms --features aws-kms -- alias/app`
//!
//! The key's name (an ARN, or an alias or a key id with `AWS_REGION`) may also stand in `ENVELOCK_AWS_KMS_KEY`.
//! Credentials are those that AWS's own program finds; `AWS_ENDPOINT_URL_KMS` may name an emulator on this machine.

use envelock::{
    AwsKmsProvider, CacheLimits, EncryptionContext, Envelope, Error, ErrorKind, FileOptions, HttpPolicy, Limits,
    read_header,
};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let key = std::env::args().nth(1).or_else(|| std::env::var("ENVELOCK_AWS_KMS_KEY").ok());
    let Some(key) = key else {
        return Err(Error::new(ErrorKind::InvalidInput, "name a key of AWS KMS: aws_kms alias/app"));
    };

    // Asks once which key the alias stands for. With a key's ARN, `build` does it without a call.
    let policy = HttpPolicy::default().total(Duration::from_secs(10));
    let provider = AwsKmsProvider::strict([key]).policy(policy).connect().await?;
    println!("encrypting under {}", provider.key_arns().collect::<Vec<_>>().join(" and "));

    // One data key serves many messages for a minute, so that the KMS is asked seldom.
    let limits = CacheLimits::default().max_age(Duration::from_secs(60));
    let envelope = Envelope::builder(provider).cache(limits).build()?;

    let folder = tempfile::tempdir()?;
    let (plain, sealed) = (folder.path().join("orders.csv"), folder.path().join("orders.csv.elk"));
    std::fs::write(&plain, "7,attack at dawn\n")?;
    let context = EncryptionContext::from([("tenant", "acme"), ("object", "orders.csv")]);
    envelope.encrypt_file(&plain, &sealed, &context, FileOptions::default()).await?;
    let header = read_header(&mut std::fs::File::open(&sealed)?, &Limits::default())?;
    for slot in header.slots() {
        println!("the file names {} and holds {} bytes of wrapped key", slot.key_id_text(), slot.wrapped().len());
    }

    let copy = folder.path().join("copy.csv");
    envelope.decrypt_file(&sealed, &copy, &context, FileOptions::default()).await?;
    assert_eq!(std::fs::read(&copy)?, std::fs::read(&plain)?);
    println!("the copy is the original");

    // Another context is refused, here and by the KMS.
    let other = EncryptionContext::from([("tenant", "evil"), ("object", "orders.csv")]);
    let refused = envelope.decrypt_file(&sealed, &copy, &other, FileOptions::default()).await;
    println!("as another tenant: {}", refused.expect_err("it is bound to its tenant"));

    let context = EncryptionContext::from([("tenant", "acme"), ("column", "orders.address")]);
    for number in 0..1_000_u32 {
        let sealed = envelope.encrypt(&number.to_be_bytes(), &context).await?;
        assert_eq!(envelope.decrypt(&sealed, &context).await?, number.to_be_bytes());
    }
    println!("1000 values went there and back with a handful of calls");
    Ok(())
}
