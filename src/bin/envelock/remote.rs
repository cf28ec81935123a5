//! Key providers across a network, as the command line, a profile and the environment say.

use crate::failure::Failure;
use crate::keystore::variable;
use crate::profile::Patience;
use crate::provider_name::{AwsKey, VaultKey};
use crate::signals::Signals;
use envelock::{AwsKmsProvider, HttpPolicy, HttpTransport, KeyProvider, ReqwestTransport, VaultAuth, VaultProvider};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A key of AWS KMS, with what it was named by.
#[derive(Clone, Debug)]
pub(crate) struct Aws {
    key: AwsKey,
    patience: Patience,
    aws: Arc<AwsKmsProvider>,
}

/// Finds out which key an alias or a key id stands for: that is a call.
pub(crate) fn aws_kms(key: &AwsKey, patience: Patience, signals: &Signals) -> Result<Aws, Failure> {
    let aws = connect(key, patience, &[], signals)?;
    Ok(Aws { key: key.clone(), patience, aws })
}

fn connect(
    key: &AwsKey,
    patience: Patience,
    also: &[String],
    signals: &Signals,
) -> Result<Arc<AwsKmsProvider>, Failure> {
    let mut builder = AwsKmsProvider::strict([&key.key]).policy(policy(patience)).also_opens(also);
    if let Some(region) = &key.region {
        builder = builder.region(region);
    }
    if let Some(endpoint) = &key.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(profile) = &key.profile {
        builder = builder.profile(profile);
    }
    Ok(Arc::new(signals.drive(builder.connect())?))
}

impl Aws {
    /// The full names of its keys.
    pub(crate) fn key_arns(&self) -> impl Iterator<Item = String> {
        self.aws.key_arns().map(str::to_owned)
    }

    /// As whom it calls, once it has called.
    pub(crate) fn caller(&self) -> Option<String> {
        self.aws.caller()
    }

    /// The same, which also opens what these keys encrypted.
    pub(crate) fn also_opens(self, arns: &[String], signals: &Signals) -> Result<Self, Failure> {
        let own: Vec<_> = self.key_arns().collect();
        let also: Vec<_> = arns.iter().filter(|arn| !own.contains(arn)).cloned().collect();
        match also.is_empty() {
            true => Ok(self),
            false => Ok(Self { aws: connect(&self.key, self.patience, &also, signals)?, ..self }),
        }
    }

    pub(crate) fn into_provider(self) -> Arc<dyn KeyProvider> {
        self.aws
    }
}

/// A key of Transit. No call is made.
pub(crate) fn vault(key: &VaultKey, patience: Patience) -> Result<VaultProvider, Failure> {
    let mut builder = VaultProvider::from_env(&key.key)?.mount(&key.mount).policy(policy(patience));
    if let Some(address) = &key.address {
        builder = builder.address(address);
    }
    if let Some(namespace) = &key.namespace {
        builder = builder.namespace(namespace);
    }
    if let Some(path) = &key.cacert {
        builder = builder.transport(trusting(path)?);
    }
    if let Some(auth) = login(key)? {
        builder = builder.auth(auth);
    }
    Ok(builder.build()?)
}

/// How the provider's name says to log in; `None`: by the token of the environment.
fn login(key: &VaultKey) -> Result<Option<VaultAuth>, Failure> {
    let auth = match key.login.as_deref() {
        None => return Ok(None),
        Some("kubernetes") => VaultAuth::kubernetes(role(key, "the role to log in as")?),
        Some("cert") => VaultAuth::certificate(key.role.as_deref()),
        Some("approle") => {
            let role = role(key, "the role id")?;
            match (&key.secret_id_file, secret_id()) {
                (Some(path), _) => VaultAuth::app_role_file(role, path),
                (None, Some(secret_id)) => VaultAuth::app_role(role, secret_id),
                (None, None) => {
                    return Err(Failure::usage(
                        "the secret id of an AppRole comes from BAO_SECRET_ID, VAULT_SECRET_ID or secret_id_file=FILE",
                    ));
                }
            }
        }
        Some(_) => return Err(Failure::usage("login= is approle, kubernetes or cert")),
    };
    Ok(Some(auth))
}

fn role<'a>(key: &'a VaultKey, what: &str) -> Result<&'a str, Failure> {
    key.role.as_deref().ok_or_else(|| Failure::usage(format!("this login needs role=NAME: {what}")))
}

fn secret_id() -> Option<String> {
    let value = variable("BAO_SECRET_ID").or_else(|| variable("VAULT_SECRET_ID"))?;
    value.into_os_string().into_string().ok()
}

/// Trusts these authorities alone, and is for the rest as the environment says.
fn trusting(roots: &Path) -> Result<ReqwestTransport, Failure> {
    let mut builder = ReqwestTransport::builder().only_roots(&*pem("the certificate authority", roots)?);
    if let (Some(certificate), Some(key)) = (of_vault("CLIENT_CERT"), of_vault("CLIENT_KEY")) {
        let certificate = pem("the client certificate", Path::new(&certificate))?;
        let key = pem("the client key", Path::new(&key))?;
        let mut both = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
        both.extend_from_slice(&certificate);
        both.push(b'\n');
        both.extend_from_slice(&key);
        builder = builder.identity(&*both);
    }
    if let Some(proxy) = of_vault("PROXY_ADDR") {
        let proxy =
            proxy.into_string().map_err(|_| Failure::usage("BAO_PROXY_ADDR or VAULT_PROXY_ADDR is not UTF-8"))?;
        builder = builder.proxy(proxy);
    }
    Ok(builder.build()?)
}

/// `BAO_NAME`, or else `VAULT_NAME`; not if it is empty: as the provider reads them.
fn of_vault(name: &str) -> Option<OsString> {
    let value = env::var_os(format!("BAO_{name}")).or_else(|| env::var_os(format!("VAULT_{name}")));
    value.filter(|value| !value.is_empty())
}

/// More is no list of certificates.
const PEM_MAX: u64 = 1 << 20;

fn pem(what: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |e| Failure::io(&format!("{what} {}", path.display()), &e);
    let file = fs::File::open(path).map_err(failed)?;
    // With room for all of it, so that no copy of a key is left where it was too small.
    let room = file.metadata().map_err(failed)?.len().min(PEM_MAX) as usize + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    file.take(PEM_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > PEM_MAX {
        return Err(Failure::usage(format!("{} has more than 1 MiB: it holds no certificates", path.display())));
    }
    Ok(text)
}

fn policy(patience: Patience) -> HttpPolicy {
    let policy = HttpPolicy::default();
    let policy = patience.timeout.into_iter().fold(policy, HttpPolicy::total);
    patience.attempts.into_iter().fold(policy, HttpPolicy::attempts)
}

/// Something to wait by.
pub(crate) fn transport() -> Result<Arc<dyn HttpTransport>, Failure> {
    Ok(Arc::new(ReqwestTransport::new()?))
}
