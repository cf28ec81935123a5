//! The files of AWS's command line: `~/.aws/config` and `~/.aws/credentials`.
//!
//! After <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.

use super::credentials::fingerprint;
use super::surroundings::{Environment, read_file};
use crate::error::Result;
use reqsign_core::Context;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// The properties of one section. Some are secrets.
pub(super) type Properties = BTreeMap<String, Zeroizing<String>>;

/// What both files say.
#[derive(Default)]
pub(super) struct Profiles {
    profiles: BTreeMap<String, Properties>,
    sso_sessions: BTreeMap<String, Properties>,
}

impl Profiles {
    /// Reads both files. One that cannot be read counts as empty, as it does for AWS's own programs.
    pub(super) async fn read(environment: &Environment, context: &Context) -> Self {
        let mut all = Self::default();
        for (variable, default, form) in FILES {
            let path = environment.text(variable).unwrap_or_else(|| default.to_owned());
            let Some(path) = context.expand_home_dir(&path) else { continue };
            if let Ok(bytes) = context.file_read(&path).await {
                let bytes = Zeroizing::new(bytes);
                all.add(&String::from_utf8_lossy(&bytes), form);
            }
        }
        all
    }

    /// A number for what both files hold now: the same for the same.
    ///
    /// # Errors
    /// Kind RandomFailed.
    pub(super) fn fingerprint(environment: &Environment) -> Result<u64> {
        let mut parts = Vec::new();
        for (variable, default, _) in FILES {
            let path = environment.text(variable).unwrap_or_else(|| default.to_owned());
            let path = match (path.strip_prefix("~/"), environment.text("HOME")) {
                (Some(rest), Some(home)) => format!("{home}/{rest}"),
                _ => path,
            };
            parts.push(read_file(Path::new(&path)).unwrap_or_default());
        }
        fingerprint("AWS's files", &parts.iter().map(|part| part.as_slice()).collect::<Vec<_>>())
    }

    pub(super) fn profile(&self, name: &str) -> Option<&Properties> {
        self.profiles.get(name)
    }

    pub(super) fn sso_session(&self, name: &str) -> Option<&Properties> {
        self.sso_sessions.get(name)
    }

    /// Adds a file's sections; what it says of a property stands, whatever an earlier file said.
    fn add(&mut self, text: &str, form: Form) {
        let mut section: Option<&mut Properties> = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(rest) = trimmed.strip_prefix('[') {
                let title = rest.split_once(']').map(|(title, _)| title.trim());
                section = title.and_then(|title| self.section(title, form));
                continue;
            }
            // Indented lines belong to the property above, which is none of those that are read here.
            let is_nested = line.starts_with([' ', '\t']);
            if let (Some(section), Some((name, value)), false) = (&mut section, trimmed.split_once('='), is_nested) {
                let value = [" #", " ;", "\t#", "\t;"]
                    .iter()
                    .fold(value, |value, mark| value.split_once(mark).map_or(value, |(value, _)| value));
                section.insert(name.trim().to_ascii_lowercase(), Zeroizing::new(value.trim().to_owned()));
            }
        }
    }

    fn section(&mut self, title: &str, form: Form) -> Option<&mut Properties> {
        let (kind, name) = title.split_once([' ', '\t']).unwrap_or(("", title));
        let name = name.trim().trim_matches(['"', '\'']).to_owned();
        match (form, kind) {
            (Form::Credentials, "") => Some(self.profiles.entry(name).or_default()),
            (Form::Config, "") if name == "default" => Some(self.profiles.entry(name).or_default()),
            (Form::Config, "profile") => Some(self.profiles.entry(name).or_default()),
            (Form::Config, "sso-session") => Some(self.sso_sessions.entry(name).or_default()),
            _ => None,
        }
    }
}

const FILES: [(&str, &str, Form); 2] = [
    ("AWS_CONFIG_FILE", "~/.aws/config", Form::Config),
    ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", Form::Credentials),
];

/// In the one file a profile's section is `[profile NAME]`, in the other `[NAME]`.
#[derive(Clone, Copy)]
enum Form {
    Config,
    Credentials,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(profiles: &'a Profiles, profile: &str, name: &str) -> Option<&'a str> {
        profiles.profile(profile)?.get(name).map(|value| value.as_str())
    }

    #[test]
    fn both_files_make_one_profile_and_the_credentials_win() {
        let mut all = Profiles::default();
        all.add(
            "# mine\n[default]\nregion = eu-central-1\naws_access_key_id=OLD\n[profile \"my app\"]\nrole_arn = r ; why\n\
             s3 =\n  endpoint_url = x\n[sso-session corp]\nsso_region=us-east-1\n[services x]\nregion=no\n[nonsense\n\
             region=no\n[other]\nregion=no\n",
            Form::Config,
        );
        all.add("[default]\nAWS_ACCESS_KEY_ID = NEW\n[other]\nregion=yes\nno value here\n", Form::Credentials);
        assert_eq!(value(&all, "default", "region"), Some("eu-central-1"));
        assert_eq!(value(&all, "default", "aws_access_key_id"), Some("NEW"));
        assert_eq!(value(&all, "my app", "role_arn"), Some("r"));
        assert_eq!(value(&all, "my app", "endpoint_url"), None);
        assert_eq!(value(&all, "other", "region"), Some("yes"));
        assert_eq!(all.sso_session("corp").unwrap()["sso_region"].as_str(), "us-east-1");
        assert!(all.profile("x").is_none() && all.sso_session("x").is_none());
    }

    #[test]
    fn a_secret_may_hold_every_character_that_aws_uses() {
        let mut all = Profiles::default();
        all.add("[default]\naws_secret_access_key = ab/c+d=#;e=\n", Form::Credentials);
        assert_eq!(value(&all, "default", "aws_secret_access_key"), Some("ab/c+d=#;e="));
    }
}
