//! Grants: what a principal may do beside the policy, until the grant is retired or revoked.

use super::action::PolicyAction;
use super::check_principal;
use super::constraints::GrantConstraints;
use super::json::Json;
use super::request::AccessRequest;
use crate::error::Result;
use crate::kms::key::validation;
use crate::kms::state::KeyOperation;
use std::collections::BTreeSet;
use std::time::SystemTime;

/// What a grant can allow: AWS's grant operations that a symmetric key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are AWS's, and AWS's API reference says what each does")]
pub enum GrantOperation {
    CreateGrant,
    Decrypt,
    DescribeKey,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    ReEncryptFrom,
    ReEncryptTo,
    RetireGrant,
}

impl GrantOperation {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::CreateGrant,
        Self::Decrypt,
        Self::DescribeKey,
        Self::Encrypt,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::ReEncryptFrom,
        Self::ReEncryptTo,
        Self::RetireGrant,
    ];

    /// AWS's name for it, without `kms:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let name = PolicyAction::from(self.operation()).name();
        name.strip_prefix("kms:").unwrap_or(name)
    }

    /// The one of this name, by case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// The operation that it allows.
    #[must_use]
    pub fn operation(self) -> KeyOperation {
        match self {
            Self::CreateGrant => KeyOperation::CreateGrant,
            Self::Decrypt => KeyOperation::Decrypt,
            Self::DescribeKey => KeyOperation::DescribeKey,
            Self::Encrypt => KeyOperation::Encrypt,
            Self::GenerateDataKey => KeyOperation::GenerateDataKey,
            Self::GenerateDataKeyWithoutPlaintext => KeyOperation::GenerateDataKeyWithoutPlaintext,
            Self::ReEncryptFrom => KeyOperation::ReEncryptFrom,
            Self::ReEncryptTo => KeyOperation::ReEncryptTo,
            Self::RetireGrant => KeyOperation::RetireGrant,
        }
    }
}

/// A set of grant operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantOperations(BTreeSet<GrantOperation>);

impl GrantOperations {
    /// Whether `operation` is one of them.
    #[must_use]
    pub fn contains(&self, operation: GrantOperation) -> bool {
        self.0.contains(&operation)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = GrantOperation> {
        self.0.iter().copied()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a list of names in JSON, always the same for the same set.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::Value::from_iter(self.iter().map(GrantOperation::name)).to_string()
    }

    /// Reads what [`to_json`](Self::to_json) wrote, or a person.
    ///
    /// # Errors
    /// ValidationException for what is no list of names in JSON, and for a name that no grant operation has.
    pub fn from_json(json: &str) -> Result<Self> {
        let Json::List(names) =
            Json::parse(json).map_err(|error| validation(format!("the grant's operations are no JSON: {error}")))?
        else {
            return Err(validation("the grant's operations are no JSON list"));
        };
        let operation = |name| match name {
            Json::String(name) => GrantOperation::named(&name).ok_or_else(|| unknown(&name)),
            other => Err(validation(format!("a grant's operation is {}, and must be a string", other.kind()))),
        };
        names.into_iter().map(operation).collect::<Result<_>>().map(Self)
    }
}

impl FromIterator<GrantOperation> for GrantOperations {
    fn from_iter<I: IntoIterator<Item = GrantOperation>>(operations: I) -> Self {
        Self(operations.into_iter().collect())
    }
}

impl<const N: usize> From<[GrantOperation; N]> for GrantOperations {
    fn from(operations: [GrantOperation; N]) -> Self {
        operations.into_iter().collect()
    }
}

/// What to grant to whom: AWS's `CreateGrant` without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGrantRequest {
    pub(super) grantee_principal: String,
    pub(super) retiring_principal: Option<String>,
    pub(super) operations: GrantOperations,
    pub(super) constraints: GrantConstraints,
    pub(super) name: Option<String>,
}

impl CreateGrantRequest {
    /// A grant of these operations to a principal.
    #[must_use]
    pub fn new(grantee_principal: impl Into<String>, operations: impl Into<GrantOperations>) -> Self {
        Self {
            grantee_principal: grantee_principal.into(),
            retiring_principal: None,
            operations: operations.into(),
            constraints: GrantConstraints::new(),
            name: None,
        }
    }

    /// Who may retire the grant, whatever the policy allows. Default: nobody.
    #[must_use]
    pub fn retiring_principal(mut self, principal: impl Into<String>) -> Self {
        self.retiring_principal = Some(principal.into());
        self
    }

