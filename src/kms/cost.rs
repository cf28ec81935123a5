//! What a cloud KMS would have charged for the calls in the audit trail, and what caches saved.

use super::LocalKms;
use super::audit::{AuditQuery, find};
use super::authorise::check_owner;
use super::counts::count;
use super::key::KeyManager;
use super::migrate::DAY;
use super::records::KeyRecord;
use super::state::{KeyOperation, KeyState};
use super::store::Store;
use crate::error::Result;

/// What caches of data keys did since the last report: calls that they made, and calls that they saved.
///
/// `DataKeyCache::statistics` counts from the cache's beginning: [`since`](Self::since) takes off what was
/// reported before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheFigures {
    /// Calls to the KMS for new data keys.
    pub encrypt_calls: u64,
    /// Calls for new data keys that the caches saved.
    pub encrypt_saved: u64,
    /// Calls to the KMS for data keys of what is read.
    pub decrypt_calls: u64,
    /// Calls for those that the caches saved.
    pub decrypt_saved: u64,
}

impl CacheFigures {
    /// What came since `before`, of the same caches.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            encrypt_calls: self.encrypt_calls.saturating_sub(before.encrypt_calls),
            encrypt_saved: self.encrypt_saved.saturating_sub(before.encrypt_saved),
            decrypt_calls: self.decrypt_calls.saturating_sub(before.decrypt_calls),
            decrypt_saved: self.decrypt_saved.saturating_sub(before.decrypt_saved),
        }
    }
}

/// A price list, in any currency. Default: [`AWS`](Self::AWS).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// For 10,000 requests.
    pub per_10_000_requests: f64,
    /// For a key that exists for a month of 30 days; managed keys are free.
    pub per_key_month: f64,
}

impl Prices {
    /// AWS KMS's list price for symmetric keys in US dollars (us-east-1; <https://aws.amazon.com/kms/pricing/>):
    /// 0.03 for 10,000 requests, and 1 for a key and month. AWS's free tier, 20,000 requests a month for an account, is
    /// not taken off, since other keystores and keys may have used it up.
    pub const AWS: Self = Self { per_10_000_requests: 0.03, per_key_month: 1.0 };

    /// The month as of which [`AWS`](Self::AWS) is.
    pub const AWS_DATE: &'static str = "2026-06";
}

impl Default for Prices {
    fn default() -> Self {
        Self::AWS
    }
}

/// What a cloud KMS would have charged.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CostReport {
    /// The prices.
    pub prices: Prices,
    /// Calls since the keystore was made that a cloud KMS would have charged for, whatever became of them, by AWS's
    /// name.
    pub requests: Vec<(String, u64)>,
    /// Calls that caches saved, as they were reported.
    pub requests_saved: u64,
    /// How long the customer keys that there are have existed, one after another, in months of 30 days. The first
    /// and the second rotation of a key count as a key each from then on, as at AWS; keys that wait for their
    /// deletion count until that was asked for; keys that are gone are left out.
    pub key_months: f64,
}

impl CostReport {
    /// All requests.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().map(|(_, count)| count).sum()
    }

    /// What they would have cost.
    #[must_use]
    pub fn requests_cost(&self) -> f64 {
        cost(self.requests_total(), self.prices)
    }

    /// What the keys would have cost.
    #[must_use]
    pub fn keys_cost(&self) -> f64 {
        self.key_months * self.prices.per_key_month
    }

    /// Both.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.requests_cost() + self.keys_cost()
    }

    /// What the requests that caches saved would have cost besides.
    #[must_use]
    pub fn saved(&self) -> f64 {
        cost(self.requests_saved, self.prices)
    }
}

