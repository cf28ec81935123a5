//! Wrapped material and blobs: bound to their place, and of the layout that docs/kms.md gives.

use crate::context::{EncryptionContext, KmsContext};
use crate::crypto::{self, Aead as _, AeadAlgorithm};
use crate::error::ErrorKind;
use crate::kms::cipher::{Blob, Material, Place, seal_blob, unwrap, wrap};
use crate::secret::Secret;

const KEY_ID: &str = "11111111-2222-4333-8444-555555555555";

fn secret(byte: u8) -> Secret<32> {
    Secret::from_slice(&[byte; 32]).unwrap()
}

#[test]
fn material_unwraps_in_its_place_only() {
    let place = Place { keystore_id: &[9; 16], key_id: KEY_ID, purpose: "material", version: 3 };
    let wrapped = wrap(&secret(1), place, &secret(2)).unwrap();
    assert_eq!(wrapped.len(), 1 + 32 + 12 + 32 + 16);
    assert!(unwrap(&secret(1), place, &wrapped).unwrap() == secret(2));
    let refused = |root: &Secret<32>, place, wrapped: &[u8]| {
        assert_eq!(unwrap(root, place, wrapped).unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    };
    refused(&secret(3), place, &wrapped);
    refused(&secret(1), Place { keystore_id: &[8; 16], ..place }, &wrapped);
    refused(&secret(1), Place { key_id: "other", ..place }, &wrapped);
    refused(&secret(1), Place { purpose: "grant", ..place }, &wrapped);
    refused(&secret(1), Place { version: 4, ..place }, &wrapped);
    for bit in 0..8 * wrapped.len() {
        let mut flipped = wrapped.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&secret(1), place, &flipped);
    }
    (0..wrapped.len()).for_each(|len| refused(&secret(1), place, &wrapped[..len]));
}

#[test]
fn wrapped_material_opens_by_the_documented_steps() {
    let place = Place { keystore_id: &[9; 16], key_id: KEY_ID, purpose: "material", version: 3 };
    let wrapped = wrap(&secret(1), place, &secret(2)).unwrap();
    let mut key = [0; 32];
    crypto::hkdf_expand_sha384(&[1; 32], &[b"envelock/kms/v1 wrap\0", &wrapped[1..33]], &mut key).unwrap();
    let aad = [&wrapped[..33], &[9; 16], &[0, 36], KEY_ID.as_bytes(), &[0, 8], b"material", &[0, 0, 0, 3]].concat();
    let mut material = [0; 32];
    let iv = wrapped[33..45].try_into().unwrap();
    crypto::aead(AeadAlgorithm::Aes256Gcm, &key).open_to(iv, &aad, &wrapped[45..], &mut material).unwrap();
    assert_eq!(material, [2; 32]);
}

#[test]
fn a_blob_opens_by_the_documented_steps() {
    let material = Material { key_id: KEY_ID.to_owned(), version: 7, secret: secret(5) };
    for context in [EncryptionContext::new(), EncryptionContext::from([("a", "b")])] {
        let blob = seal_blob(&material, b"plain", &KmsContext::new(&context).unwrap()).unwrap();
        let encoded: &[u8] = if context.is_empty() { &[0, 0] } else { &[0, 1, 0, 1, b'a', 0, 1, b'b'] };
        assert_eq!(blob[..42], [&[1, 36], KEY_ID.as_bytes(), &[0, 0, 0, 7]].concat());
        let head = &blob[..74];
        let mut key = [0; 32];
        crypto::hkdf_expand_sha384(&[5; 32], &[b"envelock/kms/v1 blob\0", head], &mut key).unwrap();
        let mut plaintext = [0; 5];
        let iv = blob[74..86].try_into().unwrap();
        let aad = [head, encoded].concat();
        crypto::aead(AeadAlgorithm::Aes256Gcm, &key).open_to(iv, &aad, &blob[86..], &mut plaintext).unwrap();
        assert_eq!(&plaintext, b"plain");
        let parsed = Blob::parse(&blob).unwrap();
        assert_eq!((parsed.key_id, parsed.version), (KEY_ID, 7));
    }
}
