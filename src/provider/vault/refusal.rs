//! What it means when the server does not do as it was asked: a kind, a sentence, and whether another try helps.
//!
//! OpenBao and Vault answer 400 to nearly everything, so that the sentence decides, and 403 both to a token that has ended and
//! to one that may not: the first says `permission denied` and no more (newer Vaults: `invalid token`), the second lists it as
//! one of its errors. Sentences are those of OpenBao 2.7, which it has from Vault; no test asks a Vault.

use super::answer::{Said, Unfit};
use crate::error::{Error, ErrorKind};
use crate::provider::http::exchange::Verdict;
use http::StatusCode;
use std::fmt;

/// What was asked, as far as a sentence needs it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) purpose: Purpose,
    /// `transit/orders`, or `auth/approle`.
    pub(super) subject: String,
    pub(super) address: String,
    pub(super) namespace: Option<String>,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Encrypt,
    /// With the version of the key that the slot names; of a batch, none.
    Decrypt(Option<u32>),
    /// Decrypts what must not decrypt.
    Prove,
    /// Reads a key, or what a token is.
    Look,
    /// Gets a token, or prolongs one.
    Login,
}

impl Asked {
    /// What a status that is no success, and what was said with it, come to.
    pub(super) fn refused<T>(&self, status: StatusCode, said: Option<&Said>) -> Verdict<T> {
        let nothing = Said::default();
        let known = said.is_some();
        let said = said.unwrap_or(&nothing);
        match status.as_u16() {
            400 if known => Verdict::Fail(self.bad_request(said)),
            403 if known && self.purpose == Purpose::Login => Verdict::Fail(self.login_refused(said)),
            403 if known && is_policy(said) => Verdict::Fail(self.not_allowed()),
            403 if known => Verdict::Renew(self.token_refused()),
            404 if known => Verdict::Fail(self.not_there(said)),
            405 if known => Verdict::Fail(self.no_transit()),
            413 => Verdict::Fail(
                self.error(ErrorKind::LimitExceeded, "takes no request of this length")
                    .with_advice("raise max_request_size of the server's listener, or that of the proxy before it"),
            ),
            // A replica that has not caught up.
            412 if known => Verdict::Unwell(self.behind()),
            429 => Verdict::Throttled {
                error: self
                    .error(ErrorKind::Unavailable, "has had too many requests")
                    .with_advice("ask less often (the cache of data keys helps), or have the rate limit quota raised"),
                // The client looks at `Retry-After` by itself.
                after: None,
            },
            // It is answered so however often it is asked.
            301 | 302 | 307 | 308 => Verdict::Fail(self.elsewhere()),
            // Health codes of standby nodes, which some load balancers pass on.
            472 | 473 => Verdict::Unwell(self.standby()),
            501 if known => Verdict::Unwell(
                self.error(ErrorKind::Unavailable, "is not initialised").with_advice("run `bao operator init` there"),
            ),
            503 if said.has("sealed") => Verdict::Unwell(self.sealed()),
            // Without the server's words: what an open breaker says goes to all, whoever's request they are about.
            500..=599 => Verdict::Unwell(
                self.error(ErrorKind::Unavailable, &format!("failed with status {status}"))
                    .with_advice("try again; if it persists, the server's own log says why"),
            ),
            _ => Verdict::Unwell(self.stranger(&format!("answered with status {status}"))),
        }
    }

    /// What a success comes to whose body is not the answer.
    pub(super) fn unfit<T>(&self, unfit: &Unfit) -> Verdict<T> {
        match unfit {
            Unfit::Garbage => Verdict::Unwell(self.stranger("answered with what is no answer of Vault or OpenBao")),
            Unfit::Missing(_) if self.purpose == Purpose::Login => {
                Verdict::Fail(self.error(ErrorKind::KeyDenied, "gave no token").with_advice(
                    "the login may ask for a second factor, which a program cannot give: use another auth method",
                ))
            }
            Unfit::Missing(what) => {
                let message = format!("answered without {what}: the mount is perhaps not a Transit engine");
                Verdict::Fail(self.error(ErrorKind::InvalidInput, &message).with_advice(MOUNT_ADVICE))
            }
            Unfit::Ignored => Verdict::Fail(self.binds_nothing()),
            Unfit::BadCiphertext => Verdict::Fail(
                self.error(ErrorKind::Malformed, "answered with a wrapped key that Transit does not write")
                    .with_advice("nothing was encrypted; find out what answers at that address"),
            ),
            Unfit::BadKey => Verdict::Fail(
                self.error(ErrorKind::AuthenticationFailed, "answered with what is no data key of 16, 24 or 32 bytes")
                    .with_advice("the slot was not made by envelock, or something else answers at that address"),
            ),
        }
    }

