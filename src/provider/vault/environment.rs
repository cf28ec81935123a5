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
        let name = if variable("BAO_ADDR").is_some() { "BAO_ADDR" } else { "VAULT_ADDR" };
        builder = builder.address_from(name, address.to_string());
    }
    if let Some(namespace) = environment.text("NAMESPACE")? {
        builder = builder.namespace(namespace.to_string());
    }
    if let Some(auth) = environment.auth()? {
        builder = builder.auth(auth);
    }
    let trust = environment.trust()?;
    if !trust.is_default() {
        builder = builder.transport(transport(&trust)?);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const ROOT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem"));

    fn with(variables: &[(&str, &str)]) -> Result<VaultBuilder> {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        builder("orders".to_owned(), &value)
    }

    /// What the provider shows of itself.
    fn shown(variables: &[(&str, &str)]) -> String {
        format!("{:?}", with(variables).unwrap().build().unwrap())
    }

    #[test]
    fn address_namespace_and_token_come_from_the_environment() {
        let text =
            shown(&[("VAULT_ADDR", "https://a:8200"), ("VAULT_NAMESPACE", "team/one/"), ("VAULT_TOKEN", "s.planted")]);
        assert!(
            text.contains("https://a:8200") && text.contains("team/one") && text.contains("VaultAuth(token"),
            "{text}"
        );
        assert!(!text.contains("planted"));
    }

    #[test]
    fn baos_variables_hide_vaults_even_where_they_are_empty() {
        let token = ("VAULT_TOKEN", "t");
        let text = shown(&[("VAULT_ADDR", "https://a"), ("BAO_ADDR", "https://b"), token]);
        assert!(text.contains("https://b"), "{text}");
        let error = with(&[("VAULT_ADDR", "https://a"), ("BAO_ADDR", ""), token]).unwrap().build().unwrap_err();
        assert!(error.to_string().contains("VAULT_ADDR or BAO_ADDR"), "{error}");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_named_by_its_variable() {
        let refused = |name| with(&[(name, "127.0.0.1:8200"), ("VAULT_TOKEN", "t")]).unwrap().build().unwrap_err();
        for name in ["VAULT_ADDR", "BAO_ADDR"] {
            let text = refused(name).to_string();
            assert!(text.starts_with(&format!("{name} (127.0.0.1:8200) has no https://")), "{text}");
        }
        let given = with(&[("VAULT_ADDR", "https://a"), ("VAULT_TOKEN", "t")]).unwrap().address("http://b.example");
        let text = given.build().unwrap_err().to_string();
        assert!(text.starts_with("the address of the Vault (http://b.example) is not encrypted"), "{text}");
    }

    #[test]
    fn without_a_token_the_file_of_the_programs_is_used_if_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        let address = ("BAO_ADDR", "https://a");
        let error = with(&[address, ("HOME", home_text)]).unwrap().build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("bao login"), "{error}");
        std::fs::write(home.path().join(".vault-token"), "s.x").unwrap();
        assert!(shown(&[address, ("HOME", home_text)]).contains("VaultAuth(token file"));
        assert!(shown(&[address, ("BAO_TOKEN_PATH", "/run/token")]).contains("VaultAuth(token file"));
    }

    #[test]
    fn what_would_give_up_tls_is_refused_in_words() {
        for name in ["VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"] {
            for value in ["1", "true", "yes"] {
                let error = with(&[(name, value)]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("VAULT_CACERT or BAO_CACERT"), "{error}");
            }
            with(&[(name, "false")]).unwrap();
            with(&[(name, "")]).unwrap();
        }
        assert!(with(&[("VAULT_TLS_SERVER_NAME", "a")]).is_err());
        assert!(with(&[("VAULT_CLIENT_CERT", "/a")]).unwrap_err().to_string().contains("VAULT_CLIENT_KEY"));
    }

    #[test]
    fn roots_come_from_a_file_a_variable_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, ROOT).unwrap();
        let (file, folder) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
        for trusted in [("VAULT_CACERT", file), ("BAO_CACERT_BYTES", ROOT), ("VAULT_CAPATH", folder)] {
            with(&[trusted]).unwrap();
        }
        assert_eq!(with(&[("VAULT_CACERT", "/nowhere/ca.pem")]).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(with(&[("VAULT_CACERT_BYTES", "no pem")]).unwrap_err().kind(), ErrorKind::InvalidInput);
        let identity = with(&[("VAULT_CLIENT_CERT", file), ("VAULT_CLIENT_KEY", file)]).unwrap_err();
        assert_eq!(identity.kind(), ErrorKind::InvalidInput);
    }
}
