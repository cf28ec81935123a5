//! A passphrase as key provider (docs/format.md, "Passphrase slots").
//!
//! ```text
//! wrapped = head (26) || commitment (32) || ciphertext (32) || tag (16)
//! head    = 01 || memory KiB (4) || passes (4) || lanes (1) || salt (16)
//! wrap key (32) || commitment (32) = HKDF-Expand-SHA-384(Argon2id(passphrase, salt, .., 48 bytes),
//!     "envelock/v1 passphrase" || 00 || head || SHA-384(KMS context), 64)
//! ```
//! A passphrase is low in entropy, so its wrap commits to the key (partitioning oracles, Len,
//! Grubbs, Ristenpart 2021): the commitment is checked first. AES-256-GCM with a zero nonce and no
//! associated data, since the wrap key is used once.

use crate::codec::Reader;
use crate::context::KmsContext;
use crate::crypto::{self, Aead, AeadAlgorithm};
use crate::error::{Error, Result};
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, Recipient};
use crate::secret::Secret;
use crate::worker;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The provider name in slots; a message has at most one of them.
const NAME: &str = "passphrase";
const LABEL: &[u8] = b"envelock/v1 passphrase\0";
const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const HEAD_LEN: usize = 10 + SALT_LEN;
const COMMITMENT_LEN: usize = 32;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = HEAD_LEN + COMMITMENT_LEN + 32 + TAG_LEN;

/// Argon2id's cost (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB: at least 8 for each lane, at most 1 GiB.
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 10.
    pub passes: u32,
    /// Lanes: 1 to 16.
    pub lanes: u8,
}

/// 64 MiB, 3 passes, 4 lanes: RFC 9106's second recommendation.
impl Default for PassphraseCost {
    fn default() -> Self {
        Self { memory_kib: 64 * 1_024, passes: 3, lanes: 4 }
    }
}

/// What a slot of a stranger may make a reader spend.
const COST_MAX: PassphraseCost = PassphraseCost { memory_kib: 1 << 20, passes: 10, lanes: 16 };

impl PassphraseCost {
    /// Refused above the caps before anything runs, and below what Argon2 needs.
    pub(crate) fn check(self) -> Result<()> {
        if self.memory_kib > COST_MAX.memory_kib || self.passes > COST_MAX.passes || self.lanes > COST_MAX.lanes {
            return Err(Error::limit(format!(
                "the passphrase derivation asks for {} KiB, {} passes and {} lanes; the most are {}, {} and {}",
                self.memory_kib, self.passes, self.lanes, COST_MAX.memory_kib, COST_MAX.passes, COST_MAX.lanes
            )));
        }
        if self.passes == 0 || self.lanes == 0 || self.memory_kib < 8 * u32::from(self.lanes) {
            return Err(Error::invalid_input(
                "Argon2id needs at least one pass, one lane and 8 KiB of memory for each lane",
            ));
        }
        Ok(())
    }
}

/// A key provider on a passphrase: for files that people exchange. Each use costs a fifth of a second
/// and 64 MiB at the cost written by default; a stranger's slot may ask for up to 1 GiB and 10 passes,
/// which is seconds, and more is refused. The work is done on a thread of its own, and the future waits
/// without blocking its executor. Dropped, it leaves that thread to end by itself.
///
/// The passphrase is taken as bytes, not normalised. A message has at most one passphrase slot, and
/// whoever knows the passphrase can make messages too.
pub struct PassphraseProvider {
    /// Shared with the threads that stretch it.
    passphrase: Arc<Zeroizing<Vec<u8>>>,
    cost: PassphraseCost,
}

impl PassphraseProvider {
    /// A provider on `passphrase` at the default cost.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is empty.
    pub fn new(passphrase: impl Into<Vec<u8>>) -> Result<Self> {
        let passphrase = Zeroizing::new(passphrase.into());
        if passphrase.is_empty() {
            return Err(Error::invalid_input("the passphrase is empty"));
        }
        Ok(Self { passphrase: Arc::new(passphrase), cost: PassphraseCost::default() })
    }

    /// The same provider, writing at another cost. Reading takes the cost from the slot.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) below Argon2's minimum,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above what readers accept.
    pub fn with_cost(mut self, cost: PassphraseCost) -> Result<Self> {
        cost.check()?;
        self.cost = cost;
        Ok(self)
    }

