//! The keystore's keys as key provider.

use super::{Place, block_on, context, new_key};
use crate::context::KmsContext;
use crate::error::ErrorKind;
use crate::kms::{CreateKeyRequest, LocalProvider};
use crate::material::{DataKeyLength, EncryptedDataKey};
use crate::provider::{DataKeyAnswer, KeyProvider as _, Recipient};

fn kms_context() -> KmsContext {
    KmsContext::new(&context()).unwrap()
}

fn slot_of(provider: &LocalProvider) -> EncryptedDataKey {
    block_on(provider.generate_data_key(DataKeyLength::Bytes32, &kms_context())).unwrap().encrypted.remove(0)
}

fn opens(provider: &LocalProvider, slot: &EncryptedDataKey) -> bool {
    match block_on(provider.decrypt_data_key(slot, &kms_context())) {
        DataKeyAnswer::Key(_) => true,
        DataKeyAnswer::NotMine => false,
        DataKeyAnswer::Failed(error) => panic!("{error}"),
    }
}

#[test]
fn a_data_key_made_for_an_alias_names_the_key_and_comes_back() {
    let place = Place::new();
    let kms = place.open();
    let provider = kms.provider("alias/envelock/default").unwrap();
    let key = block_on(kms.describe_key("alias/envelock/default")).unwrap();
    let made = block_on(provider.generate_data_key(DataKeyLength::Bytes32, &kms_context())).unwrap();
    let slot = &made.encrypted[0];
    assert_eq!((slot.provider(), slot.key_id()), ("local", key.arn.as_bytes()));
    assert_eq!(provider.recipients(), [Recipient::new("local", key.arn.as_bytes())]);
    let DataKeyAnswer::Key(back) = block_on(provider.decrypt_data_key(slot, &kms_context())) else { panic!() };
    assert_eq!(back.expose(), made.key.expose());
    let again = block_on(provider.encrypt_data_key(&made.key, &kms_context())).unwrap();
    let DataKeyAnswer::Key(back) = block_on(provider.decrypt_data_key(&again[0], &kms_context())) else { panic!() };
    assert_eq!(back.expose(), made.key.expose());
}

#[test]
fn a_provider_opens_every_key_that_its_alias_ever_pointed_to_and_no_other() {
    let place = Place::new();
    let kms = place.open();
    let keys: Vec<String> = (0..3).map(|_| new_key(&kms)).collect();
    block_on(kms.create_alias("alias/orders", &keys[0])).unwrap();
    let provider = kms.provider("alias/orders").unwrap();
    let first = slot_of(&provider);
    block_on(kms.update_alias("alias/orders", &keys[1])).unwrap();
    let second = slot_of(&provider);
    assert!(second.key_id_text().ends_with(&keys[1]));
    assert!(provider.key_name().ends_with(&keys[1]));
    let other = slot_of(&kms.provider(&keys[2]).unwrap());
    assert!(opens(&provider, &first) && opens(&provider, &second) && !opens(&provider, &other));
    let by_key = kms.provider(&keys[1]).unwrap();
    assert!(!opens(&by_key, &first) && opens(&by_key, &second));
    let wider = provider.clone().also_opens([&keys[2]]).unwrap();
    assert!(opens(&wider, &first) && opens(&wider, &other));
    block_on(kms.delete_alias("alias/orders")).unwrap();
    block_on(kms.create_alias("alias/orders", &keys[2])).unwrap();
    assert!(opens(&provider, &first) && opens(&provider, &second) && opens(&provider, &other));
    assert_ne!(provider.identity(), wider.identity());
    assert_eq!(provider.identity(), kms.provider("alias/orders").unwrap().identity());
    assert_ne!(provider.identity(), place.open().provider("alias/orders").unwrap().identity());
}

#[test]
fn slots_of_others_are_not_mine_and_changed_ones_fail() {
    let (place, other) = (Place::new(), Place::new());
    let (kms, theirs) = (place.open(), other.open());
    let provider = kms.provider(&new_key(&kms)).unwrap();
    let slot = slot_of(&provider);
    let foreign = slot_of(&theirs.provider("alias/envelock/default").unwrap());
    assert!(!opens(&provider, &foreign));
    for (name, key_id) in [("raw", slot.key_id()), ("local", b"\xFF"), ("local", b""), ("local", &slot.key_id()[1..])] {
        assert!(!opens(&provider, &EncryptedDataKey::new(name, key_id, slot.wrapped())));
    }
    let second = new_key(&kms);
    let swapped = slot_of(&kms.provider(&second).unwrap());
    for wrapped in [&[][..], &slot.wrapped()[1..], swapped.wrapped(), &vec![1; 70_000]] {
        let changed = EncryptedDataKey::new("local", slot.key_id(), wrapped);
        let DataKeyAnswer::Failed(error) = block_on(provider.decrypt_data_key(&changed, &kms_context())) else {
            panic!()
        };
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
    }
    let empty = block_on(kms.encrypt(&second, b"not a data key", &context())).unwrap();
    let no_key = EncryptedDataKey::new("local", empty.key_id, empty.ciphertext_blob);
    let provider = kms.provider(&second).unwrap();
    let DataKeyAnswer::Failed(error) = block_on(provider.decrypt_data_key(&no_key, &kms_context())) else { panic!() };
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed);
}

#[test]
fn re_encryption_inside_the_kms_moves_a_data_key_to_the_aliass_key() {
    let place = Place::new();
    let kms = place.open();
    let first = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/orders"))).unwrap();
    let provider = kms.provider("alias/orders").unwrap();
    let made = block_on(provider.generate_data_key(DataKeyLength::Bytes32, &kms_context())).unwrap();
    let second = new_key(&kms);
    block_on(kms.update_alias("alias/orders", &second)).unwrap();
    let moved = block_on(provider.re_encrypt_data_key(&made.encrypted[0], &kms_context())).unwrap().unwrap();
    assert!(moved[0].key_id_text().ends_with(&second));
    let DataKeyAnswer::Key(key) = block_on(provider.decrypt_data_key(&moved[0], &kms_context())) else { panic!() };
    assert_eq!(key.expose(), made.key.expose());
    let stranger = kms.provider(&second).unwrap();
    assert!(made.encrypted[0].key_id_text().ends_with(&first.key_id));
    assert!(block_on(stranger.re_encrypt_data_key(&made.encrypted[0], &kms_context())).unwrap().is_none());
}

#[test]
fn an_unknown_key_is_found_when_the_provider_is_made() {
    let place = Place::new();
    let kms = place.open();
    assert_eq!(kms.provider("alias/none").unwrap_err().code(), Some("NotFoundException"));
    let provider = kms.provider("alias/envelock/default").unwrap();
    assert_eq!(provider.clone().also_opens(["alias/x"]).unwrap_err().code(), Some("ValidationException"));
    let unknown = "11111111-2222-4333-8444-555555555555";
    assert_eq!(provider.also_opens([unknown]).unwrap_err().code(), Some("NotFoundException"));
}
