//! Sets a provider up.

use super::auth::VaultAuth;
use super::call::Server;
use super::news::News;
use super::proof::Proof;
use super::token::{Logins, Tokens};
use super::{Derivation, Inner, VaultProvider};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::provider::ProviderIdentity;
use crate::provider::http::client::Client;
use crate::provider::http::endpoint::Endpoint;
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::reqwest::ReqwestTransport;
use crate::provider::http::transport::HttpTransport;
use std::fmt;
use std::sync::Arc;

/// What errors call an address that the caller gave.
const ADDRESS: &str = "the address of the Vault";
/// Longest name of a key, a mount or a namespace, in bytes.
const NAME_MAX: usize = 255;

/// Sets up a [`VaultProvider`]; [`build`](Self::build) makes no call.
#[derive(Debug)]
pub struct VaultBuilder {
    key: String,
    mount: String,
    address: Option<String>,
    /// Who gave it, for errors.
    address_of: &'static str,
    namespace: Option<String>,
    auth: Option<VaultAuth>,
    policy: HttpPolicy,
    transport: Option<Arc<dyn HttpTransport>>,
    clock: Arc<dyn Clock>,
    derivation: Derivation,
    proof: Proof,
    plain: bool,
}

impl VaultBuilder {
    pub(super) fn new(key: String) -> Self {
        Self {
            key,
            mount: "transit".to_owned(),
            address: None,
            address_of: ADDRESS,
            namespace: None,
            auth: None,
            policy: HttpPolicy::default(),
            transport: None,
            clock: Arc::new(SystemClock),
            derivation: Derivation::None,
            proof: Proof::needed(),
            plain: false,
        }
    }

    /// The server, `https://HOST[:PORT]`; `http:` only for this machine. Required.
    #[must_use]
    pub fn address(self, address: impl Into<String>) -> Self {
        self.address_from(ADDRESS, address.into())
    }

    /// The same, as `name` says.
    pub(super) fn address_from(mut self, name: &'static str, address: String) -> Self {
        (self.address, self.address_of) = (Some(address), name);
        self
    }

