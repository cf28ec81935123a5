//! The integration tests: one binary, so that the crate is linked once.

#[cfg(feature = "cli")]
mod cli;
#[cfg(all(feature = "blocking", feature = "test-util"))]
mod conformance;
#[cfg(feature = "blocking")]
mod contexts;
#[cfg(feature = "blocking")]
mod damage;
mod fuzz_corpora;
#[cfg(feature = "blocking")]
mod hostile;
mod house;
mod layers;
#[cfg(feature = "blocking")]
mod rewrap;
mod source;
#[cfg(feature = "blocking")]
mod streams;
#[cfg(feature = "blocking")]
mod support;
#[cfg(feature = "blocking")]
mod unverified;
