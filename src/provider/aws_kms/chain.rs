//! Credentials as AWS's own programs find them: the environment, a profile, a web identity, the container, the instance.
//!
//! The order is that of AWS's SDKs. A source that is set up and fails ends the search: what comes after it would be
//! somebody else. Each is asked through `reqsign`; which one it is, and what a profile says, is decided here, since that
//! crate's own chain goes on after any failure and knows neither roles nor SSO sessions in profiles.

use super::arn::is_region;
use super::credentials::fingerprint;
use super::profile::{Profiles, Properties};
use super::source::{AwsRole, asked};
use super::surroundings::{Environment, Programs};
use crate::error::{Error, ErrorKind, Result};
use crate::provider::Revocations;
use crate::provider::http::transport::{TransportError, TransportFailure};
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    IMDSv2CredentialProvider, ProcessCredentialProvider, SSOCredentialProvider,
};
use reqsign_core::{Context, ProvideCredential};
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The search, for one provider.
#[derive(Debug)]
pub(super) struct Chain {
    environment: Environment,
    /// The only profile to look at, if the caller names one.
    profile: Option<String>,
    programs: Programs,
    /// Whose STS is asked, where nothing else says.
    region: String,
    /// Kept, since it keeps the token that the instance's service hands out for hours; until a failure, which may be that token's.
    instance: Mutex<IMDSv2CredentialProvider>,
    /// What AWS's files said last, and what is moved when they say something else: they may name somebody else then.
    files: Mutex<Option<u64>>,
    /// The profile that gave credentials last.
    found: Mutex<Option<String>>,
    revocations: Revocations,
}

impl Chain {
    pub(super) fn new(
        environment: Environment,
        profile: Option<String>,
        programs: Programs,
        region: String,
        revocations: Revocations,
    ) -> Self {
        let (instance, files) = (Mutex::new(IMDSv2CredentialProvider::new()), Mutex::default());
        Self { environment, profile, programs, region, instance, files, found: Mutex::default(), revocations }
    }

