//! Imported key material, under a clock that the test sets.

use super::{CHEAP, DAY, Hands, Place, block_on, context};
use crate::error::{ErrorKind, Result};
use crate::kms::{
    CreateKeyRequest, DeletionWindow, ImportKeyMaterialAnswer, ImportKeyMaterialRequest, ImportParameters, KeyPolicy,
    KeyState, LocalKms, RotationType, seal_key_material, wrap_key_material,
};
use crate::secret::Secret;
use std::time::{Duration, UNIX_EPOCH};

const NOW: u64 = 20_000 * DAY;
const PASSPHRASE: &[u8] = b"correct horse battery staple";

fn external(kms: &LocalKms) -> String {
    let key = block_on(kms.create_key(CreateKeyRequest::default().external())).unwrap();
    assert_eq!((key.key_state, key.current_version), (KeyState::PendingImport, 0));
    key.key_id
}

fn material(byte: u8) -> Secret<32> {
    Secret::init(|out| out.fill(byte))
}

fn parameters(kms: &LocalKms, key: &str) -> ImportParameters {
    block_on(kms.get_parameters_for_import(key)).unwrap()
}

fn wrapped(byte: u8, parameters: &ImportParameters) -> ImportKeyMaterialRequest {
    let wrapped = wrap_key_material(&material(byte), parameters, &parameters.fingerprint()).unwrap();
    ImportKeyMaterialRequest::wrapped(wrapped, parameters.import_token())
}

/// The other form, which needs no RSA key pair.
fn sealed(byte: u8) -> ImportKeyMaterialRequest {
    let text = seal_key_material(&material(byte), PASSPHRASE, CHEAP).unwrap();
    ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), PASSPHRASE)
}

fn import(kms: &LocalKms, key: &str, request: ImportKeyMaterialRequest) -> Result<ImportKeyMaterialAnswer> {
    block_on(kms.import_key_material(key, request))
}

#[track_caller]
fn code<T: std::fmt::Debug>(answer: Result<T>) -> &'static str {
    answer.unwrap_err().code().unwrap()
}

fn state(kms: &LocalKms, key: &str) -> KeyState {
    block_on(kms.describe_key(key)).unwrap().key_state
}

fn encrypt(kms: &LocalKms, key: &str) -> Vec<u8> {
    block_on(kms.encrypt(key, b"secret", &context())).unwrap().ciphertext_blob
}

fn decrypt(kms: &LocalKms, blob: &[u8]) -> Result<Vec<u8>> {
    block_on(kms.decrypt(blob, &context())).map(|answer| answer.plaintext().to_vec())
}

fn wrapping_keys(place: &Place) -> u32 {
    place.sql().query_row("SELECT count(*) FROM wrapping_keys", [], |row| row.get(0)).unwrap()
}

fn at(millis: u64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

#[test]
fn wrapped_material_comes_in_once_with_its_token_and_the_key_pair_goes() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    assert_eq!(code(block_on(kms.encrypt(&key, b"secret", &context()))), "KMSInvalidStateException");
    let parameters = parameters(&kms, &key);
    assert_eq!((parameters.key_id(), parameters.valid_to()), (key.as_str(), at(NOW + DAY)));
    assert_eq!(ImportParameters::parse(&parameters.to_file()).unwrap(), parameters);
    let answer = import(&kms, &key, wrapped(7, &parameters)).unwrap();
    assert_eq!((answer.version, answer.key_state, answer.waits_for_rotation), (1, KeyState::Enabled, false));
    assert_eq!(decrypt(&kms, &encrypt(&kms, &key)).unwrap(), b"secret");
    assert_eq!(wrapping_keys(&place), 0, "a token is used once, and so is its key pair");
    assert_eq!(code(import(&kms, &key, wrapped(7, &parameters))), "InvalidImportTokenException");
    let codes: Vec<_> =
        place.trail().into_iter().filter(|it| it[0] == "ImportKeyMaterial").map(|it| it[3].clone()).collect();
    assert_eq!(codes, ["", "InvalidImportTokenException"]);
    assert!(place.trail().contains(&["GetParametersForImport", "owner", &key, ""].map(str::to_owned)));
}

