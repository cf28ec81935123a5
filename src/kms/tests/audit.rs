//! The audit trail: what is in it, what is found of changes in it, and how its old end is cut off.

use super::{Place, block_on, context, new_key};
use crate::error::{Error, ErrorKind};
use crate::kms::audit::COLUMNS;
use crate::kms::{
    AuditHead, AuditOutcome, AuditQuery, AuditRecord, AuditRetention, CacheFigures, CreateKeyRequest, LocalKms, Prices,
};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A keystore whose trail has records of all kinds.
pub(super) fn furnished() -> (Place, LocalKms) {
    let place = Place::new();
    let kms = place.open();
    let key = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/orders"))).unwrap().key_id;
    let blob = block_on(kms.encrypt(&key, b"x", &context())).unwrap().ciphertext_blob;
    block_on(kms.decrypt(&blob, &context())).unwrap();
    block_on(kms.as_principal("mallory").unwrap().decrypt(&blob, &context())).unwrap_err();
    block_on(kms.rotate(&key)).unwrap();
    block_on(kms.describe_key("alias/nothing")).unwrap_err();
    block_on(kms.delete_alias("alias/orders")).unwrap();
    block_on(kms.encrypt(&key, b"y", &context())).unwrap();
    (place, kms)
}

pub(super) fn all(kms: &LocalKms) -> Vec<AuditRecord> {
    block_on(kms.query_audit(&AuditQuery::default())).unwrap()
}

/// A row of the table as SQLite has it: sequence, at, name, principal, key id, code, details, changes, previous, mac;
/// not the head, which the last one carries.
type Row = Vec<Value>;

