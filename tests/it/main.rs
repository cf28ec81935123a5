//! The integration tests: one binary, so that the crate is linked once. They need the default
//! features but for the backends; `cli`, `test-util` and `tokio` add to them.

#[cfg(feature = "tokio")]
mod async_executors;
#[cfg(feature = "tokio")]
mod async_shells;
mod at_once;
mod big;
mod cases;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "test-util")]
mod conformance;
mod contexts;
mod copies;
mod damage;
mod disk;
mod examples;
mod fork;
mod fuzz_corpora;
mod hostile;
mod house;
mod ivs;
mod kill;
#[cfg(feature = "local-kms")]
mod kms_fork;
#[cfg(feature = "local-kms")]
mod kms_helper;
#[cfg(feature = "local-kms")]
mod kms_processes;
mod layers;
mod memory;
mod ordering;
mod parallel;
mod python;
mod resume_point;
mod rewrap;
mod source;
mod streams;
mod support;
mod unverified;
mod vectors;
