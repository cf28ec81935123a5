//! Key providers that the command line or a profile names, and the envelopes made of them.

use crate::args::{KeystorePlace, Making, Matching, Opening};
use crate::failure::{self, Failure};
use crate::keystore::{self, Missing};
use crate::noted;
use crate::passphrase::{self, Ask};
use crate::profile::{self, Patience, Write};
use crate::provider_name::ProviderName;
use crate::remote;
use crate::signals::Signals;
use crate::text::Notes;
use envelock::kms::OWNER;
use envelock::{
    CacheLimits, DataKeyCache, EncryptionContext, Envelope, EnvelopeBuilder, FailoverProvider, KeyProvider, LocalKms,
    LocalProvider, MultiProvider, PassphraseProvider, RawKeyProvider, VaultProvider,
};
use std::sync::Arc;
use std::time::Duration;

/// What the providers will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A keystore is made where none is; a passphrase is asked for twice.
    Encrypt,
    /// Only what is there.
    Decrypt,
    /// Only what is there, and no key is made in it by its first use.
    Look,
    /// The same, and nobody is called to find out what a name stands for.
    Plan,
}

/// The providers of one command; the keystore is opened once.
pub(crate) struct Providers<'a> {
    place: &'a KeystorePlace,
    signals: &'a Signals,
    notes: Notes,
    making: Missing,
    patience: Patience,
    kms: Option<LocalKms>,
}

/// One provider, ready.
#[derive(Clone, Debug)]
pub(crate) enum Member {
    Local(LocalProvider),
    Aws(remote::Aws),
    Vault(VaultProvider),
    Other(Arc<dyn KeyProvider>),
}

impl Member {
    pub(crate) fn into_provider(self) -> Arc<dyn KeyProvider> {
        match self {
            Self::Local(local) => Arc::new(local),
            Self::Aws(aws) => aws.into_provider(),
            Self::Vault(vault) => Arc::new(vault),
            Self::Other(other) => other,
        }
    }
}

/// The providers of a command line or a profile, and how they are used together.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) members: Vec<Member>,
    write: Write,
    cache: Option<CacheLimits>,
}

impl<'a> Providers<'a> {
    pub(crate) fn new(place: &'a KeystorePlace, signals: &'a Signals, notes: Notes) -> Self {
        Self { place, signals, notes, making: Missing::Make, patience: Patience::default(), kms: None }
    }

    /// The same, with what the command line says about making a keystore.
    pub(crate) fn making(mut self, making: Making) -> Self {
        self.making = Missing::make(making);
        self
    }

    /// The same, so patient with those across a network.
    pub(crate) fn patient(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Which keystore was opened, and as whom.
    pub(crate) fn keystore_told(&self) -> String {
        let principal = self.place.principal.as_deref().unwrap_or(OWNER);
        let path = keystore::path(self.place).map(|path| path.display().to_string()).unwrap_or_default();
        format!("the keystore {path}, as {principal}")
    }

    /// The providers of `--provider`, else of the profile; without either, the keystore's default key.
    pub(crate) fn chosen(&mut self, opening: &Opening, purpose: Purpose) -> Result<Chosen, Failure> {
        match profile::chosen(&opening.choosing)? {
            Some(profile) => {
                self.patience = profile.patience;
                if purpose == Purpose::Encrypt && opening.choosing.profile.is_none() {
                    self.notes.say(&profile.told());
                }
                let members = self.members(&profile.providers, purpose)?;
                Ok(Chosen { members, write: profile.write, cache: profile.cache })
            }
            None => Ok(Chosen::of(self.members(&opening.choosing.provider, purpose)?)),
        }
    }

    /// The providers of these names; without any, the keystore's default key.
    pub(crate) fn members(&mut self, names: &[ProviderName], purpose: Purpose) -> Result<Vec<Member>, Failure> {
        let default = [ProviderName::default()];
        let names = if names.is_empty() { &default } else { names };
        names.iter().map(|name| self.member(name, purpose)).collect()
    }

    pub(crate) fn member(&mut self, name: &ProviderName, purpose: Purpose) -> Result<Member, Failure> {
        match name {
            ProviderName::Local { key } => {
                let kms = self.kms(purpose)?;
                if matches!(purpose, Purpose::Look | Purpose::Plan) {
                    keystore::must_have(kms, key)?;
                }
                Ok(Member::Local(kms.provider(key)?))
            }
            other => outside(other, purpose, self.patience, self.signals),
        }
    }

    fn kms(&mut self, purpose: Purpose) -> Result<&LocalKms, Failure> {
        if self.kms.is_none() {
            let missing = match purpose {
                Purpose::Encrypt => self.making,
                Purpose::Decrypt | Purpose::Look | Purpose::Plan => Missing::RefuseProvider,
            };
            self.kms = Some(keystore::open(self.place, missing, self.signals, self.notes)?);
        }
        self.kms.as_ref().ok_or_else(|| Failure::usage("no keystore"))
    }
}

/// A provider that is in no keystore.
fn outside(name: &ProviderName, purpose: Purpose, patience: Patience, signals: &Signals) -> Result<Member, Failure> {
    match name {
        ProviderName::Exposed(secret) => Err(Failure::usage(secret.advice())),
        ProviderName::Local { .. } => {
            Err(Failure::usage("a keystore is not unlocked by a key inside it: name a provider of another kind"))
        }
        ProviderName::Raw { file, id } => Ok(Member::Other(Arc::new(RawKeyProvider::from_file(id.as_str(), file)?))),
        ProviderName::Passphrase(source) => {
            let ask = match purpose {
                Purpose::Encrypt => Ask::Twice,
                Purpose::Decrypt | Purpose::Look | Purpose::Plan => Ask::Once,
            };
            Ok(Member::Other(Arc::new(PassphraseProvider::new(passphrase::read(source, ask, signals)?)?)))
        }
        ProviderName::AwsKms(key) if purpose == Purpose::Plan && !key.is_full_name() => Err(Failure::usage(format!(
            "a dry run makes no call, and only a call tells which key {0} is: name the key by its own ARN (arn:aws:kms:…:key/…), \
             which `aws kms describe-key --key-id {0}` shows",
            key.key
        ))),
        ProviderName::AwsKms(key) => Ok(Member::Aws(remote::aws_kms(key, patience, signals)?)),
        ProviderName::Vault(key) => Ok(Member::Vault(remote::vault(key, patience)?)),
    }
}

/// A provider that unlocks a keystore.
pub(crate) fn unlocking(
    name: &ProviderName,
    purpose: Purpose,
    signals: &Signals,
) -> Result<Arc<dyn KeyProvider>, Failure> {
    Ok(outside(name, purpose, Patience::default(), signals)?.into_provider())
}

impl Chosen {
    /// All of them must wrap.
    pub(crate) fn of(members: Vec<Member>) -> Self {
        Self { members, write: Write::All, cache: None }
    }

