//! Key providers by their names on the command line, and the envelopes made of them.

use crate::args::{KeystorePlace, Making, Matching, Opening};
use crate::failure::Failure;
use crate::keystore::{self, Missing};
use crate::passphrase::{self, Ask, PassphraseSource};
use crate::signals::Signals;
use crate::text::Notes;
use envelock::{
    DataKeyCache, EncryptionContext, Envelope, EnvelopeBuilder, KeyProvider, LocalKms, LocalProvider, MultiProvider,
    PassphraseProvider, RawKeyProvider,
};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// `local:…`, `raw:…` or `passphrase:…`, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProviderName {
    Local {
        key: String,
    },
    Raw {
        file: PathBuf,
        id: String,
    },
    Passphrase(PassphraseSource),
    /// A passphrase in an argument: refused later, since a parser's error would repeat it.
    Exposed,
}

/// The managed key that the quick start uses.
const DEFAULT_KEY: &str = "alias/envelock/default";

impl Default for ProviderName {
    fn default() -> Self {
        Self::Local { key: DEFAULT_KEY.into() }
    }
}

impl FromStr for ProviderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("local", "")) => Ok(Self::default()),
            Some(("local", key)) => Ok(Self::Local { key: key.into() }),
            Some(("raw", rest)) => raw(rest),
            Some(("passphrase", rest)) => passphrase(rest),
            _ if text.starts_with("alias/") => Err(format!("a key of the embedded keystore is local:{text}")),
            _ => Err("a provider is local:[KEY], raw:file=PATH[,id=NAME] or passphrase:[file=PATH|fd=N]".into()),
        }
    }
}

fn raw(rest: &str) -> Result<ProviderName, String> {
    let rest = rest.strip_prefix("file=").ok_or("a raw key is raw:file=PATH[,id=NAME]")?;
    let (file, id) = match rest.rsplit_once(",id=") {
        Some((file, id)) => (file, id.to_owned()),
        None => {
            let stem = Path::new(rest).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            (rest, stem.to_owned())
        }
    };
    if file.is_empty() || id.is_empty() {
        return Err("a raw key has a file and an id: raw:file=PATH[,id=NAME]".into());
    }
    Ok(ProviderName::Raw { file: file.into(), id })
}

/// The text after the colon is never taken for the passphrase: others can read the arguments.
fn passphrase(rest: &str) -> Result<ProviderName, String> {
    let source = match rest.split_once('=') {
        None if rest.is_empty() => PassphraseSource::Terminal,
        Some(("file", path)) if !path.is_empty() => PassphraseSource::File(path.into()),
        Some(("fd", number)) => PassphraseSource::Descriptor(
            number.parse().map_err(|_| "a file descriptor is a small number: passphrase:fd=3".to_owned())?,
        ),
        _ => return Ok(ProviderName::Exposed),
    };
    Ok(ProviderName::Passphrase(source))
}

/// What the providers will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A keystore is made where none is; a passphrase is asked for twice.
    Encrypt,
    /// Only what is there.
    Decrypt,
}

/// The providers of one command; the keystore is opened once.
pub(crate) struct Providers<'a> {
    place: &'a KeystorePlace,
    signals: &'a Signals,
    notes: Notes,
    making: Missing,
    kms: Option<LocalKms>,
}

/// One provider, ready.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    Local(LocalProvider),
    Other(Arc<dyn KeyProvider>),
}

impl<'a> Providers<'a> {
    pub(crate) fn new(place: &'a KeystorePlace, signals: &'a Signals, notes: Notes) -> Self {
        Self { place, signals, notes, making: Missing::Make, kms: None }
    }

    /// The same, with what the command line says about making a keystore.
    pub(crate) fn making(mut self, making: Making) -> Self {
        self.making = Missing::make(making);
        self
    }

    /// The providers of these names; without any, the keystore's default key.
    pub(crate) fn members(&mut self, names: &[ProviderName], purpose: Purpose) -> Result<Vec<Member>, Failure> {
        let default = [ProviderName::default()];
        let names = if names.is_empty() { &default } else { names };
        names.iter().map(|name| self.member(name, purpose)).collect()
    }

    fn member(&mut self, name: &ProviderName, purpose: Purpose) -> Result<Member, Failure> {
        Ok(match name {
            ProviderName::Local { key } => Member::Local(self.kms(purpose)?.provider(key)?),
            other => Member::Other(outside(other, purpose, self.signals)?),
        })
    }

    fn kms(&mut self, purpose: Purpose) -> Result<&LocalKms, Failure> {
        if self.kms.is_none() {
            let missing = match purpose {
                Purpose::Encrypt => self.making,
                Purpose::Decrypt => Missing::RefuseProvider,
            };
            self.kms = Some(keystore::open(self.place, missing, self.signals, self.notes)?);
        }
        self.kms.as_ref().ok_or_else(|| Failure::usage("no keystore"))
    }
}

