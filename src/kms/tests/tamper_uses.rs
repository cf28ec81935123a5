//! Every operation that rests on deciding rows, in a process that had the keystore open before one of them was changed.
//!
//! Here each operation is tried alone, since the first that finds a forged row would keep others from being tried.

use super::furnished::{
    assert_tampered, dump, furnished, furnished_place, import_wrapped, named_keys, old_blob, other, policy_of, put,
    remove, special_keys, target, without_constraints,
};
use super::named::change_everything;
use super::{DAY, Hands, Place, block_on, context};
use crate::error::{ErrorKind, Result};
use crate::kms::rows::RowName;
use crate::kms::schema::{TABLES, Table};
use crate::kms::{
    CreateGrantRequest, DeletionWindow, GrantOperation, LocalKms, PolicyAction, RootKey, RotationPeriod, Tag,
};
use crate::material::DataKeyLength;
use crate::provider::{DataKeyAnswer, KeyProvider as _};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// A furnished keystore, and what its keys are called.
struct Scene {
    place: Place,
    kms: LocalKms,
    orders: String,
    invoices: String,
    external: String,
    shared: String,
    /// The id of the grant of `orders`.
    grant: String,
}

impl Scene {
    fn new() -> Self {
        let (place, kms) = furnished();
        Self::of(place, kms)
    }

    fn of(place: Place, kms: LocalKms) -> Self {
        let ([orders, invoices], [external, shared]) = (named_keys(&kms), special_keys(&kms));
        let grant = block_on(kms.list_grants(&orders)).unwrap().remove(0).grant_id;
        Self { place, kms, orders, invoices, external, shared, grant }
    }

    /// The table and the first row that `text` stands for: a table, the beginning of an identity, and after `*` what a
    /// column has.
    fn row(&self, sql: &Connection, text: &str) -> (&'static Table, Vec<Value>) {
        let names = [("{orders}", &self.orders), ("{invoices}", &self.invoices)];
        let more = [("{external}", &self.external), ("{shared}", &self.shared)];
        let text = names.iter().chain(&more).fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let (name, has) = text.split_once('*').map_or((text.as_str(), None), |(name, has)| (name, Some(has)));
        let table = *TABLES.iter().find(|table| name.starts_with(&format!("{} ", table.name))).unwrap();
        let is_meant = |row: &Vec<Value>| match has {
            None => RowName::of(table, row).as_str() == name,
            Some(has) => {
                RowName::of(table, row).as_str().starts_with(name) && row.contains(&Value::Text(has.to_owned()))
            }
        };
        (table, dump(sql, table).into_iter().find(is_meant).unwrap_or_else(|| panic!("no row {text}")))
    }

    /// The same row with another content and a MAC that envelock made: for a moment it was there, so that it is an older
    /// one now.
    fn older(&self, sql: &Connection, table: &'static Table, row: &[Value]) -> Vec<Value> {
        let older = with_another_content(table, row);
        let set = |row: &[Value]| {
            let columns = row[..table.columns.len()].to_vec();
            block_on(self.kms.call(self.kms.asks("Test"), move |tx| tx.update(table, columns.clone()))).unwrap();
        };
        set(&older);
        let name = RowName::of(table, row);
        let older = dump(sql, table).into_iter().find(|it| RowName::of(table, it) == name).unwrap();
        set(row);
        older
    }
}

/// As something that the table's own constraints take.
fn with_another_content(table: &Table, row: &[Value]) -> Vec<Value> {
    let inside = ["description", "tag_value", "at", "since", "updated_at", "created_at"];
    let at = inside.iter().find_map(|name| table.columns.iter().position(|column| column == name)).unwrap();
    let mut changed = row.to_vec();
    changed[at] = other(&row[at]);
    changed
}

/// An operation, and the rows that it rests on.
struct Operation {
    name: &'static str,
    run: fn(&Scene) -> Result<()>,
    rows: &'static [&'static str],
}

/// Rows that are removed and rows that are put, and whose names may be told.
struct Tampering {
    how: String,
    without: Vec<Vec<Value>>,
    with: Vec<Vec<Value>>,
}

