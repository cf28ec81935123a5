//! The trail's index by key, and the head that the last record carries.

use super::audit::{all, furnished, named};
use super::{Place, block_on};
use crate::kms::{AuditQuery, AuditRetention, LocalKms, RestoreOptions, RootKey};
use rusqlite::Connection;

#[test]
fn a_changed_index_is_found_since_queries_by_key_rest_on_it() {
    for (change, found) in [
        ("DELETE FROM audit_by_key WHERE record = 30", false),
        ("UPDATE audit_by_key SET record = 1 WHERE record = 30", false),
        ("UPDATE audit_by_key SET of_key = 'another' WHERE record = 30", false),
        ("INSERT INTO audit_by_key VALUES ('another', 30)", true),
        ("INSERT INTO audit_by_key SELECT of_key, 1000 FROM audit_by_key LIMIT 1", true),
        ("INSERT INTO audit_by_key SELECT key_id, sequence FROM audit WHERE sequence > 64 AND key_id <> ''", true),
    ] {
        let (place, kms, key) = used(100);
        let entries: i64 = count(&place.sql(), "audit_by_key");
        assert_eq!(entries, count(&place.sql(), "audit WHERE key_id <> '' AND sequence <= 64"));
        assert_eq!(block_on(kms.verify_audit(None)).unwrap().records, 100);
        assert!(place.sql().execute(change, []).unwrap() > 0, "{change}");
        let by_key = block_on(kms.query_audit(&AuditQuery::default().key(&key))).unwrap();
        assert_eq!(by_key.iter().any(|it| it.sequence == 30), found, "{change}");
        named(block_on(kms.verify_audit(None)), "the index of its audit trail by key is not what the trail tells");
        // It stops no call.
        (0..100).for_each(|_| drop(block_on(kms.describe_key(&key)).unwrap()));
    }
}

#[test]
fn an_index_that_promises_nothing_of_itself_is_compared_all_the_same() {
    let (place, kms, key) = used(100);
    // Without its key, one entry is there twice and another not: no count of them tells.
    place
        .sql()
        .execute_batch(
            "CREATE TABLE free (of_key, record);
             INSERT INTO free SELECT * FROM audit_by_key WHERE record <> 30 ORDER BY of_key, record;
             INSERT INTO free SELECT * FROM audit_by_key WHERE record = 31;
             DROP TABLE audit_by_key; ALTER TABLE free RENAME TO audit_by_key;",
        )
        .unwrap();
    assert!(!block_on(kms.query_audit(&AuditQuery::default().key(&key))).unwrap().iter().any(|it| it.sequence == 30));
    named(block_on(kms.verify_audit(None)), "the index of its audit trail by key");
}

#[test]
fn a_lost_index_stops_no_call_hides_no_older_file_and_is_made_anew_by_restoring() {
    let (place, kms, key) = used(100);
    let anchored = {
        let backup = place.folder.path().join("before.db");
        block_on(kms.backup(&backup)).unwrap();
        block_on(kms.describe_key(&key)).unwrap();
        block_on(kms.audit_head()).unwrap()
    };
    place.sql().execute_batch("DROP TABLE audit_by_key").unwrap();
    (0..100).for_each(|_| drop(block_on(kms.describe_key(&key)).unwrap()));
    named(block_on(kms.query_audit(&AuditQuery::default().key(&key))), "audit_by_key");
    block_on(kms.verify_audit(None)).unwrap_err();
    assert_eq!(block_on(kms.trim_audit(AuditRetention::Newest(195))).unwrap().removed, 6);
    let backup = place.folder.path().join("backup.db");
    block_on(kms.backup(&backup)).unwrap();
    block_on(kms.close()).unwrap();
    drop(kms);
    let restore = |backup: &std::path::Path| {
        let root = RootKey::file(place.root_key()).unwrap();
        LocalKms::restore(backup, place.keystore(), root, RestoreOptions::default().move_existing_aside()).unwrap();
        place.open()
    };
    let kms = restore(&backup);
    block_on(kms.verify_audit(None)).unwrap();
    assert!(block_on(kms.query_audit(&AuditQuery::default().key(&key))).unwrap().len() > 150);
    block_on(kms.close()).unwrap();
    drop(kms);
    // What is older is said before what the index lacks.
    let kms = restore(&place.folder.path().join("before.db"));
    block_on(kms.close()).unwrap();
    let kms = place.open();
    place.sql().execute("DELETE FROM audit_by_key WHERE record = 30", []).unwrap();
    let error = block_on(kms.verify_audit(Some(&anchored))).unwrap_err().to_string();
    assert!(!error.contains("index") && error.contains("anchored"), "{error}");
}

