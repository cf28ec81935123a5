//! Key material from outside: the public key that it is wrapped with, and the token that its import brings.
//!
//! ```text
//! file  = "EKMS" || 01 || 01 || SubjectPublicKeyInfo (550) || token
//! token = 01 || keystore id (16) || random (16) || valid until (8) || SHA-256 of the SubjectPublicKeyInfo (32)
//!         || byte string of the key id || HMAC (32)
//! HMAC-SHA-256 over "envelock/kms/v1 import token" || 00 || all of the token before it, under the keystore's key
//! for tokens
//! wrapped material = RSA-OAEP with SHA-256 and MGF1-SHA-256, empty label, of the 32 bytes (512)
//! ```
//! As AWS KMS's `GetParametersForImport` and `ImportKeyMaterial` with `RSAES_OAEP_SHA_256` and `RSA_4096`: what
//! wraps material for it, wraps it for this. The key pair is for one key's import only, and is thrown away when the
//! token has expired.

use super::fingerprint::Sha256Fingerprint;
use super::frame::{self, Fields, FileKind, malformed};
use crate::codec::put_byte_string;
use crate::crypto;
use crate::crypto::rsa::{RSA_LEN, RsaPrivateKey, RsaPublicKey, SPKI_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::is_key_id;
use crate::secret::Secret;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// What an import of key material begins with: AWS's answer to `GetParametersForImport`.
///
/// It is no secret, but whoever exchanges it on its way learns the material that is wrapped for it. So its
/// [`fingerprint`](Self::fingerprint) is compared by another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportParameters {
    public_key: RsaPublicKey,
    token: Vec<u8>,
    key_id: String,
    valid_until: i64,
}

impl ImportParameters {
    /// How long they are valid: 24 hours.
    pub(crate) const VALID_MILLIS: i64 = 24 * 60 * 60 * 1_000;

    /// Parameters for importing into a key, valid for 24 hours from `now`, in milliseconds since 1970.
    pub(crate) fn issue(place: TokenPlace<'_>, public_key: RsaPublicKey, now: i64) -> Result<Self> {
        let mut random = [0; 16];
        crypto::random::fill(&mut random)?;
        Self::issue_with(place, public_key, now, random)
    }

    /// [`issue`](Self::issue), with what is drawn given: for it, and for known answers.
    pub(crate) fn issue_with(
        place: TokenPlace<'_>,
        public_key: RsaPublicKey,
        now: i64,
        random: [u8; 16],
    ) -> Result<Self> {
        let valid_until = now.saturating_add(Self::VALID_MILLIS);
        let mut token = vec![TOKEN_FORMAT];
        token.extend_from_slice(place.keystore_id);
        token.extend_from_slice(&random);
        token.extend_from_slice(&valid_until.to_be_bytes());
        token.extend_from_slice(&public_key.fingerprint());
        put_byte_string(&mut token, place.key_id.as_bytes())?;
        let tag = crypto::hmac_sha256(place.token_key.expose(), &[TOKEN_LABEL, &token]);
        token.extend_from_slice(&tag);
        Ok(Self { public_key, token, key_id: place.key_id.to_owned(), valid_until })
    }

    /// Parameters out of a file.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed), [`Truncated`](crate::ErrorKind::Truncated),
    /// [`TrailingData`](crate::ErrorKind::TrailingData) or [`Unsupported`](crate::ErrorKind::Unsupported) for what is
    /// none, [`InvalidInput`](crate::ErrorKind::InvalidInput) for a file of another kind.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let mut fields = frame::read(FileKind::ImportParameters, file)?;
        let public_key = RsaPublicKey::parse(fields.take(SPKI_LEN)?)?;
        let token = file.get(fields.before().len()..).unwrap_or_default();
        let claims = Claims::parse(token)?;
        if claims.fingerprint != public_key.fingerprint() {
            return Err(malformed("this file's token is not of its public key"));
        }
        let (key_id, valid_until) = (claims.key_id.to_owned(), claims.valid_until);
        Ok(Self { public_key, token: token.to_vec(), key_id, valid_until })
    }

    /// The parameters as a file.
    #[must_use]
    pub fn to_file(&self) -> Vec<u8> {
        [&frame::begin(FileKind::ImportParameters), self.public_key.spki().as_slice(), &self.token].concat()
    }

    /// The public key that wraps the material: SubjectPublicKeyInfo (RFC 5280) in DER, 550 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.public_key.spki()
    }

    /// What the import is asked to bring along with the material. Its bytes mean something to its keystore only.
    #[must_use]
    pub fn import_token(&self) -> &[u8] {
        &self.token
    }

    /// SHA-256 of [`public_key`](Self::public_key), to be compared with what the keystore's owner reads out.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256Fingerprint {
        Sha256Fingerprint::from_bytes(self.public_key.fingerprint())
    }

    /// The id of the key that the material is for. Unverified: only the keystore can tell.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// When the token ends: 24 hours after it was made.
    #[must_use]
    pub fn valid_to(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.valid_until).unwrap_or(0))
    }
}

