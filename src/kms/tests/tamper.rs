//! Changes of the file by something else than envelock, made with SQLite directly or past it.

use super::furnished::{
    assert_tampered, dump, furnished, named_keys, other, put, remove, remove_all, sentence, use_everything,
    without_constraints,
};
use super::named::assert_one_named;
use super::{Place, block_on, new_key};
use crate::error::ErrorKind;
use crate::kms::rows::RowName;
use crate::kms::schema::{KEYS, TABLES};
use crate::kms::{AuditRetention, LocalKms, RootKey};
use rusqlite::Connection;
use rusqlite::types::Value;

/// The tampering is found by the process that has the keystore open, in its next operation and when it verifies the trail,
/// and by one that opens it. `sentences` are what may be told at open and by verifying, and `names` what the operation
/// may name besides.
#[track_caller]
fn assert_found(place: &Place, kms: &LocalKms, sentences: &[String], names: &[&str], what: &str) {
    assert_one_named(place, kms, sentences, what);
    // No operation uses `meta`, but those of `tamper_uses`.
    if !what.starts_with("meta") {
        let names: Vec<_> = names.iter().map(|name| format!("the row {name:?} ")).collect();
        assert_tampered(&use_everything(kms).expect_err(what), &names, &format!("{what}, in use"));
    }
}

/// As [`assert_found`], where it is no row of a table that was changed.
#[track_caller]
fn assert_seen(place: &Place, kms: &LocalKms, what: &str) {
    assert_one_named(place, kms, &[String::new()], what);
    assert_tampered(&use_everything(kms).expect_err(what), &[String::new()], what);
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
    let long = std::env::var("ENVELOCK_LONG").is_ok_and(|it| it == "1");
    let mut cells = 0;
    for table in TABLES {
        without_constraints(&sql, table);
        let rows = dump(&sql, table);
        // By default of the first and the last two of each table.
        let tried = rows.iter().enumerate().filter(|(at, _)| long || *at == 0 || *at + 2 >= rows.len());
        for (_, row) in tried {
            for at in 0..row.len() {
                let mut changed = row.clone();
                changed[at] = other(&row[at]);
                remove(&sql, table, row);
                put(&sql, table, &changed);
                let what = format!("{}.{}", table.name, table.columns.get(at).unwrap_or(&"row_mac"));
                // One that was given another identity is told by that, and by the one that is missing.
                let [was, is] = [row, &changed].map(|row| RowName::of(table, row));
                let told = sentence(table, &changed, "was changed");
                assert_found(&place, &kms, &[told], &[was.as_str(), is.as_str()], &what);
                remove(&sql, table, &changed);
                put(&sql, table, row);
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
            let name = RowName::of(table, &row);
            for happened in ["is there twice", "was removed"] {
                match happened {
                    "is there twice" => put(&sql, table, &row),
                    _ => remove_all(&sql, table, &row),
                }
                let what = format!("{} {happened}", name.as_str());
                assert_found(&place, &kms, &[sentence(table, &row, happened)], &[name.as_str()], &what);
            }
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
            let told = [&swapped.0, &swapped.1].map(|row| sentence(table, row, "was changed"));
            let names = [&swapped.0, &swapped.1].map(|row| RowName::of(table, row));
            let names: Vec<_> = names.iter().map(RowName::as_str).collect();
            assert_found(&place, &kms, &told, &names, &format!("{} swapped", table.name));
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
                let (told, name) = (sentence(table, &old, "was replaced by an older one"), RowName::of(table, &old));
                assert_found(&place, &kms, &[told], &[name.as_str()], &format!("{} older", table.name));
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
        assert_seen(&place, &kms, &format!("byte {at} of the head"));
    }
    for len in [0, 1, before.len() - 1] {
        put_head(&sql, &before[..len]);
        assert_seen(&place, &kms, "a cut head");
    }
    put_head(&sql, &[before.as_slice(), &[0]].concat());
    assert_seen(&place, &kms, "a longer head");
    sql.execute_batch("UPDATE audit SET head = NULL").unwrap();
    assert_seen(&place, &kms, "no head");
    // One that another record carries is none.
    sql.execute("UPDATE audit SET head = ?1 WHERE sequence = 1", [&before]).unwrap();
    assert_seen(&place, &kms, "a head of another record");
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
    // SQLite does not read it, which is no word of envelock's own.
    let verified = block_on(kms.verify_audit(None)).map(drop);
    for error in [place.try_open().map(drop), verified, use_everything(&kms)].map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        assert!(error.to_string().contains("does not have the tables that it was made with"), "{error}");
    }
}
