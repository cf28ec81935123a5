//! Who calls the KMS: what all the calls for one provider have in common, those before there is one among them.

use super::call::Regional;
use super::credentials::fingerprint;
use super::region::Addressing;
use super::renewal::Credentials;
use super::source::Source;
use super::wire::Grants;
use crate::error::Result;
use crate::provider::Revocations;
use crate::provider::http::client::Client;
use crate::provider::http::policy::HttpPolicy;
use crate::provider::http::transport::HttpTransport;
use reqsign_core::Context;
use std::sync::Arc;

/// Cheap to clone; clones share credentials and revocations.
#[derive(Clone)]
pub(super) struct Caller {
    transport: Arc<dyn HttpTransport>,
    policy: HttpPolicy,
    addressing: Addressing,
    credentials: Arc<Credentials>,
    grants: Arc<Grants>,
    revocations: Revocations,
    principal: String,
}

impl Caller {
    /// `revocations` is what `source` moves. Its principal is told now, before the source is asked: what AWS's files say later
    /// is a change.
    ///
    /// # Errors
    /// Kind RandomFailed.
    pub(super) fn new(
        transport: Arc<dyn HttpTransport>,
        policy: HttpPolicy,
        addressing: Addressing,
        (source, context): (Source, Context),
        grants: Grants,
        revocations: Revocations,
    ) -> Result<Self> {
        let mut principal = source.principal()?;
        let tokens: Vec<_> = grants.secrets().collect();
        if !tokens.is_empty() {
            let number = fingerprint("grant tokens", &tokens)?;
            principal.push_str(&format!(" with grants #{number}"));
        }
        let credentials = Arc::new(Credentials::new(source, context));
        Ok(Self { transport, policy, addressing, credentials, grants: Arc::new(grants), revocations, principal })
    }

    /// The KMS of a Region, in `partition` where that is known from an ARN.
    ///
    /// # Errors
    /// Kind InvalidInput if it has no address, or none that is usable.
    pub(super) fn regional(&self, partition: Option<&str>, region: &str) -> Result<Regional> {
        let endpoint = self.addressing.endpoint(partition, region)?;
        let client = Client::new(self.transport.clone(), self.policy.clone(), endpoint);
        Ok(Regional::new(client, region, self.credentials.clone(), self.grants.clone()))
    }

    pub(super) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// As whom, without a secret.
    pub(super) fn principal(&self) -> &str {
        &self.principal
    }
}
