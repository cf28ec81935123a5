//! Encrypts a file and many small values under a key of Transit, in Vault or OpenBao.
//!
//! `VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=root cargo run --example vault --features vault -- orders`
//!
//! Address, namespace, roots and token are found where the programs `vault` and `bao` find them; with `ROLE_ID` and
//! `SECRET_ID` set, it logs in by AppRole instead. docs/vault.md begins with a server on this machine.

use envelock::{
    CacheLimits, EncryptionContext, Envelope, Error, FileOptions, HttpPolicy, Limits, VaultAuth, VaultProvider,
    read_header,
};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let key = std::env::args().nth(1).unwrap_or_else(|| "orders".to_owned());
    let policy = HttpPolicy::default().total(Duration::from_secs(10));
    let mut builder = VaultProvider::from_env(key)?.policy(policy);
    if let (Ok(role_id), Ok(secret_id)) = (std::env::var("ROLE_ID"), std::env::var("SECRET_ID")) {
        builder = builder.auth(VaultAuth::app_role(role_id, secret_id));
    }
    let provider = builder.build()?;

    // Optional: what is wrong is said now, and not at the first message.
    let found = provider.check().await?;
    println!("the server takes this program for {}", found.identity.as_deref().unwrap_or("nobody it tells"));
    if let Some(key) = found.key {
        println!("the key is of type {}, and encrypts under version {}", key.key_type, key.latest_version);
    }

    // One data key serves many messages for a minute, so that the server is asked seldom.
    let limits = CacheLimits::default().max_age(Duration::from_secs(60));
    let envelope = Envelope::builder(provider).cache(limits).build()?;

    let folder = tempfile::tempdir()?;
    let (plain, sealed) = (folder.path().join("orders.csv"), folder.path().join("orders.csv.elk"));
    std::fs::write(&plain, "7,attack at dawn\n")?;
    let context = EncryptionContext::from([("tenant", "acme"), ("object", "orders.csv")]);
    envelope.encrypt_file(&plain, &sealed, &context, FileOptions::default()).await?;
    let header = read_header(&mut std::fs::File::open(&sealed)?, &Limits::default())?;
    for slot in header.slots() {
        let version = VaultProvider::key_version(slot).unwrap_or_default();
        println!("the file names {}, whose version {version} wrapped its data key", slot.key_id_text());
    }

    let copy = folder.path().join("copy.csv");
    envelope.decrypt_file(&sealed, &copy, &context, FileOptions::default()).await?;
    assert_eq!(std::fs::read(&copy)?, std::fs::read(&plain)?);
    println!("the copy is the original");

    // Another context is refused, here and by the server.
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
