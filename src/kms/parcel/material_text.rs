//! Key material under a passphrase, as one line: for tools on one machine, where wrapping with a public key would
//! only be ceremony.
//!
//! ```text
//! text  = "envelock-material1." || base64url without padding (head (41) || commitment (32) || IV (12)
//!         || ciphertext (32) || tag (16))
//! head  = memory KiB (4) || passes (4) || lanes (1) || salt (32)
//! key (32) || commitment (32) = HKDF-Expand-SHA-384(Argon2id(passphrase, salt, .., 48 bytes),
//!     "envelock/kms/v1 material" || 00 || head, 64)
//! AES-256-GCM, AAD = head || commitment
//! ```
//! One line, with one LF or CRLF at most after it. The commitment is that of a passphrase slot
//! (docs/format.md): a text opens under one passphrase only. Argon2id: RFC 9106.

use crate::crypto::{self, Aead, AeadAlgorithm, NONCE_LEN, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::key::validation;
use crate::provider::passphrase::PassphraseCost;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

/// Key material under a passphrase: the line `envelock-material1.…`, without a line end.
///
/// It is as secret as the passphrase is strong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMaterialText(String);

impl KeyMaterialText {
    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Seals key material under a passphrase, so that [`LocalKms`](crate::kms::LocalKms) can import it. Takes a fifth of
/// a second and 64 MiB at the default cost, on the caller's thread.
///
/// ```
/// # fn main() -> Result<(), envelock::Error> {
/// use envelock::{PassphraseCost, Secret, kms::seal_key_material};
/// let material = Secret::init(|key| key.fill(7)); // from where the material is kept
/// let cost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };
/// let text = seal_key_material(&material, b"correct horse battery staple", cost)?;
/// assert!(text.as_str().starts_with("envelock-material1."));
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty passphrase, and below OWASP's minimum of 19 MiB and 2
/// passes; [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above 1 GiB, 10 passes or 16 lanes, and where there is
/// not as much memory; [`RandomFailed`](crate::ErrorKind::RandomFailed).
pub fn seal_key_material(material: &Secret<32>, passphrase: &[u8], cost: PassphraseCost) -> Result<KeyMaterialText> {
    let mut salt = [0; SALT_LEN];
    let mut iv = [0; NONCE_LEN];
    crypto::random::fill(&mut salt)?;
    crypto::random::fill(&mut iv)?;
    seal_with(material, cost, &salt, &iv, argon2id(passphrase)?)
}

/// Opens the text of key material. As long as [`seal_key_material`]: not inside a transaction.
///
/// # Errors
/// Kind Malformed for what is no such text; kinds LimitExceeded and InvalidInput for a cost that is refused, before
/// anything runs; InvalidCiphertextException, of kind AuthenticationFailed, for another passphrase or a changed text.
pub(crate) fn open_key_material(text: &[u8], passphrase: &[u8]) -> Result<Secret<32>> {
    open_with(text, argon2id(passphrase)?)
}

/// [`seal_key_material`], with what is drawn and the slow hash given: for it, and for tests.
pub(crate) fn seal_with(
    material: &Secret<32>,
    cost: PassphraseCost,
    salt: &[u8; SALT_LEN],
    iv: &[u8; NONCE_LEN],
    stretch: impl FnOnce(&[u8], PassphraseCost) -> Result<Secret<48>>,
) -> Result<KeyMaterialText> {
    check_cost(cost)?;
    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend_from_slice(&cost.memory_kib.to_be_bytes());
    bytes.extend_from_slice(&cost.passes.to_be_bytes());
    bytes.push(cost.lanes);
    bytes.extend_from_slice(salt);
    let keys = keys(&bytes, &stretch(salt, cost)?)?;
    let (key, commitment) = keys.expose().split_at(32);
    bytes.extend_from_slice(commitment);
    let aad = bytes.clone();
    bytes.extend_from_slice(iv);
    bytes.resize(LEN, 0);
    let sealed = bytes.get_mut(HEAD_LEN + 32 + NONCE_LEN..).unwrap_or_default();
    aead(key)?.seal_to(iv, &aad, material.expose(), sealed)?;
    Ok(KeyMaterialText(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// [`open_key_material`], with the slow hash given: for it, and for tests.
pub(crate) fn open_with(
    text: &[u8],
    stretch: impl FnOnce(&[u8], PassphraseCost) -> Result<Secret<48>>,
) -> Result<Secret<32>> {
    let bad = || {
        Error::new(ErrorKind::Malformed, "this is no key material under a passphrase").with_advice(
            "it is one line, `envelock-material1.` and 178 letters, digits, `-` and `_`: check that all of it is there",
        )
    };
    let line = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let encoded = line.strip_prefix(PREFIX.as_bytes()).filter(|it| it.len() == ENCODED_LEN).ok_or_else(bad)?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad())?;
    let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>().ok_or_else(bad)?;
    let (commitment, rest) = rest.split_first_chunk::<32>().ok_or_else(bad)?;
    let (iv, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(bad)?;
    let [m0, m1, m2, m3, p0, p1, p2, p3, lanes, ref salt @ ..] = *head;
    let (memory_kib, passes) = (u32::from_be_bytes([m0, m1, m2, m3]), u32::from_be_bytes([p0, p1, p2, p3]));
    let cost = PassphraseCost { memory_kib, passes, lanes };
    check_cost(cost)?;
    let keys = keys(head, &stretch(salt, cost)?)?;
    let (key, expected) = keys.expose().split_at(32);
    if !bool::from(expected.ct_eq(commitment.as_slice())) {
        return Err(not_opened());
    }
    let aad = [head.as_slice(), commitment].concat();
    let aead = aead(key)?;
    Secret::try_init(|out| aead.open_to(iv, &aad, sealed, out)).map_err(|_| not_opened())
}

/// Argon2id of `passphrase`, for a salt and a cost that was checked.
fn argon2id(passphrase: &[u8]) -> Result<impl FnOnce(&[u8], PassphraseCost) -> Result<Secret<48>>> {
    if passphrase.is_empty() {
        return Err(validation("the passphrase is empty").with_advice("give the passphrase of the key material"));
    }
    Ok(move |salt: &[u8], cost: PassphraseCost| {
        let PassphraseCost { memory_kib, passes, lanes } = cost;
        Secret::try_init(|out| crypto::password::argon2id(passphrase, salt, memory_kib, passes, u32::from(lanes), out))
    })
}

/// `key || commitment`.
fn keys(head: &[u8], stretched: &Secret<48>) -> Result<Secret<64>> {
    Secret::try_init(|out| crypto::hkdf_expand_sha384(stretched.expose(), &[LABEL, head], out))
}

fn aead(key: &[u8]) -> Result<crypto::AeadKey> {
    let key = key.first_chunk().ok_or_else(|| Error::internal("a key has 32 bytes"))?;
    Ok(crypto::aead(AeadAlgorithm::Aes256Gcm, key))
}

/// Within the caps of a passphrase slot, and not below OWASP's minimum.
fn check_cost(cost: PassphraseCost) -> Result<()> {
    cost.check()?;
    if cost.memory_kib < OWASP_MEMORY_KIB || cost.passes < OWASP_PASSES {
        return Err(Error::invalid_input(format!(
            "a passphrase for key material needs at least {OWASP_MEMORY_KIB} KiB and {OWASP_PASSES} passes of Argon2id"
        ))
        .with_advice("seal the material again, at the default cost"));
    }
    Ok(())
}

fn not_opened() -> Error {
    Error::new(ErrorKind::AuthenticationFailed, "this key material does not open under that passphrase")
        .with_code("InvalidCiphertextException")
        .with_advice("the passphrase is another, or the text was changed")
}

const PREFIX: &str = "envelock-material1.";
const LABEL: &[u8] = b"envelock/kms/v1 material\0";
const SALT_LEN: usize = 32;
const HEAD_LEN: usize = 9 + SALT_LEN;
const LEN: usize = HEAD_LEN + 32 + NONCE_LEN + 32 + TAG_LEN;
const ENCODED_LEN: usize = 178;
/// OWASP Password Storage Cheat Sheet, Argon2id: 19 MiB, 2 passes, 1 lane.
const OWASP_MEMORY_KIB: u32 = 19 * 1_024;
const OWASP_PASSES: u32 = 2;
