//! How a provider proves to the server who it is.

use super::answer;
use super::call::{Call, Server};
use super::refusal::Purpose;
use super::wire::{Body, Field};
use super::wrapping::Wrapping;
use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::worker;
use http::Method;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Longest credential in a file, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// How a [`VaultProvider`](crate::VaultProvider) logs in: a token, or an auth method that gives one.
///
/// A token is used as it is, and is not renewed: whoever made it does that. With the other methods the provider logs in at its
/// first call, renews the token when about two thirds of its life are over, and logs in anew where it cannot be renewed, so that no
/// call fails for it.
///
/// ```
/// use envelock::VaultAuth;
/// # let (role_id, secret_id) = ("8d1f-role", "5f2c-secret");
/// let auth = VaultAuth::app_role(role_id, secret_id);
/// let elsewhere = VaultAuth::kubernetes("orders").mount("k8s-prod");
/// # let _ = (auth, elsewhere);
/// ```
pub struct VaultAuth {
    how: How,
    mount: Option<String>,
}

pub(super) enum How {
    Token(Zeroizing<String>),
    TokenFile(PathBuf),
    AppRole { role_id: String, secret: SecretId },
    Kubernetes { role: String, jwt: PathBuf },
    Certificate { role: Option<String> },
}

pub(super) enum SecretId {
    Plain(Zeroizing<String>),
    File(PathBuf),
    /// Unwrapped once, at the first login.
    Wrapped(Wrapping),
}

