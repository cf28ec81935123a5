fn orders() -> Result<envelock::Envelope, envelock::Error> {
    use envelock::{CacheLimits, Envelope, HttpPolicy, VaultProvider};
    use std::time::Duration;

    let policy = HttpPolicy::default().total(Duration::from_secs(5)).attempt(Duration::from_secs(2)).hedge();
    let vault = VaultProvider::from_env("orders")?.policy(policy).build()?;
    let grace = CacheLimits::default().offline_grace(Duration::from_secs(3600)); // decrypts that much longer, if it must
    Envelope::builder(vault).cache(grace).build()
}
