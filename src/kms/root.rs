//! The root key: where it comes from, and what is derived from it.
//!
//! It only ever keys HKDF-Expand-SHA-384 (RFC 5869). A passphrase becomes a root key by Argon2id
//! (RFC 9106), at OWASP's minimum or above.

use super::claim::{self, Argon, Claim, Kind};
use super::root_file::{RootKeyFile, make_file, pending, read_file};
use super::root_text::{Material, RootKeyExport, export, fresh_keystore_id};
use super::rows::{Columns, RowKey};
use crate::crypto;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::provider::passphrase::PassphraseCost;
use crate::secret::Secret;
use rusqlite::types::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where a keystore's root key comes from. Whoever has it and the keystore file has every key.
///
/// Lost, it cannot be made again: keep the text of [`export_root_key`](super::LocalKms::export_root_key)
/// somewhere safe. Opening with that text, as a file or a [`value`](Self::value), always works.
pub struct RootKey(Source);

enum Source {
    File(PathBuf),
    Value(Material),
    Passphrase {
        passphrase: Zeroizing<Vec<u8>>,
        cost: PassphraseCost,
    },
    /// What another key provider unwrapped, and how it is wrapped.
    Sealed(Material, Vec<u8>),
}

/// The root key of a keystore that exists.
#[derive(Debug)]
pub(super) struct Unlocked {
    pub(super) keys: RootKeys,
    /// The file beside which it was found: another root key was about to take that one's place.
    pub(super) unfinished: Option<PathBuf>,
}

