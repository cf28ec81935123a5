//! Searches in the trail, and what they give away: records that were found authentic.

use super::Trail;
use super::index::indexed;
use super::stored::{COLUMNS, Stored};
use crate::error::{Error, Result};
use crate::kms::LocalKms;
use crate::kms::alias::Alias;
use crate::kms::audit::event::AuditRecord;
use crate::kms::authorise::check_owner;
use crate::kms::key::{KeyName, not_found};
use crate::kms::store::millis_of;
use crate::kms::tx::Tx;
use rusqlite::params_from_iter;
use rusqlite::types::Value;
use std::io::Write;
use std::time::SystemTime;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It did what was asked.
    Allowed,
    /// The caller may not: AccessDeniedException.
    Denied,
    /// Another error.
    Failed,
}

impl AuditOutcome {
    /// Of a call whose record has this error code, or none.
    pub(in crate::kms) fn of(code: &str) -> Self {
        match code {
            "" => Self::Allowed,
            DENIED => Self::Denied,
            _ => Self::Failed,
        }
    }

    /// `allowed`, `denied` or `failed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Which records of the audit trail are asked for. Default: all, oldest first.
///
/// ```no_run
/// # async fn example(kms: envelock::LocalKms) -> Result<(), envelock::Error> {
/// use envelock::kms::{AuditOutcome, AuditQuery};
/// let query = AuditQuery::default().key("alias/orders").outcome(AuditOutcome::Denied).newest_first().limit(20);
/// for record in kms.query_audit(&query).await? {
///     println!("{} {} {}", record.sequence, record.principal, record.event_name);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    key: Option<String>,
    principal: Option<String>,
    event: Option<String>,
    outcome: Option<AuditOutcome>,
    from: Option<SystemTime>,
    until: Option<SystemTime>,
    after: Option<u64>,
    limit: Option<u64>,
    newest_first: bool,
}

impl AuditQuery {
    /// Of a key, by its id, its full name, or what an alias points to now. A re-encryption is found by the key
    /// that it encrypted under; the other is among its parameters.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// By this principal.
    #[must_use]
    pub fn principal(mut self, principal: impl Into<String>) -> Self {
        self.principal = Some(principal.into());
        self
    }

    /// Of the operation of this name, such as `Decrypt`, spelt as in [`AUDIT_EVENTS`](super::AUDIT_EVENTS).
    #[must_use]
    pub fn event_name(mut self, name: impl Into<String>) -> Self {
        self.event = Some(name.into());
        self
    }

    /// That ended so.
    #[must_use]
    pub fn outcome(mut self, outcome: AuditOutcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// At this time or later, by the clock of the calls.
    #[must_use]
    pub fn from(mut self, time: SystemTime) -> Self {
        self.from = Some(time);
        self
    }

    /// Before this time.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// That come after the record of this sequence, in the direction of the query: how to go on, or to follow.
    #[must_use]
    pub fn after(mut self, sequence: u64) -> Self {
        self.after = Some(sequence);
        self
    }

    /// So many at most.
    #[must_use]
    pub fn limit(mut self, records: u64) -> Self {
        self.limit = Some(records);
        self
    }

    /// The newest first.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Where the records of the key with this id are, or of all keys, in the order of the query.
    fn parts(&self, key_id: Option<String>, indexed: u64) -> Vec<Part> {
        let Some(key_id) = key_id else {
            return vec![Part { from: "audit", place: "sequence", condition: "TRUE", values: Vec::new() }];
        };
        let indexed = i64::try_from(indexed).unwrap_or(i64::MAX);
        let values = vec![Value::Text(key_id), Value::Integer(indexed)];
        let mut parts = vec![
            Part { from: BY_INDEX, place: "record", condition: "of_key = ? AND record <= ?", values: values.clone() },
            Part { from: "audit", place: "sequence", condition: "key_id = ? AND sequence > ?", values },
        ];
        if self.newest_first {
            parts.reverse();
        }
        parts
    }

    /// What is asked of the records of one part, besides their key.
    fn conditions(&self, place: &str, values: &mut Vec<Value>) -> String {
        let mut conditions = String::new();
        let mut add = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                conditions.push_str(" AND ");
                conditions.push_str(condition);
                values.push(value);
            }
        };
        let text = |it: &Option<String>| it.clone().map(Value::Text);
        add("principal = ?", text(&self.principal));
        add("name = ?", text(&self.event));
        add("at >= ?", self.from.map(millis_of).map(Value::Integer));
        add("at < ?", self.until.map(millis_of).map(Value::Integer));
        let sequence = |it: u64| Value::Integer(i64::try_from(it).unwrap_or(i64::MAX));
        let beyond = if self.newest_first { "<" } else { ">" };
        add(&format!("{place} {beyond} ?"), self.after.map(sequence));
        conditions.push_str(match self.outcome {
            None => "",
            Some(AuditOutcome::Allowed) => " AND code = ''",
            Some(AuditOutcome::Denied) => " AND code = 'AccessDeniedException'",
            Some(AuditOutcome::Failed) => " AND code NOT IN ('', 'AccessDeniedException')",
        });
        conditions
    }
}

