//! Who may use a key: key policies and grants, in AWS KMS's words. Pure: no store, no clock, no thread.
//!
//! A [`KeyPolicy`] is the subset of AWS's JSON that docs/kms.md ("Who may") names. What is outside it is
//! refused when the policy is put, never ignored. [`decide`] is the evaluator.

mod action;
mod condition;
mod constraints;
mod dates;
mod decide;
mod grant;
mod json;
mod parse;
mod pattern;
mod request;
mod statement;

pub use action::PolicyAction;
pub use constraints::GrantConstraints;
pub use decide::{Decision, StatementRef, decide, would_lock_out};
pub use grant::{CreateGrantRequest, Grant, GrantOperation, GrantOperations};
pub use request::AccessRequest;

use crate::error::{Error, Result};
use statement::Statement;
use std::fmt;

/// The principal that a keystore's handle has unless the application names another.
pub const OWNER: &str = "owner";

/// A key policy: who may do what with one key.
///
/// It is AWS KMS's JSON (IAM User Guide, "Grammar of the IAM JSON policy language"), of which it knows
/// `Version`, `Id` and `Statement` (one or a list) of `Sid`, `Effect`, `Principal`, `NotPrincipal`, `Action`,
/// `Resource` and `Condition`. A principal is a string that the application vouches for; it stands where AWS
/// has an ARN.
///
/// ```
/// use envelock::kms::{AccessRequest, KeyOperation, KeyPolicy, decide};
/// use std::time::Duration;
///
/// # fn main() -> envelock::Result<()> {
/// let policy = KeyPolicy::parse(
///     r#"{
///         "Version": "2012-10-17",
///         "Statement": {
///             "Sid": "billing reads its own",
///             "Effect": "Allow",
///             "Principal": {"AWS": "billing"},
///             "Action": "kms:Decrypt",
///             "Resource": "*",
///             "Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}
///         }
///     }"#,
/// )?;
/// let key = "envelock:local:7f7f3f1c-6a3c-4a55-8f0e-3f2b5a1f0c11:key/0b0c8f4e-52b4-4d27-9d0b-d9e5e1a0c6ab";
/// let now = Duration::from_secs(1_767_225_600);
/// let request = AccessRequest::new("billing", KeyOperation::Decrypt, key, now);
/// assert!(decide(&policy, &[], &request.clone().encryption_context([("tenant", "acme")])).is_allowed());
/// assert!(!decide(&policy, &[], &request.encryption_context([("tenant", "other")])).is_allowed());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct KeyPolicy {
    text: String,
    statements: Vec<Statement>,
}

impl KeyPolicy {
    /// Reads a policy of at most 32,768 bytes.
    ///
    /// # Errors
    /// MalformedPolicyDocumentException for what is no JSON, has a member twice, or has an element, operator,
    /// condition key or action that is not supported: the sentence names it, and says what is.
    /// LimitExceededException above the length.
    pub fn parse(json: &str) -> Result<Self> {
        if json.len() > POLICY_MAX {
            return Err(Error::limit(format!("the key policy has {} bytes; {POLICY_MAX} is the most", json.len()))
                .with_code("LimitExceededException")
                .with_advice("shorten it: lists and wildcards say the same in less"));
        }
        Ok(Self { text: json.to_owned(), statements: parse::statements(json)? })
    }

    /// The JSON as it was put, to the byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The policy of a key that was given none: [`OWNER`] may do everything.
impl Default for KeyPolicy {
    #[expect(clippy::expect_used, reason = "a constant, which a test parses")]
    fn default() -> Self {
        Self::parse(DEFAULT_POLICY).expect("the default policy is well-formed")
    }
}

impl fmt::Debug for KeyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPolicy").field(&self.text).finish()
    }
}

/// Refuses what cannot be a principal's name.
pub(super) fn check_principal(name: &str) -> Result<()> {
    match principal_fault(name) {
        None => Ok(()),
        Some(fault) => Err(Error::invalid_input(format!("the principal {} {fault}", shown(name)))
            .with_code("ValidationException")
            .with_advice("a principal is a name of 1 to 256 characters, without `*`, `?` and control characters")),
    }
}

/// What is wrong with a principal's name. Wildcards are no part of one: AWS matches no part of a principal, and a
/// name that looks like a pattern would be taken for one.
fn principal_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        _ if name.chars().count() > PRINCIPAL_MAX => Some("has more than 256 characters"),
        _ if name.contains(['*', '?']) => Some("has a wildcard in it"),
        _ if name.contains(char::is_control) => Some("has a control character in it"),
        _ => None,
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::invalid_input(message)
        .with_code("MalformedPolicyDocumentException")
        .with_advice("nothing was changed: correct the policy and put it again")
}

/// A part of a policy as an error quotes it, at most 80 characters of it.
fn shown(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{:?} (and more)", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Whether two names differ at most in case. AWS compares the names of condition keys so, and with them the
/// encryption context key in `kms:EncryptionContext:<key>`; and the keys in grant constraints.
fn same_name(one: &str, other: &str) -> bool {
    one.chars().flat_map(char::to_lowercase).eq(other.chars().flat_map(char::to_lowercase))
}

const POLICY_MAX: usize = 32_768;
const PRINCIPAL_MAX: usize = 256;
const QUOTED_MAX: usize = 80;
const DEFAULT_POLICY: &str = r#"{
  "Version": "2012-10-17",
  "Id": "key-default-1",
  "Statement": [
    {
      "Sid": "The owner may do everything",
      "Effect": "Allow",
      "Principal": {
        "AWS": "owner"
      },
      "Action": "kms:*",
      "Resource": "*"
    }
  ]
}"#;