impl LocalKms {
    /// Records what the application's caches of data keys did since its last report, so that a cost report counts
    /// what they saved. `CacheFigures::from` takes what `DataKeyCache::statistics` gives.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn record_cache_statistics(&self, figures: CacheFigures) -> Result<()> {
        let [encrypt_saved, decrypt_saved] = SAVED_PARAMETERS;
        let call = self
            .asks(RECORD)
            .with("encryptCalls", figures.encrypt_calls)
            .with(encrypt_saved, figures.encrypt_saved)
            .with("decryptCalls", figures.decrypt_calls)
            .with(decrypt_saved, figures.decrypt_saved);
        self.call(call, |tx| tx.permit_owner(RECORD)).await
    }

    /// What a cloud KMS would have charged for what this keystore did since it was made, and what caches saved: from
    /// [`operation_counts`](Self::operation_counts). No call on the KMS: it leaves no record.
    ///
    /// # Errors
    /// AccessDeniedException unless this is the owner's handle; the keystore's own failures.
    pub async fn cost_report(&self, prices: Prices) -> Result<CostReport> {
        check_owner(self.principal(), "ReportCost")?;
        self.look(move |store| report(store, prices)).await
    }
}

fn report(store: &mut Store, prices: Prices) -> Result<CostReport> {
    store.read_trail(|tx, trail| {
        let mut requests: Vec<(String, u64)> = Vec::new();
        let mut requests_saved = 0_u64;
        for it in count(tx)? {
            if SAVED_PARAMETERS.contains(&it.operation.as_str()) {
                requests_saved = requests_saved.saturating_add(it.count);
            } else if is_charged(&it.operation) {
                match requests.last_mut().filter(|(name, _)| *name == it.operation) {
                    Some((_, count)) => *count = count.saturating_add(it.count),
                    None => requests.push((it.operation, it.count)),
                }
            }
        }
        let mut query = AuditQuery::default().event_name(RECORD);
        loop {
            let records = find(tx, trail, &query)?;
            let Some(last) = records.last() else { break };
            query = query.after(last.sequence);
            let saved = records.iter().flat_map(|record| SAVED_PARAMETERS.map(|name| record.number(name)));
            requests_saved = saved.flatten().fold(requests_saved, u64::saturating_add);
        }
        let mut key_millis = 0_i64;
        for key in KeyRecord::all(tx)?.iter().filter(|key| key.manager == KeyManager::Customer) {
            let until = match (key.state, key.deletion_at, key.pending_window_days) {
                (KeyState::PendingDeletion, Some(at), Some(days)) => at.saturating_sub(days.saturating_mul(DAY)),
                _ => tx.now,
            };
            let versions = key.versions(tx)?;
            let charged = versions.iter().skip(1).take(CHARGED_ROTATIONS).map(|version| version.created_at);
            for from in std::iter::once(key.created_at).chain(charged) {
                key_millis = key_millis.saturating_add(until.saturating_sub(from).max(0));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "money is not counted to the millisecond")]
        let key_months = key_millis as f64 / (30 * DAY) as f64;
        Ok(CostReport { prices, requests, requests_saved, key_months })
    })
}

#[expect(clippy::cast_precision_loss, reason = "money is not counted to the last of 2^53 calls")]
fn cost(requests: u64, prices: Prices) -> f64 {
    requests as f64 * prices.per_10_000_requests / 10_000.0
}

/// The call that reports caches' figures.
const RECORD: &str = "RecordCacheStatistics";
/// Its parameters that count calls saved. When its records are cut off from the trail, the sums stay in
/// `audit_counts` under these names.
pub(super) const SAVED_PARAMETERS: [&str; 2] = ["encryptCallsSaved", "decryptCallsSaved"];
/// Rotations of a key that raise its price.
const CHARGED_ROTATIONS: usize = 2;
/// Whether AWS has the operation, and so a price for it: what is ours alone has none. On a key there are those of
/// [`KeyOperation`], of which one is called by another name.
fn is_charged(name: &str) -> bool {
    matches!(name, "CreateKey" | "GenerateRandom" | "ListKeys" | "ReEncrypt")
        || KeyOperation::ALL.iter().any(|operation| operation.name() == name)
}
