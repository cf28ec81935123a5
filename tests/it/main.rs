//! The integration tests: one binary, so that the crate is linked once.

mod fuzz_corpora;
mod house;
mod layers;
mod source;
