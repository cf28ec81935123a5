//! Changes of the file by something else than envelock, made with SQLite directly or past it.

use super::furnished::{dump, furnished, named_keys, put, remove_all, use_everything};
use super::{Place, block_on, new_key};
use crate::error::ErrorKind;
use crate::kms::schema::{KEYS, TABLES, Table};
use crate::kms::{AuditRetention, LocalKms, RootKey};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::fs;

/// The tampering is found by the process that has the keystore open, and by one that opens it.
fn assert_found(place: &Place, kms: &LocalKms, what: &str) {
    let running = use_everything(kms).expect_err(&format!("{what}: a running process did not see it"));
    let opening = place.try_open().expect_err(&format!("{what}: opening did not see it"));
    for error in [running, opening] {
        let seen = matches!(error.kind(), ErrorKind::Storage | ErrorKind::NoMatchingKey | ErrorKind::Unsupported);
        assert!(seen, "{what}: {error:?}");
    }
}

/// Another value of the same type, as a forger would choose it.
fn other(value: &Value) -> Value {
    match value {
        Value::Null => Value::Integer(1),
        Value::Integer(number) => Value::Integer(number ^ 1),
        Value::Real(number) => Value::Real(number + 1.0),
        Value::Text(text) => Value::Text(match text.as_str() {
            "Enabled" => "Disabled".to_owned(),
            "customer" => "managed".to_owned(),
            _ => format!("{text}x"),
        }),
        Value::Blob(bytes) => {
            let mut bytes = bytes.clone();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            Value::Blob(bytes)
        }
    }
}

/// Exactly this row, not another that was given its identity.
fn remove(sql: &Connection, table: &Table, row: &[Value]) {
    let all: Vec<_> = table.columns.iter().chain([&"row_mac"]).map(|it| format!("{it} IS ?")).collect();
    let statement = format!("DELETE FROM {} WHERE {}", table.name, all.join(" AND "));
    assert_eq!(sql.execute(&statement, params_from_iter(row)).unwrap(), 1);
}

/// Without the checks and keys that the tables were made with: what a writer of the file can do.
fn without_constraints(sql: &Connection, table: &Table) {
    let columns = format!("{}, row_mac", table.columns.join(", "));
    sql.execute_batch(&format!(
        "CREATE TABLE free ({columns}); INSERT INTO free SELECT {columns} FROM {0};
         DROP TABLE {0}; ALTER TABLE free RENAME TO {0};",
        table.name
    ))
    .unwrap();
}

#[test]
fn the_use_of_everything_finds_nothing_in_an_untouched_keystore() {
    let (place, kms) = furnished();
    use_everything(&kms).unwrap();
    use_everything(&place.open()).unwrap();
    // Nor after a rewrite of every table by SQLite, with the same rows.
    for table in TABLES {
        without_constraints(&place.sql(), table);
    }
    use_everything(&kms).unwrap();
    use_everything(&place.open()).unwrap();
}

#[test]
fn every_column_of_every_deciding_row_that_is_changed_is_found() {
    let (place, kms) = furnished();
    let sql = place.sql();
    let mut cells = 0;
    for table in TABLES {
        without_constraints(&sql, table);
        for row in dump(&sql, table) {
            for at in 0..row.len() {
                let mut changed = row.clone();
                changed[at] = other(&row[at]);
                remove(&sql, table, &row);
                put(&sql, table, &changed);
                let name = table.columns.get(at).unwrap_or(&"row_mac");
                // `meta` is used by no operation but the opening.
                match table.name == "meta" {
                    true => {
                        drop(place.try_open().expect_err(name));
                        drop(block_on(kms.verify_audit(None)).expect_err(name));
                    }
                    false => assert_found(&place, &kms, &format!("{}.{name}", table.name)),
                }
                remove(&sql, table, &changed);
                put(&sql, table, &row);
                cells += 1;
            }
        }
        use_everything(&kms).unwrap();
    }
    println!("{cells} cells changed, all found");
    use_everything(&place.open()).unwrap();
}