fn rows(sql: &Connection) -> Vec<Row> {
    let mut statement = sql.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY sequence")).unwrap();
    let rows = statement.query_map([], |row| (0..10).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The table with these rows, without the keys and checks that it was made with. The last one carries the head, as who
/// knows the format would have it.
fn put_rows(sql: &Connection, rows: &[Row]) {
    let head: Vec<u8> = sql.query_row("SELECT head FROM audit WHERE head IS NOT NULL", [], |row| row.get(0)).unwrap();
    sql.execute_batch(
        "DROP TABLE audit; CREATE TABLE audit (sequence, at, name, principal, key_id, code, details, changes, previous, mac, head);",
    )
    .unwrap();
    for row in rows {
        sql.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", params_from_iter(row)).unwrap();
    }
    let last = "UPDATE audit SET head = ? WHERE sequence = (SELECT max(sequence) FROM audit)";
    assert!(sql.execute(last, [head]).unwrap() > 0);
}

/// Recomputes what has no key: each record's `previous`, as a forger would who knows the format.
fn rechain(kms: &LocalKms, rows: &mut [Row]) {
    let keystore_id = *uuid::Uuid::parse_str(&kms.keystore_id()).unwrap().as_bytes();
    let mut previous = [0; 32];
    for row in rows {
        row[8] = Value::Blob(previous.to_vec());
        let mut bytes = keystore_id.to_vec();
        bytes.extend_from_slice(&previous);
        for column in &row[..2] {
            let Value::Integer(number) = column else { return };
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for column in &row[2..6] {
            let Value::Text(text) = column else { return };
            bytes.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        for column in &row[6..8] {
            let content = match column {
                Value::Text(text) => text.as_bytes().to_vec(),
                Value::Blob(bytes) => bytes.clone(),
                _ => return,
            };
            bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&content);
        }
        previous = crate::crypto::sha256(&[&bytes]);
    }
}

/// Verification fails, with this in its error; so it does with the hashes recomputed that have no key.
#[track_caller]
fn assert_named(place: &Place, kms: &LocalKms, forged: &[Row], expected: &str) {
    let sql = place.sql();
    let honest = rows(&sql);
    let mut rechained = forged.to_vec();
    rechain(kms, &mut rechained);
    put_rows(&sql, forged);
    named(block_on(kms.verify_audit(None)), expected);
    // Where it was a hash without a key that was changed, recomputing undoes it.
    if rechained != honest {
        put_rows(&sql, &rechained);
        let error = block_on(kms.verify_audit(None)).expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    }
    put_rows(&sql, &honest);
    block_on(kms.verify_audit(None)).unwrap();
}

#[track_caller]
pub(super) fn named<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    let error = result.expect_err(expected);
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    assert!(error.to_string().contains(expected), "{expected:?} is not in {error}");
}

#[test]
fn allowed_denied_and_failed_calls_are_all_there_in_order() {
    let (_place, kms) = furnished();
    let records = all(&kms);
    let seen: Vec<_> =
        records.iter().map(|it| (&*it.event_name, &*it.principal, it.error_code.as_deref(), it.outcome())).collect();
    use AuditOutcome::{Allowed, Denied, Failed};
    assert_eq!(
        seen,
        [
            ("CreateKeystore", "owner", None, Allowed),
            ("CreateKey", "owner", None, Allowed),
            ("Encrypt", "owner", None, Allowed),
            ("Decrypt", "owner", None, Allowed),
            ("Decrypt", "mallory", Some("AccessDeniedException"), Denied),
            ("RotateKeyOnDemand", "owner", None, Allowed),
            ("DescribeKey", "owner", Some("NotFoundException"), Failed),
            ("DeleteAlias", "owner", None, Allowed),
            ("Encrypt", "owner", None, Allowed),
        ]
    );
    for (at, record) in records.iter().enumerate() {
        assert_eq!(record.sequence, at as u64 + 1);
        assert!(at == 0 || record.previous_hash == records[at - 1].record_hash);
    }
    assert!(records[4].error_message.as_ref().unwrap().contains("mallory"));
    assert!(records[2].request_parameters.contains("acme"), "the encryption context is shown");
    assert_eq!(records[5].resources.len(), 1);
    let changed: Vec<_> =
        records[5].changes.iter().map(|(row, hash)| (row.split(' ').next().unwrap(), hash.is_some())).collect();
    assert_eq!(changed, [("key_versions", true), ("keys", true)]);
    assert!(records[7].changes.iter().any(|(row, hash)| row == "aliases alias/orders" && hash.is_none()));
    let report = block_on(kms.verify_audit(None)).unwrap();
    assert_eq!((report.records, report.first, report.last, report.checkpoint), (9, 1, 9, 0));
    assert_eq!(report.head, block_on(kms.audit_head()).unwrap());
    // Looking leaves no record.
    assert_eq!(all(&kms).len(), 9);
}

#[test]
fn records_that_were_dropped_moved_edited_doubled_or_added_are_named() {
    let (place, kms) = furnished();
    let honest = rows(&place.sql());
    let without =
        |at: usize| honest.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, row)| row.clone()).collect::<Vec<_>>();
    assert_named(&place, &kms, &without(0), "the audit record 1 was removed");
    assert_named(&place, &kms, &without(4), "the audit record 5 was removed");
    assert_named(&place, &kms, &without(8), "the audit record 9 was removed");
    // Who drops the last ones without knowing what they carry drops the head too.
    for (dropped, expected) in [
        ("sequence > 5", "the audit record 6 was removed, and the head with it"),
        ("sequence > 8", "the audit record 9 was removed, and the head with it"),
        ("TRUE", "all its audit records were removed, and the head with them"),
    ] {
        let sql = place.sql();
        sql.execute_batch(&format!("CREATE TABLE kept AS SELECT * FROM audit; DELETE FROM audit WHERE {dropped}"))
            .unwrap();
        named(block_on(kms.verify_audit(None)), expected);
        named(block_on(kms.list_keys()), expected);
        named(place.try_open(), expected);
        sql.execute_batch("DELETE FROM audit; INSERT INTO audit SELECT * FROM kept; DROP TABLE kept").unwrap();
    }
    block_on(kms.verify_audit(None)).unwrap();
    // Dropped, and the later ones moved up so that no number is missing.
    for at in [0, 4] {
        let mut forged = without(at);
        for (at, row) in forged.iter_mut().enumerate() {
            row[0] = Value::Integer(at as i64 + 1);
        }
        assert_named(&place, &kms, &forged, &format!("the audit record {} was changed", at + 1));
    }
    // Two change places.
    let mut forged = honest.clone();
    forged.swap(2, 5);
    (forged[2][0], forged[5][0]) = (Value::Integer(3), Value::Integer(6));
    assert_named(&place, &kms, &forged, "the audit record 3 was changed");
    let mut forged = honest.clone();
    forged.insert(4, honest[3].clone());
    assert_named(&place, &kms, &forged, "the audit record 4 is there twice");
    let mut forged = honest.clone();
    let mut added = honest[8].clone();
    added[0] = Value::Integer(10);
    forged.push(added.clone());
    assert_named(&place, &kms, &forged, "the audit record 10 was added");
    added[0] = Value::Integer(0);
    forged[9] = added;
    assert_named(&place, &kms, &forged, "the audit record 0 was added");
}

