//! Both backends are here: each primitive comes from the faster, as measured.

pub(super) use super::aws_lc::AwsLc as ForAead;
pub(super) use super::rust_crypto::RustCrypto as ForHmac;
pub(super) use super::rust_crypto::RustCrypto as ForHash;