    /// # Errors
    /// Kind KeyDenied if there are none; what the source that is set up fails with.
    pub(super) async fn provide(&self, context: &Context) -> Result<Credential> {
        let set = |name: &str| self.environment.has(name);
        if let Some(name) = &self.profile {
            return match self.of_profile(name, context).await? {
                Some(credential) => Ok(credential),
                None => Err(no_profile(name)),
            };
        }
        if set("AWS_ACCESS_KEY_ID") || set("AWS_SECRET_ACCESS_KEY") {
            return self.of_environment(context).await;
        }
        let named = self.environment.text("AWS_PROFILE");
        match (self.of_profile(named.as_deref().unwrap_or("default"), context).await?, named) {
            (Some(credential), _) => return Ok(credential),
            (None, Some(name)) => return Err(no_profile(&name)),
            (None, None) => {}
        }
        // A role alone is no half of it: other programs read that variable too.
        if set("AWS_WEB_IDENTITY_TOKEN_FILE") {
            self.needs("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")?;
            let mut provider = AssumeRoleWithWebIdentityCredentialProvider::new()
                .with_region(self.region.clone())
                .with_regional_sts_endpoint();
            if !set("AWS_ROLE_SESSION_NAME") {
                provider = provider.with_role_session_name(SESSION_NAME.to_owned());
            }
            return asked("the web identity", ADVICE_WEB, provider.provide_credential(context).await);
        }
        if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            return self.of_container(context).await;
        }
        if !self.environment.says("AWS_EC2_METADATA_DISABLED") {
            // On a machine outside EC2 nobody answers, which is no failure of a source but the end of the search.
            if let Some(credential) = self.of_instance_if_any(context).await? {
                return Ok(credential);
            }
        }
        Err(Error::new(
            ErrorKind::KeyDenied,
            "no AWS credentials are found: none in the environment or a profile, and no web identity, container or \
             instance gives any",
        )
        .with_advice(
            "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows what \
             AWS's own program finds",
        ))
    }

    /// Whom it finds, as far as that can be told without asking, and a number that tells apart what has the same name: by
    /// every variable of AWS's, and by what AWS's files say now.
    ///
    /// # Errors
    /// Kind RandomFailed.
    pub(super) fn principal(&self) -> Result<String> {
        let text = |name: &str| self.environment.text(name);
        let keys = self.environment.has("AWS_ACCESS_KEY_ID") && self.environment.has("AWS_SECRET_ACCESS_KEY");
        let name = match (&self.profile, text("AWS_PROFILE"), text("AWS_ROLE_ARN")) {
            (Some(name), ..) => format!("profile {name:?}"),
            _ if keys => format!("{:?} of the environment", text("AWS_ACCESS_KEY_ID").unwrap_or_default()),
            (None, Some(name), _) => format!("profile {name:?}"),
            (None, None, Some(role)) => format!("{role:?} by web identity"),
            (None, None, None) => "what is found".to_owned(),
        };
        let variables = self.environment.aws_variables();
        let files = if keys && self.profile.is_none() { 0 } else { Profiles::fingerprint(&self.environment)? };
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
        let files = files.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![&files];
        for (name, value) in &variables {
            parts.extend([name.as_bytes(), value.as_bytes()]);
        }
        Ok(format!("{name}#{}", fingerprint(&name, &parts)?))
    }

    /// Moves the epoch of caches if AWS's files have changed: they may name somebody else now.
    fn look_at_files(&self) -> Result<()> {
        let now = Profiles::fingerprint(&self.environment)?;
        let before = self.files.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if before.is_some_and(|before| before != now) {
            self.revocations.bump();
        }
        Ok(())
    }

    async fn of_environment(&self, context: &Context) -> Result<Credential> {
        self.needs("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")?;
        self.needs("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")?;
        asked("the environment", ADVICE_ENVIRONMENT, EnvCredentialProvider::new().provide_credential(context).await)
    }

    /// Half a source is a slip of whoever set it up, and what the search finds after it would be somebody else.
    fn needs(&self, one: &str, other: &str) -> Result<()> {
        if !self.environment.has(one) || self.environment.has(other) {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "AWS credentials are set by half: {one} is set, and {other} is not, or is empty"
        ))
        .with_advice("set both, or neither"))
    }

    async fn of_container(&self, context: &Context) -> Result<Credential> {
        asked("the container", ADVICE_CONTAINER, ECSCredentialProvider::new().provide_credential(context).await)
    }

    async fn of_instance(&self, context: &Context) -> Result<Credential> {
        asked("the instance", ADVICE_INSTANCE, self.ask_instance(context).await)
    }

    /// `None` if nothing listens where an instance has its service.
    async fn of_instance_if_any(&self, context: &Context) -> Result<Option<Credential>> {
        match self.ask_instance(context).await {
            Err(error) if is_nobody_there(&error) => Ok(None),
            outcome => asked("the instance", ADVICE_INSTANCE, outcome).map(Some),
        }
    }

    async fn ask_instance(&self, context: &Context) -> reqsign_core::Result<Option<Credential>> {
        let instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outcome = instance.provide_credential(context).await;
        if outcome.is_err() {
            *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = IMDSv2CredentialProvider::new();
        }
        outcome
    }

    /// `None` if there is no such profile, or if it says nothing of credentials.
    async fn of_profile(&self, name: &str, context: &Context) -> Result<Option<Credential>> {
        self.look_at_files()?;
        let profiles = Profiles::read(&self.environment, context).await;
        let found = self.of_properties(name, None, &profiles, context, ROLES_MAX).await?;
        let by = found.is_some().then(|| name.to_owned());
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = by;
        Ok(found)
    }

    /// What gave the credentials, for people, once some were found. What is not said of a profile is said by the variables, in the
    /// order of the search.
    pub(super) fn told(&self) -> String {
        let set = |name: &str| self.environment.has(name);
        if let Some(name) = &*self.found.lock().unwrap_or_else(PoisonError::into_inner) {
            return format!("the profile {:?}", name);
        }
        let role = self.environment.text("AWS_ROLE_ARN").unwrap_or_default();
        if set("AWS_ACCESS_KEY_ID") {
            "the environment".into()
        } else if set("AWS_WEB_IDENTITY_TOKEN_FILE") && !role.is_empty() {
            format!("the role {}, by web identity", role.escape_debug())
        } else if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            "the container".into()
        } else {
            "the instance's role".into()
        }
    }

    /// Boxed, since a profile's role may be assumed with another profile.
    fn of_properties<'a>(
        &'a self,
        name: &'a str,
        by: Option<&'a str>,
        profiles: &'a Profiles,
        context: &'a Context,
        deep: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Credential>>> + Send + 'a>> {
        Box::pin(async move {
            let Some(profile) = profiles.profile(name) else { return Ok(None) };
            let from = format!("the profile {}", name.escape_debug());
            let get = |name: &str| text(profile, name);
            if let Some(role) = get("role_arn") {
                // A profile may name itself as the source of the keys that its role is assumed with.
                if by != Some(name) {
                    return self.of_role(name, role, profiles, context, deep).await.map(Some);
                }
            }
            if let (Some(account), Some(role)) = (get("sso_account_id"), get("sso_role_name")) {
                return sso(&from, account, role, profile, profiles, context).await.map(Some);
            }
            match (get("aws_access_key_id"), get("aws_secret_access_key")) {
                (Some(id), Some(secret)) => {
                    return Ok(Some(Credential {
                        access_key_id: id.to_owned(),
                        secret_access_key: secret.to_owned(),
                        session_token: get("aws_session_token").map(str::to_owned),
                        expires_in: None,
                    }));
                }
                (Some(_), None) => return Err(half_a_profile(&from, "aws_access_key_id", "aws_secret_access_key")),
                (None, Some(_)) => return Err(half_a_profile(&from, "aws_secret_access_key", "aws_access_key_id")),
                (None, None) => {}
            }
            match (get("credential_process"), self.programs) {
                (None, _) => Ok(None),
                (Some(command), Programs::Run) => {
                    let provider = ProcessCredentialProvider::new().with_command(command);
                    asked(&from, ADVICE_PROCESS, provider.provide_credential(context).await).map(Some)
                }
                (Some(_), Programs::Refused) => Err(Error::invalid_input(format!(
                    "{from} has its credentials from a program (credential_process), which is not run unless asked for"
                ))
                .with_advice(
                    "call `run_credential_process` if the profile's file is yours alone, or give credentials",
                )),
            }
        })
    }

    /// The role of a profile: with a web identity, with another profile, or with what is around.
    async fn of_role(
        &self,
        name: &str,
        arn: &str,
        profiles: &Profiles,
        context: &Context,
        deep: usize,
    ) -> Result<Credential> {
        let Some(profile) = profiles.profile(name) else { return Err(no_profile(name)) };
        let get = |name: &str| text(profile, name);
        let wrong = |what: &str| {
            let message = format!("the profile {} {what}", name.escape_debug());
            Error::invalid_input(message).with_advice("correct it in ~/.aws/config, or name another profile")
        };
        let region = get("region").unwrap_or(&self.region).to_owned();
        if let Some(file) = get("web_identity_token_file") {
            let provider =
                AssumeRoleWithWebIdentityCredentialProvider::with_config(arn.to_owned(), file.to_owned().into())
                    .with_role_session_name(get("role_session_name").unwrap_or(SESSION_NAME).to_owned())
                    .with_region(region)
                    .with_regional_sts_endpoint();
            return asked("the web identity", ADVICE_WEB, provider.provide_credential(context).await);
        }
        if get("mfa_serial").is_some() {
            return Err(wrong("asks for a code of a second factor, which nobody is there to type"));
        }
        if deep == 0 {
            return Err(wrong("stands at the end of too many roles that are assumed one with the other"));
        }
        let base = match (get("source_profile"), get("credential_source")) {
            (Some(source), _) => match self.of_properties(source, Some(name), profiles, context, deep - 1).await? {
                Some(base) => base,
                None => return Err(wrong("names a source_profile that is not there or has no credentials")),
            },
            (None, Some("Environment")) => self.of_environment(context).await?,
            (None, Some("EcsContainer")) => self.of_container(context).await?,
            (None, Some("Ec2InstanceMetadata")) => self.of_instance(context).await?,
            _ => return Err(wrong("has a role_arn, and neither source_profile nor credential_source")),
        };
        let mut role = AwsRole::new(arn).session_name(get("role_session_name").unwrap_or(SESSION_NAME));
        if let Some(id) = get("external_id") {
            role = role.external_id(id);
        }
        if let Some(seconds) = get("duration_seconds").and_then(|seconds| seconds.parse().ok()) {
            role = role.duration(Duration::from_secs(seconds));
        }
        role.assume(base, &region, context).await
    }
}

