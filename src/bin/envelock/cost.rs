//! `cost`: what a cloud KMS would have charged.

use crate::audit_args::Cost;
use crate::failure::Failure;
use crate::inspect::json_text;
use crate::keystore::{self, Missing};
use crate::text::{Notes, answer, plain};
use envelock::blocking::wait;
use envelock::kms::{CostReport, Prices};
use serde_json::json;

pub(crate) fn cost(arguments: &Cost, signals: &crate::signals::Signals, notes: Notes) -> Result<(), Failure> {
    let kms = keystore::open(&arguments.keystore, Missing::Refuse, signals, notes)?;
    let prices = Prices {
        per_10_000_requests: arguments.per_10000.unwrap_or(Prices::AWS.per_10_000_requests),
        per_key_month: arguments.per_key_month.unwrap_or(Prices::AWS.per_key_month),
    };
    let report = wait(kms.cost_report(prices))?;
    match arguments.json {
        true => answer(&json_text(&as_json(&report))),
        false => answer(&table(&report)),
    }
}

fn as_json(report: &CostReport) -> serde_json::Value {
    let requests: serde_json::Map<_, _> =
        report.requests.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
    json!({
        "prices": {
            "per_10000_requests": report.prices.per_10_000_requests,
            "per_key_month": report.prices.per_key_month,
            "default": report.prices == Prices::AWS,
            "default_as_of": Prices::AWS_DATE,
        },
        "requests": requests,
        "requests_total": report.requests_total(),
        "requests_cost": report.requests_cost(),
        "key_months": report.key_months,
        "keys_cost": report.keys_cost(),
        "cost": report.cost(),
        "requests_saved": report.requests_saved,
        "saved": report.saved(),
    })
}

fn table(report: &CostReport) -> String {
    let mut out = String::new();
    for (name, count) in &report.requests {
        out.push_str(&format!("  {:<36}  {count:>12}\n", plain(name)));
    }
    let line = |what: &str, count: String, cost: f64| format!("{what:<38}  {count:>12}  {cost:>12.4}\n");
    out.push_str(&line("requests", report.requests_total().to_string(), report.requests_cost()));
    out.push_str(&line("months of keys", format!("{:.2}", report.key_months), report.keys_cost()));
    out.push_str(&line("together", String::new(), report.cost()));
    out.push_str(&line("requests that caches saved", report.requests_saved.to_string(), report.saved()));
    out.push_str(&format!(
        "at {} for 10,000 requests and {} for a key and month",
        report.prices.per_10_000_requests, report.prices.per_key_month
    ));
    if report.prices == Prices::AWS {
        out.push_str(&format!(
            ": AWS KMS's list price in US dollars, as of {}, without its free tier of 20,000 requests a month",
            Prices::AWS_DATE
        ));
    }
    out.push('\n');
    out
}
