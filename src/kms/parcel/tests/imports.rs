//! Import parameters and their token, material wrapped and under a passphrase, and material known again.

use super::{PKCS8, SPKI, material, private_key, public_key};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::cipher::{Place, unwrap, unwrap_bytes, wrap, wrap_bytes};
use crate::kms::parcel::fingerprint::Sha256Fingerprint;
use crate::kms::parcel::import::{TokenPlace, check_token, unwrap_key_material};
use crate::kms::parcel::key_pair::KeyPair;
use crate::kms::parcel::material_text::{open_key_material, open_with, seal_key_material, seal_with};
use crate::kms::parcel::same::SameMaterial;
use crate::kms::parcel::{ImportParameters, describe_file, wrap_key_material};
use crate::provider::passphrase::PassphraseCost;
use crate::secret::Secret;
use std::cell::Cell;
use std::time::Duration;

const KEYSTORE: [u8; 16] = [0x22; 16];
const KEY_ID: &str = "01234567-89ab-4cde-8f01-23456789abcd";
const NOW: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;
const SMALLEST: PassphraseCost = PassphraseCost { memory_kib: 19 * 1_024, passes: 2, lanes: 1 };

fn place(token_key: &Secret<32>) -> TokenPlace<'_> {
    TokenPlace { keystore_id: &KEYSTORE, key_id: KEY_ID, token_key }
}

fn parameters(token_key: &Secret<32>) -> ImportParameters {
    ImportParameters::issue(place(token_key), public_key(), NOW).unwrap()
}

#[test]
fn parameters_come_back_and_every_damage_is_refused_here_or_at_the_import() {
    let token_key = material(9);
    let made = parameters(&token_key);
    assert_eq!((made.public_key(), made.key_id()), (SPKI, KEY_ID));
    assert_eq!(made.fingerprint(), Sha256Fingerprint::of(SPKI));
    let valid_to = made.valid_to().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(valid_to, Duration::from_millis(u64::try_from(NOW + DAY).unwrap()));
    assert_ne!(made.import_token(), parameters(&token_key).import_token(), "each has a random part");
    let file = made.to_file();
    assert_eq!(ImportParameters::parse(&file).unwrap(), made);
    assert_eq!(describe_file(&file).unwrap().public_key, Some(made.fingerprint()));
    for len in 0..file.len() {
        assert_eq!(ImportParameters::parse(&file[..len]).unwrap_err().kind(), ErrorKind::Truncated, "{len}");
    }
    let more = [&file[..], b"\0"].concat();
    assert_eq!(ImportParameters::parse(&more).unwrap_err().kind(), ErrorKind::TrailingData);
    for bit in 0..8 * file.len() {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = ImportParameters::parse(&flipped) {
            assert_eq!(other.public_key(), SPKI, "bit {bit}: the key is covered by the token");
            check_token(other.import_token(), place(&token_key), NOW).unwrap_err();
        }
    }
}

#[test]
fn a_token_is_good_for_its_key_and_keystore_for_24_hours() {
    let token_key = material(9);
    let made = parameters(&token_key);
    let code = |place: TokenPlace<'_>, now: i64| {
        check_token(made.import_token(), place, now).map_err(|error| (error.kind(), error.code().unwrap()))
    };
    let token = code(place(&token_key), NOW).unwrap();
    assert_eq!(token.fingerprint, made.fingerprint());
    assert_eq!(code(place(&token_key), NOW + DAY - 1).unwrap(), token);
    assert_eq!(code(place(&token_key), NOW - DAY).unwrap(), token, "the clock went backwards");
    let expired = Err((ErrorKind::InvalidInput, "ExpiredImportTokenException"));
    assert_eq!(code(place(&token_key), NOW + DAY), expired);
    let invalid = Err((ErrorKind::InvalidInput, "InvalidImportTokenException"));
    assert_eq!(code(TokenPlace { keystore_id: &[1; 16], ..place(&token_key) }, NOW), invalid);
    let other = TokenPlace { key_id: "11234567-89ab-4cde-8f01-23456789abcd", ..place(&token_key) };
    assert_eq!(code(other, NOW), invalid);
    assert_eq!(code(place(&material(8)), NOW + DAY), invalid, "forged before expired");
    for bit in 0..8 * made.import_token().len() {
        let mut flipped = made.import_token().to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = check_token(&flipped, place(&token_key), NOW).unwrap_err();
        assert_eq!(error.code(), Some("InvalidImportTokenException"), "bit {bit}");
    }
}

