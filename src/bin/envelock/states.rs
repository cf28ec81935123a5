//! `keys states`: what each state of a key allows.

use crate::failure::Failure;
use crate::inspect::json_text;
use crate::text::answer;
use envelock::kms::{KeyKind, KeyOperation, KeyState, allowed, state_table};
use serde_json::{Value, json};

/// How the states are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// What each of them means.
    Meanings,
    /// Every cell, as in the documentation.
    Table,
    /// Every cell, for programs.
    Json,
}

pub(crate) fn states(form: Form) -> Result<(), Failure> {
    match form {
        Form::Meanings => answer(&meanings()),
        Form::Table => answer(&state_table()),
        Form::Json => answer(&json_text(&cells())),
    }
}

fn meanings() -> String {
    let mut out = String::new();
    for state in KeyState::ALL {
        out.push_str(&format!("{:<22}  {}\n", state.name(), meaning(state)));
    }
    out.push_str("`envelock keys states --table` tells which operations each state allows\n");
    out
}

fn meaning(state: KeyState) -> &'static str {
    match state {
        KeyState::Enabled => "the key encrypts and decrypts",
        KeyState::Disabled => "nothing uses the key until it is enabled again",
        KeyState::PendingDeletion => "nothing uses the key, and it is deleted when its waiting period ends",
        KeyState::PendingImport => "the key has no material: import it, or import it again",
        KeyState::PendingReplicaDeletion => "nothing uses the key, and it waits for the deletion of its replicas",
        _ => "",
    }
}

fn cells() -> Value {
    let cell = |kind: KeyKind, state: KeyState, operation: KeyOperation| {
        let answer = allowed(kind, state, operation);
        json!({
            "kind": kind.name(),
            "state": state.name(),
            "operation": operation.name(),
            "allowed": answer.is_ok(),
            "code": answer.err().map(|refusal| refusal.code()),
        })
    };
    let of_state = |kind, state| KeyOperation::ALL.into_iter().map(move |operation| cell(kind, state, operation));
    let of_kind = |kind: KeyKind| kind.states().iter().flat_map(move |state| of_state(kind, *state));
    KeyKind::ALL.into_iter().flat_map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_meaning_and_every_cell_is_there_for_programs() {
        for state in KeyState::ALL {
            assert!(!meaning(state).is_empty(), "{state:?}");
            assert!(meanings().contains(state.name()));
        }
        let cells = cells();
        let cells = cells.as_array().unwrap();
        let states: usize = KeyKind::ALL.iter().map(|kind| kind.states().len()).sum();
        assert_eq!(cells.len(), states * KeyOperation::ALL.len());
        assert!(cells.iter().all(|cell| cell["allowed"] == cell["code"].is_null()));
    }
}