/// The login of `aws sso login`, as it stands in that program's cache.
async fn sso(
    from: &str,
    account: &str,
    role: &str,
    profile: &Properties,
    profiles: &Profiles,
    context: &Context,
) -> Result<Credential> {
    let session = text(profile, "sso_session");
    let properties = session.and_then(|name| profiles.sso_session(name)).unwrap_or(profile);
    let region = text(properties, "sso_region");
    // The cache's file is named after the session, or, where the profile has none, after the start page.
    let (Some(login), Some(region)) = (session.or_else(|| text(properties, "sso_start_url")), region) else {
        let message = format!("{from} lacks sso_region, or names an sso-session that is not there");
        return Err(Error::invalid_input(message).with_advice("run `aws configure sso`, or correct ~/.aws/config"));
    };
    if !is_region(region) {
        let message = format!("{from} has an sso_region that is no Region of AWS");
        return Err(Error::invalid_input(message).with_advice("correct it in ~/.aws/config"));
    }
    let provider = SSOCredentialProvider::new()
        .with_account_id(account)
        .with_role_name(role)
        .with_region(region)
        .with_start_url(login);
    asked(&format!("the SSO login of {from}"), ADVICE_SSO, provider.provide_credential(context).await)
}

fn text<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    properties.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
}

/// The Region that a profile is set to, for keys that are named without one.
pub(super) async fn region_of_profile(
    environment: &Environment,
    profile: Option<&str>,
    context: &Context,
) -> Option<String> {
    let named = profile.map(str::to_owned).or_else(|| environment.text("AWS_PROFILE"));
    let profiles = Profiles::read(environment, context).await;
    let properties = profiles.profile(named.as_deref().unwrap_or("default"))?;
    text(properties, "region").map(str::to_owned)
}

