//! A service that seals a small value for each request, for many tenants: a handful of calls to the key provider.
//!
//! `cargo run --example hot_path`

use envelock::{CacheLimits, DataKeyCache, EncryptionContext, Envelope, LocalKms, RootKey, blocking};
use std::time::{Duration, Instant};

const TENANTS: usize = 50;
const REQUESTS: usize = 20_000;
const THREADS: usize = 4;

/// What a request handler does: the tenant decides which cached data keys serve, and the context binds the
/// value to tenant and place, so that no value opens as another tenant's or in another column.
fn handle(envelope: &blocking::Envelope, tenant: &str, value: &[u8]) -> Result<Vec<u8>, envelock::Error> {
    let context = EncryptionContext::from([("tenant", tenant), ("column", "orders.address")]);
    let envelope = envelope.for_tenant(tenant);
    let sealed = envelope.encrypt(value, &context)?;
    assert_eq!(envelope.decrypt(&sealed, &context)?, value);
    Ok(sealed)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let kms = LocalKms::open(folder.path().join("keys.db"), RootKey::file(folder.path().join("root.key"))?)?;
    let limits = CacheLimits::default().max_age(Duration::from_secs(60)).max_entries(4 * TENANTS);
    let cache = DataKeyCache::new(limits)?;
    let envelope = Envelope::builder(kms.provider("alias/envelock/default")?).shared_cache(&cache).build()?;
    let envelope = blocking::Envelope::new(envelope);

    let start = Instant::now();
    std::thread::scope(|scope| {
        let handlers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let envelope = &envelope;
                scope.spawn(move || {
                    for request in (thread..REQUESTS).step_by(THREADS) {
                        handle(envelope, &format!("tenant-{}", request % TENANTS), b"1 Infinite Loop")?;
                    }
                    Ok::<_, envelock::Error>(())
                })
            })
            .collect();
        handlers.into_iter().try_for_each(|handler| handler.join().expect("no handler panics"))
    })?;
    println!("{REQUESTS} values sealed and opened in {:?}", start.elapsed());

    let statistics = cache.statistics();
    let (calls, saved) =
        statistics.iter().fold((0, 0), |(calls, saved), of| (calls + of.calls(), saved + of.calls_saved()));
    println!("{calls} calls to the key provider for {TENANTS} tenants; {saved} saved");
    // One to encrypt and one to decrypt for each tenant, whatever the number of requests.
    assert_eq!(calls, 2 * TENANTS as u64);

    // A tenant leaves: nothing of its keys stays in this process.
    cache.invalidate_tenant(Some("tenant-7"));
    println!("{} data keys are left", cache.len());
    Ok(())
}