#[test]
fn every_deciding_row_that_is_deleted_or_there_twice_is_found() {
    let (place, kms) = furnished();
    let sql = place.sql();
    for table in TABLES {
        without_constraints(&sql, table);
        for row in dump(&sql, table) {
            let assert_found = |what: &str| match table.name {
                "meta" => {
                    drop(place.try_open().expect_err(what));
                    drop(block_on(kms.verify_audit(None)).expect_err(what));
                }
                name => assert_found(&place, &kms, &format!("a row of {name} {what}")),
            };
            put(&sql, table, &row);
            assert_found("twice");
            remove_all(&sql, table, &row);
            assert_found("deleted");
            put(&sql, table, &row);
        }
        use_everything(&kms).unwrap();
    }
}

#[test]
fn rows_swapped_between_keys_or_aliases_are_found() {
    let (place, kms) = furnished();
    let sql = place.sql();
    let mut swapped_tables = 0;
    for table in TABLES.into_iter().filter(|table| table.name != "meta") {
        let rows = dump(&sql, table);
        if rows.len() < 2 {
            continue;
        }
        swapped_tables += 1;
        let last = rows[rows.len() - 1].clone();
        // The contents change places, with and without their MACs; the identities stay.
        for width in [rows[0].len(), rows[0].len() - 1] {
            let mut swapped = (rows[0].clone(), last.clone());
            swapped.0[table.identity..width].clone_from_slice(&last[table.identity..width]);
            swapped.1[table.identity..width].clone_from_slice(&rows[0][table.identity..width]);
            for (before, after) in [(&rows[0], &swapped.0), (&last, &swapped.1)] {
                remove(&sql, table, before);
                put(&sql, table, after);
            }
            assert_found(&place, &kms, &format!("rows of {} swapped", table.name));
            for (before, after) in [(&swapped.0, &rows[0]), (&swapped.1, &last)] {
                remove(&sql, table, before);
                put(&sql, table, after);
            }
            use_everything(&kms).unwrap();
        }
    }
    assert_eq!(swapped_tables, 10, "every table but `meta`");
}

#[test]
fn an_older_authentic_row_put_back_is_found() {
    let (place, kms) = furnished();
    let [key, other] = named_keys(&kms);
    let sql = place.sql();
    let before: Vec<_> = TABLES.iter().map(|table| dump(&sql, table)).collect();
    block_on(kms.rotate(&key)).unwrap();
    block_on(kms.update_alias("alias/orders", &other)).unwrap();
    let mut replayed = 0;
    for (table, old_rows) in TABLES.iter().zip(before) {
        let new_rows = dump(&sql, table);
        for old in old_rows {
            let new = new_rows.iter().find(|it| it[..table.identity] == old[..table.identity]).unwrap();
            if *new != old {
                remove(&sql, table, new);
                put(&sql, table, &old);
                assert_found(&place, &kms, &format!("an older row of {}", table.name));
                remove(&sql, table, &old);
                put(&sql, table, new);
                replayed += 1;
            }
        }
    }
    assert_eq!(replayed, 2, "the key's row and the alias's");
    use_everything(&kms).unwrap();
}

#[test]
fn every_change_of_the_head_is_found() {
    let (place, kms) = furnished();
    let sql = place.sql();
    let before = head(&sql);
    // Schema version, sequence, digest, the trail's ends with their length, MAC.
    assert_eq!(before.len(), 4 + 8 + 32 + 2 + 112 + 32);
    for at in 0..before.len() {
        let mut after = before.clone();
        after[at] ^= 1;
        put_head(&sql, &after);
        assert_found(&place, &kms, &format!("byte {at} of the head"));
    }
    for len in [0, 1, before.len() - 1] {
        put_head(&sql, &before[..len]);
        assert_found(&place, &kms, "a cut head");
    }
    put_head(&sql, &[before.as_slice(), &[0]].concat());
    assert_found(&place, &kms, "a longer head");
    sql.execute_batch("UPDATE audit SET head = NULL").unwrap();
    assert_found(&place, &kms, "no head");
    // One that another record carries is none.
    sql.execute("UPDATE audit SET head = ?1 WHERE sequence = 1", [&before]).unwrap();
    assert_found(&place, &kms, "a head of another record");
    put_head(&sql, &before);
    use_everything(&kms).unwrap();
}

/// As bytes.
fn head(sql: &Connection) -> Vec<u8> {
    sql.query_row("SELECT head FROM audit ORDER BY sequence DESC LIMIT 1", [], |row| row.get(0)).unwrap()
}

fn put_head(sql: &Connection, head: &[u8]) {
    let last = "UPDATE audit SET head = ?1 WHERE sequence = (SELECT max(sequence) FROM audit)";
    assert_eq!(sql.execute(last, [head]).unwrap(), 1);
}

