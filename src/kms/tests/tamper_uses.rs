//! Every operation that rests on deciding rows, in a process that had the keystore open before one of them was changed.

use super::furnished::{import_wrapped, letters, old_blob, policy_of, target};
use super::tamper_scene::{Operation, assert_each_finds_what_it_rests_on};
use super::{block_on, context};
use crate::error::ErrorKind;
use crate::kms::{CreateGrantRequest, DeletionWindow, GrantOperation, PolicyAction, RootKey, RotationPeriod, Tag};
use crate::material::DataKeyLength;
use crate::provider::{DataKeyAnswer, KeyProvider as _};

fn data_key() -> DataKeyLength {
    DataKeyLength::Bytes32
}

#[test]
fn every_cryptographic_operation_finds_a_changed_row() {
    const ORDERS: &str = "keys {orders}";
    const INVOICES: &str = "keys {invoices}";
    const POLICY: &str = "policies {orders}";
    const FIRST: &str = "key_versions {orders}/1";
    const SECOND: &str = "key_versions {orders}/2";
    const ALIAS: &str = "aliases alias/orders";
    assert_each_finds_what_it_rests_on(&[
        Operation {
            name: "decrypt under an old version",
            run: |it| block_on(it.kms.decrypt(old_blob(), &context())).map(drop),
            rows: &[ORDERS, FIRST, POLICY],
        },
        Operation {
            name: "decrypt by one whom the policy allows it",
            run: |it| block_on(it.kms.as_principal("orders")?.decrypt(old_blob(), &context())).map(drop),
            rows: &[ORDERS, FIRST, POLICY],
        },
        Operation {
            name: "decrypt by a grantee",
            run: |it| block_on(it.kms.as_principal("reader")?.decrypt(old_blob(), &context())).map(drop),
            rows: &[ORDERS, FIRST, POLICY, "grants {orders}/*reader"],
        },
        Operation {
            name: "decrypt under an alias",
            run: |it| block_on(it.kms.decrypt_under("alias/orders", old_blob(), &context())).map(drop),
            rows: &[ALIAS, ORDERS, FIRST],
        },
        Operation {
            name: "decrypt by a provider of an alias",
            run: |it| {
                let provider = it.kms.provider("alias/orders")?;
                let slot = crate::material::EncryptedDataKey::new("local", provider.key_name(), old_blob().to_vec());
                let context = crate::context::KmsContext::new(&context())?;
                match block_on(provider.decrypt_data_key(&slot, &context)) {
                    // What it opens is no data key.
                    DataKeyAnswer::Failed(error) if error.kind() == ErrorKind::Storage => Err(error),
                    _ => Ok(()),
                }
            },
            rows: &["alias_history alias/orders/1", "alias_history alias/orders/2", ORDERS, FIRST],
        },
        Operation {
            name: "encrypt by an alias",
            run: |it| block_on(it.kms.encrypt("alias/orders", b"x", &context())).map(drop),
            rows: &[ALIAS, ORDERS, SECOND, POLICY],
        },
        Operation {
            name: "generate_data_key",
            run: |it| block_on(it.kms.generate_data_key(&it.orders, data_key(), &context())).map(drop),
            rows: &[ORDERS, SECOND, POLICY],
        },
        Operation {
            name: "generate_data_key_without_plaintext",
            run: |it| {
                block_on(it.kms.generate_data_key_without_plaintext(&it.orders, data_key(), &context())).map(drop)
            },
            rows: &[ORDERS, SECOND, POLICY],
        },
        Operation {
            name: "re_encrypt",
            run: |it| block_on(it.kms.re_encrypt(old_blob(), &context(), &it.invoices)).map(drop),
            rows: &[ORDERS, FIRST, POLICY, INVOICES, "key_versions {invoices}/2", "policies {invoices}"],
        },
    ]);
}

#[test]
fn every_operation_on_keys_policies_and_grants_finds_a_changed_row() {
    const ORDERS: &str = "keys {orders}";
    const POLICY: &str = "policies {orders}";
    const GRANT: &str = "grants {orders}/*reader";
    const TAG: &str = "tags {orders}/team";
    const ALIAS: &str = "aliases alias/orders";
    assert_each_finds_what_it_rests_on(&[
        Operation {
            name: "describe_key by an alias",
            run: |it| block_on(it.kms.describe_key("alias/orders")).map(drop),
            rows: &[ALIAS, ORDERS, POLICY],
        },
        Operation { name: "list_keys", run: |it| block_on(it.kms.list_keys()).map(drop), rows: &[ORDERS] },
        Operation { name: "rotate", run: |it| block_on(it.kms.rotate(&it.orders)).map(drop), rows: &[ORDERS, POLICY] },
        Operation {
            name: "enable_key_rotation",
            run: |it| block_on(it.kms.enable_key_rotation(&it.orders, RotationPeriod::default())),
            rows: &[ORDERS, POLICY],
        },
        Operation {
            name: "list_key_versions",
            run: |it| block_on(it.kms.list_key_versions(&it.orders)).map(drop),
            rows: &["key_versions {orders}/1", "key_versions {orders}/2"],
        },
        Operation { name: "disable_key", run: |it| block_on(it.kms.disable_key(&it.orders)), rows: &[ORDERS, POLICY] },
        Operation {
            name: "schedule_key_deletion",
            run: |it| block_on(it.kms.schedule_key_deletion(&it.orders, DeletionWindow::default())).map(drop),
            rows: &[ORDERS, POLICY],
        },
        Operation {
            name: "update_alias",
            run: |it| block_on(it.kms.update_alias("alias/orders", &it.invoices)),
            rows: &[ALIAS, "keys {invoices}", "alias_history alias/orders/1", "alias_history alias/orders/2"],
        },
        Operation { name: "delete_alias", run: |it| block_on(it.kms.delete_alias("alias/orders")), rows: &[ALIAS] },
        Operation {
            name: "tag_resource",
            run: |it| block_on(it.kms.tag_resource(&it.orders, [Tag::new("team", "others")])),
            rows: &[TAG, ORDERS, POLICY],
        },
        Operation {
            name: "list_resource_tags",
            run: |it| block_on(it.kms.list_resource_tags(&it.orders)).map(drop),
            rows: &[TAG],
        },
        Operation {
            name: "get_key_policy",
            run: |it| block_on(it.kms.get_key_policy(&it.orders)).map(drop),
            rows: &[POLICY],
        },
        Operation {
            name: "put_key_policy",
            run: |it| block_on(it.kms.put_key_policy(&it.orders, &policy_of("somebody"))),
            rows: &[POLICY, ORDERS],
        },
        Operation {
            name: "simulate for a grantee",
            run: |it| {
                let action = PolicyAction::from(crate::kms::state::KeyOperation::Decrypt);
                block_on(it.kms.simulate("reader", action, &it.orders, &context())).map(drop)
            },
            rows: &[POLICY, GRANT],
        },
        Operation {
            name: "create_grant",
            run: |it| {
                let request = CreateGrantRequest::new("another", [GrantOperation::Encrypt]);
                block_on(it.kms.create_grant(&it.orders, &request)).map(drop)
            },
            rows: &[ORDERS, POLICY, GRANT],
        },
        Operation {
            name: "list_retirable_grants",
            run: |it| block_on(it.kms.list_retirable_grants("steward")).map(drop),
            rows: &[GRANT],
        },
        Operation {
            name: "retire_grant by its retiring principal",
            run: |it| block_on(it.kms.as_principal("steward")?.retire_grant(&it.orders, &it.grant)),
            rows: &[GRANT, POLICY],
        },
    ]);
}

