//! The integration tests: one binary, so that the crate is linked once.

mod fuzz_corpora;
mod house;
#[cfg(feature = "local-kms")]
mod kms_fork;
#[cfg(feature = "local-kms")]
mod kms_helper;
#[cfg(feature = "local-kms")]
mod kms_processes;
mod layers;
mod source;