impl VaultAuth {
    /// A token that is there already.
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self::of(How::Token(trimmed(Zeroizing::new(token.into()))))
    }

    /// A token in a file, which is read at the first call, and again when the server refuses the token: whoever keeps
    /// the file up to date, such as an agent, keeps the provider going.
    #[must_use]
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::of(How::TokenFile(path.into()))
    }

    /// AppRole, with the secret id.
    #[must_use]
    pub fn app_role(role_id: impl Into<String>, secret_id: impl Into<String>) -> Self {
        let secret = SecretId::Plain(trimmed(Zeroizing::new(secret_id.into())));
        Self::of(How::AppRole { role_id: role_id.into(), secret })
    }

    /// AppRole, with the secret id in a file, which is read at each login.
    #[must_use]
    pub fn app_role_file(role_id: impl Into<String>, secret_id: impl Into<PathBuf>) -> Self {
        Self::of(How::AppRole { role_id: role_id.into(), secret: SecretId::File(secret_id.into()) })
    }

    /// AppRole, with a response-wrapped secret id: `wrapping_token` gives it once, and is sent once in a call. A first login that
    /// fails because the token was already used is a sign that somebody else has the secret id; the error says so, unless an
    /// earlier request of this program got no answer, which may have used it up.
    #[must_use]
    pub fn app_role_wrapped(role_id: impl Into<String>, wrapping_token: impl Into<String>) -> Self {
        let secret = SecretId::Wrapped(Wrapping::new(trimmed(Zeroizing::new(wrapping_token.into()))));
        Self::of(How::AppRole { role_id: role_id.into(), secret })
    }

    /// Kubernetes, by the service account of this pod.
    #[must_use]
    pub fn kubernetes(role: impl Into<String>) -> Self {
        Self::of(How::Kubernetes { role: role.into(), jwt: SERVICE_ACCOUNT.into() })
    }

    /// Kubernetes, or another auth method that takes a role and a JWT, with the JWT in `file`, which is read at each
    /// login.
    #[must_use]
    pub fn kubernetes_file(role: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self::of(How::Kubernetes { role: role.into(), jwt: file.into() })
    }

    /// The TLS client certificate that the provider's [transport](crate::VaultBuilder::transport) shows. `None` takes
    /// whichever role of the auth method the certificate fits.
    #[must_use]
    pub fn certificate(role: Option<&str>) -> Self {
        Self::of(How::Certificate { role: role.map(str::to_owned) })
    }

    /// Where the auth method is mounted. Default: `approle`, `kubernetes` or `cert`. A token has no use for it.
    #[must_use]
    pub fn mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = Some(mount.into());
        self
    }

    fn of(how: How) -> Self {
        Self { how, mount: None }
    }

    pub(super) fn how(&self) -> &How {
        &self.how
    }

    /// Whether a new token can be had without anybody's help.
    pub(super) fn logs_in(&self) -> bool {
        !matches!(self.how, How::Token(_) | How::TokenFile(_))
    }

    /// The mount of the auth method.
    pub(super) fn mount_point(&self) -> &str {
        let default = match self.how {
            How::Token(_) | How::TokenFile(_) => "token",
            How::AppRole { .. } => "approle",
            How::Kubernetes { .. } => "kubernetes",
            How::Certificate { .. } => "cert",
        };
        self.mount.as_deref().map_or(default, |mount| mount.trim_matches('/'))
    }

    /// # Errors
    /// Kind InvalidInput for what is empty: most often a variable that is not set.
    pub(super) fn check(&self) -> Result<()> {
        let empty = match &self.how {
            How::Token(token) if token.is_empty() => "token",
            How::AppRole { role_id, .. } if role_id.trim().is_empty() => "role id of the AppRole",
            How::AppRole { secret: SecretId::Plain(secret), .. } if secret.is_empty() => "secret id of the AppRole",
            How::AppRole { secret: SecretId::Wrapped(wrapping), .. } if wrapping.is_empty() => {
                "wrapping token of the AppRole's secret id"
            }
            How::Kubernetes { role, .. } if role.trim().is_empty() => "role to log in as",
            _ => return Ok(()),
        };
        Err(Error::invalid_input(format!("the {empty} is empty"))
            .with_advice("see whether the variable or setting that it comes from is set"))
    }

    /// A public name of who logs in, if there is one: equal names are the same role with the same secret id. What a file says
    /// may change under the provider, and a token is nobody's name.
    pub(super) fn principal(&self) -> Option<String> {
        let How::AppRole { role_id, secret: SecretId::Plain(secret) } = &self.how else { return None };
        Some(format!("approle {} {}", self.mount_point(), fingerprint(role_id, secret)?))
    }

    /// Logs in, to the end: a future that is dropped on the way may lose what can be had once. What may be asked for once only is
    /// asked by `once`.
    pub(super) async fn log_in(&self, server: &Server, once: &Server) -> Result<answer::Granted> {
        let body = match &self.how {
            How::Token(_) | How::TokenFile(_) => return Err(Error::internal("a token needs no login")),
            How::AppRole { role_id, secret } => {
                let secret = secret.reveal(once).await?;
                Body::object(&[("role_id", Field::Secret(role_id)), ("secret_id", Field::Secret(&secret))])?
            }
            How::Kubernetes { role, jwt } => {
                let jwt = read(jwt, "the token of the service account").await?;
                Body::object(&[("role", Field::Text(role)), ("jwt", Field::Secret(&jwt))])?
            }
            How::Certificate { role: Some(role) } => Body::object(&[("name", Field::Text(role))])?,
            How::Certificate { role: None } => Body::object(&[])?,
        };
        let path = format!("auth/{}", self.mount_point());
        let call = Call::new(server, "auth/login", Method::POST, format!("{path}/login"))
            .about(Purpose::Login, path)
            .sending(body);
        server.call(&call.reading(&answer::granted)).await
    }
}

/// The method and its mount; no credential.
impl fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.how {
            How::Token(_) => "token",
            How::TokenFile(_) => "token file",
            How::AppRole { .. } => "AppRole",
            How::Kubernetes { .. } => "Kubernetes",
            How::Certificate { .. } => "certificate",
        };
        write!(f, "VaultAuth({name} at {})", self.mount_point())
    }
}

impl SecretId {
    async fn reveal(&self, once: &Server) -> Result<Zeroizing<String>> {
        match self {
            Self::Plain(secret) => Ok(secret.clone()),
            Self::File(path) => read(path, "the secret id").await,
            Self::Wrapped(wrapping) => wrapping.unwrap(once).await,
        }
    }
}

