//! The state table as people read it: in docs/kms.md, and from `envelock keys states --table`.

use super::state::{KeyKind, KeyOperation, KeyState, Refusal, allowed};
use std::fmt::Write as _;

/// The whole of [`allowed`] as Markdown: a table of every operation in every state, for each other kind of
/// key the rows that differ, and what the numbers in them mean.
#[must_use]
pub fn state_table() -> String {
    let mut out = String::from(
        "`✓`: allowed. A number: refused, for the reason below.\n\n**customer key** (Enabled, Disabled, \
         PendingDeletion), and every other kind in its states where it has no row of its own:\n\n",
    );
    table(&mut out, KeyKind::Customer, &KeyState::ALL, |_| true);
    for kind in KeyKind::ALL.into_iter().filter(|kind| *kind != KeyKind::Customer) {
        let differs = |operation| {
            let differs =
                |state: &KeyState| cell(kind, *state, operation) != cell(KeyKind::Customer, *state, operation);
            kind.states().iter().any(differs)
        };
        let states: Vec<_> = kind.states().iter().map(|state| state.name()).collect();
        let _ = write!(out, "\n**{}** ({}):\n\n", kind.name(), states.join(", "));
        table(&mut out, kind, kind.states(), differs);
    }
    out.push_str("\nThe reasons:\n\n");
    for (number, refusal) in (1..).zip(Refusal::ALL) {
        let _ = writeln!(out, "{number}. `{}`: the key {refusal}", refusal.code());
    }
    out
}

fn table(out: &mut String, kind: KeyKind, states: &[KeyState], shown: impl Fn(KeyOperation) -> bool) {
    let heads: Vec<_> = states.iter().map(|state| state.name()).collect();
    let _ = writeln!(out, "| operation | {} |", heads.join(" | "));
    let _ = writeln!(out, "|---|{}", ":-:|".repeat(states.len()));
    for operation in KeyOperation::ALL.into_iter().filter(|operation| shown(*operation)) {
        let cells: Vec<_> = states.iter().map(|state| cell(kind, *state, operation)).collect();
        let _ = writeln!(out, "| {} | {} |", operation.name(), cells.join(" | "));
    }
}

fn cell(kind: KeyKind, state: KeyState, operation: KeyOperation) -> String {
    match allowed(kind, state, operation) {
        Ok(()) => "✓".to_owned(),
        Err(refusal) => {
            (1..).zip(Refusal::ALL).find(|(_, it)| *it == refusal).map_or_else(String::new, |(n, _)| n.to_string())
        }
    }
}
