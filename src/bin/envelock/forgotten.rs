//! A forgotten --provider: where there is no keystore, the head of a message tells whom it is for.

use crate::args::Opening;
use crate::failure::Failure;
use crate::keystore;
use crate::missing;
use crate::profile;
use envelock::{Limits, Recipient, RecordSetHeader, read_header};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

/// Fails with the name of a provider to give, where none was given, none is in a profile, no keystore is there, and one of
/// the files says whom it is for.
pub(crate) fn check(opening: &Opening, files: &[PathBuf]) -> Result<(), Failure> {
    let Some(keystore) = lacking(opening)? else { return Ok(()) };
    match files.iter().find_map(|file| Some((file, recipients(file)?))) {
        Some((file, all)) => told(&file.display().to_string(), &all, &keystore),
        None => Ok(()),
    }
}

/// The same of a value, or of a record set.
pub(crate) fn check_value(opening: &Opening, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    match (lacking(opening)?, RecordSetHeader::parse(bytes)) {
        (Some(keystore), Ok(header)) => told(name, &names(header.slots()), &keystore),
        _ => Ok(()),
    }
}

/// Where a keystore would be, if everything depends on it and it is not there.
pub(crate) fn lacking(opening: &Opening) -> Result<Option<PathBuf>, Failure> {
    if !opening.choosing.provider.is_empty() || profile::chosen(&opening.choosing)?.is_some() {
        return Ok(None);
    }
    let path = keystore::path(&opening.keystore)?;
    Ok(path.symlink_metadata().is_err().then_some(path))
}

/// Whom a file is for; `None` if it is no regular file, or tells nobody.
fn recipients(path: &Path) -> Option<Vec<Recipient>> {
    // A pipe is not read before its time.
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut file = File::open(path).ok()?;
    if let Ok(header) = read_header(&mut file, &Limits::default()) {
        return Some(names(header.slots()));
    }
    file.rewind().ok()?;
    let mut start = Vec::new();
    file.take(HEAD_MAX).read_to_end(&mut start).ok()?;
    RecordSetHeader::parse(&start).ok().map(|header| names(header.slots()))
}

fn names(slots: &[envelock::EncryptedDataKey]) -> Vec<Recipient> {
    slots.iter().filter(|slot| !slot.is_missing()).map(Recipient::from).collect()
}

fn told(name: &str, recipients: &[Recipient], keystore: &Path) -> Result<(), Failure> {
    let is_local = |it: &Recipient| it.provider == "local";
    let options: Vec<_> = recipients.iter().filter_map(option).collect();
    // A keystore's may be lost, which is what is told then.
    if recipients.iter().any(is_local) || options.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = recipients.iter().map(ToString::to_string).collect();
    Err(Failure::no_key(format!(
        "{name} is for {}: name it with {}; no --provider was given, and no keystore is at {}",
        all.join(", "),
        options.join(" or "),
        keystore.display()
    )))
}

/// How a provider for this recipient is named. The head is a stranger's word: nothing is advised that a shell would take for
/// more than a name, or that names a server or an option, since whoever types it sends a token there.
fn option(recipient: &Recipient) -> Option<String> {
    let text = recipient.to_string();
    if !missing::is_plain(&text) || text.contains([',', '=']) || text.contains("://") {
        return None;
    }
    match recipient.provider.as_str() {
        "aws-kms" | "vault" => Some(format!("--provider {text}")),
        "raw" => Some(format!("--provider raw:file=PATH,id={}", text.strip_prefix("raw:")?)),
        "passphrase" => Some("--provider passphrase:".into()),
        _ => None,
    }
}

/// As much as any head has.
const HEAD_MAX: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_names_are_no_commands_and_no_servers() {
        let advised = |provider: &str, key: &str| option(&Recipient::new(provider, key));
        assert_eq!(advised("vault", "transit/orders").as_deref(), Some("--provider vault:transit/orders"));
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1";
        assert_eq!(advised("aws-kms", arn), Some(format!("--provider aws-kms:{arn}")));
        assert_eq!(advised("raw", "a").as_deref(), Some("--provider raw:file=PATH,id=a"));
        for (provider, key) in [
            ("vault", "https://evil.example/transit/orders"),
            ("vault", "transit/orders,cacert=/tmp/evil.pem"),
            ("aws-kms", "alias/a,endpoint=https://evil.example"),
            ("raw", "$(touch x)"),
            ("raw", "a;touch x"),
        ] {
            assert_eq!(advised(provider, key), None, "{provider}:{key}");
        }
    }
}
