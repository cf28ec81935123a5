//! The state table of the embedded KMS, cell by cell, against what AWS publishes; and its place in docs/kms.md.
//!
//! [`AWS_TABLE`] is transcribed by hand in AWS's own notation, footnotes and all, and interpreted here, so
//! that nothing expected comes from the code. [`BEYOND`] is what AWS says elsewhere of kinds of key that its
//! table does not tell apart, and what this crate's design says of managed keys.

use crate::support::say;
use envelock::kms::{KeyKind, KeyManager, KeyOperation, KeyOrigin, KeyState, MultiRegionKeyType, allowed, state_table};
use std::collections::BTreeSet;

/// "Key states of AWS KMS keys", developer guide of AWS KMS, without the columns of states that do not
/// occur here (Unavailable, Creating, Updating) and the operations on asymmetric and HMAC keys. `ok`: succeeds,
/// `X`: fails, `?`: succeeds under the footnote's condition; `a/b`: the one or the other footnote.
///
/// Sources, by the mark in front: `t` the table, in the guide's published source; its column *Pending
/// replica deletion* is younger than that, and is filled in from the later wording of footnotes 2 to 4, which
/// name both states together, and from "Deleting multi-Region keys" (no cryptographic operations, no
/// replication, deletion can be cancelled, to Disabled); and from "Managing multi-Region keys", where both keys
/// of UpdatePrimaryRegion must be Enabled. `r` the API reference: the row is younger than the table's
/// published source (rotation on demand, multi-Region keys), or the reference is more exact than it
/// (DeleteImportedKeyMaterial: "when the specified KMS key is in the PendingDeletion state, this operation
/// does not change the KMS key's state").
const AWS_TABLE: &str = "
  | API                             | Enabled | Disabled | Pending import | Pending deletion | Pending replica deletion
t | CancelKeyDeletion               | X4      | X4       | X4             | ok               | ok
t | CreateAlias                     | ok      | ok       | ok             | X3               | X3
t | CreateGrant                     | ok      | X1       | X5             | X2/3             | X2/3
t | Decrypt                         | ok      | X1       | X5             | X2/3             | X2/3
t | DeleteAlias                     | ok      | ok       | ok             | ok               | ok
r | DeleteImportedKeyMaterial       | ?9      | ?9       | ok             | ?9               | ?9
t | DescribeKey                     | ok      | ok       | ok             | ok               | ok
t | DisableKey                      | ok      | ok       | X5             | X3               | X3
t | DisableKeyRotation              | ?7      | X1/7     | X6             | X3/7             | X3/7
t | EnableKey                       | ok      | ok       | X5             | X3               | X3
t | EnableKeyRotation               | ?7      | X1/7     | X6             | X3/7             | X3/7
t | Encrypt                         | ok      | X1       | X5             | X2/3             | X2/3
t | GenerateDataKey                 | ok      | X1       | X5             | X2/3             | X2/3
t | GenerateDataKeyWithoutPlaintext | ok      | X1       | X5             | X2/3             | X2/3
t | GetKeyPolicy                    | ok      | ok       | ok             | ok               | ok
t | GetKeyRotationStatus            | ?7      | ?7       | X6             | ?7               | ?7
t | GetParametersForImport          | ?9      | ?9       | ok             | X8/9             | X8/9
t | ImportKeyMaterial               | ?9      | ?9       | ok             | X8/9             | X8/9
t | ListAliases                     | ok      | ok       | ok             | ok               | ok
t | ListGrants                      | ok      | ok       | ok             | ok               | ok
t | ListKeyPolicies                 | ok      | ok       | ok             | ok               | ok
r | ListKeyRotations                | ok      | ok       | ok             | ok               | ok
t | ListResourceTags                | ok      | ok       | ok             | ok               | ok
t | ListRetirableGrants             | ok      | ok       | ok             | ok               | ok
t | PutKeyPolicy                    | ok      | ok       | ok             | ok               | ok
t | ReEncrypt                       | ok      | X1       | X5             | X2/3             | X2/3
r | ReplicateKey                    | ok      | X1       | X5             | X2/3             | X2/3
t | RetireGrant                     | ok      | ok       | ok             | ok               | ok
t | RevokeGrant                     | ok      | ok       | ok             | ok               | ok
r | RotateKeyOnDemand               | ok      | X1       | X5             | X2/3             | X2/3
t | ScheduleKeyDeletion             | ok      | ok       | ok             | X3               | X3
t | TagResource                     | ok      | ok       | ok             | X3               | X3
t | UntagResource                   | ok      | ok       | ok             | X3               | X3
t | UpdateAlias                     | ok      | ok       | ok             | ?10              | ?10
t | UpdateKeyDescription            | ok      | ok       | ok             | X3               | X3
r | UpdatePrimaryRegion             | ok      | X1       | X5             | X2/3             | X2/3
";

