//! How a provider of AWS KMS is put together.

use super::arn::{KeyArn, KeyName, is_region};
use super::call::Regional;
use super::caller::Caller;
use super::chain::{Chain, region_of_profile};
use super::credentials::AwsCredentials;
use super::region::Addressing;
use super::source::{AwsRole, Source};
use super::surroundings::{Environment, Programs, context};
use super::wire::Grants;
use super::{AwsKmsProvider, Keys};
use crate::error::{Error, Result};
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::reqwest::ReqwestTransport;
use crate::provider::http::transport::HttpTransport;
use crate::provider::{ProviderIdentity, Revocations};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Puts an [`AwsKmsProvider`] together: [`build`](Self::build) without a call, where every key is named by its ARN, or
/// [`connect`](Self::connect), which asks the KMS what aliases and key ids stand for.
///
/// What is not said here comes from the environment, as for AWS's own programs: credentials, the Region of keys that are
/// named without one, addresses (docs/aws-kms.md has the list).
///
/// ```
/// use envelock::{AwsKmsProvider, HttpPolicy};
/// # fn main() -> Result<(), envelock::Error> {
/// let provider = AwsKmsProvider::strict(["arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"])
///     .also_opens(["arn:aws:kms:eu-central-1:111122223333:key/0987dcba-09fe-87dc-65ba-ab0987654321"])
///     .policy(HttpPolicy::default().attempts(3))
///     .build()?;
/// # let _ = provider;
/// # Ok(())
/// # }
/// ```
#[must_use = "call `build` or `connect`"]
pub struct AwsKmsBuilder {
    asked: Asked,
    also: Vec<String>,
    region: Option<String>,
    addressing: Addressing,
    credentials: Option<AwsCredentials>,
    profile: Option<String>,
    programs: Programs,
    role: Option<AwsRole>,
    grant_tokens: Vec<String>,
    environment: Environment,
    policy: HttpPolicy,
    transport: Option<Arc<dyn HttpTransport>>,
    /// Made by `build` or `connect`, once.
    caller: Option<Caller>,
}

/// Which keys.
enum Asked {
    Strict(Vec<String>),
    Discovery { partition: String, accounts: Vec<String>, regions: Vec<String> },
}

impl AwsKmsBuilder {
    pub(super) fn strict(keys: Vec<String>) -> Self {
        Self::new(Asked::Strict(keys))
    }

    pub(super) fn discovery(partition: String, accounts: Vec<String>, regions: Vec<String>) -> Self {
        Self::new(Asked::Discovery { partition, accounts, regions })
    }

    fn new(asked: Asked) -> Self {
        Self {
            asked,
            also: Vec::new(),
            region: None,
            addressing: Addressing::default(),
            credentials: None,
            profile: None,
            programs: Programs::default(),
            role: None,
            grant_tokens: Vec::new(),
            environment: Environment::default(),
            policy: HttpPolicy::default(),
            transport: None,
            caller: None,
        }
    }

