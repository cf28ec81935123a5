//! Only RustCrypto is here.

pub(super) use super::rust_crypto::{
    RustCrypto as ForAead, RustCrypto as ForAes, RustCrypto as ForHash, RustCrypto as ForHmac, RustCrypto as ForRsa,
};
