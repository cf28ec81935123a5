//! A record as it is shown: in CloudTrail's vocabulary.

use super::anchor::hex;
use super::changes;
use super::query::AuditOutcome;
use super::stored::{Stored, changed};
use crate::error::Result;
use crate::kms::OWNER;
use crate::kms::fields::time;
use crate::kms::key::Realm;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::time::SystemTime;

/// A record of the audit trail, which was found to be as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditRecord {
    /// From 1, without gaps.
    pub sequence: u64,
    /// When the call was made, to the millisecond.
    pub event_time: SystemTime,
    /// AWS's name of the operation, or ours where AWS has none.
    pub event_name: String,
    /// Who called.
    pub principal: String,
    /// The full names of the keys that the call was about.
    pub resources: Vec<String>,
    /// What was asked for, as a JSON object. Never a secret.
    pub request_parameters: String,
    /// The error's name; `None` if the call was allowed and done.
    pub error_code: Option<String>,
    /// The error's sentence.
    pub error_message: Option<String>,
    /// The rows that the call changed, each with its hash since; `None` if it was removed.
    pub changes: Vec<(String, Option<[u8; 32]>)>,
    /// The hash of the record before it.
    pub previous_hash: [u8; 32],
    /// The hash of this one.
    pub record_hash: [u8; 32],
}

impl AuditRecord {
    /// Of a record that was found authentic.
    pub(super) fn of(stored: &Stored<'_>, hash: &[u8; 32], realm: &Realm) -> Result<Self> {
        let bad = || changed(stored.sequence);
        let Ok(Value::Object(mut parameters)) = serde_json::from_str(stored.details) else { return Err(bad()) };
        let error_message = match parameters.remove("errorMessage") {
            Some(Value::String(message)) => Some(message),
            _ => None,
        };
        let source = parameters.get("sourceKeyId").and_then(Value::as_str).filter(|it| !it.is_empty());
        let keys = source.into_iter().chain(Some(stored.key_id).filter(|it| !it.is_empty()));
        let changes = changes::read(stored.changes)
            .map(|change| change.map(|(name, hash)| (name.as_str().to_owned(), hash)))
            .collect::<Result<_>>()?;
        Ok(Self {
            sequence: stored.sequence,
            event_time: time(stored.at),
            event_name: stored.name.to_owned(),
            principal: stored.principal.to_owned(),
            resources: keys.map(|key| realm.full_name(key)).collect(),
            request_parameters: Value::Object(parameters).to_string(),
            error_code: Some(stored.code).filter(|it| !it.is_empty()).map(str::to_owned),
            error_message,
            changes,
            previous_hash: stored.previous.try_into().map_err(|_| bad())?,
            record_hash: *hash,
        })
    }

    /// What became of the call.
    #[must_use]
    pub fn outcome(&self) -> AuditOutcome {
        AuditOutcome::of(self.error_code.as_deref().unwrap_or_default())
    }

    /// A number among the request's parameters.
    pub(in crate::kms) fn number(&self, name: &str) -> Option<u64> {
        self.parameters().get(name).and_then(Value::as_u64)
    }

    fn parameters(&self) -> Map<String, Value> {
        match serde_json::from_str(&self.request_parameters) {
            Ok(Value::Object(parameters)) => parameters,
            _ => Map::new(),
        }
    }

    /// One line of JSON with CloudTrail's names (its record contents, version 1.11, as far as they apply), and with
    /// what makes it part of the chain: `sequence`, `previousHash`, `recordHash`, `changes`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let kind = if self.principal == OWNER { "Owner" } else { "Principal" };
        let resources: Vec<_> =
            self.resources.iter().map(|name| json!({ "type": "envelock::KMS::Key", "ARN": name })).collect();
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|(row, hash)| json!({ "row": row, "hash": hash.as_ref().map(|hash| hex(hash)) }))
            .collect();
        json!({
            "eventVersion": "1.0",
            "eventTime": iso(self.event_time),
            "eventSource": "kms.envelock",
            "eventName": self.event_name,
            "userIdentity": { "type": kind, "principalId": self.principal },
            "resources": resources,
            "requestParameters": self.parameters(),
            "errorCode": self.error_code,
            "errorMessage": self.error_message,
            "sequence": self.sequence,
            "previousHash": hex(&self.previous_hash),
            "recordHash": hex(&self.record_hash),
            "changes": changes,
        })
        .to_string()
    }
}

/// `2026-11-24T08:15:00.123Z`; what is outside the calendar's years, to 9999, is its last moment or its first.
fn iso(time: SystemTime) -> String {
    let beyond = if time < SystemTime::UNIX_EPOCH { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(beyond).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_iso_8601_in_utc_to_the_millisecond() {
        let at = |millis| iso(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_795_507_200_123), "2026-11-24T08:00:00.123Z");
        assert!(at(u64::try_from(i64::MAX).unwrap()).starts_with("9999-12-30T"));
    }
}
