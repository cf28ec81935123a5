// The README's code is compiled where all that it shows is there; it is shown where its first pages are.
#![cfg_attr(
    all(feature = "local-kms", feature = "blocking", any(not(doctest), all(feature = "aws-kms", feature = "vault"))),
    doc = include_str!("../README.md")
)]
#![cfg_attr(not(all(feature = "local-kms", feature = "blocking")), doc = "Client-side envelope encryption.")]
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, rust_2018_idioms, unreachable_pub)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

// -- 0: leaves, which import nothing of ours
pub mod clock;
mod error;
mod secret;

// -- 1: what touches bytes, disks and ciphers
mod codec;
mod crypto;
mod durable;
mod material;
mod worker;

// -- 2: what a message is bound to, and the pieces it comes in
mod context;
mod segments;

// -- 3: formats and key providers, blind to each other
mod native;
mod provider;

// -- 4: data keys kept for a while, shells around the formats, and the embedded KMS
mod cache;
mod io;
#[cfg(feature = "local-kms")]
pub mod kms;

// -- 5: the front door, where header, keys, segments and I/O meet
mod envelope;

// -- 6: the same without an async runtime, and for thousands of files
#[cfg(feature = "blocking")]
pub mod blocking;
pub mod fleet;

pub use async_trait::async_trait;
pub use cache::limits::CacheLimits;
pub use cache::{CacheCounts, CacheStatistics, DataKeyCache};
pub use context::{ContextMatch, EncryptionContext, KmsContext, StoredContext};
pub use crypto::AeadAlgorithm;
pub use envelope::Envelope;
pub use envelope::builder::EnvelopeBuilder;
pub use envelope::file::{FileOptions, Progress};
pub use envelope::file_source::FileSource;
pub use envelope::head::read_header;
pub use envelope::message::{Decryptor, Encryptor};
pub use envelope::record::{RecordReader, RecordSet, Records, RewrappedRecordSet};
pub use envelope::recover::{DamageMap, RecoverOptions};
pub use envelope::resume::{Restart, ResumeOptions, ResumeStart, Resumed};
pub use envelope::rewrap::{RewrapMode, RewrapOptions, Rewrapped};
pub use error::{Error, ErrorKind, KeystoreCause, Result};
pub use io::parallel::Threads;
pub use io::range::byte_range::ByteRange;
pub use io::range::plan::RangeOptions;
pub use io::range::remote::{AsyncRangeReader, RangeChunks};
pub use io::range::source::{FetchAnswer, Fetched, RangeSource, SourceVersion};
pub use io::range::{RangeRead, RangeReader, ReadAt};
pub use io::read::DecryptReader;
pub use io::recover::{Damage, DamageCause, Holes};
pub use io::write::{EncryptWriter, FinishError};
#[cfg(feature = "local-kms")]
pub use kms::{CreateKeyRequest, KmsOptions, LocalKms, LocalProvider, RootKey};
pub use material::{DataKey, DataKeyLength, EncryptedDataKey};
pub use native::header::{Header, HeaderParse, Limits};
pub use native::place::{AssociatedData, Column};
pub use native::record::{Fingerprint, RecordSetHeader};
pub use native::text::{from_text, to_text};
pub use provider::failover::FailoverProvider;
pub use provider::multi::MultiProvider;
pub use provider::passphrase::{PassphraseCost, PassphraseProvider};
pub use provider::raw::RawKeyProvider;
pub use provider::{
    DataKeyAnswer, GeneratedDataKey, KeyProvider, ProviderIdentity, Recipient, Recipients, Revocations,
};
pub use secret::Secret;
pub use segments::{Extent, Layout, Position, ResumePoint};

#[cfg(feature = "test-util")]
pub use envelope::probe::CacheProbe;
#[cfg(feature = "serde")]
pub use envelope::sealed::{Field, Sealed};
#[cfg(feature = "tokio")]
pub use envelope::tokio::read_header_async;
#[cfg(feature = "http")]
pub use http;
#[cfg(feature = "tokio")]
pub use io::tokio::{
    decrypt_stream::DecryptStream, encrypt_stream::EncryptStream, read::AsyncDecryptReader, write::AsyncEncryptWriter,
};
#[cfg(feature = "aws-kms")]
pub use provider::aws_kms::{AwsKmsProvider, builder::AwsKmsBuilder, credentials::AwsCredentials, source::AwsRole};
#[cfg(feature = "test-util")]
pub use provider::conformance;
#[cfg(all(feature = "http", feature = "metrics"))]
pub use provider::http::meter_metrics::describe_http_metrics;
#[cfg(feature = "http")]
pub use provider::http::policy::HttpPolicy;
#[cfg(all(feature = "http", feature = "test-util"))]
pub use provider::http::probe::HttpProbe;
#[cfg(feature = "http")]
pub use provider::http::reqwest::ReqwestTransport;
#[cfg(feature = "http")]
pub use provider::http::setup::ReqwestTransportBuilder;
#[cfg(feature = "http")]
pub use provider::http::transport::{ExchangeLimits, HttpTransport, TransportError, TransportFailure};
#[cfg(feature = "vault")]
pub use provider::vault::VaultProvider;
#[cfg(feature = "vault")]
pub use provider::vault::auth::VaultAuth;
#[cfg(feature = "vault")]
pub use provider::vault::builder::VaultBuilder;
#[cfg(feature = "vault")]
pub use provider::vault::check::{VaultCheck, VaultKey};