/// What tells two credentials apart in this process, and tells nobody what they are: its key is drawn at the first use.
fn fingerprint(role_id: &str, secret: &str) -> Option<String> {
    static KEY: OnceLock<Zeroizing<[u8; 32]>> = OnceLock::new();
    let key = match KEY.get() {
        Some(key) => key,
        None => {
            let mut drawn = Zeroizing::new([0; 32]);
            crypto::random::fill(&mut *drawn).ok()?;
            KEY.get_or_init(|| drawn)
        }
    };
    let len = u64::try_from(role_id.len()).ok()?.to_be_bytes();
    let hash =
        crypto::sha256_of_secret(&[b"envelock vault role\0", &**key, &len, role_id.as_bytes(), secret.as_bytes()]);
    Some(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// A credential in a file, without the line's end. On a thread of its own: a file system may take its time.
pub(super) async fn read(path: &Path, what: &'static str) -> Result<Zeroizing<String>> {
    let path = path.to_owned();
    worker::run("envelock-credential", move || read_here(&path, what)).await
}

fn read_here(path: &Path, what: &str) -> Result<Zeroizing<String>> {
    let failed = |e| Error::io_at(&format!("{what} cannot be read"), path, e);
    let bad = |why: &str| Error::new(ErrorKind::Io, format!("{what} {why}")).with_path(path);
    let room = usize::try_from(FILE_MAX).map_err(|_| Error::internal("a credential is short"))?;
    let mut text = Zeroizing::new(String::with_capacity(room + 1));
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > room {
        return Err(bad("is longer than 64 KiB").with_advice("name the file that holds it and nothing else"));
    }
    let text = trimmed(text);
    if text.is_empty() {
        return Err(bad("is empty").with_advice("log in, or wait until whoever writes it has done so"));
    }
    Ok(text)
}

/// Without white space around it.
fn trimmed(text: Zeroizing<String>) -> Zeroizing<String> {
    Zeroizing::new(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_credential() {
        let all = [
            VaultAuth::token("s.planted"),
            VaultAuth::app_role("planted", "planted"),
            VaultAuth::app_role_wrapped("planted", "planted").mount("/roles/"),
        ];
        for auth in all {
            assert!(!format!("{auth:?}").contains("planted"), "{auth:?}");
        }
        assert_eq!(format!("{:?}", VaultAuth::app_role("a", "b").mount("/roles/")), "VaultAuth(AppRole at roles)");
    }

    #[test]
    fn only_the_same_role_with_the_same_secret_id_is_the_same_principal() {
        assert_eq!(VaultAuth::token("a").principal(), None);
        assert_eq!(VaultAuth::certificate(Some("a")).principal(), None);
        assert_eq!(VaultAuth::kubernetes("a").principal(), None, "the file may come to name another account");
        assert_eq!(VaultAuth::app_role_file("a", "b").principal(), None);
        assert_eq!(VaultAuth::app_role_wrapped("a", "b").principal(), None);
        let named = |role_id, secret_id| VaultAuth::app_role(role_id, secret_id).principal().unwrap();
        let one = named("role-id", "one");
        assert_eq!(named("role-id", "one"), one);
        assert_ne!(named("role-id", "two"), one, "perhaps a wrong one");
        assert_ne!(named("role-id-2", "one"), one);
        assert_ne!(named("role-ido", "ne"), one);
        assert!(!one.contains("role-id") && !one.contains("one"), "{one}");
    }

    #[test]
    fn a_credential_file_is_read_without_its_line_end_and_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let put = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_here(&path, "the token").map(|text| text.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(put("s.abc\r\n").unwrap(), "s.abc");
        assert!(put(" \n").unwrap_err().contains("the token is empty"));
        assert!(put(&"x".repeat(70_000)).unwrap_err().contains("longer than 64 KiB"));
    }
}