/// Where records are searched.
struct Part {
    from: &'static str,
    /// The column that says which record it is.
    place: &'static str,
    condition: &'static str,
    values: Vec<Value>,
}

impl LocalKms {
    /// Finds records, at most 1,000 at a time ([`AuditQuery::after`] goes on), each of which was found to be as it
    /// was written. That none is missing, only [`verify_audit`](Self::verify_audit) tells. No call on the KMS: it
    /// leaves no record.
    ///
    /// # Errors
    /// NotFoundException for an alias that does not exist, ValidationException for what is no key's name,
    /// AccessDeniedException unless this is the owner's handle; [`Storage`](crate::ErrorKind::Storage), naming a
    /// record that was changed; the keystore's own failures.
    pub async fn query_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>> {
        check_owner(self.principal(), "QueryAudit")?;
        let query = query.clone();
        self.look(move |store| store.read_trail(|tx, trail| find(tx, trail, &query))).await
    }

    /// Writes what a query finds as JSON lines, one record in each ([`AuditRecord::to_json`]), and gives their number.
    /// It reads in pages, so that memory does not grow with the trail; writing blocks.
    ///
    /// # Errors
    /// As [`query_audit`](Self::query_audit); [`Io`](crate::ErrorKind::Io) if writing fails.
    pub async fn export_audit(&self, query: &AuditQuery, mut writer: impl Write) -> Result<u64> {
        let mut page = query.clone();
        let mut written = 0;
        loop {
            page.limit = query.limit.map(|limit| limit - written);
            let records = self.query_audit(&page).await?;
            for record in &records {
                writer.write_all(record.to_json().as_bytes()).and_then(|()| writer.write_all(b"\n"))?;
            }
            written += u64::try_from(records.len()).unwrap_or(0);
            match records.last() {
                Some(last) => page.after = Some(last.sequence),
                None => return writer.flush().map(|()| written).map_err(Error::from),
            }
        }
    }
}

/// The records that a query asks for, as many as go into one page.
pub(in crate::kms) fn find(tx: &Tx<'_>, trail: &Trail<'_>, query: &AuditQuery) -> Result<Vec<AuditRecord>> {
    let key_id = query.key.as_deref().map(|name| key_id(tx, name)).transpose()?;
    let mut records = Vec::new();
    for part in query.parts(key_id, indexed(trail.ends.last)) {
        search(tx, trail, query, part, &mut records)?;
    }
    Ok(records)
}

/// Adds what one part has, as much as goes into the page.
fn search(
    tx: &Tx<'_>,
    trail: &Trail<'_>,
    query: &AuditQuery,
    Part { from, place, condition, mut values }: Part,
    records: &mut Vec<AuditRecord>,
) -> Result<()> {
    let conditions = query.conditions(place, &mut values);
    let order = if query.newest_first { "DESC" } else { "ASC" };
    let room = query.limit.unwrap_or(PAGE).min(PAGE).saturating_sub(records.len() as u64);
    values.push(Value::Integer(i64::try_from(room).unwrap_or(i64::MAX)));
    let statement =
        format!("SELECT {COLUMNS} FROM {from} WHERE {condition}{conditions} ORDER BY {place} {order} LIMIT ?");
    let mut statement = tx.sql.prepare_cached(&statement).map_err(Error::sqlite)?;
    let mut found = statement.query(params_from_iter(values)).map_err(Error::sqlite)?;
    let mut space = Vec::new();
    while let Some(row) = found.next().map_err(Error::sqlite)? {
        let stored = Stored::read(row)?;
        let hash = stored.authenticate(trail.key, &tx.realm.keystore_id, &mut space)?;
        records.push(AuditRecord::of(&stored, &hash, tx.realm)?);
    }
    Ok(())
}

/// The key may be gone: its records are not.
fn key_id(tx: &Tx<'_>, name: &str) -> Result<String> {
    match tx.realm.resolve(name)? {
        KeyName::Id(key_id) => Ok(key_id.to_owned()),
        KeyName::Alias(alias) => match Alias::find(tx, alias)? {
            Some(alias) => Ok(alias.key_id),
            None => Err(not_found(format!("the alias {alias} does not exist"))),
        },
    }
}

const DENIED: &str = "AccessDeniedException";
/// The records that the index has, in its order.
const BY_INDEX: &str = "audit_by_key CROSS JOIN audit ON sequence = record AND key_id = of_key";
/// Records of one answer at most.
const PAGE: u64 = 1_000;
