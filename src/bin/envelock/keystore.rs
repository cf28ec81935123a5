//! Where the embedded keystore and its root key are.

use crate::args::{KeystorePlace, Making};
use crate::failure::Failure;
use crate::provider::{self, Purpose};
use crate::signals::Signals;
use crate::text::Notes;
use envelock::kms::OWNER;
use envelock::{ErrorKind, KeyProvider, KmsOptions, LocalKms, RootKey, blocking::wait};
use std::env;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The root key itself.
const VALUE: &str = "ENVELOCK_ROOT_KEY_VALUE";

/// Those that this run opened: providers and envelopes have clones of them everywhere.
static OPEN: Mutex<Vec<LocalKms>> = Mutex::new(Vec::new());

/// Closes every keystore that was opened, so that all of it is in its one file when the program has ended:
/// people copy that file.
pub(crate) fn close_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for kms in open {
        // What was acknowledged is durable, closed or not.
        let _ = wait(kms.close());
    }
}

/// Whether this run has opened one.
pub(crate) fn is_open() -> bool {
    !OPEN.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// What happens where no keystore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is made, and so is its root key, unless that is there: then a keystore was lost.
    Make,
    /// It is made, under the root key that is there or a new one.
    MakeAnew,
    /// That is a failure: a key that is not there opens nothing.
    Refuse,
    /// As `Refuse`, where --provider names another key.
    RefuseProvider,
}

impl Missing {
    pub(crate) fn make(making: Making) -> Self {
        match making.new_keystore {
            true => Self::MakeAnew,
            false => Self::Make,
        }
    }

    fn is_refused(self) -> bool {
        matches!(self, Self::Refuse | Self::RefuseProvider)
    }
}

/// Where the keystore of the command line is, else of the environment, else the user's.
pub(crate) fn path(place: &KeystorePlace) -> Result<PathBuf, Failure> {
    match place.keystore.clone().or_else(|| variable("ENVELOCK_KEYSTORE")) {
        Some(path) => Ok(path),
        None => default_path("XDG_DATA_HOME", ".local/share", "keys.db", "--keystore"),
    }
}

/// What unlocks the keystore.
pub(crate) enum Unlocking {
    /// A root key, and its file if it has one.
    Root(RootKey, Option<PathBuf>),
    /// A key provider, which unwraps the root key.
    Provider(Arc<dyn KeyProvider>),
}

impl Unlocking {
    pub(crate) fn of(place: &KeystorePlace, signals: &Signals) -> Result<Self, Failure> {
        if let Some(name) = &place.unseal {
            return Ok(Self::Provider(provider::unlocking(name, Purpose::Decrypt, signals)?));
        }
        let default_root = default_path("XDG_CONFIG_HOME", ".config", "root.key", "--root-key");
        let (root, file) = match (&place.root_key, default_root) {
            (Some(path), _) => return Ok(Self::Root(RootKey::file(path)?, Some(path.clone()))),
            (None, Ok(path)) => (RootKey::from_env_or_file(&path)?, variable("ENVELOCK_ROOT_KEY").or(Some(path))),
            (None, Err(_)) if variable("ENVELOCK_ROOT_KEY").is_some() || variable(VALUE).is_some() => {
                (RootKey::from_env()?, variable("ENVELOCK_ROOT_KEY"))
            }
            (None, Err(failure)) => return Err(failure),
        };
        Ok(Self::Root(root, file.filter(|_| variable(VALUE).is_none())))
    }

    /// The root key's file, if it has one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Root(_, file) => file.as_deref(),
            Self::Provider(_) => None,
        }
    }
}