impl RootKey {
    /// A file, made with mode 0600 when the keystore is; never made anew beside an existing keystore.
    /// On Unix, a file that others than its owner may read or write is refused.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the path names no file.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match path.file_name() {
            Some(_) => Ok(Self(Source::File(path.to_path_buf()))),
            None => Err(Error::invalid_input("the root key's path names no file").with_path(path)),
        }
    }

    /// The root key's text itself: `envelock-root1.` and what follows. A new keystore gets the
    /// keystore id in it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is not such a text, whole.
    pub fn value(text: &str) -> Result<Self> {
        Material::parse(text.as_bytes()).map(|material| Self(Source::Value(material)))
    }

    /// Derived from a passphrase by Argon2id, at 64 MiB, 3 passes and 4 lanes unless
    /// [`with_cost`](Self::with_cost) says otherwise; the keystore stores the parameters.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the passphrase is empty.
    pub fn passphrase(passphrase: impl Into<Vec<u8>>) -> Result<Self> {
        let passphrase = Zeroizing::new(passphrase.into());
        if passphrase.is_empty() {
            return Err(Error::invalid_input("the passphrase is empty"));
        }
        Ok(Self(Source::Passphrase { passphrase, cost: PassphraseCost::default() }))
    }

    /// The cost of a passphrase in a keystore that is made now. An existing one says its own.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) below 19 MiB or 2 passes (OWASP's minimum), or if
    /// this is no passphrase; [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 1 GiB, 10 passes or 16 lanes.
    pub fn with_cost(self, cost: PassphraseCost) -> Result<Self> {
        check_cost(cost)?;
        match self.0 {
            Source::Passphrase { passphrase, .. } => Ok(Self(Source::Passphrase { passphrase, cost })),
            _ => Err(Error::invalid_input("only a passphrase has a cost")),
        }
    }

    /// From the environment: `ENVELOCK_ROOT_KEY` is a path, `ENVELOCK_ROOT_KEY_VALUE` the text itself.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if both are set, neither is, or the text is not a root key.
    pub fn from_env() -> Result<Self> {
        Self::from_variables()?.ok_or_else(|| {
            Error::invalid_input("neither ENVELOCK_ROOT_KEY nor ENVELOCK_ROOT_KEY_VALUE is set")
                .with_advice("set the first to the path of the root key file, or the second to the root key's text")
        })
    }

    /// As [`from_env`](Self::from_env), or the file at `path` if neither variable is set.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env) and [`file`](Self::file).
    pub fn from_env_or_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_variables()?.map_or_else(|| Self::file(path), Ok)
    }

    fn from_variables() -> Result<Option<Self>> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (set("ENVELOCK_ROOT_KEY"), set("ENVELOCK_ROOT_KEY_VALUE")) {
            (Some(_), Some(value)) => {
                drop(Zeroizing::new(value.into_encoded_bytes()));
                Err(Error::invalid_input("both ENVELOCK_ROOT_KEY and ENVELOCK_ROOT_KEY_VALUE are set")
                    .with_advice("set only one of them"))
            }
            (Some(path), None) => Self::file(path).map(Some),
            (None, Some(value)) => {
                let value = Zeroizing::new(value.into_encoded_bytes());
                let material = Material::parse(&value).map_err(|e| {
                    Error::invalid_input("what ENVELOCK_ROOT_KEY_VALUE holds is not a root key")
                        .with_advice(
                            "set it to one line, `envelock-root1.` and 70 letters, digits, `-` and `_`; the path of a \
                             root key file goes into ENVELOCK_ROOT_KEY",
                        )
                        .with_source(e)
                })?;
                Ok(Some(Self(Source::Value(material))))
            }
            (None, None) => Ok(None),
        }
    }

    /// A fresh root key as text, for a keystore that will take it as a [`value`](Self::value).
    ///
    /// # Errors
    /// [`RandomFailed`](crate::ErrorKind::RandomFailed).
    pub fn generate() -> Result<RootKeyExport> {
        Material::generate()?.export()
    }

    /// What another key provider unwrapped from these encoded slots.
    pub(super) fn sealed(material: Material, slots: Vec<u8>) -> Self {
        Self(Source::Sealed(material, slots))
    }

    /// The root key for a keystore that does not exist yet, durable before this returns.
    pub(super) fn for_new(&self) -> Result<(Material, Kind, RootKeyFile)> {
        let (material, kind, made) = match &self.0 {
            Source::File(path) => match read_file(path)? {
                Some(material) => (material, Kind::Key, RootKeyFile::NotMade),
                None => {
                    let (material, made) = make_file(path)?;
                    (material, Kind::Key, made)
                }
            },
            Source::Value(material) => (material.copy(), Kind::Key, RootKeyFile::NotMade),
            Source::Passphrase { passphrase, cost } => {
                let argon = Argon::fresh(*cost)?;
                let material = Material { keystore_id: fresh_keystore_id()?, root: argon.derive(passphrase)? };
                (material, Kind::Passphrase(argon), RootKeyFile::NotMade)
            }
            Source::Sealed(material, slots) => (material.copy(), Kind::Provider(slots.clone()), RootKeyFile::NotMade),
        };
        Ok((material, kind, made))
    }

    /// Another root key for the keystore of this id, and the file that is to hold it.
    pub(super) fn for_rekey(&self, keystore_id: [u8; 16]) -> Result<(Material, Kind, Option<PathBuf>)> {
        match &self.0 {
            Source::File(path) => Ok((Material::generate_for(keystore_id)?, Kind::Key, Some(path.clone()))),
            Source::Passphrase { passphrase, cost } => {
                let argon = Argon::fresh(*cost)?;
                let material = Material { keystore_id, root: argon.derive(passphrase)? };
                Ok((material, Kind::Passphrase(argon), None))
            }
            Source::Value(material) if material.keystore_id == keystore_id => Ok((material.copy(), Kind::Key, None)),
            Source::Sealed(material, slots) if material.keystore_id == keystore_id => {
                Ok((material.copy(), Kind::Provider(slots.clone()), None))
            }
            Source::Value(_) | Source::Sealed(..) => {
                Err(Error::invalid_input("the new root key was made for another keystore")
                    .with_advice("make one for this keystore: `LocalKms::new_root_key`"))
            }
        }
    }

    /// The encoded slots that it was unwrapped from, if it was.
    pub(super) fn slots(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Sealed(_, slots) => Some(slots),
            _ => None,
        }
    }

    /// The file of this root key, if there is one, and it exists.
    pub(super) fn existing_file(&self) -> Option<PathBuf> {
        let Source::File(path) = &self.0 else { return None };
        [Some(path.clone()), pending(path).ok()].into_iter().flatten().find(|it| it.exists())
    }

    /// The root key for a keystore that exists: never made anew.
    pub(super) fn for_existing(&self, claim: &Claim) -> Result<Unlocked> {
        let keys = match &self.0 {
            Source::Value(material) | Source::Sealed(material, _) => claim.unlock(material, None)?,
            Source::File(path) => return Self::from_file(path, claim),
            Source::Passphrase { passphrase, .. } => {
                let argon = claim
                    .argon
                    .as_ref()
                    .ok_or_else(|| claim.mismatch("this keystore's root key is not a passphrase"))?;
                check_cost(argon.cost)?;
                let material = Material { keystore_id: claim.keystore_id, root: argon.derive(passphrase)? };
                let wrong = |e: Error| match e.kind() {
                    ErrorKind::NoMatchingKey => claim.mismatch("the passphrase is not, or no longer, this keystore's"),
                    _ => e,
                };
                claim.unlock(&material, None).map_err(wrong)?
            }
        };
        Ok(Unlocked { keys, unfinished: None })
    }

    /// In this order: a root key that is moved into place meanwhile is found in one of both.
    fn from_file(path: &Path, claim: &Claim) -> Result<Unlocked> {
        if let Ok(Some(material)) = pending(path).and_then(|pending| read_file(&pending)) {
            match claim.unlock(&material, None) {
                Ok(keys) => return Ok(Unlocked { keys, unfinished: Some(path.to_path_buf()) }),
                Err(error) if error.kind() == ErrorKind::Storage => return Err(error),
                Err(_) => {}
            }
        }
        let material = read_file(path)?.ok_or_else(|| missing(path, claim))?;
        Ok(Unlocked { keys: claim.unlock(&material, Some(path))?, unfinished: None })
    }
}