    /// The server's 400, of a call or of one member of a batch.
    pub(super) fn bad_request(&self, said: &Said) -> Error {
        if self.purpose == Purpose::Login {
            return self.login_refused(said);
        }
        let subject = &self.subject;
        if said.has("too old") {
            return self.too_old();
        }
        if said.has("too new") {
            let message =
                format!("{} {subject}", self.version("has no").unwrap_or_else(|| "has too few versions of".into()));
            return self.error(ErrorKind::KeyState, &message).with_advice(
                "the key was restored or made anew, a replica lags behind, or the slot is of another cluster's key of the \
                 same name",
            );
        }
        if said.has("message authentication failed") {
            return self.not_opened().with_source(NotAuthentic);
        }
        if said.has("invalid ciphertext") || said.has("could not decode") {
            return self.not_opened();
        }
        if said.has("key not found") {
            return self.no_key();
        }
        if said.has("missing 'context'") {
            return self.derives();
        }
        if said.has("non-AEAD") {
            return self.wrong_type("of a type that binds no associated data");
        }
        if said.has("high complexity") {
            return self
                .error(ErrorKind::LimitExceeded, "takes no request of so many parts")
                .with_advice("raise max_request_json_strings of the server's listener to its default, 1000, or more");
        }
        if said.has("replication DR secondary") {
            return self.standby();
        }
        // Without the server's words: they may hold the data key, in whatever form.
        self.error(ErrorKind::InvalidInput, &format!("refused the request for {subject}"))
            .with_advice("the server's log says why; its audit log has the request")
    }

    /// A server that does not open under its context what it has just encrypted under it.
    pub(super) fn opens_not_its_own(&self) -> Error {
        let message = format!(
            "does not decrypt with {} what it has just encrypted, or not for the sake of the associated data",
            self.subject
        );
        self.error(ErrorKind::Unsupported, &message).with_advice(
            "no data key went out; see whether two clusters, or versions older than Vault 1.13, answer at that address",
        )
    }

    /// A wrapping token that was used, perhaps by a request of this program.
    pub(super) fn unwrapping_lost(&self) -> Error {
        self.error(ErrorKind::KeyDenied, "does not know the wrapping token any more").with_advice(
            "an earlier request of this program got no answer and may have used it up, or it has expired: give the program a \
             new wrapping token, and see in the audit log who used this one",
        )
    }

    /// A server that does not bind what it was told to bind.
    pub(super) fn binds_nothing(&self) -> Error {
        let message =
            format!("does not bind associated data with {}: any context would open any data key", self.subject);
        self.error(ErrorKind::Unsupported, &message).with_advice(
            "nothing was encrypted with it; use OpenBao, or Vault 1.13 or later, and a key of type aes256-gcm96",
        )
    }

    /// The proof needs a call that the token may not make.
    fn unproven(&self) -> Error {
        let message = format!(
            "does not let this token decrypt with {}, which the proof that it binds the encryption context needs",
            self.subject
        );
        self.error(ErrorKind::KeyDenied, &message).with_advice(format!(
            "allow `update` on {}, which the program always needs; or, in code, build the provider with \
             dangerous_without_binding_proof()",
            self.path("decrypt")
        ))
    }

    /// A key that is not for data keys.
    pub(super) fn wrong_type(&self, what: &str) -> Error {
        self.error(ErrorKind::Unsupported, &format!("has {} as a key {what}", self.subject))
            .with_advice("use a key of type aes256-gcm96, chacha20-poly1305 or xchacha20-poly1305")
    }

    /// The wrapped key has a form that needs no server to be refused.
    pub(super) fn not_opened(&self) -> Error {
        let message = format!("the wrapped data key does not open under {} at {}", self.subject, self.address);
        Error::new(ErrorKind::AuthenticationFailed, message).with_advice(
            "it was wrapped for another encryption context or by another key of that name, or it was changed",
        )
    }