/// Whether no connection was made at all.
fn is_nobody_there(error: &reqsign_core::Error) -> bool {
    let mut at: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(lost) = error.downcast_ref::<TransportError>() {
            return matches!(lost.failure(), TransportFailure::Connect | TransportFailure::Dns);
        }
        at = error.source();
    }
    false
}

fn half_a_profile(from: &str, one: &str, other: &str) -> Error {
    Error::invalid_input(format!("{from} has {one}, and no {other}"))
        .with_advice("give both in ~/.aws/credentials, or neither; AWS_PROFILE names another profile")
}

fn no_profile(name: &str) -> Error {
    Error::invalid_input(format!("there is no profile {} with credentials in AWS's files", name.escape_debug()))
        .with_advice("`aws configure list-profiles` shows which there are; check AWS_PROFILE, AWS_CONFIG_FILE and HOME")
}

/// Roles that are assumed one with another's session, at most.
const ROLES_MAX: usize = 5;
const SESSION_NAME: &str = "envelock";
const ADVICE_ENVIRONMENT: &str = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
const ADVICE_CONTAINER: &str = "check that the task or pod has a role; AWS_CONTAINER_CREDENTIALS_FULL_URI without TLS \
                                may name this machine or AWS's link-local addresses only";
const ADVICE_INSTANCE: &str = "check that the instance has a role, and that its metadata service is on; if this machine is none \
                               of EC2, give credentials, and set AWS_EC2_METADATA_DISABLED=true";
const ADVICE_WEB: &str = "check AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, and the role's trust policy";
const ADVICE_SSO: &str = "run `aws sso login` for this profile";
const ADVICE_PROCESS: &str = "run the profile's credential_process by hand: it must print AWS's JSON and end with 0";
