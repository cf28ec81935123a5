//! The operations, on a keystore of their own each.

use super::{Place, block_on, context, new_key};
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind};
use crate::kms::{CreateKeyRequest, KeyManager, KeyState};
use crate::material::DataKeyLength;

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.unwrap_err().code().unwrap()
}

#[test]
fn what_is_encrypted_decrypts_under_the_same_context_only() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let sealed = block_on(kms.encrypt(&key, b"4111 1111", &context())).unwrap();
    assert_eq!(sealed.key_id, format!("envelock:local:{}:key/{key}", kms.keystore_id()));
    let opened = block_on(kms.decrypt(&sealed.ciphertext_blob, &context())).unwrap();
    assert_eq!((opened.plaintext(), &opened.key_id), (&b"4111 1111"[..], &sealed.key_id));
    let other = EncryptionContext::from([("tenant", "other")]);
    let error = block_on(kms.decrypt(&sealed.ciphertext_blob, &other)).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::AuthenticationFailed, Some("InvalidCiphertextException")));
}

#[test]
fn every_bit_flip_and_truncation_of_a_blob_is_refused() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    for bit in 0..8 * blob.len() {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = block_on(kms.decrypt(&flipped, &context())).unwrap_err();
        let in_key_id = (2..38).contains(&(bit / 8));
        match error.kind() {
            ErrorKind::AuthenticationFailed => assert_eq!(error.code(), Some("InvalidCiphertextException")),
            ErrorKind::NoMatchingKey if in_key_id => assert_eq!(error.code(), Some("NotFoundException")),
            // Version 1 that became a later one, which this key does not have.
            ErrorKind::KeyState if (38..42).contains(&(bit / 8)) => assert!(error.to_string().contains("older backup")),
            kind => panic!("bit {bit}: {kind:?}"),
        }
    }
    for len in 0..blob.len() {
        let error = block_on(kms.decrypt(&blob[..len], &context())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "length {len}");
    }
    let error = block_on(kms.decrypt(&vec![1; 100_000], &context())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
}

#[test]
fn a_data_key_has_the_length_asked_for_and_comes_back_from_its_blob() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    for length in [DataKeyLength::Bytes16, DataKeyLength::Bytes24, DataKeyLength::Bytes32] {
        let made = block_on(kms.generate_data_key(&key, length, &context())).unwrap();
        assert_eq!(made.plaintext.expose().len(), length.bytes());
        let opened = block_on(kms.decrypt(&made.ciphertext_blob, &context())).unwrap();
        assert_eq!(opened.plaintext(), made.plaintext.expose());
        let hidden = block_on(kms.generate_data_key_without_plaintext(&key, length, &context())).unwrap();
        let opened = block_on(kms.decrypt(&hidden.ciphertext_blob, &context())).unwrap();
        assert_eq!(opened.plaintext().len(), length.bytes());
    }
}

#[test]
fn after_rotations_the_newest_version_encrypts_and_every_version_decrypts() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let mut blobs = Vec::new();
    for version in 1..=4_u8 {
        blobs.push(block_on(kms.encrypt(&key, &[version], &context())).unwrap().ciphertext_blob);
        assert_eq!(block_on(kms.rotate(&key)).unwrap().current_version, u32::from(version) + 1);
    }
    for (version, blob) in (1_u8..).zip(&blobs) {
        assert_eq!(blob[38..42], u32::from(version).to_be_bytes());
        assert_eq!(block_on(kms.decrypt(blob, &context())).unwrap().plaintext(), [version]);
    }
    let versions = block_on(kms.list_key_versions(&key)).unwrap();
    assert_eq!(versions.iter().map(|it| it.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn re_encryption_moves_a_blob_to_another_key_and_keeps_the_context() {
    let place = Place::new();
    let kms = place.open();
    let (old, new) = (new_key(&kms), new_key(&kms));
    let blob = block_on(kms.encrypt(&old, b"data", &context())).unwrap().ciphertext_blob;
    let moved = block_on(kms.re_encrypt(&blob, &context(), &new)).unwrap();
    assert!(moved.source_key_id.ends_with(&old) && moved.key_id.ends_with(&new));
    let opened = block_on(kms.decrypt_under(&new, &moved.ciphertext_blob, &context())).unwrap();
    assert_eq!(opened.plaintext(), b"data");
    assert_eq!(code(block_on(kms.decrypt_under(&old, &moved.ciphertext_blob, &context()))), "IncorrectKeyException");
    let other = EncryptionContext::new();
    assert_eq!(code(block_on(kms.re_encrypt(&blob, &other, &new))), "InvalidCiphertextException");
}

#[test]
fn the_managed_default_key_is_made_by_its_first_use_and_by_nobody_else() {
    let place = Place::new();
    let kms = place.open();
    assert!(block_on(kms.list_keys()).unwrap().is_empty());
    let one = block_on(kms.encrypt("alias/envelock/default", b"1", &context())).unwrap();
    let two = block_on(kms.encrypt("alias/envelock/default", b"2", &context())).unwrap();
    assert_eq!(one.key_id, two.key_id);
    let keys = block_on(kms.list_keys()).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].key_manager, keys[0].key_state), (KeyManager::Managed, KeyState::Enabled));
    let key = new_key(&kms);
    for alias in ["alias/envelock/mine", "alias/envelock/default"] {
        assert_eq!(code(block_on(kms.create_alias(alias, &key))), "InvalidAliasNameException");
        assert_eq!(code(block_on(kms.update_alias(alias, &key))), "InvalidAliasNameException");
        assert_eq!(code(block_on(kms.delete_alias(alias))), "InvalidAliasNameException");
    }
    assert_eq!(code(block_on(kms.rotate("alias/envelock/default"))), "UnsupportedOperationException");
    assert_eq!(code(block_on(kms.create_alias("alias/mine", &keys[0].key_id))), "UnsupportedOperationException");
    assert_eq!(code(block_on(kms.encrypt("alias/envelock/a/b", b"1", &context()))), "NotFoundException");
}