#[test]
fn what_is_not_wrapped_for_this_key_and_token_is_refused_and_the_token_stays() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let (key, other) = (external(&kms), external(&kms));
    let (mine, others) = (parameters(&kms, &key), parameters(&kms, &other));
    assert_eq!(code(import(&kms, &key, wrapped(7, &others))), "InvalidImportTokenException");
    let for_other = wrap_key_material(&material(7), &others, &others.fingerprint()).unwrap();
    let crossed = ImportKeyMaterialRequest::wrapped(for_other, mine.import_token());
    assert_eq!(code(import(&kms, &key, crossed)), "InvalidCiphertextException");
    let mut token = mine.import_token().to_vec();
    *token.last_mut().unwrap() ^= 1;
    let good = wrap_key_material(&material(7), &mine, &mine.fingerprint()).unwrap();
    assert_eq!(
        code(import(&kms, &key, ImportKeyMaterialRequest::wrapped(good.clone(), token))),
        "InvalidImportTokenException"
    );
    assert_eq!(
        code(import(&kms, &key, ImportKeyMaterialRequest::wrapped(good, b"no token"))),
        "InvalidImportTokenException"
    );
    let short = ImportKeyMaterialRequest::wrapped(b"short", mine.import_token());
    assert_eq!(code(import(&kms, &key, short)), "InvalidCiphertextException");
    assert_eq!(state(&kms, &key), KeyState::PendingImport);
    import(&kms, &key, wrapped(7, &mine)).unwrap();
    let made_here = block_on(kms.create_key(CreateKeyRequest::default())).unwrap().key_id;
    assert_eq!(code(block_on(kms.get_parameters_for_import(&made_here))), "UnsupportedOperationException");
    assert_eq!(code(import(&kms, &made_here, sealed(7))), "UnsupportedOperationException");
    assert_eq!(code(block_on(kms.delete_imported_key_material(&made_here))), "UnsupportedOperationException");
}

#[test]
fn a_token_ends_after_24_hours_and_not_a_millisecond_early() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let (key, other) = (external(&kms), external(&kms));
    let (early, late) = (parameters(&kms, &key), parameters(&kms, &other));
    hands.set(NOW + DAY - 1);
    import(&kms, &key, wrapped(7, &early)).unwrap();
    hands.set(NOW + DAY);
    assert_eq!(code(import(&kms, &other, wrapped(7, &late))), "ExpiredImportTokenException");
    assert_eq!(wrapping_keys(&place), 0, "an expired key pair is thrown away");
    assert!(place.trail().contains(&["DeleteExpiredWrappingKey", "envelock", &other, ""].map(str::to_owned)));
    // Nor does it come back under a clock that goes back.
    hands.set(NOW);
    assert_eq!(code(import(&kms, &other, wrapped(7, &late))), "InvalidImportTokenException");
}

#[test]
fn a_token_outlives_a_new_root_key_and_another_opening() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    let parameters = parameters(&kms, &key);
    block_on(kms.rekey(crate::kms::RootKey::file(place.root_key()).unwrap())).unwrap();
    drop(kms);
    let kms = place.open_at(&hands);
    import(&kms, &key, wrapped(7, &parameters)).unwrap();
}

#[test]
fn material_expires_to_the_millisecond_and_only_the_same_comes_back() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    for (when, why) in [(NOW, "now"), (NOW - 1, "past"), (NOW + 365 * DAY + 1, "too far")] {
        assert_eq!(code(import(&kms, &key, sealed(7).valid_to(at(when)))), "ValidationException", "{why}");
    }
    import(&kms, &key, sealed(7).valid_to(at(NOW + DAY))).unwrap();
    let blob = encrypt(&kms, &key);
    assert_eq!(block_on(kms.list_key_versions(&key)).unwrap()[0].valid_to, Some(at(NOW + DAY)));
    hands.set(NOW + DAY - 1);
    assert_eq!(decrypt(&kms, &blob).unwrap(), b"secret");
    hands.set(NOW + DAY);
    let error = decrypt(&kms, &blob).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyState, Some("KMSInvalidStateException")));
    assert!(error.to_string().contains("has no key material"), "{error}");
    assert_eq!(state(&kms, &key), KeyState::PendingImport);
    assert!(!block_on(kms.list_key_versions(&key)).unwrap()[0].has_material);
    assert_eq!(code(import(&kms, &key, sealed(8))), "IncorrectKeyMaterialException");
    let answer = import(&kms, &key, sealed(7)).unwrap();
    assert_eq!((answer.version, answer.key_state), (1, KeyState::Enabled));
    assert_eq!(decrypt(&kms, &blob).unwrap(), b"secret");
    // Imported again without an expiry: it has none now.
    hands.set(NOW + 1_000 * DAY);
    assert_eq!(decrypt(&kms, &blob).unwrap(), b"secret");
}