/// Wraps key material for an import, once the public key is known to be the keystore's: 512 bytes.
///
/// Any other tool that does RSA-OAEP with SHA-256 for both hashes makes the same, such as
/// `openssl pkeyutl -encrypt -pubin -inkey public.der -keyform DER -pkeyopt rsa_padding_mode:oaep
/// -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256`.
///
/// ```no_run
/// # fn example(file: &[u8], told: &str, material: &envelock::Secret<32>) -> Result<(), envelock::Error> {
/// use envelock::kms::{ImportParameters, wrap_key_material};
/// let parameters = ImportParameters::parse(file)?;
/// // What the keystore's owner has read out, and not what came with the file.
/// let wrapped = wrap_key_material(material, &parameters, &told.parse()?)?;
/// assert_eq!(wrapped.len(), 512);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`AuthenticationFailed`](crate::ErrorKind::AuthenticationFailed) if the public key does not have the
/// `fingerprint` that came another way; [`RandomFailed`](crate::ErrorKind::RandomFailed).
pub fn wrap_key_material(
    material: &Secret<32>,
    parameters: &ImportParameters,
    fingerprint: &Sha256Fingerprint,
) -> Result<Vec<u8>> {
    parameters.fingerprint().check(fingerprint, "the public key for the import")?;
    parameters.public_key.encrypt(material.expose()).map(|wrapped| wrapped.to_vec())
}

/// Unwraps what was wrapped for an import.
///
/// # Errors
/// InvalidCiphertextException, of kind AuthenticationFailed; IncorrectKeyMaterialException, of kind InvalidInput,
/// for material that has not 32 bytes.
pub(crate) fn unwrap_key_material(wrapped: &[u8], key: &RsaPrivateKey) -> Result<Secret<32>> {
    let wrapped: &[u8; RSA_LEN] = wrapped.try_into().map_err(|_| not_wrapped())?;
    let material = key.decrypt(wrapped).map_err(|_| not_wrapped())?;
    Secret::from_slice(&material).ok_or_else(|| {
        Error::invalid_input(format!("key material has 32 bytes, and this has {}", material.len()))
            .with_code("IncorrectKeyMaterialException")
            .with_advice("wrap the 32 bytes themselves, not a text of them")
    })
}

/// What a token belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenPlace<'a> {
    pub(crate) keystore_id: &'a [u8; 16],
    pub(crate) key_id: &'a str,
    /// The keystore's key for tokens, and for nothing else.
    pub(crate) token_key: &'a Secret<32>,
}

/// What a token that was checked says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Random: which token this is.
    pub(crate) id: [u8; 16],
    /// Of the public key that was given out with it.
    pub(crate) fingerprint: Sha256Fingerprint,
}

/// Checks the token that an import brings, at `now`, in milliseconds since 1970.
///
/// # Errors
/// InvalidImportTokenException, of kind InvalidInput, for one of another key or keystore and for what is none;
/// ExpiredImportTokenException, of kind InvalidInput.
pub(crate) fn check_token(token: &[u8], place: TokenPlace<'_>, now: i64) -> Result<Token> {
    let claims = Claims::parse(token).map_err(|_| invalid_token())?;
    let tag = crypto::hmac_sha256(place.token_key.expose(), &[TOKEN_LABEL, claims.signed]);
    if !bool::from(tag.ct_eq(&claims.tag)) || claims.keystore_id != *place.keystore_id || claims.key_id != place.key_id
    {
        return Err(invalid_token());
    }
    if now >= claims.valid_until {
        return Err(expired_token());
    }
    Ok(Token { id: claims.id, fingerprint: Sha256Fingerprint::from_bytes(claims.fingerprint) })
}

/// Which public key a token claims to have come with, so that its key pair can be found; `None` for what is no token.
pub(crate) fn unverified_fingerprint(token: &[u8]) -> Option<Sha256Fingerprint> {
    Claims::parse(token).ok().map(|claims| Sha256Fingerprint::from_bytes(claims.fingerprint))
}

/// What is wrong with a token whose key pair is not there, at `now`: it was thrown away, as the token has expired or
/// was used, or there never was one.
pub(crate) fn lost_token(token: &[u8], now: i64) -> Error {
    match Claims::parse(token) {
        Ok(claims) if now >= claims.valid_until => expired_token(),
        _ => invalid_token(),
    }
}

/// A token, taken apart and not yet authenticated.
struct Claims<'a> {
    keystore_id: [u8; 16],
    id: [u8; 16],
    valid_until: i64,
    fingerprint: [u8; 32],
    key_id: &'a str,
    signed: &'a [u8],
    tag: [u8; 32],
}

impl<'a> Claims<'a> {
    fn parse(token: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(token);
        let [version] = fields.array()?;
        if version != TOKEN_FORMAT {
            return Err(Error::unsupported(format!("version {version} of import tokens is unknown here"))
                .with_advice("use a newer envelock, or the file is damaged: have it sent again"));
        }
        let (keystore_id, id, valid_until) = (fields.array()?, fields.array()?, fields.time()?);
        let (fingerprint, key_id) = (fields.array()?, fields.text()?);
        if !is_key_id(key_id) {
            return Err(malformed("this import token names no key"));
        }
        let signed = fields.before();
        let tag = fields.array()?;
        fields.end()?;
        Ok(Self { keystore_id, id, valid_until, fingerprint, key_id, signed, tag })
    }
}

fn expired_token() -> Error {
    Error::invalid_input("the import token has expired: it was valid for 24 hours")
        .with_code("ExpiredImportTokenException")
        .with_advice("get new import parameters, wrap the material with their public key, and import again")
}

fn invalid_token() -> Error {
    Error::invalid_input("this import token is not of this key and keystore, or was used")
        .with_code("InvalidImportTokenException")
        .with_advice("give the token that came with the public key, unchanged, or get new import parameters")
}

fn not_wrapped() -> Error {
    Error::new(ErrorKind::AuthenticationFailed, "this key material is not wrapped with the public key of its token")
        .with_code("InvalidCiphertextException")
        .with_advice("wrap it with RSA-OAEP, SHA-256 for both hashes, and the public key that came with the token")
}

const TOKEN_FORMAT: u8 = 1;
const TOKEN_LABEL: &[u8] = b"envelock/kms/v1 import token\0";
