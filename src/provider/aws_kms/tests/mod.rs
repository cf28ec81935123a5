//! Tests against a transport that plays AWS KMS, credential services included.

mod calls;
mod credentials;
mod errors;
pub(super) mod fake;
mod half;
mod hostile;
mod keys;

use super::AwsKmsProvider;
use super::builder::AwsKmsBuilder;
use super::credentials::AwsCredentials;
use crate::context::{EncryptionContext, KmsContext};
use crate::provider::http::policy::HttpPolicy;
use fake::Fake;
use std::future::Future;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: &str = "arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321";
const FAR: &str = "arn:aws:kms:us-east-1:111122223333:key/5555dcba-09fe-87dc-65ba-ab0987654321";
const MRK: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
const MRK_FAR: &str = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

/// A builder that reaches nothing but the fake, and no environment.
fn on<K: Into<String>>(fake: &Fake, keys: impl IntoIterator<Item = K>) -> AwsKmsBuilder {
    prepared(fake, AwsKmsProvider::strict(keys))
}

fn prepared(fake: &Fake, builder: AwsKmsBuilder) -> AwsKmsBuilder {
    builder
        .environment([("AWS_EC2_METADATA_DISABLED", "true")])
        .credentials(AwsCredentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
        .policy(HttpPolicy::default().attempts(1))
        .transport(fake.shared())
}

fn context() -> KmsContext {
    KmsContext::new(&EncryptionContext::from([("tenant", "acme"), ("object", "a \"quoted\" ключ")])).unwrap()
}

fn wait<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}
