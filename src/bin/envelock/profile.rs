//! Named profiles: providers and how they are used, in a TOML file.
//!
//! ```toml
//! [profiles.prod]
//! providers = ["aws-kms:arn:…", "vault:https://bao.example.com:8200/transit/orders"]
//! write = "1 of 2"        # all (default), K of N, failover
//! order = "nearest"       # failover only: listed (default), nearest
//! hedge_after = "200 ms"  # failover only
//! timeout = "10 s"        # of a call to a provider across a network, its retries included
//! attempts = 4
//! cache = { max_age = "5 minutes", max_messages = 1000 }
//! ```

use crate::args::Choosing;
use crate::failure::Failure;
use crate::nearest::nearest;
use crate::provider_name::{ProviderName, is_secret};
use crate::{keystore, time};
use envelock::CacheLimits;
use std::fmt::Display;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// What a profile says.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) providers: Vec<ProviderName>,
    pub(crate) write: Write,
    pub(crate) patience: Patience,
    pub(crate) cache: Option<CacheLimits>,
}

impl Profile {
    /// Where data keys go, for those who did not say.
    pub(crate) fn told(&self) -> String {
        let names: Vec<_> = self.providers.iter().map(ToString::to_string).collect();
        format!("by the profile {}: {}", self.name, names.join(", "))
    }
}

/// Who of several providers must encrypt a data key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Write {
    #[default]
    All,
    AtLeast(usize),
    /// One is enough, since each stands for the others.
    Failover {
        nearest: bool,
        hedge_after: Option<Duration>,
    },
}

/// How long providers across a network have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patience {
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempts: Option<u32>,
}

impl Patience {
    /// The same, and what it does not say by `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { timeout: self.timeout.or(other.timeout), attempts: self.attempts.or(other.attempts) }
    }
}

/// The profile that this run uses, if it uses one: that of `--profile`, else of `ENVELOCK_PROFILE`, else the one named
/// `default`. With `--provider`, none.
pub(crate) fn chosen(choosing: &Choosing) -> Result<Option<Profile>, Failure> {
    if !choosing.provider.is_empty() {
        return Ok(None);
    }
    let name = match (&choosing.profile, keystore::variable(VARIABLE)) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(name)) => Some(name.into_os_string().into_string().map_err(|_| {
            Failure::usage(format!("{VARIABLE} is not UTF-8, and names no profile: set it anew, or unset it"))
        })?),
        (None, None) => None,
    };
    let explicit = choosing.config.clone().or_else(|| keystore::variable("ENVELOCK_CONFIG"));
    let place = match (&explicit, keystore::default_path("XDG_CONFIG_HOME", ".config", "config.toml", "--config")) {
        (Some(path), _) => path.clone(),
        (None, Ok(path)) => path,
        (None, Err(failure)) if name.is_some() => return Err(failure),
        (None, Err(_)) => return Ok(None),
    };
    let text = match read(&place) {
        Ok(text) => text,
        Err(failure) => {
            let there = place.symlink_metadata().is_ok();
            // Without a file and a word about it, there are no profiles.
            return match explicit.is_some() || name.is_some() {
                _ if there => Err(failure),
                true => Err(failure.and("docs/providers.md shows such a file of profiles")),
                false => Ok(None),
            };
        }
    };
    let mut profiles = File { path: &place, text: &text }.profiles()?;
    let wanted = name.as_deref().unwrap_or(DEFAULT);
    match profiles.iter().position(|profile| profile.name == wanted) {
        Some(at) => Ok(Some(profiles.swap_remove(at))),
        None if name.is_none() => Ok(None),
        None => {
            let names: Vec<_> = profiles.iter().map(|profile| profile.name.as_str()).collect();
            let there = match (nearest(wanted, &names), names.as_slice()) {
                (_, []) => "it has none".into(),
                (Some(near), _) => format!("is it {near:?}?"),
                (None, names) => format!("it has {}", names.join(", ")),
            };
            Err(Failure::usage(format!("{} has no profile {wanted:?}: {there}", place.display())))
        }
    }
}