#[test]
fn material_is_wrapped_under_the_right_fingerprint_only_and_must_have_32_bytes() {
    let made = parameters(&material(9));
    let wrapped = wrap_key_material(&material(5), &made, &made.fingerprint()).unwrap();
    assert_eq!(unwrap_key_material(&wrapped, &private_key()).unwrap(), material(5));
    let error = wrap_key_material(&material(5), &made, &Sha256Fingerprint::of(b"other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    let code = |wrapped: &[u8]| unwrap_key_material(wrapped, &private_key()).unwrap_err().code().unwrap();
    for len in [0, 1, 511] {
        assert_eq!(code(&wrapped[..len]), "InvalidCiphertextException");
    }
    for at in 0..wrapped.len() {
        let mut flipped = wrapped.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_eq!(code(&flipped), "InvalidCiphertextException", "byte {at}");
    }
    for len in [0, 31, 33, 64] {
        assert_eq!(code(&public_key().encrypt(&vec![1; len]).unwrap()), "IncorrectKeyMaterialException");
    }
}

/// In place of Argon2id, so that a thousand flips take no minute.
fn quick(salt: &[u8], cost: PassphraseCost) -> Result<Secret<48>> {
    let cost = format!("{cost:?}");
    Ok(Secret::init(|out| *out = crate::crypto::sha384(&[b"passphrase", salt, cost.as_bytes()])))
}

#[test]
fn a_text_of_material_opens_under_its_passphrase() {
    let text = seal_key_material(&material(5), b"correct horse", SMALLEST).unwrap();
    for end in ["", "\n", "\r\n"] {
        let line = format!("{}{end}", text.as_str());
        assert_eq!(open_key_material(line.as_bytes(), b"correct horse").unwrap(), material(5));
    }
    let error = open_key_material(text.as_str().as_bytes(), b"correct mule").unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::AuthenticationFailed, Some("InvalidCiphertextException")));
    assert_eq!(open_key_material(text.as_str().as_bytes(), b"").unwrap_err().kind(), ErrorKind::InvalidInput);
    for end in ["\n\n", "\r", " ", "="] {
        let line = format!("{}{end}", text.as_str());
        assert_eq!(open_key_material(line.as_bytes(), b"correct horse").unwrap_err().kind(), ErrorKind::Malformed);
    }
}

#[test]
fn every_truncation_and_every_changed_character_of_a_text_is_refused() {
    let text = seal_with(&material(5), SMALLEST, &[1; 32], &[2; 12], quick).unwrap();
    let text = text.as_str().as_bytes();
    assert_eq!(open_with(text, quick).unwrap(), material(5));
    for len in 0..text.len() {
        assert_eq!(open_with(&text[..len], quick).unwrap_err().kind(), ErrorKind::Malformed, "{len}");
    }
    for bit in 0..8 * text.len() {
        let mut flipped = text.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        open_with(&flipped, quick).unwrap_err();
    }
}