#[test]
fn an_import_of_the_same_moves_the_expiry_of_what_is_here() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    import(&kms, &key, sealed(7).valid_to(at(NOW + DAY))).unwrap();
    let blob = encrypt(&kms, &key);
    import(&kms, &key, sealed(7).valid_to(at(NOW + 3 * DAY))).unwrap();
    hands.set(NOW + 2 * DAY);
    assert_eq!(decrypt(&kms, &blob).unwrap(), b"secret");
    hands.set(NOW + 3 * DAY);
    assert_eq!(code(decrypt(&kms, &blob)), "KMSInvalidStateException");
}

#[test]
fn deleted_material_is_gone_from_the_file_and_comes_back_by_import() {
    let place = Place::new();
    let kms = place.open();
    let key = external(&kms);
    assert_eq!(code(block_on(kms.delete_imported_key_material(&key))), "NotFoundException");
    import(&kms, &key, sealed(7)).unwrap();
    let blob = encrypt(&kms, &key);
    block_on(kms.delete_imported_key_material(&key)).unwrap();
    block_on(kms.delete_imported_key_material(&key)).unwrap();
    assert_eq!(state(&kms, &key), KeyState::PendingImport);
    let kept: u32 = place
        .sql()
        .query_row("SELECT count(*) FROM key_versions WHERE wrapped IS NOT NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 0);
    assert_eq!(code(decrypt(&kms, &blob)), "KMSInvalidStateException");
    assert_eq!(
        code(import(&kms, &key, sealed(8).new_key_material()).and_then(|_| block_on(kms.rotate(&key)))),
        "KMSInvalidStateException"
    );
    import(&kms, &key, sealed(7)).unwrap();
    assert_eq!(decrypt(&kms, &blob).unwrap(), b"secret");
}

#[test]
fn new_material_encrypts_once_the_key_is_rotated_and_old_data_opens() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    import(&kms, &key, sealed(7)).unwrap();
    let first = encrypt(&kms, &key);
    assert_eq!(code(block_on(kms.rotate(&key))), "KMSInvalidStateException");
    assert_eq!(code(import(&kms, &key, sealed(8))), "IncorrectKeyMaterialException", "it does not say that it is new");
    assert_eq!(
        code(import(&kms, &key, sealed(7).new_key_material())),
        "IncorrectKeyMaterialException",
        "it is not new"
    );
    let answer = import(&kms, &key, sealed(8).new_key_material()).unwrap();
    assert_eq!((answer.version, answer.waits_for_rotation, answer.key_state), (2, true, KeyState::Enabled));
    assert_eq!(crate::kms::version_of_blob(&encrypt(&kms, &key)), Some(1), "it encrypts nothing yet");
    assert_eq!(code(import(&kms, &key, sealed(9).new_key_material())), "KMSInvalidStateException");
    hands.set(NOW + DAY);
    assert_eq!(block_on(kms.rotate(&key)).unwrap().current_version, 2);
    let second = encrypt(&kms, &key);
    assert_eq!(crate::kms::version_of_blob(&second), Some(2));
    let rotations = block_on(kms.list_key_rotations(&key)).unwrap();
    assert_eq!((rotations.len(), rotations[0].version, rotations[0].rotation_type), (1, 2, RotationType::OnDemand));
    assert_eq!(rotations[0].rotation_date, at(NOW + DAY));
    for blob in [&first, &second] {
        assert_eq!(decrypt(&kms, blob).unwrap(), b"secret");
    }
    // A key of which any material is missing is not used; each version takes back its own.
    block_on(kms.delete_imported_key_material_of(&key, 1)).unwrap();
    assert_eq!(code(decrypt(&kms, &second)), "KMSInvalidStateException");
    block_on(kms.delete_imported_key_material(&key)).unwrap();
    assert_eq!(import(&kms, &key, sealed(8)).unwrap().key_state, KeyState::PendingImport);
    assert_eq!(import(&kms, &key, sealed(7)).unwrap().version, 1);
    for blob in [&first, &second] {
        assert_eq!(decrypt(&kms, blob).unwrap(), b"secret");
    }
}

