//! What a keystore says of its root key in the clear, and so before anything in it is authenticated.

use super::head::Head;
use super::root::RootKeys;
use super::root_text::Material;
use super::rows::{RowName, changed};
use super::schema::{Found, META};
use crate::crypto;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::provider::passphrase::PassphraseCost;
use crate::secret::Secret;
use rusqlite::types::Value;
use std::path::Path;
use uuid::Uuid;

/// How the keystore remembers its root key's source.
#[derive(Debug)]
pub(super) enum Kind {
    /// A file, or the root key's text.
    Key,
    Passphrase(Argon),
    /// Another key provider, which wrapped it: an encoded slots area.
    Provider(Vec<u8>),
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Key => KEY,
            Self::Passphrase(_) => PASSPHRASE,
            Self::Provider(_) => PROVIDER,
        }
    }

    /// The columns of `meta` from `argon_salt` to `root_slots`.
    pub(super) fn columns(self) -> [Value; 5] {
        match self {
            Self::Key => [const { Value::Null }; 5],
            Self::Passphrase(Argon { salt, cost }) => [
                Value::Blob(salt),
                Value::Integer(cost.memory_kib.into()),
                Value::Integer(cost.passes.into()),
                Value::Integer(cost.lanes.into()),
                Value::Null,
            ],
            Self::Provider(slots) => [Value::Null, Value::Null, Value::Null, Value::Null, Value::Blob(slots)],
        }
    }
}

/// How a passphrase becomes the root key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argon {
    pub(super) salt: Vec<u8>,
    pub(super) cost: PassphraseCost,
}

impl Argon {
    /// With a fresh salt.
    pub(super) fn fresh(cost: PassphraseCost) -> Result<Self> {
        let mut salt = [0; 16];
        crypto::random::fill(&mut salt)?;
        Ok(Self { salt: salt.to_vec(), cost })
    }

    pub(super) fn derive(&self, passphrase: &[u8]) -> Result<Secret<32>> {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        Secret::try_init(|out| {
            crypto::password::argon2id(passphrase, &self.salt, memory_kib, passes, u32::from(lanes), out)
        })
    }
}

/// What an existing keystore says of its root key.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) keystore_id: [u8; 16],
    pub(super) check: Vec<u8>,
    pub(super) kind: String,
    pub(super) argon: Option<Argon>,
    /// The root key as other providers wrapped it.
    pub(super) slots: Option<Vec<u8>>,
    /// The head as it stands in the file, if it is where this schema has it: what tells the right root key, whatever
    /// the rest says.
    head: Option<Vec<u8>>,
}

/// Without the head, which changes with every call.
impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        fn said(it: &Claim) -> impl PartialEq {
            (&it.keystore_id, &it.check, &it.kind, &it.argon, &it.slots)
        }
        said(self) == said(other)
    }
}

impl Claim {
    pub(super) fn read(sql: &rusqlite::Connection, found: Found) -> Result<Self> {
        let slots = match found {
            Found::Older(1) => "NULL",
            _ => "root_slots",
        };
        let head = match found {
            Found::Older(_) => "NULL",
            _ => "(SELECT head FROM audit ORDER BY sequence DESC LIMIT 1)",
        };
        // One statement, and so one moment: another process may be giving it another root key.
        let query = format!(
            "SELECT keystore_id, check_value, root_kind, argon_salt, argon_memory_kib, argon_passes, argon_lanes, {slots},
                    {head}
             FROM meta"
        );
        let found = sql.query_row(&query, [], |row| {
            let salt: Option<Vec<u8>> = row.get(3)?;
            let argon = match salt {
                None => None,
                Some(salt) => Some(Argon {
                    salt,
                    cost: PassphraseCost { memory_kib: row.get(4)?, passes: row.get(5)?, lanes: row.get(6)? },
                }),
            };
            let (keystore_id, check, kind) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // A head of another type is not authentic, which is told later.
            let head = row.get_ref(8)?.as_blob().ok().map(<[u8]>::to_vec);
            Ok(Self { keystore_id, check, kind, argon, slots: row.get(7)?, head })
        });
        found.map_err(|e| match e.sqlite_error_code() {
            None if matches!(e, rusqlite::Error::QueryReturnedNoRows) => {
                Error::tampered(format!("the row {:?} was removed", row_name().as_str())).with_source(e)
            }
            None => changed(&row_name()).with_source(e),
            Some(_) => Error::sqlite(e),
        })
    }

    /// The keys of `material`, if it is this keystore's root key. `file` is where it was read from.
    ///
    /// # Errors
    /// Kind NoMatchingKey; Storage if it is, and what the file says of it in the clear was changed.
    pub(super) fn unlock(&self, material: &Material, file: Option<&Path>) -> Result<RootKeys> {
        let at_file = |error: Error| match file {
            Some(file) => error.with_path(file),
            None => error,
        };
        let keys = RootKeys::derive(material)?;
        let is_claimed = material.keystore_id == self.keystore_id && keys.check.as_slice() == self.check;
        if is_claimed {
            return Ok(keys);
        }
        // Nobody without this root key can have made the head, and so nobody shall doubt the root key.
        if self.head.as_ref().is_some_and(|head| Head::is_authentic(head, &keys)) {
            return Err(changed(&row_name()));
        }
        if material.keystore_id != self.keystore_id {
            let (theirs, ours) = (Uuid::from_bytes(material.keystore_id), Uuid::from_bytes(self.keystore_id));
            let what = format!("the root key is of the keystore {theirs}, and this keystore is {ours}");
            return Err(at_file(
                Error::new(ErrorKind::NoMatchingKey, what)
                    .with_advice("give the root key that was made with this keystore, or its export"),
            ));
        }
        Err(at_file(self.mismatch("the root key is not, or no longer, this keystore's")))
    }

    /// A root key that is not this keystore's, or is no longer.
    pub(super) fn mismatch(&self, what: &str) -> Error {
        let error = Error::new(ErrorKind::NoMatchingKey, what);
        let error = match self.kind.as_str() {
            PROVIDER => error.with_cause(KeystoreCause::Sealed),
            _ => error,
        };
        error.with_advice(match self.kind.as_str() {
            PASSPHRASE => "this keystore's root key is a passphrase: give that, or the root key's export",
            PROVIDER => {
                "this keystore's root key is wrapped by a key provider: unseal it, or give the root key's export"
            }
            _ => {
                "give the one that the keystore was last opened with, or its export; a backup needs the one of its day"
            }
        })
    }
}

fn row_name() -> RowName {
    RowName::new(&META, &[Value::Integer(1)])
}

pub(super) const KEY: &str = "key";
pub(super) const PASSPHRASE: &str = "passphrase";
pub(super) const PROVIDER: &str = "provider";
