//! A root key that another key provider wraps: a cloud KMS, say, unlocks the keystore (auto-unseal).
//!
//! Its wrapped forms lie in the keystore, encoded like a message's slots, under the KMS context `envelock-use` =
//! `root/1` and `envelock-keystore` = the keystore's id, exactly: nothing else that is wrapped under the provider's
//! key passes for a root key. The provider is asked on the caller's task, so that one that needs a runtime has it;
//! what is unwrapped is checked against the keystore's check value like any other root key.

use super::claim::{self, Claim};
use super::open_list::forked_with_open_keystores;
use super::root::RootKey;
use super::root_text::{Material, fresh_keystore_id};
use super::schema::Found;
use super::thread::{Opening, at};
use super::{KmsOptions, LocalKms};
use crate::context::KmsContext;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::material::{DataKeyLength, EncryptedDataKey};
use crate::native::header::Limits;
use crate::native::slots::{SlotsRoom, encode_slots, parse_slots};
use crate::provider::multi::more_retryable;
use crate::provider::{DataKeyAnswer, KeyProvider, Recipient, Recipients};
use crate::secret::Secret;
use crate::worker;
use std::path::Path;
use uuid::Uuid;

impl LocalKms {
    /// Opens the keystore at `path` with a root key that `provider` unwraps, or makes it, with one that `provider`
    /// generates. The keystore holds the root key's wrapped forms; this process keeps nothing of the provider.
    ///
    /// Several providers that can each unlock it are one [`MultiProvider`](crate::MultiProvider).
    /// [`export_root_key`](Self::export_root_key) gives the root key itself, which opens the keystore
    /// ([`RootKey::value`]) when the provider is gone for good: keep it safe.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), envelock::Error> {
    /// use envelock::{LocalKms, RawKeyProvider};
    /// let kms = LocalKms::unseal("keys.db", RawKeyProvider::from_file("unlock", "unlock.key")?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) also where the keystore has a
    /// root key of another kind, or the provider has none of the keys that it is wrapped under; the provider's own,
    /// which are worth retrying where it is out of reach. In a forked child of a process that had any keystore open,
    /// [`Storage`](crate::ErrorKind::Storage).
    pub async fn unseal(path: impl AsRef<Path>, provider: impl KeyProvider) -> Result<Self> {
        Self::unseal_with(path, provider, KmsOptions::default()).await
    }

    /// As [`unseal`](Self::unseal), with options.
    ///
    /// # Errors
    /// As [`unseal`](Self::unseal) and [`open_with`](Self::open_with).
    pub async fn unseal_with(path: impl AsRef<Path>, provider: impl KeyProvider, options: KmsOptions) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if forked_with_open_keystores()? {
            return Err(Error::forked().with_path(path));
        }
        let mut asked = peek(&path, &options).await?;
        loop {
            let root = match &asked {
                Some(claim) => unwrap(claim, &provider).await.map_err(|e| at(e, &path))?,
                None => generate(&provider, fresh_keystore_id()?).await?,
            };
            let opened = {
                let (path, options) = (path.clone(), options.clone());
                worker::run("envelock-unseal", move || Self::open_with(path, root, options)).await
            };
            match opened {
                // Another process made the keystore, or gave it another root key, meanwhile.
                Err(error) if error.kind() == ErrorKind::NoMatchingKey => {
                    let now = peek(&path, &options).await?;
                    if now == asked {
                        return Err(error);
                    }
                    asked = now;
                }
                opened => return opened,
            }
        }
    }

    /// Puts the keystore under a fresh root key that `provider` wraps, as [`rekey`](Self::rekey) does: from now on
    /// [`unseal`](Self::unseal) opens it.
    ///
    /// # Errors
    /// As [`rekey`](Self::rekey); [`InvalidInput`](crate::ErrorKind::InvalidInput) if all that could unlock the
    /// keystore were its own keys; the provider's own.
    pub async fn rekey_sealed(&self, provider: impl KeyProvider) -> Result<()> {
        let root = generate(&provider, self.realm().keystore_id).await?;
        let own = format!("{}:", self.realm());
        let locked_in = |slot: &EncryptedDataKey| slot.is_missing() || slot.key_id().starts_with(own.as_bytes());
        if slots_of(&root)?.iter().all(locked_in) {
            return Err(Error::invalid_input("a keystore cannot be unlocked by a key that is inside it")
                .with_advice("nothing was changed: name a key of another keystore, or another key provider"));
        }
        self.rekey(root).await
    }
}

