//! The key pairs that others wrap for, as rows: one for each import of key material, and one that receives replicas.
//!
//! What is wrapped of a pair is its private key as PKCS#8; of one for an import, 32 bytes before it are the key under
//! which its token is authenticated. So a token ends with its pair, and survives a change of the root key.

use super::cipher::{self, Place};
use super::dates::{Date, What};
use super::fields::{Fields, text};
use super::key::Spelled;
use super::parcel::{KeyPair, Sha256Fingerprint};
use super::rows::Columns;
use super::schema::WRAPPING_KEYS;
use super::tx::Tx;
use super::wrapped;
use crate::crypto;
use crate::crypto::rsa::RsaPublicKey;
use crate::error::{Error, Result};
use crate::secret::Secret;
use rusqlite::types::Value;
use zeroize::Zeroizing;

/// A row of `wrapping_keys`.
#[derive(Clone, Debug)]
pub(super) struct WrappingKey {
    id: String,
    purpose: Purpose,
    /// The key whose material it is for; empty for replicas.
    pub(super) key_id: String,
    public_key: Vec<u8>,
    wrapped: Vec<u8>,
    /// From when it is not there any more; the end of time for replicas.
    pub(super) valid_until: i64,
}

/// What a pair is for, and for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Import,
    Replication,
}

impl Spelled for Purpose {
    const SPELLINGS: &'static [(Self, &'static str)] = &[(Self::Import, "import"), (Self::Replication, "replication")];
}

impl WrappingKey {
    /// Keeps a pair for one import, and gives the key for its token.
    pub(super) fn keep_for_import(tx: &mut Tx<'_>, pair: &KeyPair, key_id: &str, until: i64) -> Result<Secret<32>> {
        let token_key = Secret::<32>::try_init(|out| crypto::random::fill(out))?;
        // Of the final length from the start, so that growing leaves no copy behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(TOKEN_KEY_LEN + pair.pkcs8.len()));
        secret.extend_from_slice(token_key.expose());
        secret.extend_from_slice(&pair.pkcs8);
        let id = Sha256Fingerprint::of(pair.public_key.spki()).to_string();
        Self::keep(tx, (id, Purpose::Import, key_id), pair, &secret, until)?;
        Ok(token_key)
    }

    /// Keeps the pair that receives replicas.
    pub(super) fn keep_for_replication(tx: &mut Tx<'_>, pair: &KeyPair) -> Result<()> {
        Self::keep(tx, (REPLICATION.to_owned(), Purpose::Replication, ""), pair, &pair.pkcs8, i64::MAX)
    }

    fn keep(
        tx: &mut Tx<'_>,
        (id, purpose, key_id): (String, Purpose, &str),
        pair: &KeyPair,
        secret: &[u8],
        valid_until: i64,
    ) -> Result<()> {
        let wrapped = cipher::wrap_bytes(&tx.keys.root, place(tx, &id), secret)?;
        let row = vec![
            Value::Text(id),
            text(purpose.spelling()),
            text(key_id),
            Value::Blob(pair.public_key.spki().to_vec()),
            Value::Blob(wrapped),
            Value::Integer(tx.now),
            Value::Integer(valid_until),
        ];
        tx.insert(&WRAPPING_KEYS, row)
    }

    pub(super) fn find(tx: &Tx<'_>, id: &str) -> Result<Option<Self>> {
        tx.row(&WRAPPING_KEYS, &[text(id)])?.map(Self::from_row).transpose()
    }

    /// The pair that came with an import token.
    pub(super) fn for_import(tx: &Tx<'_>, fingerprint: &Sha256Fingerprint) -> Result<Option<Self>> {
        Ok(Self::find(tx, &fingerprint.to_string())?.filter(|it| it.purpose == Purpose::Import))
    }

    /// The pair that receives replicas, once there is one.
    pub(super) fn for_replication(tx: &Tx<'_>) -> Result<Option<Self>> {
        Ok(Self::find(tx, REPLICATION)?.filter(|it| it.purpose == Purpose::Replication))
    }

    pub(super) fn delete(&self, tx: &mut Tx<'_>) -> Result<()> {
        tx.delete(&WRAPPING_KEYS, &[text(&self.id)])
    }

    pub(super) fn public_key(&self) -> Result<RsaPublicKey> {
        RsaPublicKey::parse(&self.public_key)
    }

    /// The key of the token that came with this pair.
    pub(super) fn token_key(&self, tx: &Tx<'_>) -> Result<Secret<32>> {
        let secret = self.open(tx)?;
        secret.get(..TOKEN_KEY_LEN).and_then(Secret::from_slice).ok_or_else(|| self.not_authentic())
    }

    /// The private key, as PKCS#8.
    pub(super) fn pkcs8(&self, tx: &Tx<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let secret = self.open(tx)?;
        match self.purpose {
            Purpose::Replication => Ok(secret),
            Purpose::Import => {
                let pkcs8 = secret.get(TOKEN_KEY_LEN..).ok_or_else(|| self.not_authentic())?;
                Ok(Zeroizing::new(pkcs8.to_vec()))
            }
        }
    }

    fn open(&self, tx: &Tx<'_>) -> Result<Zeroizing<Vec<u8>>> {
        cipher::unwrap_bytes(&tx.keys.root, place(tx, &self.id), &self.wrapped)
            .map_err(|e| self.not_authentic().with_source(e))
    }

    fn not_authentic(&self) -> Error {
        Error::tampered(format!("the wrapping key {} is not authentic", self.id))
    }

    /// When it is thrown away.
    pub(super) fn date(&self) -> Date {
        Date { at: self.valid_until, what: What::ThrowAway }
    }

    pub(super) fn from_row(row: Columns) -> Result<Self> {
        let mut row = Fields(row.into_iter());
        Ok(Self {
            id: row.text()?,
            purpose: row.spelled()?,
            key_id: row.text()?,
            public_key: row.bytes()?,
            wrapped: row.bytes()?,
            valid_until: {
                // When it was made is for people.
                row.integer()?;
                row.integer()?
            },
        })
    }
}

fn place<'a>(tx: &Tx<'a>, id: &'a str) -> Place<'a> {
    Place { keystore_id: &tx.realm.keystore_id, key_id: id, purpose: wrapped::WRAPPING_KEY, version: 0 }
}

const TOKEN_KEY_LEN: usize = 32;
/// The id of the pair that receives replicas.
const REPLICATION: &str = "replication";
