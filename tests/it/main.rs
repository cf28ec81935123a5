//! The integration tests: one binary, so that the crate is linked once.

#[cfg(feature = "cli")]
mod cli;
mod fuzz_corpora;
mod house;
mod layers;
mod source;