/// `UnsupportedOperationException` in every state, whatever the table says.
///
/// - single-Region: "You can replicate only a multi-Region primary key" (ReplicateKey), and
///   "UpdatePrimaryRegion changes the primary key of a multi-Region key".
/// - replica: the same; and automatic rotation is a shared property that is set "on the primary key", as
///   rotation on demand is invoked there (EnableKeyRotation, DisableKeyRotation, RotateKeyOnDemand).
/// - managed: "You cannot edit any properties of AWS managed keys"; they cannot be enabled, disabled or
///   deleted, their policy and rotation cannot be changed, they cannot be tagged, and an alias points
///   to a customer key. AWS refuses most of that by the policy of those keys; here it is refused by their kind.
const BEYOND: &str = "
single-Region | ReplicateKey UpdatePrimaryRegion
replica       | ReplicateKey UpdatePrimaryRegion EnableKeyRotation DisableKeyRotation RotateKeyOnDemand
managed       | CancelKeyDeletion CreateAlias CreateGrant DeleteAlias DisableKey EnableKey PutKeyPolicy
managed       | ScheduleKeyDeletion TagResource UntagResource UpdateAlias UpdateKeyDescription
managed       | EnableKeyRotation DisableKeyRotation RotateKeyOnDemand
";

/// Each kind, what it is in the terms of the tables above, and the states that AWS lets it be in.
const KINDS: [(KeyKind, &str, &str); 7] = [
    (KeyKind::Customer, "single-Region", "Enabled Disabled PendingDeletion"),
    (KeyKind::Managed, "single-Region managed", "Enabled"),
    (KeyKind::Imported, "single-Region imported", "Enabled Disabled PendingDeletion PendingImport"),
    (KeyKind::MultiRegionPrimary, "primary", "Enabled Disabled PendingDeletion PendingReplicaDeletion"),
    (KeyKind::MultiRegionReplica, "replica", "Enabled Disabled PendingDeletion"),
    (
        KeyKind::ImportedPrimary,
        "primary imported",
        "Enabled Disabled PendingDeletion PendingImport PendingReplicaDeletion",
    ),
    (KeyKind::ImportedReplica, "replica imported", "Enabled Disabled PendingDeletion PendingImport"),
];

const UNSUPPORTED: &str = "UnsupportedOperationException";
const INVALID_STATE: &str = "KMSInvalidStateException";
const DISABLED: &str = "DisabledException";

/// What AWS's footnote says for such a key: nothing, or the error.
fn footnote(number: &str, kind: &str) -> Option<&'static str> {
    let imported = kind.contains("imported");
    match number {
        // Is disabled; is pending deletion, as DisabledException.
        "1" | "2" => Some(DISABLED),
        // Is pending deletion; is not pending deletion; is pending import.
        "3" | "4" | "5" => Some(INVALID_STATE),
        // The origin is EXTERNAL, which is not valid for this operation.
        "6" => Some(UNSUPPORTED),
        // If the key has imported key material.
        "7" => imported.then_some(UNSUPPORTED),
        "8" => imported.then_some(INVALID_STATE),
        // If the key cannot or does not have imported key material.
        "9" => (!imported).then_some(UNSUPPORTED),
        // If the destination key is pending deletion: it is the one that is asked about here.
        "10" => Some(INVALID_STATE),
        _ => panic!("no footnote {number}"),
    }
}

/// The answers that AWS's cell allows: `Ok`, or one of its errors.
fn expected(cell: &str, kind: &str) -> Vec<Result<(), &'static str>> {
    let numbers = cell.trim_start_matches(['X', '?']).split('/');
    if cell == "ok" {
        return vec![Ok(())];
    }
    let mut errors: Vec<_> = numbers.filter_map(|number| footnote(number, kind)).collect();
    // What is wrong with the kind is wrong in every state: AWS's `1 or 7` is 7 where 7 applies.
    if errors.contains(&UNSUPPORTED) {
        errors = vec![UNSUPPORTED];
    }
    match errors.is_empty() {
        true => {
            assert!(cell.starts_with('?'), "{cell} fails, and says nothing for {kind}");
            vec![Ok(())]
        }
        false => errors.into_iter().map(Err).collect(),
    }
}

