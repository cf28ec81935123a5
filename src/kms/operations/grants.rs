//! Grants: created, listed, retired, revoked.

use crate::crypto;
use crate::error::{Error, ErrorKind, KeystoreCause, Result};
use crate::kms::LocalKms;
use crate::kms::answers::ListGrantsRequest;
use crate::kms::authorise::With;
use crate::kms::fields::time;
use crate::kms::page::{Page, PageLimits, PageRequest};
use crate::kms::permissions::{add_grant, all_grants, grants_of, remove_grant};
use crate::kms::policy::{CreateGrantRequest, Grant};
use crate::kms::records::KeyRecord;
use crate::kms::state::KeyOperation;
use crate::kms::tx::Tx;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt::Write as _;

/// What single principals may do with single keys, besides what the policies say.
impl LocalKms {
    /// Grants a principal operations on a key, from now on. The same request with the same name again is the same
    /// grant; without a name it is another one.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::{CreateGrantRequest, GrantConstraints, GrantOperation};
    /// let only_acme = GrantConstraints::new().encryption_context_subset([("tenant", "acme")]);
    /// let request = CreateGrantRequest::new("billing", [GrantOperation::Decrypt]).constraints(only_acme);
    /// let grant = kms.create_grant("alias/orders", &request).await?;
    /// kms.revoke_grant("alias/orders", &grant.grant_id).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// ValidationException, LimitExceededException above 50,000 grants of one key, DisabledException,
    /// KMSInvalidStateException, NotFoundException, AccessDeniedException; the keystore's own failures.
    pub async fn create_grant(&self, key: &str, request: &CreateGrantRequest) -> Result<Grant> {
        let (name, request) = (key.to_owned(), request.clone());
        let mut call = self.asks("CreateGrant").key(key);
        for (parameter, value) in request.parameters() {
            call = call.with(parameter, value);
        }
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.event.key_id.clone_from(&key.key_id);
            tx.permit_with(&key, KeyOperation::CreateGrant, With { creating: Some(&request), ..With::default() })?;
            tx.check_state(&key, KeyOperation::CreateGrant)?;
            let (id, token) = (random_text(32, hex)?, random_text(64, |bytes| URL_SAFE_NO_PAD.encode(bytes))?);
            let grant = request.to_grant(id, &key.key_id, token, time(tx.now))?;
            let others = grants_of(tx, &key.key_id)?;
            if let Some(same) = others.iter().find(|other| other.name.is_some() && is_same(other, &grant)) {
                return Ok(same.clone());
            }
            if others.len() >= GRANTS_MAX {
                return Err(Error::limit(format!("the key {} has {GRANTS_MAX} grants", key.key_id))
                    .with_code("LimitExceededException")
                    .with_advice("retire or revoke grants that are not needed any more, or use a policy"));
            }
            add_grant(tx, &grant)?;
            tx.event.set("grantId", grant.grant_id.as_str());
            Ok(grant)
        })
        .await
    }

    /// Every grant of a key, by id.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn list_grants(&self, key: &str) -> Result<Vec<Grant>> {
        self.list_grants_matching(key, &ListGrantsRequest::default()).await
    }

    /// As [`list_grants`](Self::list_grants), those that a request names.
    ///
    /// # Errors
    /// As [`list_grants`](Self::list_grants).
    pub async fn list_grants_matching(&self, key: &str, request: &ListGrantsRequest) -> Result<Vec<Grant>> {
        self.grants_matching(key, request, Ok).await
    }

    /// As [`list_grants_matching`](Self::list_grants_matching), a page of them.
    ///
    /// ```no_run
    /// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
    /// use envelock::kms::{ListGrantsRequest, PageRequest};
    /// let of_billing = ListGrantsRequest::default().grantee_principal("billing");
    /// let mut page = PageRequest::default().limit(100);
    /// loop {
    ///     let grants = kms.list_grants_page("alias/orders", &of_billing, page).await?;
    ///     grants.items.iter().for_each(|grant| println!("{}", grant.grant_id));
    ///     let Some(marker) = grants.next_marker else { break };
    ///     page = PageRequest::default().limit(100).after(marker);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`list_grants`](Self::list_grants), and InvalidMarkerException.
    pub async fn list_grants_page(
        &self,
        key: &str,
        request: &ListGrantsRequest,
        page: PageRequest,
    ) -> Result<Page<Grant>> {
        self.grants_matching(key, request, move |grants| {
            page.of(PageLimits::GRANTS, grants, |grant| grant.grant_id.clone(), read_grant_id, String::clone)
        })
        .await
    }

    async fn grants_matching<T: Send + 'static>(
        &self,
        key: &str,
        request: &ListGrantsRequest,
        answer: impl Fn(Vec<Grant>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let name = key.to_owned();
        let ListGrantsRequest { grantee_principal, grant_id } = request.clone();
        let mut call = self.asks("ListGrants").key(key);
        if let Some(principal) = &grantee_principal {
            call = call.with("granteePrincipal", principal.as_str());
        }
        if let Some(id) = &grant_id {
            call = call.with("grantId", id.as_str());
        }
        self.call(call, move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            tx.allow(&key, KeyOperation::ListGrants, None)?;
            let mut grants = grants_of(tx, &key.key_id)?;
            grants.retain(|grant| {
                grantee_principal.as_ref().is_none_or(|principal| grant.grantee_principal == *principal)
                    && grant_id.as_ref().is_none_or(|id| grant.grant_id == *id)
            });
            answer(grants)
        })
        .await
    }

    /// Every grant of every key that `principal` may retire as its retiring principal: for the owner, and for that
    /// principal.
    ///
    /// # Errors
    /// AccessDeniedException; the keystore's own failures.
    pub async fn list_retirable_grants(&self, principal: &str) -> Result<Vec<Grant>> {
        self.retirable_grants(principal, Ok).await
    }

    /// As [`list_retirable_grants`](Self::list_retirable_grants), a page of them.
    ///
    /// # Errors
    /// As [`list_retirable_grants`](Self::list_retirable_grants), and ValidationException, InvalidMarkerException for
    /// the page.
    pub async fn list_retirable_grants_page(&self, principal: &str, page: PageRequest) -> Result<Page<Grant>> {
        self.retirable_grants(principal, move |grants| {
            page.of(
                PageLimits::GRANTS,
                grants,
                |grant| (grant.key_id.clone(), grant.grant_id.clone()),
                |text| text.split_once(' ').and_then(|(key, grant)| Some((key.to_owned(), read_grant_id(grant)?))),
                |(key, grant): &(String, String)| format!("{key} {grant}"),
            )
        })
        .await
    }

    async fn retirable_grants<T: Send + 'static>(
        &self,
        principal: &str,
        answer: impl Fn(Vec<Grant>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let principal = principal.to_owned();
        self.call(self.asks("ListRetirableGrants").with("retiringPrincipal", principal.as_str()), move |tx| {
            if *tx.principal != *principal {
                tx.permit_owner("ListRetirableGrants")?;
            }
            let mut grants = all_grants(tx)?;
            grants.retain(|grant| grant.retiring_principal.as_deref() == Some(&principal));
            answer(grants)
        })
        .await
    }

    /// Ends a grant that is not needed any more: its retiring principal may, its grantee if RetireGrant is among its
    /// operations, and whoever the key's policy lets.
    ///
    /// # Errors
    /// NotFoundException, ValidationException, AccessDeniedException; the keystore's own failures.
    pub async fn retire_grant(&self, key: &str, grant_id: &str) -> Result<()> {
        self.end_grant("RetireGrant", KeyOperation::RetireGrant, key, grant_id).await
    }

    /// As [`retire_grant`](Self::retire_grant), by the grant's token.
    ///
    /// # Errors
    /// InvalidGrantTokenException, AccessDeniedException; the keystore's own failures.
    pub async fn retire_grant_by_token(&self, token: &str) -> Result<()> {
        let token = token.to_owned();
        self.call(self.asks("RetireGrant"), move |tx| {
            let found = all_grants(tx)?.into_iter().find(|grant| grant.grant_token == token);
            let grant = found.ok_or_else(|| {
                Error::invalid_input("there is no grant with this token")
                    .with_code("InvalidGrantTokenException")
                    .with_advice("it was retired or revoked, or the token is not whole")
            })?;
            end(tx, KeyOperation::RetireGrant, &grant)
        })
        .await
    }

    /// Ends a grant that should not be used any more: whoever the key's policy lets may.
    ///
    /// # Errors
    /// As [`retire_grant`](Self::retire_grant).
    pub async fn revoke_grant(&self, key: &str, grant_id: &str) -> Result<()> {
        self.end_grant("RevokeGrant", KeyOperation::RevokeGrant, key, grant_id).await
    }

    async fn end_grant(&self, call: &'static str, operation: KeyOperation, key: &str, grant_id: &str) -> Result<()> {
        let (name, grant_id) = (key.to_owned(), grant_id.to_owned());
        self.call(self.asks(call).key(key).with("grantId", grant_id.as_str()), move |tx| {
            let key = KeyRecord::existing(tx, &name)?;
            let found = grants_of(tx, &key.key_id)?.into_iter().find(|grant| grant.grant_id == grant_id);
            let Some(grant) = found else {
                // Who may not end any does not learn which there are.
                tx.allow(&key, operation, None).map_err(|e| match e.kind() {
                    ErrorKind::KeyDenied => e.with_advice(
                        "the key's policy or a grant must allow it; or the grant is gone already, retired or revoked",
                    ),
                    _ => e,
                })?;
                return Err(Error::new(
                    ErrorKind::NoMatchingKey,
                    format!("the key {} has no grant {grant_id}", key.key_id),
                )
                .with_code("NotFoundException")
                .with_cause(KeystoreCause::GrantMissing)
                .with_advice("list its grants: it may have been retired or revoked before"));
            };
            end(tx, operation, &grant)
        })
        .await
    }
}

