//! The integration tests: one binary, so that the crate is linked once.

mod cases;
mod examples;
mod house;
mod layers;
mod python;
mod source;
mod vectors;
