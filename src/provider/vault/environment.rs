//! What the programs `bao` and `vault` take from the environment, taken likewise.
//!
//! As in OpenBao's client a variable `BAO_…` hides its `VAULT_…`, even where it is empty.

use super::auth::VaultAuth;
use super::builder::VaultBuilder;
use super::transport::{Trust, transport};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest certificate file, and the most files of a folder of certificates.
const PEM_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 512;

/// A builder as `variable` says.
pub(super) fn builder(key: String, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<VaultBuilder> {
    let environment = Environment(variable);
    environment.refuse()?;
    let mut builder = VaultBuilder::new(key);
    if let Some(address) = environment.text("ADDR")? {
        builder = builder.address(address.to_string());
    }
    if let Some(namespace) = environment.text("NAMESPACE")? {
        builder = builder.namespace(namespace.to_string());
    }
    if let Some(auth) = environment.auth()? {
        builder = builder.auth(auth);
    }
    let trust = environment.trust()?;
    if !trust.is_default() {
        builder = builder.transport(transport(trust)?);
    }
    Ok(builder)
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// `BAO_NAME`, or else `VAULT_NAME`; not if it is empty.
    fn value(&self, name: &str) -> Option<OsString> {
        let value = (self.0)(&format!("BAO_{name}")).or_else(|| (self.0)(&format!("VAULT_{name}")));
        value.filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>> {
        let text = |value: OsString| {
            value.into_string().map(Zeroizing::new).map_err(|_| {
                Error::invalid_input(format!("the variable BAO_{name} or VAULT_{name} is not UTF-8"))
                    .with_advice("set it anew, or give what it says to the builder")
            })
        };
        self.value(name).map(text).transpose()
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn refuse(&self) -> Result<()> {
        let skip = self.text("SKIP_VERIFY")?;
        let off = ["0", "f", "F", "false", "False", "FALSE"];
        if skip.is_some_and(|skip| !off.contains(&skip.as_str())) {
            return Err(Error::invalid_input(
                "BAO_SKIP_VERIFY or VAULT_SKIP_VERIFY is set: without verification, whoever is on the way gets the data keys",
            )
            .with_advice("unset it, and name the server's certificate authority by VAULT_CACERT or BAO_CACERT"));
        }
        if self.value("TLS_SERVER_NAME").is_some() {
            return Err(Error::invalid_input("BAO_TLS_SERVER_NAME and VAULT_TLS_SERVER_NAME are not supported")
                .with_advice("unset it, and use an address that the server's certificate names"));
        }
        Ok(())
    }

    fn auth(&self) -> Result<Option<VaultAuth>> {
        if let Some(token) = self.text("TOKEN")? {
            return Ok(Some(VaultAuth::token(token.as_str())));
        }
        if let Some(path) = self.file("TOKEN_PATH") {
            return Ok(Some(VaultAuth::token_file(path)));
        }
        let home = (self.0)("HOME").filter(|home| !home.is_empty());
        let file = home.map(|home| PathBuf::from(home).join(".vault-token"));
        Ok(file.filter(|file| file.is_file()).map(VaultAuth::token_file))
    }

    fn trust(&self) -> Result<Trust> {
        let roots = if let Some(file) = self.file("CACERT") {
            Some(pem(&file, "the certificate authority")?.to_vec())
        } else if let Some(text) = self.text("CACERT_BYTES")? {
            Some(text.as_bytes().to_vec())
        } else if let Some(folder) = self.file("CAPATH") {
            Some(folder_of_pem(&folder)?)
        } else {
            None
        };
        let identity = match (self.file("CLIENT_CERT"), self.file("CLIENT_KEY")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (pem(&certificate, "the client certificate")?, pem(&key, "the client key")?);
                // In one piece of memory from the first, so that no copy is left behind.
                let mut both = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
                both.extend_from_slice(&certificate);
                both.push(b'\n');
                both.extend_from_slice(&key);
                Some(both)
            }
            _ => {
                return Err(Error::invalid_input("of the client certificate and its key only one is set")
                    .with_advice("set both VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or their BAO_ forms, or neither"));
            }
        };
        let proxy = self.text("PROXY_ADDR")?;
        Ok(Trust { roots, identity, proxy })
    }
}

fn pem(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| Error::io_at(&format!("{what} cannot be read"), path, e);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > PEM_MAX {
        return Err(Error::limit(format!("{what} is longer than 1 MiB")).with_path(path));
    }
    let room = usize::try_from(length).map_err(|_| Error::internal("a certificate is short"))?;
    let mut pem = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(PEM_MAX).read_to_end(&mut pem).map_err(failed)?;
    Ok(pem)
}

/// Every file of a folder, one after the other.
fn folder_of_pem(folder: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io_at("the folder of certificate authorities cannot be read", folder, e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(Error::limit("the folder of certificate authorities has more than 512 files").with_path(folder));
        }
    }
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend_from_slice(&pem(&path, "a certificate authority")?);
        all.push(b'\n');
    }
    Ok(all)
}
