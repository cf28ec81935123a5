//! Stands where `aws.rs` stands in a build without the feature `aws`: it can be asked whether it is there,
//! and is not.

use std::convert::Infallible;
use std::time::Duration;

pub struct Aws(Infallible);

impl Aws {
    /// # Errors
    /// Always: why it is not there.
    pub fn start(_: usize) -> Result<Self, String> {
        Err("built without the feature `aws` (ENVELOCK_PEERS_WITHOUT_AWS=1)".to_owned())
    }

    pub fn blob(_: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    pub fn encrypt(&self, _: Vec<u8>) -> (Duration, Vec<u8>) {
        match self.0 {}
    }

    pub fn decrypt(&self, _: Vec<u8>) -> (Duration, Vec<u8>) {
        match self.0 {}
    }
}