    fn too_old(&self) -> Error {
        let version = match self.purpose {
            Purpose::Decrypt(Some(version)) => format!("version {version}"),
            _ => "an older version".to_owned(),
        };
        let message = format!(
            "no longer decrypts what {version} of {} wrapped: min_decryption_version is above it",
            self.subject
        );
        self.error(ErrorKind::KeyState, &message)
            .with_advice(format!(
                "lower min_decryption_version (`bao write {}/config min_decryption_version=N`), rewrap what is under old \
                 versions, and raise it again",
                self.path("keys")
            ))
            .with_source(TooOld)
    }

    fn version(&self, verb: &str) -> Option<String> {
        match self.purpose {
            Purpose::Decrypt(Some(version)) => Some(format!("{verb} version {version} of")),
            _ => None,
        }
    }

    fn not_allowed(&self) -> Error {
        let (verb, advice) = match self.purpose {
            Purpose::Prove => return self.unproven(),
            Purpose::Encrypt => (
                "encrypt with",
                format!(
                    "allow `update` on {} in a policy of the token; a key that does not exist looks the same",
                    self.path("encrypt")
                ),
            ),
            Purpose::Decrypt(_) => {
                ("decrypt with", format!("allow `update` on {} in a policy of the token", self.path("decrypt")))
            }
            Purpose::Look | Purpose::Login => {
                ("look at", "allow `read` on the path in a policy of the token".to_owned())
            }
        };
        let message = format!("does not let this token {verb} {}: no policy of it allows that", self.subject);
        self.error(ErrorKind::KeyDenied, &message).with_advice(advice).with_source(NotAllowed)
    }

    /// A key that derives, and nobody said so.
    pub(super) fn derives(&self) -> Error {
        self.error(ErrorKind::InvalidInput, &format!("derives keys from {}", self.subject))
            .with_advice("use a key without derivation, as the program does always; or, in code, tell the provider so (`derived_key()`)")
    }

    /// A token that the server does not know, or knows no more.
    pub(super) fn token_refused(&self) -> Error {
        self.error(
            ErrorKind::KeyDenied,
            "does not accept the token: it has expired, was revoked, or is of another server",
        )
        .with_advice(
            "log in anew and give the new token (VAULT_TOKEN, BAO_TOKEN, the token file), or use AppRole or Kubernetes \
                 login, which renew themselves",
        )
    }

    fn login_refused(&self, said: &Said) -> Error {
        let message = format!("refused the login at {}{}", self.subject, said.shown());
        let advice = if said.has("secret ID") || said.has("secret id") {
            "the role or its secret id was revoked, has expired or is used up: issue another secret id, or restore the role"
        } else if said.has("wrapping token") {
            "the wrapping token has expired or was already used: if it was not this program that used it, somebody else has \
             the secret id: revoke it, and issue another"
        } else if said.has("client certificate") {
            "give the transport the client certificate and key that the cert auth method knows (VAULT_CLIENT_CERT and \
             VAULT_CLIENT_KEY)"
        } else {
            "check that an auth method is mounted there, that the role exists, and that it allows this program"
        };
        self.error(ErrorKind::KeyDenied, &message).with_advice(advice)
    }

    fn not_there(&self, said: &Said) -> Error {
        if said.has("namespace") {
            let name = self.namespace.as_deref().unwrap_or("(the root)");
            return self.error(ErrorKind::InvalidInput, &format!("has no namespace {name}")).with_advice(
                "correct the namespace (VAULT_NAMESPACE, BAO_NAMESPACE): it is the whole path from the root",
            );
        }
        if said.has("no handler for route") {
            let message = format!("has nothing mounted at {}", self.subject);
            return self.error(ErrorKind::InvalidInput, &message).with_advice(match self.purpose {
                Purpose::Login => AUTH_ADVICE,
                _ => MOUNT_ADVICE,
            });
        }
        if said.has("versioned K/V") {
            let message = format!("has a KV engine of version 2 at {}, and no Transit engine", self.mount());
            return self.error(ErrorKind::InvalidInput, &message).with_advice(MOUNT_ADVICE);
        }
        match self.purpose {
            Purpose::Login => self.login_refused(said),
            // Transit says so of a key that is not there, and so do KV of version 1 and cubbyholes of what they do not hold.
            Purpose::Look if !said.has("unsupported path") => self.no_key(),
            // Of a key that is not there Transit answers 400.
            _ => self.no_transit(),
        }
    }

