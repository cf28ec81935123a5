//! What hangs on the state table: how rows spell states, and what a refusal says.

use crate::error::ErrorKind;
use crate::kms::key::Spelled as _;
use crate::kms::state::check;
use crate::kms::{KeyKind, KeyOperation, KeyState, Refusal, allowed};

#[test]
fn every_state_is_spelled_as_aws_spells_it_and_read_back() {
    for state in KeyState::ALL {
        assert_eq!(state.spelling(), state.name());
        assert_eq!(KeyState::of_spelling(state.name()), Some(state));
    }
}

#[test]
fn a_refusal_for_the_state_names_the_state_and_one_for_the_kind_the_operation() {
    let error = check("k", KeyKind::Customer, KeyState::Disabled, KeyOperation::Encrypt).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::KeyState, Some("DisabledException")));
    assert_eq!(error.to_string().split(';').next(), Some("the key k is disabled"), "{error}");
    let error = check("k", KeyKind::Managed, KeyState::Enabled, KeyOperation::DisableKey).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidInput, Some("UnsupportedOperationException")));
    assert!(error.to_string().starts_with("the key k is a managed key: DisableKey is not for it"), "{error}");
}

#[test]
fn every_reason_occurs_and_says_what_to_do() {
    let mut seen = Vec::new();
    for kind in KeyKind::ALL {
        for state in kind.states() {
            for operation in KeyOperation::ALL {
                if let Err(refusal) = allowed(kind, *state, operation) {
                    let error = check("k", kind, *state, operation).unwrap_err();
                    assert!(error.to_string().contains("; "), "no advice: {error}");
                    seen.push(refusal);
                }
            }
        }
    }
    assert!(Refusal::ALL.iter().all(|refusal| seen.contains(refusal)), "{:?}", Refusal::ALL);
}