    /// Keys that it opens as well and never writes under: former ones, and the same multi-Region key in other Regions, which
    /// are asked where the first is not available.
    pub fn also_opens<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.also.extend(keys.into_iter().map(Into::into));
        self
    }

    /// The Region of keys that are named by `alias/NAME` or by a key id alone. Default: `AWS_REGION`,
    /// `AWS_DEFAULT_REGION`, the profile's.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The address of the KMS, for every Region: a VPC endpoint, an emulator. `https:`, or `http:` on this machine. Default:
    /// `AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL`, the Region's own.
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.addressing.given = Some(address.into());
        self
    }

    /// Lets the address be `http:` on another machine: data keys then cross the network in the clear.
    pub fn dangerous_plain_http(mut self) -> Self {
        self.addressing.plain = true;
        self
    }

    /// Calls FIPS 140 endpoints. Default: as `AWS_USE_FIPS_ENDPOINT` says.
    pub fn fips_endpoints(mut self) -> Self {
        self.addressing.fips = Some(true);
        self
    }

    /// Calls endpoints with IPv6 as well. Default: as `AWS_USE_DUALSTACK_ENDPOINT` says.
    pub fn dual_stack_endpoints(mut self) -> Self {
        self.addressing.dual_stack = Some(true);
        self
    }

    /// Calls with these credentials, and looks for no others.
    pub fn credentials(mut self, credentials: AwsCredentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Calls with the credentials of this profile of `~/.aws/config` and `~/.aws/credentials`, and looks for no others.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Runs the program that a profile names as `credential_process`, without a shell, its arguments cut at spaces. Off by
    /// default: a program that may be run is a file to guard, and a library should not start one unasked.
    pub fn run_credential_process(mut self) -> Self {
        self.programs = Programs::Run;
        self
    }

    /// Calls as this role, which it assumes with the credentials that it has otherwise.
    pub fn assume_role(mut self, role: AwsRole) -> Self {
        self.role = Some(role);
        self
    }

    /// Tokens of new grants, at most 10, sent with every call: a grant works at once with its token, and without it
    /// within some minutes.
    pub fn grant_tokens<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.grant_tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Reads these variables in place of the process's environment, `HOME` included.
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.environment = Environment::of(variables);
        self
    }

    /// Time-outs, retries, and the rest of how patient it is.
    pub fn policy(mut self, policy: HttpPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sends by another HTTP client than envelock's own, for the KMS and for credentials.
    pub fn transport(mut self, transport: Arc<dyn HttpTransport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The provider, without any call.
    ///
    /// # Errors
    /// Kind InvalidInput for a name that is no key ARN ([`connect`](Self::connect) takes the others), no key at all, the
    /// same key twice, a multi-Region key in two Regions, and addresses that are not usable.
    pub fn build(mut self) -> Result<AwsKmsProvider> {
        let (keys, also) = (self.take_keys(), std::mem::take(&mut self.also));
        self.assemble(arns(&keys)?, arns(&also)?)
    }

    /// The provider, after it has asked the KMS (`DescribeKey`) which keys aliases and key ids stand for. That is asked once:
    /// an alias that is pointed elsewhere later is followed by the next `connect`.
    ///
    /// So the provider knows the ARN of each key of its own from the beginning: it can name its recipients without a call,
    /// match slots, and see that an answer is about another key.
    ///
    /// # Errors
    /// As [`build`](Self::build), but for the names; what `DescribeKey` fails with; kind InvalidInput for a key that is not
    /// a symmetric one for encryption.
    pub async fn connect(mut self) -> Result<AwsKmsProvider> {
        let (keys, also) = (self.take_keys(), std::mem::take(&mut self.also));
        let mut names = keys.iter().chain(&also).map(|name| KeyName::parse(name));
        if names.all(|name| matches!(name, Ok(KeyName::Key(_)))) {
            return self.assemble(arns(&keys)?, arns(&also)?);
        }
        self.prepare_region().await?;
        let (mut found, mut found_also) = (Vec::new(), Vec::new());
        for (names, found) in [(&keys, &mut found), (&also, &mut found_also)] {
            for name in names {
                found.push(self.resolve(name).await?);
            }
        }
        self.assemble(found, found_also)
    }

    fn take_keys(&mut self) -> Vec<String> {
        match &mut self.asked {
            Asked::Strict(keys) => std::mem::take(keys),
            Asked::Discovery { .. } => Vec::new(),
        }
    }

    /// Finds the Region for names without one, in a profile's file if need be.
    async fn prepare_region(&mut self) -> Result<()> {
        if self.region.is_none() {
            self.region = self.region_of_environment();
        }
        if self.region.is_none() {
            let transport = self.shared_transport()?;
            let context = context(&self.environment, &transport, self.programs);
            self.region = region_of_profile(&self.environment, self.profile.as_deref(), &context).await;
        }
        Ok(())
    }

    fn region_of_environment(&self) -> Option<String> {
        self.environment.text("AWS_REGION").or_else(|| self.environment.text("AWS_DEFAULT_REGION"))
    }

    async fn resolve(&mut self, name: &str) -> Result<KeyArn> {
        let (partition, region, account, asked) = match KeyName::parse(name)? {
            KeyName::Key(key) => return Ok(key),
            KeyName::AliasArn { text, partition, region, account } => (Some(partition), region, Some(account), text),
            KeyName::Short(text) => {
                let region = self.region.clone().ok_or_else(|| {
                    Error::invalid_input(format!("the key {text} is named without a Region"))
                        .with_advice("give the Region (`region`; to the program, `,region=NAME`; AWS_REGION), or name the key by its ARN")
                })?;
                (None, region, None, text)
            }
        };
        let key = self.caller(&region)?.regional(partition.as_deref(), &region)?.describe(&asked).await?;
        // An alias and its key are always in one account and Region.
        let is_elsewhere = key.region() != region
            || partition.is_some_and(|partition| partition != key.partition())
            || account.is_some_and(|account| account != key.account());
        let is_another = !name.contains("alias/") && !key.as_str().ends_with(&format!(":key/{name}"));
        if is_elsewhere || is_another {
            return Err(Error::new(
                crate::error::ErrorKind::AuthenticationFailed,
                format!("DescribeKey for {asked} was answered wrongly: it is of another key ({key})"),
            )
            .with_advice("find out who answers at this address before you trust it again"));
        }
        Ok(key)
    }

    /// Who calls, made once: what is asked before there is a provider is asked with the provider's own credentials. `region` is
    /// whose STS is asked, where nothing else says.
    fn caller(&mut self, region: &str) -> Result<Caller> {
        if let Some(caller) = &self.caller {
            return Ok(caller.clone());
        }
        let transport = self.shared_transport()?;
        let revocations = Revocations::default();
        let source = self.source(region, &revocations);
        let context = context(&self.environment, &transport, self.programs);
        let grants = Grants::new(self.grant_tokens.clone())?;
        let addressing = self.addressing.clone().filled_from(&self.environment);
        let policy = self.policy.clone();
        let caller = Caller::new(transport, policy, addressing, (source, context), grants, revocations)?;
        Ok(self.caller.insert(caller).clone())
    }

    /// The caller's transport, or one of our own, made once.
    fn shared_transport(&mut self) -> Result<Arc<dyn HttpTransport>> {
        if let Some(transport) = &self.transport {
            return Ok(transport.clone());
        }
        let transport: Arc<dyn HttpTransport> = Arc::new(ReqwestTransport::new()?);
        self.transport = Some(transport.clone());
        Ok(transport)
    }

    /// `revocations` is moved when another principal is found than before.
    fn source(&self, region: &str, revocations: &Revocations) -> Source {
        let sts_region = self.region.clone().or_else(|| self.region_of_environment());
        let sts_region = sts_region.unwrap_or_else(|| region.to_owned());
        let source = match &self.credentials {
            Some(given) => Source::Given(given.clone()),
            None => Source::Found(Box::new(Chain::new(
                self.environment.clone(),
                self.profile.clone(),
                self.programs,
                sts_region.clone(),
                revocations.clone(),
            ))),
        };
        match &self.role {
            None => source,
            Some(role) => Source::Role { role: role.clone(), base: Box::new(source), region: sts_region },
        }
    }

    fn assemble(mut self, keys: Vec<KeyArn>, also: Vec<KeyArn>) -> Result<AwsKmsProvider> {
        let keys = match &self.asked {
            Asked::Strict(_) => strict(keys, also)?,
            Asked::Discovery { partition, accounts, regions } => discovery(partition, accounts, regions)?,
        };
        let places = keys.places();
        let first = places.first().map(|(_, region)| region.clone()).unwrap_or_default();
        let caller = self.caller(&first)?;
        let mut regions = BTreeMap::new();
        for (partition, region) in places {
            let regional = caller.regional(Some(&partition), &region)?;
            regions.insert((partition, region), regional);
        }
        let endpoints: Vec<_> = regions.values().map(Regional::endpoint).collect();
        let identity = format!("aws-kms {keys} at [{}] as {}", endpoints.join(" "), caller.principal());
        Ok(AwsKmsProvider {
            keys,
            regions,
            revocations: caller.revocations().clone(),
            revoked: Mutex::default(),
            identity: ProviderIdentity::new(identity),
        })
    }
}

impl fmt::Debug for AwsKmsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = match &self.asked {
            Asked::Strict(keys) => keys.clone(),
            Asked::Discovery { accounts, .. } => accounts.clone(),
        };
        f.debug_struct("AwsKmsBuilder").field("keys", &keys).finish_non_exhaustive()
    }
}

