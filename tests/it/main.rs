//! The integration tests: one binary, so that the crate is linked once.

mod house;
mod layers;
mod source;