/// A grant id, as a marker has it.
fn read_grant_id(text: &str) -> Option<String> {
    let is_id = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| text.to_owned())
}

/// Ends a grant, if the caller may.
fn end(tx: &mut Tx<'_>, operation: KeyOperation, grant: &Grant) -> Result<()> {
    let key = KeyRecord::existing(tx, &grant.key_id)?;
    tx.event.key_id.clone_from(&key.key_id);
    tx.event.set("grantId", grant.grant_id.as_str());
    tx.permit_with(&key, operation, With { retiring: Some(grant), ..With::default() })?;
    tx.check_state(&key, operation)?;
    tx.revoked = true;
    remove_grant(tx, grant)
}

/// Whether two grants are of the same request.
fn is_same(one: &Grant, other: &Grant) -> bool {
    let deciding = |it: &Grant| {
        let Grant { name, grantee_principal, retiring_principal, operations, constraints, .. } = it.clone();
        (name, grantee_principal, retiring_principal, operations, constraints)
    };
    deciding(one) == deciding(other)
}

fn random_text(len: usize, write: impl FnOnce(&[u8]) -> String) -> Result<String> {
    let mut random = [0; 64];
    let random = random.get_mut(..len).unwrap_or_default();
    crypto::random::fill(random)?;
    Ok(write(random))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// AWS's.
const GRANTS_MAX: usize = 50_000;