#[test]
fn only_the_last_record_carries_a_head() {
    let (place, kms) = furnished();
    let sql = place.sql();
    let heads = |sql: &Connection| -> (i64, i64) {
        let query = "SELECT count(head), max(sequence) FILTER (WHERE head IS NOT NULL) FROM audit";
        sql.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    let last = |kms: &LocalKms| i64::try_from(block_on(kms.verify_audit(None)).unwrap().last).unwrap();
    for _ in 0..3 {
        block_on(kms.list_aliases()).unwrap();
        assert_eq!(heads(&sql), (1, last(&kms)));
    }
    block_on(kms.trim_audit(AuditRetention::Newest(0))).unwrap();
    assert_eq!(heads(&sql), (1, last(&kms)));
    block_on(kms.rekey(RootKey::file(place.folder.path().join("other.key")).unwrap())).unwrap();
    assert_eq!(heads(&sql), (1, last(&kms)));
}

#[test]
fn an_older_whole_state_is_found_by_a_running_process_by_its_sequence() {
    let (place, kms) = furnished();
    let [key, _] = named_keys(&kms);
    let sql = place.sql();
    let (old, old_keys, versions) = (head(&sql), dump(&sql, &KEYS), dump(&sql, TABLES[2]));
    block_on(kms.rotate(&key)).unwrap();
    let (new, new_keys, newest) = (head(&sql), dump(&sql, &KEYS), dump(&sql, TABLES[2]));
    let put_keys = |keys: &[Vec<Value>]| {
        sql.execute("DELETE FROM keys", []).unwrap();
        keys.iter().for_each(|row| put(&sql, &KEYS, row));
    };
    let added = newest.iter().find(|row| !versions.contains(row)).unwrap();
    remove(&sql, TABLES[2], added);
    put_keys(&old_keys);
    sql.execute_batch(
        "CREATE TABLE kept AS SELECT * FROM audit WHERE head IS NOT NULL; DELETE FROM audit WHERE head IS NOT NULL;",
    )
    .unwrap();
    put_head(&sql, &old);
    let error = use_everything(&kms).unwrap_err();
    assert!(error.to_string().contains("older"), "{error}");
    // What docs/threats.md says: a process that opens it now cannot tell.
    block_on(place.open().close()).unwrap();
    sql.execute_batch("UPDATE audit SET head = NULL; INSERT INTO audit SELECT * FROM kept; DROP TABLE kept;").unwrap();
    put(&sql, TABLES[2], added);
    put_keys(&new_keys);
    put_head(&sql, &new);
    use_everything(&kms).unwrap();
}

#[test]
fn a_trigger_or_view_in_the_file_does_nothing_unnoticed() {
    let (place, kms) = furnished();
    place
        .sql()
        .execute_batch("CREATE TRIGGER t AFTER UPDATE ON audit BEGIN UPDATE keys SET state = 'Disabled'; END;")
        .unwrap();
    new_key(&kms);
    use_everything(&kms).unwrap();
    place.sql().execute_batch("ALTER TABLE aliases RENAME TO a; CREATE VIEW aliases AS SELECT * FROM a;").unwrap();
    assert_found(&place, &kms, "a view in place of a table");
}

#[test]
fn bytes_written_past_sqlite_are_found() {
    let (place, kms) = furnished();
    block_on(kms.close()).unwrap();
    let kms = place.open();
    use_everything(&kms).unwrap();
    let clean = fs::read(place.keystore()).unwrap();
    let mut found = 0;
    for (at, _) in clean.windows(7).enumerate().filter(|(_, window)| *window == b"Enabled") {
        // In place: the open connection must not go on with the page that it has read before.
        let write = |bytes: &[u8]| {
            use std::os::unix::fs::FileExt as _;
            // Kept open: closing it would drop SQLite's locks on the file in this process.
            let file = Box::leak(Box::new(fs::OpenOptions::new().write(true).open(place.keystore()).unwrap()));
            file.write_all_at(bytes, at as u64).unwrap();
        };
        write(b"Enablee");
        assert_found(&place, &kms, "a state past SQLite");
        write(b"Enabled");
        use_everything(&kms).unwrap();
        found += 1;
    }
    assert!(found >= 3, "{found}");
}
