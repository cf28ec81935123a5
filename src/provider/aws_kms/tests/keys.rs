//! Which keys write, which open, and whom calls are made as.

use super::fake::Fake;
use super::{AwsCredentials, AwsKmsProvider, FAR, KEY, MRK, MRK_FAR, OTHER, context, on, prepared, wait};
use crate::error::ErrorKind;
use crate::material::{DataKeyLength, EncryptedDataKey};
use crate::provider::aws_kms::source::AwsRole;
use crate::provider::http::transport::TransportFailure;
use crate::provider::{DataKeyAnswer, KeyProvider, Recipient};

const FOREIGN: &str = "arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn opens(provider: &AwsKmsProvider, slot: &EncryptedDataKey) -> Result<bool, ErrorKind> {
    match wait(provider.decrypt_data_key(slot, &context())) {
        DataKeyAnswer::Key(_) => Ok(true),
        DataKeyAnswer::NotMine => Ok(false),
        DataKeyAnswer::Failed(error) => Err(error.kind()),
    }
}

#[test]
fn the_first_key_makes_data_keys_and_every_key_wraps_them_in_its_region() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY, FAR]).build().unwrap();
    let made = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    let names: Vec<_> = made.encrypted.iter().map(Recipient::from).collect();
    assert_eq!(names, provider.recipients());
    assert_eq!(names, [Recipient::new("aws-kms", KEY), Recipient::new("aws-kms", FAR)]);
    let (near, far) = ("kms.eu-central-1.amazonaws.com", "kms.us-east-1.amazonaws.com");
    assert_eq!(fake.calls(), [format!("GenerateDataKey {near}"), format!("Encrypt {far}")]);
    for (slot, host) in made.encrypted.iter().zip([near, far]) {
        assert_eq!(opens(&provider, slot), Ok(true));
        assert_eq!(fake.calls(), [format!("Decrypt {host}")]);
    }
}