fn arns(names: &[String]) -> Result<Vec<KeyArn>> {
    let arn = |name: &String| match KeyName::parse(name)? {
        KeyName::Key(key) => Ok(key),
        _ => Err(Error::invalid_input(format!("what key {name} stands for is for the KMS to say"))
            .with_advice("call `connect` instead of `build`, or name the key itself by its ARN (arn:aws:kms:…:key/…)")),
    };
    names.iter().map(arn).collect()
}

/// "MRKs are unique": two Regions of one key hold one material, and would make two slots that open alike.
fn strict(keys: Vec<KeyArn>, also: Vec<KeyArn>) -> Result<Keys> {
    if keys.is_empty() {
        return Err(Error::invalid_input("no key is named").with_advice("name at least one key to encrypt under"));
    }
    for (at, key) in keys.iter().enumerate() {
        let before = keys.get(..at).unwrap_or_default();
        if before.contains(key) {
            return Err(Error::invalid_input(format!("the key {key} is named twice")).with_advice("name each key once"));
        }
        if before.iter().any(|other| other.is_replica_of(key)) {
            return Err(Error::invalid_input(format!("the multi-Region key {key} is named in two Regions"))
                .with_advice("name it in the Region to encrypt in, and in the others by `also_opens`"));
        }
    }
    let also = also.into_iter().filter(|key| !keys.contains(key)).collect();
    Ok(Keys::Strict { keys, also })
}

fn discovery(partition: &str, accounts: &[String], regions: &[String]) -> Result<Keys> {
    let is_account = |account: &String| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    if accounts.is_empty() || regions.is_empty() || !accounts.iter().all(is_account) {
        return Err(Error::invalid_input(
            "discovery needs the accounts, of 12 digits each, and the Regions that it trusts",
        )
        .with_advice("name them all: a key of any other account may be an attacker's own"));
    }
    if !is_region(partition) || !regions.iter().all(|region| is_region(region)) {
        return Err(Error::invalid_input("a partition or a Region has a name that AWS gives none")
            .with_advice("a partition is called aws, aws-cn or aws-us-gov, a Region eu-central-1"));
    }
    Ok(Keys::Discovery { partition: partition.to_owned(), accounts: accounts.to_vec(), regions: regions.to_vec() })
}
