async fn seal(text: &[u8]) -> Result<Vec<u8>, envelock::Error> {
    use envelock::{AwsKmsProvider, EncryptionContext, Envelope};

    let key = "arn:aws:kms:eu-central-1:111122223333:alias/app";
    let envelope = Envelope::builder(AwsKmsProvider::strict([key]).connect().await?).build()?;
    envelope.encrypt(text, &EncryptionContext::from([("tenant", "acme")])).await
}