#[test]
fn a_slot_of_another_key_is_not_mine_and_costs_no_call() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).also_opens([MRK]).build().unwrap();
    for (name, key_id) in [
        ("aws-kms", OTHER),
        ("aws-kms", FOREIGN),
        ("aws-kms", "alias/app"),
        ("aws-kms", ""),
        ("local", KEY),
        ("aws-kms", &MRK.replace("111122223333", "444455556666")),
        ("aws-kms", &KEY.to_uppercase()),
    ] {
        assert_eq!(opens(&provider, &EncryptedDataKey::new(name, key_id, vec![1; 60])), Ok(false), "{key_id}");
    }
    assert_eq!(opens(&provider, &EncryptedDataKey::new("aws-kms", vec![0xFF; 60], vec![1])), Ok(false));
    assert_eq!(opens(&provider, &EncryptedDataKey::missing("aws-kms", KEY)), Ok(false));
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn a_multi_region_key_opens_in_the_region_that_the_provider_knows() {
    let fake = Fake::new();
    let far = on(&fake, [MRK_FAR]).build().unwrap();
    let slot = wait(far.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap().encrypted.remove(0);
    fake.calls();
    let near = on(&fake, [MRK]).build().unwrap();
    assert_eq!(opens(&near, &slot), Ok(true));
    assert_eq!(fake.calls(), ["Decrypt kms.eu-central-1.amazonaws.com"]);
    assert_eq!(opens(&on(&fake, [KEY]).build().unwrap(), &slot), Ok(false));
}

#[test]
fn the_same_key_elsewhere_is_asked_where_the_first_is_not_available_and_not_where_it_refuses() {
    let fake = Fake::new();
    let provider = on(&fake, [MRK]).also_opens([MRK_FAR]).build().unwrap();
    let slot = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap().encrypted.remove(0);
    fake.calls();
    fake.fails(TransportFailure::Connect);
    assert_eq!(opens(&provider, &slot), Ok(true));
    assert_eq!(fake.calls(), ["Decrypt kms.eu-central-1.amazonaws.com", "Decrypt kms.us-east-1.amazonaws.com"]);
    fake.answers(400, &[("x-amzn-errortype", "AccessDeniedException")], "{}");
    assert_eq!(opens(&provider, &slot), Err(ErrorKind::KeyDenied));
    assert_eq!(fake.calls(), ["Decrypt kms.eu-central-1.amazonaws.com"]);
}

#[test]
fn a_slot_of_another_key_is_not_mine_however_long_it_is() {
    let fake = Fake::new();
    let provider = on(&fake, [KEY]).build().unwrap();
    let slot = |key: &str| EncryptedDataKey::new("aws-kms", key, vec![1; 6_145]);
    assert_eq!(opens(&provider, &slot(OTHER)), Ok(false));
    assert!(wait(provider.re_encrypt_data_key(&slot(OTHER), &context())).unwrap().is_none());
    assert_eq!(opens(&provider, &slot(KEY)), Err(ErrorKind::AuthenticationFailed));
    let error = wait(provider.re_encrypt_data_key(&slot(KEY), &context())).unwrap_err();
    assert_eq!(error.code(), Some("InvalidCiphertextException"), "{error}");
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn re_encryption_stays_within_a_region() {
    let fake = Fake::new();
    let made = |keys: &[&str]| {
        let provider = on(&fake, keys.iter().copied()).build().unwrap();
        wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap().encrypted.remove(0)
    };
    let far = made(&[FAR]);
    let provider = on(&fake, [KEY]).also_opens([FAR]).build().unwrap();
    assert!(wait(provider.re_encrypt_data_key(&far, &context())).unwrap().is_none());
    assert!(wait(provider.re_encrypt_data_key(&made(&[OTHER]), &context())).unwrap().is_none(), "not its own");
    // A multi-Region key opens in the Region of the new one.
    let replica = made(&[MRK_FAR]);
    let provider = on(&fake, [KEY]).also_opens([MRK]).build().unwrap();
    let moved = wait(provider.re_encrypt_data_key(&replica, &context())).unwrap().unwrap();
    assert_eq!(moved[0].key_id(), KEY.as_bytes());
}

#[test]
fn discovery_opens_keys_of_its_accounts_and_regions_only_and_encrypts_nothing() {
    let fake = Fake::new();
    let find = |accounts: &[&str], regions: &[&str]| {
        let (accounts, regions) = (accounts.iter().copied(), regions.iter().copied());
        prepared(&fake, AwsKmsProvider::dangerous_discovery("aws", accounts, regions)).build()
    };
    let made = |key: &str| {
        let provider = on(&fake, [key]).build().unwrap();
        wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap().encrypted.remove(0)
    };
    let provider = find(&["111122223333"], &["eu-central-1"]).unwrap();
    assert_eq!(opens(&provider, &made(KEY)), Ok(true));
    assert_eq!(opens(&provider, &made(OTHER)), Ok(true));
    assert_eq!(opens(&provider, &made(MRK_FAR)), Ok(true), "opened in a Region that is listed");
    let strange = made(FOREIGN);
    let far = made(FAR);
    let china = EncryptedDataKey::new("aws-kms", KEY.replace("arn:aws:", "arn:aws-cn:"), vec![1]);
    fake.calls();
    for slot in [&strange, &far, &china] {
        assert_eq!(opens(&provider, slot), Ok(false), "{slot:?}");
    }
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert_eq!(provider.recipients(), []);
    let error = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(wait(provider.re_encrypt_data_key(&made(KEY), &context())).unwrap().is_none());
    for (accounts, regions) in [(vec![], vec!["eu-central-1"]), (vec!["111122223333"], vec![]), (vec!["*"], vec!["x"])]
    {
        assert_eq!(find(&accounts, &regions).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn names_are_resolved_once_by_connect_and_refused_by_build() {
    let fake = Fake::new();
    let alias = "arn:aws:kms:eu-central-1:111122223333:alias/app";
    fake.knows_alias(alias, KEY);
    fake.knows_alias("alias/old", OTHER);
    let error = on(&fake, [alias]).build().unwrap_err();
    assert!(error.to_string().contains("`connect`"), "{error}");
    let builder = on(&fake, [alias]).region("eu-central-1").also_opens(["alias/old"]);
    let provider = wait(builder.connect()).unwrap();
    assert_eq!(provider.key_arns().collect::<Vec<_>>(), [KEY]);
    assert_eq!(fake.calls().len(), 2);
    let made = wait(provider.generate_data_key(DataKeyLength::Bytes32, &context())).unwrap();
    assert_eq!(made.encrypted[0].key_id(), KEY.as_bytes());
    let error = wait(on(&fake, ["alias/old"]).connect()).unwrap_err();
    assert!(error.to_string().contains("without a Region"), "{error}");
    let error = wait(on(&fake, ["alias/none"]).region("eu-central-1").connect()).unwrap_err();
    assert_eq!(error.code(), Some("NotFoundException"));
    // What DescribeKey answers is checked too: an alias and its key share account and Region.
    for lie in [FAR, FOREIGN] {
        fake.knows_alias(alias, lie);
        let error = wait(on(&fake, [alias]).connect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
    }
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    fake.knows_alias(id, OTHER);
    let error = wait(on(&fake, [id]).region("eu-central-1").connect()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{error}");
    fake.answers(200, &[], format!("{{\"KeyMetadata\":{{\"Arn\":\"{KEY}\",\"KeySpec\":\"RSA_2048\"}}}}"));
    let error = wait(on(&fake, [id]).region("eu-central-1").connect()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_list_of_keys_that_cannot_work_is_refused() {
    let fake = Fake::new();
    for (keys, why) in [
        (vec![], "no key"),
        (vec![KEY, KEY], "twice"),
        (vec![MRK, MRK_FAR], "two Regions"),
        (vec!["nonsense"], "names no key"),
        (vec!["arn:aws-moon:kms:moon-1:111122223333:key/x"], "partition aws-moon"),
    ] {
        let error = on(&fake, keys).build().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let tokens = vec!["t"; 11];
    assert_eq!(on(&fake, [KEY]).grant_tokens(tokens).build().unwrap_err().code(), Some("InvalidGrantTokenException"));
}

#[test]
fn an_identity_tells_apart_whatever_may_decide_and_holds_no_secret() {
    let fake = Fake::new();
    let identity = |builder: super::AwsKmsBuilder| {
        let identity = builder.build().unwrap().identity().unwrap();
        assert!(!identity.as_str().contains("hush"), "{identity:?}");
        identity
    };
    let with = |id: &str, secret: &str| on(&fake, [KEY]).credentials(AwsCredentials::new(id, secret));
    let found = |vars: &[(&str, &str)]| {
        let builder = AwsKmsProvider::strict([KEY]).transport(fake.shared());
        builder.environment(vars.iter().copied())
    };
    let all = [
        identity(with("AKIDIDENTITY", "hush-1")),
        identity(with("AKIDIDENTITY", "hush-2")),
        identity(with("AKIDIDENTITZ", "hush-1")),
        identity(
            on(&fake, [KEY]).credentials(AwsCredentials::new("AKIDIDENTITY", "hush-1").session_token("hush-token")),
        ),
        identity(with("AKIDIDENTITY", "hush-1").grant_tokens(["hush-grant"])),
        identity(with("AKIDIDENTITY", "hush-1").grant_tokens(["hush-grant-2"])),
        identity(with("AKIDIDENTITY", "hush-1").also_opens([OTHER])),
        identity(with("AKIDIDENTITY", "hush-1").endpoint("https://kms.example")),
        identity(with("AKIDIDENTITY", "hush-1").assume_role(AwsRole::new("arn:aws:iam::1:role/x"))),
        identity(found(&[("AWS_ACCESS_KEY_ID", "AKIDIDENTITY"), ("AWS_SECRET_ACCESS_KEY", "hush-1")])),
        identity(found(&[("AWS_PROFILE", "a")])),
        identity(found(&[("AWS_PROFILE", "b")])),
        identity(found(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/hush")])),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one), "{one:?}");
    }
    assert_eq!(identity(with("AKIDIDENTITY", "hush-1")), all[0]);
    assert_eq!(identity(with("AKIDIDENTITY", "hush-2")), all[1]);
}
