//! Both backends are here: each primitive comes from the faster.
//!
//! Measured on an AMD EPYC with VAES and without AVX-512, one thread, medians of 15 interleaved rounds:
//!
//! | | aws-lc-rs 1.19 | RustCrypto |
//! |---|---|---|
//! | AES-256-GCM, 64 KiB in place / out of place, GB/s | 2.9 / 2.7 | 1.7 / 1.6 |
//! | ChaCha20-Poly1305, 64 KiB in place / out of place, GB/s | 2.1 / 2.2 | 1.1 / 1.1 |
//! | AES-256-GCM, new key / seal 100 B, ns | 253 / 225 | 243 / 342 |
//! | AES-256, two blocks under a prepared key, ns (another processor, with AVX-512) | 24 | 74 |
//! | HKDF-Expand-SHA-384, 32-byte key, 150 B of info, key set-up included, ns | 1,939 | 1,688 |
//! | the same, key prepared, ns | 1,172 | 975 |
//! | HMAC-SHA-256, 32-byte key, 100 B, ns | 744 | 370 |
//! | SHA-256, 64 B / 1 MiB, GB/s | 0.32 / 1.55 | 0.49 / 1.56 |
//!
//! RSA-OAEP of 4096 bits comes from aws-lc-rs: its private numbers lie in memory that is wiped throughout. Measured as
//! tests are built, on one thread: decrypting takes 1.5 ms and 11 ms with RustCrypto, encrypting 0.07 ms and 0.3 ms,
//! making a key 0.2 to 1.3 s (median 0.7 s) with either.

pub(super) use super::aws_lc::{AwsLc as ForAead, AwsLc as ForAes, AwsLc as ForRsa};
pub(super) use super::rust_crypto::{RustCrypto as ForHash, RustCrypto as ForHmac};