/// AWS's table: the names of the states, as here, and each row: the operation and a cell for each.
fn aws_table() -> (Vec<KeyState>, Vec<(&'static str, Vec<&'static str>)>) {
    let mut rows = AWS_TABLE.trim_matches('\n').lines().map(|line| line.split('|').skip(1).map(str::trim));
    let heads = rows.next().unwrap().skip(1);
    let state = |head: &str| match head {
        "Enabled" => KeyState::Enabled,
        "Disabled" => KeyState::Disabled,
        "Pending import" => KeyState::PendingImport,
        "Pending deletion" => KeyState::PendingDeletion,
        "Pending replica deletion" => KeyState::PendingReplicaDeletion,
        _ => panic!("no state {head}"),
    };
    let states = heads.map(state).collect();
    (states, rows.map(|mut row| (row.next().unwrap(), row.collect())).collect())
}

/// The name of the table's row: AWS has one for both sides of ReEncrypt.
fn row_name(operation: KeyOperation) -> &'static str {
    match operation {
        KeyOperation::ReEncryptFrom | KeyOperation::ReEncryptTo => "ReEncrypt",
        _ => operation.name(),
    }
}

#[test]
fn every_cell_of_the_state_table_is_awss() {
    let (states, rows) = aws_table();
    let named: BTreeSet<_> = KeyOperation::ALL.into_iter().map(row_name).collect();
    assert_eq!(named, rows.iter().map(|(name, _)| *name).collect(), "the operations of the table");
    let mut cells = 0;
    for (kind, traits, its_states) in KINDS {
        for operation in KeyOperation::ALL {
            let row = &rows.iter().find(|(name, _)| *name == row_name(operation)).unwrap().1;
            assert_eq!(row.len(), states.len(), "{operation:?}");
            for (state, cell) in states.iter().zip(row) {
                if !its_states.split(' ').any(|name| name == state.name()) {
                    continue;
                }
                let beyond = BEYOND.trim().lines().map(|line| line.split_once('|').unwrap());
                let refused = beyond.into_iter().any(|(of, operations)| {
                    traits.split(' ').any(|it| it == of.trim())
                        && operations.split_whitespace().any(|name| name == operation.name())
                });
                let expected = if refused { vec![Err(UNSUPPORTED)] } else { expected(cell, traits) };
                let answer = allowed(kind, *state, operation).map_err(|refusal| refusal.code());
                assert!(expected.contains(&answer), "{operation:?}, {kind:?}, {state:?}: {answer:?}, not {expected:?}");
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 37 * (3 + 1 + 4 + 4 + 3 + 5 + 4));
    say(format_args!("the state table: {cells} cells are what AWS says"));
}

#[test]
fn each_kind_has_the_states_that_aws_gives_it_and_a_key_is_of_one_kind() {
    for (kind, _, states) in KINDS {
        let names: BTreeSet<_> = kind.states().iter().map(|state| state.name()).collect();
        assert_eq!(names, states.split(' ').collect(), "{kind:?}");
    }
    assert_eq!(KINDS.map(|(kind, ..)| kind), KeyKind::ALL);
    let (primary, replica) = (Some(MultiRegionKeyType::Primary), Some(MultiRegionKeyType::Replica));
    for (manager, origin, multi_region, kind) in [
        (KeyManager::Customer, KeyOrigin::Local, None, KeyKind::Customer),
        (KeyManager::Customer, KeyOrigin::Local, primary, KeyKind::MultiRegionPrimary),
        (KeyManager::Customer, KeyOrigin::Local, replica, KeyKind::MultiRegionReplica),
        (KeyManager::Customer, KeyOrigin::External, None, KeyKind::Imported),
        (KeyManager::Customer, KeyOrigin::External, primary, KeyKind::ImportedPrimary),
        (KeyManager::Customer, KeyOrigin::External, replica, KeyKind::ImportedReplica),
        (KeyManager::Managed, KeyOrigin::Local, None, KeyKind::Managed),
    ] {
        assert_eq!(KeyKind::of(manager, origin, multi_region), kind);
    }
}

#[test]
fn what_a_kind_refuses_it_refuses_in_every_state() {
    let mut refused = 0;
    for kind in KeyKind::ALL {
        for operation in KeyOperation::ALL {
            let code = |state| allowed(kind, state, operation).map_err(|refusal| refusal.code());
            if code(KeyState::Enabled) == Err(UNSUPPORTED) {
                refused += 1;
                assert!(KeyState::ALL.iter().all(|state| code(*state) == Err(UNSUPPORTED)), "{kind:?} {operation:?}");
            }
        }
    }
    assert!(refused > 0, "no kind refuses anything");
}

#[test]
fn the_page_shows_the_table_that_the_code_makes() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/kms.md")).unwrap();
    let (_, rest) = page.split_once("<!-- state table -->\n").expect("docs/kms.md has no mark of the state table");
    let (shown, _) = rest.split_once("<!-- end of the state table -->").expect("the state table has no end");
    assert_eq!(shown, state_table(), "put what `envelock keys states --table` prints into docs/kms.md");
}