#[test]
fn a_head_that_was_put_on_another_record_or_on_two_is_found() {
    for (change, expected) in [
        // Beyond the end, where later ones would not be read.
        (
            "INSERT INTO audit SELECT 9999, at, name, principal, key_id, code, details, changes, previous, mac, head
                 FROM audit WHERE sequence = 9; UPDATE audit SET head = NULL WHERE sequence = 9",
            "the audit record 9999 was added: the trail ends with 9",
        ),
        // Before the end, with the last record dropped.
        (
            "UPDATE audit SET head = (SELECT head FROM audit WHERE sequence = 9) WHERE sequence = 8;
             DELETE FROM audit WHERE sequence = 9",
            "the audit record 9 was removed",
        ),
    ] {
        let (place, kms) = furnished();
        place.sql().execute_batch(change).unwrap();
        named(block_on(kms.verify_audit(None)), expected);
        named(block_on(kms.list_keys()), expected);
        // One that opens it, so that it can be verified.
        let kms = place.open();
        named(block_on(kms.list_keys()), expected);
        named(block_on(kms.verify_audit(None)), expected);
    }
    let (place, kms) = furnished();
    place.sql().execute("UPDATE audit SET head = (SELECT max(head) FROM audit) WHERE sequence = 3", []).unwrap();
    named(block_on(kms.verify_audit(None)), "the audit record 3 carries a head and is not the last");
}

#[test]
fn records_of_a_key_are_found_on_both_sides_of_the_end_of_the_index() {
    for records in [64, 65, 127, 128, 129, 300] {
        let (_place, kms, key) = used(records);
        let all: Vec<_> =
            all(&kms).into_iter().filter(|it| it.resources.iter().any(|name| name.contains(&key))).collect();
        assert_eq!(all.last().unwrap().sequence, records);
        for limit in [1, 63, 64, 65, 200, 1_000] {
            for newest_first in [false, true] {
                let query = AuditQuery::default().key(&key).limit(limit);
                let query = if newest_first { query.newest_first() } else { query };
                let (mut paged, mut page) = (Vec::new(), query.clone());
                loop {
                    let found = block_on(kms.query_audit(&page)).unwrap();
                    let Some(last) = found.last() else { break };
                    assert!(found.len() as u64 <= limit);
                    page = query.clone().after(last.sequence);
                    paged.extend(found);
                }
                if newest_first {
                    paged.reverse();
                }
                assert_eq!(paged, all, "{records} records, {limit} at a time");
            }
        }
        let keep = records / 2;
        block_on(kms.trim_audit(AuditRetention::Newest(keep))).unwrap();
        let left = block_on(kms.query_audit(&AuditQuery::default().key(&key))).unwrap();
        assert_eq!(left, all[all.len() - usize::try_from(keep).unwrap()..]);
        block_on(kms.verify_audit(None)).unwrap();
    }
}

/// A keystore with so many records, the last of which are about one key.
fn used(records: u64) -> (Place, LocalKms, String) {
    let (place, kms) = furnished();
    let key = block_on(kms.list_keys()).unwrap()[0].key_id.clone();
    while all(&kms).last().unwrap().sequence < records {
        block_on(kms.describe_key(&key)).unwrap();
    }
    (place, kms, key)
}

fn count(sql: &Connection, what: &str) -> i64 {
    sql.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}
