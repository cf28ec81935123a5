//! What a provider can tell of its server, its key and itself: for `envelock check`, and for a program's start.

use super::answer::{KeyAnswer, TokenAnswer};
use super::call::Call;
use super::refusal::{NotAllowed, Purpose};
use super::wire::{Body, Field};
use super::{Derivation, Inner, VaultProvider, answer};
use crate::context::{EncryptionContext, KmsContext};
use crate::error::{ErrorKind, Result};
use crate::material::DataKeyLength;
use crate::provider::{DataKeyAnswer, KeyProvider};
use http::Method;
use std::error::Error as _;
use std::time::Duration;

/// The types of key that bind associated data, and are as strong as the data key.
const TYPES: &[&str] = &["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// A ciphertext in Transit's form, of 32 bytes, that no key wrapped.
const OF_NO_KEY: &str = "vault:v1:qnkyVpeB/R5ffKPqwwVxNJ9z/cBTbHO61aHfBUpqB2vVnUkaNzFqBtSoflavIyRrcpxQDuQrb/UUpsR1";

/// What [`VaultProvider::check`] found. What the token may not look at is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VaultCheck {
    /// Who the server takes the caller for (`approle`, `token-ci`): the display name of the token.
    pub identity: Option<String>,
    /// The policies of the token.
    pub policies: Option<Vec<String>>,
    /// How long the token has, `None` too where it has no end.
    pub token_left: Option<Duration>,
    /// The key, which is of a [type](VaultKey::key_type) that serves.
    pub key: Option<VaultKey>,
}

/// A key of Transit, as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VaultKey {
    /// `aes256-gcm96`, `chacha20-poly1305` or `xchacha20-poly1305`.
    pub key_type: String,
    /// The version that encrypts.
    pub latest_version: u32,
    /// Slots of an older [version](VaultProvider::key_version) do not open.
    pub min_decryption_version: u32,
}

impl VaultProvider {
    /// Tries the provider out: encrypts and decrypts a data key of its own, and looks at the key and at the token where a policy
    /// allows that (`read` on `MOUNT/keys/NAME`; `auth/token/lookup-self` is in the policy `default`). It makes no key, also where
    /// the token may: without `read`, the first call is to decrypt what no key wrapped, which tells whether there is one.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the key is of a type that does not serve: asymmetric ones bind no
    /// associated data, and `aes128-gcm96` is weaker than the data key. [`InvalidInput`](crate::ErrorKind::InvalidInput) if the key
    /// derives and the provider was not told so. [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey) if there is no such key. All that encrypting and decrypting may fail with.
    pub async fn check(&self) -> Result<VaultCheck> {
        let token = allowed(self.0.look_at_token().await)?;
        let key = allowed(self.0.look_at_key().await)?;
        match &key {
            Some(key) => self.0.judge_key(key)?,
            None => self.0.must_have_key().await?,
        }
        let context = KmsContext::new(&EncryptionContext::from([("purpose", "check")]))?;
        let generated = self.generate_data_key(DataKeyLength::Bytes32, &context).await?;
        for slot in &generated.encrypted {
            match self.decrypt_data_key(slot, &context).await {
                DataKeyAnswer::Key(key)
                    if bool::from(subtle::ConstantTimeEq::ct_eq(key.expose(), generated.key.expose())) => {}
                DataKeyAnswer::Failed(error) => return Err(error),
                DataKeyAnswer::Key(_) | DataKeyAnswer::NotMine => {
                    return Err(self.0.server.asked(Purpose::Decrypt(None), &self.0.key_id).not_opened());
                }
            }
        }
        Ok(VaultCheck {
            identity: token.as_ref().map(|token| token.display_name.escape_debug().to_string()),
            policies: token
                .as_ref()
                .map(|token| token.policies.iter().map(|name| name.escape_debug().to_string()).collect()),
            token_left: token.filter(|token| token.ttl > 0).map(|token| Duration::from_secs(token.ttl)),
            key: key.map(|key| VaultKey {
                key_type: key.key_type,
                latest_version: key.latest_version,
                min_decryption_version: key.min_decryption_version,
            }),
        })
    }
}

impl Inner {
    async fn look_at_token(&self) -> Result<TokenAnswer> {
        let path = "auth/token/lookup-self".to_owned();
        let call =
            Call::new(&self.server, "auth/token/lookup-self", Method::GET, path).with_tokens(&self.tokens).hedged();
        self.server.call(&call.reading(&answer::token)).await
    }

    async fn look_at_key(&self) -> Result<KeyAnswer> {
        let path = format!("{}/keys/{}", self.mount, self.key);
        let call = Call::new(&self.server, "transit/keys", Method::GET, path)
            .about(Purpose::Look, self.key_id.clone())
            .with_tokens(&self.tokens)
            .hedged();
        self.server.call(&call.reading(&answer::key)).await
    }

    /// Encrypting under a name that has no key makes one, where the token may `create`; decrypting never does.
    async fn must_have_key(&self) -> Result<()> {
        let context = KmsContext::new(&EncryptionContext::from([("purpose", "check")]))?;
        let mut fields = vec![("ciphertext", Field::Text(OF_NO_KEY))];
        self.bind(&mut fields, &context, context.encoded());
        let mut call = self.decryption(Body::object(&fields)?, None);
        if !self.proof.is_done() {
            call = call.about(Purpose::Prove, self.key_id.clone());
        }
        match self.server.call(&call.reading(&answer::opened)).await {
            Ok(()) => Ok(()),
            Err(error) => match error.kind() {
                ErrorKind::AuthenticationFailed | ErrorKind::KeyState => Ok(()),
                ErrorKind::NoMatchingKey => Err(self.server.asked(Purpose::Look, &self.key_id).no_key()),
                _ => Err(error),
            },
        }
    }

    fn judge_key(&self, key: &KeyAnswer) -> Result<()> {
        let asked = self.server.asked(Purpose::Look, &self.key_id);
        if !TYPES.contains(&key.key_type.as_str()) {
            return Err(asked.wrong_type(&format!("of type {}", key.key_type.escape_debug())));
        }
        if key.derived && self.derivation == Derivation::None {
            return Err(asked.derives());
        }
        Ok(())
    }
}

/// `None` where a policy of a good token does not let it look.
fn allowed<T>(looked: Result<T>) -> Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.source().is_some_and(|source| source.is::<NotAllowed>()) => Ok(None),
        Err(error) => Err(error),
    }
}
