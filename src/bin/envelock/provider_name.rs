//! Key providers by their names on the command line and in profiles.

use crate::nearest::nearest;
use crate::passphrase::PassphraseSource;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `local:…`, `raw:…`, `passphrase:…`, `aws-kms:…` or `vault:…`, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProviderName {
    Local {
        key: String,
    },
    Raw {
        file: PathBuf,
        id: String,
    },
    Passphrase(PassphraseSource),
    AwsKms(AwsKey),
    Vault(VaultKey),
    /// A secret in an argument: refused later, since a parser's error would repeat it.
    Exposed(Secret),
}

/// A key of AWS KMS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AwsKey {
    /// A full name (ARN), a key id, or `alias/NAME`.
    pub(crate) key: String,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    /// Of AWS's configuration files.
    pub(crate) profile: Option<String>,
}

impl AwsKey {
    /// Whether it says which key it is, without a call.
    pub(crate) fn is_full_name(&self) -> bool {
        // arn:PARTITION:kms:REGION:ACCOUNT:key/ID
        self.key.starts_with("arn:") && self.key.splitn(6, ':').nth(5).is_some_and(|key| key.starts_with("key/"))
    }
}

/// A key of Transit in Vault or OpenBao.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VaultKey {
    /// The server; `None`: that of the environment.
    pub(crate) address: Option<String>,
    pub(crate) mount: String,
    pub(crate) key: String,
    pub(crate) namespace: Option<String>,
    /// `approle`, `kubernetes` or `cert`; `None`: by a token of the environment.
    pub(crate) login: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) secret_id_file: Option<PathBuf>,
    pub(crate) cacert: Option<PathBuf>,
}

/// What somebody tried to give where others can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    Passphrase,
    Aws,
    Vault,
    /// An option that there is not: what was pasted there may be one.
    AwsOption,
    VaultOption,
}

impl Secret {
    /// Where it comes from instead.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Passphrase => {
                "a passphrase comes from the terminal (passphrase:), from passphrase:file=PATH or from \
                 passphrase:fd=N, never from an argument, which other users can see"
            }
            Self::Aws => {
                "an aws-kms: provider takes no secret, user, password or query: AWS's credentials come from the \
                 environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), from a profile \
                 (profile=NAME) or from a role, never from an argument, which other users can see"
            }
            Self::AwsOption => {
                "an aws-kms: provider has the options region=, endpoint= and profile=, and what else was given is not \
                 repeated here, since it may be a secret"
            }
            Self::VaultOption => {
                "a vault: provider has the options namespace=, cacert=, login=, role= and secret_id_file=, and what else \
                 was given is not repeated here, since it may be a secret"
            }
            Self::Vault => {
                "a vault: provider takes no secret, user, password or query: the token comes from VAULT_TOKEN, \
                 BAO_TOKEN or the token file, or from a login, never from an argument, which other users can see"
            }
        }
    }
}

/// The managed key that the quick start uses.
const DEFAULT_KEY: &str = "alias/envelock/default";

const AWS_OPTIONS: [&str; 3] = ["region", "endpoint", "profile"];
const VAULT_OPTIONS: [&str; 5] = ["namespace", "login", "role", "secret_id_file", "cacert"];

const FORMS: &str = "a provider is local:[KEY], raw:file=PATH[,id=NAME], passphrase:[file=PATH|fd=N], \
                     aws-kms:KEY[,region=NAME], or vault:[https://HOST[:PORT]/]MOUNT/KEY";

/// What names begin with.
pub(crate) const KINDS: [&str; 5] = ["local", "raw", "passphrase", "aws-kms", "vault"];

/// The kind that somebody meant who wrote `kind`.
pub(crate) fn meant(kind: &str) -> Option<&'static str> {
    match kind.to_ascii_lowercase().as_str() {
        "aws" | "kms" | "awskms" | "aws_kms" => Some("aws-kms"),
        "bao" | "openbao" | "hashicorp" | "hcvault" | "transit" => Some("vault"),
        "key" | "file" => Some("raw"),
        "keystore" => Some("local"),
        other => nearest(other, &KINDS),
    }
}

impl Default for ProviderName {
    fn default() -> Self {
        Self::Local { key: DEFAULT_KEY.into() }
    }
}