#[test]
fn a_cost_that_is_refused_is_refused_before_anything_runs() {
    let costs = [
        (PassphraseCost { memory_kib: 19 * 1_024 - 1, ..SMALLEST }, ErrorKind::InvalidInput),
        (PassphraseCost { passes: 1, ..SMALLEST }, ErrorKind::InvalidInput),
        (PassphraseCost { lanes: 0, ..SMALLEST }, ErrorKind::InvalidInput),
        (PassphraseCost { memory_kib: (1 << 20) + 1, ..SMALLEST }, ErrorKind::LimitExceeded),
        (PassphraseCost { passes: 11, ..SMALLEST }, ErrorKind::LimitExceeded),
        (PassphraseCost { lanes: 17, ..SMALLEST }, ErrorKind::LimitExceeded),
    ];
    let text = seal_with(&material(5), SMALLEST, &[1; 32], &[2; 12], quick).unwrap();
    for (cost, kind) in costs {
        assert_eq!(seal_key_material(&material(5), b"x", cost).unwrap_err().kind(), kind, "{cost:?}");
        // The same cost in a text that somebody sends.
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let (prefix, encoded) = text.as_str().split_at("envelock-material1.".len());
        let mut bytes = engine.decode(encoded).unwrap();
        bytes[..4].copy_from_slice(&cost.memory_kib.to_be_bytes());
        bytes[4..8].copy_from_slice(&cost.passes.to_be_bytes());
        bytes[8] = cost.lanes;
        let line = format!("{prefix}{}", engine.encode(bytes));
        let ran = Cell::new(0);
        let error = open_with(line.as_bytes(), |salt, cost| {
            ran.set(ran.get() + 1);
            quick(salt, cost)
        });
        assert_eq!((error.unwrap_err().kind(), ran.get()), (kind, 0), "{cost:?}");
    }
}

#[test]
fn material_is_known_again_and_another_is_told_from_it() {
    let mark = SameMaterial::of(&material(5)).unwrap();
    let stored = SameMaterial::from_slice(mark.expose()).unwrap();
    stored.check(&material(5)).unwrap();
    let error = stored.check(&material(6)).unwrap_err();
    assert_eq!(error.code(), Some("IncorrectKeyMaterialException"));
    assert_ne!(SameMaterial::of(&material(5)).unwrap(), mark, "salted");
    assert!(SameMaterial::from_slice(&mark.expose()[..63]).is_none());
    for bit in 0..8 * 64 {
        let mut flipped = *mark.expose();
        flipped[bit / 8] ^= 1 << (bit % 8);
        SameMaterial::from_slice(&flipped).unwrap().check(&material(5)).unwrap_err();
    }
    // Spelled out once.
    let mark = SameMaterial::with_salt(&material(5), &[7; 32]);
    let hash = crate::crypto::sha256(&[b"envelock/kms/v1 same\0", &[7; 32], &[5; 32]]);
    assert_eq!(mark.expose()[32..], hash);
}

#[test]
fn a_private_key_is_kept_wrapped_in_its_place() {
    let root = material(1);
    let place = Place { keystore_id: &KEYSTORE, key_id: "", purpose: "replication", version: 1 };
    let wrapped = wrap_bytes(&root, place, PKCS8).unwrap();
    let unwrapped = unwrap_bytes(&root, place, &wrapped).unwrap();
    assert_eq!(unwrapped.as_slice(), PKCS8);
    assert_eq!(KeyPair::private_key(&unwrapped).unwrap().public_key().unwrap(), public_key());
    let failed = |result: Result<_, Error>| assert_eq!(result.unwrap_err().kind(), ErrorKind::AuthenticationFailed);
    failed(unwrap_bytes(&root, Place { purpose: "import", ..place }, &wrapped).map(drop));
    failed(unwrap_bytes(&material(2), place, &wrapped).map(drop));
    failed(unwrap(&root, place, &wrapped).map(drop));
    for len in [0, 1, 32, 33, 44, 45, 60, wrapped.len() - 1] {
        failed(unwrap_bytes(&root, place, &wrapped[..len]).map(drop));
    }
    // One form for both: what is 32 bytes long may be read either way.
    let wrapped = wrap(&root, place, &material(5)).unwrap();
    assert_eq!(unwrap_bytes(&root, place, &wrapped).unwrap().as_slice(), [5; 32]);
}

#[test]
fn a_fingerprint_is_64_hex_digits_and_nothing_else() {
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let fingerprint: Sha256Fingerprint = text.parse().unwrap();
    assert_eq!((fingerprint, fingerprint.to_string().as_str()), (Sha256Fingerprint::of(b"abc"), text));
    assert_eq!(text.to_uppercase().parse::<Sha256Fingerprint>().unwrap(), fingerprint);
    for bad in
        ["", &text[1..], &format!("{text}0"), &format!(" {text}"), &text.replace('b', "g"), &text.replace("a7", ":")]
    {
        assert_eq!(bad.parse::<Sha256Fingerprint>().unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
    }
}