    /// What the cache of data keys keeps, where a profile says so.
    pub(crate) fn cache_limits(&self) -> Option<CacheLimits> {
        self.cache.clone()
    }

    /// One provider that writes: at least so many as the command line says, else as the profile does.
    pub(crate) fn writing(self, at_least: Option<usize>) -> Result<Arc<dyn KeyProvider>, Failure> {
        let write = at_least.map_or(self.write, Write::AtLeast);
        together(self.members, write)
    }

    /// Lets an outage, while this writes, be told with what goes on without one of several.
    pub(crate) fn told_of_outages(&self, at_least: Option<usize>) {
        if at_least.is_none() && self.write == Write::All {
            failure::all_must_write();
        }
    }

    /// How many must write, where a profile says that not all must.
    pub(crate) fn needed(&self) -> Option<usize> {
        match self.write {
            Write::AtLeast(needed) => Some(needed),
            Write::All | Write::Failover { .. } => None,
        }
    }

    /// Each by itself, where all of them are to write; where one stands for the others, all as one.
    pub(crate) fn each(self) -> Result<Vec<Arc<dyn KeyProvider>>, Failure> {
        match self.write {
            Write::All | Write::AtLeast(_) => Ok(self.members.into_iter().map(Member::into_provider).collect()),
            failover @ Write::Failover { .. } => Ok(vec![together(self.members, failover)?]),
        }
    }

    /// One provider that reads with each of them.
    pub(crate) fn reading(self) -> Result<Arc<dyn KeyProvider>, Failure> {
        match self.write {
            Write::All | Write::AtLeast(_) => together(self.members, Write::All),
            failover @ Write::Failover { .. } => together(self.members, failover),
        }
    }
}

/// How long those that need not write are waited for, once enough have.
const GRACE: Duration = Duration::from_secs(2);

fn together(members: Vec<Member>, write: Write) -> Result<Arc<dyn KeyProvider>, Failure> {
    let remote = members.iter().any(|member| matches!(member, Member::Aws(_) | Member::Vault(_)));
    let mut members: Vec<_> = members.into_iter().map(Member::into_provider).collect();
    match write {
        Write::AtLeast(needed) => {
            let provider = MultiProvider::at_least(needed, members.into_iter().map(noted::noted).collect())?;
            Ok(Arc::new(match remote {
                true => provider.with_grace(GRACE, remote::transport()?),
                false => provider,
            }))
        }
        Write::All | Write::Failover { .. } if members.len() == 1 => {
            members.pop().ok_or_else(|| Failure::usage("no provider"))
        }
        Write::All => Ok(Arc::new(MultiProvider::all(members)?)),
        Write::Failover { nearest, hedge_after } => {
            if !nearest {
                noted::first_of_failover(members.first().map(|first| first.recipients()).unwrap_or_default());
            }
            let provider = match nearest {
                true => FailoverProvider::nearest(members)?,
                false => FailoverProvider::in_order(members)?,
            };
            Ok(Arc::new(match hedge_after {
                Some(delay) => provider.hedged_after(delay, remote::transport()?),
                None => provider,
            }))
        }
    }
}

/// An envelope that reads with the providers of the command line.
pub(crate) fn reader(
    opening: &Opening,
    matching: &Matching,
    signals: &Signals,
    notes: Notes,
) -> Result<Envelope, Failure> {
    reading(Providers::new(&opening.keystore, signals, notes).chosen(opening, Purpose::Decrypt)?, matching)
}

/// An envelope that reads with these.
pub(crate) fn reading(chosen: Chosen, matching: &Matching) -> Result<Envelope, Failure> {
    let cache = chosen.cache_limits();
    let builder = Envelope::builder(chosen.reading()?);
    built(cache.into_iter().fold(builder, EnvelopeBuilder::cache), matching)
}

/// The same with a cache of data keys.
pub(crate) fn caching(chosen: Chosen, matching: &Matching, cache: &DataKeyCache) -> Result<Envelope, Failure> {
    built(Envelope::builder(chosen.reading()?).shared_cache(cache), matching)
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
