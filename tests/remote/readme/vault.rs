async fn seal(text: &[u8]) -> Result<Vec<u8>, envelock::Error> {
    use envelock::{EncryptionContext, Envelope, VaultAuth, VaultProvider};

    let login = VaultAuth::app_role("ROLE-ID", std::env::var("SECRET_ID").expect("SECRET_ID is set"));
    let provider = VaultProvider::from_env("orders")?.auth(login).build()?; // the key `orders` of the mount `transit`
    let envelope = Envelope::builder(provider).build()?;
    envelope.encrypt(text, &EncryptionContext::from([("tenant", "acme")])).await
}