/// Prints the kind and the path, never the key.
impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => f.debug_tuple("RootKey::file").field(path).finish(),
            Source::Value(_) => f.write_str("RootKey::value(..)"),
            Source::Passphrase { .. } => f.write_str("RootKey::passphrase(..)"),
            Source::Sealed(..) => f.write_str("RootKey::sealed(..)"),
        }
    }
}

/// The root key and what is derived from it, in memory while the keystore is open.
#[derive(Debug)]
pub(super) struct RootKeys {
    pub(super) root: Secret<32>,
    pub(super) rows: RowKey,
    pub(super) head: Secret<32>,
    /// Stored in the clear, so that a wrong root key is told from tampering.
    pub(super) check: [u8; 16],
}

impl RootKeys {
    pub(super) fn derive(material: &Material) -> Result<Self> {
        let root = material.root.expose();
        let mut check = [0; 16];
        crypto::hkdf_expand_sha384(root, &[b"envelock/kms/v1 check\0", &material.keystore_id], &mut check)?;
        let key = Secret::try_init(|out| crypto::hkdf_expand_sha384(root, &[b"envelock/kms/v1 row\0"], out))?;
        Ok(Self {
            root: material.copy().root,
            rows: RowKey { key, keystore_id: material.keystore_id },
            head: Secret::try_init(|out| crypto::hkdf_expand_sha384(root, &[b"envelock/kms/v1 head\0"], out))?,
            check,
        })
    }

    pub(super) fn export(&self) -> Result<RootKeyExport> {
        export(&self.rows.keystore_id, &self.root)
    }

    /// Whether these are the keys of this root key.
    pub(super) fn are_of(&self, material: &Material) -> Result<bool> {
        Ok(Self::derive(material)?.check == self.check)
    }

    /// The row of `meta` for a keystore that is made now, without its last column.
    pub(super) fn meta(&self, region: &str, now: i64, kind: Kind) -> Columns {
        let mut row = vec![
            Value::Integer(1),
            Value::Blob(self.rows.keystore_id.to_vec()),
            Value::Text(region.to_owned()),
            Value::Integer(now),
            Value::Text(kind.name().to_owned()),
            Value::Blob(self.check.to_vec()),
        ];
        row.extend(kind.columns());
        row
    }
}

fn missing(path: &Path, claim: &Claim) -> Error {
    match claim.kind.as_str() {
        claim::KEY => Error::new(
            ErrorKind::NoMatchingKey,
            "there is no root key file here, and the keystore was made with one",
        )
        .with_path(path)
        .with_cause(KeystoreCause::RootKeyMissing)
        .with_advice(
            "put the root key's export back: a file with mode 0600 that holds its line `envelock-root1.…`; without \
                 it the keys of this keystore are lost, and a new root key would not help",
        ),
        _ => claim.mismatch("there is no root key file").with_path(path),
    }
}

/// Within the caps of a passphrase slot, and not below OWASP's minimum.
fn check_cost(cost: PassphraseCost) -> Result<()> {
    cost.check()?;
    if cost.memory_kib < OWASP_MEMORY_KIB || cost.passes < OWASP_PASSES {
        return Err(Error::invalid_input(format!(
            "a keystore's passphrase needs at least {OWASP_MEMORY_KIB} KiB and {OWASP_PASSES} passes of Argon2id"
        )));
    }
    Ok(())
}

/// OWASP Password Storage Cheat Sheet, Argon2id: 19 MiB, 2 passes, 1 lane.
const OWASP_MEMORY_KIB: u32 = 19 * 1_024;
const OWASP_PASSES: u32 = 2;