#[test]
fn every_column_of_every_record_that_is_edited_is_named() {
    let (place, kms) = furnished();
    let honest = rows(&place.sql());
    let mut cells = 0;
    for at in 0..honest.len() {
        for column in 1..10 {
            let mut forged = honest.clone();
            let cell = &mut forged[at][column];
            *cell = match cell.clone() {
                Value::Integer(number) => Value::Integer(number + 1),
                Value::Text(text) if text == "AccessDeniedException" => Value::Text(String::new()),
                Value::Text(text) => Value::Text(format!("{text}x")),
                Value::Blob(bytes) if bytes.is_empty() => Value::Blob(vec![0]),
                Value::Blob(mut bytes) => {
                    bytes[0] ^= 1;
                    Value::Blob(bytes)
                }
                other => other,
            };
            assert_named(&place, &kms, &forged, &format!("the audit record {} was changed", at + 1));
            // The same bytes as another type: a search would not find them.
            let mut forged = honest.clone();
            let cell = &mut forged[at][column];
            *cell = match cell.clone() {
                Value::Text(text) => Value::Blob(text.into_bytes()),
                Value::Integer(number) => Value::Text(number.to_string()),
                other => {
                    cells += 1;
                    assert!(matches!(other, Value::Blob(_)));
                    continue;
                }
            };
            assert_named(&place, &kms, &forged, &format!("the audit record {} was changed", at + 1));
            cells += 1;
        }
    }
    println!("{cells} cells edited, all named");
    assert_eq!(cells, 9 * 9);
}

#[test]
fn a_record_that_was_edited_is_not_given_to_a_query() {
    let (place, kms) = furnished();
    place.sql().execute("UPDATE audit SET principal = 'owner' WHERE sequence = 5", []).unwrap();
    named(block_on(kms.query_audit(&AuditQuery::default().event_name("Decrypt"))), "the audit record 5 was changed");
    named(block_on(kms.export_audit(&AuditQuery::default(), Vec::new())), "the audit record 5 was changed");
}