/// Every way to change one row.
fn tamperings(table: &Table, rows: &[Vec<Value>], row: &[Value], older: &[Value]) -> Vec<Tampering> {
    let row = row.to_vec();
    let long = std::env::var("ENVELOCK_LONG").is_ok_and(|it| it == "1");
    let mut all = Vec::new();
    // By default the first part of its identity, one of what it says, and its MAC.
    for at in (0..row.len()).filter(|at| long || *at == 0 || *at >= row.len() - 2) {
        let mut changed = row.clone();
        changed[at] = other(&row[at]);
        let how = format!("with another {}", table.columns.get(at).unwrap_or(&"row_mac"));
        all.push(Tampering { how, without: vec![row.clone()], with: vec![changed] });
    }
    all.push(Tampering { how: "older".to_owned(), without: vec![row.clone()], with: vec![older.to_vec()] });
    all.push(Tampering { how: "deleted".to_owned(), without: vec![row.clone()], with: vec![] });
    all.push(Tampering { how: "twice".to_owned(), without: vec![], with: vec![row.clone()] });
    let elsewhere = rows.iter().find(|it| it[0] != row[0]).or_else(|| rows.iter().find(|it| **it != row));
    if let Some(that) = elsewhere {
        let (mut this_now, mut that_now) = (row.clone(), that.clone());
        this_now[table.identity..].clone_from_slice(&that[table.identity..]);
        that_now[table.identity..].clone_from_slice(&row[table.identity..]);
        let how = "swapped with another".to_owned();
        all.push(Tampering { how, without: vec![row, that.clone()], with: vec![this_now, that_now] });
    }
    all
}

/// Each operation fails, in a running process, for each change of each row that it rests on, and names the row; and does
/// not fail without.
fn assert_each_finds_what_it_rests_on(operations: &[Operation]) {
    let scene = Scene::new();
    let sql = scene.place.sql();
    let mut older = BTreeMap::new();
    for text in operations.iter().flat_map(|it| it.rows) {
        let (table, row) = scene.row(&sql, text);
        let name = RowName::of(table, &row);
        older.entry(name).or_insert_with(|| scene.older(&sql, table, &row));
    }
    TABLES.iter().for_each(|table| without_constraints(&sql, table));
    let mut tried = 0;
    for Operation { name, run, rows } in operations {
        run(&Scene::new()).unwrap_or_else(|error| panic!("{name}, nothing changed: {error:?}"));
        for text in *rows {
            let (table, row) = scene.row(&sql, text);
            for Tampering { how, without, with } in
                tamperings(table, &dump(&sql, table), &row, &older[&RowName::of(table, &row)])
            {
                without.iter().for_each(|row| remove(&sql, table, row));
                with.iter().for_each(|row| put(&sql, table, row));
                let what = format!("{name}: {text} {how}");
                let names: Vec<_> = without
                    .iter()
                    .chain(&with)
                    .map(|row| format!("the row {:?} ", RowName::of(table, row).as_str()))
                    .collect();
                assert_tampered(&run(&scene).expect_err(&what), &names, &what);
                with.iter().for_each(|row| remove_one(&sql, table, row));
                without.iter().for_each(|row| put(&sql, table, row));
                tried += 1;
            }
        }
    }
    block_on(scene.kms.verify_audit(None)).unwrap();
    println!("{tried} tries");
}

/// One of two that are the same, if there are two.
fn remove_one(sql: &Connection, table: &Table, row: &[Value]) {
    let all: Vec<_> = table.columns.iter().chain([&"row_mac"]).map(|it| format!("{it} IS ?")).collect();
    let rowid = format!("SELECT rowid FROM {} WHERE {} LIMIT 1", table.name, all.join(" AND "));
    let statement = format!("DELETE FROM {} WHERE rowid = ({rowid})", table.name);
    assert_eq!(sql.execute(&statement, rusqlite::params_from_iter(row)).unwrap(), 1);
}

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