const VARIABLE: &str = "ENVELOCK_PROFILE";
const DEFAULT: &str = "default";
const FILE_MAX: u64 = 1 << 20;

/// The file's text. Whoever may write it chooses who gets the data keys: it must be its owner's, or root's, alone.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |e: io::Error| Failure::io(&path.display().to_string(), &e);
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let own = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !own || metadata.mode() & 0o022 != 0 {
        return Err(Failure::usage(format!(
            "{}: others may write it, and would choose who gets the data keys: it must be yours, and `chmod go-w` made",
            path.display()
        )));
    }
    let mut text = String::new();
    match file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)? {
        len if len as u64 > FILE_MAX => Err(Failure::usage(format!("{} has more than 1 MiB", path.display()))),
        _ => Ok(text),
    }
}

/// A file of profiles.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

impl File<'_> {
    fn profiles(&self) -> Result<Vec<Profile>, Failure> {
        // Only its sentence: the whole error repeats the line.
        let table = DeTable::parse(self.text)
            .map_err(|error| self.wrong(error.span().unwrap_or_default(), format!("no TOML: {}", error.message())))?;
        let mut profiles = Vec::new();
        for (key, value) in in_order(table.get_ref()) {
            match key.get_ref().as_ref() {
                "profiles" => {
                    for (name, value) in in_order(self.table(key, value)?) {
                        profiles.push(self.profile(name, self.table(name, value)?)?);
                    }
                }
                _ => return Err(self.unknown(key, &["profiles"])),
            }
        }
        Ok(profiles)
    }

    fn profile(&self, name: &Key<'_>, table: &DeTable<'_>) -> Result<Profile, Failure> {
        const KNOWN: [&str; 7] = ["providers", "write", "order", "hedge_after", "timeout", "attempts", "cache"];
        let mut providers = Vec::new();
        let (mut write, mut order, mut hedge) = (None, None, None);
        let mut patience = Patience::default();
        let mut cache = None;
        for (key, value) in in_order(table) {
            match key.get_ref().as_ref() {
                "providers" => providers = self.providers(key, value)?,
                "write" => write = Some((value, self.string(key, value)?)),
                "order" => order = Some((value, self.string(key, value)?)),
                "hedge_after" => hedge = Some((value, self.span(key, value)?)),
                "timeout" => patience.timeout = Some(self.span(key, value)?),
                "attempts" => patience.attempts = Some(self.number(key, value, 1..=20)?),
                "cache" => cache = Some(self.cache(self.table(key, value)?)?),
                _ => return Err(self.unknown(key, &KNOWN)),
            }
        }
        if providers.is_empty() {
            return Err(self.wrong(name.span(), format!("the profile {:?} has no providers", name.get_ref())));
        }
        let nearest = match order {
            None | Some((_, "listed")) => false,
            Some((_, "nearest")) => true,
            Some((value, _)) => return Err(self.wrong(value.span(), "order is \"listed\" or \"nearest\"")),
        };
        let write = match write {
            None | Some((_, "all")) => Write::All,
            Some((_, "failover")) => Write::Failover { nearest, hedge_after: hedge.map(|(_, delay)| delay) },
            Some((value, text)) => {
                Write::AtLeast(k_of_n(text, providers.len()).map_err(|what| self.wrong(value.span(), what))?)
            }
        };
        let only_failover = order.map(|(value, _)| value).or(hedge.map(|(value, _)| value));
        match (only_failover, write) {
            (Some(value), Write::All | Write::AtLeast(_)) => {
                Err(self.wrong(value.span(), "order and hedge_after go with write = \"failover\""))
            }
            _ => Ok(Profile { name: name.get_ref().to_string(), providers, write, patience, cache }),
        }
    }

    fn providers(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Vec<ProviderName>, Failure> {
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.wrong(value.span(), format!("{} is a list of strings", key.get_ref())));
        };
        list.iter()
            .map(|entry| match self.string(key, entry)?.parse() {
                Ok(ProviderName::Exposed(secret)) => Err(self.wrong(entry.span(), secret.advice())),
                Ok(name) => Ok(name),
                Err(what) => Err(self.wrong(entry.span(), what)),
            })
            .collect()
    }

    fn cache(&self, table: &DeTable<'_>) -> Result<CacheLimits, Failure> {
        const KNOWN: [&str; 5] = ["max_messages", "max_bytes", "max_age", "offline_grace", "max_entries"];
        let mut limits = CacheLimits::default();
        for (key, value) in in_order(table) {
            limits = match key.get_ref().as_ref() {
                "max_messages" => limits.max_messages(self.number(key, value, 1..=u64::MAX)?),
                "max_bytes" => limits.max_bytes(self.number(key, value, 1..=u64::MAX)?),
                "max_age" => limits.max_age(self.span(key, value)?),
                "offline_grace" => limits.offline_grace(self.span(key, value)?),
                "max_entries" => limits.max_entries(self.number(key, value, 1..=1_000_000_usize)?),
                _ => return Err(self.unknown(key, &KNOWN)),
            };
        }
        Ok(limits)
    }

    fn table<'t, 'i>(&self, key: &Key<'_>, value: &'t Value<'i>) -> Result<&'t DeTable<'i>, Failure> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(value.span(), format!("{} is a table", key.get_ref()))),
        }
    }

    fn string<'t>(&self, key: &Key<'_>, value: &'t Value<'_>) -> Result<&'t str, Failure> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong(value.span(), format!("{} takes text in quotes", key.get_ref()))),
        }
    }

    fn span(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Duration, Failure> {
        let span = time::span(self.string(key, value)?).map_err(|what| self.wrong(value.span(), what))?;
        match span.is_zero() {
            true => Err(self.wrong(value.span(), format!("{} is more than nothing", key.get_ref()))),
            false => Ok(span),
        }
    }

    fn number<N>(&self, key: &Key<'_>, value: &Value<'_>, range: std::ops::RangeInclusive<N>) -> Result<N, Failure>
    where
        N: std::str::FromStr + PartialOrd + Display,
    {
        let number = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', "").parse().ok(),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let what = format!("{} is a number from {} to {}", key.get_ref(), range.start(), range.end());
            self.wrong(value.span(), what)
        })
    }

    fn unknown(&self, key: &Key<'_>, known: &[&str]) -> Failure {
        let name = key.get_ref();
        let what = match nearest(name, known) {
            Some(near) => format!("there is no key {name:?}: is it {near:?}?"),
            None if is_secret(name) => format!(
                "{name:?} looks like a secret, and none is kept here: AWS's come from its environment, profiles and roles, \
                 Vault's from VAULT_TOKEN, its token file or a login"
            ),
            None => format!("there is no key {name:?}; there are {}", known.join(", ")),
        };
        self.wrong(key.span(), what)
    }

    fn wrong(&self, at: Range<usize>, what: impl Display) -> Failure {
        let line = 1 + self.text.bytes().take(at.start).filter(|byte| *byte == b'\n').count();
        Failure::usage(format!("{}: line {line}: {what}", self.path.display()))
    }
}