impl ProviderName {
    /// The secret that should not stand in it.
    pub(crate) fn exposed(&self) -> Option<Secret> {
        match self {
            Self::Exposed(secret) => Some(*secret),
            _ => None,
        }
    }
}

impl FromStr for ProviderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("local", "")) => Ok(Self::default()),
            Some(("local", key)) => Ok(Self::Local { key: key.into() }),
            Some(("raw", rest)) => raw(rest),
            Some(("passphrase", rest)) => passphrase(rest),
            Some(("aws-kms", rest)) => aws_kms(rest),
            Some(("vault", rest)) => vault(rest),
            Some(("arn", rest)) if rest.contains(":kms:") => Err("a key of AWS KMS is aws-kms:arn:…".into()),
            Some(("https" | "http", _)) => Err("a key of Vault or OpenBao is vault:https://HOST/MOUNT/KEY".into()),
            _ if is_token(text) => Ok(Self::Exposed(Secret::Vault)),
            _ if text.starts_with("alias/") => Err(format!("a key of the embedded keystore is local:{text}")),
            Some((kind, _)) => match meant(kind) {
                Some(near) => Err(format!("is it {near}:? {FORMS}")),
                None => Err(FORMS.into()),
            },
            None => Err(FORMS.into()),
        }
    }
}

/// As it was typed, but for what need not be.
impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = |f: &mut fmt::Formatter<'_>, all: &[(&str, Option<&str>)]| {
            all.iter().try_for_each(|(name, value)| value.map_or(Ok(()), |value| write!(f, ",{name}={value}")))
        };
        match self {
            Self::Local { key } => write!(f, "local:{key}"),
            Self::Raw { file, id } => write!(f, "raw:file={},id={id}", file.display()),
            Self::Passphrase(PassphraseSource::Terminal) => f.write_str("passphrase:"),
            Self::Passphrase(PassphraseSource::File(path)) => write!(f, "passphrase:file={}", path.display()),
            Self::Passphrase(PassphraseSource::Descriptor(number)) => write!(f, "passphrase:fd={number}"),
            Self::AwsKms(AwsKey { key, region, endpoint, profile }) => {
                write!(f, "aws-kms:{key}")?;
                let all = [("region", region), ("endpoint", endpoint), ("profile", profile)];
                options(f, &all.map(|(name, value)| (name, value.as_deref())))
            }
            Self::Vault(VaultKey { address, mount, key, namespace, login, role, secret_id_file, cacert }) => {
                let slash = if address.is_some() { "/" } else { "" };
                write!(f, "vault:{}{slash}{mount}/{key}", address.as_deref().unwrap_or_default())?;
                let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
                let (secret_id_file, cacert) = (path(secret_id_file), path(cacert));
                let all = [namespace, login, role, &secret_id_file, &cacert];
                let all: Vec<_> = VAULT_OPTIONS.into_iter().zip(all.map(Option::as_deref)).collect();
                options(f, &all)
            }
            Self::Exposed(_) => f.write_str("a secret"),
        }
    }
}

fn raw(rest: &str) -> Result<ProviderName, String> {
    let rest = rest.strip_prefix("file=").ok_or("a raw key is raw:file=PATH[,id=NAME]")?;
    let (file, id) = match rest.rsplit_once(",id=") {
        Some((file, id)) => (file, id.to_owned()),
        None => {
            let stem = Path::new(rest).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            (rest, stem.to_owned())
        }
    };
    if file.is_empty() || id.is_empty() {
        return Err("a raw key has a file and an id: raw:file=PATH[,id=NAME]".into());
    }
    Ok(ProviderName::Raw { file: file.into(), id })
}

/// The text after the colon is never taken for the passphrase: others can read the arguments.
fn passphrase(rest: &str) -> Result<ProviderName, String> {
    let source = match rest.split_once('=') {
        None if rest.is_empty() => PassphraseSource::Terminal,
        Some(("file", path)) if !path.is_empty() => PassphraseSource::File(path.into()),
        Some(("fd", number)) => PassphraseSource::Descriptor(
            number.parse().map_err(|_| "a file descriptor is a small number: passphrase:fd=3".to_owned())?,
        ),
        _ => return Ok(ProviderName::Exposed(Secret::Passphrase)),
    };
    Ok(ProviderName::Passphrase(source))
}