    /// Where the Transit engine is mounted. Default: `transit`. It is part of the key id that messages carry.
    #[must_use]
    pub fn mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = mount.into();
        self
    }

    /// The namespace, as its whole path from the root. Default: none. It is no part of the key id that messages carry.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// How to log in. Required.
    #[must_use]
    pub fn auth(mut self, auth: VaultAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Time-outs, retries and limits. Default: [`HttpPolicy::default`].
    #[must_use]
    pub fn policy(mut self, policy: HttpPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// What carries the requests: for roots and a client certificate of one's own, or for a client of one's own.
    /// Default: [`ReqwestTransport::new`].
    #[must_use]
    pub fn transport(mut self, transport: impl HttpTransport + 'static) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// What tells how old tokens are. Default: the operating system's clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The key was made with `derived=true`: Transit derives a key of its own for each encryption context from it. The context
    /// is bound as associated data all the same.
    #[must_use]
    pub fn derived_key(mut self) -> Self {
        self.derivation = Derivation::ByContext;
        self
    }

    /// Takes it on trust that the server binds the encryption context.
    ///
    /// Without this, a provider's first encryption costs three calls more: a random probe is encrypted, must decrypt to itself, and
    /// must not decrypt under another context. A first decryption before that costs one more. That needs `update` on `MOUNT/decrypt/KEY`, which a program that only encrypts may not
    /// have. A Vault older than 1.13 binds nothing: then whoever can swap wrapped keys between messages is not noticed by the server.
    #[must_use]
    pub fn dangerous_without_binding_proof(mut self) -> Self {
        self.proof = Proof::waived();
        self
    }

    /// Lets data keys and tokens travel in the clear, to a server that is not this machine: whoever is on the way reads
    /// them.
    #[must_use]
    pub fn dangerous_plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The provider. It makes no call: whether server, login and key are right shows at its first use, or by
    /// [`check`](VaultProvider::check).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) without an address or a login, for an address that is not encrypted, for
    /// an empty token, role or secret id, and for names that Vault does not take. [`Io`](crate::ErrorKind::Io) if TLS cannot be set up.
    pub fn build(self) -> Result<VaultProvider> {
        let address = self.address.ok_or_else(|| {
            Error::invalid_input("the provider has no address of a Vault")
                .with_advice("give one (`address`; to the program, vault:https://HOST[:PORT]/MOUNT/KEY), or set VAULT_ADDR or BAO_ADDR")
        })?;
        let auth = self.auth.ok_or_else(|| {
            Error::invalid_input("the provider has no way to log in to the Vault")
                .with_advice("give one (`auth`; to the program, `,login=approle,role=ID` and the like), set VAULT_TOKEN or BAO_TOKEN, or run `bao \
                     login`")
        })?;
        auth.check()?;
        let endpoint = Endpoint::named(self.address_of, &address, self.plain)?;
        let mount = path(&self.mount, "mount of the Transit engine")?;
        let namespace = self.namespace.as_deref().map(|name| path(name, "namespace")).transpose()?;
        path(auth.mount_point(), "mount of the auth method")?;
        if !is_name(&self.key) {
            return Err(no_name(&self.key));
        }
        let transport = match self.transport {
            Some(transport) => transport,
            None => Arc::new(ReqwestTransport::new()?),
        };
        let key_id = format!("{mount}/{}", self.key);
        let identity = auth.principal().map(|principal| {
            let space = namespace.as_deref().unwrap_or_default();
            let derived = if self.derivation == Derivation::ByContext { " derived" } else { "" };
            let trusted = if self.proof.is_done() { " unproven" } else { "" };
            ProviderIdentity::new(format!(
                "vault {} namespace={space} {key_id}{derived}{trusted} as {principal}",
                endpoint.as_str()
            ))
        });
        let client = |policy: &HttpPolicy| Client::new(Arc::clone(&transport), policy.clone(), endpoint.clone());
        let logins = Logins {
            server: Server::new(client(&self.policy), namespace.clone()),
            once: Server::new(client(&self.policy.clone().attempts(1)), namespace.clone()),
        };
        Ok(VaultProvider(Arc::new(Inner {
            server: Server::new(client(&self.policy), namespace),
            tokens: Tokens::new(auth, logins, Arc::clone(&self.clock))?,
            mount,
            key: self.key,
            key_id,
            derivation: self.derivation,
            proof: self.proof,
            identity,
            news: News::new(self.clock),
        })))
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof(done: {})", self.is_done())
    }
}

/// A path of names, without slashes at its ends: what may stand in a URL and in a header as it is.
fn path(text: &str, what: &str) -> Result<String> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() || trimmed.len() > NAME_MAX || !trimmed.split('/').all(is_segment) {
        let advice = match text.contains(':') {
            true => {
                "a server is given as https://HOST[:PORT] (http:// for this machine), before the mount in the program's vault:…"
            }
            false => "it has letters, digits, `_`, `-` and `.`, with `/` between its parts, and at most 255 bytes",
        };
        return Err(Error::invalid_input(format!("{:?} is no {what}", shown(text))).with_advice(advice));
    }
    Ok(trimmed.to_owned())
}

fn is_segment(text: &str) -> bool {
    let takes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(takes) && text != "." && text != ".."
}

/// As Vault has it of a key: `\w(([\w-.]+)?\w)?`.
fn is_name(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.len() <= NAME_MAX && is_segment(text) && ends(text.bytes().next()) && ends(text.bytes().last())
}

fn no_name(key: &str) -> Error {
    let error = Error::invalid_input(format!("{:?} is no name of a Transit key", shown(key)));
    match key.trim_matches('/').rsplit_once('/') {
        Some((mount, name)) => error.with_advice(format!(
            "the mount is given by `.mount({:?})`, and {:?} is the name; the program takes both, as vault:MOUNT/NAME",
            shown(mount),
            shown(name)
        )),
        None => error.with_advice(
            "a name has letters, digits, `_`, `-` and `.`, and begins and ends with one of the first three",
        ),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