/// As they stand in the file.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Value<'i>)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_by_key(|(key, _)| key.span().start);
    all
}

/// `2 of 3`, of three providers.
fn k_of_n(text: &str, providers: usize) -> Result<usize, String> {
    let both = text.split_once(" of ").and_then(|(k, n)| Some((k.parse().ok()?, n.parse::<usize>().ok()?)));
    match both {
        Some((_, n)) if n != providers => {
            let there = if providers == 1 { "is 1 provider".into() } else { format!("are {providers} providers") };
            Err(format!("write is {text:?}, and there {there}"))
        }
        Some((k, n)) if (1..=n).contains(&k) => Ok(k),
        _ => Err(format!("write is \"all\", \"failover\" or as \"2 of 3\", and not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(text: &str) -> Result<Vec<Profile>, String> {
        let said = |failure: Failure| format!("{failure:?}");
        File { path: Path::new("c.toml"), text }.profiles().map_err(said)
    }

    fn one(body: &str) -> Result<Profile, String> {
        let text = format!("[profiles.p]\nproviders = [\"raw:file=a.key\", \"raw:file=b.key\"]\n{body}\n");
        profiles(&text).map(|mut all| all.remove(0))
    }

    #[test]
    fn a_profile_says_who_writes_and_how_patiently() {
        let all = profiles(
            "[profiles.prod]\nproviders = [\n  \"aws-kms:alias/orders,region=eu-west-1\",\n  \"vault:transit/orders\",\n]\n\
             write = \"1 of 2\"\ntimeout = \"1500 ms\"\nattempts = 2\n\
             cache = { max_age = \"5 minutes\", max_messages = 1_000 }\n\n[profiles.\"a b\"]\nproviders = [\"local:\"]\n",
        )
        .unwrap();
        let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["prod", "a b"]);
        assert_eq!((all[0].providers.len(), all[0].write), (2, Write::AtLeast(1)));
        assert_eq!(all[0].patience, Patience { timeout: Some(Duration::from_millis(1_500)), attempts: Some(2) });
        let cache = all[0].cache.as_ref().unwrap();
        assert_eq!((cache.age(), cache.messages()), (Duration::from_secs(300), 1_000));
        assert_eq!((all[1].write, all[1].cache.is_none()), (Write::All, true));
        assert_eq!(
            one("write = \"failover\"\norder = \"nearest\"\nhedge_after = \"200ms\"").unwrap().write,
            Write::Failover { nearest: true, hedge_after: Some(Duration::from_millis(200)) }
        );
        assert!(profiles("").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_nearest_known_key() {
        for (body, line, word) in [
            ("wirte = \"all\"", 3, "is it \\\"write\\\"?"),
            ("colour = 1", 3, "there are providers, write"),
            ("\ntoken = \"hunter2\"", 4, "looks like a secret"),
            ("cache = { max_agee = \"1 s\" }", 3, "max_age"),
            ("cache = 5", 3, "cache is a table"),
            ("write = \"3 of 2\"", 3, "as \\\"2 of 3\\\""),
            ("write = \"2 of 3\"", 3, "there are 2 providers"),
            ("write = \"some\"", 3, "failover"),
            ("order = \"nearest\"", 3, "go with write"),
            ("write = \"failover\"\norder = \"random\"", 4, "listed"),
            ("attempts = 0", 3, "1 to 20"),
            ("attempts = \"2\"", 3, "1 to 20"),
            ("timeout = 10", 3, "text in quotes"),
            ("timeout = \"0 s\"", 3, "more than nothing"),
            ("timeout = \"soon\"", 3, "no span of time"),
            ("write = ", 3, "no TOML"),
        ] {
            let said = one(body).unwrap_err();
            assert!(said.contains(&format!("c.toml: line {line}: ")) && said.contains(word), "{body}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let said = profiles("[profiles.p]\nwrite = \"all\"").unwrap_err();
        assert!(said.contains("line 1") && said.contains("has no providers"), "{said}");
        let said = profiles("[profile.p]\nproviders = []").unwrap_err();
        assert!(said.contains("is it \\\"profiles\\\"?"), "{said}");
        let said = profiles("[profiles.p]\nproviders = [\"local:\",\n\"vault:transit/k,token=hunter2\"]").unwrap_err();
        assert!(said.contains("line 3") && said.contains("VAULT_TOKEN") && !said.contains("hunter2"), "{said}");
    }
}
