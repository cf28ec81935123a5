//! Rows of every deciding table that were deleted, replayed or put back: named from the trail or its checkpoint.

use super::furnished::{
    assert_tampered, dump, furnished, import, import_wrapped, named_keys, policy_of, put, remove_all, sentence,
    special_keys,
};
use super::{Place, block_on};
use crate::kms::schema::{PARCELS, TABLES, Table};
use crate::kms::{AuditRetention, LocalKms, Tag};
use rusqlite::types::Value;
use std::collections::BTreeSet;

/// With what the trail told until now in its checkpoint, if so.
fn trimmed(kms: &LocalKms, trimmed: bool) {
    if trimmed {
        block_on(kms.trim_audit(AuditRetention::Newest(0))).unwrap();
    }
    block_on(kms.verify_audit(None)).unwrap();
}

/// Whoever opens the keystore is told, and whoever verifies it in a process that had it open.
#[track_caller]
fn assert_named(place: &Place, kms: &LocalKms, table: &Table, row: &[Value], happened: &str) {
    assert_one_named(place, kms, &[sentence(table, row, happened)], happened);
}

/// As [`assert_named`], by one of these sentences.
#[track_caller]
pub(super) fn assert_one_named(place: &Place, kms: &LocalKms, sentences: &[String], what: &str) {
    assert_tampered(&place.try_open().expect_err(what), sentences, &format!("{what}, at open"));
    assert_tampered(&block_on(kms.verify_audit(None)).expect_err(what), sentences, &format!("{what}, verified"));
}

#[test]
fn a_row_of_any_table_that_was_deleted_is_named() {
    for trim in [false, true] {
        let (place, kms) = furnished();
        trimmed(&kms, trim);
        let sql = place.sql();
        for table in TABLES {
            for row in dump(&sql, table) {
                remove_all(&sql, table, &row);
                assert_named(&place, &kms, table, &row, "was removed");
                put(&sql, table, &row);
            }
        }
        block_on(kms.verify_audit(None)).unwrap();
        place.open();
    }
}

#[test]
fn a_row_of_any_table_that_is_an_older_one_or_was_put_back_is_named() {
    for trim in [false, true] {
        let (place, kms) = furnished();
        let sql = place.sql();
        let before: Vec<_> = TABLES.iter().map(|table| dump(&sql, table)).collect();
        change_everything(&kms);
        trimmed(&kms, trim);
        let (mut replayed, mut put_back) = (BTreeSet::new(), BTreeSet::new());
        for (table, older) in TABLES.into_iter().zip(before) {
            let newer = dump(&sql, table);
            for old in older {
                match newer.iter().find(|it| it[..table.identity] == old[..table.identity]) {
                    Some(new) if *new == old => {}
                    Some(new) => {
                        remove_all(&sql, table, new);
                        put(&sql, table, &old);
                        assert_named(&place, &kms, table, &old, "was replaced by an older one");
                        remove_all(&sql, table, &old);
                        put(&sql, table, new);
                        replayed.insert(table.name);
                    }
                    None => {
                        put(&sql, table, &old);
                        assert_named(&place, &kms, table, &old, "was put back after it was removed");
                        remove_all(&sql, table, &old);
                        put_back.insert(table.name);
                    }
                }
            }
        }
        // All that are ever changed, and all from which a row is ever removed, while the root key is the same.
        assert_eq!(
            replayed.into_iter().collect::<Vec<_>>(),
            ["aliases", "key_versions", "keys", "parcels", "policies", "tags"]
        );
        assert_eq!(
            put_back.into_iter().collect::<Vec<_>>(),
            ["aliases", "grants", "replicas", "tags", "wrapping_keys"]
        );
        block_on(kms.verify_audit(None)).unwrap();
        place.open();
    }
}

/// At least one row of each table that has rows which are changed or removed, by the operation that does so.
pub(super) fn change_everything(kms: &LocalKms) {
    let [orders, invoices] = named_keys(kms);
    let [external, shared] = special_keys(kms);
    block_on(kms.rotate(&orders)).unwrap();
    block_on(kms.update_alias("alias/orders", &invoices)).unwrap();
    block_on(kms.delete_alias("alias/invoices")).unwrap();
    block_on(kms.tag_resource(&orders, [Tag::new("team", "others")])).unwrap();
    block_on(kms.untag_resource(&invoices, ["team"])).unwrap();
    block_on(kms.put_key_policy(&orders, &policy_of("somebody"))).unwrap();
    let grant = block_on(kms.list_grants(&orders)).unwrap().remove(0);
    block_on(kms.revoke_grant(&orders, &grant.grant_id)).unwrap();
    block_on(kms.forget_replica(&shared, "ap-1")).unwrap();
    import_wrapped(kms, &external).unwrap();
    block_on(kms.delete_imported_key_material(&external)).unwrap();
    import(kms, &external);
    // A file that was kept to be given out again is forgotten once another keystore hands the primary key back; here
    // a row is changed as that does it.
    block_on(kms.call(kms.asks("Test"), |tx| {
        let mut row = tx.rows(&PARCELS)?.remove(0);
        row[PARCELS.columns.len() - 1] = Value::Blob(vec![1]);
        tx.update(&PARCELS, row)
    }))
    .unwrap();
}
