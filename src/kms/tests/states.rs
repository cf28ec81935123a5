//! The state table, cell by cell, against AWS's "Key states of AWS KMS keys".

use crate::kms::key::Spelled as _;
use crate::kms::{KeyOperation as Op, KeyState, allowed};

/// `+` allowed, `d` DisabledException, `x` KMSInvalidStateException; columns: Enabled, Disabled,
/// PendingDeletion, PendingImport, PendingReplicaDeletion. Written from AWS's table, where it depends on the state alone; for `DisabledException` or
/// `KMSInvalidStateException` on a key pending deletion, both of which AWS gives, the second.
const TABLE: [(Op, &str); 35] = [
    (Op::CancelKeyDeletion, "xx+x+"),
    (Op::CreateAlias, "++x+x"),
    (Op::CreateGrant, "+dxxx"),
    (Op::Decrypt, "+dxxx"),
    (Op::DeleteAlias, "+++++"),
    (Op::DeleteImportedKeyMaterial, "++x+x"),
    (Op::DescribeKey, "+++++"),
    (Op::DisableKey, "++xxx"),
    (Op::DisableKeyRotation, "+dxxx"),
    (Op::EnableKey, "++xxx"),
    (Op::EnableKeyRotation, "+dxxx"),
    (Op::Encrypt, "+dxxx"),
    (Op::GenerateDataKey, "+dxxx"),
    (Op::GenerateDataKeyWithoutPlaintext, "+dxxx"),
    (Op::GetKeyPolicy, "+++++"),
    (Op::GetKeyRotationStatus, "+++++"),
    (Op::GetParametersForImport, "++x+x"),
    (Op::ImportKeyMaterial, "++x+x"),
    (Op::ListAliases, "+++++"),
    (Op::ListGrants, "+++++"),
    (Op::ListKeyRotations, "+++++"),
    (Op::ListResourceTags, "+++++"),
    (Op::PutKeyPolicy, "+++++"),
    (Op::ReEncryptFrom, "+dxxx"),
    (Op::ReEncryptTo, "+dxxx"),
    (Op::ReplicateKey, "+dxxx"),
    (Op::RetireGrant, "+++++"),
    (Op::RevokeGrant, "+++++"),
    (Op::RotateKeyOnDemand, "+dxxx"),
    (Op::ScheduleKeyDeletion, "++x+x"),
    (Op::TagResource, "++x+x"),
    (Op::UntagResource, "++x+x"),
    (Op::UpdateAlias, "++x+x"),
    (Op::UpdateKeyDescription, "++x+x"),
    (Op::UpdatePrimaryRegion, "+dxxx"),
];

#[test]
fn every_cell_of_the_state_table_is_awss() {
    assert_eq!(TABLE.map(|(operation, _)| operation), Op::ALL);
    for (operation, row) in TABLE {
        for (state, expected) in KeyState::ALL.into_iter().zip(row.chars()) {
            let code = allowed(state, operation).map_err(|refusal| refusal.code());
            let expected = match expected {
                '+' => Ok(()),
                'd' => Err("DisabledException"),
                _ => Err("KMSInvalidStateException"),
            };
            assert_eq!(code, expected, "{operation:?} on a key that is {state:?}");
        }
    }
}

#[test]
fn every_state_is_spelled_as_aws_spells_it_and_read_back() {
    for state in KeyState::ALL {
        assert_eq!(state.spelling(), state.name());
        assert_eq!(KeyState::of_spelling(state.name()), Some(state));
    }
}