#[test]
fn aliases_are_made_moved_and_removed() {
    let place = Place::new();
    let kms = place.open();
    let first =
        block_on(kms.create_key(CreateKeyRequest::default().alias("alias/orders").description("orders"))).unwrap();
    assert_eq!(first.description, "orders");
    let second = new_key(&kms);
    assert_eq!(code(block_on(kms.create_alias("alias/orders", &second))), "AlreadyExistsException");
    let taken = CreateKeyRequest::default().alias("alias/orders");
    assert_eq!(code(block_on(kms.create_key(taken))), "AlreadyExistsException");
    assert_eq!(block_on(kms.list_keys()).unwrap().len(), 2, "a refused call leaves nothing");
    block_on(kms.update_alias("alias/orders", &second)).unwrap();
    assert_eq!(block_on(kms.describe_key("alias/orders")).unwrap().key_id, second);
    let aliases = block_on(kms.list_aliases()).unwrap();
    assert_eq!(aliases.len(), 1);
    assert_eq!((&*aliases[0].alias_name, &aliases[0].target_key_id), ("alias/orders", &second));
    let arn = format!("envelock:local:{}:alias/orders", kms.keystore_id());
    assert_eq!(block_on(kms.describe_key(&arn)).unwrap().key_id, second);
    block_on(kms.delete_alias("alias/orders")).unwrap();
    assert_eq!(code(block_on(kms.describe_key("alias/orders"))), "NotFoundException");
    assert_eq!(code(block_on(kms.update_alias("alias/orders", &second))), "NotFoundException");
}

#[test]
fn bad_names_contexts_and_lengths_are_refused_with_awss_codes() {
    let place = Place::new();
    let kms = place.open();
    let key = new_key(&kms);
    let unknown = "11111111-2222-4333-8444-555555555555";
    assert_eq!(code(block_on(kms.describe_key(unknown))), "NotFoundException");
    assert_eq!(code(block_on(kms.describe_key(&key.to_uppercase()))), "ValidationException");
    assert_eq!(code(block_on(kms.describe_key("orders"))), "ValidationException");
    let foreign = format!("envelock:local:{unknown}:key/{key}");
    assert_eq!(code(block_on(kms.describe_key(&foreign))), "NotFoundException");
    for alias in ["orders", "alias/", "alias/a b", "alias/ä", &format!("alias/{}", "a".repeat(251))] {
        assert_eq!(code(block_on(kms.create_alias(alias, &key))), "InvalidAliasNameException", "{alias}");
    }
    assert_eq!(code(block_on(kms.encrypt(&key, &[], &context()))), "ValidationException");
    assert_eq!(code(block_on(kms.encrypt(&key, &[0; 4_097], &context()))), "ValidationException");
    let longest = block_on(kms.encrypt(&key, &[7; 4_096], &context())).unwrap();
    assert_eq!(block_on(kms.decrypt(&longest.ciphertext_blob, &context())).unwrap().plaintext(), [7; 4_096]);
    let reserved = EncryptionContext::from([("envelock-use", "message/1")]);
    assert_eq!(block_on(kms.encrypt(&key, b"x", &reserved)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(block_on(kms.decrypt(&longest.ciphertext_blob, &reserved)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let long = CreateKeyRequest::default().description("d".repeat(8_193));
    assert_eq!(code(block_on(kms.create_key(long))), "ValidationException");
}

#[test]
fn a_dropped_call_disturbs_nobody_and_a_closed_keystore_says_so() {
    let place = Place::new();
    let kms = place.open();
    let clone = kms.clone();
    for _ in 0..50 {
        let mut call = Box::pin(kms.create_key(CreateKeyRequest::default()));
        let _ = call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        drop(call);
    }
    assert_eq!(block_on(kms.list_keys()).unwrap().len(), 50);
    block_on(kms.close()).unwrap();
    assert_eq!(block_on(clone.list_keys()).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(block_on(clone.close()).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(block_on(place.open().list_keys()).unwrap().len(), 50);
}