fn aws_kms(rest: &str) -> Result<ProviderName, String> {
    const FORM: &str = "a key of AWS KMS is aws-kms:KEY[,region=NAME][,endpoint=URL][,profile=NAME], where KEY is an \
                        ARN, a key id or alias/NAME";
    let Some((key, options)) = options(rest) else { return Ok(ProviderName::Exposed(Secret::Aws)) };
    if key.is_empty() || key.contains('=') {
        return Err(FORM.into());
    }
    let mut name = AwsKey { key: key.into(), ..AwsKey::default() };
    for (option, value) in options {
        let place = match option {
            "region" => &mut name.region,
            "endpoint" => &mut name.endpoint,
            "profile" => &mut name.profile,
            other => return unknown(other, &AWS_OPTIONS, FORM, Secret::AwsOption),
        };
        once(place, option, value)?;
    }
    Ok(ProviderName::AwsKms(name))
}

fn vault(rest: &str) -> Result<ProviderName, String> {
    const FORM: &str = "a key of Vault or OpenBao is vault:[https://HOST[:PORT]/]MOUNT/KEY[,namespace=NAME]\
                        [,cacert=FILE][,login=approle|kubernetes|cert][,role=NAME][,secret_id_file=FILE]; without a \
                        server, VAULT_ADDR or BAO_ADDR names it";
    let Some((place, options)) = options(rest) else { return Ok(ProviderName::Exposed(Secret::Vault)) };
    let (address, path) = match place.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').ok_or(FORM)?;
            if host.is_empty() || !matches!(scheme, "https" | "http") {
                return Err(FORM.into());
            }
            (Some(format!("{scheme}://{host}")), path)
        }
        None => (None, place),
    };
    let (mount, key) = path.rsplit_once('/').filter(|(mount, key)| !mount.is_empty() && !key.is_empty()).ok_or(FORM)?;
    let mut name = VaultKey { address, mount: mount.into(), key: key.into(), ..VaultKey::default() };
    let (mut cacert, mut secret_id_file) = (None, None);
    for (option, value) in options {
        let place = match option {
            "namespace" => &mut name.namespace,
            "login" if matches!(value, "approle" | "kubernetes" | "cert") => &mut name.login,
            "login" => return Err(FORM.into()),
            "role" => &mut name.role,
            "secret_id_file" => &mut secret_id_file,
            "cacert" => &mut cacert,
            other => return unknown(other, &VAULT_OPTIONS, FORM, Secret::VaultOption),
        };
        once(place, option, value)?;
    }
    name.cacert = cacert.map(PathBuf::from);
    name.secret_id_file = secret_id_file.map(PathBuf::from);
    Ok(ProviderName::Vault(name))
}

/// What stands before the first comma, and the `NAME=VALUE`s behind it. `None` where it may hold a secret: then it is not
/// to be repeated.
fn options(text: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let mut parts = text.split(',');
    let main = parts.next().unwrap_or_default();
    let options: Vec<_> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let address = |text: &str| text.contains(['@', '?', '#']);
    let secret = |(name, value): &(&str, &str)| {
        let is_path = matches!(*name, "cacert" | "secret_id_file");
        let is_user = value.contains('@') && (value.contains(':') || *name == "endpoint");
        (is_secret(name) && !VAULT_OPTIONS.contains(name))
            || (value.contains("://") && address(value))
            || (is_user && !is_path)
            || is_token(name)
            || is_token(value)
    };
    (!address(main) && !main.split(['/', ':']).any(is_token) && !options.iter().any(secret)).then_some((main, options))
}

/// Whether something of this name would be a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 7] = ["token", "secret", "password", "passphrase", "credential", "access_key", "access-key"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Whether it has the form of a token of Vault or of an access key id of AWS.
fn is_token(text: &str) -> bool {
    let after = |prefix: &str| text.strip_prefix(prefix).unwrap_or_default();
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ["hvs.", "hvb.", "hvr."].iter().any(|prefix| after(prefix).len() >= 4)
        || ["s.", "b.", "r."].iter().any(|prefix| after(prefix).len() >= 20 && plain(after(prefix)))
        || ["AKIA", "ASIA"].iter().any(|prefix| after(prefix).len() >= 12 && plain(after(prefix)))
}

fn once(place: &mut Option<String>, option: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{option}= has no value"));
    }
    match place.replace(value.into()) {
        Some(_) => Err(format!("{option}= is there twice")),
        None => Ok(()),
    }
}