/// Opens the keystore of the command line, else of the environment, else the user's.
pub(crate) fn open(
    place: &KeystorePlace,
    missing: Missing,
    signals: &Signals,
    notes: Notes,
) -> Result<LocalKms, Failure> {
    let path = path(place)?;
    if path.symlink_metadata().is_err() && missing.is_refused() {
        let or = match missing {
            Missing::RefuseProvider => "another key with --provider",
            _ => "make one with `envelock keys create --alias alias/NAME`",
        };
        return Err(Failure::no_key(format!(
            "there is no keystore at {}; if there was one, restore it from its backup; else name one with --keystore, \
             or {or}",
            path.display()
        )));
    }
    let unlocking = Unlocking::of(place, signals)?;
    let root_file = unlocking.file().map(Path::to_path_buf);
    // In this order: a first use makes the keystore's file before the root key, so that one which is under
    // way, or was interrupted, is not taken for a lost keystore.
    let root_key_there = root_file.as_ref().is_some_and(|file| file.symlink_metadata().is_ok());
    let exists = path.symlink_metadata().is_ok();
    if !exists && !missing.is_refused() {
        if let Some(root_file) = root_file.as_ref().filter(|_| root_key_there && missing == Missing::Make) {
            return Err(Failure::no_key(format!(
                "the root key file {} exists and its keystore {} does not: restore the keystore from its backup \
                 (`envelock keystore restore`), or begin anew with --new-keystore; files encrypted before stay closed",
                root_file.display(),
                path.display()
            )));
        }
        for file in [Some(&path), root_file.as_ref()].into_iter().flatten() {
            make_folder(file)?;
        }
    }
    let options = match missing {
        Missing::Make => KmsOptions::default(),
        Missing::MakeAnew => KmsOptions::default().new_keystore(),
        // It may have gone since, or be a file in which no keystore was made.
        Missing::Refuse | Missing::RefuseProvider => KmsOptions::default().must_exist(),
    };
    let options = match &place.keystore_region {
        Some(region) => options.region(region),
        None => options,
    };
    let kms = match unlocking {
        Unlocking::Root(root, _) => match LocalKms::open_with(&path, root, options.clone()) {
            // A rekey may have put another root key in place between looking at the keystore and at that key.
            Err(e) if e.kind() == ErrorKind::NoMatchingKey && root_key_there => match Unlocking::of(place, signals)? {
                Unlocking::Root(root, _) => LocalKms::open_with(&path, root, options)?,
                Unlocking::Provider(_) => return Err(e.into()),
            },
            opened => opened?,
        },
        Unlocking::Provider(provider) => signals.drive(LocalKms::unseal_with(&path, provider, options))?,
    };
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(kms.clone());
    if kms.made_keystore() {
        let keystore = path.display();
        match root_file {
            Some(root) if !kms.made_root_key_file() => notes.say(&format!(
                "the root key {} was there, and the keystore {keystore} was not: made a new and empty one under that \
                 root key; if there was a keystore before, restore it in its place (`envelock keystore restore`): only \
                 it opens what it encrypted",
                root.display()
            )),
            Some(root) => notes.say(&format!(
                "made the keystore {keystore} and its root key {}; back up both, in two places (`envelock keystore \
                 backup`, `envelock keystore root export`): either alone opens nothing, and if one is lost, so is what \
                 is encrypted here",
                root.display()
            )),
            None => notes.say(&format!(
                "made the keystore {keystore} under the root key that was given; keep that root key, and \
                 back up the keystore (`envelock keystore backup`): without both, what is encrypted here is lost"
            )),
        }
    }
    match place.principal.as_deref() {
        Some(OWNER) | None => Ok(kms),
        Some(principal) => Ok(kms.as_principal(principal)?),
    }
}

/// Fails where `key` is not there: a managed key is made by its first use, and this is none.
pub(crate) fn must_have(kms: &LocalKms, key: &str) -> Result<(), Failure> {
    // Only the owner makes one.
    if !key.starts_with("alias/envelock/") || kms.principal() != OWNER {
        return Ok(());
    }
    if wait(kms.list_aliases())?.iter().any(|it| it.alias_name == key) {
        return Ok(());
    }
    Err(Failure::no_key(format!("the keystore {} has no {key} yet: its first use makes it", kms.path().display())))
}

/// Set, and not empty.
pub(crate) fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// By the XDG base directory specification: a relative path in a variable is ignored.
pub(crate) fn default_path(
    variable_name: &str,
    below_home: &str,
    file: &str,
    option: &str,
) -> Result<PathBuf, Failure> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let base = variable(variable_name)
        .filter(absolute)
        .or_else(|| variable("HOME").filter(absolute).map(|home| home.join(below_home)));
    match base {
        Some(base) => Ok(base.join("envelock").join(file)),
        None => Err(Failure::usage(format!("neither {variable_name} nor HOME is set: say where with {option}"))),
    }
}

/// The folder of `file`, for this user alone where it has to be made.
pub(crate) fn make_folder(file: &Path) -> Result<(), Failure> {
    match file.parent().filter(|folder| folder.as_os_str() != OsStr::new("")) {
        Some(folder) => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Failure::io(&format!("the folder {} cannot be made", folder.display()), &e)),
        None => Ok(()),
    }
}
