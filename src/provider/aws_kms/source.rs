//! Where credentials come from.

use super::chain::Chain;
use super::credentials::{AwsCredentials, fingerprint};
use crate::error::{Error, ErrorKind, Result};
use reqsign_aws_v4::{AssumeRoleCredentialProvider, Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, ProvideCredential, Signer};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// A role to call the KMS as, by `sts:AssumeRole`.
///
/// ```
/// use envelock::AwsRole;
/// let role = AwsRole::new("arn:aws:iam::111122223333:role/app").session_name("billing");
/// # let _ = role;
/// ```
#[derive(Clone)]
pub struct AwsRole {
    arn: String,
    session_name: String,
    external_id: Option<Zeroizing<String>>,
    duration: Duration,
}

impl AwsRole {
    /// The role `arn`, for an hour at a time, in sessions named `envelock`.
    #[must_use]
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            session_name: "envelock".to_owned(),
            external_id: None,
            duration: Duration::from_secs(3_600),
        }
    }

    /// The session's name, which CloudTrail shows.
    #[must_use]
    pub fn session_name(mut self, name: impl Into<String>) -> Self {
        self.session_name = name.into();
        self
    }

    /// The external id that the role's trust policy asks for. AWS does not count it among secrets, and it goes to STS in the
    /// query of an address, as CloudTrail shows it.
    #[must_use]
    pub fn external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(Zeroizing::new(id.into()));
        self
    }

    /// How long each session lasts: 15 minutes to 12 hours, and no longer than the role allows. Default: an hour.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    fn secrets(&self) -> &[u8] {
        self.external_id.as_ref().map_or(&[], |id| id.as_bytes())
    }

    /// Credentials of the role, got with `base` from the STS of `region`.
    pub(super) async fn assume(&self, base: Credential, region: &str, context: &Context) -> Result<Credential> {
        let base = Wiped(base);
        let Wiped(base) = &base;
        let mut known = StaticCredentialProvider::new(&base.access_key_id, &base.secret_access_key);
        if let Some(token) = &base.session_token {
            known = known.with_session_token(token);
        }
        let signer = Signer::new(context.clone(), known, RequestSigner::new("sts", region));
        let seconds = u32::try_from(self.duration.as_secs()).unwrap_or(u32::MAX);
        let mut provider = AssumeRoleCredentialProvider::new(self.arn.clone(), signer)
            .with_role_session_name(self.session_name.clone())
            .with_duration_seconds(seconds)
            .with_region(region.to_owned())
            .with_regional_sts_endpoint();
        if let Some(id) = &self.external_id {
            provider = provider.with_external_id(id.to_string());
        }
        let from = format!("the role {}", self.arn.escape_debug());
        asked(&from, ADVICE_ROLE, provider.provide_credential(context).await)
    }
}

impl fmt::Debug for AwsRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsRole").field("arn", &self.arn).finish_non_exhaustive()
    }
}

/// Credentials on their way. Wiped on drop.
struct Wiped(Credential);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.secret_access_key.zeroize();
        self.0.session_token.zeroize();
    }
}

/// A source of credentials.
#[derive(Debug)]
pub(super) enum Source {
    /// The caller's own.
    Given(AwsCredentials),
    /// What AWS's programs would find.
    Found(Box<Chain>),
    /// A role, assumed with those of another source.
    Role { role: AwsRole, base: Box<Source>, region: String },
}

impl Source {
    /// Boxed, since roles nest.
    pub(super) fn provide<'a>(
        &'a self,
        context: &'a Context,
    ) -> Pin<Box<dyn Future<Output = Result<Credential>> + Send + 'a>> {
        Box::pin(async move {
            match self {
                Self::Given(credentials) => Ok(credentials.credential()),
                Self::Found(chain) => chain.provide(context).await,
                Self::Role { role, base, region } => role.assume(base.provide(context).await?, region, context).await,
            }
        })
    }

    /// Where its credentials come from, for people, once it has given some.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Given(_) => "that was given".into(),
            Self::Found(chain) => format!("of {}", chain.told()),
            Self::Role { role, base, .. } => {
                format!("of the role {}, assumed by credentials {}", role.arn.escape_debug(), base.told())
            }
        }
    }

    pub(super) fn can_be_renewed(&self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// Whom calls are made as, without a secret. Others by the same name are told apart by a number.
    ///
    /// # Errors
    /// Kind RandomFailed.
    pub(super) fn principal(&self) -> Result<String> {
        match self {
            Self::Given(credentials) => {
                let id = credentials.access_key_id();
                Ok(format!("{id:?}#{}", fingerprint(id, &credentials.secrets())?))
            }
            Self::Found(chain) => chain.principal(),
            Self::Role { role, base, .. } => {
                let base = base.principal()?;
                let number = fingerprint(&role.arn, &[base.as_bytes(), role.session_name.as_bytes(), role.secrets()])?;
                Ok(format!("{:?}#{number} by {base}", role.arn))
            }
        }
    }
}

/// What a source of `reqsign`'s said. Its own words are left out: they may repeat an answer, which is credentials.
pub(super) fn asked(
    from: &str,
    advice: &'static str,
    outcome: reqsign_core::Result<Option<Credential>>,
) -> Result<Credential> {
    use reqsign_core::ErrorKind as Kind;
    let error = match outcome {
        Ok(Some(credential)) => return Ok(credential),
        Ok(None) => {
            return Err(Error::new(ErrorKind::KeyDenied, format!("{from} gave no AWS credentials")).with_advice(advice));
        }
        Err(error) => error,
    };
    let (kind, what) = match error.kind() {
        _ if error.is_retryable() => (ErrorKind::Unavailable, "does not answer"),
        Kind::RateLimited => (ErrorKind::Unavailable, "is asked too often"),
        Kind::PermissionDenied => (ErrorKind::KeyDenied, "is refused"),
        Kind::CredentialInvalid => (ErrorKind::KeyDenied, "needs credentials that are valid"),
        Kind::ConfigInvalid | Kind::RequestInvalid => (ErrorKind::InvalidInput, "is not set up"),
        Kind::Unexpected => (ErrorKind::Unavailable, "answers with something else than credentials"),
    };
    Err(Error::new(kind, format!("AWS credentials cannot be got: {from} {what}")).with_advice(advice))
}

const ADVICE_ROLE: &str = "check the role's ARN, its trust policy and external id, and that the calling identity may \
                           sts:AssumeRole it";