/// A provider that is in no keystore.
pub(crate) fn outside(
    name: &ProviderName,
    purpose: Purpose,
    signals: &Signals,
) -> Result<Arc<dyn KeyProvider>, Failure> {
    match name {
        ProviderName::Exposed => Err(Failure::usage(
            "a passphrase comes from the terminal (passphrase:), from passphrase:file=PATH or from \
             passphrase:fd=N, never from an argument, which other users can see",
        )),
        ProviderName::Local { .. } => {
            Err(Failure::usage("a keystore is not unlocked by a key inside it: name raw: or passphrase:"))
        }
        ProviderName::Raw { file, id } => Ok(Arc::new(RawKeyProvider::from_file(id.as_str(), file)?)),
        ProviderName::Passphrase(source) => {
            let ask = match purpose {
                Purpose::Encrypt => Ask::Twice,
                Purpose::Decrypt => Ask::Once,
            };
            Ok(Arc::new(PassphraseProvider::new(passphrase::read(source, ask, signals)?)?))
        }
    }
}

/// One provider on all of `members`, of which `at_least` (default: all) must wrap.
pub(crate) fn together(members: Vec<Member>, at_least: Option<usize>) -> Result<Arc<dyn KeyProvider>, Failure> {
    let mut members: Vec<Arc<dyn KeyProvider>> = members
        .into_iter()
        .map(|member| match member {
            Member::Local(local) => Arc::new(local) as Arc<dyn KeyProvider>,
            Member::Other(other) => other,
        })
        .collect();
    match at_least {
        Some(needed) => Ok(Arc::new(MultiProvider::at_least(needed, members)?)),
        None if members.len() == 1 => members.pop().ok_or_else(|| Failure::usage("no provider")),
        None => Ok(Arc::new(MultiProvider::all(members)?)),
    }
}

/// An envelope that reads with the providers of the command line.
pub(crate) fn reader(
    opening: &Opening,
    matching: &Matching,
    signals: &Signals,
    notes: Notes,
) -> Result<Envelope, Failure> {
    let members = Providers::new(&opening.keystore, signals, notes).members(&opening.provider, Purpose::Decrypt)?;
    reading(members, matching)
}

/// An envelope that reads with these members.
pub(crate) fn reading(members: Vec<Member>, matching: &Matching) -> Result<Envelope, Failure> {
    built(Envelope::builder(together(members, None)?), matching)
}

/// The same with a cache of data keys.
pub(crate) fn caching(members: Vec<Member>, matching: &Matching, cache: &DataKeyCache) -> Result<Envelope, Failure> {
    built(Envelope::builder(together(members, None)?).shared_cache(cache), matching)
}

fn built(builder: EnvelopeBuilder, matching: &Matching) -> Result<Envelope, Failure> {
    let envelope = builder.build()?;
    Ok(if matching.accept_more_context { envelope.accepting_more_context() } else { envelope })
}

/// The encryption context of the command line.
pub(crate) fn context(opening: &Opening) -> EncryptionContext {
    let stored = opening.context.iter().fold(EncryptionContext::new(), |all, (key, value)| all.with(key, value));
    opening.unstored.iter().fold(stored, |all, (key, value)| all.with_unstored(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ProviderName, String> {
        text.parse()
    }

    #[test]
    fn provider_names_parse() {
        let local = |key: &str| Ok(ProviderName::Local { key: key.into() });
        assert_eq!(parsed("local:"), local("alias/envelock/default"));
        assert_eq!(parsed("local:alias/orders"), local("alias/orders"));
        assert_eq!(parsed("local:envelock:local:x:key/y"), local("envelock:local:x:key/y"));
        let raw = |file: &str, id: &str| Ok(ProviderName::Raw { file: file.into(), id: id.into() });
        assert_eq!(parsed("raw:file=/keys/orders.key"), raw("/keys/orders.key", "orders"));
        assert_eq!(parsed("raw:file=orders.2026.key"), raw("orders.2026.key", "orders.2026"));
        assert_eq!(parsed("raw:file=a,b=c.key,id=x/y"), raw("a,b=c.key", "x/y"));
        let phrase = |source| Ok(ProviderName::Passphrase(source));
        assert_eq!(parsed("passphrase:"), phrase(PassphraseSource::Terminal));
        assert_eq!(parsed("passphrase:fd=3"), phrase(PassphraseSource::Descriptor(3)));
        assert_eq!(parsed("passphrase:file=a=b"), phrase(PassphraseSource::File("a=b".into())));
    }

    #[test]
    fn what_is_no_provider_is_refused() {
        for text in [
            "",
            "local",
            "raw:",
            "raw:file=",
            "raw:x",
            "raw:file=a,id=",
            "raw:file=/",
            "passphrase:fd=-1",
            "passphrase:fd=x",
            "aws-kms:arn",
            "https://x",
        ] {
            assert!(parsed(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_passphrase_in_an_argument_is_refused_and_not_kept() {
        assert_eq!(parsed("passphrase:hunter2"), Ok(ProviderName::Exposed));
        assert_eq!(parsed("passphrase:hunter=2"), Ok(ProviderName::Exposed));
    }
}
