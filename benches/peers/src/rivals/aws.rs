//! The AWS Encryption SDK for Rust, under a raw AES keyring (no KMS is called), with the suite that
//! commits to its key and does not sign: what envelock does.

use crate::common::Clock;
use aws_esdk::client::Client;
use aws_esdk::material_providers::client::Client as MaterialProviders;
use aws_esdk::material_providers::types::keyring::KeyringRef;
use aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId};
use aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use aws_smithy_types::Blob;
use std::collections::HashMap;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

pub struct Aws {
    runtime: Runtime,
    client: Client,
    keyring: KeyringRef,
    frame_len: i64,
}

impl Aws {
    /// Frames of `frame_len` bytes of plaintext.
    ///
    /// # Errors
    /// What the SDK says.
    pub fn start(frame_len: usize) -> Result<Self, String> {
        // With a runtime of one thread it starts a thread for each of its inner calls.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let config = AwsEncryptionSdkConfig::builder().build().expect("defaults");
        let client = Client::from_conf(config).expect("defaults");
        let providers = MaterialProvidersConfig::builder().build().expect("defaults");
        let providers = MaterialProviders::from_conf(providers).expect("defaults");
        let keyring = providers
            .create_raw_aes_keyring()
            .key_name("bench")
            .key_namespace("bench")
            .wrapping_key(vec![7_u8; 32])
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16)
            .send();
        let keyring = runtime.block_on(keyring).map_err(|error| format!("no keyring: {error:?}"))?;
        Ok(Self { runtime, client, keyring, frame_len: frame_len as i64 })
    }

    /// It takes memory of its own only: the copy into it is not counted.
    pub fn blob(bytes: &[u8]) -> Blob {
        Blob::new(bytes)
    }

    /// Returns the message, and the time that it took.
    pub fn encrypt(&self, plain: Blob) -> (Duration, Blob) {
        let start = Clock::Processor.now();
        let call = self
            .client
            .encrypt()
            .plaintext(plain)
            .keyring(self.keyring.clone())
            .algorithm_suite_id(EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey)
            .frame_length(self.frame_len)
            .encryption_context(context())
            .send();
        let sealed = self.runtime.block_on(call).expect("encrypts").ciphertext.expect("a message");
        (Clock::Processor.now() - start, sealed)
    }

    /// Returns the plaintext, and the time that it took.
    pub fn decrypt(&self, sealed: Blob) -> (Duration, Blob) {
        let start = Clock::Processor.now();
        let call =
            self.client.decrypt().ciphertext(sealed).keyring(self.keyring.clone()).encryption_context(context()).send();
        let plain = self.runtime.block_on(call).expect("authentic").plaintext.expect("a plaintext");
        (Clock::Processor.now() - start, plain)
    }
}

fn context() -> HashMap<String, String> {
    HashMap::from([("tenant".to_owned(), "acme".to_owned())])
}
