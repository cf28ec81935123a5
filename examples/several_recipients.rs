//! A message that a passphrase opens as well as a key, and a writer that goes on while one is down.
//!
//! `cargo run --example several_recipients`

use envelock::{
    DataKey, DataKeyAnswer, DataKeyLength, EncryptedDataKey, EncryptionContext, Envelope, Error, ErrorKind,
    GeneratedDataKey, Header, KeyProvider, KmsContext, MultiProvider, PassphraseProvider, RawKeyProvider, Recipient,
    Result, async_trait, blocking,
};
use std::sync::Arc;

/// A key service of one's own, which happens to be out of reach. A name with a dot is a user's.
#[derive(Debug)]
struct DistantKms;

#[async_trait]
impl KeyProvider for DistantKms {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new("com.example.kms", "backup-key")]
    }

    async fn generate_data_key(&self, _: DataKeyLength, _: &KmsContext) -> Result<GeneratedDataKey> {
        Err(Error::new(ErrorKind::Unavailable, "the key service does not answer"))
    }

    async fn encrypt_data_key(&self, _: &DataKey, _: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Err(Error::new(ErrorKind::Unavailable, "the key service does not answer"))
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, _: &KmsContext) -> DataKeyAnswer {
        match slot.provider() {
            "com.example.kms" => DataKeyAnswer::Failed(Error::new(ErrorKind::Unavailable, "no answer")),
            _ => DataKeyAnswer::NotMine,
        }
    }
}

fn main() -> Result<()> {
    let raw: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("orders-2026")?);
    let passphrase: Arc<dyn KeyProvider> = Arc::new(PassphraseProvider::new("correct horse battery staple")?);
    let context = EncryptionContext::new();

    // Two of three are enough to write.
    let providers = MultiProvider::at_least(2, vec![Arc::clone(&raw), Arc::clone(&passphrase), Arc::new(DistantKms)])?;
    let writer = blocking::Envelope::new(Envelope::builder(providers).build()?);
    let sealed = writer.encrypt(b"either of two opens this", &context)?;

    for slot in Header::parse(&sealed)?.slots() {
        let state = if slot.is_missing() { "missing" } else { "present" };
        println!("{}:{} is {state}", slot.provider(), slot.key_id_text());
    }
    for provider in [raw, passphrase] {
        let reader = blocking::Envelope::new(Envelope::builder(provider).build()?);
        assert_eq!(reader.decrypt(&sealed, &context)?, b"either of two opens this");
    }
    Ok(())
}
