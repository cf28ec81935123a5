//! How a [`ReqwestTransport`] is set up: whom it trusts, who it says it is, and by which way it goes.

use super::reqwest::ReqwestTransport;
use crate::error::{Error, Result};
use ::reqwest::{Certificate, Client, Identity, Proxy, redirect};
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

/// Sets up a [`ReqwestTransport`].
///
/// ```
/// use envelock::ReqwestTransport;
/// # fn main() -> Result<(), envelock::Error> {
/// # let pem = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem"));
/// // A private certificate authority, and no proxy whatever the environment says.
/// let transport = ReqwestTransport::builder().only_roots(pem).without_proxy().build()?;
/// # let _ = transport;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct ReqwestTransportBuilder {
    added: Vec<u8>,
    only: Vec<u8>,
    identity: Option<Zeroizing<Vec<u8>>>,
    proxy: Way,
}

#[derive(Default)]
enum Way {
    #[default]
    Environment,
    Direct,
    Proxy(String),
}

impl ReqwestTransportBuilder {
    /// Trusts the certificates in `pem` (one or more, in PEM) beside the operating system's, and those
    /// of earlier calls. Default: the system's alone.
    #[must_use]
    pub fn add_roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        append(&mut self.added, pem.as_ref());
        self
    }

    /// Trusts the certificates in `pem` (one or more, in PEM), those of earlier calls of this method, and no others. Not to be mixed with
    /// [`add_roots`](Self::add_roots).
    #[must_use]
    pub fn only_roots(mut self, pem: impl AsRef<[u8]>) -> Self {
        append(&mut self.only, pem.as_ref());
        self
    }

    /// Shows this certificate to servers that ask for one: its chain and its private key, in PEM, in one text.
    /// Default: none.
    ///
    /// This copy is wiped; what rustls makes of it lives as long as the transport and is not.
    #[must_use]
    pub fn identity(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Zeroizing::new(pem.as_ref().to_vec()));
        self
    }

    /// Goes by no proxy. Default: by those that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    ///
    /// To this machine itself (`localhost`, 127.0.0.0/8, `::1`) and to what gives it credentials on its own link (169.254.0.0/16,
    /// `fe80::/10`, `fd00:ec2::/32`) no proxy is ever used.
    #[must_use]
    pub fn without_proxy(mut self) -> Self {
        self.proxy = Way::Direct;
        self
    }

    /// Goes by the proxy at `address` (`http://[USER:PASSWORD@]HOST:PORT`), whatever the environment says; with the exceptions of
    /// [`without_proxy`](Self::without_proxy).
    #[must_use]
    pub fn proxy(mut self, address: impl Into<String>) -> Self {
        self.proxy = Way::Proxy(address.into());
        self
    }

    /// The transport. It opens no connection.
    ///
    /// # Errors
    /// Kind InvalidInput if a certificate, the private key or the proxy's address is none. Kind Io if the system has no
    /// trusted roots.
    pub fn build(self) -> Result<ReqwestTransport> {
        let (roots, trust) = match (self.added.as_slice(), self.only.as_slice()) {
            ([], []) => (Vec::new(), Trust::System),
            (added, []) => (certificates(added)?, Trust::Added),
            ([], only) => (certificates(only)?, Trust::Only),
            _ => {
                return Err(Error::invalid_input("some roots are to be trusted alone, and others beside the system's")
                    .with_advice("give all of them to only_roots, or all to add_roots"));
            }
        };
        let identity = self.identity.as_deref().map(|pem| Identity::from_pem(pem)).transpose().map_err(|_| {
            Error::invalid_input("the client's certificate is not a certificate and its private key in PEM")
                .with_advice("give both in one text, the certificate first, the key unencrypted")
        })?;
        let proxy = match self.proxy {
            Way::Environment => Proxied::Environment,
            Way::Direct => Proxied::Direct,
            Way::Proxy(address) => Proxied::By(Box::new(Proxy::all(address).map_err(|_| {
                // The address may hold a password.
                Error::invalid_input("the address of the proxy is none")
                    .with_advice("give it as http://HOST:PORT, or with USER:PASSWORD@ before the host")
            })?)),
        };
        ReqwestTransport::set_up(Setup { roots, trust, identity, proxy })
    }
}

impl fmt::Debug for ReqwestTransportBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReqwestTransportBuilder(..)")
    }
}

/// What clients are made from, again and again: `reqwest` takes the time that connecting may take for a whole client.
pub(super) struct Setup {
    roots: Vec<Certificate>,
    trust: Trust,
    identity: Option<Identity>,
    proxy: Proxied,
}

#[derive(Clone, Copy)]
enum Trust {
    System,
    Added,
    Only,
}

enum Proxied {
    Environment,
    Direct,
    By(Box<Proxy>),
}

/// Whether a client may go by a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// As the setup says.
    Configured,
    /// Not: it is for this machine or its own link.
    Direct,
}

impl Setup {
    /// A client that gives up connecting after `connect`.
    ///
    /// # Errors
    /// `reqwest`'s, if there is nothing to trust or the identity does not hold together.
    pub(super) fn client(&self, connect: Duration, route: Route) -> ::reqwest::Result<Client> {
        let mut builder = Client::builder()
            .user_agent(concat!("envelock/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(::reqwest::retry::never())
            .referer(false)
            .http1_only()
            .tls_backend_rustls()
            .connect_timeout(connect);
        builder = match self.trust {
            Trust::System => builder,
            Trust::Added => builder.tls_certs_merge(self.roots.iter().cloned()),
            Trust::Only => builder.tls_certs_only(self.roots.iter().cloned()),
        };
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        builder = match (&self.proxy, route) {
            (Proxied::Environment, Route::Configured) => builder,
            (Proxied::By(proxy), Route::Configured) => builder.proxy(Proxy::clone(proxy)),
            (Proxied::Direct, _) | (_, Route::Direct) => builder.no_proxy(),
        };
        builder.build()
    }
}

/// A line's end follows, so that nothing that was given counts as nothing given.
fn append(all: &mut Vec<u8>, pem: &[u8]) {
    all.extend_from_slice(pem);
    all.push(b'\n');
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>> {
    Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        Error::invalid_input("the trusted roots hold no certificate")
            .with_advice("give one or more certificates in PEM (-----BEGIN CERTIFICATE-----)")
    })
}
