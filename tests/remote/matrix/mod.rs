//! The fault matrix: everything that can go wrong between a provider and its KMS, for every operation, by the real clock.
//!
//! A row is a fault, a cell an operation under it. Of each cell are asserted the kind of the error and its code, the number
//! of requests, counted where they arrive, a bound on the time, and that none of the planted secrets is in the error. What
//! came out is a table, docs/fault-matrix.md, and that must be what is there.

mod aws;
mod places;
mod vault;

use crate::support::leaks::Planted;
use crate::support::transport::{Counting, shared};
use crate::support::{peers, run, say};
use async_trait::async_trait;
use envelock::{Error, ErrorKind, HttpPolicy};
use futures_util::StreamExt;
use places::{Fault, Place};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How patient the provider under test is. The breaker and the budget are tested elsewhere.
fn policy() -> HttpPolicy {
    HttpPolicy::default()
        .connect(CONNECT)
        .attempt(ATTEMPT)
        .total(Duration::from_secs(8))
        .attempts(3)
        .backoff(Duration::from_millis(5), PAUSE)
        .retry_budget(1.0, 100)
        .without_breaker()
}

const CONNECT: Duration = Duration::from_millis(300);
const ATTEMPT: Duration = Duration::from_millis(600);
const PAUSE: Duration = Duration::from_millis(20);
/// For a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(2);

/// What must come of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// `None`: the call succeeds.
    kind: Option<ErrorKind>,
    code: Option<&'static str>,
    requests: usize,
}

const fn fails(kind: ErrorKind, requests: usize) -> Expected {
    Expected { kind: Some(kind), code: None, requests }
}

impl Expected {
    const fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

/// The call goes through at once.
const GOOD: Expected = Expected { kind: None, code: None, requests: 1 };
/// Nothing helps, and that shows only by trying.
const LOST: Expected = fails(ErrorKind::Unavailable, 3);

/// A fault, and what each operation must make of it.
struct Row {
    name: String,
    fault: Fault,
    expected: Box<dyn Fn(usize) -> Expected + Send + Sync>,
}

impl Row {
    fn new(name: impl Into<String>, fault: Fault, expected: Expected) -> Self {
        Self::by_operation(name, fault, move |_| expected)
    }

    /// Where it matters which operation it is.
    fn by_operation(
        name: impl Into<String>,
        fault: Fault,
        expected: impl Fn(usize) -> Expected + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), fault, expected: Box::new(expected) }
    }
}

/// A provider under test, as the matrix drives it.
#[async_trait]
trait Subject: Send + Sync {
    /// The operations, as the columns are called.
    fn operations(&self) -> &'static [&'static str];

    /// Runs an operation by a fresh provider on `place`; `true` if its outcome is the right one.
    async fn call(&self, operation: usize, place: &Place, transport: Counting) -> Result<bool, Error>;

    /// What must not come out.
    fn planted(&self) -> &Planted;
}

/// What came of a cell, as its table shows it.
struct Cell {
    row: usize,
    operation: usize,
    shown: String,
    faults: Vec<String>,
}

async fn run_cell(subject: &dyn Subject, row: usize, operation: usize, rows: &[Row]) -> Cell {
    let Row { name, fault, expected } = &rows[row];
    let (expected, up) = (expected(operation), fault.clone());
    // Some places take a while until they are there.
    let place = tokio::task::spawn_blocking(move || up.place(operation)).await.unwrap();
    let transport = Counting::new(shared());
    let started = Instant::now();
    let outcome = subject.call(operation, &place, transport.clone()).await;
    let spent = started.elapsed();
    let mut faults = Vec::new();
    let mut holds = |holds: bool, what: String| {
        if !holds {
            faults.push(format!("{name}, {}: {what}", subject.operations()[operation]));
        }
    };
    let sent = transport.sent();
    let kind = outcome.as_ref().err().map(Error::kind);
    let code = outcome.as_ref().err().and_then(Error::code);
    match &outcome {
        Ok(right) => holds(*right, "it succeeds, with another outcome than the right one".into()),
        Err(error) => {
            let found = subject.planted().found_in(crate::support::leaks::texts(error).as_bytes());
            holds(found.is_empty(), format!("the error shows {found:?}"));
            holds(error.to_string().contains("; "), format!("it does not say what to do: {error}"));
        }
    }
    let found = Expected { kind, code: expected.code.and(code), requests: sent };
    holds(found == expected, format!("expected {expected:?}, found {found:?}: {outcome:?}"));
    // A code is told wherever AWS gave one.
    holds(expected.code.is_some() || code.is_none(), format!("an unexpected code: {code:?}"));
    if let Some(arrived) = place.requests() {
        holds(arrived == sent, format!("{sent} requests were sent, and {arrived} arrived"));
    }
    holds(place.strangers() == 0, "it went on to where it was sent".into());
    let bound = bound(fault, expected.requests);
    holds(spent <= bound, format!("it took {spent:?}, and may take {bound:?}"));
    let shown = match kind {
        None => format!("done, {sent}"),
        Some(kind) => format!("{kind:?}, {sent}"),
    };
    Cell { row, operation, shown, faults }
}

