//! Transit of Vault and OpenBao as key provider.
//!
//! The data key is made here and encrypted there: `transit/encrypt/KEY` with the encoded KMS context as `associated_data`,
//! since `transit/datakey` and `transit/rewrap` take none. A slot holds the server's text, `vault:vN:…`, under the provider
//! name `vault` and the key id `MOUNT/KEY`: neither host nor namespace, which change when a cluster moves.
//!
//! - [`call`] is one request and what becomes of its answer, [`answer`] reads bodies, [`refusal`] says what a failure means;
//! - [`auth`] logs in, [`token`] keeps what that gave;
//! - [`wrapping`] gets a secret id that can be had once, [`news`] tells caches of a revoked key;
//! - [`proof`] sees once that the server binds what it is told to bind.
//!
//! Logins, renewals and proofs are errands ([`Errand`](crate::provider::http::errand::Errand)): they belong to no call.

mod answer;
pub(crate) mod auth;
mod batch;
pub(crate) mod builder;
mod call;
pub(crate) mod check;
mod environment;
mod news;
mod proof;
mod refusal;
mod slot;
mod token;
mod transport;
mod wire;
mod wrapping;

#[cfg(test)]
mod advice_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;

use crate::context::KmsContext;
use crate::crypto;
use crate::error::Result;
use crate::material::{DataKey, DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Revocations};
use async_trait::async_trait;
use builder::VaultBuilder;
use call::{Call, Server};
use http::Method;
use news::News;
use proof::Proof;
use refusal::Purpose;
use slot::{Ciphertext, NAME};
use std::fmt;
use std::sync::Arc;
use token::Tokens;
use wire::{Body, Field};

/// A key provider on a key of the Transit engine of HashiCorp Vault (1.13 or later) or OpenBao.
///
/// ```no_run
/// use envelock::{Envelope, VaultAuth, VaultProvider};
/// # fn main() -> Result<(), envelock::Error> {
/// let provider = VaultProvider::builder("orders")
///     .address("https://vault.example.com:8200")
///     .auth(VaultAuth::app_role("8d1f-role", "5f2c-secret"))
///     .build()?;
/// let envelope = Envelope::builder(provider).build()?;
/// # let _ = envelope;
/// # Ok(())
/// # }
/// ```
///
/// What Vault sees is the data key and the encryption context, never the data. The context is bound as associated data: a
/// slot does not open under another. Whether the server really binds it is proved once for each provider, before its first data key
/// goes out and after the first that it opens ([what that costs](VaultBuilder::dangerous_without_binding_proof)).
///
/// Transit re-encrypts no ciphertext that has associated data, so a rewrap decrypts and encrypts; both take up to 240 data
/// keys in one call ([`decrypt_data_keys`](KeyProvider::decrypt_data_keys)), 160 where the key derives. Its calls need a tokio runtime, unless the
/// [transport](VaultBuilder::transport) is one that does not. Cheap to clone; clones share token and limits.
#[derive(Clone)]
pub struct VaultProvider(Arc<Inner>);

struct Inner {
    server: Server,
    tokens: Tokens,
    mount: String,
    key: String,
    /// `MOUNT/KEY`.
    key_id: String,
    derivation: Derivation,
    proof: Proof,
    identity: Option<ProviderIdentity>,
    news: News,
}

/// Whether Transit derives a key of its own for each context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Derivation {
    None,
    ByContext,
}

impl VaultProvider {
    /// A provider to be on the Transit key `key`; its address and login follow.
    #[must_use]
    pub fn builder(key: impl Into<String>) -> VaultBuilder {
        VaultBuilder::new(key.into())
    }

    /// A provider to be on the Transit key `key`, set up by the variables that the programs `bao` and `vault` read, `BAO_…`
    /// before `VAULT_…`: `ADDR`, `NAMESPACE`, `CACERT`, `CACERT_BYTES`, `CAPATH`, `CLIENT_CERT` with `CLIENT_KEY`; and the token
    /// from `TOKEN`, from the file that `BAO_TOKEN_PATH` names, or from `~/.vault-token`, which both programs write. What is set on
    /// the builder afterwards wins.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is refused: `SKIP_VERIFY`, since whoever is on the way would get the
    /// data keys, and variables that cannot be used. [`Io`](crate::ErrorKind::Io) if a certificate cannot be read.
    pub fn from_env(key: impl Into<String>) -> Result<VaultBuilder> {
        environment::builder(key.into(), &|name| std::env::var_os(name))
    }

    /// The version of the Transit key that wrapped `slot`, which its text shows; `None` for a slot of another provider,
    /// for a missing recipient, and for what is no text of Transit. It is a stranger's word until the slot was opened.
    ///
    /// ```
    /// use envelock::{EncryptedDataKey, VaultProvider};
    /// let wrapped = "vault:v2:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";
    /// let slot = EncryptedDataKey::new("vault", "transit/orders", wrapped);
    /// assert_eq!(VaultProvider::key_version(&slot), Some(2));
    /// ```
    #[must_use]
    pub fn key_version(slot: &EncryptedDataKey) -> Option<u32> {
        slot::key_version(slot)
    }
}

