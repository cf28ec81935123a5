//! envelock: client-side envelope encryption.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, rust_2018_idioms, unreachable_pub)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

// -- 0: leaves, which import nothing of ours
pub mod clock;
mod error;
mod secret;

// -- 1: what touches bytes, disks and ciphers
mod crypto;
mod durable;

// -- 4: shells around the formats
mod io;

pub use crypto::AeadAlgorithm;
pub use error::{Error, ErrorKind, Result};
pub use secret::Secret;