#[test]
fn rows_that_were_deleted_replayed_or_put_back_are_named_from_the_trail_or_its_checkpoint() {
    for change in ["version removed", "key removed", "replayed", "put back"] {
        for trimmed in [false, true] {
            let (place, kms) = furnished();
            let sql = place.sql();
            let of = |sql: &Connection, query: &str, width| -> Row {
                sql.query_row(query, [], |row| (0..width).map(|at| row.get(at)).collect()).unwrap()
            };
            let key = block_on(kms.list_keys()).unwrap()[0].key_id.clone();
            let old_key = of(&sql, "SELECT * FROM keys", 14);
            block_on(kms.create_alias("alias/back", &key)).unwrap();
            let old_alias = of(&sql, "SELECT * FROM aliases", 5);
            block_on(kms.delete_alias("alias/back")).unwrap();
            block_on(kms.rotate(&key)).unwrap();
            if trimmed {
                // What the trail told until now is in its checkpoint.
                block_on(kms.trim_audit(AuditRetention::Newest(0))).unwrap();
                assert_eq!(all(&kms).len(), 1);
            }
            block_on(kms.verify_audit(None)).unwrap();
            let expected = match change {
                "version removed" => {
                    sql.execute("DELETE FROM key_versions WHERE version = 2", []).unwrap();
                    format!("the row \"key_versions {key}/2\" was removed")
                }
                "key removed" => {
                    sql.execute("DELETE FROM keys", []).unwrap();
                    format!("the row \"keys {key}\" was removed")
                }
                "replayed" => {
                    let places = vec!["?"; old_key.len()].join(", ");
                    let statement = format!("INSERT OR REPLACE INTO keys VALUES ({places})");
                    sql.execute(&statement, params_from_iter(&old_key)).unwrap();
                    format!("the row \"keys {key}\" was replaced by an older one")
                }
                _ => {
                    sql.execute("INSERT INTO aliases VALUES (?, ?, ?, ?, ?)", params_from_iter(&old_alias)).unwrap();
                    "the row \"aliases alias/back\" was put back after it was removed".to_owned()
                }
            };
            named(place.try_open(), &expected);
            named(block_on(kms.verify_audit(None)), &expected);
            // With the trail changed too, it is found all the same, and not named.
            sql.execute_batch("UPDATE audit SET changes = x''; DELETE FROM audit_checkpoint;").unwrap();
            named(place.try_open(), "the audit trail, which would tell which, was changed too");
        }
    }
}

#[test]
fn every_change_of_the_checkpoint_is_found() {
    let (place, kms) = furnished();
    for trimmed in [false, true] {
        if trimmed {
            block_on(kms.trim_audit(AuditRetention::Newest(2))).unwrap();
        }
        let sql = place.sql();
        for change in [
            "UPDATE audit_checkpoint SET row_hash = zeroblob(32) WHERE row_name = (SELECT max(row_name) FROM audit_checkpoint)",
            "UPDATE audit_checkpoint SET row_name = row_name || 'x'",
            "UPDATE audit_checkpoint SET row_hash = x'00'",
            "DELETE FROM audit_checkpoint WHERE row_name = (SELECT max(row_name) FROM audit_checkpoint)",
            "INSERT INTO audit_checkpoint VALUES ('keys x', zeroblob(32))",
        ] {
            sql.execute_batch("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM audit_checkpoint")
                .unwrap();
            assert!(sql.execute(change, []).unwrap() > 0);
            named(block_on(kms.verify_audit(None)), "the checkpoint of its audit trail was changed");
            // Nor is anything cut off on top of it.
            named(block_on(kms.trim_audit(AuditRetention::Newest(0))), "the checkpoint of its audit trail was changed");
            sql.execute_batch(
                "DELETE FROM audit_checkpoint; INSERT INTO audit_checkpoint SELECT * FROM kept; DROP TABLE kept",
            )
            .unwrap();
            block_on(kms.verify_audit(None)).unwrap();
        }
    }
}

