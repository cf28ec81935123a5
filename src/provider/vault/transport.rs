//! The transport that the environment asks for.

use crate::error::Result;
use crate::provider::http::reqwest::ReqwestTransport;
use zeroize::Zeroizing;

/// Whom to trust, who to be, and which way to go, where that is not the default.
#[derive(Default)]
pub(super) struct Trust {
    /// Certificates in PEM, and no others.
    pub(super) roots: Option<Vec<u8>>,
    /// A certificate and its key, in PEM.
    pub(super) identity: Option<Zeroizing<Vec<u8>>>,
    /// A proxy's address, which may hold a password.
    pub(super) proxy: Option<Zeroizing<String>>,
}

impl Trust {
    pub(super) fn is_default(&self) -> bool {
        self.roots.is_none() && self.identity.is_none() && self.proxy.is_none()
    }
}

/// # Errors
/// Kind InvalidInput for certificates, a key or a proxy's address that are none.
pub(super) fn transport(trust: &Trust) -> Result<ReqwestTransport> {
    let mut builder = ReqwestTransport::builder();
    if let Some(roots) = &trust.roots {
        builder = builder.only_roots(roots);
    }
    if let Some(identity) = &trust.identity {
        builder = builder.identity(identity.as_slice());
    }
    if let Some(proxy) = &trust.proxy {
        builder = builder.proxy(proxy.as_str());
    }
    builder.build()
}
