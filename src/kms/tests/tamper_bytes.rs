//! Bytes of deciding rows that are written past SQLite, into the file itself.

use super::furnished::{assert_tampered, dump, furnished_place, sentence, use_everything};
use super::named::assert_one_named;
use super::{Place, block_on};
use crate::kms::schema::{TABLES, Table};
use rusqlite::types::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;

/// A cell that lies in one piece in the file, and where.
struct Cell {
    table: &'static Table,
    row: Vec<Value>,
    column: usize,
    /// Which byte of it is tried, and where that is in the file.
    byte: usize,
    at: usize,
}

/// How many bytes of a record's body a value has (<https://sqlite.org/fileformat2.html>, 2.1).
fn len_in_file(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(0 | 1) => 0,
        Value::Integer(number) => match number.unsigned_abs().leading_zeros() {
            57.. => 1,
            49.. => 2,
            41.. => 3,
            33.. => 4,
            17.. => 6,
            _ => 8,
        },
        Value::Real(_) => 8,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

/// The texts and blobs of all deciding rows, as far as they can be found: a record ends with the row's MAC, which is nowhere
/// else, and its columns lie before that in their order. Of a record that is spread over several pages the MAC is at the end
/// of another than the first columns: those are found by one another.
fn cells(place: &Place, file: &[u8]) -> Vec<Cell> {
    let sql = place.sql();
    let mut cells = Vec::new();
    for table in TABLES {
        for row in dump(&sql, table) {
            let Some(mut end) = only(file, bytes(&row[row.len() - 1])).map(|at| at + 32) else { continue };
            let mut reached = row.len();
            for column in (0..row.len()).rev() {
                let Some(start) = end.checked_sub(len_in_file(&row[column])) else { break };
                let found = bytes(&row[column]);
                if !found.is_empty() && file[start..end] != *found {
                    break;
                }
                if !found.is_empty() {
                    cells.push(Cell { table, row: row.clone(), column, byte: found.len() - 1, at: end - 1 });
                }
                (end, reached) = (start, column);
            }
            let first: Vec<_> = row[..reached].iter().map(bytes).take_while(|it| !it.is_empty()).collect();
            let whole = first.concat();
            let Some(mut at) = only(file, &whole[..whole.len().min(200)]).filter(|_| !whole.is_empty()) else {
                continue;
            };
            for (column, found) in first.iter().enumerate() {
                cells.push(Cell { table, row: row.clone(), column, byte: 0, at });
                at += found.len();
            }
        }
    }
    cells
}

/// Of a text or blob.
fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Text(text) => text.as_bytes(),
        Value::Blob(bytes) => bytes,
        _ => &[],
    }
}

/// Where these bytes are in the file, if they are there once.
fn only(file: &[u8], bytes: &[u8]) -> Option<usize> {
    let mut found = file.windows(bytes.len().max(1)).enumerate().filter(|(_, it)| *it == bytes).map(|(at, _)| at);
    found.next().filter(|_| found.next().is_none())
}

#[test]
fn a_byte_of_any_text_or_blob_that_is_written_past_sqlite_is_found() {
    let place = furnished_place();
    let long = std::env::var("ENVELOCK_LONG").is_ok_and(|it| it == "1");
    let clean = fs::read(place.keystore()).unwrap();
    let all = cells(&place, &clean);
    let kms = place.open();
    // Kept open: closing it would drop SQLite's locks on the file in this process. And written in place: the open
    // connection must not go on with the page that it has read before.
    let file = Box::leak(Box::new(fs::OpenOptions::new().write(true).open(place.keystore()).unwrap()));
    let write = |byte: u8, at: usize| file.write_all_at(&[byte], at as u64).unwrap();
    let mut seen = BTreeSet::new();
    for Cell { table, mut row, column, byte, at } in all {
        // By default one of each column.
        if !seen.insert((table.name, column)) && !long {
            continue;
        }
        let mut changed = bytes(&row[column]).to_vec();
        assert_eq!(changed[byte], clean[at]);
        changed[byte] ^= 1;
        row[column] = match &row[column] {
            Value::Text(_) => Value::Text(String::from_utf8(changed).unwrap()),
            _ => Value::Blob(changed),
        };
        let what = format!("{}.{}", table.name, table.columns.get(column).unwrap_or(&"row_mac"));
        write(clean[at] ^ 1, at);
        assert_one_named(&place, &kms, &[sentence(table, &row, "was changed")], &what);
        // No operation here uses `meta`. Elsewhere a row may not be found any more for its forged neighbour.
        if table.name != "meta" {
            assert_tampered(&use_everything(&kms).expect_err(&what), &["the row ".to_owned()], &what);
        }
        write(clean[at], at);
    }
    use_everything(&kms).unwrap();
    block_on(kms.verify_audit(None)).unwrap();
    // Each column that has a text or a blob here, and each MAC.
    let columns = TABLES.map(|table| seen.iter().filter(|(name, _)| *name == table.name).count());
    assert_eq!(columns, [6, 7, 5, 3, 3, 4, 3, 9, 6, 4, 5]);
}