    /// A key that is not there: who encrypts may make it, and who decrypts wants the one that was there.
    pub(super) fn no_key(&self) -> Error {
        let error = self.error(ErrorKind::NoMatchingKey, &format!("has no key {}", self.subject));
        match self.purpose {
            Purpose::Decrypt(_) | Purpose::Prove => error.with_advice(
                "it was deleted, or this is another cluster or namespace: give the address of the one that has it, or restore \
                 it from that server's backup; a new key of this name opens nothing of the old one's",
            ),
            Purpose::Encrypt | Purpose::Look | Purpose::Login => error.with_advice(format!(
                "correct mount, name or namespace; or, if {} is a Transit engine (`bao secrets list` tells), make it with `bao write -f {}`",
                self.mount(),
                self.path("keys")
            )),
        }
    }

    fn no_transit(&self) -> Error {
        let message = format!("has something else than a Transit engine at {}", self.mount());
        self.error(ErrorKind::InvalidInput, &message).with_advice(MOUNT_ADVICE)
    }

    /// `transit` of `transit/orders`.
    fn mount(&self) -> &str {
        self.subject.rsplit_once('/').map_or(&self.subject, |(mount, _)| mount)
    }

    /// `transit/keys/orders` of `transit/orders`.
    fn path(&self, verb: &str) -> String {
        match self.subject.rsplit_once('/') {
            Some((mount, key)) => format!("{mount}/{verb}/{key}"),
            None => format!("MOUNT/{verb}/{}", self.subject),
        }
    }

    fn behind(&self) -> Error {
        self.error(ErrorKind::Unavailable, "has not caught up with the cluster").with_advice("try again in a moment")
    }

    fn elsewhere(&self) -> Error {
        self.error(ErrorKind::Unavailable, "sends to another address, which is not followed").with_advice(
            "it is a standby that forwards nothing, or a proxy: give the address of the active node, or one that forwards; no \
             other try mends that",
        )
    }

    fn standby(&self) -> Error {
        self.error(ErrorKind::Unavailable, "is a standby that serves no requests")
            .with_advice("give the address of the active node, or of a load balancer that finds it")
    }

    fn sealed(&self) -> Error {
        self.error(ErrorKind::Unavailable, "is sealed")
            .with_advice("have it unsealed (`bao operator unseal`), and try again")
    }

    fn stranger(&self, what: &str) -> Error {
        self.error(ErrorKind::Unavailable, what)
            .with_advice("a proxy or something else answers at that address: check it, or try again")
    }

    /// Every sentence begins with who did not do it.
    fn error(&self, kind: ErrorKind, rest: &str) -> Error {
        let address = &self.address;
        let server = match &self.namespace {
            Some(namespace) => format!("the Vault at {address} (namespace {namespace})"),
            None => format!("the Vault at {address}"),
        };
        Error::new(kind, format!("{server} {rest}"))
    }
}

/// The source of a refusal by policy: the token is good.
#[derive(Debug)]
pub(super) struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permission denied")
    }
}

impl std::error::Error for NotAllowed {}

/// The source of a refusal of what is under a version that was shut out.
#[derive(Debug)]
pub(super) struct TooOld;

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("version is too old")
    }
}

impl std::error::Error for TooOld {}

/// The source of a refusal by the cipher itself: the wrapped key is not of that context.
#[derive(Debug)]
pub(super) struct NotAuthentic;

impl fmt::Display for NotAuthentic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("message authentication failed")
    }
}

impl std::error::Error for NotAuthentic {}

const MOUNT_ADVICE: &str =
    "correct the mount or the namespace; `bao secrets list` shows the mounts, `bao secrets enable transit` makes one";

const AUTH_ADVICE: &str = "correct the mount of the auth method or the namespace; `bao auth list` shows the mounts";

/// Whether an answer leaves open that the server did what it was asked: a success that could not be read, a failure in the
/// midst of it, or one of a stranger on the way that may have passed the request on.
pub(super) fn may_be_done(status: StatusCode, said: Option<&Said>) -> bool {
    let not_served = said.is_some_and(|said| status == StatusCode::NOT_IMPLEMENTED || said.has("sealed"));
    status.is_success() || status.is_server_error() && !not_served
}

/// A refusal by policy comes as one of a list of errors; one of the token stands alone, or says so.
fn is_policy(said: &Said) -> bool {
    said.has("permission denied")
        && !said.is("permission denied")
        && !said.has("invalid token")
        && !said.has("bad token")
}
