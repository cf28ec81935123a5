//! Every test of a primitive runs on every backend that is compiled in.

mod aead;
#[cfg(all(feature = "aws-lc-rs", feature = "rust-crypto"))]
mod between;
mod hash;
mod password;
mod rsa;
#[cfg(target_os = "linux")]
mod stack;
mod xaes;

/// Every hash, shortest first.
const SHA2: [Sha2; 3] = [Sha2::Sha256, Sha2::Sha384, Sha2::Sha512];

/// Runs a generic test function on every compiled-in backend.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        #[cfg(feature = "aws-lc-rs")]
        mod on_aws_lc {
            $(#[test] fn $test() { super::$test::<$crate::crypto::aws_lc::AwsLc>(); })*
        }
        #[cfg(feature = "rust-crypto")]
        mod on_rust_crypto {
            $(#[test] fn $test() { super::$test::<$crate::crypto::rust_crypto::RustCrypto>(); })*
        }
    };
}
use crate::crypto::backend::Sha2;
use on_every_backend;
