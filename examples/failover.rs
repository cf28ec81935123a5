//! A key service that fails, another that stands by, and what each wrote.
//!
//! `cargo run --example failover`

use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind,
    FailoverProvider, GeneratedDataKey, Header, KeyProvider, KmsContext, RawKeyProvider, Recipient, Result,
    async_trait, blocking,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A key that can be switched off. In its place: `AwsKmsProvider`, `VaultProvider`, `LocalProvider`.
#[derive(Debug)]
struct Switched {
    key: RawKeyProvider,
    down: AtomicBool,
}

impl Switched {
    fn new(name: &str) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { key: RawKeyProvider::generate(name)?, down: AtomicBool::new(false) }))
    }

    fn reach(&self) -> Result<()> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "the key service does not answer")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl KeyProvider for Switched {
    fn recipients(&self) -> Vec<Recipient> {
        self.key.recipients()
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        self.reach()?;
        self.key.generate_data_key(length, context).await
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.reach()?;
        self.key.encrypt_data_key(key, context).await
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        let own = self.recipients().contains(&Recipient::from(slot));
        match self.reach() {
            Err(error) if own => DataKeyAnswer::Failed(error),
            _ => self.key.decrypt_data_key(slot, context).await,
        }
    }
}

fn main() -> Result<()> {
    let (primary, standby) = (Switched::new("primary")?, Switched::new("standby")?);
    let members: Vec<Arc<dyn KeyProvider>> = vec![primary.clone(), standby.clone()];
    let envelope = blocking::Envelope::new(Envelope::builder(FailoverProvider::in_order(members)?).build()?);
    let context = EncryptionContext::from([("tenant", "acme")]);
    let writer = |sealed: &[u8]| -> Result<String> { Ok(Header::parse(sealed)?.slots()[0].key_id_text()) };

    let before = envelope.encrypt(b"before the outage", &context)?;
    primary.down.store(true, Ordering::Relaxed);
    let meanwhile = envelope.encrypt(b"meanwhile", &context)?;
    println!("before: {}, meanwhile: {}", writer(&before)?, writer(&meanwhile)?);
    assert_eq!((writer(&before)?, writer(&meanwhile)?), ("primary".into(), "standby".into()));

    // What the standby wrote opens; what the primary wrote waits for it.
    assert_eq!(envelope.decrypt(&meanwhile, &context)?, b"meanwhile");
    let waits = envelope.decrypt(&before, &context).expect_err("its key is out of reach");
    println!("{waits}");
    assert!(waits.is_retryable());

    standby.down.store(true, Ordering::Relaxed);
    let none = envelope.encrypt(b"nobody", &context).expect_err("both are down");
    println!("{none}");

    primary.down.store(false, Ordering::Relaxed);
    assert_eq!(envelope.decrypt(&before, &context)?, b"before the outage");
    Ok(())
}
