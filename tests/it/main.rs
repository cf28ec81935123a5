//! The integration tests: one binary, so that the crate is linked once.

#[cfg(feature = "blocking")]
mod damage;
mod fuzz_corpora;
mod house;
mod layers;
mod source;
#[cfg(feature = "blocking")]
mod support;
