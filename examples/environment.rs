//! Secrets in the environment, sealed: a service opens them once, when it starts.
//!
//! `cargo run --example environment`

use envelock::blocking::Envelope;
use envelock::{EncryptionContext, Error, LocalKms, Result, RootKey, from_text, to_text};
use std::process::Command;

/// What the service is told by its environment.
const VARIABLES: [&str; 2] = ["DB_PASSWORD", "SIGNING_TOKEN"];

/// What a value is bound to: a sealed password cannot be passed off as another variable's.
fn context(variable: &str) -> EncryptionContext {
    EncryptionContext::from([("service", "billing"), ("variable", variable)])
}

/// The value of a variable that holds one line of `envelock seal`.
fn secret(envelope: &Envelope, variable: &str) -> Result<String> {
    let sealed = std::env::var(variable)
        .map_err(|error| Error::new(envelock::ErrorKind::InvalidInput, format!("{variable}: {error}")))?;
    let value = envelope.open_value(&from_text(&sealed)?, &context(variable))?;
    String::from_utf8(value).map_err(|_| Error::new(envelock::ErrorKind::Malformed, format!("{variable} is no text")))
}

fn keystore(folder: &str) -> Result<Envelope> {
    let kms = LocalKms::open(format!("{folder}/keys.db"), RootKey::file(format!("{folder}/root.key"))?)?;
    Ok(Envelope::new(envelock::Envelope::builder(kms.provider("alias/envelock/default")?).build()?))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    if let Ok(folder) = std::env::var("KEYSTORE_FOLDER") {
        // The service.
        let envelope = keystore(&folder)?;
        for variable in VARIABLES {
            println!("{variable} has {} characters", secret(&envelope, variable)?.len());
        }
        // The line of one variable in the place of another is refused.
        let moved = from_text(&std::env::var("DB_PASSWORD")?)?;
        assert!(envelope.open_value(&moved, &context("SIGNING_TOKEN")).is_err());
        return Ok(());
    }

    // Whoever deploys it: `printf %s hunter2 | envelock seal -c service=billing -c variable=DB_PASSWORD`.
    let folder = tempfile::tempdir()?;
    let name = folder.path().display().to_string();
    let envelope = keystore(&name)?;
    let mut service = Command::new(std::env::current_exe()?);
    service.env("KEYSTORE_FOLDER", &name);
    for (variable, value) in VARIABLES.into_iter().zip(["hunter2", "correct horse battery staple"]) {
        let line = to_text(&envelope.seal_value(value.as_bytes(), &context(variable))?);
        println!("{variable}={line}");
        service.env(variable, line);
    }
    assert!(service.status()?.success());
    Ok(())
}