/// What the keystore at `path` says of its root key; `None` if no keystore is there and one is to be made.
async fn peek(path: &Path, options: &KmsOptions) -> Result<Option<Claim>> {
    let (path, options) = (path.to_path_buf(), options.clone());
    worker::run("envelock-unseal", move || look(&path, &options).map_err(|e| at(e, &path))).await
}

fn look(path: &Path, options: &KmsOptions) -> Result<Option<Claim>> {
    let existing = options.clone().must_exist();
    let missing = match existing.missing == options.missing {
        true => None,
        false => Some(ErrorKind::NoMatchingKey),
    };
    let opening = match Opening::of(path, &existing, None) {
        Err(error) if missing == Some(error.kind()) => return Ok(None),
        opening => opening?,
    };
    match opening.found {
        Found::Nothing if missing.is_none() => Err(Error::empty_keystore(path)),
        Found::Nothing => Ok(None),
        found => Claim::read(&opening.sql, found).map(Some),
    }
}

/// A fresh root key that `provider` has wrapped.
async fn generate(provider: &impl KeyProvider, keystore_id: [u8; 16]) -> Result<RootKey> {
    let made = provider.generate_data_key(DataKeyLength::Bytes32, &context(&keystore_id)?).await?;
    let slots = encode_slots(&made.encrypted, SlotsRoom::Tight, 0)
        .map_err(|e| Error::new(e.kind(), "the provider's wrapped root keys cannot be kept").with_source(e))?;
    let root = Secret::from_slice(made.key.expose())
        .ok_or_else(|| Error::internal("the key provider made a root key that does not have 32 bytes"))?;
    Ok(RootKey::sealed(Material { keystore_id, root }, slots))
}

/// The root key, as `provider` unwraps it.
pub(super) async fn unwrap(claim: &Claim, provider: &impl KeyProvider) -> Result<RootKey> {
    let Some(area) = &claim.slots else {
        return Err(claim.not_sealed());
    };
    let slots = parse_slots(area)
        .map_err(|e| Error::tampered("its wrapped root key is not as it was written").with_source(e))?;
    let context = context(&claim.keystore_id)?;
    let mut failure = None;
    let mut tries = Limits::default().slots_tried;
    for slot in slots.iter().filter(|slot| !slot.is_missing()) {
        match provider.decrypt_data_key(slot, &context).await {
            DataKeyAnswer::NotMine => continue,
            DataKeyAnswer::Failed(error) => failure = more_retryable(failure, error),
            DataKeyAnswer::Key(key) => {
                let material =
                    Secret::from_slice(key.expose()).map(|root| Material { keystore_id: claim.keystore_id, root });
                let unlocked = material.as_ref().map(|material| claim.unlock(material, None).map(drop));
                match (material, unlocked) {
                    (Some(material), Some(Ok(()))) => return Ok(RootKey::sealed(material, area.clone())),
                    (_, Some(Err(error))) if error.kind() == ErrorKind::Storage => return Err(error),
                    _ => {
                        let error = claim.mismatch("what the key provider unwrapped is not this keystore's root key");
                        failure = more_retryable(failure, error);
                    }
                }
            }
        }
        tries -= 1;
        if tries == 0 {
            break;
        }
    }
    Err(failure.unwrap_or_else(|| {
        let recipients = Recipients(slots.iter().map(Recipient::from).collect());
        let what = format!("the key provider has none of the keys that unlock this keystore: {recipients}");
        Error::new(ErrorKind::NoMatchingKey, what)
            .with_source(recipients)
            .with_advice("give a provider of one of these keys, or the root key's export")
    }))
}

impl Claim {
    /// To be unlocked by a provider, and not wrapped by any.
    fn not_sealed(&self) -> Error {
        Error::new(ErrorKind::NoMatchingKey, "this keystore's root key is not wrapped by a key provider")
            .with_cause(KeystoreCause::NotSealed)
            .with_advice(match self.kind.as_str() {
                claim::PASSPHRASE => "open it with its passphrase: `LocalKms::open` with `RootKey::passphrase`",
                _ => "open it with its root key file or text: `LocalKms::open`",
            })
    }
}

fn slots_of(root: &RootKey) -> Result<Vec<EncryptedDataKey>> {
    root.slots().map_or(Ok(Vec::new()), parse_slots)
}

fn context(keystore_id: &[u8; 16]) -> Result<KmsContext> {
    KmsContext::for_root_key(&Uuid::from_bytes(*keystore_id).to_string())
}
