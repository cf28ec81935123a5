//! What is set up by half, or by a name that is none: said, and not passed over.

use super::credentials::{OFF, found, generate, home, signer, text};
use super::fake::Fake;
use super::{AwsKmsProvider, KEY};
use crate::error::ErrorKind;
use crate::provider::http::transport::TransportFailure;

const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// What is set, the half that is there, and the one that is missing.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn half_an_access_key_in_the_environment_ends_the_search_and_says_which_half() {
    let fake = Fake::new();
    let home = home("", "[default]\naws_access_key_id=AKIDSOMEBODYELSE\naws_secret_access_key=s\n");
    let home = ("HOME", text(home.path()));
    let cases: [Case<'_>; 5] = [
        (&[(ID, "AKIDENV")], ID, SECRET),
        (&[(ID, "AKIDENV"), (SECRET, "")], ID, SECRET),
        (&[(SECRET, "hush")], SECRET, ID),
        (&[(SECRET, "hush"), (ID, "")], SECRET, ID),
        (&[(ID, "AKIDENV"), ("AWS_PROFILE", "default")], ID, SECRET),
    ];
    for (set, there, missing) in cases {
        let variables = [set, &[home, OFF]].concat();
        let error = generate(&found(&fake, &variables).build().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&format!("{there} is set, and {missing} is not")), "{error}");
        assert!(!format!("{error:?}").contains("hush"));
    }
    assert_eq!(fake.count(), 0, "nobody was asked");
    // Whoever names a profile in code takes nothing from these variables.
    generate(&found(&fake, &[(ID, "AKIDENV"), home, OFF]).profile("default").build().unwrap()).unwrap();
    assert_eq!(signer(&fake), "AKIDSOMEBODYELSE");
}

#[test]
fn half_an_access_key_in_a_profile_ends_the_search_and_says_which_half() {
    let fake = Fake::new();
    let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
    for (there, missing) in [(id, secret), (secret, id)] {
        // What would be asked after it.
        let more = "credential_process = /nonexistent/program\n";
        let home = home(
            &format!("[profile role]\nrole_arn = arn:aws:iam::111122223333:role/a\nsource_profile = default\n{more}"),
            &format!("[default]\n{there} = hush\n{more}"),
        );
        let home = ("HOME", text(home.path()));
        for named in [None, Some("default"), Some("role")] {
            let profile: Vec<_> = named.map(|name| ("AWS_PROFILE", name)).into_iter().collect();
            let variables = [&profile[..], &[home, OFF]].concat();
            let error = generate(&found(&fake, &variables).build().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            let says = format!("the profile default has {there}, and no {missing}");
            assert!(error.to_string().contains(&says) && !format!("{error:?}").contains("hush"), "{error}");
        }
    }
    assert_eq!(fake.count(), 0, "nobody was asked");
}

#[test]
fn a_web_identity_without_its_role_ends_the_search() {
    let fake = Fake::new();
    let file = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token");
    let error = generate(&found(&fake, &[file, ("HOME", "/nonexistent"), OFF]).build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("AWS_ROLE_ARN is not"), "{error}");
    // The role alone is no half: without a token nobody can be asked for it.
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/a");
    let error = generate(&found(&fake, &[role, ("HOME", "/nonexistent"), OFF]).build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDenied);
    assert_eq!(fake.count(), 0);
}

#[test]
fn a_host_of_awss_without_an_address_is_doubted_by_its_region() {
    let fake = Fake::new();
    let keys = [(ID, "AKIDENV"), (SECRET, "s"), OFF];
    let misspelt = KEY.replace("eu-central-1", "eu-centrl-1");
    let provider = AwsKmsProvider::strict([misspelt])
        .environment(keys)
        .transport(fake.shared())
        .policy(crate::provider::http::policy::HttpPolicy::default().attempts(1));
    fake.fails(TransportFailure::Dns);
    let error = generate(&provider.build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("is eu-centrl-1 a Region?"), "{error}");
    // An address of the user's own says nothing of a Region.
    fake.fails(TransportFailure::Dns);
    let given = found(&fake, &keys).endpoint("https://kms.corp.example").build().unwrap();
    let error = generate(&given).unwrap_err();
    assert!(!error.to_string().contains("a Region?") && error.to_string().contains("resolver"), "{error}");
}

#[test]
fn an_address_that_cannot_be_used_is_named_by_its_variable() {
    let fake = Fake::new();
    let keys = [(ID, "AKIDENV"), (SECRET, "s"), OFF];
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"] {
        let variables = [&keys[..], &[(name, "localhost:4566")]].concat();
        let text = found(&fake, &variables).build().unwrap_err().to_string();
        assert!(text.starts_with(&format!("{name} (localhost:4566) has no https://")), "{text}");
    }
    let text = found(&fake, &keys).endpoint("localhost:4566").build().unwrap_err().to_string();
    assert!(text.starts_with("the address of the KMS (localhost:4566)"), "{text}");
}
