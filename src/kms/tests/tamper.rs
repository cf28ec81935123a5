//! Changes of the file by something else than envelock, made with SQLite directly or past it.

use super::furnished::{dump, furnished, named_keys, put, remove_all, use_everything};
use super::{Place, block_on, new_key};
use crate::error::ErrorKind;
use crate::kms::LocalKms;
use crate::kms::schema::{KEYS, TABLES, Table};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
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
                // `meta` is used by no operation but the opening, save its check value.
                match table.name == "meta" && *name != "check_value" {
                    true => drop(place.try_open().expect_err(name)),
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
            put(&sql, table, &row);
            match table.name {
                "meta" => drop(place.try_open().expect_err("meta twice")),
                _ => assert_found(&place, &kms, &format!("a row of {} twice", table.name)),
            }
            remove_all(&sql, table, &row);
            assert_found(&place, &kms, &format!("a row of {} deleted", table.name));
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
    let columns = ["schema_version", "sequence", "digest", "audit", "mac"];
    for column in columns {
        let before: Value = sql.query_row(&format!("SELECT {column} FROM head"), [], |row| row.get(0)).unwrap();
        let after = match column {
            "audit" => Value::Blob(vec![1]),
            _ => other(&before),
        };
        sql.execute(&format!("UPDATE head SET {column} = ?1"), params![after]).unwrap();
        assert_found(&place, &kms, column);
        sql.execute(&format!("UPDATE head SET {column} = ?1"), params![before]).unwrap();
        use_everything(&kms).unwrap();
    }
    sql.execute_batch("CREATE TABLE kept AS SELECT * FROM head; DELETE FROM head;").unwrap();
    assert_found(&place, &kms, "no head");
    sql.execute_batch("INSERT INTO head SELECT * FROM kept; DROP TABLE kept;").unwrap();
    use_everything(&kms).unwrap();
}

#[test]
fn an_older_whole_state_is_found_by_a_running_process_by_its_sequence() {
    let (place, kms) = furnished();
    let [key, _] = named_keys(&kms);
    let sql = place.sql();
    let save = |sql: &Connection| {
        let head: Vec<Value> = sql
            .query_row("SELECT schema_version, sequence, digest, audit, mac FROM head", [], |row| {
                (0..5).map(|at| row.get(at)).collect()
            })
            .unwrap();
        (head, dump(sql, &KEYS))
    };
    let restore = |sql: &Connection, (head, keys): &(Vec<Value>, Vec<Vec<Value>>)| {
        sql.execute("DELETE FROM keys", []).unwrap();
        keys.iter().for_each(|row| put(sql, &KEYS, row));
        let update = "UPDATE head SET schema_version = ?1, sequence = ?2, digest = ?3, audit = ?4, mac = ?5";
        sql.execute(update, params_from_iter(head)).unwrap();
    };
    let (old, versions) = (save(&sql), dump(&sql, TABLES[2]));
    block_on(kms.rotate(&key)).unwrap();
    let (new, newest) = (save(&sql), dump(&sql, TABLES[2]));
    let added = newest.iter().find(|row| !versions.contains(row)).unwrap();
    remove(&sql, TABLES[2], added);
    restore(&sql, &old);
    let error = use_everything(&kms).unwrap_err();
    assert!(error.to_string().contains("older"), "{error}");
    // What docs/threats.md says: a process that opens it now cannot tell.
    block_on(place.open().close()).unwrap();
    put(&sql, TABLES[2], added);
    restore(&sql, &new);
    use_everything(&kms).unwrap();
}

#[test]
fn a_trigger_or_view_in_the_file_does_nothing_unnoticed() {
    let (place, kms) = furnished();
    place
        .sql()
        .execute_batch("CREATE TRIGGER t AFTER UPDATE ON head BEGIN UPDATE keys SET state = 'Disabled'; END;")
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