#[test]
fn a_row_of_before_is_found_by_the_operation_that_would_believe_it() {
    let scene = Scene::new();
    let sql = scene.place.sql();
    let before: Vec<_> = TABLES.iter().map(|table| dump(&sql, table)).collect();
    change_everything(&scene.kms);
    let mut believed = BTreeSet::new();
    for (table, rows) in TABLES.into_iter().zip(before) {
        let now = dump(&sql, table);
        for old in rows.iter().filter(|row| !now.contains(row)) {
            let newer = now.iter().find(|it| it[..table.identity] == old[..table.identity]);
            newer.iter().for_each(|row| remove(&sql, table, row));
            put(&sql, table, old);
            let it = &scene;
            let decrypt_as = |who: &str| block_on(it.kms.as_principal(who)?.decrypt(old_blob(), &context())).map(drop);
            let answer = match (table.name, newer) {
                ("keys", _) => block_on(it.kms.list_keys()).map(drop),
                ("key_versions", _) => block_on(it.kms.encrypt(&it.external, b"x", &context())).map(drop),
                ("aliases", Some(_)) => block_on(it.kms.encrypt("alias/orders", b"x", &context())).map(drop),
                ("aliases", None) => block_on(it.kms.encrypt("alias/invoices", b"x", &context())).map(drop),
                ("tags", Some(_)) => block_on(it.kms.list_resource_tags(&it.orders)).map(drop),
                ("tags", None) => block_on(it.kms.list_resource_tags(&it.invoices)).map(drop),
                ("policies", _) => decrypt_as("orders"),
                ("grants", _) => decrypt_as("reader"),
                ("wrapping_keys", _) => import_wrapped(&it.kms, &it.external),
                ("replicas", _) => block_on(it.kms.multi_region_configuration(&it.shared)).map(drop),
                ("parcels", _) => block_on(it.kms.update_primary_region(&it.shared, "us-1")).map(drop),
                (other, _) => panic!("{other}: nobody is asked"),
            };
            let name = RowName::of(table, old);
            let what = format!("{} of before", name.as_str());
            assert_tampered(&answer.expect_err(&what), &[format!("the row {:?} ", name.as_str())], &what);
            remove(&sql, table, old);
            newer.iter().for_each(|row| put(&sql, table, row));
            believed.insert((table.name, newer.is_some()));
        }
    }
    assert_eq!(believed.len(), 11, "{believed:?}");
    block_on(scene.kms.verify_audit(None)).unwrap();
}

#[test]
fn nothing_is_deleted_or_rotated_by_itself_while_a_row_of_it_is_forged() {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let rows = [
        "keys {orders}",
        "key_versions {orders}/1",
        "aliases alias/orders",
        "tags {orders}/team",
        "policies {orders}",
        "grants {orders}/*reader",
    ];
    let deletions = rows.map(|row| ("DeleteKey", row));
    for (name, text) in deletions.into_iter().chain([("RotateKey", "keys {orders}")]) {
        for deleted in [false, true] {
            let hands = Hands::at(now);
            let place = furnished_place();
            let kms = place.open_at(&hands);
            let scene = Scene::of(place, kms);
            let days = match name {
                "DeleteKey" => {
                    let window = DeletionWindow::from_days(7).unwrap();
                    block_on(scene.kms.schedule_key_deletion(&scene.orders, window)).unwrap();
                    7
                }
                _ => {
                    let period = RotationPeriod::from_days(90).unwrap();
                    block_on(scene.kms.enable_key_rotation(&scene.orders, period)).unwrap();
                    90
                }
            };
            let sql = scene.place.sql();
            let (table, row) = scene.row(&sql, text);
            let forged = with_another_content(table, &row);
            remove(&sql, table, &row);
            if !deleted {
                put(&sql, table, &forged);
            }
            let recorded = |code: &str| {
                let record = [name, "envelock", &scene.orders, code];
                scene.place.trail().iter().filter(|it| **it == record).count()
            };
            // Any call does what is due before.
            hands.set(now + days * DAY + 1_000);
            block_on(scene.kms.describe_key(&scene.invoices)).unwrap();
            let what = format!("{name}, {text}, deleted: {deleted}");
            assert_eq!((recorded("KeystoreTampered"), recorded("")), (1, 0), "{what}");
            if !deleted {
                remove(&sql, table, &forged);
            }
            put(&sql, table, &row);
            hands.set(now + days * DAY + 62_000);
            block_on(scene.kms.describe_key(&scene.invoices)).unwrap();
            assert_eq!((recorded("KeystoreTampered"), recorded("")), (1, 1), "{what}");
            block_on(scene.kms.verify_audit(None)).unwrap();
        }
    }
}
