//! Rows of before that are put back, and what the keystore does by itself later, in a process that had the keystore open.

use super::furnished::{assert_tampered, dump, furnished_place, import_wrapped, old_blob, put, remove};
use super::named::change_everything;
use super::tamper_scene::{Scene, with_another_content};
use super::{DAY, Hands, block_on, context};
use crate::kms::rows::RowName;
use crate::kms::schema::TABLES;
use crate::kms::{DeletionWindow, RotationPeriod};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

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