    /// For which encryption contexts. Default: for all.
    #[must_use]
    pub fn constraints(mut self, constraints: GrantConstraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// A name of 1 to 256 letters, digits and `:/_-`: the same request with the same name is one grant. Default: none.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What the audit trail says of the request.
    pub(in crate::kms) fn parameters(&self) -> Vec<(&'static str, serde_json::Value)> {
        let mut parameters = vec![
            ("granteePrincipal", self.grantee_principal.as_str().into()),
            ("operations", self.operations.iter().map(GrantOperation::name).collect()),
        ];
        parameters.extend(self.retiring_principal.as_deref().map(|it| ("retiringPrincipal", it.into())));
        parameters.extend(self.name.as_deref().map(|it| ("name", it.into())));
        if !self.constraints.is_empty() {
            parameters.push(("constraints", self.constraints.to_json().into()));
        }
        parameters
    }

    /// The grant that the request makes.
    ///
    /// # Errors
    /// ValidationException for a principal, a name or constraints that cannot be, and for no operation at all.
    pub fn to_grant(
        &self,
        grant_id: impl Into<String>,
        key_id: impl Into<String>,
        grant_token: impl Into<String>,
        creation_date: SystemTime,
    ) -> Result<Grant> {
        self.check()?;
        Ok(Grant {
            grant_id: grant_id.into(),
            key_id: key_id.into(),
            grantee_principal: self.grantee_principal.clone(),
            retiring_principal: self.retiring_principal.clone(),
            operations: self.operations.clone(),
            constraints: self.constraints.clone(),
            name: self.name.clone(),
            creation_date,
            grant_token: grant_token.into(),
        })
    }

    fn check(&self) -> Result<()> {
        check_principal(&self.grantee_principal)?;
        self.retiring_principal.as_deref().map_or(Ok(()), check_principal)?;
        if self.operations.is_empty() {
            return Err(validation("the grant has no operation").with_advice("name at least one"));
        }
        let good = |name: &String| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'/' | b'_' | b'-');
            (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(letter)
        };
        if self.name.as_ref().is_some_and(|name| !good(name)) {
            return Err(validation("the grant's name cannot be")
                .with_advice("it has 1 to 256 letters, digits, `:`, `/`, `_` and `-`"));
        }
        self.constraints.check()
    }
}

/// A grant: what its grantee may do with one key, until it is retired or revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Its id.
    pub grant_id: String,
    /// The id of the key that it is for.
    pub key_id: String,
    /// Whom it allows something.
    pub grantee_principal: String,
    /// Who may retire it, whatever the policy allows.
    pub retiring_principal: Option<String>,
    /// What it allows.
    pub operations: GrantOperations,
    /// For which encryption contexts.
    pub constraints: GrantConstraints,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// When it was made.
    pub creation_date: SystemTime,
    /// The text by which AWS's callers use a grant before it is known everywhere. Here it is known at once.
    pub grant_token: String,
}

impl Grant {
    /// Whether `principal` may retire the grant by the grant itself: as its retiring principal, or as its grantee if
    /// `RetireGrant` is among the operations. Others may by the key's policy (`kms:RetireGrant`), and a statement of
    /// it that denies that denies it to these too.
    #[must_use]
    pub fn may_be_retired_by(&self, principal: &str) -> bool {
        let grantee = self.grantee_principal == principal && self.operations.contains(GrantOperation::RetireGrant);
        grantee || self.retiring_principal.as_deref() == Some(principal)
    }

    /// Whether the grant allows `request`.
    pub(super) fn allows(&self, request: &AccessRequest<'_>) -> bool {
        let PolicyAction::Operation(operation) = request.action else { return false };
        if request.key_id() != Some(self.key_id.as_str()) {
            return false;
        }
        if operation == KeyOperation::RetireGrant {
            // Itself and no other.
            return request.retiring.is_some_and(|grant| grant.grant_id == self.grant_id)
                && self.may_be_retired_by(request.principal);
        }
        let granted = self.operations.iter().any(|granted| granted.operation() == operation);
        if !granted || self.grantee_principal != request.principal {
            return false;
        }
        match operation {
            KeyOperation::CreateGrant => request.creating.is_some_and(|child| self.covers(child)),
            KeyOperation::DescribeKey => true,
            _ => self.constraints.allow(&request.context()),
        }
    }

    /// Whether `child` allows nothing that this grant does not (AWS KMS Developer Guide, "Granting CreateGrant
    /// permission").
    fn covers(&self, child: &CreateGrantRequest) -> bool {
        child.operations.0.is_subset(&self.operations.0)
            && child.constraints.are_at_least_as_strict_as(&self.constraints)
    }
}

fn unknown(name: &str) -> crate::error::Error {
    validation(format!(
        "{} is no operation that can be granted: there are {}",
        super::shown(name),
        GrantOperation::ALL.map(GrantOperation::name).join(", ")
    ))
}

const NAME_MAX: usize = 256;