#[test]
fn every_operation_on_imports_and_replicas_finds_a_changed_row() {
    const EXTERNAL: &str = "keys {external}";
    const MATERIAL: &str = "key_versions {external}/1";
    const SHARED: &str = "keys {shared}";
    const FIRST: &str = "key_versions {shared}/1";
    const REPLICA: &str = "replicas {shared}/*us-1";
    const PARCEL: &str = "parcels issued*{shared}";
    assert_each_finds_what_it_rests_on(&[
        Operation {
            name: "import by what was given out for it",
            run: |it| import_wrapped(&it.kms, &it.external),
            rows: &[EXTERNAL, MATERIAL, "wrapping_keys *import"],
        },
        Operation {
            name: "get_parameters_for_import",
            run: |it| block_on(it.kms.get_parameters_for_import(&it.external)).map(drop),
            rows: &[EXTERNAL],
        },
        Operation {
            name: "delete_imported_key_material",
            run: |it| block_on(it.kms.delete_imported_key_material(&it.external)),
            rows: &[EXTERNAL, MATERIAL],
        },
        Operation {
            name: "replication_parameters",
            run: |it| block_on(it.kms.replication_parameters()).map(drop),
            rows: &["wrapping_keys *replication"],
        },
        Operation {
            name: "multi_region_configuration",
            run: |it| block_on(it.kms.multi_region_configuration(&it.shared)).map(drop),
            rows: &[SHARED, REPLICA],
        },
        Operation {
            name: "replicate_key",
            run: |it| block_on(it.kms.replicate_key(&it.shared, &target().file, &target().fingerprint)).map(drop),
            rows: &[SHARED, FIRST, REPLICA, PARCEL],
        },
        Operation {
            name: "update_primary_region",
            run: |it| block_on(it.kms.update_primary_region(&it.shared, "us-1")).map(drop),
            rows: &[SHARED, FIRST, REPLICA, PARCEL],
        },
        Operation {
            name: "import_rotation",
            run: |it| block_on(it.kms.import_rotation(&letters().rotation)).map(drop),
            rows: &[
                "keys {theirs}",
                "key_versions {theirs}/1",
                "replicas {theirs}/*us-1",
                "wrapping_keys *replication",
                "parcels taken*{theirs}",
            ],
        },
        Operation {
            name: "import_replica",
            run: |it| block_on(it.kms.import_replica(&letters().bundle.file, &letters().bundle.sha256)).map(drop),
            rows: &["wrapping_keys *replication", "parcels taken*{theirs}", PARCEL],
        },
        Operation {
            name: "forget_replica",
            run: |it| block_on(it.kms.forget_replica(&it.shared, "us-1")).map(drop),
            rows: &[SHARED, REPLICA],
        },
        Operation {
            name: "schedule_key_deletion of a primary key",
            run: |it| block_on(it.kms.schedule_key_deletion(&it.shared, DeletionWindow::default())).map(drop),
            rows: &[SHARED, REPLICA],
        },
    ]);
}

#[test]
fn what_takes_all_rows_finds_any_that_was_changed() {
    const ALL: &[&str] = &[
        "meta 1",
        "keys {orders}",
        "key_versions {orders}/1",
        "aliases alias/orders",
        "alias_history alias/orders/1",
        "tags {orders}/team",
        "policies {orders}",
        "grants {orders}/*reader",
        "wrapping_keys *replication",
        "replicas {shared}/*us-1",
        "parcels issued*{shared}",
    ];
    assert_each_finds_what_it_rests_on(&[
        Operation {
            name: "rekey",
            run: |it| block_on(it.kms.rekey(RootKey::value(it.kms.new_root_key()?.expose())?)),
            rows: ALL,
        },
        Operation {
            name: "backup",
            run: |it| block_on(it.kms.backup(it.place.folder.path().join("backup.db"))),
            rows: ALL,
        },
    ]);
}