/// How long `requests` may take under `fault`, with the pauses between them.
fn bound(fault: &Fault, requests: usize) -> Duration {
    let requests = u32::try_from(requests).unwrap();
    fault.takes() * requests + (PAUSE + fault.asks_to_wait()) * requests.saturating_sub(1) + SLACK
}

/// Runs all cells, some at a time, and gives their table.
fn table(subject: &dyn Subject, rows: &[Row]) -> String {
    let operations = subject.operations();
    let started = Instant::now();
    let cells = (0..rows.len()).flat_map(|row| (0..operations.len()).map(move |operation| (row, operation)));
    let cells = futures_util::stream::iter(cells).map(|(row, operation)| run_cell(subject, row, operation, rows));
    let cells: Vec<Cell> = run(cells.buffer_unordered(AT_ONCE).collect());
    let faults: Vec<_> = cells.iter().flat_map(|cell| &cell.faults).map(String::as_str).collect();
    assert!(faults.is_empty(), "{} of {} cells are wrong:\n{}", faults.len(), cells.len(), faults.join("\n"));
    let mut table = format!("| fault | {} | within |\n", operations.join(" | "));
    table += &format!("|---|{}---|\n", "---|".repeat(operations.len()));
    for (number, row) in rows.iter().enumerate() {
        let mut line = format!("| {} |", row.name);
        for operation in 0..operations.len() {
            let cell = cells.iter().find(|cell| (cell.row, cell.operation) == (number, operation)).unwrap();
            write!(line, " {} |", cell.shown).unwrap();
        }
        let most = (0..operations.len()).map(|operation| (row.expected)(operation).requests).max().unwrap();
        writeln!(table, "{line} {:.1} s |", bound(&row.fault, most).as_secs_f64()).unwrap();
    }
    say(format!("fault matrix: {} cells as they must be, in {:.1} s", cells.len(), started.elapsed().as_secs_f64()));
    table
}

/// Cells under way at once.
const AT_ONCE: usize = 32;

const PAGE: &str = "docs/fault-matrix.md";

/// Compares the part of the page below `heading` with what was found. What was found is in target/check as well.
fn compare(heading: &str, table: &str) {
    let name = heading.to_lowercase().replace(' ', "-");
    let found = peers::root().join("target/check").join(format!("fault-matrix-{name}.md"));
    std::fs::create_dir_all(found.parent().unwrap()).unwrap();
    std::fs::write(&found, table).unwrap();
    let page = std::fs::read_to_string(peers::root().join(PAGE)).unwrap_or_default();
    let part = page.split("\n## ").find_map(|part| part.strip_prefix(heading)).unwrap_or_default();
    let lines: String = part.lines().filter(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    assert!(
        lines == table,
        "{PAGE} does not say what was found below \"{heading}\": put the table of {} there",
        found.display()
    );
}

#[test]
fn every_fault_of_the_way_to_aws_kms_and_of_its_answers_has_its_outcome() {
    compare("AWS KMS", &table(&aws::Kms::new(), &aws::rows()));
}

#[test]
fn every_fault_of_the_way_to_vault_and_of_its_answers_has_its_outcome() {
    compare("Vault and OpenBao", &table(&vault::Transit::new(), &vault::rows()));
}

fn arc(transport: Counting) -> Arc<Counting> {
    Arc::new(transport)
}