#[test]
fn new_material_that_waits_may_expire_or_be_deleted_and_the_key_stays_as_it_is() {
    let place = Place::new();
    let hands = Hands::at(NOW);
    let kms = place.open_at(&hands);
    let key = external(&kms);
    import(&kms, &key, sealed(7)).unwrap();
    import(&kms, &key, sealed(8).new_key_material().valid_to(at(NOW + DAY))).unwrap();
    hands.set(NOW + DAY);
    assert_eq!(state(&kms, &key), KeyState::Enabled);
    assert_eq!(code(block_on(kms.rotate(&key))), "KMSInvalidStateException");
    import(&kms, &key, sealed(9).new_key_material()).unwrap();
    block_on(kms.delete_imported_key_material_of(&key, 2)).unwrap();
    assert_eq!(state(&kms, &key), KeyState::Enabled);
    assert_eq!(code(block_on(kms.rotate(&key))), "KMSInvalidStateException");
    import(&kms, &key, sealed(8).new_key_material()).unwrap();
    assert_eq!(block_on(kms.rotate(&key)).unwrap().current_version, 2);
}

#[test]
fn a_key_that_is_to_be_deleted_takes_no_material_and_after_cancelling_waits_for_it() {
    let place = Place::new();
    let kms = place.open();
    let key = external(&kms);
    import(&kms, &key, sealed(7)).unwrap();
    block_on(kms.schedule_key_deletion(&key, DeletionWindow::default())).unwrap();
    assert_eq!(code(import(&kms, &key, sealed(7))), "KMSInvalidStateException");
    block_on(kms.delete_imported_key_material(&key)).unwrap();
    assert_eq!(block_on(kms.cancel_key_deletion(&key)).unwrap().key_state, KeyState::PendingImport);
    assert_eq!(import(&kms, &key, sealed(7)).unwrap().key_state, KeyState::Enabled);
}

#[test]
fn a_wrong_passphrase_and_a_principal_without_permission_import_nothing() {
    let place = Place::new();
    let kms = place.open();
    let key = external(&kms);
    let text = seal_key_material(&material(7), PASSPHRASE, CHEAP).unwrap();
    let wrong = ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), b"another one altogether");
    assert_eq!(code(import(&kms, &key, wrong)), "InvalidCiphertextException");
    let guest = kms.as_principal("guest").unwrap();
    assert_eq!(code(import(&guest, &key, sealed(7))), "AccessDeniedException");
    assert_eq!(code(block_on(guest.get_parameters_for_import(&key))), "AccessDeniedException");
    assert_eq!(code(block_on(guest.delete_imported_key_material(&key))), "AccessDeniedException");
    assert_eq!(state(&kms, &key), KeyState::PendingImport);
    let policy = r#"{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "owner"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": "guest"}, "Action": "kms:ImportKeyMaterial", "Resource": "*"}]}"#;
    block_on(kms.put_key_policy(&key, &KeyPolicy::parse(policy).unwrap())).unwrap();
    import(&guest, &key, sealed(7)).unwrap();
    let denied = place.trail().iter().filter(|it| it[1] == "guest" && it[3] == "AccessDeniedException").count();
    assert_eq!(denied, 3);
}

#[test]
fn neither_material_nor_tokens_are_printed_or_recorded() {
    let request = format!("{:?}", sealed(7));
    assert!(!request.contains("envelock-material1") && !request.contains("horse"), "{request}");
    let place = Place::new();
    let kms = place.open();
    let key = external(&kms);
    let text = seal_key_material(&material(0xA7), PASSPHRASE, CHEAP).unwrap();
    import(&kms, &key, ImportKeyMaterialRequest::under_passphrase(text.as_str().as_bytes(), PASSPHRASE)).unwrap();
    drop(kms);
    let file = std::fs::read(place.keystore()).unwrap();
    for planted in [&[0xA7; 32][..], PASSPHRASE, text.as_str().as_bytes()] {
        assert!(!file.windows(planted.len()).any(|window| window == planted));
    }
}