/// The server, the key and the way to log in; no credential.
impl fmt::Debug for VaultProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultProvider")
            .field("address", &self.0.server.address())
            .field("namespace", &self.0.server.namespace())
            .field("key", &self.0.key_id)
            .field("auth", self.0.tokens.auth())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyProvider for VaultProvider {
    fn recipients(&self) -> Vec<Recipient> {
        vec![Recipient::new(NAME, self.0.key_id.as_bytes())]
    }

    async fn generate_data_key(&self, length: DataKeyLength, context: &KmsContext) -> Result<GeneratedDataKey> {
        let key = DataKey::try_init(length, crypto::random::fill)?;
        let encrypted = self.encrypt_data_key(&key, context).await?;
        Ok(GeneratedDataKey { key, encrypted })
    }

    async fn encrypt_data_key(&self, key: &DataKey, context: &KmsContext) -> Result<Vec<EncryptedDataKey>> {
        self.0.prove_before_encrypting().await?;
        Ok(vec![self.0.slot(self.0.encrypt(key, context).await?)])
    }

    async fn decrypt_data_key(&self, slot: &EncryptedDataKey, context: &KmsContext) -> DataKeyAnswer {
        if !self.0.is_mine(slot) {
            return DataKeyAnswer::NotMine;
        }
        match self.0.open(slot, context).await {
            Ok(key) => DataKeyAnswer::Key(key),
            Err(error) => DataKeyAnswer::Failed(error),
        }
    }

    fn batch_len(&self) -> usize {
        self.0.batch_len()
    }

    async fn decrypt_data_keys(&self, slots: &[(&EncryptedDataKey, &KmsContext)]) -> Vec<DataKeyAnswer> {
        self.0.open_many(slots).await
    }

    async fn encrypt_data_keys(&self, keys: &[(&DataKey, &KmsContext)]) -> Vec<Result<Vec<EncryptedDataKey>>> {
        self.0.encrypt_many(keys).await
    }

    fn revocations(&self) -> Option<Revocations> {
        Some(self.0.news.revocations())
    }

    fn identity(&self) -> Option<ProviderIdentity> {
        self.0.identity.clone()
    }
}

impl Inner {
    fn is_mine(&self, slot: &EncryptedDataKey) -> bool {
        slot.provider() == NAME && slot.key_id() == self.key_id.as_bytes()
    }

    fn slot(&self, text: String) -> EncryptedDataKey {
        EncryptedDataKey::new(NAME, self.key_id.as_bytes(), text)
    }

    async fn open(self: &Arc<Self>, slot: &EncryptedDataKey, context: &KmsContext) -> Result<DataKey> {
        let Some(ciphertext) = Ciphertext::parse(slot.wrapped()) else {
            return Err(self.server.asked(Purpose::Decrypt(None), &self.key_id).not_opened());
        };
        let key = self.decrypt(ciphertext, context).await?;
        self.prove_after_decrypting(ciphertext, context).await?;
        Ok(key)
    }

    async fn encrypt(&self, key: &DataKey, context: &KmsContext) -> Result<String> {
        let mut fields = vec![("plaintext", Field::Base64(key.expose()))];
        self.bind(&mut fields, context, context.encoded());
        let call = self.encryption(Body::object(&fields)?);
        self.news.noted(self.server.call(&call.reading(&answer::encrypted)).await)
    }

    async fn decrypt(&self, ciphertext: Ciphertext<'_>, context: &KmsContext) -> Result<DataKey> {
        let mut fields = vec![("ciphertext", Field::Text(ciphertext.text))];
        self.bind(&mut fields, context, context.encoded());
        let call = self.decryption(Body::object(&fields)?, Some(ciphertext.version));
        self.news.noted(self.server.call(&call.reading(&answer::decrypted)).await)
    }

    /// What the server is told to bind. Derivation takes the context a second time, so that each context has a key of
    /// its own.
    fn bind<'a>(&self, fields: &mut Vec<(&'static str, Field<'a>)>, context: &'a KmsContext, associated: &'a [u8]) {
        fields.push(("associated_data", Field::Base64(associated)));
        if self.derivation == Derivation::ByContext {
            fields.push(("context", Field::Base64(context.encoded())));
        }
    }

    fn encryption(&self, body: Body) -> Call<'_> {
        self.transit("transit/encrypt", "encrypt", Purpose::Encrypt, body)
    }

    fn decryption(&self, body: Body, version: Option<u32>) -> Call<'_> {
        self.transit("transit/decrypt", "decrypt", Purpose::Decrypt(version), body).hedged()
    }

    fn transit(&self, operation: &'static str, verb: &str, purpose: Purpose, body: Body) -> Call<'_> {
        Call::new(&self.server, operation, Method::POST, format!("{}/{verb}/{}", self.mount, self.key))
            .about(purpose, self.key_id.clone())
            .sending(body)
            .with_tokens(&self.tokens)
    }
}