    /// `wrap key || commitment` for a slot's head.
    async fn keys(&self, head: &[u8; HEAD_LEN], cost: PassphraseCost, context: &KmsContext) -> Result<Secret<64>> {
        let (passphrase, stretched_by) = (Arc::clone(&self.passphrase), *head);
        let stretched = worker::run("envelock-argon2", move || {
            let salt = &stretched_by[HEAD_LEN - SALT_LEN..];
            let PassphraseCost { memory_kib, passes, lanes } = cost;
            Secret::<48>::try_init(|out| {
                crypto::password::argon2id(&passphrase, salt, memory_kib, passes, u32::from(lanes), out)
            })
        })
        .await?;
        let context_hash = crypto::sha384(&[context.encoded()]);
        Secret::try_init(|out| crypto::hkdf_expand_sha384(stretched.expose(), &[LABEL, head, &context_hash], out))
    }

    async fn wrap(&self, key: &DataKey, context: &KmsContext) -> Result<EncryptedDataKey> {
        if key.expose().len() != 32 {
            return Err(Error::invalid_input("a passphrase wraps data keys of 32 bytes only"));
        }
        let mut head = [0; HEAD_LEN];
        head[0] = VERSION;
        head[1..5].copy_from_slice(&self.cost.memory_kib.to_be_bytes());
        head[5..9].copy_from_slice(&self.cost.passes.to_be_bytes());
        head[9] = self.cost.lanes;
        crypto::random::fill(&mut head[10..])?;
        let keys = self.keys(&head, self.cost, context).await?;
        let (wrap_key, commitment) = split(&keys);
        let mut wrapped = Vec::with_capacity(WRAPPED_LEN);
        wrapped.extend_from_slice(&head);
        wrapped.extend_from_slice(commitment);
        wrapped.resize(WRAPPED_LEN, 0);
        let sealed = wrapped.get_mut(HEAD_LEN + COMMITMENT_LEN..).unwrap_or_default();
        crypto::aead(AeadAlgorithm::Aes256Gcm, wrap_key).seal_to(&[0; 12], &[], key.expose(), sealed)?;
        Ok(EncryptedDataKey::new(NAME, Vec::new(), wrapped))
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KmsContext) -> Result<DataKey> {
        if wrapped.len() != WRAPPED_LEN {
            return Err(Error::authentication());
        }
        let (head, rest) = wrapped.split_first_chunk::<HEAD_LEN>().ok_or_else(Error::authentication)?;
        let (stored, sealed) = rest.split_first_chunk::<COMMITMENT_LEN>().ok_or_else(Error::authentication)?;
        let cost = parse_cost(head).ok_or_else(Error::authentication)?;
        cost.check().map_err(|_| Error::authentication())?;
        let keys = self.keys(head, cost, context).await?;
        let (wrap_key, commitment) = split(&keys);
        if !bool::from(commitment.ct_eq(stored)) {
            return Err(Error::authentication());
        }
        let aead = crypto::aead(AeadAlgorithm::Aes256Gcm, wrap_key);
        DataKey::try_init(DataKeyLength::Bytes32, |key| aead.open_to(&[0; 12], &[], sealed, key))
    }
}

#[async_trait]
impl KeyProvider for PassphraseProvider {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new(NAME, Vec::new())]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let key = DataKey::try_init(length, crypto::random::fill)?;
        let encrypted = vec![self.wrap(&key, context).await?];
        Ok(GeneratedDataKey { key, encrypted })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        Ok(vec![self.wrap(key, context).await?])
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        if slot.provider() != NAME || !slot.key_id().is_empty() {
            return DataKeyAnswer::NotMine;
        }
        match self.unwrap(slot.wrapped(), context).await {
            Ok(key) => DataKeyAnswer::Key(key),
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }
}

impl fmt::Debug for PassphraseProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseProvider").field("cost", &self.cost).finish_non_exhaustive()
    }
}

fn parse_cost(head: &[u8; HEAD_LEN]) -> Option<PassphraseCost> {
    let mut reader = Reader::new(head);
    let version = reader.u8().ok()?;
    let cost = PassphraseCost { memory_kib: reader.u32().ok()?, passes: reader.u32().ok()?, lanes: reader.u8().ok()? };
    (version == VERSION).then_some(cost)
}

fn split(keys: &Secret<64>) -> (&[u8; 32], &[u8; COMMITMENT_LEN]) {
    #[expect(clippy::expect_used, reason = "64 bytes are two arrays of 32")]
    let parts =
        keys.expose().split_first_chunk::<32>().and_then(|(a, b)| Some((a, b.first_chunk()?))).expect("64 = 2 x 32");
    parts
}
