//! Finds out which keys the messages below a folder are under, and moves all of them to another key.
//!
//! `cargo run --example fleet`

use envelock::fleet::{By, Files, Inventory, Outcome, Rewrap, Selection};
use envelock::{EncryptionContext, Envelope, FileOptions, KeyProvider, RawKeyProvider, blocking};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let old: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("2025")?);
    let envelope = blocking::Envelope::new(Envelope::builder(Arc::clone(&old)).build()?);
    for number in 0..20 {
        let (plain, sealed) = (folder.path().join("plain"), folder.path().join(format!("{number}.elk")));
        std::fs::write(&plain, format!("order {number}"))?;
        let context = EncryptionContext::from([("order", number.to_string())]);
        envelope.encrypt_file(&plain, &sealed, &context, FileOptions::default())?;
    }

    // No key is needed to tell what is where.
    let inventory = || Inventory::new().by(By::Key).take(Files::below([folder.path()]), |_| {});
    for group in blocking::wait(inventory())?.groups {
        println!("{} messages are under {}", group.files, group.key);
    }

    // Each message is opened under the context that it stores. What is done makes no call again, so that a run that
    // was interrupted is simply run once more.
    let new: Arc<dyn KeyProvider> = Arc::new(RawKeyProvider::generate("2026")?);
    let rewrap = Rewrap::to([Arc::clone(&new)]).from([old]).only(Selection::all().under("raw", "2025"));
    let report =
        blocking::wait(rewrap.calls_per_second(1_000.0).run(Files::below([folder.path()]), |path, outcome| {
            if let Outcome::Failed(error) = outcome {
                println!("{}: {error}", path.display());
            }
        }))?;
    println!("{} messages rewrapped by {} calls, {} failed", report.rewrapped, report.calls.all(), report.failed);

    // Before an old key is retired: nothing is under it any more, and what there is opens.
    for group in blocking::wait(inventory())?.groups {
        println!("{} messages are under {}", group.files, group.key);
    }
    let envelope = blocking::Envelope::new(Envelope::builder(new).build()?);
    for number in 0..20 {
        let context = EncryptionContext::from([("order", number.to_string())]);
        envelope.verify_file(folder.path().join(format!("{number}.elk")), &context)?;
    }
    Ok(())
}