#[test]
fn an_older_whole_file_is_found_with_an_anchored_head_and_not_without() {
    let (place, kms) = furnished();
    block_on(kms.close()).unwrap();
    let older = fs::read(place.keystore()).unwrap();
    let kms = place.open();
    let key = block_on(kms.list_keys()).unwrap()[0].key_id.clone();
    block_on(kms.rotate(&key)).unwrap();
    let anchored: AuditHead = block_on(kms.audit_head()).unwrap().to_string().parse().unwrap();
    assert_eq!((anchored.sequence(), anchored.keystore_id()), (11, kms.keystore_id()));
    assert_eq!(block_on(kms.verify_audit(Some(&anchored))).unwrap().head, anchored);
    block_on(kms.encrypt(&key, b"z", &context())).unwrap();
    block_on(kms.verify_audit(Some(&anchored))).unwrap();
    block_on(kms.close()).unwrap();

    fs::write(place.keystore(), &older).unwrap();
    let kms = place.open();
    block_on(kms.verify_audit(None)).unwrap();
    named(
        block_on(kms.verify_audit(Some(&anchored))),
        "it is an older file that was put back: it ends with the audit record 9",
    );
    // The older file is written on, past the record that was anchored.
    for _ in 0..4 {
        block_on(kms.describe_key(&key)).unwrap();
    }
    block_on(kms.verify_audit(None)).unwrap();
    named(block_on(kms.verify_audit(Some(&anchored))), "the audit record 11 is not the one that was anchored");

    let other = Place::new().open();
    assert_eq!(block_on(other.verify_audit(Some(&anchored))).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_head_is_one_line_that_is_whole_or_refused() {
    let (_place, kms) = furnished();
    let line = block_on(kms.audit_head()).unwrap().to_string();
    assert!(line.starts_with("envelock-audit1.") && line.len() == 16 + 123, "{line}");
    assert_eq!(format!(" {line}\n").parse::<AuditHead>().unwrap().to_string(), line);
    for at in 0..line.len() {
        let mut bytes = line.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(changed.parse::<AuditHead>().is_err(), "{changed}");
        assert!(line[..at].parse::<AuditHead>().is_err());
    }
}

#[test]
fn the_old_end_is_cut_off_and_what_stays_verifies() {
    let (place, kms) = furnished();
    let early = block_on(kms.audit_head()).unwrap();
    let before = block_on(kms.operation_counts()).unwrap();
    assert_eq!(before.iter().map(|it| it.count).sum::<u64>(), 9);
    let key = block_on(kms.list_keys()).unwrap()[0].key_id.clone();
    block_on(kms.record_cache_statistics(figures(3, 40))).unwrap();
    let trimmed = block_on(kms.trim_audit(AuditRetention::Newest(4))).unwrap();
    assert_eq!((trimmed.removed, trimmed.checkpoint), (7, 7));
    let report = block_on(kms.verify_audit(None)).unwrap();
    assert_eq!((report.records, report.first, report.last, report.checkpoint), (5, 8, 12, 7));
    let records = all(&kms);
    assert_eq!((records[0].sequence, &*records[4].event_name), (8, "TrimAudit"));
    assert!(records[4].request_parameters.contains("\"removedRecords\":7"), "{}", records[4].request_parameters);
    // The counts are what they were.
    for it in &before {
        let now = block_on(kms.operation_counts()).unwrap();
        let same = now
            .iter()
            .find(|now| (&now.operation, &now.key_id, &now.error_code) == (&it.operation, &it.key_id, &it.error_code));
        assert_eq!(same.unwrap().count, it.count, "{it:?}");
    }
    block_on(kms.verify_audit(Some(&early))).unwrap();
    let trimmed = block_on(kms.trim_audit(AuditRetention::Newest(0))).unwrap();
    assert_eq!((trimmed.removed, trimmed.checkpoint), (5, 12));
    let error = block_on(kms.verify_audit(Some(&early))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("cut off"), "{error}");
    assert_eq!(block_on(kms.cost_report(Prices::AWS)).unwrap().requests_saved, 40, "what was cut off counts");
    block_on(kms.rotate(&key)).unwrap();
    block_on(kms.close()).unwrap();
    let kms = place.open();
    block_on(kms.verify_audit(None)).unwrap();
    // What was cut off does not come back.
    let sql = place.sql();
    sql.execute("UPDATE audit SET sequence = 12 WHERE sequence = 13", []).unwrap();
    named(block_on(kms.verify_audit(None)), "the audit record 12 was added: the trail begins after 12");
}

#[test]
fn a_cut_verifies_what_it_cuts_and_is_the_owners() {
    let (place, kms) = furnished();
    let mallory = kms.as_principal("mallory").unwrap();
    let later = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(
        block_on(mallory.trim_audit(AuditRetention::Since(later))).unwrap_err().code(),
        Some("AccessDeniedException")
    );
    assert_eq!(
        block_on(mallory.query_audit(&AuditQuery::default())).unwrap_err().code(),
        Some("AccessDeniedException")
    );
    assert_eq!(all(&kms).len(), 10);
    let nothing = block_on(kms.trim_audit(AuditRetention::Since(UNIX_EPOCH))).unwrap();
    assert_eq!((nothing.removed, nothing.checkpoint), (0, 0));
    let sql = place.sql();
    sql.execute("UPDATE audit SET name = 'Encrypt' WHERE sequence = 4", []).unwrap();
    named(block_on(kms.trim_audit(AuditRetention::Since(later))), "the audit record 4 was changed");
    sql.execute("UPDATE audit SET name = 'Decrypt' WHERE sequence = 4", []).unwrap();
    let records = all(&kms);
    assert_eq!((records.len(), records[11].error_code.as_deref()), (12, Some("KeystoreTampered")), "nothing was cut");
    assert_eq!(block_on(kms.trim_audit(AuditRetention::Since(later))).unwrap().removed, 12);
    block_on(kms.verify_audit(None)).unwrap();
}

#[test]
fn records_are_found_by_key_principal_time_event_and_outcome_in_pages() {
    let (_place, kms) = furnished();
    let key = block_on(kms.list_keys()).unwrap()[0].clone();
    block_on(kms.create_alias("alias/orders", &key.key_id)).unwrap();
    let other = new_key(&kms);
    let blob = block_on(kms.encrypt(&key.key_id, b"x", &context())).unwrap().ciphertext_blob;
    block_on(kms.re_encrypt(&blob, &context(), &other)).unwrap();
    let sequences = |query: AuditQuery| -> Vec<u64> {
        block_on(kms.query_audit(&query)).unwrap().iter().map(|it| it.sequence).collect()
    };
    let of_key = vec![2, 3, 4, 5, 6, 8, 9, 11, 13];
    for name in [&*key.key_id, &*key.arn, "alias/orders"] {
        assert_eq!(sequences(AuditQuery::default().key(name)), of_key, "{name}");
    }
    assert_eq!(sequences(AuditQuery::default().key(&other)), [12, 14]);
    let moved = block_on(kms.query_audit(&AuditQuery::default().key(&other).event_name("ReEncrypt"))).unwrap();
    assert_eq!(moved[0].resources.len(), 2, "both keys: {:?}", moved[0].resources);
    assert_eq!(sequences(AuditQuery::default().principal("mallory")), [5]);
    assert_eq!(sequences(AuditQuery::default().outcome(AuditOutcome::Denied)), [5]);
    assert_eq!(sequences(AuditQuery::default().outcome(AuditOutcome::Failed)), [7]);
    assert_eq!(sequences(AuditQuery::default().outcome(AuditOutcome::Allowed)).len(), 12);
    assert_eq!(sequences(AuditQuery::default().event_name("Encrypt").newest_first()), [13, 9, 3]);
    assert_eq!(sequences(AuditQuery::default().key(&key.key_id).newest_first().limit(2)), [13, 11]);
    assert_eq!(sequences(AuditQuery::default().key(&key.key_id).newest_first().after(11).limit(2)), [9, 8]);
    assert_eq!(sequences(AuditQuery::default().after(12)), [13, 14]);
    let now = SystemTime::now() + Duration::from_secs(1);
    assert_eq!(sequences(AuditQuery::default().until(now)).len(), 14);
    assert_eq!(sequences(AuditQuery::default().from(now)), [0; 0]);
    assert_eq!(
        block_on(kms.query_audit(&AuditQuery::default().key("alias/no"))).unwrap_err().code(),
        Some("NotFoundException")
    );
}

#[test]
fn an_export_is_json_lines_in_cloudtrails_words() {
    let (_place, kms) = furnished();
    let mut out = Vec::new();
    assert_eq!(block_on(kms.export_audit(&AuditQuery::default(), &mut out)).unwrap(), 9);
    let lines: Vec<serde_json::Value> =
        std::str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 9);
    let denied = &lines[4];
    assert_eq!(denied["eventName"], "Decrypt");
    assert_eq!(denied["eventSource"], "kms.envelock");
    assert_eq!(denied["userIdentity"]["principalId"], "mallory");
    assert_eq!(denied["errorCode"], "AccessDeniedException");
    assert_eq!(denied["requestParameters"]["encryptionContext"]["tenant"], "acme");
    assert_eq!(denied["previousHash"], lines[3]["recordHash"]);
    assert!(denied["eventTime"].as_str().unwrap().ends_with('Z') && lines[1]["errorCode"].is_null());
    assert!(denied["resources"][0]["ARN"].as_str().unwrap().starts_with("envelock:local:"));
    assert!(lines[1]["changes"].as_array().unwrap().iter().all(|it| it["hash"].as_str().unwrap().len() == 64));
    let mut two = Vec::new();
    assert_eq!(block_on(kms.export_audit(&AuditQuery::default().limit(2), &mut two)).unwrap(), 2);
    assert!(out.starts_with(&two));
}

#[test]
fn what_waits_in_the_buffer_is_in_the_head_and_in_queries() {
    let place = Place::new();
    drop(place.open());
    let options = crate::kms::KmsOptions::default().risk_losing_audit_records(Duration::from_secs(600));
    let kms =
        LocalKms::open_with(place.keystore(), crate::kms::RootKey::file(place.root_key()).unwrap(), options).unwrap();
    block_on(kms.list_keys()).unwrap();
    assert_eq!(block_on(kms.audit_head()).unwrap().sequence(), 2);
    block_on(kms.list_keys()).unwrap();
    assert_eq!(all(&kms).len(), 3);
    block_on(kms.trim_audit(AuditRetention::Newest(1))).unwrap();
    assert_eq!(block_on(kms.verify_audit(None)).unwrap().records, 2);
    // The root key does not leave before the file says so, whatever the mode.
    block_on(kms.export_root_key()).unwrap();
    assert_eq!(place.trail().last().unwrap()[0], "ExportRootKey");
}

fn figures(calls: u64, saved: u64) -> CacheFigures {
    let mut figures = CacheFigures::default();
    (figures.encrypt_calls, figures.encrypt_saved) = (calls, saved);
    figures
}

#[test]
fn the_cost_report_counts_what_a_cloud_kms_would_charge_for_and_what_caches_saved() {
    let (_place, kms) = furnished();
    block_on(kms.record_cache_statistics(figures(2, 1_000_000))).unwrap();
    block_on(kms.record_cache_statistics(figures(1, 500_000).since(figures(1, 0)))).unwrap();
    let report = block_on(kms.cost_report(Prices::AWS)).unwrap();
    // Not what is ours alone: CreateKeystore, RecordCacheStatistics.
    assert_eq!(report.requests_total(), 8);
    assert!(
        report.requests.contains(&("Decrypt".to_owned(), 2)) && report.requests.contains(&("Encrypt".to_owned(), 2))
    );
    assert_eq!(report.requests_saved, 1_500_000);
    assert!((report.saved() - 4.5).abs() < 1e-9, "{}", report.saved());
    assert!((report.requests_cost() - 0.000_024).abs() < 1e-9);
    assert!(report.key_months < 0.001, "a key and a rotation of some milliseconds: {}", report.key_months);
    let dear = Prices { per_10_000_requests: 10_000.0, per_key_month: 0.0 };
    assert!((block_on(kms.cost_report(dear)).unwrap().cost() - 8.0).abs() < 1e-9);
}

#[test]
fn nobody_fills_the_trail_with_what_he_sends() {
    let place = Place::new();
    let kms = place.open();
    let worker = kms.as_principal("worker").unwrap();
    let key = new_key(&kms);
    let long = "ä".repeat(1_000_000);
    block_on(worker.update_key_description(&key, &long)).unwrap_err();
    block_on(worker.describe_key(&long)).unwrap_err();
    let query = AuditQuery::default().principal("worker");
    let records = block_on(kms.query_audit(&query)).unwrap();
    assert_eq!(records.len(), 2);
    let stored: i64 = place.sql().query_row("SELECT max(length(details)) FROM audit", [], |row| row.get(0)).unwrap();
    assert!(stored < 5_000, "{stored}");
    assert!(
        place
            .sql()
            .query_row("SELECT count(*) FROM audit WHERE details LIKE '%(2000000 bytes)%'", [], |row| row
                .get::<_, i64>(0))
            .unwrap()
            > 0
    );
}