/// An option that there is not is repeated only if it is a known one's name mistyped: a parser's error shows all of it.
fn unknown(option: &str, known: &[&str], form: &str, secret: Secret) -> Result<ProviderName, String> {
    match nearest(option, known) {
        Some(near) => Err(format!("there is no option {option:?}: is it {near:?}? {form}")),
        None => Ok(ProviderName::Exposed(secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ProviderName, String> {
        text.parse()
    }

    #[test]
    fn a_full_name_is_that_of_a_key() {
        let is_full = |key: &str| AwsKey { key: key.into(), ..AwsKey::default() }.is_full_name();
        assert!(is_full("arn:aws:kms:eu-west-1:111122223333:key/mrk-1"));
        for key in
            ["arn:aws:kms:eu-west-1:111122223333:alias/a:key/b", "arn:aws:kms:eu-west-1:1:alias/b", "alias/a:key/b"]
        {
            assert!(!is_full(key), "{key}");
        }
    }

    #[test]
    fn who_mistypes_a_kind_is_told_the_one_that_was_meant() {
        for (text, near) in [
            ("awskms:alias/a", "aws-kms"),
            ("aws:alias/a", "aws-kms"),
            ("bao:transit/k", "vault"),
            ("OpenBao:transit/k", "vault"),
            ("vualt:transit/k", "vault"),
            ("passphrse:", "passphrase"),
        ] {
            let said = parsed(text).unwrap_err();
            assert!(said.starts_with(&format!("is it {near}:? a provider is")), "{text}: {said}");
        }
        assert!(parsed("something:else").unwrap_err().starts_with("a provider is"));
    }

    #[test]
    fn provider_names_parse() {
        let local = |key: &str| Ok(ProviderName::Local { key: key.into() });
        assert_eq!(parsed("local:"), local("alias/envelock/default"));
        assert_eq!(parsed("local:alias/orders"), local("alias/orders"));
        assert_eq!(parsed("local:envelock:local:x:key/y"), local("envelock:local:x:key/y"));
        let raw = |file: &str, id: &str| Ok(ProviderName::Raw { file: file.into(), id: id.into() });
        assert_eq!(parsed("raw:file=/keys/orders.key"), raw("/keys/orders.key", "orders"));
        assert_eq!(parsed("raw:file=orders.2026.key"), raw("orders.2026.key", "orders.2026"));
        assert_eq!(parsed("raw:file=a,b=c.key,id=x/y"), raw("a,b=c.key", "x/y"));
        let phrase = |source| Ok(ProviderName::Passphrase(source));
        assert_eq!(parsed("passphrase:"), phrase(PassphraseSource::Terminal));
        assert_eq!(parsed("passphrase:fd=3"), phrase(PassphraseSource::Descriptor(3)));
        assert_eq!(parsed("passphrase:file=a=b"), phrase(PassphraseSource::File("a=b".into())));
    }

    #[test]
    fn keys_of_aws_parse_with_what_is_not_in_their_name() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        let aws = |key: &str| AwsKey { key: key.into(), ..AwsKey::default() };
        assert_eq!(parsed(&format!("aws-kms:{arn}")), Ok(ProviderName::AwsKms(aws(arn))));
        assert_eq!(parsed("aws-kms:alias/orders"), Ok(ProviderName::AwsKms(aws("alias/orders"))));
        let all = "aws-kms:alias/a/b,region=eu-west-1,endpoint=http://127.0.0.1:4566,profile=prod";
        let expected = AwsKey {
            key: "alias/a/b".into(),
            region: Some("eu-west-1".into()),
            endpoint: Some("http://127.0.0.1:4566".into()),
            profile: Some("prod".into()),
        };
        assert_eq!(parsed(all), Ok(ProviderName::AwsKms(expected)));
    }

    #[test]
    fn keys_of_vault_parse_with_and_without_their_server() {
        let vault = |address: Option<&str>, mount: &str, key: &str| VaultKey {
            address: address.map(Into::into),
            mount: mount.into(),
            key: key.into(),
            ..VaultKey::default()
        };
        let server = Some("https://bao.example.com:8200");
        let parses = |text: &str, to| assert_eq!(parsed(text), Ok(ProviderName::Vault(to)), "{text}");
        parses("vault:https://bao.example.com:8200/transit/orders", vault(server, "transit", "orders"));
        parses("vault:https://bao.example.com:8200/team/a/transit/orders", vault(server, "team/a/transit", "orders"));
        parses("vault:transit/orders", vault(None, "transit", "orders"));
        let more = VaultKey {
            namespace: Some("team/a".into()),
            login: Some("approle".into()),
            role: Some("writer".into()),
            secret_id_file: Some("/run/id".into()),
            cacert: Some("/etc/ca.pem".into()),
            ..vault(None, "transit", "orders")
        };
        let all = "cacert=/etc/ca.pem,namespace=team/a,role=writer,login=approle,secret_id_file=/run/id";
        parses(&format!("vault:transit/orders,{all}"), more);
    }

    #[test]
    fn a_name_is_shown_as_it_parses() {
        for text in [
            "local:alias/orders",
            "raw:file=a.key,id=orders",
            "passphrase:",
            "passphrase:file=a",
            "passphrase:fd=3",
            "aws-kms:alias/a,region=eu-west-1,endpoint=http://127.0.0.1:4566,profile=prod",
            "vault:transit/orders",
            "vault:https://bao.example.com:8200/a/b/orders,namespace=n,login=cert,role=r,cacert=/ca.pem",
            "vault:transit/s.orders,cacert=/home/me@corp/ca.pem",
            "aws-kms:alias/a,profile=me@corp",
        ] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_provider_is_refused() {
        for text in [
            "",
            "local",
            "raw:",
            "raw:file=",
            "raw:x",
            "raw:file=a,id=",
            "raw:file=/",
            "passphrase:fd=-1",
            "passphrase:fd=x",
            "arn:aws:kms:eu-central-1:111122223333:key/k",
            "https://x/transit/k",
            "aws-kms:",
            "aws-kms:region=x",
            "aws-kms:alias/a,regoin=eu-west-1",
            "aws-kms:alias/a,region=",
            "aws-kms:alias/a,region=a,region=b",
            "vault:",
            "vault:orders",
            "vault:https://host",
            "vault:https://host/orders",
            "vault:https:///transit/orders",
            "vault:ftp://host/transit/orders",
            "vault:transit/",
            "vault:transit/orders,login=guess",
        ] {
            assert!(parsed(text).is_err(), "{text:?} was taken");
        }
        assert!(parsed("aws-kms:alias/a,regoin=eu-west-1").unwrap_err().contains("is it \"region\"?"));
    }

    #[test]
    fn a_secret_in_an_argument_is_refused_and_not_kept() {
        for (text, secret) in [
            ("passphrase:hunter2", Secret::Passphrase),
            ("passphrase:hunter=2", Secret::Passphrase),
            ("aws-kms:alias/a,secret_access_key=hunter2", Secret::Aws),
            ("aws-kms:alias/a,endpoint=https://me:hunter2@kms.example.com", Secret::Aws),
            ("vault:https://me:hunter2@host/transit/orders", Secret::Vault),
            ("vault:https://host/transit/orders?token=hunter2", Secret::Vault),
            ("vault:transit/orders,token=hunter2", Secret::Vault),
            ("vault:transit/orders,secret_id=hunter2", Secret::Vault),
            ("vault:transit/orders,hvs.CAESIhunter2", Secret::Vault),
            ("vault:transit/orders,tok=hvs.CAESIhunter2", Secret::Vault),
            ("vault:hvs.CAESIhunter2", Secret::Vault),
            ("hvs.CAESIhunter2", Secret::Vault),
            ("vault:transit/orders,tok=hunter2", Secret::VaultOption),
            ("vault:transit/orders,hunter2", Secret::VaultOption),
            ("vault:transit/orders,rule=s.hunter2hunter2hunter2hu", Secret::Vault),
            ("aws-kms:alias/a,AKIAhunter2hunter2", Secret::Aws),
            ("aws-kms:AKIAhunter2hunter2", Secret::Aws),
            ("aws-kms:alias/a,wJalrXUtnFEMI/K7MDENG/hunter2", Secret::AwsOption),
            ("aws-kms:alias/a,endpoint=me:hunter2@kms.example.com", Secret::Aws),
        ] {
            assert_eq!(parsed(text), Ok(ProviderName::Exposed(secret)), "{text}");
            assert!(!format!("{:?} {}", parsed(text), parsed(text).unwrap()).contains("hunter2"));
        }
    }
}
